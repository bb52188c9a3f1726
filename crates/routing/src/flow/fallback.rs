//! Other models that a request named for the case that the one it asked for cannot serve: tried in its order, under the
//! same deadline and out of the same budget, each by its own policy.

use super::{Flow, Policy};
use crate::catalog::Name;
use crate::decision::{Decision, Outcome, Rejection};
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::flow::Action;
use crate::ids::ModelId;
use crate::rng::Rng;
use crate::time::Now;

/// A model to try when those before it cannot serve.
#[derive(Debug, Clone)]
pub struct Fallback {
    /// The model.
    pub model: ModelId,
    /// Its name, for records.
    pub name: Name,
    /// The version asked for.
    pub version: Option<Name>,
}

/// A model that a request went on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The model.
    pub model: Name,
    /// The first decision about it, by its place in [`Flow::decisions`].
    pub decision: usize,
    /// The first attempt there, by its place in [`Flow::attempts`], if there is one.
    pub attempt: usize,
}

/// The models that are left, and the way so far.
#[derive(Debug)]
pub(super) struct Fallbacks {
    left: std::vec::IntoIter<Fallback>,
    stops: Vec<Stop>,
    /// The model that was asked for, whose budget pays.
    asked: ModelId,
    /// Why that one could not serve, for when no other can.
    refusal: Option<(Decision, Rejection)>,
}

impl Flow {
    /// Models to try when its own cannot serve. To be said before the request arrives.
    pub fn fall_back_to(&mut self, models: Vec<Fallback>) {
        if !models.is_empty() {
            let (left, asked) = (models.into_iter(), self.facts.model);
            self.fallbacks = Some(Box::new(Fallbacks { left, stops: Vec::new(), asked, refusal: None }));
        }
    }

    /// The models it went on to, in order; none if its own served it or was the last word.
    pub fn stops(&self) -> &[Stop] {
        self.fallbacks.as_ref().map_or(&[], |fallbacks| &fallbacks.stops)
    }

    /// The model that the last attempt went to, if it is not the one asked for.
    pub fn other_model(&self) -> Option<&Name> {
        let last = self.attempts.len().checked_sub(1)?;
        self.stops().iter().rev().find(|stop| stop.attempt <= last).map(|stop| &stop.model)
    }

    /// Attempts at the model it is with now, those not counted that gave their slot away.
    pub(super) fn attempts_here(&self) -> usize {
        let first = self.stops().last().map_or(0, |stop| stop.attempt);
        self.attempts[first..].iter().filter(|attempt| !attempt.taken_back).count()
    }

    /// The model whose budget pays for what is sent again.
    pub(super) fn payer(&self) -> ModelId {
        self.fallbacks.as_ref().map_or(self.facts.model, |fallbacks| fallbacks.asked)
    }

    /// Whether there is another model to try, for a request that its model refused so. What only the client can have
    /// got wrong about the model it asked for is told at once.
    pub(super) fn may_fall_back(&self, why: Rejection, now: Now) -> bool {
        let wrong = match why {
            Rejection::NoSuchVersion | Rejection::NoSuchTags => true,
            Rejection::NoDeployment
            | Rejection::NotCapable
            | Rejection::Pinned
            | Rejection::TooLong
            | Rejection::Unavailable
            | Rejection::QueueFull
            | Rejection::Overloaded
            | Rejection::QueueTimeout
            | Rejection::TooLate => false,
        };
        self.has_fallback(now) && !(wrong && self.stops().is_empty())
    }

    /// Whether there is another model to try.
    pub(super) fn has_fallback(&self, now: Now) -> bool {
        let left = |fallbacks: &Fallbacks| !fallbacks.left.as_slice().is_empty();
        now < self.total && self.fallbacks.as_deref().is_some_and(left)
    }

    /// Goes on to the next model: `refused` is why there is no (further) attempt at this one, `last` how the attempt
    /// before failed.
    pub(super) fn fall_back(
        &mut self,
        fleet: &mut Fleet,
        now: Now,
        rng: &mut Rng,
        refused: Option<(Decision, Rejection)>,
        last: Option<Failure>,
    ) -> Action {
        let Some(fallbacks) = &mut self.fallbacks else {
            debug_assert!(false, "only who has a fallback falls back");
            return Action::Finish;
        };
        if let Some((decision, why)) = refused {
            if fallbacks.refusal.is_none() {
                fallbacks.refusal = Some((decision.clone(), why));
            }
            self.decisions.push(decision);
        }
        if let Some(next) = fallbacks.left.next() {
            self.facts.model = next.model;
            self.facts.version = next.version;
            let (decision, attempt) = (self.decisions.len(), self.attempts.len());
            fallbacks.stops.push(Stop { model: next.name, decision, attempt });
        }
        if let Some(model) = fleet.models.get(self.facts.model) {
            self.policy = Policy::of(&model.spec, self.facts.lane, self.shadow);
        }
        self.decide(fleet, now, rng, last)
    }

    /// What a request is told that no model can serve: what spoke against the one it asked for, and the soonest that any
    /// returns.
    pub(super) fn told_refusal(&mut self, decision: &Decision, why: Rejection) -> (Decision, Rejection) {
        let first = self.fallbacks.as_mut().and_then(|fallbacks| fallbacks.refusal.take());
        let Some((mut first, first_why)) = first else { return (decision.clone(), why) };
        if let (Outcome::Rejected { retry_after, .. }, Outcome::Rejected { retry_after: Some(other), .. }) =
            (&mut first.outcome, &decision.outcome)
        {
            *retry_after = Some(retry_after.map_or(*other, |own| own.min(*other)));
        }
        (first, first_why)
    }
}
