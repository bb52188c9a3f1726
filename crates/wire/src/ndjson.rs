//! Newline-delimited JSON, cut out of bytes that may be cut anywhere.

use crate::openai::sse::{StreamFault, WITHHELD_BYTES_MAX};

/// Reads a stream of lines. Calls of tools come whole in one line, so a line may be as long as an event that is withheld.
#[derive(Debug, Default)]
pub struct JsonLines {
    /// A line whose end has not come.
    line: Vec<u8>,
}

impl JsonLines {
    /// Gives every line that is complete by now to `take`, except blank ones. What is no UTF-8 is read with replacements.
    pub fn push(&mut self, bytes: &[u8], mut take: impl FnMut(&str)) -> Result<(), StreamFault> {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            if self.line.is_empty() {
                give(&rest[..end], &mut take);
            } else {
                self.hold(&rest[..end])?;
                give(&self.line, &mut take);
                self.line.clear();
            }
            rest = &rest[end + 1..];
        }
        self.hold(rest)
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), StreamFault> {
        if self.line.len() + bytes.len() > WITHHELD_BYTES_MAX {
            return Err(StreamFault::too_long(WITHHELD_BYTES_MAX));
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }
}

fn give(line: &[u8], take: &mut impl FnMut(&str)) {
    let line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line).trim_ascii();
    if !line.is_empty() {
        take(&String::from_utf8_lossy(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut got) = (JsonLines::default(), Vec::new());
        for piece in pieces {
            lines.push(piece, |line| got.push(line.to_owned())).unwrap();
        }
        got
    }

    #[test]
    fn d1_lines_cut_anywhere_are_the_same_lines() {
        let stream = "\u{FEFF}{\"a\":1}\r\n\n  \n{\"é\":\"\u{1F600}\"}\n{\"cut".as_bytes();
        let whole = read(&[stream]);
        assert_eq!(whole, ["{\"a\":1}", "{\"é\":\"\u{1F600}\"}"]);
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(read(&[head, tail]), whole, "cut at {cut}");
        }
        assert_eq!(read(&stream.chunks(1).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn d16_a_line_without_end_is_refused_in_time() {
        let mut lines = JsonLines::default();
        let piece = vec![b'x'; WITHHELD_BYTES_MAX / 2];
        let results: Vec<bool> = (0..3).map(|_| lines.push(&piece, |_| {}).is_ok()).collect();
        assert_eq!(results, [true, true, false]);
    }
}
