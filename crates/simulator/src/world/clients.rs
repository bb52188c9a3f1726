//! Those who ask: when they come, what they ask for, and when they leave.

use std::time::Duration;

use pointsman_routing::catalog::Capabilities;
use pointsman_routing::facts::Lane;
use pointsman_routing::flow::{Flow, Input, Phase};
use pointsman_routing::{Facts, Now};

use super::audit::Limits;
use super::{Due, Request, World};

/// The phases that a client can leave in.
pub(crate) const LEFT_IN: [Phase; 7] = [
    Phase::Queued,
    Phase::BackingOff,
    Phase::Connecting,
    Phase::AwaitingHeaders,
    Phase::HoldingHeaders,
    Phase::AwaitingContent,
    Phase::Relaying,
];
/// A client that leaves in a phase does so within this time, which is shorter than any phase.
const LEAVES_WITHIN: Duration = Duration::from_micros(100);

impl World<'_> {
    pub(super) fn arrive(&mut self) {
        let number = self.arrived;
        self.arrived += 1;
        let router = self.chance.below(self.routers.len());
        let models = 1 + self.spec.other_models.len();
        let model = match self.chance.below(models) {
            0 => &self.spec.model,
            other => &self.spec.other_models[other - 1],
        };
        let facts = self.facts(router, model, number);
        let tokens_out = self.around(self.spec.tokens_out_mean).max(1);
        let leaves = self.chance.unit() < self.spec.leave_rate;
        let in_phase = self.chance.unit() < self.spec.clients.leave_in_phase_share;
        let leaves_in = (leaves && in_phase).then(|| LEFT_IN[self.chance.below(LEFT_IN.len())]);
        match facts {
            Some(facts) => {
                let limits = self.limits(router, model, &facts);
                self.live.insert(
                    number,
                    Request {
                        router,
                        model: model.clone(),
                        flow: Flow::new(facts, self.now),
                        arrived: self.now,
                        limits,
                        tokens_out,
                        relayed: false,
                        flowing: false,
                        leaves_in,
                        timer: Now::NEVER,
                    },
                );
                if leaves && leaves_in.is_none() {
                    let usual = self.decode(tokens_out).mul_f64(1.5 * self.chance.unit());
                    self.schedule(usual, Due::Leave { request: number });
                }
                self.routers[router].audit.note_request(model, self.now);
                self.step(number, Input::Arrived);
            }
            // The gateway answers 404 before there is anything to decide.
            None => self.tally.refused("unknown_model"),
        }
        self.next_arrival();
    }

    fn next_arrival(&mut self) {
        let now_s = self.now.as_secs_f64();
        let rate = self.spec.rates.iter().rev().find(|rate| rate.from_s <= now_s);
        let per_s = rate.or(self.spec.rates.first()).map_or(1.0, |rate| rate.per_s);
        let gap_s = -self.chance.unit().max(1e-12).ln() / per_s;
        self.arriving = self.arrived < self.spec.requests && now_s + gap_s < self.spec.duration_s;
        if self.arriving {
            self.schedule(Duration::from_secs_f64(gap_s), Due::Arrival);
        }
    }

    fn limits(&self, router: usize, model: &str, facts: &Facts) -> Limits {
        let spec = self.routers[router].catalog.models.get(model);
        let total = spec.map_or(Now::NEVER, |spec| {
            // Batch requests have what they may wait on top.
            let wait = match facts.lane {
                Lane::Live => Duration::ZERO,
                Lane::Batch => spec.queue.wait_max(Lane::Batch),
            };
            self.now + wait + spec.timeouts.total
        });
        Limits {
            deadline: total.min(facts.deadline.unwrap_or(Now::NEVER)),
            attempts_max: spec.map_or(1, |spec| spec.attempts_max as usize),
        }
    }

    fn facts(&mut self, router: usize, model: &str, number: u64) -> Option<Facts> {
        let clients = &self.spec.clients;
        let tokens_in = u32::try_from(self.around(self.spec.tokens_in_mean)).unwrap_or(u32::MAX);
        let session = number % 64;
        let tenant = self.chance.below(clients.tenants.max(1) as usize) as u64;
        let stream = self.chance.unit() >= clients.whole_share;
        let lane = if self.chance.unit() < clients.batch_share { Lane::Batch } else { Lane::Live };
        let tag = self.chance.below(3 * clients.tags.len());
        Some(Facts {
            model: self.routers[router].fleet.model(model)?,
            version: None,
            needs: Capabilities::CHAT,
            tokens_in_estimate: tokens_in,
            tokens_in_min: tokens_in,
            tokens_out_max: None,
            stream,
            lane,
            tenant: format!("tenant-{tenant}").into(),
            tenant_hash: tenant.wrapping_add(1).wrapping_mul(0xD6E8_FEB8_6659_FD93),
            session_hash: Some(session.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            user_hash: None,
            prefix_hash: None,
            prefix: std::sync::Arc::default(),
            class: pointsman_routing::facts::Class::default(),
            objective: pointsman_routing::facts::Objective::default(),
            region: None,
            pinned: None,
            tags: clients.tags.get(tag).map(|tag| tag.as_str().into()).into_iter().collect(),
            deadline: clients.deadline_s.map(|span_s| self.now + Duration::from_secs_f64(span_s)),
        })
    }

    /// A client that leaves in a phase leaves once its request is there.
    pub(super) fn perhaps_leave(&mut self, request: u64) {
        let Some(entry) = self.live.get_mut(&request) else { return };
        if entry.leaves_in == Some(entry.flow.phase()) {
            entry.leaves_in = None;
            let within = LEAVES_WITHIN.mul_f64(self.chance.unit());
            self.schedule(within, Due::Leave { request });
        }
    }

    /// A number of tokens around a mean: exponential, as lengths of real traffic roughly are.
    fn around(&mut self, mean: u32) -> u64 {
        (-self.chance.unit().max(1e-12).ln() * f64::from(mean)) as u64
    }
}
