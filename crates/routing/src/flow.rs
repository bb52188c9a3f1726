//! The life of one request, as a state machine: inputs in, one action out.

mod begin;
mod continuation;
mod drain;
pub mod fallback;
mod hedge;
pub mod misfit;
mod preempt;
mod retry;
mod said;
mod shadow;
mod story;
mod timer;
pub mod upload;
mod wait;

use std::time::Duration;

use smallvec::SmallVec;

use crate::catalog::{HedgeSpec, ModelSpec, RetrySpec, TimeoutSpec};
use crate::decide::{Past, decide_with_permit};
use crate::decision::{Decision, Outcome, Rejection};
use crate::facts::{Facts, Lane};
use crate::failure::{Failure, FailureClass, Processed};
use crate::fleet::{Ended, Fleet, Permit, tokens_of};
use crate::ids::{Arrival, DeploymentId, Ticket};
use crate::invariants;
use crate::rng::Rng;
use crate::time::Now;

use fallback::Fallbacks;
use hedge::Hedge;
use misfit::OnMismatch;
pub use story::{Action, AttemptKind, AttemptRecord, FlowOutcome, HedgeInput, Input, Phase, Refusal, Usage};
use upload::Body;

/// The life of one request.
///
/// Whoever drives it feeds every [`Input`] as it happens, does what the [`Action`] says before the next, and never
/// drops a flow that is not over without feeding [`Input::ClientGone`]: the flow holds a permit.
#[derive(Debug)]
pub struct Flow {
    facts: Facts,
    arrived: Now,
    /// Before and after whom, whatever becomes of it.
    came: Arrival,
    /// The end of all patience: the model's total timeout or the client's deadline.
    total: Now,
    policy: Policy,
    /// It is a shadow's copy: sent once or not at all.
    shadow: bool,
    /// What is there of its body.
    body: Body,
    /// What becomes of an answer that does not fit, if the whole answer is checked before any of it is relayed.
    checked: Option<OnMismatch>,
    /// Other models, if the request named any.
    fallbacks: Option<Box<Fallbacks>>,
    state: State,
    permit: Option<Permit>,
    tried: SmallVec<[DeploymentId; 4]>,
    decisions: Vec<Decision>,
    attempts: Vec<AttemptRecord>,
    /// Which of them goes on: the last, unless a hedge runs beside it.
    current: usize,
    hedge: Option<Box<Hedge>>,
    /// When a second attempt is considered.
    hedge_at: Now,
    queued_since: Option<Now>,
    queue_wait: Duration,
    last_chunk: Now,
    /// The client has the head of an answer; whatever fails from now on breaks that answer off.
    relayed: bool,
    continuable: bool,
    /// The attempt whose provider said something of its limits that the fleet does not know yet.
    unheard: Option<usize>,
    /// The failure that is told if sending it again comes to nothing.
    last_failure: Option<Failure>,
    outcome: Option<FlowOutcome>,
}

/// The part of a model's policy that holds for a request from its arrival on, whatever is reloaded meanwhile.
#[derive(Debug, Clone)]
struct Policy {
    timeouts: TimeoutSpec,
    attempts_max: usize,
    queue_wait_max: Duration,
    retry: RetrySpec,
    hedge: Option<HedgeSpec>,
}

impl Policy {
    fn of(spec: &ModelSpec, lane: Lane, shadow: bool) -> Self {
        Self {
            timeouts: spec.timeouts.clone(),
            attempts_max: if shadow { 1 } else { spec.attempts_max.max(1) as usize },
            queue_wait_max: spec.queue.wait_max(lane),
            retry: spec.retry,
            hedge: spec.hedge.filter(|_| !shadow),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Queued {
        ticket: Ticket,
        until: Now,
        recheck: Now,
    },
    /// It will be sent to where it failed, for there is no other place.
    BackingOff {
        until: Now,
    },
    Connecting {
        until: Now,
    },
    AwaitingHeaders {
        until: Now,
    },
    HoldingHeaders {
        until: Now,
        release: Now,
    },
    AwaitingContent {
        until: Now,
    },
    Relaying,
    Over,
}

impl Flow {
    /// A request that arrived at `now`.
    pub fn new(facts: Facts, now: Now) -> Self {
        let policy = Policy {
            timeouts: TimeoutSpec {
                connect: Duration::ZERO,
                first_content: Duration::ZERO,
                answer: Duration::ZERO,
                idle: Duration::ZERO,
                total: Duration::ZERO,
                header_hold: Duration::ZERO,
            },
            attempts_max: 1,
            queue_wait_max: Duration::ZERO,
            retry: RetrySpec::default(),
            hedge: None,
        };
        Self {
            facts,
            arrived: now,
            came: Arrival::default(),
            total: Now::NEVER,
            policy,
            shadow: false,
            body: Body::Whole,
            checked: None,
            fallbacks: None,
            state: State::New,
            permit: None,
            tried: SmallVec::new(),
            // Nearly every request takes one of each, and a record keeps what is allocated here.
            decisions: Vec::with_capacity(1),
            attempts: Vec::with_capacity(1),
            current: 0,
            hedge: None,
            hedge_at: Now::NEVER,
            queued_since: None,
            queue_wait: Duration::ZERO,
            last_chunk: now,
            relayed: false,
            continuable: false,
            unheard: None,
            last_failure: None,
            outcome: None,
        }
    }

    /// Takes one input and says what is to be done. Inputs that come after the end, or belong to an attempt that is no
    /// more, change nothing.
    pub fn step(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng, input: Input) -> Action {
        self.tell_fleet(fleet, now);
        let action = match input {
            _ if self.state == State::Over => Action::Finish,
            Input::Arrived => self.on_arrived(fleet, now, rng),
            Input::Granted => self.on_granted(fleet, now, rng),
            Input::Connected => self.on_connected(now),
            Input::Headers => self.on_headers(now),
            Input::FirstContent => self.on_first_content(fleet, now, rng),
            Input::Done(_) | Input::Misfit(_) | Input::Failed(_) if self.permit.is_none() => Action::Wait,
            Input::Done(usage) => self.on_done(fleet, now, rng, usage),
            Input::Misfit(usage) => self.on_misfit(fleet, now, rng, usage),
            Input::Failed(failure) => self.on_failed(fleet, now, rng, failure),
            Input::Hedge(input) => self.on_hedge(fleet, now, rng, input),
            Input::Recalled => self.on_recalled(fleet, now, rng),
            Input::TimerFired => self.on_timer(fleet, now, rng),
            Input::ClientGone => self.on_client_gone(fleet, now, rng),
        };
        debug_assert_eq!(invariants::of_request(self), Ok(()));
        action
    }

    /// Content came while relaying. Touches no fleet, so that a chunk takes no lock.
    pub fn on_chunk(&mut self, now: Now) {
        self.last_chunk = now;
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::New => Phase::New,
            State::Queued { .. } => Phase::Queued,
            State::BackingOff { .. } => Phase::BackingOff,
            State::Connecting { .. } => Phase::Connecting,
            State::AwaitingHeaders { .. } => Phase::AwaitingHeaders,
            State::HoldingHeaders { .. } => Phase::HoldingHeaders,
            State::AwaitingContent { .. } => Phase::AwaitingContent,
            State::Relaying => Phase::Relaying,
            State::Over => Phase::Over,
        }
    }

    /// What is known of the request.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The attempt that goes on, or the last.
    pub fn attempt(&self) -> Option<&AttemptRecord> {
        self.attempts.get(self.current)
    }

    fn attempt_mut(&mut self) -> Option<&mut AttemptRecord> {
        self.attempts.get_mut(self.current)
    }

    /// Every attempt so far, in order.
    pub fn attempts(&self) -> &[AttemptRecord] {
        &self.attempts
    }

    /// Every decision so far, in order.
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// How long it waited for slots.
    pub fn queue_wait(&self) -> Duration {
        self.queue_wait
    }

    /// Permits it holds: requests of its own that are in flight, two at most.
    pub fn permits(&self) -> u64 {
        u64::from(self.permit.is_some()) + u64::from(self.hedge.is_some())
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<&FlowOutcome> {
        self.outcome.as_ref()
    }

    /// What is known, was decided and was tried, for a record. The flow keeps none of it.
    pub fn take_history(&mut self) -> (Facts, Vec<Decision>, Vec<AttemptRecord>) {
        let over = self.state == State::Over && self.permit.is_none();
        debug_assert!(over, "history is taken from what is over");
        (self.facts.clone(), std::mem::take(&mut self.decisions), std::mem::take(&mut self.attempts))
    }

    fn on_arrived(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng) -> Action {
        debug_assert!(self.state == State::New, "a request arrives once");
        self.came = fleet.next_arrival();
        if let Some(model) = fleet.models.get_mut(self.facts.model) {
            self.policy = Policy::of(&model.spec, self.facts.lane, self.shadow);
            model.budget.note_request(tokens_of(&self.facts), now);
            model.hedges.note_request(tokens_of(&self.facts));
            let Policy { timeouts, queue_wait_max, .. } = &self.policy;
            self.total = timer::total(timeouts, *queue_wait_max, &self.facts, self.arrived);
            self.facts.deadline = Some(self.total);
        }
        if now >= self.total {
            return self.fail(failure(FailureClass::TotalTimeout, Processed::No));
        }
        self.decide(fleet, now, rng, None)
    }

    /// Decides the next attempt; `last` is the failure of the one before, for when there is no other.
    fn decide(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng, last: Option<Failure>) -> Action {
        let (decision, permit) = if self.shadow {
            self.decide_unqueued(fleet, now, rng)
        } else {
            let past = Past { came: self.came, tried: &self.tried };
            decide_with_permit(fleet, &self.facts, past, now, rng)
        };
        self.follow(fleet, now, (decision, permit), last, rng)
    }

    fn follow(
        &mut self,
        fleet: &mut Fleet,
        now: Now,
        (decision, permit): (Decision, Option<Permit>),
        last: Option<Failure>,
        rng: &mut Rng,
    ) -> Action {
        if let Outcome::Rejected { why, .. } = decision.outcome
            && self.may_fall_back(why, now)
        {
            return self.fall_back(fleet, now, rng, Some((decision, why)), last);
        }
        let action = match (&decision.outcome, permit) {
            (Outcome::Chosen(_), Some(permit)) if self.owes() && !self.pay(fleet, now) => {
                fleet.release(permit, Ended::Unused, now, rng);
                let last = last.or_else(|| self.attempt()?.failure.clone());
                self.fail(last.unwrap_or_else(|| failure(FailureClass::Connect, Processed::No)))
            }
            (Outcome::Chosen(choice), Some(permit)) => {
                self.begin(fleet, choice, permit, now);
                Action::Forward(choice.clone())
            }
            (Outcome::Queued { ticket, .. }, _) => {
                self.wait(fleet, *ticket, now);
                Action::Wait
            }
            (Outcome::Rejected { why, .. }, _) => self.reject(&decision, *why, last, now, rng),
            (Outcome::Chosen(_), None) => {
                debug_assert!(false, "whoever is chosen comes with a permit");
                self.fail(failure(FailureClass::Connect, Processed::No))
            }
        };
        self.decisions.push(decision);
        action
    }

    /// Nothing can be chosen: an attempt that failed before is the better answer, for it says more.
    fn reject(
        &mut self,
        decision: &Decision,
        why: Rejection,
        last: Option<Failure>,
        now: Now,
        rng: &mut Rng,
    ) -> Action {
        if let Some(failure) = last {
            return self.fail_or_back_off(failure, now, rng);
        }
        if self.asks_again(why, now) {
            return Action::Wait;
        }
        let (decision, why) = self.told_refusal(decision, why);
        self.state = State::Over;
        self.outcome = Some(FlowOutcome::Rejected { why });
        Action::Reject(Refusal::NotRouted(Box::new(decision), why))
    }

    fn on_connected(&mut self, now: Now) -> Action {
        let patience = self.patience();
        if let (State::Connecting { .. }, Some(attempt)) = (self.state, self.attempt_mut()) {
            attempt.connected = Some(now);
            self.permit.iter_mut().for_each(|permit| permit.note_sent(now));
            self.state = State::AwaitingHeaders { until: now + patience };
        }
        Action::Wait
    }

    fn on_headers(&mut self, now: Now) -> Action {
        if let (State::AwaitingHeaders { until }, Some(attempt)) = (self.state, self.attempt_mut()) {
            attempt.headers = Some(now);
            let hold = if self.relayed || self.checked.is_some() {
                Duration::MAX
            } else {
                self.policy.timeouts.header_hold
            };
            self.state = State::HoldingHeaders { until, release: now + hold };
        }
        Action::Wait
    }

    fn on_first_content(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng) -> Action {
        match self.state {
            State::HoldingHeaders { .. } | State::AwaitingHeaders { .. } | State::AwaitingContent { .. } => {}
            State::New
            | State::Queued { .. }
            | State::BackingOff { .. }
            | State::Connecting { .. }
            | State::Relaying
            | State::Over => return Action::Wait,
        }
        self.drop_hedge(fleet, now, rng);
        // What was told before this content is no longer true.
        self.continuable = false;
        self.state = State::Relaying;
        self.last_chunk = now;
        let telling = self.facts.tells_speed() && self.body == Body::Whole;
        if let (Some(attempt), Some(permit)) = (self.attempts.get_mut(self.current), &mut self.permit) {
            attempt.first_content = Some(now);
            let from = attempt.connected.unwrap_or(attempt.started);
            fleet.note_first_content(permit, telling.then(|| now - from), now, rng);
        }
        if std::mem::replace(&mut self.relayed, true) { Action::Wait } else { Action::Relay }
    }

    fn on_done(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng, usage: Usage) -> Action {
        self.drop_hedge(fleet, now, rng);
        self.end_attempt(fleet, now, rng, Ended::Well(usage));
        self.state = State::Over;
        self.outcome = Some(FlowOutcome::Completed { usage });
        Action::Finish
    }

    fn on_failed(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng, failure: Failure) -> Action {
        if let Some(attempt) = self.attempt_mut() {
            attempt.failure = Some(failure.clone());
        }
        self.end_attempt(fleet, now, rng, Ended::Failed(&failure));
        self.hedge_at = Now::NEVER;
        if self.relayed {
            return self.on_broken(fleet, now, rng, failure);
        }
        if self.hedge.is_some() && !failure.class.is_about_the_request() {
            self.exclude_failed(fleet, &failure, now);
            self.go_on_with_hedge(now);
            return Action::Promote;
        }
        self.drop_hedge(fleet, now, rng);
        self.after_failure(fleet, now, rng, failure).dropping_all()
    }

    fn after_failure(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng, failure: Failure) -> Action {
        let here = self.may_be_sent_again(fleet, &failure, now);
        let again = here || (self.has_fallback(now) && self.is_safe_again(fleet, &failure, now));
        if !again || !self.can_pay(fleet, now) {
            return self.fail(failure);
        }
        if !here {
            return self.fall_back(fleet, now, rng, None, Some(failure));
        }
        self.exclude_failed(fleet, &failure, now);
        self.decide(fleet, now, rng, Some(failure))
    }

    fn on_client_gone(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng) -> Action {
        let phase = self.phase();
        if let Some(ticket) = self.ticket() {
            fleet.leave_queue(self.facts.model, ticket, now, rng);
            self.leave_queue(now);
        }
        self.drop_hedge(fleet, now, rng);
        self.end_attempt(fleet, now, rng, Ended::Abandoned);
        self.state = State::Over;
        self.outcome = Some(FlowOutcome::ClientGone { phase });
        Action::Finish
    }

    /// Ends the attempt under way and gives its permit back.
    fn end_attempt(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng, ended: Ended<'_>) {
        if let Some(attempt) = self.attempt_mut().filter(|attempt| attempt.ended.is_none()) {
            attempt.ended = Some(now);
        }
        if let Some(permit) = self.permit.take() {
            fleet.release(permit, ended, now, rng);
        }
    }

    fn fail(&mut self, failure: Failure) -> Action {
        self.state = State::Over;
        self.outcome = Some(FlowOutcome::Failed { failure: failure.clone() });
        Action::Reject(Refusal::Failed(failure))
    }
}

fn failure(class: FailureClass, processed: Processed) -> Failure {
    Failure { class, processed, status: None, retry_after: None }
}
