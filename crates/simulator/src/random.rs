//! Small worlds that follow from a seed and draw from everything there is: strategies, tiers, splits, queues, timeouts,
//! credentials, tenants, lanes, faults, reloads, clients that leave, several routers. As scenario files, so that what
//! breaks can be read, kept and cut down by hand.

use std::fmt::Write;

use pointsman_routing::Rng;

const STRATEGIES: [&str; 10] = [
    "adaptive",
    "round_robin",
    "weighted_round_robin",
    "least_busy",
    "least_tokens",
    "latency",
    "predicted_latency",
    "prefix_affinity",
    "consistent_hash",
    "random",
];
/// Deployments of a world, at most.
const DEPLOYMENTS_MAX: usize = 5;
/// Requests of a world, on average.
const REQUESTS: f64 = 160.0;

/// The scenario of a seed.
pub(crate) fn scenario(seed: u64) -> String {
    let mut draw = Draw(Rng::seeded(seed).fork("scenario"));
    let per_s = draw.among(&[5.0, 20.0, 60.0, 150.0]);
    let duration_s = REQUESTS / per_s;
    let routers = draw.among(&[1, 1, 1, 2, 3]);
    let split = draw.chance(0.25);
    let count = 1 + draw.0.below(DEPLOYMENTS_MAX);
    let mut text = format!(
        "about: The random world of seed {seed}.\nmodel: m\nother_models: [n]\nduration_s: {duration_s:.1}\n"
    );
    let _ = writeln!(text, "routers: {routers}");
    let _ = writeln!(
        text,
        "rates: [ {{ from_s: 0, per_s: {per_s} }}, {{ from_s: {:.1}, per_s: {} }} ]",
        duration_s / 2.0,
        per_s * draw.among(&[0.2, 1.0, 3.0])
    );
    let _ = writeln!(
        text,
        "clients: {{ tenants: {}, batch_share: {}, whole_share: {}, tags: [{}]{} }}",
        draw.among(&[1, 3, 8]),
        draw.among(&[0.0, 0.3]),
        draw.among(&[0.0, 0.2, 1.0]),
        draw.among(&["", "", "fast", "fast, eu"]),
        draw.among(&["", "", ", deadline_s: 1.5", ", deadline_s: 0.2"]),
    );
    let _ = writeln!(
        text,
        "noise: {}\ntokens_in_mean: {}\ntokens_out_mean: {}\nfirst_content_base_ms: {}\nerror_rate: {}\nleave_rate: {}\nprobe_every_s: {}",
        draw.among(&[0.0, 0.0, 0.3, 1.0]),
        draw.among(&[50, 500, 4_000]),
        draw.among(&[5, 100, 400]),
        draw.among(&[0, 50, 300]),
        draw.among(&[0.0, 0.02, 0.2]),
        draw.among(&[0.0, 0.2, 0.6]),
        draw.among(&[0.0, 0.0, 0.5, 2.0]),
    );
    draw.faults(&mut text, duration_s, routers, count);
    if draw.chance(0.3) {
        let (slots, waiting) = (draw.among(&[1, 2, 6]), draw.among(&[0, 4, 50]));
        let _ = writeln!(text, "capacity: {{ d0: {{ slots: {slots}, waiting_max: {waiting} }} }}");
    }
    let _ = writeln!(text, "config: |\n{}", draw.config(split, true, count));
    let reloads = draw.among(&[0, 0, 1, 3, 8]);
    if reloads > 0 {
        text.push_str("reloads:\n");
    }
    for _ in 0..reloads {
        let at_s = duration_s * draw.0.unit();
        let of = draw.among(&["", "", ", routers: [0]"]).replace(", routers", "\n    routers");
        let whole = draw.chance(0.8);
        let count = 1 + draw.0.below(DEPLOYMENTS_MAX);
        let config = draw.config(split, whole, count).replace("\n  ", "\n      ");
        let _ = writeln!(text, "  - at_s: {at_s:.2}{of}\n    config: |\n    {config}");
    }
    text
}

struct Draw(Rng);

impl Draw {
    fn chance(&mut self, share: f64) -> bool {
        self.0.unit() < share
    }

    fn among<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.0.below(choices.len())]
    }

    fn faults(&mut self, text: &mut String, duration_s: f64, routers: usize, deployments: usize) {
        let count = self.among(&[0, 1, 2, 4, 6]);
        if count == 0 {
            return;
        }
        text.push_str("faults:\n");
        for _ in 0..count {
            let from_s = duration_s * self.0.unit() * 0.8;
            let until_s = from_s + 0.1 + duration_s * self.0.unit();
            let share = self.among(&[0.1, 0.5, 1.0]);
            let what = match self.0.below(14) {
                0 => "crash".to_owned(),
                1 => "black_hole".to_owned(),
                2 => format!("{{ slow: {} }}", self.among(&[2, 8, 100])),
                3 => format!("{{ drift: {} }}", self.among(&[2, 20])),
                4 => format!("{{ errors: {share} }}"),
                5 => format!("{{ overloaded: {share} }}"),
                6 => format!("{{ quota: {share} }}"),
                7 => format!("{{ hang_after_head: {share} }}"),
                8 => format!("{{ hang_mid_stream: {share} }}"),
                9 => format!("{{ cut: {share} }}"),
                10 => "credential_dead".to_owned(),
                11 => "model_missing".to_owned(),
                12 => "{ probe_says: healthy }".to_owned(),
                _ => "{ probe_says: unhealthy }".to_owned(),
            };
            let flapping = if self.chance(0.25) { ", flapping: { on_s: 0.3, off_s: 0.5 }" } else { "" };
            let only = if self.chance(0.3) {
                format!(", routers: [{}]", self.0.below(routers))
            } else {
                String::new()
            };
            let name = self.0.below(deployments);
            let _ = writeln!(
                text,
                "  - {{ deployment: d{name}, from_s: {from_s:.2}, until_s: {until_s:.2}, what: {what}{flapping}{only} }}"
            );
        }
    }

    /// A configuration, indented by two. Deployments keep their names from one to the next, and so their state; one
    /// that is not `whole` has lost a model.
    fn config(&mut self, split: bool, whole: bool, count: usize) -> String {
        let mut text = String::from("  providers:\n");
        for provider in 0..3 {
            let _ = match self.0.below(3) {
                0 => writeln!(text, "    p{provider}: {{ kind: vllm, base_url: 'http://p{provider}' }}"),
                1 => writeln!(
                    text,
                    "    p{provider}: {{ kind: openai, base_url: 'https://p{provider}', keys: [ 'key-a', {{ name: b, key: 'key-b', rpm: {} }} ] }}",
                    self.among(&[5, 60, 10_000])
                ),
                _ => writeln!(
                    text,
                    "    p{provider}: {{ kind: openai, base_url: 'https://p{provider}', keys: [ {{ name: a, key: 'key-{}', tpm: {} }} ] }}",
                    self.0.below(3),
                    self.among(&[2_000, 1_000_000])
                ),
            };
        }
        text.push_str("  models:\n");
        self.model(&mut text, "m", split, 0, count);
        if whole {
            let others = 1 + self.0.below(2);
            self.model(&mut text, "n", false, DEPLOYMENTS_MAX, others);
        }
        text
    }

    fn model(&mut self, text: &mut String, name: &str, split: bool, first: usize, count: usize) {
        let strategy = self.among(&STRATEGIES);
        let _ = writeln!(
            text,
            "    {name}:\n      strategy: {strategy}\n      attempts_max: {}",
            self.among(&[1, 2, 3, 5])
        );
        let _ = writeln!(
            text,
            "      queue: {{ requests_max: {}, wait_ms_max: {} }}",
            self.among(&[0, 2, 32]),
            self.among(&[50, 500, 5_000])
        );
        let _ = writeln!(
            text,
            "      timeouts: {{ connect_ms: {}, first_content_ms: {}, answer_ms: {}, idle_ms: {}, total_ms: {}, header_hold_ms: {} }}",
            self.among(&[50, 500]),
            self.among(&[300, 3_000]),
            self.among(&[1_000, 10_000]),
            self.among(&[200, 2_000]),
            self.among(&[500, 4_000, 60_000]),
            self.among(&[1, 100, 2_000])
        );
        let _ = writeln!(
            text,
            "      breaker: {{ failures: {}, connect_failures: {}, requests_min: {}, open_ms_min: {}, ramp_ms: {}, slow_start_ms: {} }}",
            self.among(&[1, 5]),
            self.among(&[1, 2]),
            self.among(&[2, 10]),
            self.among(&[100, 1_000]),
            self.among(&[100, 2_000]),
            self.among(&[100, 2_000])
        );
        let (unsure, policy, rest) = (self.chance(0.3), self.chance(0.3), self.chance(0.4));
        let _ = writeln!(
            text,
            "      retry: {{ unsure: {unsure}, content_policy: {policy}, continuation: {rest} }}"
        );
        if self.chance(0.4) {
            let _ = writeln!(text, "      hedge: {{ after: {} }}", self.among(&["1.1", "2.0"]));
        }
        let limiter = self.among(&["auto", "off", "gradient", "aimd"]);
        let _ = writeln!(text, "      limiter: {{ kind: {limiter}, min: {} }}", self.among(&[1, 4]));
        if split {
            let sticky = self.among(&["session", "tenant", "user", "request"]);
            let _ = writeln!(text, "      split: {{ sticky: {sticky}, arms: {{ old: 3, new: 1 }} }}");
        }
        text.push_str("      deployments:\n");
        for place in 0..count.max(usize::from(split) * 2) {
            let provider = self.0.below(3);
            // All weights 0 is an error at load.
            let weight = self.among(&[1, 1, 1, 3, usize::from(place < 2)]);
            let tier = self.among(&[1, 1, 2]);
            let slots = self.among(&["", ", slots: 1", ", slots: 3", ", slots: 16"]);
            let tags = self.among(&["", "", ", tags: [fast]", ", tags: [fast, eu]"]);
            let context = self.among(&["", "", ", context_tokens_max: 2000"]);
            let drained = if self.chance(0.05) { ", draining: true" } else { "" };
            let arm = match (split, place % 2) {
                (true, 0) => ", arm: old",
                (true, _) => ", arm: new",
                (false, _) => "",
            };
            let name = first + place;
            let _ = writeln!(
                text,
                "        - {{ name: d{name}, provider: p{provider}, model: up, weight: {weight}, tier: {tier}{slots}{tags}{context}{drained}{arm} }}"
            );
        }
    }
}
