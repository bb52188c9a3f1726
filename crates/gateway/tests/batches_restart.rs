//! Batches outlive the process: killed, stopped or upgraded, no line is done twice and none is lost.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use support::batch::{Client, Counting, lines};
use support::binary::Binary;

/// A gateway with batches in `directory`, in front of `upstream`, and `more` in its provider.
fn start(directory: &Path, upstream: &Counting, more: &str) -> Binary {
    Binary::start(&format!(
        "batches: {{ directory: '{}', concurrency_max: 4, lease_ms: 1000 }}\n\
         providers: {{ p: {{ kind: mock, base_url: 'http://{}', health: off, engine: off{more} }} }}\n\
         models: {{ m: {{ deployments: [ {{ name: a, provider: p }} ] }} }}\n",
        directory.display(),
        upstream.address
    ))
}

/// Twelve lines of which five were answered and four are with the upstream when this returns.
fn half_way(binary: &Binary, upstream: &Counting) -> String {
    let client = Client::of(&binary.client);
    let id = client.create(&client.upload(&lines(12)));
    upstream.let_go(5);
    binary.until("nine were sent and five are done", || {
        upstream.total() == 9 && client.batch(&id)["request_counts"]["completed"] == 5
    });
    id
}

fn often(asked: &BTreeMap<String, u32>, times: u32) -> usize {
    asked.values().filter(|count| **count == times).count()
}

fn counts(done: &Value) -> (i64, i64) {
    let count = |field: &str| done["request_counts"][field].as_i64().expect("a count");
    (count("completed"), count("failed"))
}

#[test]
fn l3_killed_half_way_no_line_is_sent_twice_to_whom_it_may_have_been_paid() {
    let (folder, upstream) = (tempfile::tempdir().expect("a folder"), Counting::start());
    let mut killed = start(folder.path(), &upstream, ", free: false");
    let id = half_way(&killed, &upstream);
    killed.signal("KILL");
    killed.child.wait().expect("it ends");
    upstream.let_go(1_000);
    let next = start(folder.path(), &upstream, ", free: false");
    let client = Client::of(&next.client);
    let done = client.until(&id, "completed");
    assert_eq!(often(&upstream.asked(), 1), 12, "each was sent once: {:?}", upstream.asked());
    assert_eq!(counts(&done), (8, 4), "{done}");
    let errors = client.results(&done["error_file_id"]);
    assert!(errors.values().all(|one| one["error"]["code"] == "request_interrupted"), "{errors:?}");
    assert_eq!((errors.len(), client.results(&done["output_file_id"]).len()), (4, 8));
}

#[test]
fn l3_killed_half_way_an_own_engine_is_asked_again_for_what_it_had_in_hand_only() {
    let (folder, upstream) = (tempfile::tempdir().expect("a folder"), Counting::start());
    let mut killed = start(folder.path(), &upstream, "");
    let id = half_way(&killed, &upstream);
    killed.signal("KILL");
    killed.child.wait().expect("it ends");
    upstream.let_go(1_000);
    let next = start(folder.path(), &upstream, "");
    let done = Client::of(&next.client).until(&id, "completed");
    assert_eq!(counts(&done), (12, 0), "{done}");
    let asked = upstream.asked();
    assert_eq!((often(&asked, 1), often(&asked, 2)), (8, 4), "{asked:?}");
}

#[test]
fn l3_killed_half_way_what_only_waited_for_a_slot_is_not_lost() {
    let (folder, upstream) = (tempfile::tempdir().expect("a folder"), Counting::start());
    let mut killed = start(folder.path(), &upstream, ", free: false, slots: 1");
    let client = Client::of(&killed.client);
    let id = client.create(&client.upload(&lines(6)));
    upstream.let_go(1);
    killed.until("one is done, one is sent and others wait", || {
        upstream.total() == 2 && client.batch(&id)["request_counts"]["completed"] == 1
    });
    killed.signal("KILL");
    killed.child.wait().expect("it ends");
    upstream.let_go(1_000);
    let next = start(folder.path(), &upstream, ", free: false, slots: 1");
    let done = Client::of(&next.client).until(&id, "completed");
    assert_eq!((counts(&done), often(&upstream.asked(), 1)), ((5, 1), 6), "{done}");
}

#[test]
fn l3_killed_while_an_input_is_looked_at_or_results_are_written_nothing_is_lost() {
    let (folder, upstream) = (tempfile::tempdir().expect("a folder"), Counting::start());
    upstream.let_go(100_000);
    let mut running = start(folder.path(), &upstream, ", free: false");
    let client = Client::of(&running.client);
    let id = client.create(&client.upload(&lines(40)));
    for round in 0..4 {
        let so_far = || Client::of(&running.client).batch(&id);
        if round > 0 {
            running.until("some more are done", || {
                so_far()["request_counts"]["completed"].as_i64() >= Some(round * 8)
                    || so_far()["status"] == "completed"
            });
        }
        running.signal("KILL");
        running.child.wait().expect("it ends");
        running = start(folder.path(), &upstream, ", free: false");
    }
    let client = Client::of(&running.client);
    let done = client.until(&id, "completed");
    let (completed, failed) = counts(&done);
    assert_eq!(completed + failed, 40, "{done}");
    let asked = upstream.asked();
    assert_eq!(often(&asked, 1), asked.len(), "{asked:?}");
    let (good, bad) = (client.results(&done["output_file_id"]), client.results(&done["error_file_id"]));
    assert_eq!((good.len() as i64, bad.len() as i64), (completed, failed));
}

#[test]
fn l2_a_stop_lets_what_was_sent_finish_and_leaves_the_rest_to_the_next() {
    let (folder, upstream) = (tempfile::tempdir().expect("a folder"), Counting::start());
    let mut stopped = start(folder.path(), &upstream, ", free: false");
    let id = half_way(&stopped, &upstream);
    stopped.signal("TERM");
    let log = stopped.folder.path().join("log");
    stopped.until("it stops", || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("stopping")));
    upstream.let_go(1_000);
    assert!(stopped.child.wait().expect("it ends").success(), "{}", stopped.log());
    assert_eq!(upstream.total(), 9, "nothing new was sent on the way out");
    let next = start(folder.path(), &upstream, ", free: false");
    let done = Client::of(&next.client).until(&id, "completed");
    assert_eq!((counts(&done), often(&upstream.asked(), 1)), ((12, 0), 12), "{done}");
}

#[test]
fn l6_an_upgrade_hands_a_job_over_and_no_line_runs_twice() {
    let (folder, upstream) = (tempfile::tempdir().expect("a folder"), Counting::start());
    let mut binary = start(folder.path(), &upstream, ", free: false");
    let id = half_way(&binary, &upstream);
    let (code, said) = binary.run(&["upgrade", "--admin", &binary.admin]);
    assert_eq!(code, Some(0), "{said}");
    let new = said.split(' ').nth(1).and_then(|pid| pid.parse().ok()).expect("it names the new process");
    binary.heirs.push(new);
    let client = Client::of(&binary.client);
    let during = client.batch(&id);
    assert_eq!(
        (&during["status"], &during["request_counts"]["completed"]),
        (&json!("in_progress"), &json!(5))
    );
    upstream.let_go(1_000);
    let done = client.until(&id, "completed");
    assert_eq!((counts(&done), often(&upstream.asked(), 1)), ((12, 0), 12), "{:?}", upstream.asked());
    let one = binary.admin("GET", &format!("/admin/v1/batches/{id}"), "", "").json();
    assert_eq!((&one["status"], &one["tenant"]), (&json!("completed"), &json!("anonymous")));
    let late = binary.admin("POST", &format!("/admin/v1/batches/{id}/cancel"), "", "");
    assert_eq!((late.status, &late.json()["code"]), (409, &json!("not_cancellable")), "{late:?}");
    assert_eq!(binary.admin("GET", "/admin/v1/batches/none", "", "").status, 404);
    let seen = binary.admin("GET", "/admin/v1/batches", "", "").json();
    assert_eq!((&seen["batches"][0]["id"], &seen["batches"][0]["tenant"]), (&json!(id), &json!("anonymous")));
}
