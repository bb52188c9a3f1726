//! Lanes keep out of each other's way.

mod support;

use pointsman_routing::decide;
use pointsman_routing::decision::{Outcome, WhyNot};
use pointsman_routing::facts::Lane;
use pointsman_routing::flow::{Action, Input};
use support::{World, catalog};

/// The credentials that requests of a lane are sent with, in their turn.
fn used(world: &mut World, lane: Lane, times: usize) -> Vec<String> {
    let mut facts = world.facts();
    facts.lane = lane;
    let mut ask = || {
        let decision = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
        match decision.outcome {
            Outcome::Chosen(choice) => {
                choice.credential_name.map_or_else(String::new, |name| name.to_string())
            }
            Outcome::Queued { .. } => "queued".to_owned(),
            Outcome::Rejected { why, .. } => {
                assert_eq!(decision.candidates[0].why_not, Some(WhyNot::NoCredential { until: None }));
                why.name().to_owned()
            }
        }
    };
    (0..times).map(|_| ask()).collect()
}

#[test]
fn a_credential_that_is_kept_for_a_lane_is_used_by_no_other() {
    let mut world = World::new(&catalog("random", &["a keys=2 for_live"]));
    assert_eq!(used(&mut world, Lane::Batch, 3), ["k1", "k1", "k1"]);
    let mut live = used(&mut world, Lane::Live, 4);
    live.sort();
    assert_eq!(live, ["k0", "k0", "k1", "k1"], "what is kept for nobody is for all");
}

#[test]
fn a_lane_without_a_credential_is_told_so_and_the_other_goes_on() {
    let mut world = World::new(&catalog("random", &["a keys=1 for_live"]));
    assert_eq!(used(&mut world, Lane::Batch, 1), ["unavailable"]);
    assert_eq!(used(&mut world, Lane::Live, 1), ["k0"]);
    let view = world.fleet.view(world.now);
    let deployment = &view.models[0].deployments[0];
    assert_eq!((deployment.state, deployment.batch.state), ("healthy", "failed"));
    assert_eq!(view.providers[0].credentials[0].lane, Some("live"));
}

#[test]
fn a_lane_without_a_credential_takes_the_next_tier() {
    let mut world = World::new(&catalog("random", &["a keys=1 for_live", "b tier=2 keys=1"]));
    let mut facts = world.facts();
    for (lane, expected) in [(Lane::Live, "a"), (Lane::Batch, "b")] {
        facts.lane = lane;
        let decision = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
        assert_eq!(support::chosen(&decision), expected, "{lane:?}");
    }
}

#[test]
fn what_a_batch_request_waits_is_not_taken_off_its_time() {
    let catalog = catalog("random", &["a slots=1"]);
    let model = catalog.models.values().next().expect("a model");
    let (total, wait) = (model.timeouts.total, model.queue.wait_max(Lane::Batch));
    for (lane, in_time) in [(Lane::Live, false), (Lane::Batch, true)] {
        let mut world = World::new(&catalog);
        let facts = pointsman_routing::Facts { lane, ..world.facts() };
        assert_eq!(
            world.fleet.deadline(&facts, world.now) == Some(world.now + total),
            lane == Lane::Live,
            "{lane:?}"
        );
        let (mut running, _) = world.arrive();
        let (mut waiting, action) = world.arrive_with(facts);
        assert!(matches!(action, Action::Wait), "{lane:?}: {action:?}");
        world.wait(wait.min(total).saturating_sub(std::time::Duration::from_millis(1)));
        world.finish(&mut running);
        let granted = world.step(&mut waiting, Input::Granted);
        assert!(matches!(granted, Action::Forward(_)), "{lane:?}: {granted:?}");
        // Half of its time is what any answer may take.
        assert_eq!(waiting.wake_at() > world.now + std::time::Duration::from_secs(1), in_time, "{lane:?}");
    }
}
