//! Takes the framing off a response body, incrementally.

use bytes::{Bytes, BytesMut};

use super::head::{Framing, Malformed};

/// Bytes a chunk's extension or all trailers together may have.
const CHUNK_LINE_BYTES_MAX: usize = 4 * 1024;
/// Digits of a chunk's size: enough for 2^64.
const CHUNK_DIGITS_MAX: usize = 16;

/// Takes the framing off a response body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    Chunked(Chunk),
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    Size { size: u64, digits: usize },
    Extension { size: u64, seen: usize },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    Trailer { line: usize, seen: usize },
    TrailerLf { line: usize, seen: usize },
}

impl Decoder {
    /// A decoder for a body that is framed so.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Empty => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(Chunk::Size { size: 0, digits: 0 }),
            Framing::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// Whether the body has come to its end.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the end of the connection is the end of the body.
    pub fn ends_with_connection(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Takes bytes from the connection: the payload among them, and how many bytes belonged to the body.
    pub fn decode(&mut self, input: &[u8]) -> Result<(Bytes, usize), Malformed> {
        match self.state {
            State::Done => Ok((Bytes::new(), 0)),
            State::UntilClose => Ok((Bytes::copy_from_slice(input), input.len())),
            State::Length(left) => {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let left = left - take as u64;
                self.state = if left == 0 { State::Done } else { State::Length(left) };
                Ok((Bytes::copy_from_slice(&input[..take]), take))
            }
            State::Chunked(chunk) => self.decode_chunks(chunk, input),
        }
    }

    fn decode_chunks(&mut self, mut chunk: Chunk, input: &[u8]) -> Result<(Bytes, usize), Malformed> {
        let mut payload = BytesMut::new();
        let mut at = 0;
        while at < input.len() {
            if let Chunk::Data { left } = chunk {
                let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len() - at);
                if payload.is_empty() {
                    payload.reserve(input.len() - at);
                }
                payload.extend_from_slice(&input[at..at + take]);
                at += take;
                let left = left - take as u64;
                chunk = if left == 0 { Chunk::DataCr } else { Chunk::Data { left } };
                continue;
            }
            match step(chunk, input[at])? {
                Some(next) => chunk = next,
                None => {
                    self.state = State::Done;
                    return Ok((payload.freeze(), at + 1));
                }
            }
            at += 1;
        }
        self.state = State::Chunked(chunk);
        Ok((payload.freeze(), at))
    }
}

/// The state after one byte of framing; `None` after the last.
fn step(chunk: Chunk, byte: u8) -> Result<Option<Chunk>, Malformed> {
    Ok(Some(match (chunk, byte) {
        (Chunk::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F')
            if digits < CHUNK_DIGITS_MAX =>
        {
            let digit = u64::from((byte as char).to_digit(16).ok_or(Malformed::Chunk)?);
            Chunk::Size { size: size << 4 | digit, digits: digits + 1 }
        }
        (Chunk::Size { size, digits: 1.. }, b';' | b' ' | b'\t') => Chunk::Extension { size, seen: 1 },
        (Chunk::Size { size, digits: 1.. } | Chunk::Extension { size, .. }, b'\r') => Chunk::SizeLf { size },
        (Chunk::Extension { size, seen }, _) if byte != b'\n' && seen < CHUNK_LINE_BYTES_MAX => {
            Chunk::Extension { size, seen: seen + 1 }
        }
        (Chunk::SizeLf { size: 0 }, b'\n') => Chunk::Trailer { line: 0, seen: 0 },
        (Chunk::SizeLf { size }, b'\n') => Chunk::Data { left: size },
        (Chunk::DataCr, b'\r') => Chunk::DataLf,
        (Chunk::DataLf, b'\n') => Chunk::Size { size: 0, digits: 0 },
        (Chunk::Trailer { line, seen }, b'\r') => Chunk::TrailerLf { line, seen },
        (Chunk::Trailer { line, seen }, _) if byte != b'\n' && seen < CHUNK_LINE_BYTES_MAX => {
            Chunk::Trailer { line: line + 1, seen: seen + 1 }
        }
        (Chunk::TrailerLf { line: 0, .. }, b'\n') => return Ok(None),
        (Chunk::TrailerLf { seen, .. }, b'\n') => Chunk::Trailer { line: 0, seen },
        (
            Chunk::Size { .. }
            | Chunk::Extension { .. }
            | Chunk::SizeLf { .. }
            | Chunk::Data { .. }
            | Chunk::DataCr
            | Chunk::DataLf
            | Chunk::Trailer { .. }
            | Chunk::TrailerLf { .. },
            _,
        ) => return Err(Malformed::Chunk),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_in_pieces(input: &[u8], piece: usize) -> Result<(Vec<u8>, bool, usize), Malformed> {
        let mut decoder = Decoder::new(Framing::Chunked);
        let (mut payload, mut used) = (Vec::new(), 0);
        for part in input.chunks(piece) {
            let (bytes, took) = decoder.decode(part)?;
            payload.extend_from_slice(&bytes);
            used += took;
            if took < part.len() {
                break;
            }
        }
        Ok((payload, decoder.is_done(), used))
    }

    #[test]
    fn chunks_come_apart_wherever_the_network_cuts_them() {
        let body = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\ntrailer: a\r\n\r\nHTTP/1.1";
        for piece in 1..=body.len() {
            let (payload, done, used) = decode_in_pieces(body, piece).expect("valid");
            assert_eq!(payload, b"hello world", "pieces of {piece}");
            assert!(done);
            assert_eq!(used, body.len() - "HTTP/1.1".len());
        }
    }

    #[test]
    fn a5_odd_chunk_framing_is_refused() {
        for body in [
            "0x1\r\na",
            "1_0\r\n",
            "-1\r\n",
            "\r\n",
            "5 5\n",
            "1\nA",
            "1\r\nAB",
            "1\r\nA\n",
            "g\r\n",
            "11111111111111111\r\n",
        ] {
            assert_eq!(decode_in_pieces(body.as_bytes(), 64).map(|_| ()), Err(Malformed::Chunk), "{body:?}");
        }
        let long = format!("1;{}\r\n", "x".repeat(CHUNK_LINE_BYTES_MAX + 1));
        assert_eq!(decode_in_pieces(long.as_bytes(), 64).map(|_| ()), Err(Malformed::Chunk));
    }

    #[test]
    fn a_length_ends_where_it_says() {
        let mut decoder = Decoder::new(Framing::Length(3));
        let (payload, used) = decoder.decode(b"abcdef").expect("valid");
        assert_eq!((&payload[..], used, decoder.is_done()), (&b"abc"[..], 3, true));
    }
}
