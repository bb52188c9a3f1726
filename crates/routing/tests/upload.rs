//! Requests whose bodies pass by while they are sent.

mod support;

use std::time::Duration;

use pointsman_routing::failure::Processed;
use pointsman_routing::flow::{Action, Input, Refusal};
use pointsman_routing::{Failure, FailureClass, Flow};
use support::*;

fn lost() -> Input {
    Input::Failed(Failure {
        class: FailureClass::Connect,
        processed: Processed::No,
        status: None,
        retry_after: None,
    })
}

#[test]
fn what_is_kept_is_sent_elsewhere_and_what_went_by_is_not() {
    for (gone, expected) in [(false, Some("b")), (true, None)] {
        let mut world = World::new(&catalog("least_busy", &["a", "b tier=2"]));
        let mut flow = Flow::new(world.facts(), world.now);
        flow.pass_body();
        assert_eq!(sent(&world.step(&mut flow, Input::Arrived)), Some("a"));
        let _ = world.step(&mut flow, Input::Connected);
        if gone {
            flow.note_gone();
        }
        let action = world.step(&mut flow, lost());
        assert_eq!(sent(&action), expected);
        assert_eq!(matches!(action, Action::Reject(Refusal::Failed(_))), gone);
        assert_eq!(world.fleet.permits_in_use(), u64::from(!gone));
    }
}

#[test]
fn a_providers_time_begins_when_it_has_what_it_is_asked() {
    let mut world = World::new(&catalog("least_busy", &["a"]));
    let mut flow = Flow::new(world.facts(), world.now);
    flow.pass_body();
    let _ = world.step(&mut flow, Input::Arrived);
    let connecting = flow.wake_at();
    flow.on_upload(world.now);
    assert_eq!(flow.wake_at(), connecting, "nothing is sent yet");
    let _ = world.step(&mut flow, Input::Connected);
    let patience = flow.wake_at();
    flow.on_upload(world.now + Duration::from_secs(7));
    assert_eq!(flow.wake_at(), patience + Duration::from_secs(7));
    let _ = world.step(&mut flow, Input::ClientGone);
    assert_eq!(world.fleet.permits_in_use(), 0);
}
