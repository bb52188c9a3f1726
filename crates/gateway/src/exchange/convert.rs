//! Requests that are served in another dialect than their client's, and answers in any dialect that is not read by the
//! bytes alone: what is written for the provider, and what is read from it.

use std::sync::Arc;

use bytes::Bytes;
use pointsman_routing::flow::Usage;
use pointsman_wire::chat::{Event, Losses, Usage as Used};
use pointsman_wire::dialect::{
    AnswerFault, ClientDef, Elsewhere, OPENAI, ProviderDef, ReadStream, Told, WriteStream,
};
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::{Operation, Request};
use pointsman_wire::openai::responses::reader;
use pointsman_wire::openai::sse::{Out, StreamError};

use super::Arrival;
use super::noting::Noting;
use super::tasks::Ranking;
use crate::clock;
use crate::snapshot::Target;
use crate::structured::{Misfit, Schema};

/// Bytes of an answer that is not streamed and has to be read as a whole before it can be turned into another dialect.
const WHOLE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A body in the provider's dialect.
pub(super) struct Written {
    pub(super) body: String,
    pub(super) losses: Losses,
    /// What the answer repeats of the request.
    pub(super) echoed: String,
}

/// Whether a request has to be turned into the provider's dialect. Tensors never are.
pub(super) fn is_needed(arrival: &Arrival, target: &Target) -> bool {
    if arrival.asked.operation == Operation::Infer {
        return false;
    }
    let plain = arrival.dialect == OPENAI && target.endpoint.speaks_plainly();
    // Few of those who speak OpenAI's chat completions have its Responses API as well.
    let has = arrival.asked.operation != Operation::Response || target.responses;
    !(plain || has && target.endpoint.vendor.dialect.takes(arrival.dialect, &arrival.asked))
}

/// Writes a request in the provider's dialect. What it has no word for is lost, or a reason to refuse. One that is to
/// repair an answer goes on with that.
pub(super) fn write(
    arrival: &Arrival,
    target: &Target,
    (request, body): (&Request, &Bytes),
    refuses_losses: bool,
    repairs: Option<&Misfit>,
) -> Result<Written, ErrorBody> {
    let text = std::str::from_utf8(body).map_err(|_| ErrorBody::malformed("the body is not UTF-8"))?;
    let mut conversation = arrival.dialect.conversation(text)?;
    conversation.stream = request.stream;
    if let Some(misfit) = repairs {
        misfit.ask_again(&mut conversation);
    }
    let provider = target.endpoint.vendor.dialect;
    conversation.habits = target.endpoint.vendor.habits();
    let (body, losses) = arrival.dialect.write_for(provider, &conversation, &target.upstream_model_name);
    if refuses_losses {
        refuse_losses(&losses, target, provider.name)?;
    }
    Ok(Written { body, losses, echoed: conversation.echoed })
}

/// An error if anything is lost in the dialect or form of a deployment.
pub(super) fn refuse_losses(losses: &Losses, target: &Target, dialect: &str) -> Result<(), ErrorBody> {
    let Some(loss) = losses.named().first() else { return Ok(()) };
    let text = format!(
        "{loss}; deployment `{}` is asked in the dialect `{dialect}`, and this model refuses what is not carried over",
        target.name
    );
    Err(ErrorBody::malformed(text).with_param(loss.field.clone()))
}

/// Reads one answer, in whatever dialect, and says it in the client's.
pub(super) struct Reading {
    provider: &'static ProviderDef,
    client: &'static ClientDef,
    told: Told,
    /// Whether the client's dialect is another one, so that it gets other bytes.
    converts: bool,
    /// Whether it is a response that is passed on as it came, which is none of the provider's chats.
    is_response: bool,
    /// The media type of the client's streams.
    stream_type: &'static str,
    /// Whether the answer is a number of tokens, which uses none.
    counts: bool,
    /// The rerank that is answered, in another form than its client's.
    ranking: Option<Ranking>,
    stream: Option<Streaming>,
    /// An answer that is not streamed.
    whole: Vec<u8>,
    /// The model of that, as the provider names it, until it is told.
    model: Option<String>,
    noting: Noting,
    losses: Losses,
}

struct Streaming {
    reader: Box<dyn ReadStream>,
    writer: Option<Box<dyn WriteStream>>,
    events: Vec<Event>,
    ended: bool,
    /// What is relayed as it is was found to be unreadable: it goes on, and nothing more is learnt of it.
    blind: bool,
    /// Whether what was passed on last was the end of a line.
    at_line_end: bool,
    /// The model, as the provider names it, until it is told.
    model: Option<String>,
}

impl Streaming {
    /// Says what was read, and notes what it brought.
    fn tell(&mut self, text: &mut String, brought: &mut Brought, noting: &mut Noting, lost: &mut Losses) {
        for event in self.events.drain(..) {
            if event.is_content() {
                brought.content = true;
                brought.content_events += 1;
            }
            noting.take(&event);
            match &event {
                Event::Used(usage) => brought.usage = Some(used(usage)),
                Event::Started { usage, model, .. } => {
                    brought.usage = usage.as_ref().map(used).or(brought.usage.take());
                    self.model = Some(model.clone());
                }
                Event::Failed(error) => brought.error = Some(error.clone()),
                Event::Lost(losses) => lost.extend(losses.clone()),
                Event::Ended => self.ended = true,
                Event::Opened { .. }
                | Event::Added { .. }
                | Event::Signed { .. }
                | Event::Cited { .. }
                | Event::Likely { .. }
                | Event::Closed { .. }
                | Event::Stopped { .. }
                | Event::Ping => {}
            }
            if let Some(writer) = &mut self.writer {
                if let Some((field, why)) = writer.lost(&event) {
                    lost.note(field, why);
                }
                writer.write(&event, text);
            }
        }
    }
}

/// What some bytes of a stream brought.
#[derive(Default)]
pub(super) struct Brought {
    pub(super) content: bool,
    pub(super) content_events: u64,
    pub(super) usage: Option<Usage>,
    pub(super) error: Option<StreamError>,
}

/// Why a whole answer is none.
pub(super) enum Unread {
    /// It breaks the provider's protocol, in words.
    Broken(String),
    /// It is the provider's report of an error.
    Failed(StreamError),
}

impl Unread {
    fn broken(why: &dyn std::fmt::Display) -> Self {
        Self::Broken(format!("its answer cannot be read: {why}"))
    }
}

impl Reading {
    /// What is to be read of an attempt's answer; `None` where the bytes are relayed as they are and observed on the way.
    pub(super) fn of(
        arrival: &Arrival,
        target: &Target,
        request: &Request,
        schema: Option<&Arc<Schema>>,
    ) -> Option<Box<Self>> {
        let provider = target.endpoint.vendor.dialect;
        let converts = is_needed(arrival, target);
        let noting = Noting::of(schema, request.stream);
        if !converts
            && !noting.holds()
            && (arrival.dialect == OPENAI || arrival.asked.operation != Operation::Chat)
        {
            return None;
        }
        Some(Box::new(Self {
            provider,
            client: arrival.dialect,
            told: told(arrival, request),
            converts,
            is_response: !converts && arrival.asked.operation == Operation::Response,
            stream_type: (arrival.dialect.stream_type)(&arrival.asked),
            counts: arrival.asked.elsewhere == Elsewhere::Estimated,
            ranking: None,
            stream: None,
            whole: Vec::new(),
            model: None,
            noting,
            losses: Losses::default(),
        }))
    }

    /// The model that answered, as the provider names it, once.
    pub(super) fn take_model(&mut self) -> Option<String> {
        match &mut self.stream {
            Some(stream) => stream.model.take(),
            None => self.model.take(),
        }
    }

    /// The answer to a request that was turned into the provider's dialect, though it could have been passed on: it is turned
    /// back.
    pub(super) fn turning(mut self: Box<Self>) -> Box<Self> {
        (self.converts, self.is_response) = (true, false);
        self
    }

    /// Lets the answer repeat this of the request.
    pub(super) fn echoing(mut self: Box<Self>, echoed: String) -> Box<Self> {
        self.told.echoed = echoed;
        self
    }

    /// The answer to a rerank that was sent in another form.
    pub(super) fn of_rerank(
        arrival: &Arrival,
        target: &Target,
        request: &Request,
        ranking: Ranking,
    ) -> Box<Self> {
        Box::new(Self {
            provider: target.endpoint.vendor.dialect,
            client: arrival.dialect,
            told: told(arrival, request),
            converts: true,
            is_response: false,
            stream_type: (arrival.dialect.stream_type)(&arrival.asked),
            counts: false,
            ranking: Some(ranking),
            stream: None,
            whole: Vec::new(),
            model: None,
            noting: Noting::default(),
            losses: Losses::default(),
        })
    }

    /// Whether the client gets other bytes than came.
    pub(super) fn converts(&self) -> bool {
        self.converts
    }

    /// The media type of what the client gets, if it is not what came.
    pub(super) fn client_type(&self) -> Option<&'static str> {
        let kind = if self.stream.is_some() { self.stream_type } else { "application/json" };
        self.converts.then_some(kind)
    }

    /// The media type that the provider's streams have.
    pub(super) fn stream_type(&self) -> &'static str {
        self.provider.stream_type
    }

    /// Begins to read a stream.
    pub(super) fn begin_stream(&mut self) {
        self.noting.begin_stream();
        self.stream = Some(Streaming {
            reader: if self.is_response { reader::stream() } else { self.provider.dialect.stream() },
            writer: self.converts.then(|| self.client.dialect.stream(self.told.clone())),
            events: Vec::new(),
            ended: false,
            blind: false,
            at_line_end: true,
            model: None,
        });
    }

    /// Whether it is a stream.
    pub(super) fn is_stream(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether what the client was given may end inside an event.
    pub(super) fn is_inside_event(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.writer.is_none() && !stream.at_line_end)
    }

    /// Whether the answer has to be read before the client gets any of it.
    pub(super) fn is_first_read(&self) -> bool {
        self.converts || self.noting.holds()
    }

    /// What is noted of the answer.
    pub(super) fn noting(&mut self) -> &mut Noting {
        &mut self.noting
    }

    /// Whether the stream came to its proper end.
    pub(super) fn has_ended(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.ended || stream.blind)
    }

    /// What could not be carried over, of the answer.
    pub(super) fn take_losses(&mut self) -> Losses {
        std::mem::take(&mut self.losses)
    }

    /// Takes in the next bytes of a stream, and gives what the client may have. An error is the provider's fault, in words.
    pub(super) fn push(&mut self, data: Bytes, out: &mut Out) -> Result<Brought, String> {
        let mut brought = Brought::default();
        let Some(stream) = &mut self.stream else {
            let fits = self.whole.len() + data.len() <= WHOLE_BYTES_MAX;
            if fits {
                self.whole.extend_from_slice(&data);
            } else if self.is_first_read() {
                return Err(format!("its answer is longer than {WHOLE_BYTES_MAX} bytes"));
            }
            if !self.is_first_read() {
                out.push(data);
                brought.content = true;
            }
            return Ok(brought);
        };
        let mut pushed = Ok(());
        if !stream.blind {
            pushed = stream.reader.push(&data, &mut stream.events);
        }
        if stream.writer.is_none() && pushed.is_err() {
            // What is passed on as it is, is for the client to judge.
            (stream.blind, brought.content, pushed) = (true, true, Ok(()));
        }
        let mut text = String::new();
        stream.tell(&mut text, &mut brought, &mut self.noting, &mut self.losses);
        if stream.writer.is_none() {
            stream.at_line_end = data.last().is_none_or(|last| *last == b'\n');
            out.push(data);
        } else if !text.is_empty() {
            out.push(text.into());
        }
        pushed.map(|()| brought).map_err(|fault| fault.to_string())
    }

    /// The provider closed a stream, as its protocol allows: what only that tells.
    pub(super) fn finish_stream(&mut self, out: &mut Out) -> Brought {
        let (mut brought, mut text) = (Brought::default(), String::new());
        if let Some(stream) = self.stream.as_mut().filter(|stream| !stream.blind) {
            stream.reader.finish(&mut stream.events);
            stream.tell(&mut text, &mut brought, &mut self.noting, &mut self.losses);
        }
        if !text.is_empty() {
            out.push(text.into());
        }
        brought
    }

    /// An answer that was not streamed is there as a whole: what it used, and what the client gets if that is something
    /// else.
    pub(super) fn finish_whole(&mut self) -> Result<(Option<Usage>, Option<Bytes>), Unread> {
        let whole = std::mem::take(&mut self.whole);
        if self.counts {
            return Ok((Some(used(&Used::default())), None));
        }
        if let Some(ranking) = &self.ranking {
            let ranked = ranking.answer(&whole).map_err(Unread::Broken)?;
            return Ok((ranked.0, Some(ranked.1)));
        }
        let read = match std::str::from_utf8(&whole) {
            Ok(text) if self.is_response => reader::answer(text).map_err(|error| Unread::broken(&error)),
            Ok(text) => self.provider.dialect.answer(text).map_err(|fault| match fault {
                AnswerFault::Failed(error) => Unread::Failed(error),
                AnswerFault::Json(_) | AnswerFault::Missing(_) => Unread::broken(&fault),
            }),
            Err(_) => Err(Unread::broken(&"it is not UTF-8")),
        };
        let answer = match read {
            Ok(answer) => answer,
            // What is passed on as it is, is for the client to judge.
            Err(_) if !self.is_first_read() => return Ok((None, None)),
            Err(why) => return Err(why),
        };
        let usage = answer.usage.as_ref().map(used);
        self.model = Some(answer.model.clone());
        self.noting.take_whole(&answer);
        if !self.converts {
            return Ok((usage, self.noting.holds().then(|| whole.into())));
        }
        self.losses.extend(answer.losses.clone());
        let body = self.client.dialect.answer(&answer, &self.told, &mut self.losses);
        Ok((usage, Some(body.into())))
    }
}

/// What a client is told beside the answer itself.
fn told(arrival: &Arrival, request: &Request) -> Told {
    Told {
        call: arrival.asked.call,
        model: request.model_asked(),
        now_unix_s: clock::unix_ms() / 1000,
        id: arrival.id.to_string(),
        stream_usage: request.include_usage == Some(true),
        echoed: String::new(),
    }
}

/// The event that tells a client its stream was cut off, in its dialect.
pub(super) fn error_event(arrival: &Arrival, error: &ErrorBody) -> Bytes {
    if arrival.dialect.is_openai() {
        return pointsman_wire::openai::error_event(arrival.asked.operation, error);
    }
    let failed = StreamError {
        status: Some(error.status),
        kind: Some(error.kind.to_owned()),
        code: error.code.as_deref().map(str::to_owned),
        message: Some(error.message.clone()),
    };
    let told = Told { call: arrival.asked.call, id: arrival.id.to_string(), ..Told::default() };
    let mut text = String::new();
    arrival.dialect.dialect.stream(told).write(&Event::Failed(failed), &mut text);
    text.into()
}

fn used(usage: &Used) -> Usage {
    Usage {
        tokens_in: usage.tokens_in,
        tokens_in_cached: usage.tokens_in_cached,
        tokens_in_cache_written: usage.tokens_in_cache_written,
        tokens_in_cache_written_1h: usage.tokens_in_cache_written_1h,
        // The neutral form does not tell the tokens of images from those of text.
        tokens_in_image: 0,
        tokens_in_audio: usage.tokens_in_audio,
        tokens_out_reasoning: usage.tokens_out_reasoning,
        tokens_out_audio: usage.tokens_out_audio,
        tokens_out: usage.tokens_out,
        off_list: usage.off_list,
        estimated: false,
    }
}

#[cfg(test)]
mod tests {
    use pointsman_wire::dialect::{client, provider};

    use super::*;

    /// An answer of an Anthropic provider for a client of that dialect.
    fn reading(dialect: &str) -> Reading {
        Reading {
            provider: provider("anthropic").expect("it is there"),
            client: client(dialect).expect("it is there"),
            told: Told::default(),
            converts: dialect != "anthropic",
            is_response: false,
            stream: None,
            whole: Vec::new(),
            model: None,
            stream_type: "text/event-stream",
            counts: false,
            ranking: None,
            noting: Noting::default(),
            losses: Losses::default(),
        }
    }

    #[test]
    fn d16_what_is_relayed_as_it_is_passes_however_long_or_odd_it_is() {
        let mut whole = reading("anthropic");
        let (piece, mut out) = (Bytes::from(vec![0xFF; 1 << 20]), Out::new());
        for _ in 0..40 {
            assert!(whole.push(piece.clone(), &mut out).is_ok_and(|brought| brought.content));
        }
        assert!(out.len() == 40 && whole.whole.len() <= WHOLE_BYTES_MAX);
        assert!(matches!(whole.finish_whole(), Ok((None, None))));
        let mut stream = reading("anthropic");
        stream.begin_stream();
        out.clear();
        let line = Bytes::from(vec![b'x'; 1 << 20]);
        for _ in 0..4 {
            assert!(stream.push(line.clone(), &mut out).is_ok(), "an event without an end passes");
        }
        assert!(out.len() == 4 && stream.has_ended());
    }

    #[test]
    fn d16_what_has_to_be_turned_is_bounded() {
        let mut whole = reading("openai");
        let piece = Bytes::from(vec![b' '; 1 << 20]);
        let taken = (0..40).take_while(|_| whole.push(piece.clone(), &mut Out::new()).is_ok()).count();
        assert_eq!(taken, WHOLE_BYTES_MAX >> 20);
        let mut stream = reading("openai");
        stream.begin_stream();
        let line = Bytes::from(vec![b'x'; 1 << 20]);
        assert!((0..4).any(|_| stream.push(line.clone(), &mut Out::new()).is_err()));
        let mut odd = reading("openai");
        let _ = odd.push(Bytes::from_static(b"\xFF"), &mut Out::new());
        assert!(matches!(odd.finish_whole(), Err(Unread::Broken(why)) if why.contains("UTF-8")));
    }
}
