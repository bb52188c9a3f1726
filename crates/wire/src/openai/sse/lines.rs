//! Where events end: at an empty line, whatever ends lines here (LF, CRLF or CR).

use memchr::memchr2;

/// Follows the lines of a stream across chunks, looking at each byte once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lines {
    /// The line so far is empty.
    empty: bool,
    /// The last byte was CR: a LF that follows belongs to it.
    after_cr: bool,
    /// An event ended with that CR.
    ended: bool,
    /// What was found last is only the LF of the event before it.
    belated: bool,
}

impl Default for Lines {
    fn default() -> Self {
        Self { empty: true, after_cr: false, ended: false, belated: false }
    }
}

impl Lines {
    /// Whether the last find is no event but the LF that completes the CRLF of the event before, which was
    /// forwarded when its CR came.
    pub(super) const fn belated(&self) -> bool {
        self.belated
    }

    /// One past the end of the event that is under way at `from`, or `None` if its end is not in the chunk.
    ///
    /// Bytes must be given once, in order. A blank line right after an event counts as an event of its own.
    pub(super) fn event_end(&mut self, chunk: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        self.belated = false;
        if self.after_cr {
            let next = *chunk.get(at)?;
            self.after_cr = false;
            let ended = std::mem::take(&mut self.ended);
            if next == b'\n' {
                at += 1;
                if ended {
                    self.belated = true;
                    return Some(at);
                }
            }
        }
        while let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(offset) = memchr2(b'\n', b'\r', rest) else {
                self.empty = false;
                return None;
            };
            let blank = self.empty && offset == 0;
            self.empty = true;
            at += offset + 1;
            if rest.get(offset) == Some(&b'\r') {
                match chunk.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => {
                        self.after_cr = true;
                        self.ended = blank;
                    }
                }
            }
            if blank {
                return Some(at);
            }
        }
        None
    }
}
