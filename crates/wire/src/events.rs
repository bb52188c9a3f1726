//! Server-sent events, cut out of bytes that may be cut anywhere.

use crate::openai::sse::{EVENT_BYTES_MAX, StreamFault};

/// Reads a stream of server-sent events (WHATWG HTML §9.2).
#[derive(Debug, Default)]
pub struct Events {
    /// A line whose end has not come.
    line: Vec<u8>,
    /// The last line ended with a carriage return, so that a line feed belongs to it.
    returned: bool,
    name: String,
    data: String,
    has_data: bool,
    started: bool,
}

impl Events {
    /// Gives every event that is complete by now, by its name and data, to `take`. Data that is no UTF-8 is read with
    /// replacements.
    pub fn push(&mut self, bytes: &[u8], mut take: impl FnMut(&str, &str)) -> Result<(), StreamFault> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if std::mem::take(&mut self.returned) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else {
                self.line.extend_from_slice(rest);
                break;
            };
            self.returned = rest[end] == b'\r';
            if self.line.is_empty() {
                self.take_line(&rest[..end], &mut take);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&rest[..end]);
                self.take_line(&line, &mut take);
                line.clear();
                self.line = line;
            }
            rest = &rest[end + 1..];
        }
        if self.line.len() + self.data.len() > EVENT_BYTES_MAX {
            return Err(StreamFault::too_long(EVENT_BYTES_MAX));
        }
        Ok(())
    }

    /// Gives a last event that lacks its closing blank line, as some providers end their streams.
    pub fn end(&mut self, mut take: impl FnMut(&str, &str)) {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.take_line(&line, &mut take);
        }
        self.dispatch(&mut take);
    }

    fn take_line(&mut self, line: &[u8], take: &mut impl FnMut(&str, &str)) {
        let line = if self.started { line } else { line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line) };
        self.started = true;
        if line.is_empty() {
            return self.dispatch(take);
        }
        let text = String::from_utf8_lossy(line);
        let (field, value) = text.split_once(':').unwrap_or((&text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // Comments, ids and times to reconnect say nothing here.
            _ => {}
        }
    }

    fn dispatch(&mut self, take: &mut impl FnMut(&str, &str)) {
        if std::mem::take(&mut self.has_data) {
            take(&self.name, &self.data);
        }
        self.name.clear();
        self.data.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "\u{FEFF}event: a\r\ndata: 1\r\n\r\n: comment\n\ndata:2\ndata: 3\n\nid: 7\rdata\r\revent: b\ndata: é\n\n";

    fn read(cuts: &[usize]) -> Vec<(String, String)> {
        let (mut events, mut got, mut from) = (Events::default(), Vec::new(), 0);
        for cut in cuts.iter().copied().chain([STREAM.len()]) {
            let piece = &STREAM.as_bytes()[from..cut];
            events.push(piece, |name, data| got.push((name.to_owned(), data.to_owned()))).unwrap();
            from = cut;
        }
        got
    }

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_events() {
        let whole = read(&[]);
        let expected = [("a", "1"), ("", "2\n3"), ("", ""), ("b", "é")];
        assert_eq!(whole, expected.map(|(name, data)| (name.to_owned(), data.to_owned())));
        for cut in 0..=STREAM.len() {
            assert_eq!(read(&[cut]), whole, "cut at {cut}");
        }
        assert_eq!(read(&(1..STREAM.len()).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn an_event_without_end_is_refused_in_time() {
        let mut events = Events::default();
        let piece = vec![b'x'; EVENT_BYTES_MAX / 2];
        let results: Vec<bool> = (0..4).map(|_| events.push(&piece, |_, _| {}).is_ok()).collect();
        assert_eq!(results, [true, true, false, false]);
    }
}
