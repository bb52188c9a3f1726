//! The Open Inference Protocol over gRPC: service `inference.GRPCInferenceService`.
//!
//! What is said is the same as over HTTP, so that both go the same way: a request is turned into the body that an HTTP
//! client with binary tensors would have sent, and is held to the same rules; and back for providers. Here are the
//! messages, the frame around each, and how calls end. The messages are written down by hand, for they are few, and a
//! build needs no compiler of another language for them.
//! - [`turn`]: requests and answers from one form into the other.
//! - `raw`: elements from one form into the other.
//! - `bounds`: that decoding a message takes no more memory than a few times its size.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::openai::error::Invalid;

mod bounds;
mod half;
mod raw;
pub mod turn;

/// What precedes every method's name in a path.
const SERVICE: &str = "/inference.GRPCInferenceService/";

/// Bytes that stand before a message: whether it is compressed, and its length.
pub const FRAME_BYTES: usize = 5;

/// A method that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Whether the server lives.
    ServerLive,
    /// Whether the server is ready.
    ServerReady,
    /// Whether a model is ready.
    ModelReady,
    /// What the server is.
    ServerMetadata,
    /// What a model takes and gives.
    ModelMetadata,
    /// Which models there are.
    RepositoryIndex,
    /// Tensors in, tensors out.
    ModelInfer,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 7] = [
        Self::ServerLive,
        Self::ServerReady,
        Self::ModelReady,
        Self::ServerMetadata,
        Self::ModelMetadata,
        Self::RepositoryIndex,
        Self::ModelInfer,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ServerLive => "ServerLive",
            Self::ServerReady => "ServerReady",
            Self::ModelReady => "ModelReady",
            Self::ServerMetadata => "ServerMetadata",
            Self::ModelMetadata => "ModelMetadata",
            Self::RepositoryIndex => "RepositoryIndex",
            Self::ModelInfer => "ModelInfer",
        }
    }

    /// Its path.
    pub fn path(self) -> String {
        format!("{SERVICE}{}", self.name())
    }

    /// The method of a path.
    pub fn of_path(path: &str) -> Option<Self> {
        let name = path.strip_prefix(SERVICE)?;
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// A yes or no: the answers of `ServerLive`, `ServerReady` and `ModelReady`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Flag {
    /// Whether it is.
    #[prost(bool, tag = "1")]
    pub is: bool,
}

/// A model and its version: what `ModelReady` and `ModelMetadata` are asked with.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ModelRequest {
    /// The model.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version; empty if none is named.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// The answer of `ServerMetadata`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ServerMetadata {
    /// Who the server is.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
    /// What it can do beyond the protocol.
    #[prost(string, repeated, tag = "3")]
    pub extensions: Vec<String>,
}

/// The answer of `ModelMetadata`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ModelMetadata {
    /// The model.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its versions.
    #[prost(string, repeated, tag = "2")]
    pub versions: Vec<String>,
    /// What runs it.
    #[prost(string, tag = "3")]
    pub platform: String,
    /// What it takes.
    #[prost(message, repeated, tag = "4")]
    pub inputs: Vec<TensorMetadata>,
    /// What it gives.
    #[prost(message, repeated, tag = "5")]
    pub outputs: Vec<TensorMetadata>,
}

/// A tensor that a model takes or gives.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TensorMetadata {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What its elements are.
    #[prost(string, tag = "2")]
    pub datatype: String,
    /// Its length on each axis; -1 is any.
    #[prost(int64, repeated, tag = "3")]
    pub shape: Vec<i64>,
}

/// What `RepositoryIndex` is asked with.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct IndexRequest {
    /// Whether only what is ready is asked for.
    #[prost(bool, tag = "2")]
    pub ready: bool,
}

/// The answer of `RepositoryIndex`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Index {
    /// The models.
    #[prost(message, repeated, tag = "1")]
    pub models: Vec<IndexedModel>,
}

/// A model in the index.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct IndexedModel {
    /// The model.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub version: String,
    /// `READY` or `UNAVAILABLE`.
    #[prost(string, tag = "3")]
    pub state: String,
    /// Why it is not.
    #[prost(string, tag = "4")]
    pub reason: String,
}

/// What is said beside tensors, by name.
pub type Parameters = BTreeMap<String, Parameter>;

/// The value of a parameter.
#[derive(Clone, PartialEq, Message)]
pub struct Parameter {
    /// It.
    #[prost(oneof = "Choice", tags = "1, 2, 3, 4, 5")]
    pub choice: Option<Choice>,
}

/// What a parameter can be.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Choice {
    /// True or false.
    #[prost(bool, tag = "1")]
    Bool(bool),
    /// An integer.
    #[prost(int64, tag = "2")]
    Int64(i64),
    /// A text.
    #[prost(string, tag = "3")]
    String(String),
    /// A number.
    #[prost(double, tag = "4")]
    Double(f64),
    /// An integer of at least 0.
    #[prost(uint64, tag = "5")]
    Uint64(u64),
}

/// A tensor of a request or an answer; both are written alike.
#[derive(Clone, PartialEq, Message)]
pub struct Tensor {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What its elements are.
    #[prost(string, tag = "2")]
    pub datatype: String,
    /// Its length on each axis.
    #[prost(int64, repeated, tag = "3")]
    pub shape: Vec<i64>,
    /// What is said beside.
    #[prost(btree_map = "string, message", tag = "4")]
    pub parameters: Parameters,
    /// Its elements by their type, a message that is read element by element, unless they are raw.
    #[prost(bytes = "bytes", optional, tag = "5")]
    pub contents: Option<Bytes>,
}

/// An output that is asked for.
#[derive(Clone, PartialEq, Message)]
pub struct Output {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What is said beside.
    #[prost(btree_map = "string, message", tag = "2")]
    pub parameters: Parameters,
}

/// What `ModelInfer` is asked with.
#[derive(Clone, PartialEq, Message)]
pub struct InferRequest {
    /// The model.
    #[prost(string, tag = "1")]
    pub model_name: String,
    /// Its version; empty if none is named.
    #[prost(string, tag = "2")]
    pub model_version: String,
    /// The client's name for the request; empty if it gave none.
    #[prost(string, tag = "3")]
    pub id: String,
    /// What is said beside.
    #[prost(btree_map = "string, message", tag = "4")]
    pub parameters: Parameters,
    /// Its tensors.
    #[prost(message, repeated, tag = "5")]
    pub inputs: Vec<Tensor>,
    /// The outputs it asks for; none is all of them.
    #[prost(message, repeated, tag = "6")]
    pub outputs: Vec<Output>,
    /// The elements of its tensors as a machine has them, in their order.
    #[prost(bytes = "bytes", repeated, tag = "7")]
    pub raw: Vec<Bytes>,
}

/// The answer of `ModelInfer`.
#[derive(Clone, PartialEq, Message)]
pub struct InferResponse {
    /// The model.
    #[prost(string, tag = "1")]
    pub model_name: String,
    /// Its version.
    #[prost(string, tag = "2")]
    pub model_version: String,
    /// The client's name for the request.
    #[prost(string, tag = "3")]
    pub id: String,
    /// What is said beside.
    #[prost(btree_map = "string, message", tag = "4")]
    pub parameters: Parameters,
    /// Its tensors.
    #[prost(message, repeated, tag = "5")]
    pub outputs: Vec<Tensor>,
    /// The elements of its tensors as a machine has them, in their order.
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub raw: Vec<Bytes>,
}

/// The message in a body that holds one.
pub fn unframe(body: &Bytes) -> Result<Bytes, Invalid> {
    let Some((head, rest)) = body.split_first_chunk::<FRAME_BYTES>() else {
        return Err(Invalid::body(format!("the call has {} bytes and no message", body.len())));
    };
    let [compressed, length @ ..] = *head;
    if compressed != 0 {
        return Err(Invalid {
            status: 501,
            ..Invalid::body("compressed messages are not understood; send it without `grpc-encoding`")
        });
    }
    let length = u32::from_be_bytes(length);
    if u64::from(length) != rest.len() as u64 {
        let text = format!(
            "the message's frame says {length} bytes, the call has {} behind it; it takes one message",
            rest.len()
        );
        return Err(Invalid::body(text));
    }
    Ok(body.slice(FRAME_BYTES..))
}

/// A message with its frame.
pub fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(FRAME_BYTES + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // A buffer that grows has room for every message.
    let _ = message.encode(&mut framed);
    framed.freeze()
}

/// Decodes what `ModelInfer` is asked with.
pub fn decode_request(message: Bytes) -> Result<InferRequest, Invalid> {
    bounds::check(&message, &[4, 5, 6]).map_err(Invalid::body)?;
    decode(message)
}

/// Decodes the answer of `ModelInfer`.
pub fn decode_response(message: Bytes) -> Result<InferResponse, Invalid> {
    bounds::check(&message, &[4, 5]).map_err(Invalid::body)?;
    decode(message)
}

/// Decodes a message that has no tensors.
pub fn decode<M: Message + Default>(message: Bytes) -> Result<M, Invalid> {
    M::decode(message).map_err(|error| Invalid::body(format!("the message cannot be read: {error}")))
}

/// How calls end.
pub mod code {
    /// All is well.
    pub const OK: u8 = 0;
    /// The client left.
    pub const CANCELLED: u8 = 1;
    /// What it is, nobody knows.
    pub const UNKNOWN: u8 = 2;
    /// The request is wrong.
    pub const INVALID_ARGUMENT: u8 = 3;
    /// It took too long.
    pub const DEADLINE_EXCEEDED: u8 = 4;
    /// There is no such thing.
    pub const NOT_FOUND: u8 = 5;
    /// There is one already.
    pub const ALREADY_EXISTS: u8 = 6;
    /// The client may not.
    pub const PERMISSION_DENIED: u8 = 7;
    /// There is too much.
    pub const RESOURCE_EXHAUSTED: u8 = 8;
    /// It does not fit the state of things.
    pub const FAILED_PRECONDITION: u8 = 9;
    /// Something else came between.
    pub const ABORTED: u8 = 10;
    /// There is no such place.
    pub const OUT_OF_RANGE: u8 = 11;
    /// There is no such method.
    pub const UNIMPLEMENTED: u8 = 12;
    /// The server is wrong.
    pub const INTERNAL: u8 = 13;
    /// Nobody can serve now.
    pub const UNAVAILABLE: u8 = 14;
    /// Nobody is told who asks.
    pub const UNAUTHENTICATED: u8 = 16;
}

/// How a call ends whose answer would have this status over HTTP.
pub const fn code_of(status: u16) -> u8 {
    match status {
        200..=299 => code::OK,
        401 => code::UNAUTHENTICATED,
        403 => code::PERMISSION_DENIED,
        404 => code::NOT_FOUND,
        408 | 504 => code::DEADLINE_EXCEEDED,
        409 => code::ABORTED,
        413 | 429 | 431 => code::RESOURCE_EXHAUSTED,
        499 => code::CANCELLED,
        501 => code::UNIMPLEMENTED,
        502 | 503 | 529 => code::UNAVAILABLE,
        400..=499 => code::INVALID_ARGUMENT,
        500..=599 => code::INTERNAL,
        _ => code::UNKNOWN,
    }
}

/// The status over HTTP of a call that ends so.
pub const fn status_of(code: u8) -> u16 {
    match code {
        code::OK => 200,
        code::CANCELLED | code::UNAVAILABLE | code::ABORTED => 503,
        code::INVALID_ARGUMENT | code::FAILED_PRECONDITION | code::OUT_OF_RANGE | code::ALREADY_EXISTS => 400,
        code::DEADLINE_EXCEEDED => 504,
        code::NOT_FOUND => 404,
        code::PERMISSION_DENIED => 403,
        code::RESOURCE_EXHAUSTED => 429,
        code::UNIMPLEMENTED => 501,
        code::UNAUTHENTICATED => 401,
        _ => 500,
    }
}

/// A message as `grpc-message` has it: what is not plain ASCII stands in percent.
pub fn quote_message(message: &str) -> String {
    /// Bytes of a message; headers are for short ones.
    const BYTES_MAX: usize = 4096;
    let mut quoted = String::with_capacity(message.len());
    for byte in message.bytes().take(BYTES_MAX) {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            quoted.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(quoted, "%{byte:02X}");
        }
    }
    quoted
}

/// The time that `grpc-timeout` gives a call; `None` if it is malformed.
pub fn timeout(value: &str) -> Option<Duration> {
    const DIGITS_MAX: usize = 8;
    let unit = value.chars().last()?;
    let digits = value.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > DIGITS_MAX || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(number * 3600),
        'M' => Duration::from_secs(number * 60),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_strictly() {
        for (text, time) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("250m", Some(Duration::from_millis(250))),
            ("5u", Some(Duration::from_micros(5))),
            ("7n", Some(Duration::from_nanos(7))),
            ("100000000S", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("1s", None),
            ("1é", None),
        ] {
            assert_eq!(timeout(text), time, "{text}");
        }
    }

    #[test]
    fn frames_hold_one_message() {
        let framed = frame(&Flag { is: true });
        assert_eq!(&framed[..], [0, 0, 0, 0, 2, 8, 1]);
        assert_eq!(unframe(&framed).map(|message| message.to_vec()), Ok(vec![8, 1]));
        let bad = |bytes: &'static [u8]| unframe(&Bytes::from_static(bytes)).expect_err("it is no frame");
        assert!(bad(b"").message.contains("no message"));
        assert!(bad(&[0, 0, 0, 0, 1]).message.contains("says 1 bytes"));
        assert!(bad(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).message.contains("one message"));
        assert_eq!(bad(&[1, 0, 0, 0, 0]).status, 501);
    }

    #[test]
    fn codes_and_messages() {
        for (status, code) in
            [(200, 0), (400, 3), (401, 16), (404, 5), (413, 8), (429, 8), (500, 13), (503, 14)]
        {
            assert_eq!(code_of(status), code, "{status}");
        }
        for code in 1..=16 {
            assert!(status_of(code) >= 400, "{code}");
        }
        assert_eq!(quote_message("a %é\n"), "a %25%C3%A9%0A");
        assert_eq!(Method::of_path("/inference.GRPCInferenceService/ModelInfer"), Some(Method::ModelInfer));
        assert_eq!(Method::of_path("/inference.GRPCInferenceService/ModelStreamInfer"), None);
    }
}
