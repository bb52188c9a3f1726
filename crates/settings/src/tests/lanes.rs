//! Lanes, classes and tenants' weights.

use std::time::Duration;

use pointsman_routing::facts::{Class, Lane};

use super::read;

const TEXT: &str = "\
auth:
  keys:
    - { name: app, tenant: acme, key: app-key-123, priority: standard }
    - { name: ops, key: ops-key-123, headers: [priority], priority_max: system, lane: batch }
tenants: { acme: { weight: 3 }, ops: {} }
queue: { requests_max: 7 }
lanes: { batch: { requests_max: 9, inflight_share: 0.5 } }
providers:
  p: { kind: openai, keys: [ { key: k1, lane: live }, { key: k2, lane: batch }, k3 ] }
models:
  m: { deployments: [ { provider: p } ] }
  n: { lane: batch, priority: interactive, lanes: { batch: { wait_ms_max: 5, reserve: false } }, deployments: [ { provider: p } ] }
";

#[test]
fn each_lane_has_limits_and_credentials_of_its_own() {
    let catalog = read(TEXT).expect("a good config").catalog();
    let queue = |model: &str| catalog.models[model].queue.clone();
    assert_eq!((queue("m").requests_max, queue("m").batch.requests_max), (7, 9));
    assert_eq!((queue("m").batch.inflight_share, queue("m").batch.reserve), (0.5, true));
    assert_eq!((queue("n").batch.requests_max, queue("n").batch.inflight_share), (9, 0.5));
    assert_eq!((queue("n").batch.wait_max, queue("n").batch.reserve), (Duration::from_millis(5), false));
    assert_eq!(queue("m").batch.wait_max, Duration::from_secs(600));
    let lanes: Vec<_> = catalog.providers["p"].credentials.iter().map(|key| key.lane).collect();
    assert_eq!(lanes, [Some(Lane::Live), Some(Lane::Batch), None]);
    let weights: Vec<_> = catalog.tenants.values().map(|tenant| tenant.weight).collect();
    assert_eq!(weights, [3, 1]);
}

#[test]
fn a_key_may_ask_for_interactive_unless_it_may_for_more_or_less() {
    let config = read(TEXT).expect("a good config");
    let most: Vec<_> = config.auth.keys.iter().map(crate::auth::KeyConfig::class_max).collect();
    assert_eq!(most, [Class::Interactive, Class::System]);
}

#[test]
fn l1_tenants_without_a_key_and_classes_out_of_place_are_told() {
    for (from, to, says) in [
        (
            "acme: { weight",
            "acne: { weight",
            "no key in `auth.keys` belongs to a tenant `acne`; did you mean `acme`?",
        ),
        ("weight: 3", "weight: 0", "tenants.acme.weight: 0 is not from 1"),
        (
            "priority: standard }",
            "priority: system }",
            "`system` is above the highest class that the key may ask for",
        ),
        ("inflight_share: 0.5", "inflight_share: 1.5", "1.5 is not from 0 to 1"),
        ("priority: standard }", "priority: urgent }", "urgent"),
    ] {
        let said = read(&TEXT.replacen(from, to, 1)).expect_err("it is refused");
        let said: Vec<String> = said.iter().map(ToString::to_string).collect();
        assert!(said.iter().any(|one| one.contains(says)), "{says}: {said:?}");
    }
}
