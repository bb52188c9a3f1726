//! What is counted of an inference: the tensors that went, and those that came back.

use bytes::{Bytes, BytesMut};
use pointsman_wire::kserve::answer;
use pointsman_wire::openai::request::Tensors;
use serde_json::{Value, json};

/// Bytes of an answer's beginning that are kept to be read. Tensors behind that are not counted, their bytes are.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// The tensors of one attempt.
pub(super) struct Counted {
    asked: Tensors,
    beginning: BytesMut,
    bytes: u64,
}

impl Counted {
    pub(super) fn new(asked: Tensors) -> Self {
        Self { asked, beginning: BytesMut::new(), bytes: 0 }
    }

    /// A piece of the answer came.
    pub(super) fn note(&mut self, data: &Bytes) {
        self.bytes += data.len() as u64;
        let room = KEPT_BYTES_MAX - self.beginning.len();
        self.beginning.extend_from_slice(&data[..data.len().min(room)]);
    }

    /// As the decision record has it.
    pub(super) fn to_json(&self) -> Value {
        let answered = answer::read(&self.beginning);
        json!({
            "in": self.asked.count,
            "elements_in": self.asked.elements,
            "bytes_in": self.asked.bytes,
            "out": answered.map(|answered| answered.tensors),
            "elements_out": answered.map(|answered| answered.elements),
            "bytes_out": self.bytes,
        })
    }
}
