//! Arrays of plain values, held to a type and a shape while they are passed over.
//!
//! Tensors are most of the bytes of an inference request. Nothing of them is kept: numbers pass in blocks where they are plain,
//! else eight digits at a time, and a value is worked out only where its length leaves in doubt whether it is in range.

use smallvec::SmallVec;

use super::blocks::{self, Plain};
use super::{JsonError, JsonFault, Kind, Scanner};

/// Elements that are read one by one after a block that did not pass, for the next is likely to be of its kind.
const AFTER_DOUBT: u64 = 8;

/// What every element has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Wanted {
    /// `true` or `false`.
    Bool,
    /// An integer, written without fraction or exponent.
    Integer {
        /// The most it may be below zero.
        below: u64,
        /// The most it may be above zero.
        above: u64,
    },
    /// Any number whose magnitude is less than this.
    Float {
        /// From here on it would become infinite.
        infinite: f64,
    },
    /// A string.
    Text,
}

/// Why elements are not what they have to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Misfit<'a> {
    /// It is no JSON.
    Json(JsonError),
    /// An element has another type.
    Kind {
        /// Which one, from 0, in row-major order.
        element: u64,
        /// Its type.
        found: Kind,
    },
    /// A number has a fraction or exponent where integers are wanted.
    Fraction {
        /// Which one.
        element: u64,
        /// The number.
        text: &'a str,
    },
    /// A number does not fit the type.
    Range {
        /// Which one.
        element: u64,
        /// The number.
        text: &'a str,
    },
    /// There are fewer or more elements than the shape asks for.
    Count {
        /// How many there are.
        found: u64,
    },
    /// Arrays are nested, but not as the shape has it.
    Nesting,
    /// A nested array has fewer or more elements than the shape asks for.
    Axis {
        /// The axis, from 0.
        axis: usize,
        /// How many elements it has there.
        found: u64,
    },
}

impl From<JsonError> for Misfit<'_> {
    fn from(error: JsonError) -> Self {
        Self::Json(error)
    }
}

/// Integers of so many digits are in range whatever they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The most they may be below zero.
    pub below: u64,
    /// The most they may be above zero.
    pub above: u64,
    /// Those of no more digits are in range.
    pub digits_safe: usize,
}

impl Bounds {
    /// The leading digit of the least bound: what has as many digits and begins with a lower one is in range.
    #[inline]
    pub(super) const fn leading(self) -> u8 {
        let least = if self.below == 0 || self.above < self.below { self.above } else { self.below };
        b'0' + (least / 10_u64.pow(self.digits_safe as u32)) as u8
    }
}

/// What is left of a number after its digits decides about its type.
const fn goes_on(byte: Option<&u8>) -> bool {
    matches!(byte, Some(b'.' | b'e' | b'E'))
}

const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Marks, by its highest bit, each byte of `word` that is no digit.
const fn not_digits(word: u64) -> u64 {
    let low = word ^ 0x3030_3030_3030_3030;
    (((low & !HIGHS) + 0x7676_7676_7676_7676) | low) & HIGHS
}

impl<'a> Scanner<'a> {
    /// Passes over an array of elements that fill `shape`, flat in row-major order or nested as the shape is.
    pub(crate) fn elements(&mut self, wanted: Wanted, shape: &[u64], count: u64) -> Result<(), Misfit<'a>> {
        self.skip_space();
        if self.bytes.get(self.at) != Some(&b'[') {
            return Err(Misfit::Nesting);
        }
        self.deeper()?;
        self.skip_space();
        if self.bytes.get(self.at) == Some(&b'[') {
            return self.nested(wanted, shape);
        }
        let found = self.row(wanted, 0)?;
        if found == count { Ok(()) } else { Err(Misfit::Count { found }) }
    }

    /// The rest of an array of arrays whose bracket was passed.
    fn nested(&mut self, wanted: Wanted, shape: &[u64]) -> Result<(), Misfit<'a>> {
        // Elements seen of each array that is open.
        let mut open: SmallVec<[u64; 8]> = SmallVec::from_elem(0, 1);
        let mut total = 0;
        loop {
            let axis = open.len() - 1;
            if open.len() == shape.len() {
                let found = self.row(wanted, total)?;
                total += found;
                fills(shape, axis, found)?;
            } else {
                self.skip_space();
                match self.bytes.get(self.at) {
                    Some(b'[') if open.len() < shape.len() => {
                        self.deeper()?;
                        open.push(0);
                        continue;
                    }
                    Some(b']') if open[axis] == 0 => {
                        fills(shape, axis, 0)?;
                        self.close();
                    }
                    Some(_) => return Err(Misfit::Nesting),
                    None => return Err(self.fault(JsonFault::Ended).into()),
                }
            }
            open.pop();
            // What was closed may have been the last of what it is in.
            loop {
                let axis = open.len().wrapping_sub(1);
                let Some(seen) = open.last_mut() else { return Ok(()) };
                *seen += 1;
                let seen = *seen;
                self.skip_space();
                match self.bytes.get(self.at) {
                    Some(b',') => {
                        self.at += 1;
                        break;
                    }
                    Some(b']') => {
                        fills(shape, axis, seen)?;
                        self.close();
                        open.pop();
                    }
                    Some(_) | None => return Err(self.fault(JsonFault::CommaExpected).into()),
                }
            }
        }
    }

    fn close(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    /// The elements of an array whose bracket was passed, and its end. `before` were passed in others.
    fn row(&mut self, wanted: Wanted, before: u64) -> Result<u64, Misfit<'a>> {
        match wanted {
            Wanted::Bool => self.row_of(before, None, |scanner, element| {
                scanner.has_kind(Kind::Bool, element)?;
                Ok(scanner.boolean().map(drop)?)
            }),
            Wanted::Text => self.row_of(before, None, |scanner, element| {
                scanner.has_kind(Kind::String, element)?;
                Ok(scanner.string().map(drop)?)
            }),
            Wanted::Integer { below, above } => {
                // One digit less than the least of the bounds has; below may be 0, where only -0 is left.
                let digits_safe =
                    if below == 0 { above.ilog10() } else { below.min(above).ilog10() } as usize;
                let bounds = Bounds { below, above, digits_safe };
                let plain = Some(Plain::Integers(bounds));
                self.row_of(before, plain, |scanner, element| scanner.integer(bounds, element))
            }
            Wanted::Float { infinite } => {
                let digits_safe = infinite.min(f64::MAX).log10() as usize;
                let plain = Some(Plain::Floats { digits_safe });
                self.row_of(before, plain, |scanner, element| scanner.float(infinite, digits_safe, element))
            }
        }
    }

    #[inline]
    fn row_of(
        &mut self,
        before: u64,
        plain: Option<Plain>,
        mut element: impl FnMut(&mut Self, u64) -> Result<(), Misfit<'a>>,
    ) -> Result<u64, Misfit<'a>> {
        self.skip_space();
        if self.bytes.get(self.at) == Some(&b']') {
            self.close();
            return Ok(0);
        }
        let mut count = 0;
        let mut next_block = 0;
        loop {
            if let Some(plain) = plain.filter(|_| count >= next_block) {
                while let Some((elements, bytes)) = blocks::passed(&self.bytes[self.at..], plain) {
                    count += elements;
                    self.at += bytes;
                }
                next_block = count + AFTER_DOUBT;
            }
            if self.bytes.get(self.at).is_some_and(|byte| *byte <= b' ') {
                self.skip_space();
            }
            element(self, before + count)?;
            count += 1;
            if self.bytes.get(self.at).is_some_and(|byte| *byte <= b' ') {
                self.skip_space();
            }
            match self.bytes.get(self.at) {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.close();
                    return Ok(count);
                }
                Some(_) | None => return Err(self.fault(JsonFault::CommaExpected).into()),
            }
        }
    }

    fn has_kind(&mut self, wanted: Kind, element: u64) -> Result<(), Misfit<'a>> {
        let found = self.peek()?;
        if found == wanted {
            return Ok(());
        }
        Err(if found == Kind::Array { Misfit::Nesting } else { Misfit::Kind { element, found } })
    }

    #[inline]
    fn integer(&mut self, bounds: Bounds, element: u64) -> Result<(), Misfit<'a>> {
        let start = self.at;
        let negative = self.bytes.get(start) == Some(&b'-');
        let first = start + usize::from(negative);
        let end = self.digits_end(first);
        let digits = end - first;
        let doubtful = digits == 0
            || (digits > 1 && self.bytes.get(first) == Some(&b'0'))
            || goes_on(self.bytes.get(end));
        if !doubtful && digits <= bounds.digits_safe && !(negative && bounds.below == 0) {
            self.at = end;
            return Ok(());
        }
        self.integer_in_doubt(bounds, element)
    }

    #[cold]
    fn integer_in_doubt(&mut self, bounds: Bounds, element: u64) -> Result<(), Misfit<'a>> {
        self.has_kind(Kind::Number, element)?;
        let text = self.number()?;
        let digits = text.trim_start_matches('-');
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Misfit::Fraction { element, text });
        }
        let most = if digits.len() < text.len() { bounds.below } else { bounds.above };
        // More digits than 64 bits have are more than any bound.
        if digits.parse::<u64>().is_ok_and(|value| value <= most) {
            Ok(())
        } else {
            Err(Misfit::Range { element, text })
        }
    }

    #[inline]
    fn float(&mut self, infinite: f64, digits_safe: usize, element: u64) -> Result<(), Misfit<'a>> {
        let start = self.at;
        let first = start + usize::from(self.bytes.get(start) == Some(&b'-'));
        let whole = self.digits_end(first);
        let digits = whole - first;
        let mut end = whole;
        if self.bytes.get(end) == Some(&b'.') {
            end = self.digits_end(whole + 1);
        }
        let doubtful = digits == 0
            || digits > digits_safe
            || (digits > 1 && self.bytes.get(first) == Some(&b'0'))
            || end == whole + 1
            || goes_on(self.bytes.get(end));
        if !doubtful {
            self.at = end;
            return Ok(());
        }
        self.has_kind(Kind::Number, element)?;
        let text = self.number()?;
        let value: f64 = text.parse().unwrap_or(f64::INFINITY);
        if value.abs() < infinite { Ok(()) } else { Err(Misfit::Range { element, text }) }
    }

    /// Where the digits from `at` on end.
    #[inline]
    fn digits_end(&self, mut at: usize) -> usize {
        while let Some(word) = self.bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
            let marks = not_digits(u64::from_le_bytes(*word));
            if marks != 0 {
                return at + marks.trailing_zeros() as usize / 8;
            }
            at += 8;
        }
        while self.bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    }
}

fn fills<'a>(shape: &[u64], axis: usize, found: u64) -> Result<(), Misfit<'a>> {
    if shape.get(axis) == Some(&found) { Ok(()) } else { Err(Misfit::Axis { axis, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Wanted = Wanted::Integer { below: 128, above: 127 };

    fn read(wanted: Wanted, shape: &[u64], text: &str) -> Result<(), String> {
        let mut scanner = Scanner::new(text, 32);
        let done = scanner.elements(wanted, shape, shape.iter().product());
        done.map_err(|misfit| format!("{misfit:?}"))?;
        assert_eq!(scanner.depth, 0, "{text}");
        scanner.finish().map_err(|error| error.to_string())
    }

    #[track_caller]
    fn good(wanted: Wanted, shape: &[u64], texts: &[&str]) {
        for text in texts {
            assert_eq!(read(wanted, shape, text), Ok(()), "{text}");
        }
    }

    #[track_caller]
    fn bad(wanted: Wanted, shape: &[u64], cases: &[(&str, &str)]) {
        for (text, word) in cases {
            let found = read(wanted, shape, text).expect_err(text);
            assert!(found.contains(word), "{text}: {found}");
        }
    }

    #[test]
    fn flat_and_nested_arrays_fill_their_shape() {
        good(SMALL, &[2, 3], &["[1,2,3,4,5,6]", "[[1,2,3],[4,5,6]]", " [ [ 1 , 2,3 ] , [4,5,\n6 ] ] "]);
        good(SMALL, &[2, 1, 2], &["[[[1,2]],[[3,4]]]", "[1,2,3,4]"]);
        good(SMALL, &[0], &["[]", " [ ]"]);
        good(SMALL, &[2, 0], &["[[],[]]", "[]"]);
        good(SMALL, &[], &["[7]"]);
        bad(
            SMALL,
            &[2, 3],
            &[
                ("[1,2,3,4,5]", "found: 5"),
                ("[1,2,3,4,5,6,7]", "found: 7"),
                ("[[1,2,3],[4,5]]", "axis: 1, found: 2"),
                ("[[1,2,3]]", "axis: 0, found: 1"),
                ("[[1,2,3],[4,5,6],[7,8,9]]", "axis: 0, found: 3"),
                ("[[1,2,3],4,5,6]", "Nesting"),
                ("[1,[2,3],4,5,6]", "Nesting"),
                ("[[[1,2,3],[4,5,6]]]", "Nesting"),
                ("[[],[]]", "axis: 1, found: 0"),
                ("7", "Nesting"),
                ("[[1,2,3],[4,5,6]", "Ended"),
                ("[1,2,3,4,5,6", "Ended"),
                ("[1,2,3,4,5,6}", "CommaExpected"),
                ("[1,2,3,4,5,]", "Value"),
                ("[1,,2,3,4,5]", "Value"),
            ],
        );
        bad(SMALL, &[1], &[("[[1]]", "Nesting")]);
        bad(SMALL, &[], &[("[[1]]", "Nesting"), ("[]", "found: 0")]);
    }

    #[test]
    fn c5_numbers_are_held_to_their_type() {
        good(SMALL, &[1], &["[0]", "[-0]", "[127]", "[-128]", "[99]"]);
        bad(
            SMALL,
            &[1],
            &[
                ("[128]", "Range"),
                ("[-129]", "Range"),
                ("[1000]", "Range"),
                ("[99999999999999999999999999]", "Range"),
                ("[1.0]", "Fraction"),
                ("[1e2]", "Fraction"),
                ("[01]", "Comma"),
                ("[-]", "Number"),
                ("[NaN]", "Value"),
                ("[true]", "found: Bool"),
                (r#"["1"]"#, "found: String"),
                ("[null]", "found: Null"),
            ],
        );
        let unsigned = Wanted::Integer { below: 0, above: u64::MAX };
        good(unsigned, &[1], &["[18446744073709551615]", "[-0]", "[1234567890123456789]"]);
        bad(unsigned, &[1], &[("[18446744073709551616]", "Range"), ("[-1]", "Range")]);
        let signed = Wanted::Integer { below: 1 << 63, above: i64::MAX as u64 };
        good(signed, &[1], &["[-9223372036854775808]", "[9223372036854775807]"]);
        bad(signed, &[1], &[("[-9223372036854775809]", "Range"), ("[9223372036854775808]", "Range")]);
        let half = Wanted::Float { infinite: 65520.0 };
        good(half, &[1], &["[0.5]", "[-65504]", "[1e4]", "[12345.678901234567]", "[1E-400]"]);
        bad(
            half,
            &[1],
            &[
                ("[65520]", "Range"),
                ("[1e5]", "Range"),
                ("[-1e400]", "Range"),
                ("[1.]", "Number"),
                ("[.5]", "Value"),
                ("[01.5]", "Comma"),
            ],
        );
        let double = Wanted::Float { infinite: f64::INFINITY };
        good(double, &[1], &["[1e308]", "[-0.0]"]);
        bad(double, &[1], &[("[1e400]", "Range")]);
    }

    #[test]
    fn booleans_and_strings() {
        good(Wanted::Bool, &[2], &["[true,false]"]);
        bad(Wanted::Bool, &[2], &[("[true,1]", "element: 1, found: Number"), ("[true,tru]", "Value")]);
        good(Wanted::Text, &[2], &[r#"["a","b\n"]"#, r#"["",""]"#]);
        bad(Wanted::Text, &[2], &[(r#"["a",1]"#, "found: Number"), ("[\"a\",\"\u{1}\"]", "Control")]);
    }

    /// Elements that pass in blocks are those that pass one by one.
    #[test]
    fn blocks_change_nothing() {
        let texts = [
            "1", "-1", "0", "-0", "01", "127", "128", "-128", "-129", "255", "256", "1.5", "1.", ".5", "1e2",
            "1.2.3", "-", "", " 7", "7 ", "\t7", "12345", "65519.5", "65520", "1-2", "x", "null",
        ];
        let half = Wanted::Float { infinite: 65520.0 };
        for wanted in [SMALL, Wanted::Integer { below: 0, above: 255 }, half] {
            for text in texts {
                let alone = read(wanted, &[1], &format!("[{text}]"));
                for at in 0..70 {
                    let mut row = vec!["3"; 100];
                    row[at] = text;
                    let among = read(wanted, &[100], &format!("[{}]", row.join(",")));
                    assert_eq!(among.is_ok(), alone.is_ok(), "{text} at {at}: {among:?}");
                }
            }
        }
        bad(SMALL, &[100], &[(&format!("[{}128]", "3,".repeat(99)), "element: 99")]);
        bad(SMALL, &[99], &[(&format!("[{}3]", "3, ".repeat(99)), "found: 100")]);
        bad(SMALL, &[2, 50], &[(&format!("[[{0}3],[{0}x]]", "3,".repeat(49)), "Value")]);
    }

    /// Whatever is accepted is what the slow way accepts.
    #[test]
    fn digits_are_found_as_one_by_one() {
        for length in 0..40 {
            for end in [b',', b'.', b'/', b':', b'\x80', b'\xB0', b'-', b' '] {
                let mut bytes = vec![b'9'; length];
                bytes.push(end);
                bytes.extend_from_slice(b"1234567890");
                for word in bytes.windows(8) {
                    let word: [u8; 8] = word.try_into().expect("eight bytes");
                    let marks = not_digits(u64::from_le_bytes(word));
                    for (at, byte) in word.iter().enumerate() {
                        assert_eq!(marks >> (at * 8 + 7) & 1 == 0, byte.is_ascii_digit(), "{byte}");
                    }
                }
            }
        }
    }
}
