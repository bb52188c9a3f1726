//! Made traffic: streams of requests, each of some tenants, as a file describes them.

use pointsman_routing::Rng;
use pointsman_routing::facts::{Class, Lane};
use serde::{Deserialize, Serialize};

use crate::workload::{Record, Workload, mix};

/// Requests of one workload, at most.
const REQUESTS_MAX: usize = 5_000_000;
/// Sessions of one stream, at most.
const SESSIONS_MAX: usize = 1_000_000;
/// Tokens of a block of a made prompt.
const BLOCK_TOKENS: u32 = 128;

/// Made traffic.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// For how long requests come, seconds.
    pub duration_s: f64,
    /// Who asks.
    pub streams: Vec<Stream>,
}

/// Requests that are alike.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Its name, which is that of its tenant unless that is given.
    pub name: String,
    /// Its tenant.
    #[serde(default)]
    pub tenant: Option<String>,
    /// So many tenants, each with this traffic: `name-1` and so on.
    #[serde(default = "one")]
    pub tenants: u32,
    /// The model. Not given: the one that is asked for.
    #[serde(default)]
    pub model: Option<String>,
    /// `live` or `batch`.
    #[serde(default)]
    pub lane: LaneName,
    /// `system`, `interactive`, `standard` or `batch`.
    #[serde(default)]
    pub class: ClassName,
    /// Requests a second on average, of each tenant.
    pub per_s: f64,
    /// When it begins, seconds.
    #[serde(default)]
    pub from_s: f64,
    /// When it ends, seconds. Not given: at the end.
    #[serde(default)]
    pub until_s: Option<f64>,
    /// It comes for a while and pauses for a while; the rate is that while it comes.
    #[serde(default)]
    pub bursts: Option<Bursts>,
    /// How even the gaps are: the shape of a gamma distribution. 1 is Poisson, less comes in clumps.
    #[serde(default = "even")]
    pub shape: f64,
    /// New prompt tokens on average.
    pub tokens_in: u32,
    /// Output tokens on average.
    pub tokens_out: u32,
    /// Lengths are all the same rather than exponential.
    #[serde(default)]
    pub fixed: bool,
    /// Tokens that every prompt of the stream begins with.
    #[serde(default)]
    pub shared_tokens: u32,
    /// Sessions that requests belong to. 0: none.
    #[serde(default)]
    pub sessions: usize,
    /// How uneven sessions are: the n-th comes n^-zipf as often as the first. 0: all alike.
    #[serde(default)]
    pub zipf: f64,
    /// Every prompt of a session begins with all that was said in it, up to so many tokens; then it begins anew.
    #[serde(default)]
    pub history_tokens_max: u32,
}

/// A pause between bursts.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Bursts {
    /// How long it comes, seconds.
    pub on_s: f64,
    /// How long it pauses, seconds.
    pub off_s: f64,
}

/// The lane of a stream.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LaneName {
    /// Somebody waits.
    #[default]
    Live,
    /// Nobody waits.
    Batch,
}

/// The class of a stream.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassName {
    /// The operator's own.
    System,
    /// Somebody sits and waits.
    Interactive,
    /// As usual.
    #[default]
    Standard,
    /// Whenever there is room.
    Batch,
}

const fn one() -> u32 {
    1
}

const fn even() -> f64 {
    1.0
}

impl Stream {
    fn check(&self) -> Result<(), String> {
        let wrong =
            |field: &str, must: &str| Err(format!("stream `{}`: `{field}` must be {must}", self.name));
        if !(self.per_s > 0.0 && self.per_s <= 1e6) {
            return wrong("per_s", "above 0, and 1,000,000 at most");
        }
        if !(self.from_s >= 0.0 && self.until_s.is_none_or(|until_s| until_s > self.from_s)) {
            return wrong("from_s", "0 or more and before `until_s`");
        }
        if !(0.01..=100.0).contains(&self.shape) || !(0.0..=10.0).contains(&self.zipf) {
            return wrong("shape", "from 0.01 to 100, and `zipf` from 0 to 10");
        }
        if self.bursts.is_some_and(|bursts| !(bursts.on_s > 0.0 && bursts.off_s >= 0.0)) {
            return wrong("bursts", "`on_s` above 0 and `off_s` 0 or more");
        }
        if self.tokens_in == 0 || self.tokens_out == 0 || self.tenants == 0 || self.sessions > SESSIONS_MAX {
            return wrong(
                "tokens_in",
                "1 or more, as `tokens_out` and `tenants`; `sessions` 1,000,000 at most",
            );
        }
        Ok(())
    }

    /// The moments at which it comes, seconds.
    fn moments(&self, duration_s: f64, rng: &mut Rng) -> Vec<f64> {
        let until_s = self.until_s.unwrap_or(duration_s).min(duration_s);
        let (mut at_s, mut moments) = (self.from_s, Vec::new());
        loop {
            at_s += gamma(self.shape, rng) / self.shape / self.per_s;
            if let Some(Bursts { on_s, off_s }) = self.bursts {
                // What would come in a pause comes after it.
                let within = (at_s - self.from_s).rem_euclid(on_s + off_s);
                at_s += if within >= on_s { on_s + off_s - within } else { 0.0 };
            }
            if at_s >= until_s || moments.len() >= REQUESTS_MAX {
                return moments;
            }
            moments.push(at_s);
        }
    }

    fn length(&self, mean: u32, rng: &mut Rng) -> u32 {
        let drawn = if self.fixed { f64::from(mean) } else { -(1.0 - rng.unit()).ln() * f64::from(mean) };
        (drawn.round() as u32).max(1)
    }

    fn tenant(&self, number: u32) -> String {
        let name = self.tenant.as_ref().unwrap_or(&self.name);
        if self.tenants == 1 { name.clone() } else { format!("{name}-{}", number + 1) }
    }

    /// Adds what one of its tenants asks for.
    fn add(&self, number: u32, duration_s: f64, rng: &mut Rng, workload: &mut Workload) {
        let of_stream = self.name.bytes().fold(1, |hash, byte| mix(hash ^ u64::from(byte)));
        let sum = |sum: &mut f64, place| {
            *sum += f64::powf(place as f64 + 1.0, -self.zipf);
            Some(*sum)
        };
        let weights: Vec<f64> = (0..self.sessions).scan(0.0, sum).collect();
        // By session: how often it began anew, and how much was said since.
        let mut histories = vec![(0_u64, 0_u32); self.sessions];
        for at_s in self.moments(duration_s, rng) {
            let (fresh, tokens_out) = (self.length(self.tokens_in, rng), self.length(self.tokens_out, rng));
            let drawn = weights.last().map(|all| {
                let ticket = rng.unit() * all;
                weights.partition_point(|weight| *weight <= ticket).min(self.sessions - 1)
            });
            let mut history = 0;
            let mut of_session = mix(rng.next_u64());
            if let Some(place) = drawn {
                let (life, said) = &mut histories[place];
                if *said + fresh + tokens_out > self.history_tokens_max {
                    (*life, *said) = (*life + 1, 0);
                }
                history = *said;
                of_session = mix(of_stream ^ mix((place as u64) << 32 | *life));
                *said += fresh + tokens_out;
            }
            let tokens_in = self.shared_tokens + history + fresh;
            let block = |place: u32| {
                let end = (place + 1) * BLOCK_TOKENS;
                let salt = if end <= self.shared_tokens { of_stream } else { of_session };
                (end, mix(salt ^ u64::from(end)))
            };
            workload.push(&Record {
                at_ns: (at_s * 1e9) as u64,
                tokens_in,
                tokens_out,
                tenant: Some(self.tenant(number)),
                model: self.model.clone(),
                session: drawn.map_or(0, |place| mix(of_stream ^ (place as u64 + 1))),
                lane: match self.lane {
                    LaneName::Live => Lane::Live,
                    LaneName::Batch => Lane::Batch,
                },
                class: match self.class {
                    ClassName::System => Class::System,
                    ClassName::Interactive => Class::Interactive,
                    ClassName::Standard => Class::Standard,
                    ClassName::Batch => Class::Batch,
                },
                blocks: (0..tokens_in / BLOCK_TOKENS).map(block).collect(),
                ..Record::default()
            });
        }
    }
}

/// A gamma distributed number with mean `shape` (Marsaglia and Tsang, "A Simple Method for Generating Gamma Variables",
/// 2000).
fn gamma(shape: f64, rng: &mut Rng) -> f64 {
    if (shape - 1.0).abs() < 1e-12 {
        return -(1.0 - rng.unit()).ln();
    }
    if shape < 1.0 {
        return gamma(shape + 1.0, rng) * (1.0 - rng.unit()).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        // Box and Muller.
        let normal = (-2.0 * (1.0 - rng.unit()).ln()).sqrt() * (std::f64::consts::TAU * rng.unit()).cos();
        let cube = (1.0 + c * normal).powi(3);
        if cube > 0.0 && (1.0 - rng.unit()).ln() < normal * normal / 2.0 + d - d * cube + d * cube.ln() {
            return d * cube;
        }
    }
}

impl Work {
    /// The traffic of a seed, without the streams that are named. What the others ask is the same with and without them.
    ///
    /// # Errors
    ///
    /// What cannot be.
    pub fn workload(&self, seed: u64, without: &[String]) -> Result<Workload, String> {
        if !(self.duration_s > 0.0 && self.duration_s.is_finite()) {
            return Err("`duration_s` must be above 0".to_owned());
        }
        if let Some(name) =
            without.iter().find(|name| self.streams.iter().all(|stream| stream.name != **name))
        {
            return Err(format!("there is no stream `{name}` to leave out"));
        }
        let mut workload = Workload::new("made traffic");
        for stream in &self.streams {
            stream.check()?;
            if without.contains(&stream.name) {
                continue;
            }
            for number in 0..stream.tenants {
                let mut rng = Rng::seeded(seed).fork(&format!("{} {number}", stream.name));
                stream.add(number, self.duration_s, &mut rng, &mut workload);
                if workload.asks().len() >= REQUESTS_MAX {
                    return Err(format!("more than {REQUESTS_MAX} requests; lower `per_s` or `duration_s`"));
                }
            }
        }
        if workload.asks().is_empty() {
            return Err("nobody asks for anything; see `streams`".to_owned());
        }
        workload.sort();
        Ok(workload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(streams: &str) -> Work {
        serde_saphyr::from_str(&format!("duration_s: 100\nstreams:\n{streams}")).expect("good streams")
    }

    #[test]
    fn streams_come_as_often_as_they_say() {
        let work = work(
            "- { name: hog, per_s: 20, tokens_in: 500, tokens_out: 100, lane: batch }\n\
                         - { name: light, tenants: 9, per_s: 2, tokens_in: 50, tokens_out: 10, fixed: true, from_s: 50 }\n",
        );
        let all = work.workload(1, &[]).expect("good");
        assert_eq!(all.tenants.len(), 10);
        let of = |name: &str| {
            let place = all.tenants.iter().position(|tenant| **tenant == *name).expect("there");
            all.asks().iter().filter(|ask| ask.tenant as usize == place).collect::<Vec<_>>()
        };
        let (hog, light) = (of("hog"), of("light-9"));
        assert!(
            (1_850..2_150).contains(&hog.len()) && (70..130).contains(&light.len()),
            "{} {}",
            hog.len(),
            light.len()
        );
        assert!(hog.iter().all(|ask| ask.lane == Lane::Batch));
        assert!(light.iter().all(|ask| ask.tokens_in == 50 && ask.tokens_out == 10));
        let mean = hog.iter().map(|ask| f64::from(ask.tokens_in)).sum::<f64>() / hog.len() as f64;
        assert!((450.0..550.0).contains(&mean), "{mean}");
        let alone = work.workload(1, &["hog".to_owned()]).expect("good");
        assert_eq!(alone.asks().len() + hog.len(), all.asks().len(), "the others are the same");
        assert!(work.workload(1, &["nobody".to_owned()]).is_err());
    }

    #[test]
    fn sessions_grow_share_and_are_uneven() {
        let work = work(
            "- { name: chat, per_s: 20, tokens_in: 200, tokens_out: 100, fixed: true, shared_tokens: 256, \
                         sessions: 10, zipf: 1.1, history_tokens_max: 3000 }\n",
        );
        let all = work.workload(1, &[]).expect("good");
        let mut by_session = std::collections::BTreeMap::<u64, Vec<&crate::Ask>>::new();
        all.asks().iter().for_each(|ask| by_session.entry(ask.session).or_default().push(ask));
        let mut counts: Vec<usize> = by_session.values().map(Vec::len).collect();
        counts.sort_unstable();
        assert!(counts[9] > 5 * counts[0], "{counts:?}");
        let turns = by_session.values().max_by_key(|turns| turns.len()).expect("some");
        assert_eq!(turns[..3].iter().map(|ask| ask.tokens_in).collect::<Vec<_>>(), [456, 756, 1_056]);
        let blocks: Vec<Vec<_>> = turns.iter().map(|ask| all.blocks(ask).collect()).collect();
        assert_eq!(blocks[1][..3], blocks[0][..], "what was said stays");
        let other = by_session.values().find(|other| other[0].session != turns[0].session).expect("another");
        let other: Vec<_> = all.blocks(other[0]).collect();
        assert!(other[..2] == blocks[0][..2] && other[2] != blocks[0][2], "what is shared, and no more");
        assert!(turns.iter().all(|ask| ask.tokens_in <= 256 + 3_000), "it begins anew");
    }

    #[test]
    fn gaps_come_in_clumps_and_bursts() {
        let gaps = |shape: f64| {
            let mut rng = Rng::seeded(5);
            let all: Vec<f64> = (0..20_000).map(|_| gamma(shape, &mut rng) / shape).collect();
            let mean = all.iter().sum::<f64>() / 2e4;
            (mean, all.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / 2e4)
        };
        for shape in [0.25, 1.0, 4.0] {
            let (mean, variance) = gaps(shape);
            assert!(
                (mean - 1.0).abs() < 0.05 && (variance * shape - 1.0).abs() < 0.1,
                "{shape}: {mean} {variance}"
            );
        }
        let work =
            work("- { name: b, per_s: 20, tokens_in: 5, tokens_out: 1, bursts: { on_s: 1, off_s: 9 } }\n");
        let all = work.workload(1, &[]).expect("good");
        // The first comes a moment after its burst begins, and is what the others are counted from.
        let within = |ask: &crate::Ask| !(1.0..9.0).contains(&(ask.at_ns as f64 / 1e9).rem_euclid(10.0));
        assert!(
            all.asks().iter().all(within) && (120..280).contains(&all.asks().len()),
            "{}",
            all.asks().len()
        );
    }
}
