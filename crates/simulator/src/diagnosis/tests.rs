use super::*;
use pointsman_routing::Rng;

fn diagnose(served: &[Served], known: &BTreeMap<(String, String), Known>) -> Diagnosis {
    super::diagnose(&Traffic { served, known, counted: &[], window_s: None })
}

fn served(model: &str, arrived_s: f64, took_s: f64, deployment: &str) -> Served {
    Served {
        model: model.to_owned(),
        arrived_s,
        ended_s: arrived_s + took_s,
        queued_s: 0.0,
        first_content_s: Some(0.2),
        tokens_out: 100,
        end: End::Answered,
        attempts: vec![Sent {
            deployment: deployment.to_owned(),
            from_s: arrived_s,
            until_s: arrived_s + took_s,
        }],
    }
}

fn slots(names: &[&str], slots: u32) -> BTreeMap<(String, String), Known> {
    let known = Known { slots: Some(slots), weight: 1, flaps_per_h: None };
    names.iter().map(|name| (("m".to_owned(), (*name).to_owned()), known)).collect()
}

fn level(diagnosis: &Diagnosis, name: &str) -> Level {
    diagnosis.risks.iter().find(|risk| risk.name == name).expect("every risk is rated").level
}

/// Ten requests a second of 2 s each for five minutes, sent where `to` says by the second and the request's number.
fn traffic(to: impl Fn(u64, u64) -> &'static str) -> Vec<Served> {
    let one = |number: u64| served("m", number as f64 / 10.0, 2.0, to(number / 10, number));
    (0..3_000).map(one).collect()
}

#[test]
fn even_traffic_is_at_no_risk_and_its_figures_are_right() {
    let diagnosis = diagnose(&traffic(|_, number| ["a", "b"][number as usize % 2]), &slots(&["a", "b"], 20));
    let model = &diagnosis.baseline.models["m"];
    assert_eq!(diagnosis.baseline.requests, 3_000);
    assert!((diagnosis.baseline.answered_per_s - 10.0).abs() < 0.1, "{:?}", diagnosis.baseline);
    assert!((diagnosis.baseline.tokens_out_per_s - 1_000.0).abs() < 10.0);
    assert!((model.utilisation.expect("known") - 0.5).abs() < 0.01, "20 of 40 slots: {model:?}");
    assert!((model.deployments["a"].inflight_mean - 10.0).abs() < 0.2);
    assert!(model.jain > 0.99 && model.imbalance < 1.05 && model.oscillation < 0.1, "{model:?}");
    for name in ["hot_model_overload", "slot_imbalance", "routing_jitter"] {
        assert_eq!(level(&diagnosis, name), Level::Low, "{:?}", diagnosis.risks);
    }
}

#[test]
fn a_model_that_fills_its_slots_or_turns_away_is_at_risk() {
    let even = |_, number: u64| ["a", "b"][number as usize % 2];
    let full = diagnose(&traffic(even), &slots(&["a", "b"], 10));
    assert_eq!(level(&full, "hot_model_overload"), Level::High, "{:?}", full.risks);
    let mut some = traffic(even);
    some[7].end = End::Refused;
    some[7].attempts.clear();
    let some = diagnose(&some, &slots(&["a", "b"], 100));
    assert_eq!(level(&some, "hot_model_overload"), Level::Medium, "{:?}", some.risks);
    assert_eq!(some.risks[0].name, "hot_model_overload", "the worst comes first");
}

#[test]
fn slots_that_are_used_unevenly_are_seen() {
    let uneven = |_, number: u64| if number.is_multiple_of(10) { "b" } else { "a" };
    let diagnosis = diagnose(&traffic(uneven), &slots(&["a", "b"], 100));
    let model = &diagnosis.baseline.models["m"];
    assert!((model.deployments["a"].share - 0.9).abs() < 0.01);
    assert!(level(&diagnosis, "slot_imbalance") >= Level::Medium, "{:?}", diagnosis.risks);
    let one_idle = diagnose(&traffic(|_, _| "a"), &slots(&["a", "b", "c"], 100));
    assert_eq!(one_idle.baseline.models["m"].deployments["b"].attempts, 0, "who gets nothing is there too");
    assert_eq!(level(&one_idle, "slot_imbalance"), Level::High);
}

#[test]
fn few_requests_are_not_called_uneven() {
    let lonely: Vec<Served> = (0..200_u32)
        .map(|number| served("m", f64::from(number) * 2.0, 1.9, ["a", "b", "c", "d"][number as usize % 4]))
        .collect();
    let diagnosis = diagnose(&lonely, &slots(&["a", "b", "c", "d"], 4));
    assert!(diagnosis.baseline.models["m"].imbalance < 1.1, "one request cannot be spread");
    assert_eq!(level(&diagnosis, "slot_imbalance"), Level::Low, "{:?}", diagnosis.risks);
}

#[test]
fn waiting_beside_free_slots_is_seen() {
    let mut waits = traffic(|_, number| ["a", "b"][number as usize % 2]);
    for one in waits.iter_mut().skip(1_000).take(200) {
        one.queued_s = 1.5;
    }
    let diagnosis = diagnose(&waits, &slots(&["a", "b"], 20));
    let idle_s = diagnosis.baseline.models["m"].idle_while_queued_s;
    assert!((18.0..24.0).contains(&idle_s), "from second 100 to 121.5: {idle_s}");
    let unknown = diagnose(&waits, &BTreeMap::new());
    assert!(unknown.baseline.models["m"].idle_while_queued_s < 1e-9, "no slot is known to be free");
}

#[test]
fn herds_that_run_to_and_fro_are_told_from_chance() {
    let herd = diagnose(&traffic(|second, _| ["a", "b"][(second / 5) as usize % 2]), &slots(&["a", "b"], 30));
    assert!(herd.baseline.models["m"].oscillation > 0.5, "{:?}", herd.baseline.models["m"]);
    assert_eq!(level(&herd, "routing_jitter"), Level::High);
    let mut rng = Rng::seeded(4);
    let chance: Vec<Served> = (0..3_000)
        .map(|number| served("m", f64::from(number) / 10.0, 2.0, ["a", "b", "c", "d"][rng.below(4)]))
        .collect();
    let chance = diagnose(&chance, &slots(&["a", "b", "c", "d"], 30));
    assert!(chance.baseline.models["m"].oscillation < 0.35, "{:?}", chance.baseline.models["m"].oscillation);
}

#[test]
fn nothing_and_odd_times_are_no_trouble() {
    let nothing = diagnose(&[], &BTreeMap::new());
    assert_eq!((nothing.baseline.requests, nothing.risks.len()), (0, 0));
    let mut odd = served("m", 5.0, -3.0, "a");
    odd.first_content_s = None;
    let long = served("m", 0.0, 1e7, "a");
    let diagnosis = diagnose(&[odd, long], &BTreeMap::new());
    assert!(diagnosis.baseline.span_s > 9e6 && diagnosis.baseline.models["m"].jain.is_finite());
}

#[test]
fn live_traffic_is_counted_for_its_requests_are_not_over() {
    let known = slots(&["a", "b"], 10);
    let count = |at_s: f64, deployment: &str, inflight: u32| Counted {
        at_s,
        model: "m".to_owned(),
        deployment: deployment.to_owned(),
        inflight,
    };
    // One short request ended while both deployments worked on many long ones.
    let served = [served("m", 105.0, 1.0, "a")];
    let counted: Vec<Counted> = (0..20)
        .flat_map(|at| [count(100.0 + f64::from(at), "a", 9), count(100.0 + f64::from(at), "b", 3)])
        .collect();
    let traffic =
        Traffic { served: &served, known: &known, counted: &counted, window_s: Some((100.0, 120.0)) };
    let diagnosis = super::diagnose(&traffic);
    let model = &diagnosis.baseline.models["m"];
    assert!((diagnosis.baseline.answered_per_s - 0.05).abs() < 1e-9, "one in twenty seconds");
    assert!((model.utilisation.expect("known") - 0.6).abs() < 1e-9, "12 of 20: {model:?}");
    assert!((model.deployments["a"].inflight_mean - 9.0).abs() < 1e-9);
}
