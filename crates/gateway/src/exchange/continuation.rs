//! An answer that broke off and is continued by another deployment.

use pointsman_routing::Now;
use pointsman_routing::decision::Choice;
use pointsman_routing::flow::Usage;
use pointsman_wire::openai::continuation::{Transcript, is_continuable};

use super::Exchange;

/// What is kept of a stream in case it breaks off.
pub(super) enum Keeping {
    /// Nothing.
    Nothing,
    /// What came, from its beginning.
    FromNow,
    /// The same; it is the rest of this.
    From(Box<Transcript>),
}

/// What is left of attempts whose answers broke off.
#[derive(Default)]
pub(super) struct Broken {
    /// All that came so far, while its rest is awaited.
    pub transcript: Option<Transcript>,
    /// What they used together, and what that cost where the price is known.
    pub usage: Option<Usage>,
    pub cost_micro_usd: Option<u64>,
}

impl Exchange {
    /// Whether the request may have to be sent again although its answer is being relayed.
    pub(super) fn keeps_request(&self) -> bool {
        let continuable = |(request, body): &(Box<_>, bytes::Bytes)| is_continuable(request, body);
        let plain = self.arrival.dialect.name == "openai";
        plain && self.flow.may_continue() && self.outgoing.as_ref().is_some_and(continuable)
    }

    /// What the next attempt keeps of its stream.
    pub(super) fn keeping(&self) -> Keeping {
        match &self.broken.transcript {
            Some(transcript) => Keeping::From(Box::new(transcript.clone())),
            None if self.keeps_request() => Keeping::FromNow,
            None => Keeping::Nothing,
        }
    }

    /// Tells the flow whether what came so far can be continued, before it is told of a failure.
    pub(super) fn note_continuable(&mut self) {
        if self.outgoing.is_none() {
            return;
        }
        if let Some(kept) = self.attempt.as_ref().and_then(|attempt| attempt.transcript()) {
            self.broken.transcript = Some(kept.clone());
        } else if self.attempt.as_deref().is_some_and(super::attempt::Attempt::is_event_stream) {
            self.broken.transcript = None;
        }
        self.flow.note_continuable(self.broken.transcript.is_some());
    }

    /// Asks the chosen deployment for the rest. What the client has not taken yet of the beginning comes first.
    pub(super) fn continue_at(&mut self, choice: &Choice, now: Now) {
        let mut next = self.attempt_for(choice, now);
        if let Some(mut before) = self.attempt.take() {
            next.ready = std::mem::take(&mut before.ready);
            if before.is_event_stream() {
                // What came of it is known, what was used for it is not.
                let usage = Usage { estimated: true, ..before.usage_so_far() };
                let cost = before.target.as_ref().and_then(|target| target.cost_micro_usd(&usage));
                self.broken.add(&usage, cost);
            }
        }
        self.attempt = Some(next);
    }
}

impl Broken {
    pub(super) fn add(&mut self, usage: &Usage, cost_micro_usd: Option<u64>) {
        self.cost_micro_usd = self.cost_with(true, cost_micro_usd);
        self.usage = Some(self.with(usage));
    }

    /// What all of it cost, if the last attempt cost this; unknown if any part of it is.
    pub(super) fn cost_with(&self, used: bool, cost_micro_usd: Option<u64>) -> Option<u64> {
        match (self.usage.is_some(), used) {
            (false, _) => cost_micro_usd,
            (true, false) => self.cost_micro_usd,
            (true, true) => Some(self.cost_micro_usd?.saturating_add(cost_micro_usd?)),
        }
    }

    /// What was used in all, if the last attempt used this.
    pub(super) fn with(&self, usage: &Usage) -> Usage {
        let Some(before) = self.usage else { return *usage };
        Usage {
            tokens_in: before.tokens_in.saturating_add(usage.tokens_in),
            tokens_in_cached: before.tokens_in_cached.saturating_add(usage.tokens_in_cached),
            tokens_in_cache_written: before
                .tokens_in_cache_written
                .saturating_add(usage.tokens_in_cache_written),
            tokens_in_cache_written_1h: before
                .tokens_in_cache_written_1h
                .saturating_add(usage.tokens_in_cache_written_1h),
            off_list: before.off_list || usage.off_list,
            tokens_in_image: before.tokens_in_image.saturating_add(usage.tokens_in_image),
            tokens_in_audio: before.tokens_in_audio.saturating_add(usage.tokens_in_audio),
            tokens_out_reasoning: before.tokens_out_reasoning.saturating_add(usage.tokens_out_reasoning),
            tokens_out_audio: before.tokens_out_audio.saturating_add(usage.tokens_out_audio),
            tokens_out: before.tokens_out.saturating_add(usage.tokens_out),
            estimated: before.estimated || usage.estimated,
        }
    }
}
