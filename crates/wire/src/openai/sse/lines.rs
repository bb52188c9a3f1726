//! Where events end: at an empty line, whatever ends lines here (LF, CRLF or CR).

use memchr::memchr2;

/// Follows the lines of a stream across chunks, looking at each byte once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines {
    /// The line so far is empty.
    empty: bool,
    last: Last,
    /// What was found last is only the LF of the event before it.
    belated: bool,
}

/// What the chunk before ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// Anything but CR.
    Other,
    /// CR: a LF that follows belongs to it.
    Cr,
    /// CR that ended an event.
    CrOfBlank,
}

impl Default for Lines {
    fn default() -> Self {
        Self { empty: true, last: Last::Other, belated: false }
    }
}

impl Lines {
    /// Whether the last find is no event but the LF that completes the CRLF of the event before, which was
    /// forwarded when its CR came.
    pub(crate) const fn belated(self) -> bool {
        self.belated
    }

    /// One past the end of the event that is under way at `from`, or `None` if its end is not in the chunk.
    ///
    /// Bytes must be given once, in order. A blank line right after an event counts as an event of its own.
    pub(crate) fn event_end(&mut self, chunk: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        self.belated = false;
        if self.last != Last::Other {
            let next = *chunk.get(at)?;
            let last = std::mem::replace(&mut self.last, Last::Other);
            if next == b'\n' {
                at += 1;
                if last == Last::CrOfBlank {
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
                    None => self.last = if blank { Last::CrOfBlank } else { Last::Cr },
                }
            }
            if blank {
                return Some(at);
            }
        }
        None
    }
}
