//! What a client of this protocol is told, at the seam of the client dialects. It is no chat dialect, and not in
//! [`CLIENTS`](crate::dialect::CLIENTS): nothing is turned into it or out of it.

use crate::chat::{Answer, Conversation, Event, Losses};
use crate::dialect::{Asked, ClientDef, ClientDialect, Told, WriteStream};
use crate::json::tree::Tree;
use crate::openai::error::{ErrorBody, Invalid};
use crate::openai::request::{BodyLimits, Request, split_version};

use super::answer;

/// The Open Inference Protocol.
pub static DEF: ClientDef = ClientDef {
    name: "kserve",
    summary: "KServe v2, the Open Inference Protocol: tensors.",
    route: |_, _| None,
    places: &["/v2/"],
    read,
    headers: &[],
    schema_field: "",
    words: &[],
    request_id_header: None,
    error_status: |error| error.status,
    stream_type: |_| "application/json",
    heartbeat: "",
    dialect: &Kserve,
};

/// Reads a body that is all JSON.
fn read(asked: &Asked, body: &[u8], limits: &BodyLimits, _: u64) -> Result<Request, Invalid> {
    let inference = super::parse(body, None, limits)?;
    let (model, version) = split_version(asked.model.as_deref().unwrap_or_default());
    Ok(Request::infer(model.to_owned(), version.map(str::to_owned), inference.tensors()))
}

struct Kserve;

impl ClientDialect for Kserve {
    fn conversation(&self, _: Tree<'_>) -> Result<Conversation, Invalid> {
        Err(Invalid::body("tensors are no chat"))
    }

    fn answer(&self, _: &Answer, _: &Told, _: &mut Losses) -> String {
        answer::error("chats are no tensors")
    }

    fn stream(&self, _: Told) -> Box<dyn WriteStream> {
        Box::new(Silent)
    }

    fn error(&self, error: &ErrorBody, _: &str) -> String {
        answer::error(&error.message)
    }
}

struct Silent;

impl WriteStream for Silent {
    fn write(&mut self, _: &Event, _: &mut String) {}
}
