//! What the bytes of an answer are taken for: relayed and observed on the way, or read as what they say.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use pointsman_routing::flow::{Input, Usage};
use pointsman_wire::chat::Losses;
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::sse::StreamError;
use pointsman_wire::openai::usage;

use super::super::convert::Reading;
use super::super::words::{fault_of, known};
use super::{Attempt, HELD_BYTES_MAX, State, USAGE_BYTES_MAX};
use crate::upstream::head::Framing;

impl Attempt {
    /// Lets the answer be read by something else than its bytes, and notes what the request lost.
    pub(in crate::exchange) fn read_by(&mut self, reading: Option<Box<Reading>>, losses: Losses) {
        (self.reading, self.losses) = (reading, losses);
    }

    /// Why the request was not sent, once.
    pub(in crate::exchange) fn take_refusal(&mut self) -> Option<ErrorBody> {
        self.refusal.take()
    }

    /// What could not be carried over, there and back, once.
    pub(in crate::exchange) fn take_losses(&mut self) -> Losses {
        let mut losses = std::mem::take(&mut self.losses);
        if let Some(reading) = &mut self.reading {
            losses.extend(reading.take_losses());
        }
        losses
    }

    /// Makes the head say what the client gets, where that is something else than came.
    pub(super) fn retitle(&mut self) {
        let kind = self.reading.as_ref().and_then(|reading| reading.client_type());
        if let (Some(kind), Some(head)) = (kind, &mut self.head) {
            head.headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            head.framing = Framing::Chunked;
        }
    }

    /// The same for an answer that is read as what it says.
    pub(super) fn on_read(&mut self, data: Bytes) -> Option<Input> {
        let reading = self.reading.as_mut()?;
        self.held_bytes += data.len();
        let brought = match reading.push(data, &mut self.ready) {
            Ok(brought) => brought,
            Err(detail) => {
                tracing::warn!(deployment = self.name(), %detail, "the provider's answer cannot be read");
                self.state = State::Over;
                return Some(Input::Failed(self.broke_protocol(detail)));
            }
        };
        self.tokens_out_seen += brought.content_events;
        self.usage = brought.usage.or(self.usage);
        if let Some(error) = brought.error.as_ref().filter(|_| !self.content && !brought.content) {
            self.ready.clear();
            return Some(self.on_stream_error(error));
        }
        self.told = self.told.take().or(brought.error.as_ref().map(|error| fault_of(error).1));
        let streams = self.is_event_stream();
        if self.content || !(brought.content || (streams && self.held_bytes > HELD_BYTES_MAX)) {
            return None;
        }
        self.content = true;
        Some(Input::FirstContent)
    }

    /// The end of an answer that is read as what it says: whether it was cut off.
    pub(super) fn end_reading(&mut self) -> Result<bool, String> {
        let Some(reading) = &mut self.reading else { return Ok(false) };
        if reading.is_stream() {
            return Ok(!reading.has_ended());
        }
        let (usage, body) = reading.finish_whole()?;
        self.usage = usage.or(self.usage);
        self.ready.extend(body);
        Ok(false)
    }

    pub(super) fn keep_for_usage(&mut self, data: &Bytes) {
        self.kept_bytes += data.len();
        if self.kept_bytes <= USAGE_BYTES_MAX {
            self.kept.push(data.clone());
        } else {
            self.kept.clear();
        }
    }

    pub(super) fn usage_of_kept(&mut self) -> Option<Usage> {
        let kept = std::mem::take(&mut self.kept);
        let usage = match kept.as_slice() {
            [] => None,
            [only] => usage::usage_of_body(only),
            pieces => usage::usage_of_body(&pieces.concat()),
        };
        usage.as_ref().map(known)
    }

    /// What the answer has used so far, for one that was cut short.
    pub(in crate::exchange) fn usage_so_far(&self) -> Usage {
        self.usage.unwrap_or(Usage {
            tokens_in: self.tokens_in_estimate,
            tokens_in_cached: 0,
            tokens_out: self.tokens_out_seen,
            estimated: true,
            truncated: false,
        })
    }

    /// A good status, and then an error before any content: as good as an error status.
    pub(super) fn on_stream_error(&mut self, error: &StreamError) -> Input {
        self.state = State::Over;
        let (said, failure) = fault_of(error);
        self.error = Some(said);
        Input::Failed(failure)
    }

    pub(super) fn on_bytes(&mut self, data: Bytes) -> Option<Input> {
        if self.reading.is_some() {
            return self.on_read(data);
        }
        let bytes = data.len();
        let content = match &mut self.observer {
            None => {
                if let Some(tensors) = &mut self.tensors {
                    tensors.note(&data);
                } else if self.kept.is_empty() && self.is_complete() {
                    self.usage = usage::usage_of_body(&data).as_ref().map(known);
                } else {
                    self.keep_for_usage(&data);
                }
                self.ready.push(data);
                true
            }
            Some(observer) => match observer.push(data, &mut self.ready) {
                Err(fault) => {
                    tracing::warn!(deployment = self.name(), %fault, "the provider's stream is malformed");
                    self.state = State::Over;
                    return Some(Input::Failed(self.broke_protocol(fault.to_string())));
                }
                Ok(seen) => {
                    self.tokens_out_seen += u64::from(seen.content_events);
                    if let Some(usage) = seen.usage {
                        self.usage = Some(known(&usage));
                    }
                    let error = seen.error;
                    if let Some(error) = error.as_ref().filter(|_| !self.content && !seen.content) {
                        return Some(self.on_stream_error(error));
                    }
                    self.told = self.told.take().or(error.as_ref().map(|error| fault_of(error).1));
                    seen.content
                }
            },
        };
        self.held_bytes += bytes;
        if self.content || !(content || self.held_bytes > HELD_BYTES_MAX) {
            return None;
        }
        self.content = true;
        Some(Input::FirstContent)
    }
}
