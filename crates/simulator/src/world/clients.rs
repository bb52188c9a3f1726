//! Those who ask: when they come, what they ask for, and when they leave.

use std::time::Duration;

use pointsman_routing::catalog::Capabilities;
use pointsman_routing::facts::Lane;
use pointsman_routing::flow::{Flow, Input};
use pointsman_routing::{Facts, Now};

use super::{Due, Request, World};

impl World<'_> {
    pub(super) fn arrive(&mut self) {
        let number = self.arrived;
        let Some(facts) = self.facts(number) else { return };
        let tokens_out = self.around(self.spec.tokens_out_mean).max(1);
        let flow = Flow::new(facts, self.now);
        self.arrived += 1;
        let request = Request { flow, arrived: self.now, tokens_out, relayed: false, timer: Now::NEVER };
        self.live.insert(number, request);
        if self.chance.unit() < self.spec.leave_rate {
            let usual = self.decode(tokens_out).mul_f64(1.5 * self.chance.unit());
            self.schedule(usual, Due::Leave { request: number });
        }
        self.step(number, Input::Arrived);
        let now_s = self.now.as_secs_f64();
        let rate = self.spec.rates.iter().rev().find(|rate| rate.from_s <= now_s);
        let per_s = rate.or(self.spec.rates.first()).map_or(1.0, |rate| rate.per_s);
        let gap_s = -self.chance.unit().max(1e-12).ln() / per_s;
        if self.arrived < self.spec.requests && now_s + gap_s < self.spec.duration_s {
            self.schedule(Duration::from_secs_f64(gap_s), Due::Arrival);
        }
    }

    fn facts(&mut self, number: u64) -> Option<Facts> {
        let tokens_in = u32::try_from(self.around(self.spec.tokens_in_mean)).unwrap_or(u32::MAX);
        let session = number % 64;
        Some(Facts {
            model: self.fleet.model(&self.spec.model)?,
            version: None,
            needs: Capabilities::CHAT,
            tokens_in_estimate: tokens_in,
            tokens_in_min: tokens_in,
            tokens_out_max: None,
            stream: true,
            lane: Lane::Live,
            tenant: "simulated".into(),
            tenant_hash: 1,
            session_hash: Some(session.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            user_hash: None,
            prefix_hash: None,
            region: None,
            tags: Default::default(),
            deadline: None,
        })
    }

    /// A number of tokens around a mean: exponential, as lengths of real traffic roughly are.
    fn around(&mut self, mean: u32) -> u64 {
        (-self.chance.unit().max(1e-12).ln() * f64::from(mean)) as u64
    }
}
