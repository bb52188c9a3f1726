//! Lines of a file, one at a time. One that is too long is passed over without being held.

use std::io::{self, BufRead, Read};

use serde::{Deserialize, Serialize};

/// Bytes of one line, at most: a decision record with all that went into it.
pub const LINE_BYTES_MAX: usize = 16 << 20;
/// Lines that are told of one by one, at most.
const TOLD_MAX: usize = 20;
/// What some editors begin a file with.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// How a line ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As lines do.
    Whole,
    /// With the file: it is the last, and may have been cut off when its writer was killed.
    Cut,
    /// It was longer than [`LINE_BYTES_MAX`]: nothing of it was kept, and the next line is the one behind it.
    TooLong,
}

/// Reads lines.
#[derive(Debug)]
pub struct Lines<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// The lines of a file.
    pub fn new(input: R) -> Self {
        Self { input, line: Vec::new(), number: 0 }
    }

    /// Goes on to the next line; nothing at the end of the file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn advance(&mut self) -> io::Result<Option<Ended>> {
        self.line.clear();
        self.number += 1;
        let mut limited = Read::take(&mut self.input, LINE_BYTES_MAX as u64 + 1);
        let read = limited.read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        let ends = self.line.ends_with(b"\n");
        if read > LINE_BYTES_MAX {
            self.line = Vec::new();
            if !ends {
                self.pass_over()?;
            }
            return Ok(Some(Ended::TooLong));
        }
        if self.number == 1 && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        while self.line.last().is_some_and(u8::is_ascii_whitespace) {
            self.line.pop();
        }
        Ok(Some(if ends { Ended::Whole } else { Ended::Cut }))
    }

    /// Reads up to the end of the line.
    fn pass_over(&mut self) -> io::Result<()> {
        loop {
            let part = match self.input.fill_buf() {
                Ok(part) => part,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = part.iter().position(|byte| *byte == b'\n');
            let length = end.map_or(part.len(), |end| end + 1);
            self.input.consume(length);
            if end.is_some() || length == 0 {
                return Ok(());
            }
        }
    }

    /// The line, without its end and what is blank before it.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Its number, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// Lines that were left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadLines {
    /// How many.
    pub count: u64,
    /// The first of them; 20 at most.
    pub first: Vec<BadLine>,
}

/// A line that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub what: String,
}

impl BadLines {
    /// Leaves a line out.
    pub fn note(&mut self, line: u64, what: impl Into<String>) {
        self.count += 1;
        if self.first.len() < TOLD_MAX {
            self.first.push(BadLine { line, what: what.into() });
        }
    }

    /// Leaves a line out that is too long.
    pub fn note_too_long(&mut self, line: u64) {
        self.note(line, format!("is longer than {LINE_BYTES_MAX} bytes"));
    }

    /// What is to be told of a file, a sentence for each line.
    pub fn told(&self, file: &str) -> Vec<String> {
        let each =
            self.first.iter().map(|one| format!("line {} of {file} {}; it is left out", one.line, one.what));
        let more = self.count - self.first.len() as u64;
        each.chain((more > 0).then(|| format!("{more} more lines of {file} are left out"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_passed_over_and_the_next_is_read() {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let exact = "y".repeat(LINE_BYTES_MAX - 1);
        let text = format!("\u{FEFF}a\r\n{long}\n\n{exact}\nlast");
        // A small buffer: the line is passed over in many parts.
        let mut lines = Lines::new(io::BufReader::with_capacity(4096, text.as_bytes()));
        let mut seen = Vec::new();
        while let Some(ended) = lines.advance().expect("readable") {
            seen.push((lines.number(), ended, lines.line().len()));
        }
        let whole = LINE_BYTES_MAX - 1;
        let wanted = [
            (1, Ended::Whole, 1),
            (2, Ended::TooLong, 0),
            (3, Ended::Whole, 0),
            (4, Ended::Whole, whole),
            (5, Ended::Cut, 4),
        ];
        assert_eq!(seen, wanted);
    }

    #[test]
    fn one_that_is_too_long_and_the_last_is_the_end() {
        for end in ["", "\n"] {
            let text = format!("{}{end}", "x".repeat(LINE_BYTES_MAX + 1));
            let mut lines = Lines::new(text.as_bytes());
            assert_eq!(lines.advance().expect("readable"), Some(Ended::TooLong));
            assert_eq!(lines.advance().expect("readable"), None);
        }
    }

    #[test]
    fn of_very_many_bad_lines_the_first_are_named_and_the_others_counted() {
        let mut bad = BadLines::default();
        (1..=25).for_each(|line| bad.note(line, "is odd"));
        let told = bad.told("a.jsonl");
        assert_eq!((told.len(), told[0].as_str()), (21, "line 1 of a.jsonl is odd; it is left out"));
        assert_eq!(told[20], "5 more lines of a.jsonl are left out");
    }
}
