//! Requests that are no chats: forms with files, and reranks, which have two forms.

use bytes::{BufMut, Bytes, BytesMut};
use pointsman_routing::flow::Usage;
use pointsman_wire::openai::Segments;
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::Request;
use pointsman_wire::rerank::{self, Form, Rerank, Told};
use pointsman_wire::tasks::multipart::Parts;

use super::Arrival;
use super::convert::{self, Written};
use super::outgoing::{HEAD_BYTES, finish_head, put_passed};
use super::upload::{Feed, Upload};
use crate::snapshot::Target;
use crate::upstream::connection::{Message, Rest};
use crate::upstream::credential::Credential;

/// The bytes of one attempt at a form, with the model's name put in. With `upload` its body passes by.
pub(super) fn compose(
    target: &Target,
    credential: Option<&Credential>,
    (request, form): (&Request, &Parts),
    body: &Bytes,
    upload: Option<&Upload>,
    arrival: &Arrival,
) -> Message {
    let mut splice = form.splice(&target.upstream_model_name);
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    let dialect = target.endpoint.vendor.dialect;
    let path = dialect.relay_path(arrival.dialect, &arrival.asked, &target.upstream_model_name);
    target.endpoint.write_bare_head(&path.unwrap_or_default(), &mut head);
    head.put_slice(format!("content-type: {}\r\n", form.content_type()).as_bytes());
    put_passed(&mut head, target, &arrival.passed);
    let mut parts = Segments::new();
    let Some(upload) = upload else {
        finish_head(&mut head, target, credential, request, Some(splice.length(body.len() as u64)), arrival);
        parts.push(head.freeze());
        splice.push(body, &mut parts);
        return parts.into();
    };
    let length = upload.length().map(|length| splice.length(length));
    finish_head(&mut head, target, credential, request, length, arrival);
    parts.push(head.freeze());
    let rest = Rest { pieces: Box::pin(Feed::new(upload, splice)), chunked: length.is_none() };
    Message { parts, rest: Some(rest) }
}

/// The form in which the deployment takes a rerank, where that is not the client's.
pub(super) fn other_form(arrival: &Arrival, target: &Target) -> Option<Form> {
    let client = Form::of_name(arrival.asked.call)?;
    Some(target.endpoint.vendor.rerank).filter(|form| *form != client)
}

/// A rerank that was sent in another form than its client's.
pub(super) struct Ranking {
    asked: Rerank,
    client: Form,
    told: Told,
}

/// Writes a rerank in a provider's form.
pub(super) fn write(
    arrival: &Arrival,
    target: &Target,
    form: Form,
    (request, body): (&Request, &Bytes),
    refuses_losses: bool,
) -> Result<(Written, Ranking), ErrorBody> {
    let text = std::str::from_utf8(body).map_err(|_| ErrorBody::malformed("the body is not UTF-8"))?;
    let mut asked = rerank::read(text)?;
    let mut losses = std::mem::take(&mut asked.losses);
    let body = rerank::write(&asked, form, &target.upstream_model_name, &mut losses);
    if refuses_losses {
        convert::refuse_losses(&losses, target, form.name())?;
    }
    let told = Told { model: request.model_asked(), id: arrival.id.to_string() };
    let client = Form::of_name(arrival.asked.call).unwrap_or_default();
    Ok((Written { body, losses, echoed: String::new() }, Ranking { asked, client, told }))
}

impl Ranking {
    /// The answer in the client's form, and what it used.
    pub(super) fn answer(&self, body: &[u8]) -> Result<(Option<Usage>, Bytes), String> {
        let text = std::str::from_utf8(body).map_err(|_| "its answer is not UTF-8".to_owned())?;
        let ranked =
            rerank::read_answer(text).map_err(|error| format!("its answer cannot be read: {error}"))?;
        let usage = ranked.tokens.map(|tokens_in| Usage { tokens_in, ..Usage::default() });
        Ok((usage, rerank::write_answer(&ranked, &self.asked, self.client, &self.told).into()))
    }
}
