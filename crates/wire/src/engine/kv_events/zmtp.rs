//! ZMTP 3.0 as a subscriber without authentication speaks it ([RFC 23]): bytes in, messages out.
//!
//! [RFC 23]: https://rfc.zeromq.org/spec/23/

/// Bytes of one message.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Frames of one message.
const FRAMES_MAX: usize = 8;
/// Bytes of a greeting.
const GREETING_BYTES: usize = 64;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// What a subscriber says first. What comes after has to wait until the publisher is ready: libzmq takes a message that
/// comes with this for a broken handshake.
pub fn opening() -> Vec<u8> {
    let mut out = vec![0; GREETING_BYTES];
    out[0] = 0xff;
    out[9] = 0x7f;
    out[10] = 3;
    out[12..16].copy_from_slice(b"NULL");
    let ready = b"\x05READY\x0bSocket-Type\0\0\0\x03SUB";
    out.extend_from_slice(&[COMMAND, ready.len() as u8]);
    out.extend_from_slice(ready);
    out
}

/// A message that begins with 1 subscribes to the topics that begin with the rest of it: all.
pub const SUBSCRIBE_TO_ALL: [u8; 3] = [0, 1, 1];

/// What a publisher said that is not ZMTP, or too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Something else listens there.
    #[error("this is no ZMTP 3 publisher without authentication")]
    NotZmtp,
    /// A message is beyond its bound.
    #[error("a message has more than {} MiB or {FRAMES_MAX} frames", MESSAGE_BYTES_MAX >> 20)]
    TooMuch,
}

/// Takes bytes as they come and gives whole messages.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    greeted: bool,
    ready: bool,
    frames: Vec<Vec<u8>>,
}

impl Decoder {
    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, once it is whole. To be called until it gives none.
    ///
    /// # Errors
    /// When this is no publisher.
    pub fn message(&mut self) -> Result<Option<Vec<Vec<u8>>>, Broken> {
        if !self.greeted {
            let Some(greeting) = self.bytes.get(..GREETING_BYTES) else { return Ok(None) };
            if greeting[0] != 0xff
                || greeting[9] != 0x7f
                || greeting[10] < 3
                || &greeting[12..17] != b"NULL\0"
            {
                return Err(Broken::NotZmtp);
            }
            self.bytes.drain(..GREETING_BYTES);
            self.greeted = true;
        }
        while let Some((flags, head, length)) = self.frame()? {
            let held: usize = self.frames.iter().map(Vec::len).sum();
            if length.saturating_add(held) > MESSAGE_BYTES_MAX || self.frames.len() >= FRAMES_MAX {
                return Err(Broken::TooMuch);
            }
            let Some(body) = self.bytes.get(head..head + length) else { return Ok(None) };
            let body = body.to_vec();
            self.bytes.drain(..head + length);
            if flags & COMMAND != 0 {
                self.ready |= body.starts_with(b"\x05READY");
                continue;
            }
            self.frames.push(body);
            if flags & MORE == 0 {
                return Ok(Some(std::mem::take(&mut self.frames)));
            }
        }
        Ok(None)
    }

    /// Whether the publisher said that it is ready, so that it may be subscribed to.
    pub const fn is_ready(&self) -> bool {
        self.ready
    }

    /// The flags of the next frame, where its body begins, and how long that is.
    fn frame(&self) -> Result<Option<(u8, usize, usize)>, Broken> {
        let Some(flags) = self.bytes.first().copied() else { return Ok(None) };
        if flags & !(MORE | LONG | COMMAND) != 0 {
            return Err(Broken::NotZmtp);
        }
        if flags & LONG == 0 {
            return Ok(self.bytes.get(1).map(|length| (flags, 2, usize::from(*length))));
        }
        let Some(length) = self.bytes.get(1..9).and_then(|length| length.try_into().ok()) else {
            return Ok(None);
        };
        let length = usize::try_from(u64::from_be_bytes(length)).map_err(|_| Broken::TooMuch)?;
        Ok(Some((flags, 9, length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting() -> Vec<u8> {
        let mut greeting = opening();
        greeting.truncate(GREETING_BYTES);
        greeting
    }

    #[test]
    fn messages_come_whole_however_they_are_cut() {
        let ready = [&[COMMAND, 25][..], b"\x05READY\x0bSocket-Type\0\0\0\x03PUB"].concat();
        let long = [&[LONG][..], &3_u64.to_be_bytes(), b"end"].concat();
        let all = [greeting(), ready, vec![MORE, 1, b't', MORE, 0], long].concat();
        for piece in [1, 3, 64, all.len()] {
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for bytes in all.chunks(piece) {
                decoder.push(bytes);
                found.extend(decoder.message().expect("it is a publisher"));
            }
            assert!(decoder.is_ready());
            assert_eq!(found, [vec![b"t".to_vec(), Vec::new(), b"end".to_vec()]]);
        }
    }

    #[test]
    fn what_is_no_publisher_or_too_much_is_refused() {
        let check = |bytes: Vec<u8>, expected: Broken| {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            assert_eq!(decoder.message(), Err(expected));
        };
        check([b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), vec![b' '; 64]].concat(), Broken::NotZmtp);
        check([greeting(), vec![0x80, 0]].concat(), Broken::NotZmtp);
        check([greeting(), vec![LONG], u64::MAX.to_be_bytes().to_vec()].concat(), Broken::TooMuch);
        check([greeting(), [MORE, 0].repeat(FRAMES_MAX + 1)].concat(), Broken::TooMuch);
    }
}
