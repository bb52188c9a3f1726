//! Requests that name what an account keeps are served by that account, or not at all.

mod support;

use pointsman_routing::catalog::{Capabilities, Catalog};
use pointsman_routing::decision::{Outcome, WhyNot};
use pointsman_routing::facts::{Lane, Pin};
use pointsman_routing::failure::Processed;
use pointsman_routing::fleet::NoSoleAccount;
use pointsman_routing::flow::{Action, Flow, Refusal};
use pointsman_routing::{Facts, FailureClass};
use support::{World, catalog, failed, sent};

/// An account by the deployment and the number of its key.
fn pin(world: &World, deployment: &str, key: Option<&str>) -> Pin {
    let model = world.fleet.model("m").expect("the model");
    let credential = key.map(|key| world.fleet.credential(deployment, key).expect("the key"));
    Pin { deployment: world.fleet.deployment(model, deployment).expect("it is there"), credential }
}

fn pinned(world: &mut World, pin: Pin) -> (Flow, Action) {
    let facts = Facts { pinned: Some(pin), ..world.facts() };
    world.arrive_with(facts)
}

fn credential(flow: &Flow) -> Option<String> {
    flow.attempt().and_then(|attempt| attempt.credential_name.as_ref()).map(ToString::to_string)
}

#[test]
fn only_the_account_that_issued_is_asked() {
    let mut world = World::new(&catalog("least_busy", &["a keys=3", "b keys=2"]));
    for _ in 0..20 {
        let wanted = pin(&world, "b", Some("k1"));
        let (mut flow, action) = pinned(&mut world, wanted);
        assert_eq!((sent(&action), credential(&flow).as_deref()), (Some("b"), Some("k1")));
        let why: Vec<Option<WhyNot>> =
            flow.decisions()[0].candidates.iter().map(|candidate| candidate.why_not).collect();
        assert_eq!(why, [Some(WhyNot::OtherAccount), None], "the record tells");
        world.finish(&mut flow);
    }
}

#[test]
fn it_is_not_failed_over_to_another_account() {
    for class in [FailureClass::Connect, FailureClass::CredentialDead, FailureClass::CredentialQuota] {
        let mut world = World::new(&catalog("least_busy", &["a keys=2", "b keys=2"]));
        let wanted = pin(&world, "b", Some("k0"));
        let (mut flow, _) = pinned(&mut world, wanted);
        let action = world.step(&mut flow, failed(class, Processed::No, None));
        let others = flow
            .attempts()
            .iter()
            .filter(|attempt| &*attempt.name != "b" || attempt.credential_name.as_deref() != Some("k0"));
        assert_eq!(others.count(), 0, "{class:?} {action:?}");
        assert!(sent(&action).is_none(), "{class:?} {action:?}");
    }
}

#[test]
fn an_account_that_cannot_serve_is_told_apart_from_one_that_will_again() {
    let refusal = |world: &mut World, pin: Pin| {
        let action = pinned(world, pin).1;
        let Action::Reject(Refusal::NotRouted(decision, _)) = action else { panic!("{action:?}") };
        match decision.outcome {
            Outcome::Rejected { why, retry_after } => (why.name(), retry_after.is_some()),
            Outcome::Chosen(_) | Outcome::Queued { .. } => panic!("{decision:?}"),
        }
    };
    let mut world = World::new(&catalog("least_busy", &["a", "b draining"]));
    let drained = pin(&world, "b", None);
    assert_eq!(refusal(&mut world, drained), ("pinned", false), "drained");
    let mut world = World::new(&catalog("least_busy", &["a keys=1", "b keys=1"]));
    let wanted = pin(&world, "b", Some("k0"));
    let (mut flow, _) = pinned(&mut world, wanted);
    let _ = world.step(&mut flow, failed(FailureClass::CredentialQuota, Processed::No, Some(30)));
    assert_eq!(refusal(&mut world, wanted), ("unavailable", true), "its quota comes back");
    let gone: Catalog = catalog("least_busy", &["a keys=1"]);
    world.fleet.apply(&gone, world.now);
    assert_eq!(refusal(&mut world, wanted), ("pinned", false), "it was removed");
}

#[test]
fn a_pin_survives_a_reload_and_holds_for_all_deployments_of_the_account() {
    let lines = ["a keys=1", "b keys=2", "c at=b"];
    let mut world = World::new(&catalog("round_robin", &lines));
    let wanted = pin(&world, "b", Some("k1"));
    world.fleet.apply(&catalog("least_busy", &lines), world.now);
    let (_, action) = pinned(&mut world, wanted);
    assert!(matches!(sent(&action), Some("b" | "c")), "{action:?}");
    let other = Pin { deployment: pin(&world, "c", None).deployment, ..wanted };
    assert!(world.fleet.is_same_account(wanted, other));
    assert!(!world.fleet.is_same_account(wanted, pin(&world, "b", Some("k0"))));
}

#[test]
fn the_only_account_is_found_if_there_is_just_one() {
    let sole = |lines: &[&str], needs| {
        let world = World::new(&catalog("least_busy", lines));
        let model = world.fleet.model("m").expect("the model");
        let found = world.fleet.sole_account(&[model], needs, Lane::Live);
        found.map(|found| found.credential == world.fleet.credential("a", "k0"))
    };
    assert_eq!(sole(&["a keys=1", "b at=a"], Capabilities::RESPONSES), Ok(true));
    assert_eq!(sole(&["a keys=1", "b deaf"], Capabilities::RESPONSES), Ok(true), "the other keeps nothing");
    assert_eq!(sole(&["a keys=2"], Capabilities::RESPONSES), Err(NoSoleAccount::Several));
    assert_eq!(sole(&["a keys=1", "b"], Capabilities::RESPONSES), Err(NoSoleAccount::Several));
    assert_eq!(sole(&["a keys=1 deaf"], Capabilities::RESPONSES), Err(NoSoleAccount::Nobody));
    assert_eq!(sole(&["a"], Capabilities::RESPONSES), Ok(true), "without keys");
}
