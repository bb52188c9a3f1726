//! Runs of plain numbers, passed over 64 bytes at a time.
//!
//! Each class of bytes becomes a mask with one bit a byte, and the grammar of a list of numbers becomes a few operations on
//! masks, as in Langdale and Lemire, "Parsing Gigabytes of JSON per Second" (VLDB Journal, 2019). Only what is certainly
//! right is passed: whatever is in doubt is left to the reader of single elements, which knows what to say of it.

use wide::u8x16;

use super::elements::Bounds;

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 64;
/// Bytes that are compared at once: what every processor of the usual kinds can.
pub(super) const LANE_BYTES: usize = 16;

/// What numbers have to be for a block of them to pass.
#[derive(Debug, Clone, Copy)]
pub(super) enum Plain {
    /// Without a fraction, within bounds.
    Integers(Bounds),
    /// Of at most so many digits before the point.
    Floats {
        /// More may be infinite.
        digits_safe: usize,
    },
}

/// Where the bytes of each class are, the first at the lowest bit.
#[derive(Debug, Default, Clone, Copy)]
struct Masks {
    digits: u64,
    zeros: u64,
    commas: u64,
    spaces: u64,
    minuses: u64,
    points: u64,
}

impl Masks {
    #[inline]
    fn of(block: &[u8; BLOCK_BYTES]) -> Self {
        let are = |byte| bits(block, |lane| lane.simd_eq(u8x16::splat(byte)));
        Self {
            digits: bits(block, |lane| (lane - u8x16::splat(b'0')).simd_lt(u8x16::splat(10))),
            zeros: are(b'0'),
            commas: are(b','),
            spaces: are(b' '),
            minuses: are(b'-'),
            points: are(b'.'),
        }
    }

    /// What is left up to the last comma that only known bytes come before.
    fn whole_elements(self) -> Self {
        let known = self.digits | self.commas | self.spaces | self.minuses | self.points;
        let prefix = low_bits(known.trailing_ones());
        let part = low_bits(u64::BITS - (self.commas & prefix).leading_zeros());
        Self {
            digits: self.digits & part,
            zeros: self.zeros & part,
            commas: self.commas & part,
            spaces: self.spaces & part,
            minuses: self.minuses & part,
            points: self.points & part,
        }
    }
}

/// A bit for each byte that `found` marks.
#[inline]
pub(super) fn bits(block: &[u8; BLOCK_BYTES], found: impl Fn(u8x16) -> u8x16) -> u64 {
    let lanes = block.as_chunks::<LANE_BYTES>().0.iter();
    lanes.rev().fold(0, |bits, lane| bits << LANE_BYTES | u64::from(found(u8x16::new(*lane)).to_bitmask()))
}

const fn low_bits(count: u32) -> u64 {
    if count == u64::BITS { u64::MAX } else { (1 << count) - 1 }
}

/// Where a run of at least `length` digits begins, or may go on.
fn runs(digits: u64, length: usize) -> u64 {
    if length > BLOCK_BYTES {
        return 0;
    }
    let mut runs = digits;
    let mut have = 1;
    while have < length {
        let step = have.min(length - have);
        runs &= runs >> step;
        have += step;
    }
    runs
}

/// How many elements `bytes` begins with that are certainly right, each with its comma, and their bytes. `bytes` begins where
/// an element does.
#[inline]
pub(super) fn passed(bytes: &[u8], plain: Plain) -> Option<(u64, usize)> {
    let block = bytes.first_chunk::<BLOCK_BYTES>()?;
    let masks = Masks::of(block).whole_elements();
    let Masks { digits, zeros, commas, spaces, minuses, points } = masks;
    if commas == 0 {
        return None;
    }
    let after_digit = digits << 1;
    let after_gap = (commas | spaces) << 1 | 1;
    let after_point = points << 1;
    let starts = digits & !after_digit;
    let whole = starts & !after_point;
    let fraction_ends = digits.wrapping_add(starts & after_point) & !digits;
    let wrong = (commas & !after_digit)
        | ((spaces | minuses) & !after_gap)
        | (minuses << 1 & !digits)
        | (points & !after_digit)
        | (after_point & !digits)
        | (points & fraction_ends)
        | ((whole & zeros) << 1 & digits);
    let right = wrong == 0
        && match plain {
            Plain::Floats { digits_safe } => whole & runs(digits, digits_safe + 1) == 0,
            Plain::Integers(bounds) => {
                let long = whole & runs(digits, bounds.digits_safe + 1);
                points == 0
                    && (minuses == 0 || bounds.below > 0)
                    && (long == 0 || {
                        let longer = runs(digits, bounds.digits_safe + 2);
                        let low = bits(block, |lane| lane.simd_lt(u8x16::splat(bounds.leading())));
                        all_within(block, long & (longer | !low), minuses, bounds)
                    })
            }
        };
    let end = (u64::BITS - commas.leading_zeros()) as usize;
    right.then_some((commas.count_ones().into(), end))
}

/// Whether the integers that begin at the bits of `starts` are within bounds.
fn all_within(block: &[u8; BLOCK_BYTES], mut starts: u64, minuses: u64, bounds: Bounds) -> bool {
    while starts != 0 {
        let start = starts.trailing_zeros();
        starts &= starts - 1;
        let most = if minuses << 1 >> start & 1 == 1 { bounds.below } else { bounds.above };
        let mut value = 0_u64;
        for byte in &block[start as usize..] {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            let Some(next) = value.checked_mul(10).and_then(|value| value.checked_add(digit.into())) else {
                return false;
            };
            value = next;
        }
        if value > most {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Plain = Plain::Integers(Bounds { below: 128, above: 127, digits_safe: 2 });
    const UNSIGNED: Plain = Plain::Integers(Bounds { below: 0, above: 255, digits_safe: 2 });
    const FLOATS: Plain = Plain::Floats { digits_safe: 4 };

    fn padded(text: &str) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(bytes.len().max(BLOCK_BYTES), b'x');
        bytes
    }

    #[test]
    fn what_is_plain_passes_up_to_the_last_comma() {
        for (plain, text, elements, bytes) in [
            (SMALL, "1,2,3", 2, 4),
            (SMALL, "-1, 2,  -128,127,12]", 4, 17),
            (SMALL, "0,-0,10,1e5,7,", 3, 8),
            (UNSIGNED, "255,0,99,100,", 4, 13),
            (FLOATS, "0.5,-1.25,1234.5678901234567,7,", 4, 31),
            (FLOATS, " 1,2.0,\n3,", 2, 7),
        ] {
            assert_eq!(passed(&padded(text), plain), Some((elements, bytes)), "{text}");
        }
        let full = "1234567,".repeat(8);
        assert_eq!(passed(full.as_bytes(), FLOATS), None, "digits before the point");
        let wide = Plain::Integers(Bounds { below: 0, above: u64::MAX, digits_safe: 18 });
        assert_eq!(passed(full.as_bytes(), wide), Some((8, 64)));
        assert_eq!(passed(b"1,2,", SMALL), None, "less than a block");
    }

    #[test]
    fn c5_what_is_in_doubt_does_not_pass() {
        for (plain, text) in [
            (SMALL, "128,"),
            (SMALL, "1,-129,"),
            (SMALL, "1,,2,"),
            (SMALL, ",1,"),
            (SMALL, "1 ,2,"),
            (SMALL, "1 2,"),
            (SMALL, "- 1,"),
            (SMALL, "1-,"),
            (SMALL, "1-2,"),
            (SMALL, "--1,"),
            (SMALL, "-,"),
            (SMALL, "01,"),
            (SMALL, "-01,"),
            (SMALL, "1.5,"),
            (SMALL, "99999999999999999999999,"),
            (UNSIGNED, "-1,"),
            (UNSIGNED, "256,"),
            (FLOATS, ".5,"),
            (FLOATS, "5.,"),
            (FLOATS, "-.5,"),
            (FLOATS, "1.2.3,"),
            (FLOATS, "1..3,"),
            (FLOATS, "00.5,"),
            (FLOATS, "1.-5,"),
            (FLOATS, "12345,"),
            (FLOATS, "1. 5,"),
        ] {
            assert_eq!(passed(&padded(text), plain), None, "{text}");
        }
    }

    #[test]
    fn classes_are_found_as_one_by_one() {
        for byte in 0..=u8::MAX {
            for at in 0..BLOCK_BYTES {
                let mut block = [b'x'; BLOCK_BYTES];
                block[at] = byte;
                let masks = Masks::of(&block);
                let bit = |holds: bool| u64::from(holds) << at;
                assert_eq!(masks.digits, bit(byte.is_ascii_digit()), "{byte} at {at}");
                for (mask, class) in [
                    (masks.zeros, b'0'),
                    (masks.commas, b','),
                    (masks.spaces, b' '),
                    (masks.minuses, b'-'),
                    (masks.points, b'.'),
                ] {
                    assert_eq!(mask, bit(byte == class), "{byte} at {at}");
                }
            }
        }
    }
}
