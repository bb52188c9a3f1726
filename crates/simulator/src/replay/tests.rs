//! Logs by hand, played again: what agrees, what differs, what cannot be compared, and how it is told.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use pointsman_routing::catalog::Name;
use pointsman_routing::decision::{Decision, Outcome};
use pointsman_routing::{DeploymentId, Now};
use pointsman_settings::{Config, Sources};
use serde_json::{Value, json};

use super::*;
use crate::engine::Kind;
use crate::lab::Plan;
use crate::trace::LINE_BYTES_MAX;

/// A request of a log.
struct Line {
    at_ms: u64,
    model: &'static str,
    session: u64,
    went: Value,
    outcome: &'static str,
    first_ms: u64,
}

const LINE: Line =
    Line { at_ms: 0, model: "m", session: 1, went: Value::Null, outcome: "completed", first_ms: 50 };

impl Line {
    fn text(&self, id: u64) -> String {
        let chosen = self.went.as_str().map(|name| {
            json!({"strategy": "consistent_hash", "used": null, "model": self.model, "candidates": [], "outcome":
                {"kind": "chosen", "deployment": name, "why": {"rule": "hashed", "rank": 0}}})
        });
        let refused = json!({"strategy": "consistent_hash", "used": null, "model": self.model, "candidates": [],
            "outcome": {"kind": "rejected", "why": "queue_full"}});
        let attempts: Vec<Value> = self
            .went
            .as_str()
            .map(|name| json!({"deployment": name, "provider": format!("p-{name}"), "failure": null}))
            .into_iter()
            .collect();
        let usage = (self.outcome == "completed")
            .then(|| json!({"tokens_in": 400, "tokens_in_cached": 0, "tokens_out": 10}));
        let line = json!({
            "request_id": format!("{id:032x}"), "at_unix_ms": 1_000_000 + self.at_ms, "model": self.model, "tenant": "t",
            "facts": {"tokens_in_estimate": 400, "tokens_in_min": 90, "stream": true, "needs": ["chat"], "lane": "live",
                "class": "standard", "session_hash": format!("{:016x}", self.session), "prefix_chain": []},
            "decisions": [chosen.unwrap_or(refused)], "attempts": attempts, "outcome": self.outcome, "usage": usage,
            "cost_usd": null, "queue_us": 0, "first_content_us": self.first_ms * 1_000, "total_us": self.first_ms * 2_000,
        });
        line.to_string()
    }
}

fn hash(tenant: &str) -> u64 {
    tenant.len() as u64 + 40
}

fn read_text(text: &str) -> Result<Log, String> {
    read("a.jsonl", text.as_bytes(), &hash)
}

fn config(strategy: &str, deployments: &[&str]) -> Config {
    let mut text = String::from("providers:\n");
    for name in deployments {
        let _ = writeln!(text, "  p-{name}: {{ kind: vllm, base_url: 'http://{name}' }}");
    }
    let _ = writeln!(text, "models:\n  m:\n    strategy: {strategy}\n    aliases: [old-m]\n    deployments:");
    for name in deployments {
        let _ = writeln!(
            text,
            "      - {{ name: {name}, provider: p-{name}, price: {{ input: 1, output: 10 }} }}"
        );
    }
    let sources = Sources { env: &|_| None, file: &|_| Err("none".to_owned()) };
    pointsman_settings::parse(&text, &sources).unwrap_or_else(|found| panic!("{found:?}\n{text}"))
}

/// As the gateway tells of a decision, as far as it matters here.
fn tell(decision: &Decision, _: Now, names: &BTreeMap<DeploymentId, Name>) -> Value {
    let outcome = match &decision.outcome {
        Outcome::Chosen(choice) => {
            json!({"kind": "chosen", "deployment": &*choice.name, "why": {"rule": choice.why.name()}})
        }
        Outcome::Queued { .. } => json!({"kind": "queued"}),
        Outcome::Rejected { why, .. } => json!({"kind": "rejected", "why": why.name()}),
    };
    let candidates = decision.candidates.iter().map(|one| {
        json!({"deployment": names.get(&one.deployment).map(|name| &**name), "inflight": one.inflight,
            "why_not": one.why_not.map(|why| json!({"rule": why.name()}))})
    });
    json!({"strategy": decision.strategy, "used": decision.used, "outcome": outcome,
        "candidates": candidates.collect::<Vec<_>>()})
}

fn plan() -> Plan {
    Plan::parse("about: ''").expect("a good plan")
}

fn played<'w>(world: &'w World, log: &Log, seeds: u64, told: Against<'_>) -> Play<'w> {
    let pass = |seed: u64| {
        let against = if seed == 1 { told } else { Against::Nothing };
        play(world, log, seed, &Look { tell: &tell, against }, &world.setup()).expect("it is played")
    };
    Play { world, passes: (1..=seeds).map(pass).collect() }
}

fn replayed(text: &str, new: &Config, was: Option<&Config>, seeds: u64) -> Replay {
    let mut log = read_text(text).expect("a good log");
    let new = World::new("new.yaml", new, &mut log, &plan()).expect("a world");
    let was = was.map(|was| World::new("old.yaml", was, &mut log, &plan()).expect("a world"));
    let before = was.as_ref().map(|was| played(was, &log, seeds, Against::Nothing));
    let against = before.as_ref().map(|before| before.passes[0].first_ms.clone());
    let new = played(&new, &log, seeds, against.as_deref().map_or(Against::Log, Against::Before));
    replay(&log, new, before, None, "pointsman replay a.jsonl")
}

/// A log of so many requests, each of a session of its own, all at `a`.
fn at_a(requests: u64) -> String {
    let line = |id: u64| Line { at_ms: id * 400, session: id + 1, went: json!("a"), ..LINE }.text(id);
    (0..requests).map(|id| line(id) + "\n").collect()
}

/// The same log as its own config decides.
fn rewritten(text: &str, config: &Config) -> String {
    let first = replayed(text, config, None, 1);
    let went: BTreeMap<&str, &str> = first
        .differences
        .iter()
        .map(|one| (one.request_id.as_str(), one.new.deployment.as_deref().expect("it is sent")))
        .collect();
    let line = |(id, line): (u64, &str)| {
        let own: Value = serde_json::from_str(line).expect("a record");
        let to = went.get(own["request_id"].as_str().expect("an id")).copied().unwrap_or("a");
        Line { at_ms: id * 400, session: id + 1, went: json!(to), ..LINE }.text(id) + "\n"
    };
    (0..).zip(text.lines()).map(line).collect()
}

const HASHED: &str = "{ name: consistent_hash, key: session }";

#[test]
fn the_same_config_decides_the_same_and_the_same_seed_tells_the_same() {
    let config = config(HASHED, &["a", "b", "c"]);
    let text = rewritten(&at_a(120), &config);
    let one = replayed(&text, &config, Some(&config), 3);
    assert_eq!((one.decisions.compared, one.decisions.differ), (120, 0), "{:?}", one.differences.first());
    assert!(one.moved.iter().all(|pair| pair.new.as_ref() == Some(&pair.recorded)), "{:?}", one.moved);
    assert_eq!(one.moved.len(), 3, "all three have keys");
    let whole = |share: Option<f64>| share.is_some_and(|share| (share - 1.0).abs() < 1e-12);
    assert!(whole(one.chance.new_and_itself) && whole(one.chance.log_and_was.first().copied()));
    let other = replayed(&text, &config, Some(&config), 3);
    assert_eq!(
        serde_json::to_string(&one).expect("written"),
        serde_json::to_string(&other).expect("written")
    );
    assert_eq!(one.to_html(), other.to_html());
}

#[test]
fn another_config_is_told_with_who_moved_where_and_why() {
    let before = config(HASHED, &["a", "b", "c"]);
    let text = rewritten(&at_a(120), &before);
    let after = config(HASHED, &["a", "b"]);
    let one = replayed(&text, &after, Some(&before), 2);
    // Rendezvous hashing: who was at `a` or `b` stays.
    assert_eq!(one.decisions.differ, 0, "{:?}", one.differences);
    let gone = one.not_compared.deployments_unknown.get("c of m").copied().unwrap_or(0);
    assert!(gone > 10 && one.decisions.compared + gone == 120, "{:?}", one.not_compared);
    let from_c: u64 = one.moved.iter().filter(|pair| pair.recorded == "c").map(|pair| pair.count).sum();
    assert_eq!(from_c, gone, "where they go now is told all the same");

    let turned = replayed(&text, &config("round_robin", &["a", "b", "c"]), Some(&before), 2);
    assert!(turned.decisions.differ > 40, "{:?}", turned.decisions);
    assert_eq!(turned.differences.len() as u64, turned.decisions.differ);
    let first = &turned.differences[0];
    assert_eq!(
        (first.recorded.why.as_str(), first.new.why.as_str()),
        ("consistent_hash: hashed (rank 0)", "round_robin: next_in_turn")
    );
    assert_eq!(first.instead.as_deref(), Some("eligible (inflight 0)"));
    assert_eq!(first.was.as_ref().and_then(|was| was.deployment.clone()), first.recorded.deployment);
    let sizes: Vec<f64> = turned.differences.iter().filter_map(|one| one.change_ms).map(f64::abs).collect();
    assert!(sizes.is_sorted_by(|a, b| a >= b), "the largest change first: {sizes:?}");
    assert_eq!(turned.rules[0].new, "round_robin: next_in_turn");
}

#[test]
fn what_cannot_be_compared_is_counted_by_why() {
    let lines = [
        Line { went: json!("a"), ..LINE },
        Line { went: json!("a"), model: "old-m", at_ms: 100, ..LINE },
        Line { went: json!("a"), model: "gone", at_ms: 200, ..LINE },
        Line { went: json!("gone"), at_ms: 300, ..LINE },
        Line { outcome: "rejected", at_ms: 400, ..LINE },
        Line { outcome: "client_gone", at_ms: 500, ..LINE },
        Line { went: json!("a"), outcome: "joined", at_ms: 600, ..LINE },
    ];
    let mut text: String = (0..).zip(&lines).map(|(id, line)| line.text(id) + "\n").collect();
    text.push_str("{\"request_id\":\"x\",\"at_unix_ms\":1,\"model\":null,\"tenant\":null,\"facts\":null,\"usage\":null,\"outcome\":\"invalid\"}\n");
    let other = text.lines().next().expect("a line").replace(
        "\"model\":\"m\",\"outcome\":{\"deployment\"",
        "\"model\":\"x\",\"outcome\":{\"deployment\"",
    );
    assert!(other.contains("\"model\":\"x\""), "{other}");
    text.push_str(&other);
    text.push('\n');
    let one = replayed(&text, &config(HASHED, &["a"]), None, 1);
    assert_eq!(one.log.left_out.values().sum::<u64>(), 2, "{:?}", one.log.left_out);
    assert_eq!(
        (one.log.requests, one.decisions.compared, one.decisions.agree),
        (7, 2, 2),
        "an alias is its model"
    );
    let why: Vec<u64> = one.not_compared.why.values().copied().collect();
    assert_eq!((one.not_compared.count, why), (5, vec![1; 5]), "{:?}", one.not_compared);
    assert_eq!(one.not_compared.models_unknown, [("gone".to_owned(), 1)].into());
    assert_eq!(one.not_compared.refused_then_sent_now, 1);
    assert_eq!(one.chance.new_and_itself, None, "one seed says nothing of chance");
}

#[test]
fn chance_is_told_apart_from_change() {
    let config = config("random", &["a", "b"]);
    let one = replayed(&at_a(400), &config, None, 3);
    let alike = one.chance.new_and_itself.expect("three seeds");
    assert!((0.4..0.6).contains(&alike), "{alike}");
    assert!(one.notes.iter().any(|note| note.starts_with("Chance has a part")), "{:?}", one.notes);
}

#[test]
fn what_was_refused_by_the_new_config_comes_first() {
    // One slot and no queue: of two at once one is refused.
    let text: String = (0..40)
        .map(|id| Line { at_ms: id / 2 * 1_000, session: id + 1, went: json!("a"), ..LINE }.text(id) + "\n")
        .collect();
    let mut narrow = config("round_robin", &["a"]);
    narrow.queue.requests_max = Some(0);
    narrow.models.get_mut("m").expect("it is there").deployments[0].slots = Some(1);
    let one = replayed(&text, &narrow, None, 1);
    assert_eq!((one.decisions.agree, one.decisions.differ), (20, 20));
    let first = &one.differences[0];
    assert_eq!((first.new.deployment.as_deref(), first.new.why.as_str()), (None, "round_robin: queue_full"));
    assert_eq!(first.instead.as_deref(), Some("full"));
    assert!(one.moved.iter().any(|pair| pair.new.is_none() && pair.count == 20), "{:?}", one.moved);
    let new = one.effect.last().expect("simulated");
    assert!((new.failed - 20.0).abs() < 1e-9 && new.simulated && !one.effect[0].simulated);
}

#[test]
fn the_effect_has_the_log_beside_the_simulation() {
    let before = config(HASHED, &["a", "b"]);
    let one = replayed(&at_a(60), &before, Some(&before), 2);
    let names: Vec<&str> = one.effect.iter().map(|effect| effect.name.as_str()).collect();
    assert_eq!(names, ["recorded", "was", "new"]);
    let (recorded, new) = (&one.effect[0], &one.effect[2]);
    assert!(
        (recorded.first_token_ms.mean - 50.0).abs() < 1e-3
            && (recorded.per_token_ms.mean - 50.0 / 9.0).abs() < 0.01
    );
    assert_eq!((recorded.utilisation_mean, recorded.jain), (None, None), "a log does not tell");
    assert_eq!(recorded.deployments.len(), 1);
    assert!(new.utilisation_mean.is_some_and(|share| share > 0.0 && share < 1.0));
    let usd = 60.0 * (400.0 + 10.0 * 10.0) / 1e6;
    assert!(new.cost_usd.is_some_and(|cost| (cost - usd).abs() < 1e-9), "{:?}", new.cost_usd);
    let shares: f64 = new.deployments.iter().map(|one| one.cost_share.unwrap_or(0.0)).sum();
    assert!((shares - 1.0).abs() < 1e-9);
    let page = one.to_html();
    for part in ["Decisions", "Effect", "Deployments", "Requests that differ", "Balance (simulated)"] {
        assert!(page.contains(&format!("<h2>{part}</h2>")), "{part}");
    }
}

#[test]
fn engines_are_as_fast_as_the_log_says_they_were() {
    let kind = Kind::named(Kind::DEFAULT).expect("known");
    let alone = kind.alone_ms(400) + 9.0 * (kind.a0 + kind.d1 + kind.d2 * 400.0);
    // Three times as long, and a quarter of them longer because of others.
    let line = |id: u64| {
        let first_ms = (alone * if id.is_multiple_of(4) { 9.0 } else { 3.0 } / 2.0).round() as u64;
        Line { at_ms: id * 10_000, session: id + 1, went: json!("a"), first_ms, ..LINE }.text(id) + "\n"
    };
    let text: String = (0..40).map(line).collect();
    let fitted = fit(&read_text(&text).expect("a log"), &kind).expect("enough answers");
    let slow = fitted.providers["p-a"];
    assert!((2.8..3.2).contains(&slow) && (fitted.others - slow).abs() < 1e-12, "{fitted:?}");
    assert_eq!(fit(&read_text(&at_a(10)).expect("a log"), &kind), None, "ten answers prove nothing");
    // All at once: whoever did that much in that time cannot have been as slow as each of them took.
    let line =
        |id: u64| Line { at_ms: 0, session: id, went: json!("a"), first_ms: 1_000, ..LINE }.text(id) + "\n";
    let text: String = (0..400).map(line).collect();
    let fitted = fit(&read_text(&text).expect("a log"), &kind).expect("enough answers");
    let work = 400.0 * (kind.alone_ms(400) + 9.0 * (kind.d1 + kind.d2 * 400.0));
    assert!((fitted.others * work - 0.9 * 2_000.0).abs() < 1.0, "{fitted:?}");
}

#[test]
fn lines_that_are_no_records_are_named_and_do_no_harm() {
    let good = at_a(2);
    let (first, second) = good.split_once('\n').expect("two lines");
    let long = "x".repeat(LINE_BYTES_MAX + 1);
    let text = format!("{first}\n{{\"request_id\": 7}}\n\u{0}\n{long}\n[]\n{second}{{\"request_id\":\"z");
    let log = read_text(&text).expect("a log");
    assert_eq!((log.requests(), log.bad.count), (2, 5), "{:?}", log.bad);
    let lines: Vec<u64> = log.bad.first.iter().map(|one| one.line).collect();
    assert_eq!(lines, [2, 3, 4, 5, 7]);
    assert_eq!(log.bad.first[2].what, "is longer than 16777216 bytes");
    assert_eq!(log.bad.first[4].what, "was cut off");
    let error = |text: &str| read_text(text).expect_err("nothing to play");
    assert_eq!(error(""), "a.jsonl is empty");
    assert_eq!(error("\n \n"), "a.jsonl is empty");
    assert!(
        error("TIMESTAMP,ContextTokens\n1,2\n")
            .starts_with("a.jsonl has no decision records; its line 1 is no decision record: ")
    );
    let invalid = "{\"request_id\":\"x\",\"at_unix_ms\":1,\"model\":null,\"tenant\":null,\"facts\":null,\"usage\":null,\"outcome\":\"invalid\"}\n";
    assert_eq!(
        error(invalid),
        "a.jsonl has no requests that can be played, only 1 invalid before there was anything to route"
    );
    let mut log = read_text(&good).expect("a log");
    let other = config(HASHED, &["a"]);
    log.traffic.iter_mut().for_each(|one| one.model = Some("x".to_owned()));
    let none = World::new("new.yaml", &other, &mut log, &plan()).expect_err("no such model");
    assert_eq!(none, "new.yaml has no model that the log asks for: `x`");
}
