//! Where a prompt is at home when several routers share deployments, and none knows what the others sent.
//!
//! Of a conversation that comes to another router each time, every router knows a part, and would send it wherever there is
//! room: nothing would be found cached. So each beginning has a home, the same for all routers without a word between
//! them: weighted rendezvous of its hash with the names of the deployments. Who has not seen the beginning itself
//! counts the home as having some of it: as much as homes turned out to have lately, by what answers say was cached, and
//! more, for what is left there is found by others later. Load still decides: a home that is busy loses its guests. While this router is the
//! only one, as far as engines report, there are no homes. O(n) a decision.

use crate::facts::Facts;
use crate::ids::DeploymentId;
use crate::rng::rendezvous;
use crate::strategy::View;

/// Share of the requests in engines from which on there are other routers.
const OTHERS_MIN: f64 = 0.2;
/// The weight of one more look at that share, or of one more answer.
const WEIGHT: f64 = 0.02;
/// The share of a prompt that its home is thought to have while no answer told.
const FOUND_FIRST: f64 = 0.3;
/// The least that homes are thought to have, so that some go there and tell.
const FOUND_MIN: f64 = 0.02;
/// How many times as much it is worth to be at home: who comes later and looks there finds it.
const WORTH: f64 = 6.0;
/// The most that it is worth, as a share of the prompt.
const WORTH_MAX: f64 = 0.85;

/// What is known of homes in one tier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Homes {
    /// Share of the requests in engines that others sent.
    others: f64,
    /// Share of a prompt that its home had.
    found: f64,
    /// Answers say what was cached.
    tells: bool,
    /// The home in the decision that was made last.
    last: Option<DeploymentId>,
}

impl Default for Homes {
    fn default() -> Self {
        Self { others: 0.0, found: FOUND_FIRST, tells: false, last: None }
    }
}

impl Homes {
    /// The home of a prompt, if there are others who could have sent its beginning there: it is expected to have a part of it.
    pub(crate) fn expect(&mut self, facts: &Facts, eligible: &mut [View]) -> Option<DeploymentId> {
        self.last = None;
        let (ours, foreign) = eligible.iter().fold((0.0, 0.0), |(ours, foreign), view| {
            let others = view.engine.foreign.unwrap_or(0);
            (ours + f64::from(view.inflight), foreign + f64::from(others))
        });
        if ours + foreign > 0.0 {
            self.others += (foreign / (ours + foreign) - self.others) * WEIGHT;
        }
        let key = facts.prefix_hash.filter(|_| self.others >= OTHERS_MIN)?;
        let far = |view: &View| rendezvous(key, view.name_hash, f64::from(view.weight));
        let home = eligible.iter_mut().min_by(|a, b| far(a).total_cmp(&far(b)))?;
        let worth = (self.found * WORTH).min(WORTH_MAX);
        let expected = (f64::from(facts.tokens_in_estimate) * worth) as u32;
        home.tokens_cached = home.tokens_cached.max(expected);
        self.last = Some(home.id);
        self.last
    }

    /// Whether a request that was just decided on goes to its home.
    pub(crate) fn is_home(&self, deployment: DeploymentId) -> bool {
        self.last == Some(deployment)
    }

    /// A prompt that this router had not seen the beginning of was at its home, which had this share of it. Where no answer
    /// ever says that anything was cached, nobody knows.
    pub(crate) fn note_found(&mut self, share: f64) {
        self.tells |= share > 0.0;
        if !self.tells {
            return;
        }
        self.found = (self.found + (share - self.found) * WEIGHT).clamp(FOUND_MIN, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::{facts, views};

    fn ask(prefix: u64) -> Facts {
        Facts { prefix_hash: Some(crate::rng::mix(prefix)), tokens_in_estimate: 1_000, ..facts() }
    }

    #[test]
    fn a_router_that_is_alone_has_no_homes() {
        let mut homes = Homes::default();
        for prefix in 0..500 {
            let mut eligible = views(&["inflight=4", "inflight=4"]);
            eligible[0].engine.foreign = Some(0);
            assert_eq!(homes.expect(&ask(prefix), &mut eligible), None);
            assert!(eligible.iter().all(|view| view.tokens_cached == 0));
        }
    }

    #[test]
    fn routers_agree_on_homes_and_learn_what_they_have() {
        let crowd = || {
            let mut eligible = views(&["inflight=1", "inflight=1", "inflight=1", "inflight=1"]);
            for view in &mut eligible {
                view.engine.foreign = Some(3);
            }
            eligible
        };
        let (mut one, mut other) = (Homes::default(), Homes::default());
        for _ in 0..100 {
            one.expect(&ask(1), &mut crowd());
            other.expect(&ask(2), &mut crowd());
        }
        let mut taken = [0; 4];
        for prefix in 0..4_000 {
            let (mut mine, mut theirs) = (crowd(), crowd());
            let home = one.expect(&ask(prefix), &mut mine);
            assert_eq!(home, other.expect(&ask(prefix), &mut theirs));
            let at = mine.iter().position(|view| Some(view.id) == home).expect("a home");
            assert_eq!(mine[at].tokens_cached, 850);
            taken[at] += 1;
        }
        assert!(taken.iter().all(|count| (800..1_200).contains(count)), "{taken:?}");
        one.note_found(0.01);
        (0..500).for_each(|_| one.note_found(0.0));
        let mut eligible = crowd();
        one.expect(&ask(7), &mut eligible);
        assert!(
            eligible.iter().all(|view| view.tokens_cached <= 120),
            "homes that have nothing are worth nothing"
        );
    }

    #[test]
    fn what_is_known_to_be_cached_counts_more_than_what_is_expected() {
        let mut homes = Homes::default();
        let mut eligible = views(&["inflight=1 cached=900", "inflight=1 cached=900"]);
        for view in &mut eligible {
            view.engine.foreign = Some(9);
        }
        for _ in 0..100 {
            homes.expect(&ask(1), &mut eligible);
        }
        assert!(eligible.iter().all(|view| view.tokens_cached == 900));
    }
}
