//! How well slots are used and load is spread, as metrics and by the admin API.

mod support;

use serde_json::{Value, json};
use support::binary::Binary;

const SHARED: &str = "pools: { box: { tokens: 100000 } }
providers: { up: { kind: mock, base_url: 'MOCK', engine: off, slots: 1, slot_pool: box } }
models:
  m:
    sticky: { ttl_s: 60 }
    deployments: [ { name: d, provider: up, model: up } ]
";

#[test]
fn every_figure_is_in_the_metrics_and_in_the_admin_api() {
    let binary = Binary::start(SHARED);
    binary.mock.control().set(|settings| settings.first_token_ms = 100);
    std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| binary.ask().status));
        assert!(both.into_iter().all(|one| one.join().expect("asked") == 200));
    });
    let figures = binary.admin("GET", "/admin/v1/figures", "", "").json();
    let model = &figures["models"][0];
    for figure in [
        "utilisation",
        "peak_to_mean",
        "jain",
        "idle_while_queued_s",
        "affinity_kept",
        "affinity_broken_by_lead",
        "affinity_broken_by_health",
    ] {
        assert!(model[figure].is_number(), "{figure}: {figures}");
    }
    for figure in ["utilisation", "traffic_share", "traffic_share_intended", "flaps_per_h"] {
        assert!(model["deployments"][0][figure].is_number(), "{figure}: {figures}");
    }
    for unknown_yet in ["prediction_error", "prediction_bias"] {
        assert_eq!(model["deployments"][0].get(unknown_yet), Some(&Value::Null), "{figures}");
    }
    assert_eq!(
        figures["pools"],
        json!([{"name": "box", "utilisation": 0.0}]),
        "a pool of tokens has one too"
    );
    let (class, tenant) = (&figures["waits"]["classes"][0], &figures["waits"]["tenants"][0]);
    assert_eq!(
        (&class["model"], &class["lane"], &class["class"], &class["count"]),
        (&json!("m"), &json!("live"), &json!("standard"), &json!(1)),
        "{figures}"
    );
    assert!(class["mean_ms"].as_f64().is_some_and(|ms| ms > 1.0), "{figures}");
    assert!(tenant["tenant"].is_string() && tenant["p99_ms_at_most"].is_number(), "{figures}");
    let metrics = binary.admin("GET", "/metrics", "", "").body;
    for series in [
        "pointsman_slot_utilization_mean_ratio{",
        "pointsman_model_slot_utilization_ratio{",
        "pointsman_pool_slot_utilization_ratio{pool=\"box\"}",
        "pointsman_load_imbalance_ratio{model=\"m\"} 1.0",
        "pointsman_load_jain_index{",
        "pointsman_traffic_share_ratio{",
        "pointsman_traffic_share_intended_ratio{",
        "pointsman_flaps_per_hour{",
        "pointsman_affinity_kept_total{model=\"m\"} 0",
        "pointsman_affinity_breaks_total{model=\"m\",reason=\"lead\"} 0",
        "pointsman_affinity_breaks_total{model=\"m\",reason=\"health\"} 0",
        "pointsman_idle_while_queued_seconds_total{",
        "pointsman_class_queue_wait_seconds_count{model=\"m\",lane=\"live\",class=\"standard\"} 1",
        "pointsman_tenant_queue_wait_seconds_count{",
    ] {
        assert!(metrics.contains(series), "{series}\n{metrics}");
    }
}
