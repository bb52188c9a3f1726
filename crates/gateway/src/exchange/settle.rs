//! The end of a request: counted, recorded, and nothing left behind, on whatever way it came.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pointsman_routing::Now;
use pointsman_routing::flow::{AttemptKind, AttemptRecord, FlowOutcome, Input, Usage};

use super::tensors::Counted;
use super::{Arrival, Exchange, convert};
use crate::clock;
use crate::snapshot::Target;
use crate::telemetry::record::{Conversion, Record};
use crate::telemetry::ties::Ties;

/// What a client that left before its answer is recorded with, as nginx has it.
pub(crate) const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What is said of a request that ended because the process did.
const STOPPED: &str = "shutting_down";

/// How an exchange ended.
struct End {
    outcome: &'static str,
    detail: Option<String>,
    usage: Option<Usage>,
}

impl Exchange {
    /// Counts and records the request. The flow is over.
    pub(super) fn settle(&mut self, now: Now) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let mut end = self.end();
        let own_usage = end.usage;
        end.usage = end.usage.map(|usage| self.broken.with(&usage)).or(self.broken.usage);
        self.note_findings();
        let app = &self.worker.app;
        app.requests.fetch_sub(1, Ordering::Relaxed);
        let metrics = &app.metrics;
        let total = now - self.arrival.at;
        let queue_wait = self.flow.queue_wait();
        self.model.metrics.settled(metrics, end.outcome, total, queue_wait, end.usage.as_ref());
        metrics.waited(&self.model.name, self.flow.facts(), queue_wait);
        if let Some(overhead) = self.overhead {
            metrics.overhead.observe(overhead.as_secs_f64());
        }
        let target = self.attempt.as_ref().and_then(|attempt| attempt.target.as_ref());
        let first_content = self.count_attempts(end.usage.as_ref());
        if let Some(arm) = self.flow.decision().and_then(|decision| decision.arm.as_ref()) {
            metrics.arm(&self.model.name, arm, end.outcome);
        }
        for _ in self.flow.decisions().iter().filter(|decision| decision.panic) {
            metrics.panic_routed(&self.model.name);
        }
        if end.outcome == "completed" && self.flow.other_model().is_some() {
            metrics.fell_back(&self.model.name);
        }
        // What was seen of a stream can be reckoned with; of an answer in one piece that says nothing nobody knows.
        let streamed = self.attempt.as_deref().is_some_and(super::attempt::Attempt::is_event_stream);
        let known = own_usage.filter(|usage| streamed || !usage.estimated);
        let own_cost = known.zip(target).and_then(|(usage, target)| target.cost_micro_usd(&usage));
        let cost_micro_usd = self.broken.cost_with(own_usage.is_some(), own_cost);
        if let Some(target) = target.filter(|_| end.usage.is_some()) {
            metrics.cost(target, cost_micro_usd);
        }
        let hedge_cost_micro_usd = self.cost_of_outrun();
        let (facts, decisions, attempts) = self.flow.take_history();
        let (ties, conversion) = (self.ties(), self.conversion());
        let app = &self.worker.app;
        app.record(Record {
            id: self.arrival.id,
            at_unix_ms: self.arrival.at_unix_ms,
            arrived: self.arrival.at,
            operation: self.arrival.asked.operation.name(),
            dialect: self.arrival.dialect.name,
            conversion,
            model: Some(Arc::clone(&self.model.name)),
            tenant: Some(Arc::clone(&self.arrival.client.tenant)),
            key: self.arrival.client.name.clone(),
            facts: Some(facts),
            decisions,
            attempts,
            noted: std::mem::take(&mut self.checked.noted),
            ties,
            outcome: end.outcome,
            detail: end.detail,
            status: self.status.unwrap_or(CLIENT_CLOSED_REQUEST),
            usage: end.usage,
            cost_micro_usd,
            hedge_cost_micro_usd,
            queue_us: queue_wait.as_micros() as u64,
            overhead_us: self.overhead.map_or(0, |overhead| overhead.as_micros() as u64),
            first_content_us: first_content,
            total_us: total.as_micros() as u64,
            names: Arc::clone(&self.snapshot.names),
        });
        self.cost_micro_usd = cost_micro_usd;
    }

    /// Ends a response that has begun before its answer did; `ours` if the gateway is the reason.
    pub(super) fn cut_short(&mut self, ours: bool) {
        if ours {
            self.stop();
        }
        self.settle(clock::now());
    }

    /// Gives up what is under way because the process stops, as if the client had left.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        let _ = self.step(Input::ClientGone, clock::now());
    }
}

impl Exchange {
    /// What became of the request in the dialect of its last attempt, which is counted.
    fn conversion(&mut self) -> Conversion {
        let Some(attempt) = &mut self.attempt else { return Conversion::default() };
        let losses = attempt.take_losses();
        let turned = |target: &&Arc<Target>| convert::is_needed(&self.arrival, target);
        let to = attempt.target.as_ref().filter(turned).map(|target| target.endpoint.vendor.dialect.name);
        if let Some(to) = to {
            let (model, from) = (&self.model.name, self.arrival.dialect.name);
            self.worker.app.metrics.conversion(model, (from, to), losses.count());
        }
        Conversion { to, losses }
    }

    /// What the request had to do with others; nearly none has.
    fn ties(&mut self) -> Option<Box<Ties>> {
        let Arrival { mirror_of, keyed, line, id, .. } = &*self.arrival;
        let tensors = self.attempt.as_ref().and_then(|attempt| attempt.tensors.as_deref());
        let has_none = mirror_of.is_none() && line.is_none() && tensors.is_none() && !keyed;
        if has_none && self.named.is_empty() && self.flow.stops().is_empty() {
            return None;
        }
        Some(Box::new(Ties {
            fallbacks: std::mem::take(&mut self.named),
            stops: self.flow.stops().to_vec(),
            tensors: tensors.map(Counted::to_json),
            mirror_of: *mirror_of,
            line: line.as_ref().map(|line| (Arc::clone(&line.batch_id), line.number)),
            idempotency: keyed.then_some(("first", *id)),
        }))
    }

    fn end(&self) -> End {
        let end = |outcome, detail: Option<String>, usage| End { outcome, detail, usage };
        let so_far = || self.attempt.as_deref().map(super::attempt::Attempt::usage_so_far);
        match self.flow.outcome() {
            Some(FlowOutcome::Completed { usage }) => end("completed", None, Some(*usage)),
            Some(FlowOutcome::Rejected { why }) => {
                if let Some(reason) = why.shed() {
                    self.worker.app.metrics.shed(reason);
                }
                end("rejected", Some(why.name().to_owned()), None)
            }
            Some(FlowOutcome::Failed { failure }) => {
                end("failed", Some(failure.class.name().to_owned()), None)
            }
            Some(FlowOutcome::Truncated { failure }) => {
                self.worker.app.metrics.truncated(failure.class.name());
                end("truncated", Some(failure.class.name().to_owned()), so_far())
            }
            Some(FlowOutcome::ClientGone { .. }) if self.stopped => {
                let had_begun = self.status.is_some_and(|status| status < 300);
                if had_begun {
                    self.worker.app.metrics.truncated(STOPPED);
                }
                end(if had_begun { "truncated" } else { "failed" }, Some(STOPPED.to_owned()), so_far())
            }
            Some(FlowOutcome::ClientGone { phase }) => {
                self.worker.app.metrics.client_cancel(phase.name());
                end("client_gone", Some(phase.name().to_owned()), so_far())
            }
            None => end("failed", Some("unfinished".to_owned()), None),
        }
    }

    /// Counts every attempt and gives the time from arrival to the first content, microseconds.
    fn count_attempts(&self, usage: Option<&Usage>) -> Option<u64> {
        let metrics = &self.worker.app.metrics;
        let mut first_content_us = None;
        for attempt in self.flow.attempts() {
            let Some(target) = self.snapshot.targets.get(&attempt.deployment) else { continue };
            let reason = match (&attempt.failure, attempt.first_content) {
                (Some(failure), _) => failure.class.name(),
                (None, Some(_)) => "ok",
                (None, None) if attempt.outrun => "outrun",
                (None, None) if attempt.taken_back => "taken_back",
                (None, None) => "cancelled",
            };
            target.metrics.attempt_ended(metrics, reason);
            if attempt.kind == AttemptKind::Hedge {
                metrics.hedge(if reason == "ok" { "won" } else { reason });
            }
            let Some(first) = attempt.first_content else { continue };
            // The rest of an answer that broke off is no beginning.
            first_content_us.get_or_insert((first - self.arrival.at).as_micros() as u64);
            // An answer in one piece tells nothing of its first token.
            if !self.flow.facts().stream {
                continue;
            }
            target.metrics.first_token(first - attempt.started);
            let between = usage.map_or(0, |usage| usage.tokens_out.saturating_sub(1));
            if let (Some(ended), true) = (attempt.ended, between > 0) {
                target
                    .metrics
                    .per_token(Duration::from_secs_f64((ended - first).as_secs_f64() / between as f64));
            }
        }
        first_content_us
    }
}

impl Exchange {
    /// What the attempts that were outrun or taken back have probably cost: their prompt, for they were given up before any
    /// content.
    fn cost_of_outrun(&self) -> Option<u64> {
        let facts = self.flow.facts();
        let usage = Usage { tokens_in: u64::from(facts.tokens_in_estimate), ..Usage::default() };
        let outrun = self.flow.attempts().iter().filter(|attempt| attempt.outrun || attempt.taken_back);
        let target = |attempt: &AttemptRecord| self.snapshot.targets.get(&attempt.deployment);
        outrun.filter_map(|one| target(one)?.cost_micro_usd(&usage)).reduce(u64::saturating_add)
    }
}

impl Drop for Exchange {
    /// A client that leaves drops its exchange: the attempt is cancelled by the drop of its connection, and the rest
    /// is settled here.
    fn drop(&mut self) {
        if !self.settled {
            let now = clock::now();
            let _ = self.step(Input::ClientGone, now);
            self.settle(now);
        }
    }
}
