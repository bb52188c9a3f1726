//! Requests that are served in another dialect than their client's, and answers in any dialect that is not read by the
//! bytes alone: what is written for the provider, and what is read from it.

use bytes::Bytes;
use pointsman_routing::flow::Usage;
use pointsman_wire::chat::{Event, Losses, Usage as Used};
use pointsman_wire::dialect::{CONVERTED_DEPTH_MAX, ClientDef, ProviderDef, ReadStream, Told, WriteStream};
use pointsman_wire::json::tree::Tree;
use pointsman_wire::openai::error::{ErrorBody, Invalid};
use pointsman_wire::openai::request::{Operation, Request};
use pointsman_wire::openai::sse::StreamError;
use smallvec::SmallVec;

use super::Arrival;
use crate::clock;
use crate::snapshot::Target;

/// Bytes of an answer that is not streamed and has to be read as a whole before it can be turned into another dialect.
const WHOLE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The dialect whose bytes are relayed and observed without being read as events.
const PLAIN: &str = "openai";

/// A body in the provider's dialect.
pub(super) struct Written {
    pub(super) body: String,
    pub(super) losses: Losses,
}

/// Whether a request has to be turned into the provider's dialect.
pub(super) fn is_needed(arrival: &Arrival, target: &Target) -> bool {
    arrival.asked.operation == Operation::Chat && arrival.dialect.name != target.endpoint.vendor.dialect.name
}

/// Writes a request in the provider's dialect. What it has no word for is lost, or a reason to refuse.
pub(super) fn write(
    arrival: &Arrival,
    target: &Target,
    (request, body): (&Request, &Bytes),
    refuses_losses: bool,
) -> Result<Written, ErrorBody> {
    let text = std::str::from_utf8(body).map_err(|_| ErrorBody::malformed("the body is not UTF-8"))?;
    let tree = Tree::parse(text, CONVERTED_DEPTH_MAX).map_err(Invalid::from)?;
    let mut conversation = arrival.dialect.dialect.conversation(tree)?;
    conversation.stream = request.stream;
    let mut losses = std::mem::take(&mut conversation.losses);
    let provider = target.endpoint.vendor.dialect;
    let body = provider.dialect.request(&conversation, &target.upstream_model_name, &mut losses);
    match losses.named().first().filter(|_| refuses_losses) {
        Some(loss) => {
            let text = format!(
                "{loss}; deployment `{}` is asked in the dialect `{}`, and this model refuses what is not carried over",
                target.name, provider.name
            );
            Err(ErrorBody::malformed(text).with_param(loss.field.clone()))
        }
        None => Ok(Written { body, losses }),
    }
}

/// Reads one answer, in whatever dialect, and says it in the client's.
pub(super) struct Reading {
    provider: &'static ProviderDef,
    client: &'static ClientDef,
    told: Told,
    /// Whether the client's dialect is another one, so that it gets other bytes.
    converts: bool,
    stream: Option<Streaming>,
    /// An answer that is not streamed.
    whole: Vec<u8>,
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
}

/// What some bytes of a stream brought.
#[derive(Default)]
pub(super) struct Brought {
    pub(super) content: bool,
    pub(super) content_events: u64,
    pub(super) usage: Option<Usage>,
    pub(super) error: Option<StreamError>,
}

impl Reading {
    /// What is to be read of an attempt's answer; `None` where the bytes are relayed as they are and observed on the way.
    pub(super) fn of(arrival: &Arrival, target: &Target, request: &Request) -> Option<Box<Self>> {
        let provider = target.endpoint.vendor.dialect;
        let converts = is_needed(arrival, target);
        if !converts && (provider.name == PLAIN || arrival.asked.operation != Operation::Chat) {
            return None;
        }
        Some(Box::new(Self {
            provider,
            client: arrival.dialect,
            told: told(arrival, request),
            converts,
            stream: None,
            whole: Vec::new(),
            losses: Losses::default(),
        }))
    }

    /// The media type of what the client gets, if it is not what came.
    pub(super) fn client_type(&self) -> Option<&'static str> {
        let kind = if self.stream.is_some() { self.client.stream_type } else { "application/json" };
        self.converts.then_some(kind)
    }

    /// The media type that the provider's streams have.
    pub(super) fn stream_type(&self) -> &'static str {
        self.provider.stream_type
    }

    /// Begins to read a stream.
    pub(super) fn begin_stream(&mut self) {
        self.stream = Some(Streaming {
            reader: self.provider.dialect.stream(),
            writer: self.converts.then(|| self.client.dialect.stream(self.told.clone())),
            events: Vec::new(),
            ended: false,
            blind: false,
            at_line_end: true,
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

    /// Whether the client gets other bytes than came.
    pub(super) fn converts(&self) -> bool {
        self.converts
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
    pub(super) fn push(&mut self, data: Bytes, out: &mut SmallVec<[Bytes; 4]>) -> Result<Brought, String> {
        let mut brought = Brought::default();
        let Some(stream) = &mut self.stream else {
            let fits = self.whole.len() + data.len() <= WHOLE_BYTES_MAX;
            if fits {
                self.whole.extend_from_slice(&data);
            } else if self.converts {
                return Err(format!("its answer is longer than {WHOLE_BYTES_MAX} bytes"));
            }
            if !self.converts {
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
        for event in stream.events.drain(..) {
            if event.is_content() {
                brought.content = true;
                brought.content_events += 1;
            }
            match &event {
                Event::Used(usage) | Event::Started { usage: Some(usage), .. } => {
                    brought.usage = Some(used(usage));
                }
                Event::Failed(error) => brought.error = Some(error.clone()),
                Event::Lost(losses) => self.losses.extend(losses.clone()),
                Event::Ended => stream.ended = true,
                Event::Started { .. }
                | Event::Opened { .. }
                | Event::Added { .. }
                | Event::Signed { .. }
                | Event::Cited { .. }
                | Event::Likely { .. }
                | Event::Closed { .. }
                | Event::Stopped { .. }
                | Event::Ping => {}
            }
            if let Some(writer) = &mut stream.writer {
                writer.write(&event, &mut text);
            }
        }
        if stream.writer.is_none() {
            stream.at_line_end = data.last().is_none_or(|last| *last == b'\n');
            out.push(data);
        } else if !text.is_empty() {
            out.push(text.into());
        }
        pushed.map(|()| brought).map_err(|fault| fault.to_string())
    }

    /// An answer that was not streamed is there as a whole: what it used, and what the client gets if that is something
    /// else.
    pub(super) fn finish_whole(&mut self) -> Result<(Option<Usage>, Option<Bytes>), String> {
        let whole = std::mem::take(&mut self.whole);
        let read = match std::str::from_utf8(&whole) {
            Ok(text) => self.provider.dialect.answer(text).map_err(|error| error.to_string()),
            Err(_) => Err("it is not UTF-8".to_owned()),
        };
        let answer = match read {
            Ok(answer) => answer,
            // What is passed on as it is, is for the client to judge.
            Err(_) if !self.converts => return Ok((None, None)),
            Err(error) => return Err(format!("its answer cannot be read: {error}")),
        };
        let usage = answer.usage.as_ref().map(used);
        if !self.converts {
            return Ok((usage, None));
        }
        self.losses.extend(answer.losses.clone());
        let body = self.client.dialect.answer(&answer, &self.told, &mut self.losses);
        Ok((usage, Some(body.into())))
    }
}

/// What a client is told beside the answer itself.
fn told(arrival: &Arrival, request: &Request) -> Told {
    Told {
        model: request.model_asked(),
        now_unix_s: clock::unix_ms() / 1000,
        id: arrival.id.to_string(),
        stream_usage: request.include_usage == Some(true),
    }
}

/// The event that tells a client its stream was cut off, in its dialect.
pub(super) fn error_event(arrival: &Arrival, error: &ErrorBody) -> Bytes {
    if arrival.dialect.name == PLAIN {
        return pointsman_wire::openai::error_event(arrival.asked.operation, error);
    }
    let failed = StreamError {
        status: Some(error.status),
        kind: Some(error.kind.to_owned()),
        code: error.code.as_deref().map(str::to_owned),
        message: Some(error.message.clone()),
    };
    let told = Told { id: arrival.id.to_string(), ..Told::default() };
    let mut text = String::new();
    arrival.dialect.dialect.stream(told).write(&Event::Failed(failed), &mut text);
    text.into()
}

fn used(usage: &Used) -> Usage {
    Usage {
        tokens_in: usage.tokens_in,
        tokens_in_cached: usage.tokens_in_cached,
        tokens_out: usage.tokens_out,
        estimated: false,
        truncated: false,
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
            stream: None,
            whole: Vec::new(),
            losses: Losses::default(),
        }
    }

    #[test]
    fn d16_what_is_relayed_as_it_is_passes_however_long_or_odd_it_is() {
        let mut whole = reading("anthropic");
        let (piece, mut out) = (Bytes::from(vec![0xFF; 1 << 20]), SmallVec::new());
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
        let taken = (0..40).take_while(|_| whole.push(piece.clone(), &mut SmallVec::new()).is_ok()).count();
        assert_eq!(taken, WHOLE_BYTES_MAX >> 20);
        let mut stream = reading("openai");
        stream.begin_stream();
        let line = Bytes::from(vec![b'x'; 1 << 20]);
        assert!((0..4).any(|_| stream.push(line.clone(), &mut SmallVec::new()).is_err()));
        let mut odd = reading("openai");
        let _ = odd.push(Bytes::from_static(b"\xFF"), &mut SmallVec::new());
        assert!(odd.finish_whole().is_err_and(|why| why.contains("UTF-8")));
    }
}
