//! Strategies: the rules that pick among the eligible deployments of a tier. One file each, and one line in [`ALL`].

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::decision::Why;
use crate::engine::EngineLoad;
use crate::facts::Facts;
use crate::ids::DeploymentId;
use crate::latency::PeakEwma;
use crate::predict::Predicted;
use crate::rng::Rng;
use crate::time::Now;

pub mod adaptive;
pub mod consistent_hash;
pub mod latency;
pub mod least_busy;
pub mod least_tokens;
pub mod predicted_latency;
pub mod prefix_affinity;
pub mod random;
pub mod round_robin;
pub mod weighted_round_robin;

/// Every strategy. The documentation, the schema, the messages of `check` and the simulator's list follow from it.
pub static ALL: &[&Def] = &[
    &adaptive::DEF,
    &round_robin::DEF,
    &weighted_round_robin::DEF,
    &least_busy::DEF,
    &least_tokens::DEF,
    &latency::DEF,
    &predicted_latency::DEF,
    &prefix_affinity::DEF,
    &consistent_hash::DEF,
    &random::DEF,
];

/// A rule that picks among the eligible deployments of a tier.
pub trait Strategy: Send + Sync {
    /// Picks one of `eligible`, which is never empty and in configured order.
    fn pick(&mut self, cx: &mut Cx<'_>, eligible: &[View], facts: &Facts) -> Pick;

    /// A copy with the same state, for "what if" questions.
    fn clone_box(&self) -> Box<dyn Strategy>;
}

/// What a strategy may use besides what it is given: the time, chance, and a place for the scores it compared.
pub struct Cx<'a> {
    /// The present moment.
    pub now: Now,
    /// Chance.
    pub rng: &'a mut Rng,
    /// A score per eligible deployment, lower is better; not a number where none was computed.
    pub scores: &'a mut [f64],
    /// Tokens that the answer is likely to have.
    pub tokens_out: f64,
    /// What one request more makes of a score, if the strategy says: a lead of no more than this is none.
    pub one_more: f64,
    /// The rule that a strategy used that chooses among several.
    pub used: Option<&'static str>,
}

impl<'a> Cx<'a> {
    /// What a strategy may use at `now`.
    pub fn new(now: Now, rng: &'a mut Rng, scores: &'a mut [f64], tokens_out: f64) -> Self {
        Self { now, rng, scores, tokens_out, one_more: 0.0, used: None }
    }
}

/// What a strategy reads beyond what is always known of a deployment. What it does not read is neither kept nor looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reads {
    /// [`View::tokens_cached`], [`View::tokens_expected`] and [`View::engine`].
    pub prefix: bool,
    /// [`View::predicted`], [`View::quota_left`] and [`View::engine`].
    pub prediction: bool,
    /// [`View::latency`].
    pub latency: bool,
}

impl Reads {
    /// Everything.
    pub const ALL: Self = Self { prefix: true, prediction: true, latency: true };
    /// Nothing beyond.
    pub const NOTHING: Self = Self { prefix: false, prediction: false, latency: false };
}

impl Cx<'_> {
    /// The position with the lowest score, ties broken at random with one draw; notes the scores. O(n).
    pub fn min_by(&mut self, eligible: &[View], score: impl Fn(&View) -> f64) -> usize {
        let (mut best, mut ties) = (f64::INFINITY, 0);
        for (view, place) in eligible.iter().zip(&mut *self.scores) {
            let score = score(view);
            *place = score;
            if score < best {
                (best, ties) = (score, 1);
            } else if score <= best {
                ties += 1;
            }
        }
        let drawn = if ties > 1 { self.rng.below(ties) } else { 0 };
        let tied = self.scores.iter().enumerate().filter(|(_, score)| **score <= best);
        tied.map(|(position, _)| position).nth(drawn).unwrap_or(0)
    }

    /// A position drawn by weight. Weights are at least 1.
    pub fn draw(&mut self, eligible: &[View]) -> usize {
        let total: u64 = eligible.iter().map(|view| u64::from(view.weight)).sum();
        let mut ticket = self.rng.below(usize::try_from(total).unwrap_or(usize::MAX)) as u64;
        for (position, view) in eligible.iter().enumerate() {
            match ticket.checked_sub(u64::from(view.weight)) {
                Some(rest) => ticket = rest,
                None => return position,
            }
        }
        0
    }
}

/// An eligible deployment, as strategies see it.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Its handle.
    pub id: DeploymentId,
    /// Its place among all deployments of the model.
    pub place: u32,
    /// Hash of its name, the same in every process.
    pub name_hash: u64,
    /// Its weight, at least 1.
    pub weight: u32,
    /// Requests it may have in flight; `None`: unlimited.
    pub slots: Option<u32>,
    /// Requests it has in flight.
    pub inflight: u32,
    /// Tokens of those, in and out.
    pub tokens_inflight: u64,
    /// Tokens of this request's prompt that it is likely to have cached.
    pub tokens_cached: u32,
    /// Requests sent from here whose answer is under way. For those that read it.
    pub decoding: u32,
    /// Tokens to go of requests sent from here: prompts that are not cached, and answers as long as usual. For those that
    /// read it.
    pub tokens_expected: u64,
    /// What the engine says of itself, as far as it is believed. For those that read it.
    pub engine: EngineLoad,
    /// What this request is to expect there.
    pub predicted: Predicted,
    /// Whether requests cost nothing there: an own engine.
    pub free: bool,
    /// What is left of the quotas of its provider, from 0 to 1.
    pub quota_left: f64,
    /// Normalised time to first content lately, failures included. For those that read it.
    pub latency: PeakEwma,
    /// Recent failures, fading: 1 for one right now.
    pub failures: f64,
    /// How many times worse than its load it looks for requests that were not answered; 1 while enough are.
    pub penalty: f64,
    /// How many times slower than it should be; 1 while that is not proven.
    pub slow: f64,
}

/// Share of its KV cache in use above which an engine is hot.
pub const KV_HOT: f32 = 0.8;
/// Requests waiting in it above which an engine is hot.
pub const WAITING_HOT: u32 = 5;

impl View {
    /// Whether its engine is hot by the usual bounds.
    pub fn is_hot(&self) -> bool {
        self.engine.kv_used.is_some_and(|used| used > KV_HOT)
            || self.engine.waiting.is_some_and(|waiting| waiting > WAITING_HOT)
    }
}

/// What a strategy picked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pick {
    /// Position among the eligible.
    pub position: usize,
    /// Why.
    pub why: Why,
}

/// How a strategy is made from its options.
type Build = fn(&Value, &mut Rng) -> Result<Box<dyn Strategy>, WrongOption>;

/// An option that cannot be used.
struct WrongOption {
    /// Its name; `None` when it is the options as a whole.
    option: Option<String>,
    message: String,
}

impl WrongOption {
    fn new(error: &serde_path_to_error::Error<serde_json::Error>) -> Self {
        let path = error.path().to_string();
        Self { option: (path != ".").then_some(path), message: error.inner().to_string() }
    }
}

/// A strategy's definition.
pub struct Def {
    /// Its name.
    pub name: &'static str,
    /// Other spellings that are understood.
    pub aliases: &'static [&'static str],
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// What it reads beyond what is always known.
    pub reads: Reads,
    build: Build,
    schema: fn(&mut SchemaGenerator) -> Schema,
}

impl fmt::Debug for Def {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A strategy that is made from options of its own.
pub trait FromParams: Strategy + Sized + 'static {
    /// The options.
    type Params: DeserializeOwned + JsonSchema;
    /// What it reads beyond what is always known of a deployment. A strategy that reads less saves the work.
    const READS: Reads = Reads::ALL;

    /// Makes the strategy.
    fn from_params(params: Self::Params, rng: &mut Rng) -> Self;
}

impl Def {
    /// The definition of the strategy `S`.
    pub const fn of<S: FromParams>(
        name: &'static str,
        aliases: &'static [&'static str],
        summary: &'static str,
    ) -> Self {
        Self {
            name,
            aliases,
            summary,
            reads: S::READS,
            build: |options, rng| {
                let params = serde_path_to_error::deserialize::<_, S::Params>(options)
                    .map_err(|error| WrongOption::new(&error))?;
                Ok(Box::new(S::from_params(params, rng)))
            },
            schema: |generator| S::Params::json_schema(generator),
        }
    }

    /// The schema of its options.
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        (self.schema)(generator)
    }

    fn is(&self, name: &str) -> bool {
        let spelled = |known: &str| known == name || known.replace('_', "-") == name;
        spelled(self.name) || self.aliases.iter().any(|alias| spelled(alias))
    }
}

/// Why a strategy could not be made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UnknownStrategy {
    /// There is none of that name.
    #[error("unknown strategy `{name}`; {}", advice(*.nearest))]
    Name {
        /// What was asked for.
        name: String,
        /// What is spelt most alike, if anything is.
        nearest: Option<&'static str>,
    },
    /// Its options are wrong.
    #[error("strategy `{name}`: {}{message}", .option.as_ref().map(|option| format!("option `{option}`: ")).unwrap_or_default())]
    Options {
        /// The strategy.
        name: &'static str,
        /// The option; `None` when it is the options as a whole.
        option: Option<String>,
        /// What is wrong.
        message: String,
    },
    /// It is a map without a name, but with something spelt alike.
    #[error("unknown field `{key}`, expected `name`")]
    Unnamed {
        /// The key that is there instead.
        key: String,
    },
    /// It is neither a name nor a map with one.
    #[error("a strategy is a name, or a map with `name` and its options")]
    Shape,
}

fn advice(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("known: {}", ALL.iter().map(|def| def.name).collect::<Vec<_>>().join(", ")),
    }
}

/// A strategy with its options, as configured: `least_busy`, or `{ name: consistent_hash, key: session }`.
#[derive(Debug, Clone)]
pub struct StrategySpec {
    def: &'static Def,
    options: Value,
}

impl PartialEq for StrategySpec {
    fn eq(&self, other: &Self) -> bool {
        self.def.name == other.def.name && self.options == other.options
    }
}

impl Default for StrategySpec {
    fn default() -> Self {
        Self { def: &adaptive::DEF, options: Value::Object(Map::new()) }
    }
}

impl StrategySpec {
    /// A strategy that is not among [`ALL`], with no options: the baselines of the simulator.
    ///
    /// # Panics
    ///
    /// If the strategy cannot do without options.
    pub fn of(def: &'static Def) -> Self {
        let options = Value::Object(Map::new());
        assert!((def.build)(&options, &mut Rng::seeded(0)).is_ok(), "{} has options it needs", def.name);
        Self { def, options }
    }

    /// The strategy of that name with these options (a JSON object).
    pub fn parse(name: &str, options: Value) -> Result<Self, UnknownStrategy> {
        let def = ALL
            .iter()
            .find(|def| def.is(name))
            .ok_or_else(|| UnknownStrategy::Name { name: name.to_owned(), nearest: nearest(name) })?;
        let spec = Self { def, options };
        // Made once to check its options; the generator is of no consequence.
        (def.build)(&spec.options, &mut Rng::seeded(0)).map_err(|WrongOption { option, message }| {
            UnknownStrategy::Options { name: def.name, option, message }
        })?;
        Ok(spec)
    }

    /// From what stands in a configuration.
    pub fn from_value(value: Value) -> Result<Self, UnknownStrategy> {
        match value {
            Value::String(name) => Self::parse(&name, Value::Object(Map::new())),
            Value::Object(mut map) => match map.remove("name") {
                Some(Value::String(name)) => Self::parse(&name, Value::Object(map)),
                Some(_) => Err(UnknownStrategy::Shape),
                None => Err(map
                    .into_iter()
                    .map(|(key, _)| key)
                    .find(|key| strsim::damerau_levenshtein(&key.to_lowercase(), "name") <= 1)
                    .map_or(UnknownStrategy::Shape, |key| UnknownStrategy::Unnamed { key })),
            },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => Err(UnknownStrategy::Shape),
        }
    }

    /// The strategy's name.
    pub fn name(&self) -> &'static str {
        self.def.name
    }

    /// What the strategy reads beyond what is always known.
    pub fn reads(&self) -> Reads {
        self.def.reads
    }

    /// The strategy, in its first state.
    pub fn build(&self, rng: &mut Rng) -> Box<dyn Strategy> {
        (self.def.build)(&self.options, rng)
            .ok()
            .expect("invariant: the options were checked when the spec was made")
    }
}

/// The strategy whose name, or other spelling, differs in no more than a third of its characters.
fn nearest(name: &str) -> Option<&'static str> {
    let name = name.replace('-', "_");
    let differ_max = (name.chars().count() / 3).max(1);
    let distance = |def: &Def| {
        let spellings = std::iter::once(def.name).chain(def.aliases.iter().copied());
        spellings.map(|known| strsim::damerau_levenshtein(known, &name)).min()
    };
    let near = ALL.iter().filter_map(|def| Some((distance(def)?, def.name)));
    near.filter(|(differ, _)| *differ <= differ_max).min_by_key(|(differ, _)| *differ).map(|(_, name)| name)
}

impl<'de> Deserialize<'de> for StrategySpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for StrategySpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = Map::new();
        map.insert("name".to_owned(), self.def.name.into());
        if let Value::Object(options) = &self.options {
            map.extend(options.clone());
        }
        map.serialize(serializer)
    }
}

impl JsonSchema for StrategySpec {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Strategy".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut forms = Vec::new();
        let mut names = Vec::new();
        for def in ALL {
            names.push(def.name.to_owned());
            for spelling in std::iter::once(&def.name).chain(def.aliases) {
                names.push(spelling.replace('_', "-"));
                names.push((*spelling).to_owned());
            }
            let mut form = def.schema(generator).to_value();
            form["title"] = def.name.into();
            form["description"] = def.summary.into();
            form["properties"]["name"] = serde_json::json!({"const": def.name});
            form["required"] = serde_json::json!(["name"]);
            forms.push(form);
        }
        names.sort();
        names.dedup();
        forms.insert(0, serde_json::json!({"type": "string", "enum": names}));
        json_schema!({"description": "A strategy by name, or a map with its name and options.", "anyOf": forms})
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_understood() {
        for (spelling, name) in [
            ("round-robin", "round_robin"),
            ("tiered", "round_robin"),
            ("weighted-round-robin", "weighted_round_robin"),
            ("least-busy", "least_busy"),
            ("latency-based", "latency"),
            ("latency", "latency"),
            ("hash", "consistent_hash"),
            ("consistent-hash", "consistent_hash"),
            ("random", "random"),
        ] {
            let spec = StrategySpec::from_value(spelling.into()).expect(spelling);
            assert_eq!(spec.name(), name);
        }
    }

    #[test]
    fn l1_unknown_names_and_options_are_errors() {
        let error =
            |value: Value| StrategySpec::from_value(value).map(|spec| spec.name()).unwrap_err().to_string();
        assert_eq!(error("least_bussy".into()), "unknown strategy `least_bussy`; did you mean `least_busy`?");
        assert_eq!(error("rond-robin".into()), "unknown strategy `rond-robin`; did you mean `round_robin`?");
        let options = error(serde_json::json!({"name": "random", "colour": 1}));
        assert!(
            options.starts_with("strategy `random`: option `colour`: unknown field `colour`"),
            "{options}"
        );
        let nonsense = error("zzz".into());
        assert!(nonsense.ends_with("`zzz`; known: adaptive, round_robin, weighted_round_robin, least_busy, least_tokens, latency, predicted_latency, prefix_affinity, consistent_hash, random"), "{nonsense}");
        let unnamed = |key: &str| error(serde_json::json!({key: "random"}));
        assert_eq!(unnamed("nam"), "unknown field `nam`, expected `name`");
        assert_eq!(unnamed("strategy"), "a strategy is a name, or a map with `name` and its options");
        let option = error(serde_json::json!({"name": "hash", "key": "sesion"}));
        assert!(
            option.starts_with("strategy `consistent_hash`: option `key`: unknown variant `sesion`"),
            "{option}"
        );
        assert_eq!(error(7.into()), "a strategy is a name, or a map with `name` and its options");
    }
}
