//! Figures of how slots are used are what an onlooker with a watch would write down.

mod support;

use std::time::Duration;

use pointsman_routing::flow::{Action, Input, Usage};
use support::{World, catalog};

fn near(got: f64, wanted: f64) -> bool {
    (got - wanted).abs() < 0.02
}

#[test]
fn use_share_and_evenness_are_told() {
    let mut world = World::new(&catalog("round_robin", &["a slots=4", "b slots=4"]));
    let mut flows = Vec::new();
    for _ in 0..4 {
        flows.push(world.arrive().0);
    }
    world.wait(Duration::from_secs(30));
    let figures = world.fleet.view(world.now).figures.remove(0);
    assert!(near(figures.utilisation.expect("slots are known"), 0.5), "{figures:?}");
    assert!(near(figures.jain, 1.0) && near(figures.peak_to_mean, 1.0));
    assert!(
        figures
            .deployments
            .iter()
            .all(|one| near(one.traffic_share, 0.5) && near(one.traffic_share_intended, 0.5))
    );
    assert!(near(figures.deployments[0].busy_slot_seconds, 60.0), "two slots for half a minute");
    for mut flow in flows {
        let _ = world.step(&mut flow, Input::Connected);
        let _ = world.step(&mut flow, Input::FirstContent);
        assert!(matches!(world.step(&mut flow, Input::Done(Usage::default())), Action::Finish));
    }
    world.wait(Duration::from_secs(120));
    let figures = world.fleet.view(world.now).figures.remove(0);
    assert!(
        near(figures.utilisation.expect("known"), 0.0) && figures.idle_while_queued_s < 1e-9,
        "{figures:?}"
    );
}

#[test]
fn a_member_that_leaves_moves_its_own_keys() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut world = World::new(&catalog("consistent_hash", &names));
    assert_eq!(world.fleet.view(world.now).figures[0].remap_share, None, "nothing changed yet");
    world.fleet.apply(&catalog("consistent_hash", &names[..7]), world.now);
    let moved = world.fleet.view(world.now).figures[0].remap_share.expect("one left");
    assert!((0.09..0.16).contains(&moved), "an eighth: {moved}");
    world.fleet.apply(&catalog("consistent_hash", &names[..7]), world.now);
    assert_eq!(
        world.fleet.view(world.now).figures[0].remap_share,
        Some(moved),
        "the same again is no change"
    );
}
