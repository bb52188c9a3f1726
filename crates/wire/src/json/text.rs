//! Strings as they stand in the text, and the search for their end.

use std::borrow::Cow;

use wide::u8x16;

use super::Span;
use super::blocks::{BLOCK_BYTES, LANE_BYTES, bits};

/// Bytes that are unescaped at once.
const CHUNK_BYTES: usize = 1024;
/// The longest character in UTF-8.
const CHARACTER_BYTES_MAX: usize = 4;
/// What the letter of a simple escape means; 0 for all that are none. Real text has many line breaks and quotes in it, in no
/// order that a processor could guess, so that one look-up beats a branch for each.
pub(super) const SIMPLE: [u8; 256] = {
    let mut meant = [0; 256];
    meant[b'"' as usize] = b'"';
    meant[b'\\' as usize] = b'\\';
    meant[b'/' as usize] = b'/';
    meant[b'b' as usize] = 0x08;
    meant[b'f' as usize] = 0x0C;
    meant[b'n' as usize] = b'\n';
    meant[b'r' as usize] = b'\r';
    meant[b't' as usize] = b'\t';
    meant
};
/// Stands for half a surrogate pair where only bytes count: a character without its end, which no text holds.
const LONE_SURROGATE: &[u8] = b"\xEF\xBF";

/// A string, as it stands between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    raw: &'a str,
    start: usize,
    saved: usize,
}

impl<'a> Text<'a> {
    pub(super) const fn new(raw: &'a str, start: usize, saved: usize) -> Self {
        Self { raw, start, saved }
    }

    /// What stands between the quotes, escapes and all.
    pub const fn raw(&self) -> &'a str {
        self.raw
    }

    /// Where it stands, quotes included.
    pub const fn span(&self) -> Span {
        Span { start: self.start - 1, end: self.start + self.raw.len() + 1 }
    }

    /// How many bytes of UTF-8 it means; a lone surrogate counts two.
    pub const fn meant_bytes(&self) -> usize {
        self.raw.len() - self.saved
    }

    /// Whether it means the empty string.
    pub const fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Whether it contains escapes.
    pub const fn escaped(&self) -> bool {
        self.saved > 0
    }

    /// Whether it means `name`.
    pub fn is(&self, name: &str) -> bool {
        if self.escaped() { self.decode().is_some_and(|text| text == name) } else { self.raw == name }
    }

    /// What it means. Borrowed unless it has escapes; `None` if it holds a lone surrogate, which no text can.
    pub fn decode(&self) -> Option<Cow<'a, str>> {
        if !self.escaped() {
            return Some(Cow::Borrowed(self.raw));
        }
        let mut text = String::with_capacity(self.meant_bytes());
        let mut sound = true;
        self.pieces(|piece| {
            match piece {
                Piece::Plain(plain) => text.push_str(plain),
                Piece::Character(character) => text.push(character),
                Piece::LoneSurrogate => sound = false,
            }
            sound
        });
        sound.then_some(Cow::Owned(text))
    }

    /// Gives what it means as bytes, in chunks of any size, until `take` has enough and returns `false`. A lone surrogate
    /// is two bytes of a character without its end, which no text holds.
    pub fn chunks(&self, mut take: impl FnMut(&[u8]) -> bool) {
        let mut rest = self.raw.as_bytes();
        if !self.escaped() {
            take(rest);
            return;
        }
        let mut chunk = [0; CHUNK_BYTES];
        let mut filled = 0;
        while !rest.is_empty() {
            if filled + LANE_BYTES + CHARACTER_BYTES_MAX > CHUNK_BYTES {
                if !take(&chunk[..filled]) {
                    return;
                }
                filled = 0;
            }
            // Copied before it is known how much of it stands for itself: what does not is written over.
            let plain = if let Some((lane, behind)) = rest.split_first_chunk::<LANE_BYTES>() {
                chunk[filled..filled + LANE_BYTES].copy_from_slice(lane);
                let escapes = u8x16::new(*lane).simd_eq(u8x16::splat(b'\\')).to_bitmask();
                // Nearly all are plain, and the next is not to wait until it is counted how many of this one are.
                if escapes == 0 {
                    filled += LANE_BYTES;
                    rest = behind;
                    continue;
                }
                escapes.trailing_zeros() as usize
            } else {
                let plain = rest.iter().position(|&byte| byte == b'\\').unwrap_or(rest.len());
                chunk[filled..filled + plain].copy_from_slice(&rest[..plain]);
                plain
            };
            filled += plain;
            rest = &rest[plain..];
            if rest.first() == Some(&b'\\') {
                let (meant, length) = unescape(rest);
                let room = &mut chunk[filled..filled + CHARACTER_BYTES_MAX];
                filled += match meant {
                    Some(character) => character.encode_utf8(room).len(),
                    None => {
                        room[..LONE_SURROGATE.len()].copy_from_slice(LONE_SURROGATE);
                        LONE_SURROGATE.len()
                    }
                };
                rest = rest.get(length..).unwrap_or_default();
            }
        }
        take(&chunk[..filled]);
    }

    /// Gives what it means piece by piece until `take` has enough and returns `false`.
    pub fn pieces(&self, mut take: impl FnMut(Piece<'a>) -> bool) {
        let mut rest = self.raw;
        while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
            if at > 0 && !take(Piece::Plain(&rest[..at])) {
                return;
            }
            let (meant, length) = unescape(&rest.as_bytes()[at..]);
            if !take(meant.map_or(Piece::LoneSurrogate, Piece::Character)) {
                return;
            }
            rest = rest.get(at + length..).unwrap_or_default();
        }
        if !rest.is_empty() {
            take(Piece::Plain(rest));
        }
    }
}

/// Part of what a string means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text that stands for itself.
    Plain(&'a str),
    /// A character that was escaped.
    Character(char),
    /// Half of a surrogate pair without the other half.
    LoneSurrogate,
}

/// The character that the escape at the beginning of `bytes` means, and the length of that escape; no character of half a
/// surrogate pair. The scanner has held it to the grammar before.
fn unescape(bytes: &[u8]) -> (Option<char>, usize) {
    let named = bytes.get(1).copied().unwrap_or(b'\\');
    match SIMPLE[usize::from(named)] {
        0 => unescape_unicode(bytes),
        simple => (Some(char::from(simple)), 2),
    }
}

fn unescape_unicode(bytes: &[u8]) -> (Option<char>, usize) {
    let unit = |from: usize| bytes.get(from..from + 4).and_then(hex4);
    let Some(first) = unit(2) else { return (None, 6) };
    if let Some(character) = char::from_u32(u32::from(first)) {
        return (Some(character), 6);
    }
    let second = if bytes.get(6..8) == Some(b"\\u") { unit(8) } else { None };
    let pair = [first, second.unwrap_or_default()];
    match char::decode_utf16(pair).next() {
        Some(Ok(character)) => (Some(character), 12),
        Some(Err(_)) | None => (None, 6),
    }
}

/// Four hexadecimal digits as a number.
pub(super) fn hex4(digits: &[u8]) -> Option<u16> {
    digits.iter().try_fold(0_u16, |value, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(value << 4 | digit as u16)
    })
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Bytes within which a string is looked for word by word.
const SHORT_BYTES: usize = 32;

/// The end of a short string without escapes or control characters that begins at `from`: where its quote stands.
///
/// Most strings are names and short words, which end before the long searches have begun.
#[inline]
pub(super) fn find_short_end(bytes: &[u8], from: usize) -> Option<usize> {
    let near = bytes.get(from..bytes.len().min(from + SHORT_BYTES))?;
    for (index, word) in near.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let (quote, slash) = (word ^ (ONES * 0x22), word ^ (ONES * 0x5C));
        // Borrows can only mark bytes above a true hit, and the lowest mark is the one used.
        let hits = (quote.wrapping_sub(ONES) & !quote)
            | (slash.wrapping_sub(ONES) & !slash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        if hits & HIGHS != 0 {
            let at = from + index * 8 + (hits & HIGHS).trailing_zeros() as usize / 8;
            return (bytes.get(at) == Some(&b'"')).then_some(at);
        }
    }
    None
}

/// What a string cannot go past without a look, in the block at `from`: a bit for each quote, backslash and control
/// character. The text is read as if quotes followed it.
#[inline]
pub(super) fn marks(bytes: &[u8], from: usize) -> u64 {
    let rest = bytes.get(from..).unwrap_or_default();
    let mut last = [b'"'; BLOCK_BYTES];
    let block = rest.first_chunk().unwrap_or_else(|| {
        last[..rest.len()].copy_from_slice(rest);
        &last
    });
    bits(block, |lane| {
        let quotes = lane.simd_eq(u8x16::splat(b'"'));
        let escapes = lane.simd_eq(u8x16::splat(b'\\'));
        quotes | escapes | lane.simd_lt(u8x16::splat(0x20))
    })
}
