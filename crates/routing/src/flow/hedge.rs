//! Two attempts of one request side by side: how the second begins, and which of them stays.

use super::story::HedgeInput;
use super::upload::Body;
use super::{Flow, State, failure};
use crate::decide::{Evaluation, choose};
use crate::decision::{Decision, Outcome};
use crate::failure::{Failure, FailureClass, Processed};
use crate::fleet::{Ended, Fleet, Permit};
use crate::flow::{Action, AttemptKind, AttemptRecord};
use crate::rng::Rng;
use crate::time::Now;

/// The second attempt, while both run.
#[derive(Debug)]
pub(super) struct Hedge {
    pub(super) permit: Permit,
    /// Its place among the attempts.
    pub(super) attempt: usize,
    /// It is never further than the head of its answer: with the first content one of the two is dropped.
    state: State,
}

impl Hedge {
    /// When its phase ends.
    pub(super) fn until(&self) -> Now {
        match self.state {
            State::Connecting { until }
            | State::AwaitingHeaders { until }
            | State::HoldingHeaders { until, .. } => until,
            State::New
            | State::Queued { .. }
            | State::BackingOff { .. }
            | State::AwaitingContent { .. }
            | State::Relaying
            | State::Over => Now::NEVER,
        }
    }
}

impl Flow {
    /// Whether a hedge runs beside the attempt.
    pub fn is_hedged(&self) -> bool {
        self.hedge.is_some()
    }

    /// The decision that the attempt follows, or the last while there is none or it came to nothing.
    pub fn decision(&self) -> Option<&Decision> {
        let hedged = self.attempts.iter().any(|attempt| attempt.kind == AttemptKind::Hedge);
        let followed = self.attempt().filter(|attempt| hedged && attempt.failure.is_none());
        followed.and_then(|attempt| self.decisions.get(attempt.decision)).or(self.decisions.last())
    }

    /// When a second attempt is considered for the one that begins; a request gets one at most.
    pub(super) fn hedge_at(&self, fleet: &Fleet, now: Now) -> Now {
        let after = self
            .policy
            .hedge
            .filter(|_| {
                !self.relayed
                    && self.body == Body::Whole
                    && self.facts.tells_speed()
                    && !self.attempts.iter().any(|attempt| attempt.kind == AttemptKind::Hedge)
            })
            .and_then(|spec| fleet.hedge_after(spec, self.attempt()?.deployment, &self.facts));
        after.map_or(Now::NEVER, |after| now + after)
    }

    /// The first content is late. Sends a second attempt if there is a free place for it and it may be paid for.
    pub(super) fn on_late(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng) -> Action {
        self.hedge_at = Now::NEVER;
        let Some(first) = self.attempt().map(|attempt| attempt.deployment) else { return Action::Wait };
        if self.attempts_here() >= self.policy.attempts_max
            || !fleet.may_hedge(&self.facts, self.payer(), now)
        {
            return Action::Wait;
        }
        // Those who wait come first: time alone may have made room for them.
        fleet.serve_queue(self.facts.model, now, rng);
        let mut tried = self.tried.clone();
        tried.push(first);
        let Evaluation::Chosen(decision, permit) = choose(fleet, &self.facts, &tried, now, rng) else {
            return Action::Wait;
        };
        let choice = match &decision.outcome {
            Outcome::Chosen(choice) if !decision.panic => choice.clone(),
            Outcome::Chosen(_) | Outcome::Queued { .. } | Outcome::Rejected { .. } => {
                fleet.release(permit, Ended::Unused, now, rng);
                return Action::Wait;
            }
        };
        fleet.pay_hedge(&self.facts, self.payer(), now);
        self.note_attempt(fleet, &choice, AttemptKind::Hedge, now);
        self.decisions.push(decision);
        let state = State::Connecting { until: now + self.policy.timeouts.connect };
        self.hedge = Some(Box::new(Hedge { permit, attempt: self.attempts.len() - 1, state }));
        Action::Hedge(choice)
    }

    /// What happened to the second attempt.
    pub(super) fn on_hedge(
        &mut self,
        fleet: &mut Fleet,
        now: Now,
        rng: &mut Rng,
        input: HedgeInput,
    ) -> Action {
        let patience = self.patience();
        let Some(hedge) = &mut self.hedge else { return Action::Wait };
        let attempt = &mut self.attempts[hedge.attempt];
        match (input, hedge.state) {
            (HedgeInput::Connected, State::Connecting { .. }) => {
                attempt.connected = Some(now);
                hedge.permit.note_sent(now);
                hedge.state = State::AwaitingHeaders { until: now + patience };
                Action::Wait
            }
            (HedgeInput::Headers, State::AwaitingHeaders { until }) => {
                attempt.headers = Some(now);
                hedge.state = State::HoldingHeaders { until, release: Now::NEVER };
                Action::Wait
            }
            (HedgeInput::FirstContent, State::HoldingHeaders { .. } | State::AwaitingHeaders { .. }) => {
                self.outrun_first(fleet, now, rng);
                self.on_first_content(fleet, now, rng);
                Action::RelayHedge
            }
            (HedgeInput::Failed(failure), _) => self.on_hedge_failed(fleet, now, rng, failure),
            (HedgeInput::Connected | HedgeInput::Headers | HedgeInput::FirstContent, _) => Action::Wait,
        }
    }

    /// The second attempt, while both run.
    pub(super) fn hedged(&self) -> Option<&AttemptRecord> {
        self.attempts.get(self.hedge.as_ref()?.attempt)
    }

    /// The second attempt failed, or its time is over: the first goes on alone.
    pub(super) fn on_hedge_failed(
        &mut self,
        fleet: &mut Fleet,
        now: Now,
        rng: &mut Rng,
        failure: Failure,
    ) -> Action {
        let Some(hedge) = self.hedge.take() else { return Action::Wait };
        fleet.release(hedge.permit, Ended::Failed(&failure), now, rng);
        let attempt = &mut self.attempts[hedge.attempt];
        self.tried.push(attempt.deployment);
        attempt.ended = Some(now);
        attempt.failure = Some(failure);
        Action::DropHedge
    }

    pub(super) fn on_hedge_timer(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng) -> Action {
        let class = match self.hedge.as_ref().map(|hedge| hedge.state) {
            Some(State::Connecting { .. }) => failure(FailureClass::ConnectTimeout, Processed::No),
            Some(_) | None => failure(FailureClass::FirstContentTimeout, Processed::Maybe),
        };
        self.on_hedge_failed(fleet, now, rng, class)
    }

    /// The second attempt was faster: it is the attempt from now on, and the first is given up.
    fn outrun_first(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng) {
        if let Some(first) = self.attempt_mut() {
            first.outrun = true;
        }
        self.end_attempt(fleet, now, rng, Ended::Abandoned);
        self.go_on_with_hedge(now);
    }

    /// The first attempt has ended; the second takes its place, where it is.
    pub(super) fn go_on_with_hedge(&mut self, now: Now) {
        let Some(hedge) = self.hedge.take() else { return };
        let Hedge { permit, attempt, state } = *hedge;
        debug_assert!(self.permit.is_none(), "one attempt at a time goes on");
        self.permit = Some(permit);
        self.current = attempt;
        self.state = state;
        if let State::HoldingHeaders { release, .. } = &mut self.state {
            *release = now + self.policy.timeouts.header_hold;
        }
    }

    /// The second attempt is not needed any more.
    pub(super) fn drop_hedge(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng) {
        self.hedge_at = Now::NEVER;
        let Some(hedge) = self.hedge.take() else { return };
        fleet.release(hedge.permit, Ended::Abandoned, now, rng);
        let attempt = &mut self.attempts[hedge.attempt];
        attempt.ended = Some(now);
        attempt.outrun = true;
    }
}
