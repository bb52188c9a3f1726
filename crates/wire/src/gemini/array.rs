//! A stream that is one JSON array, as this dialect has it without `alt=sse`: where its elements end.

/// What a byte brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing that matters.
    More,
    /// An element begins with it.
    Begins,
    /// An element ends with it.
    Ends,
    /// The array ends with it.
    Closes,
}

/// Follows the brackets of the array, byte by byte.
#[derive(Debug, Default)]
pub(super) struct Elements {
    depth: usize,
    in_string: bool,
    escaped: bool,
    closed: bool,
}

impl Elements {
    /// Takes the next byte. Elements that are neither objects nor arrays are passed over.
    pub(super) fn step(&mut self, byte: u8) -> Step {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return Step::More;
        }
        if self.closed {
            return Step::More;
        }
        match byte {
            b'"' => self.in_string = true,
            b'[' | b'{' => {
                self.depth += 1;
                if self.depth == 2 {
                    return Step::Begins;
                }
            }
            b']' | b'}' => {
                self.depth = self.depth.saturating_sub(1);
                self.closed = self.depth == 0;
                return match self.depth {
                    0 => Step::Closes,
                    1 => Step::Ends,
                    _ => Step::More,
                };
            }
            _ => {}
        }
        Step::More
    }

    /// Whether it stands between two elements, or before the first, or behind the end.
    pub(super) const fn is_between(&self) -> bool {
        self.depth <= 1 && !self.in_string
    }
}

/// Whether a stream is an array by its first byte that is no space; `None`: there is none yet.
pub(super) fn is_array(bytes: &[u8]) -> Option<bool> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    bytes.iter().find(|byte| !byte.is_ascii_whitespace()).map(|byte| *byte == b'[')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_end_where_their_brackets_do() {
        let text = br#" [{"a":"]}\"[\\"},
{"b":[{}]} , 7, "x]" ,[1]]  ]"#;
        let (mut elements, mut found, mut from) = (Elements::default(), Vec::new(), 0);
        for (at, byte) in text.iter().enumerate() {
            match elements.step(*byte) {
                Step::Begins => from = at,
                Step::Ends => found.push(std::str::from_utf8(&text[from..=at]).unwrap()),
                Step::Closes => found.push("end"),
                Step::More => {}
            }
        }
        assert_eq!(found, [r#"{"a":"]}\"[\\"}"#, r#"{"b":[{}]}"#, "[1]", "end"]);
        assert!(elements.closed && elements.is_between());
        assert_eq!(
            (is_array(b" \n["), is_array(b"data: {"), is_array(b" ")),
            (Some(true), Some(false), None)
        );
    }
}
