//! What the bytes of an answer are taken for: relayed and observed on the way, or read as what they say.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use pointsman_routing::Failure;
use pointsman_routing::flow::{Input, Usage};
use pointsman_routing::said::Said;
use pointsman_wire::answered;
use pointsman_wire::chat::{Finding, Findings, Losses};
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::findings::findings_of_body;
use pointsman_wire::openai::sse::StreamError;
use pointsman_wire::openai::usage;

use super::super::convert::{Reading, Unread};
use super::super::issue::Issues;
use super::super::said::add_model;
use super::super::words::{ProviderError, fault_of, known};
use super::{Attempt, HELD_BYTES_MAX, State, USAGE_BYTES_MAX};
use crate::structured::{Misfit, Watch};
use crate::upstream::head::Framing;

impl Attempt {
    /// Lets the answer be read by something else than its bytes, and notes what the request lost.
    pub(in crate::exchange) fn read_by(&mut self, reading: Option<Box<Reading>>, losses: Losses) {
        (self.reading, self.losses) = (reading, losses);
    }

    /// Whether the client gets other bytes than came.
    pub(in crate::exchange) fn converts(&self) -> bool {
        self.reading.as_ref().is_some_and(|reading| reading.converts())
    }

    /// Lets the answer be looked through for ids that only its account knows.
    pub(in crate::exchange) fn watch_for(&mut self, issues: Option<Box<Issues>>) {
        self.issues = issues;
    }

    /// Lets a stream that is relayed by its bytes alone be checked when it has ended.
    pub(in crate::exchange) fn watch_by(&mut self, watch: Watch) {
        self.watch = Some(Box::new(watch));
    }

    /// What was held back and does not fit its schema, once.
    pub(in crate::exchange) fn take_misfit(&mut self) -> Option<Box<Misfit>> {
        self.reading.as_mut()?.noting().take_misfit()
    }

    /// What is worth telling of the answer. Asked when the attempt is over.
    pub(in crate::exchange) fn findings(&mut self) -> Findings {
        if self.watch.take().is_some_and(|mut watch| watch.is_misfit()) {
            self.findings.insert(Finding::SchemaMismatch);
        }
        let mut findings = self.findings;
        if let Some(observer) = &self.observer {
            findings.extend(observer.findings());
        }
        if let Some(reading) = &mut self.reading {
            findings.extend(reading.noting().findings());
        }
        findings
    }

    /// Why the request was not sent, once.
    pub(in crate::exchange) fn take_refusal(&mut self) -> Option<Box<ErrorBody>> {
        self.refusal.take()
    }

    /// What the provider said of itself since this was last asked.
    pub(in crate::exchange) fn take_said(&mut self) -> Option<Said> {
        self.said.take()
    }

    /// Notes which model answers, once that can be told.
    fn hear_model(&mut self) {
        let model = match &mut self.reading {
            Some(reading) => reading.take_model(),
            // Their answers name the model in another word, and may be long.
            None if self.tensors.is_some() => None,
            None => self.ready.iter().find_map(|piece| answered::model_of(piece)),
        };
        if let Some(model) = model.filter(|model| !model.is_empty()) {
            add_model(&mut self.said, &model);
        }
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
        self.told = self.told.take().or(brought.error.as_ref().map(|error| self.fault_of(error).1));
        let streams = self.is_event_stream();
        if self.content || !(brought.content || (streams && self.held_bytes > HELD_BYTES_MAX)) {
            return None;
        }
        self.content = true;
        self.hear_model();
        Some(Input::FirstContent)
    }

    /// The end of an answer that is read as what it says: whether it was cut off.
    pub(super) fn end_reading(&mut self) -> Result<bool, Unread> {
        let Some(reading) = &mut self.reading else { return Ok(false) };
        if reading.is_stream() {
            let brought = reading.finish_stream(&mut self.ready);
            self.usage = brought.usage.or(self.usage);
            self.tokens_out_seen += brought.content_events;
            let has_ended = reading.has_ended();
            self.told = self.told.take().or(brought.error.as_ref().map(|error| self.fault_of(error).1));
            return Ok(!has_ended);
        }
        let (usage, body) = reading.finish_whole()?;
        self.usage = usage.or(self.usage);
        self.ready.extend(body);
        self.hear_model();
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
        if let Some(tail) = &self.tail {
            return tail.usage().as_ref().map(known);
        }
        let kept = std::mem::take(&mut self.kept);
        match kept.as_slice() {
            [] => None,
            [only] => self.usage_of(only),
            pieces => self.usage_of(&pieces.concat()),
        }
    }

    /// What a whole answer used. What else is worth telling of it is noted.
    fn usage_of(&mut self, body: &[u8]) -> Option<Usage> {
        self.findings = findings_of_body(self.operation, body);
        usage::usage_of_body(body).as_ref().map(known)
    }

    /// What the answer has used so far, for one that was cut short.
    pub(in crate::exchange) fn usage_so_far(&self) -> Usage {
        self.usage.unwrap_or(Usage {
            tokens_in: self.tokens_in_estimate,
            tokens_out: self.tokens_out_seen,
            estimated: true,
            ..Usage::default()
        })
    }

    fn fault_of(&self, error: &StreamError) -> (ProviderError, Failure) {
        fault_of(error, self.target.as_deref())
    }

    /// A good status, and then an error before any content: as good as an error status.
    pub(super) fn on_stream_error(&mut self, error: &StreamError) -> Input {
        self.state = State::Over;
        let (said, failure) = self.fault_of(error);
        self.error = Some(Box::new(said));
        Input::Failed(failure)
    }

    pub(super) fn on_bytes(&mut self, data: Bytes) -> Option<Input> {
        if let Some(issues) = &mut self.issues {
            issues.push(&data);
        }
        if self.reading.is_some() {
            return self.on_read(data);
        }
        let bytes = data.len();
        if let Some(watch) = self.watch.as_mut().filter(|_| self.observer.is_some()) {
            watch.push(&data);
        }
        let content = match &mut self.observer {
            None if let Some(tail) = &mut self.tail => {
                tail.push(&data);
                self.ready.push(data);
                true
            }
            None => {
                if let Some(tensors) = &mut self.tensors {
                    tensors.note(&data);
                } else if self.kept.is_empty() && self.is_complete() {
                    self.usage = self.usage_of(&data);
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
                    self.told = self.told.take().or(error.as_ref().map(|error| self.fault_of(error).1));
                    seen.content
                }
            },
        };
        self.held_bytes += bytes;
        if self.content || !(content || self.held_bytes > HELD_BYTES_MAX) {
            return None;
        }
        self.content = true;
        self.hear_model();
        Some(Input::FirstContent)
    }
}
