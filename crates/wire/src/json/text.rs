//! Strings as they stand in the text, and the search for their end.

use std::borrow::Cow;

use super::Span;

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

    /// Gives what it means piece by piece until `take` has enough and returns `false`.
    pub fn pieces(&self, mut take: impl FnMut(Piece<'a>) -> bool) {
        let mut rest = self.raw;
        while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
            if at > 0 && !take(Piece::Plain(&rest[..at])) {
                return;
            }
            let (piece, length) = unescape(&rest[at..]);
            if !take(piece) {
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

/// The escape at the beginning of `text` and its length. The scanner has held it to the grammar before.
fn unescape(text: &str) -> (Piece<'_>, usize) {
    let bytes = text.as_bytes();
    let simple = match bytes.get(1) {
        Some(b'u') => return unescape_unicode(bytes),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(&other) => char::from(other),
        None => '\\',
    };
    (Piece::Character(simple), 2)
}

fn unescape_unicode(bytes: &[u8]) -> (Piece<'static>, usize) {
    let unit = |from: usize| bytes.get(from..from + 4).and_then(hex4);
    let Some(first) = unit(2) else { return (Piece::LoneSurrogate, 6) };
    if let Some(character) = char::from_u32(u32::from(first)) {
        return (Piece::Character(character), 6);
    }
    let second = if bytes.get(6..8) == Some(b"\\u") { unit(8) } else { None };
    let pair = [first, second.unwrap_or_default()];
    match char::decode_utf16(pair).next() {
        Some(Ok(character)) => (Piece::Character(character), 12),
        Some(Err(_)) | None => (Piece::LoneSurrogate, 6),
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

/// The first quote or backslash from `from` on, or the end.
#[inline]
pub(super) fn find_quote_or_escape(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len())
}

/// Where the first control character stands.
pub(super) fn find_control(bytes: &[u8]) -> Option<usize> {
    // Without a branch per byte this becomes vector code; the place matters only when there is one.
    let found = bytes.iter().fold(0_u8, |found, &byte| found | u8::from(byte < 0x20));
    if found == 0 { None } else { bytes.iter().position(|&byte| byte < 0x20) }
}
