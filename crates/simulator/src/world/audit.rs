//! What must hold over time, from what the world itself saw. It shares no code with the rules it watches.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pointsman_routing::decision::Choice;
use pointsman_routing::flow::{AttemptKind, Flow};
use pointsman_routing::ids::DeploymentId;
use pointsman_routing::{Catalog, FailureClass, Now, invariants};

/// What is told of what does not hold, at most.
const BROKEN_MAX: usize = 20;
/// Steps of one request at the same moment; more than that is a loop.
const STEPS_AT_ONCE_MAX: u32 = 1_000;
/// Seconds that the budget for sending again looks back.
const WINDOW_S: u64 = 10;

/// What one router did, as far as it must be remembered.
#[derive(Debug, Default)]
pub(super) struct Audit {
    /// By model: the seconds of requests, and of sendings again.
    sent: BTreeMap<String, (VecDeque<u64>, VecDeque<u64>)>,
    inflight: BTreeMap<DeploymentId, u32>,
    /// Credentials that were refused since the last reload, by provider and name.
    dead: BTreeSet<(String, String)>,
    holding: u64,
    last_step: (u64, Now, u32),
    broken: Vec<String>,
}

/// What holds for a request from its arrival on, by the configuration as it is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// When it must be over.
    pub(super) deadline: Now,
    /// How often it may be sent, a hedge not counted.
    pub(super) attempts_max: usize,
}

/// What a request was before a step.
pub(super) struct Before {
    permits: u64,
    attempts: usize,
    /// The places of those under way.
    pub(super) live: Vec<usize>,
    relayed: bool,
}

impl Before {
    pub(super) fn new(flow: &Flow, relayed: bool) -> Self {
        let attempts = flow.attempts();
        let live = attempts.iter().enumerate().filter(|(_, attempt)| attempt.ended.is_none());
        let live = live.map(|(place, _)| place).collect();
        Self { permits: flow.permits(), attempts: attempts.len(), live, relayed }
    }
}

impl Audit {
    /// A request came to this router.
    pub(super) fn note_request(&mut self, model: &str, now: Now) {
        let now_s = now.as_millis() / 1000;
        let (requests, _) = self.sent.entry(model.to_owned()).or_default();
        forget(requests, now_s);
        requests.push_back(now_s);
    }

    /// A reload: what was learnt of models and credentials that changed may be forgotten.
    pub(super) fn note_reload(&mut self, catalog: &Catalog) {
        self.sent.retain(|name, _| catalog.models.contains_key(name.as_str()));
        self.dead.clear();
    }

    /// A request made a step.
    pub(super) fn note_step(&mut self, number: u64, model: &str, before: &Before, flow: &Flow, now: Now) {
        self.last_step = match self.last_step {
            (last, at, steps) if (last, at) == (number, now) => (number, now, steps + 1),
            _ => (number, now, 1),
        };
        if self.last_step.2 > STEPS_AT_ONCE_MAX {
            self.tell(now, number, "a request makes no endless steps at one moment");
        }
        if let Err(broken) = invariants::of_request(flow) {
            self.tell(now, number, broken);
        }
        self.holding = self.holding + flow.permits() - before.permits;
        let attempts = flow.attempts();
        // What gave its slot away is not sent again but later.
        let again = before.attempts.checked_sub(1).is_some_and(|last| !attempts[last].taken_back);
        if again && attempts.len() > before.attempts {
            self.note_again(number, model, now);
        }
        for ended in before.live.iter().map(|place| &attempts[*place]).filter(|one| one.ended.is_some()) {
            if let Some(inflight) = self.inflight.get_mut(&ended.deployment) {
                *inflight -= 1;
            }
        }
        for attempt in &attempts[before.attempts.saturating_sub(1)..] {
            let refused =
                attempt.failure.as_ref().is_some_and(|one| one.class == FailureClass::CredentialDead);
            if let (true, Some(name)) = (refused, &attempt.credential_name) {
                self.dead.insert((attempt.provider.to_string(), name.to_string()));
            }
        }
    }

    fn note_again(&mut self, number: u64, model: &str, now: Now) {
        let now_s = now.as_millis() / 1000;
        let (requests, again) = self.sent.entry(model.to_owned()).or_default();
        forget(requests, now_s);
        forget(again, now_s);
        again.push_back(now_s);
        let allowed = (requests.len() as f64 * 0.2).max(10.0 * WINDOW_S as f64);
        if again.len() as f64 > allowed {
            self.tell(now, number, "no more is sent again than a fifth of the requests, or ten a second");
        }
    }

    /// A request is sent somewhere.
    pub(super) fn note_forward(
        &mut self,
        (number, model, limits): (u64, &str, Limits),
        before: &Before,
        (flow, choice): (&Flow, &Choice),
        catalog: &Catalog,
        now: Now,
    ) {
        let inflight = self.inflight.entry(choice.deployment).or_default();
        *inflight += 1;
        let inflight = *inflight;
        let Some(spec) = catalog.models.get(model) else {
            return self.tell(now, number, "a model that is gone gets nothing");
        };
        let rest = flow.attempts().last().is_some_and(|one| one.kind == AttemptKind::Continuation);
        if before.relayed && !rest {
            self.tell(now, number, "nothing is sent after content came");
        }
        if now >= limits.deadline {
            self.tell(now, number, "no attempt begins after the deadline");
        }
        let Some(deployment) = spec.deployments.iter().find(|one| one.name == choice.name) else {
            return self.tell(now, number, "a deployment that is gone gets nothing");
        };
        if deployment.weight == 0 || deployment.draining {
            self.tell(now, number, "a deployment that is drained gets nothing");
        }
        if deployment.slots.is_some_and(|slots| inflight > slots) {
            self.tell(now, number, "a deployment has no more in flight than it has slots");
        }
        let tags = &flow.facts().tags;
        if tags.iter().any(|tag| !deployment.tags.contains(tag)) {
            self.tell(now, number, "a request goes where its tags are");
        }
        let credential = choice.credential_name.as_ref().map(ToString::to_string);
        if credential.is_some_and(|name| self.dead.contains(&(choice.provider.to_string(), name))) {
            self.tell(now, number, "a credential that was refused is not used again");
        }
        // A hedge is beyond what a request may be sent in all.
        let attempts_max = limits.attempts_max + invariants::LIVE_ATTEMPTS_MAX - 1;
        if flow.attempts().iter().filter(|attempt| !attempt.taken_back).count() > attempts_max {
            self.tell(now, number, "a request is sent no more often than it may");
        }
    }

    /// Whether permits in use are those of requests.
    pub(super) fn note_permits(&mut self, permits: u64, now: Now) {
        if permits != self.holding {
            self.tell(now, self.last_step.0, "a permit is held by exactly one request");
        }
    }

    /// Says that something does not hold.
    ///
    /// In builds with assertions that is the end.
    pub(super) fn tell(&mut self, now: Now, number: u64, broken: &str) {
        let text = format!("request {number} at {:.6} s: this does not hold: {broken}", now.as_secs_f64());
        debug_assert!(false, "{text}");
        // Without assertions an endless loop must end as well.
        assert!(self.last_step.2 <= STEPS_AT_ONCE_MAX, "{text}");
        if self.broken.len() < BROKEN_MAX {
            self.broken.push(text);
        }
    }

    /// What did not hold.
    pub(super) fn into_broken(self) -> Vec<String> {
        self.broken
    }
}

/// Forgets what is older than the budget looks back.
fn forget(seconds: &mut VecDeque<u64>, now_s: u64) {
    while seconds.front().is_some_and(|at_s| at_s + WINDOW_S <= now_s) {
        seconds.pop_front();
    }
}
