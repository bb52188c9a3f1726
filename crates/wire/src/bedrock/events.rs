//! The event stream of AWS (`application/vnd.amazon.eventstream`), read and written.
//!
//! A message is its length and that of its headers, a CRC of these twelve bytes, headers, a payload, and a CRC of all before
//! it; all numbers are big-endian. Both CRCs are held, since a length that is damaged would make the rest of a stream
//! noise. Messages may be cut anywhere; what is kept is one message at most.

use crate::openai::sse::WITHHELD_BYTES_MAX;

/// The longest message that is read, in bytes.
pub const MESSAGE_BYTES_MAX: usize = WITHHELD_BYTES_MAX;
/// The most bytes of headers in a message, as AWS has it.
pub const HEADERS_BYTES_MAX: usize = 128 << 10;

/// What a stream keeps of its buffer from one message to the next.
const KEPT_BYTES: usize = 16 << 10;

/// Both lengths and their CRC.
const PRELUDE_BYTES: usize = 12;
/// The least a message has: the prelude and the CRC at its end.
const MESSAGE_BYTES_MIN: usize = PRELUDE_BYTES + 4;

/// The value of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// `true` or `false`.
    Bool(bool),
    /// One byte.
    Byte(i8),
    /// Two bytes.
    Short(i16),
    /// Four.
    Int(i32),
    /// Eight.
    Long(i64),
    /// Any bytes, at most 65,535.
    Bytes(&'a [u8]),
    /// A text, at most 65,535 bytes.
    Text(&'a str),
    /// Milliseconds since the Unix epoch.
    Timestamp(i64),
    /// A UUID.
    Uuid([u8; 16]),
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<'a> {
    /// Names and values, in order.
    pub headers: Vec<(&'a str, Value<'a>)>,
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// A header that is a text.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.headers.iter().find_map(|(known, value)| match value {
            Value::Text(text) if *known == name => Some(*text),
            Value::Text(_)
            | Value::Bool(_)
            | Value::Byte(_)
            | Value::Short(_)
            | Value::Int(_)
            | Value::Long(_)
            | Value::Bytes(_)
            | Value::Timestamp(_)
            | Value::Uuid(_) => None,
        })
    }
}

/// Why bytes are no event stream. Nothing behind them can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The CRC of the lengths does not fit them.
    #[error("the checksum of a message's lengths does not fit")]
    Prelude,
    /// The lengths contradict each other.
    #[error("the lengths of a message contradict each other")]
    Lengths,
    /// The message is longer than [`MESSAGE_BYTES_MAX`].
    #[error("a message is longer than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    /// The CRC of the message does not fit it.
    #[error("the checksum of a message does not fit")]
    Checksum,
    /// The headers are none.
    #[error("the headers of a message cannot be read")]
    Headers,
}

/// Cuts messages out of bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a message whose end has not come.
    kept: Vec<u8>,
    damage: Option<Damage>,
}

impl Decoder {
    /// Gives every message that is complete by now to `take`.
    pub fn push(&mut self, bytes: &[u8], mut take: impl FnMut(&Message<'_>)) -> Result<(), Damage> {
        if let Some(damage) = self.damage {
            return Err(damage);
        }
        let mut rest = bytes;
        let done = self.drain(&mut rest, &mut take);
        if let Err(damage) = done {
            self.damage = Some(damage);
            self.kept = Vec::new();
        }
        done
    }

    fn drain(&mut self, rest: &mut &[u8], take: &mut impl FnMut(&Message<'_>)) -> Result<(), Damage> {
        loop {
            // Without a beginning that is kept, whole messages are read where they are.
            if self.kept.is_empty() {
                match length(rest)? {
                    Some(length) if rest.len() >= length => {
                        let (message, behind) = rest.split_at(length);
                        take(&read(message)?);
                        *rest = behind;
                        continue;
                    }
                    Some(_) | None => {
                        self.kept.extend_from_slice(rest);
                        return Ok(());
                    }
                }
            }
            let wanted = length(&self.kept)?.unwrap_or(PRELUDE_BYTES);
            let missing = wanted.saturating_sub(self.kept.len()).min(rest.len());
            let (more, behind) = rest.split_at(missing);
            self.kept.extend_from_slice(more);
            *rest = behind;
            match length(&self.kept)? {
                Some(length) if self.kept.len() >= length => {
                    take(&read(&self.kept)?);
                    self.kept.clear();
                    // One long message must not cost its length until the stream ends.
                    self.kept.shrink_to(KEPT_BYTES);
                }
                Some(_) | None if rest.is_empty() => return Ok(()),
                Some(_) | None => {}
            }
        }
    }

    /// Whether a message has begun and not ended: the stream was cut off.
    pub fn is_within_message(&self) -> bool {
        !self.kept.is_empty()
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// How long the message is that begins here; `None`: too little has come to tell.
fn length(bytes: &[u8]) -> Result<Option<usize>, Damage> {
    let Some((total, headers, crc)) = lengths(bytes) else { return Ok(None) };
    if crc32fast::hash(&bytes[..PRELUDE_BYTES - 4]) != crc {
        return Err(Damage::Prelude);
    }
    let (total, headers) = (total as usize, headers as usize);
    if total > MESSAGE_BYTES_MAX || headers > HEADERS_BYTES_MAX {
        return Err(Damage::TooLong);
    }
    if total < MESSAGE_BYTES_MIN + headers {
        return Err(Damage::Lengths);
    }
    Ok(Some(total))
}

fn lengths(bytes: &[u8]) -> Option<(u32, u32, u32)> {
    Some((number(bytes, 0)?, number(bytes, 4)?, number(bytes, 8)?))
}

/// A message that is complete and whose lengths were held.
fn read(bytes: &[u8]) -> Result<Message<'_>, Damage> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or(Damage::Lengths)?;
    if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
        return Err(Damage::Checksum);
    }
    let headers = number(bytes, 4).ok_or(Damage::Lengths)? as usize;
    let (mut block, payload) =
        body.get(PRELUDE_BYTES..).and_then(|rest| rest.split_at_checked(headers)).ok_or(Damage::Lengths)?;
    let mut message = Message { headers: Vec::new(), payload };
    while !block.is_empty() {
        message.headers.push(header(&mut block).ok_or(Damage::Headers)?);
    }
    Ok(message)
}

fn header<'a>(block: &mut &'a [u8]) -> Option<(&'a str, Value<'a>)> {
    let name_bytes = usize::from(fixed::<1>(block)?[0]);
    let name = std::str::from_utf8(bytes(block, name_bytes)?).ok()?;
    let value = match fixed::<1>(block)?[0] {
        0 => Value::Bool(true),
        1 => Value::Bool(false),
        2 => Value::Byte(i8::from_be_bytes(fixed(block)?)),
        3 => Value::Short(i16::from_be_bytes(fixed(block)?)),
        4 => Value::Int(i32::from_be_bytes(fixed(block)?)),
        5 => Value::Long(i64::from_be_bytes(fixed(block)?)),
        6 => {
            let length = usize::from(u16::from_be_bytes(fixed(block)?));
            Value::Bytes(bytes(block, length)?)
        }
        7 => {
            let length = usize::from(u16::from_be_bytes(fixed(block)?));
            Value::Text(std::str::from_utf8(bytes(block, length)?).ok()?)
        }
        8 => Value::Timestamp(i64::from_be_bytes(fixed(block)?)),
        9 => Value::Uuid(fixed(block)?),
        _ => return None,
    };
    Some((name, value))
}

fn bytes<'a>(block: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = block.split_at_checked(length)?;
    *block = rest;
    Some(taken)
}

fn fixed<const N: usize>(block: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = block.split_first_chunk::<N>()?;
    *block = rest;
    Some(*taken)
}

/// Puts a message behind `out`: what servers send, for those that play one. Names longer than 255 bytes and values longer
/// than 65,535 are cut.
pub fn encode(headers: &[(&str, Value<'_>)], payload: &[u8], out: &mut Vec<u8>) {
    let mut block = Vec::new();
    for (name, value) in headers {
        let name = &name.as_bytes()[..name.floor_char_boundary(255)];
        block.push(name.len() as u8);
        block.extend_from_slice(name);
        encode_value(*value, &mut block);
    }
    let start = out.len();
    let total = MESSAGE_BYTES_MIN + block.len() + payload.len();
    out.extend_from_slice(&(total as u32).to_be_bytes());
    out.extend_from_slice(&(block.len() as u32).to_be_bytes());
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_be_bytes());
    out.extend_from_slice(&block);
    out.extend_from_slice(payload);
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_be_bytes());
}

fn encode_value(value: Value<'_>, block: &mut Vec<u8>) {
    let mut put = |kind: u8, bytes: &[u8]| {
        block.push(kind);
        block.extend_from_slice(bytes);
    };
    let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    match value {
        Value::Bool(true) => put(0, &[]),
        Value::Bool(false) => put(1, &[]),
        Value::Byte(value) => put(2, &value.to_be_bytes()),
        Value::Short(value) => put(3, &value.to_be_bytes()),
        Value::Int(value) => put(4, &value.to_be_bytes()),
        Value::Long(value) => put(5, &value.to_be_bytes()),
        Value::Bytes(bytes) => put(6, &sized(&bytes[..bytes.len().min(usize::from(u16::MAX))])),
        Value::Text(text) => {
            put(7, &sized(&text.as_bytes()[..text.floor_char_boundary(usize::from(u16::MAX))]));
        }
        Value::Timestamp(value) => put(8, &value.to_be_bytes()),
        Value::Uuid(value) => put(9, &value),
    }
}

/// Puts an event of a Bedrock stream behind `out`, such as `contentBlockDelta`.
pub fn encode_event(kind: &str, payload: &str, out: &mut Vec<u8>) {
    let headers = [
        (":event-type", Value::Text(kind)),
        (":content-type", Value::Text("application/json")),
        (":message-type", Value::Text("event")),
    ];
    encode(&headers, payload.as_bytes(), out);
}

/// Puts an exception in a Bedrock stream behind `out`, such as `throttlingException`.
pub fn encode_exception(kind: &str, payload: &str, out: &mut Vec<u8>) {
    let headers = [
        (":exception-type", Value::Text(kind)),
        (":content-type", Value::Text("application/json")),
        (":message-type", Value::Text("exception")),
    ];
    encode(&headers, payload.as_bytes(), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each message as its headers and payload.
    fn decode(pieces: &[&[u8]]) -> Result<Vec<String>, Damage> {
        let (mut decoder, mut got) = (Decoder::default(), Vec::new());
        for piece in pieces {
            decoder.push(piece, |message| got.push(format!("{message:?}")))?;
        }
        Ok(got)
    }

    fn unhex(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    type Headers = &'static [(&'static str, Value<'static>)];

    /// Messages that AWS's own libraries are tested with.
    const PUBLISHED: [(&str, Headers, &str); 4] = [
        ("00000010 00000000 05c248eb 7d98c8ff", &[], ""),
        ("0000001d 00000000 fd528c5a 7b27666f6f273a27626172277d c3653936", &[], "{'foo':'bar'}"),
        (
            "0000003d 00000020 07fd8396 0c 636f6e74656e742d74797065 07 0010 6170706c69636174696f6e2f6a736f6e
             7b27666f6f273a27626172277d 8d9c08b1",
            &[("content-type", Value::Text("application/json"))],
            "{'foo':'bar'}",
        ),
        (
            "0000002d 00000010 41c424b8 0a 6576656e742d74797065 04 0000a00c 7b27666f6f273a27626172277d 36f480a0",
            &[("event-type", Value::Int(40_972))],
            "{'foo':'bar'}",
        ),
    ];

    #[test]
    fn messages_of_awss_own_tests_are_read_and_written() {
        for (hex, headers, payload) in PUBLISHED {
            let bytes = unhex(hex);
            let mut written = Vec::new();
            encode(headers, payload.as_bytes(), &mut written);
            assert_eq!(written, bytes, "{payload}");
            let expected = Message { headers: headers.to_vec(), payload: payload.as_bytes() };
            assert_eq!(decode(&[&bytes]).unwrap(), [format!("{expected:?}")]);
        }
    }

    fn stream() -> Vec<u8> {
        let headers = [
            ("yes", Value::Bool(true)),
            ("no", Value::Bool(false)),
            ("byte", Value::Byte(-1)),
            ("short", Value::Short(-2)),
            ("int", Value::Int(-3)),
            ("long", Value::Long(-4)),
            ("bytes", Value::Bytes(&[0, 255])),
            ("text", Value::Text("é")),
            ("time", Value::Timestamp(1_700_000_000_000)),
            ("uuid", Value::Uuid([7; 16])),
        ];
        let mut out = Vec::new();
        encode(&headers, b"payload", &mut out);
        encode_event("messageStart", r#"{"role":"assistant"}"#, &mut out);
        encode(&[], b"", &mut out);
        encode_exception("throttlingException", r#"{"message":"slow"}"#, &mut out);
        out
    }

    #[test]
    fn d1_a_stream_cut_anywhere_gives_the_same_messages() {
        let bytes = stream();
        let whole = decode(&[&bytes]).unwrap();
        assert_eq!(whole.len(), 4);
        assert!(whole[0].contains("(\"long\", Long(-4))") && whole[0].contains("Uuid([7, 7"));
        for cut in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(decode(&[head, tail]).unwrap(), whole, "cut at {cut}");
        }
        assert_eq!(decode(&bytes.chunks(1).collect::<Vec<_>>()).unwrap(), whole);
    }

    #[test]
    fn d4_a_bit_that_was_turned_anywhere_is_noticed() {
        let mut bytes = Vec::new();
        encode_event("messageStart", r#"{"role":"assistant"}"#, &mut bytes);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let mut decoder = Decoder::default();
            let first = decoder.push(&damaged, |message| panic!("{message:?}")).unwrap_err();
            assert_eq!(first, if at < 12 { Damage::Prelude } else { Damage::Checksum }, "byte {at}");
            assert_eq!(decoder.push(&bytes, |_| panic!("nothing follows")), Err(first));
        }
    }

    /// A message whose checksums are right, whatever its lengths say.
    fn forged(total: u32, headers: u32, rest: &[u8]) -> Vec<u8> {
        let mut out = [total.to_be_bytes(), headers.to_be_bytes()].concat();
        out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
        out.extend_from_slice(rest);
        out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
        out
    }

    #[test]
    fn d16_lengths_are_bounded_before_anything_is_kept() {
        let check = |bytes: &[u8], expected| assert_eq!(decode(&[bytes]), Err(expected));
        check(&forged(MESSAGE_BYTES_MAX as u32 + 1, 0, b""), Damage::TooLong);
        check(&forged(u32::MAX, u32::MAX, b""), Damage::TooLong);
        check(&forged(1 << 20, (HEADERS_BYTES_MAX + 1) as u32, b""), Damage::TooLong);
        check(&forged(15, 0, b""), Damage::Lengths);
        check(&forged(16, 1, b""), Damage::Lengths);
        check(&forged(18, 2, b"\x05a"), Damage::Headers);
        check(&forged(19, 3, b"\x01a\x0a"), Damage::Headers);
        check(&forged(21, 5, b"\x01a\x07\xff\xff"), Damage::Headers);
    }

    #[test]
    fn d5_a_stream_that_was_cut_off_shows() {
        let bytes = stream();
        let mut decoder = Decoder::default();
        decoder.push(&bytes[..bytes.len() - 1], |_| {}).unwrap();
        assert!(decoder.is_within_message());
        decoder.push(&bytes[bytes.len() - 1..], |_| {}).unwrap();
        assert!(!decoder.is_within_message());
    }
}
