//! What is known of one deployment now.

use std::time::Duration;

use crate::catalog::{BatchSpec, Capabilities, DeploymentSpec, Name};
use crate::decision::WhyNot;
use crate::engine::{EngineLoad, EngineState};
use crate::facts::Lane;
use crate::failure::FailureClass;
use crate::health::Health;
use crate::ids::{DeploymentId, ModelId};
use crate::latency::{PeakEwma, decay, normalised};
use crate::limiter::Limiter;
use crate::limits::{MISSING_BELIEVED, SLOW_BELIEVED};
use crate::pace::{Pace, Size};
use crate::pool::{Held, Used};
use crate::predict::{Predicted, Predictor};
use crate::strategy::View;
use crate::time::Now;

use super::figures::UseOfSlots;
use super::underway::Underway;

/// One deployment, live.
#[derive(Debug, Clone)]
pub(crate) struct Deployment {
    pub(crate) spec: DeploymentSpec,
    pub(crate) model: ModelId,
    /// Where its provider is in the fleet's list.
    pub(crate) provider: usize,
    pub(crate) name_hash: u64,
    /// It is no longer configured; it stays until its last permit is released.
    pub(crate) removed: bool,
    pub(crate) inflight: u32,
    /// Of those, of the batch lane.
    pub(crate) inflight_batch: u32,
    pub(crate) tokens_inflight: u64,
    /// Where its model is in its pool, if it has one.
    pub(crate) seat: Option<super::pool::Seat>,
    /// One who waits and is next needs more tokens than are free.
    pub(crate) held: Option<Held>,
    /// What can make it full.
    pub(crate) metered: Metered,
    /// What it has in flight against what its engine says.
    pub(crate) claims: super::claims::Claims,
    /// How its slots were used.
    pub(crate) use_of_slots: UseOfSlots,
    /// How many it may have in flight.
    pub(crate) limiter: Limiter,
    /// What it keeps free for live requests.
    pub(crate) reserve: super::reserve::Reserve,
    /// What its engine says of itself.
    pub(crate) engine: EngineState,
    /// What it has to do.
    pub(crate) underway: Underway,
    /// How fast it is; boxed, because few decisions ask.
    pub(crate) predictor: Box<Predictor>,
    /// By lane.
    health: [Health; 2],
    /// By lane; boxed, because decisions look at what follows from it only.
    paces: Box<[Paces; 2]>,
    /// By lane: how many times slower than it should be, and until when that is believed.
    slow: [(f64, Now); 2],
    /// By lane.
    cooling_until: [Now; 2],
    /// Its last failure may have been billed.
    pub(crate) failure_unsure: bool,
    /// Its drain, while it has one.
    pub(crate) drain: Option<super::drain::Drain>,
    /// An active health check failed.
    pub(crate) unhealthy: bool,
    pub(crate) first_content: PeakEwma,
    pub(crate) connect: PeakEwma,
    pub(crate) heard: Option<Now>,
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    pub(crate) last_failure: Option<(FailureClass, Now)>,
    /// The model that answered last, as its provider named it.
    pub(crate) model_said: Option<Name>,
    /// Operations that it said it does not have, or not for this model, and until when that is believed.
    pub(crate) missing: Option<(Capabilities, Now)>,
    /// Recent time to first content as it was, nanoseconds: a plain moving average; 0 while it is not known.
    pub(crate) first_content_ns: u64,
    /// When it was noted last.
    pub(crate) first_content_at: Now,
    failures: f64,
    failures_at: Now,
}

/// What can make a deployment full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metered {
    /// Its own slots.
    BySlots,
    /// Tokens, a pool or others' requests as well.
    ByMore,
}

/// How fast it usually is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Paces {
    /// To the first content.
    pub(crate) first: Pace,
    /// To the end of answers that come in one piece: says how long a wait may be, never who is slow.
    pub(crate) whole: Pace,
}

impl Deployment {
    pub(crate) fn new(spec: DeploymentSpec, model: ModelId, provider: usize) -> Self {
        Self {
            name_hash: crate::rng::hash(spec.name.as_bytes()),
            limiter: Limiter::new(&spec.limiter, spec.free, spec.slots),
            spec,
            model,
            provider,
            removed: false,
            inflight: 0,
            inflight_batch: 0,
            tokens_inflight: 0,
            seat: None,
            held: None,
            metered: Metered::BySlots,
            use_of_slots: UseOfSlots::default(),
            claims: super::claims::Claims::default(),
            reserve: Default::default(),
            engine: EngineState::default(),
            underway: Underway::default(),
            predictor: Box::default(),
            health: Default::default(),
            paces: Box::default(),
            slow: [(1.0, Now::ZERO); 2],
            cooling_until: [Now::ZERO; 2],
            failure_unsure: false,
            drain: None,
            unhealthy: false,
            first_content: PeakEwma::default(),
            connect: PeakEwma::default(),
            heard: None,
            requests: 0,
            failed: 0,
            last_failure: None,
            model_said: None,
            missing: None,
            first_content_ns: 0,
            first_content_at: Now::ZERO,
            failures: 0.0,
            failures_at: Now::ZERO,
        }
    }

    /// Goes on as it is now configured.
    pub(crate) fn apply(&mut self, spec: &DeploymentSpec) {
        self.spec = spec.clone();
        self.learn_slots();
        self.limiter.apply(&self.spec.limiter, self.spec.free, self.spec.slots);
    }

    /// What the batch lane may use of it, as is now configured.
    pub(crate) fn apply_batch(&mut self, spec: &BatchSpec) {
        self.limiter.set_batch_share(spec.inflight_share);
        self.reserve.apply(spec.reserve);
    }

    #[inline]
    pub(crate) fn is_full(&self, lane: Lane) -> bool {
        self.inflight >= self.limiter.bound(Lane::Live) || (lane == Lane::Batch && self.is_full_for_batch())
    }

    /// Whether those in flight leave too few tokens for a request. One that is alone has all there are.
    pub(super) fn no_tokens(&self, lane: Lane, tokens: u64) -> Option<WhyNot> {
        let tokens_inflight_max = self.spec.tokens_inflight_max?;
        let used = Used { requests: self.inflight, tokens: self.tokens_inflight };
        let held = self.held.is_some_and(|held| held.binds(lane));
        let free = !held && used.has_tokens(Some(tokens_inflight_max), tokens);
        (!free).then_some(WhyNot::TokensFull { tokens_inflight_max })
    }

    /// Sees whether more than its slots can make it full, so that others are spared the look.
    pub(super) fn note_metered(&mut self) {
        let counts = self.spec.tokens_inflight_max.is_some() || self.spec.count_foreign;
        self.metered = if counts || self.seat.is_some() { Metered::ByMore } else { Metered::BySlots };
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.removed || self.spec.draining || self.spec.weight == 0
    }

    /// Whether it works, for one lane.
    pub(crate) fn health(&self, lane: Lane) -> &Health {
        &self.health[lane as usize]
    }

    pub(crate) fn health_mut(&mut self, lane: Lane) -> &mut Health {
        &mut self.health[lane as usize]
    }

    /// It joins others at work, so its traffic comes on a ramp.
    pub(crate) fn start_slowly(&mut self, now: Now) {
        self.health = [Health::starting(now), Health::starting(now)];
    }

    pub(crate) fn reset_health(&mut self, now: Now) {
        for lane in [Lane::Live, Lane::Batch] {
            self.health_mut(lane).reset(now);
            self.forgive(lane);
        }
        self.cooling_until = [Now::ZERO; 2];
        self.missing = None;
        self.first_content_ns = 0;
    }

    /// Recent failures, fading.
    pub(crate) fn failures(&self, now: Now) -> f64 {
        if self.failures == 0.0 { 0.0 } else { self.failures * decay(now - self.failures_at) }
    }

    /// It works again: what was learnt while it did not would only keep traffic away.
    pub(crate) fn forget_failures(&mut self) {
        self.failures = 0.0;
        self.first_content_ns = 0;
        self.first_content = PeakEwma::default();
        self.connect = PeakEwma::default();
    }

    pub(crate) fn note_failure(&mut self, class: FailureClass, counted_as: Duration, now: Now) {
        self.failures = self.failures(now) + 1.0;
        self.failures_at = now;
        self.failed += 1;
        self.last_failure = Some((class, now));
        self.first_content.observe(now, counted_as);
    }

    /// It does not have the operation, or not for this model: it is not asked for it for a while.
    pub(crate) fn note_missing(&mut self, operation: Capabilities, now: Now) {
        let known =
            self.missing.filter(|(_, until)| now < *until).map_or(Capabilities::NONE, |(what, _)| what);
        self.missing = Some((known.with(operation), now + MISSING_BELIEVED));
    }

    pub(crate) fn note_first_content(&mut self, took: Duration, tokens_in: u32, now: Now) {
        // A tenth of every new one.
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let known_ns = if self.first_content_ns == 0 { took_ns } else { self.first_content_ns };
        self.first_content_ns = known_ns - known_ns / 10 + took_ns / 10;
        self.first_content_at = now;
        self.first_content.observe(now, normalised(took, tokens_in));
        self.heard = Some(now);
    }

    /// Until when its provider wants it to be left alone by a lane.
    #[inline]
    pub(crate) fn cooling_until(&self, lane: Lane) -> Now {
        self.cooling_until[lane as usize]
    }

    /// Its provider wants it to be left alone. What live traffic is told holds for batch traffic as well; what batch
    /// traffic is told is its own affair. Only ever later.
    pub(crate) fn cool(&mut self, lane: Lane, until: Now) {
        for cooled in [lane, Lane::Batch] {
            let running = &mut self.cooling_until[cooled as usize];
            *running = until.max(*running);
        }
    }

    /// What it is like for a lane: how fast it usually is.
    pub(crate) fn paces_mut(&mut self, lane: Lane) -> &mut Paces {
        &mut self.paces[lane as usize]
    }

    /// The same.
    pub(crate) fn paces(&self, lane: Lane) -> &Paces {
        &self.paces[lane as usize]
    }

    /// What follows from its pace for decisions.
    pub(crate) fn note_pace(&mut self, lane: Lane, now: Now) {
        let pace = &self.paces[lane as usize].first;
        let slow = pace.is_slow();
        self.slow[lane as usize] = (pace.factor(), if slow { now + SLOW_BELIEVED } else { Now::ZERO });
        self.health_mut(lane).set_slow(slow, now);
    }

    /// It came back after it failed: as fast as usual, until it shows otherwise.
    pub(crate) fn forgive(&mut self, lane: Lane) {
        self.paces[lane as usize].first.forgive();
        self.slow[lane as usize] = (1.0, Now::ZERO);
    }

    /// How many times slower than it should be. Believed for a while only: without another time it is asked again.
    #[inline]
    pub(crate) fn slow(&self, lane: Lane, now: Now) -> f64 {
        let (slow, until) = self.slow[lane as usize];
        if now < until { slow } else { 1.0 }
    }

    /// When the first content of a request should come that is sent now, once enough is known.
    pub(crate) fn predicted_first_content(&self, tokens_in: u32) -> Option<Duration> {
        let size = Size { tokens_in, tokens_out: 0, beside: self.inflight };
        self.paces.iter().find_map(|paces| paces.first.expected(size))
    }

    /// As strategies see it; what only some of them read is filled in for those that do.
    pub(crate) fn view(&self, id: DeploymentId, place: usize, lane: Lane, now: Now) -> View {
        View {
            id,
            place: u32::try_from(place).unwrap_or(u32::MAX),
            name_hash: self.name_hash,
            weight: self.spec.weight,
            slots: self.spec.slots.map(|slots| slots.min(self.limiter.bound(Lane::Live))),
            inflight: self.inflight,
            tokens_inflight: self.tokens_inflight,
            tokens_cached: 0,
            decoding: 0,
            tokens_expected: 0,
            predicted: Predicted::default(),
            free: self.spec.free,
            quota_left: 1.0,
            engine: EngineLoad::default(),
            latency: PeakEwma::default(),
            failures: self.failures(now),
            penalty: self.health(lane).penalty(),
            slow: self.slow(lane, now),
        }
    }
}
