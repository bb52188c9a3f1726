//! What engines take, as records: published coefficients by name, or a scenario's own.

use serde::{Deserialize, Serialize};

/// What an engine takes, and what it holds.
///
/// A step takes `a0 + a1·p + a2·p·c + d1·n + d2·s` milliseconds: `p` prompt tokens that stand after `c` others, beside `n`
/// answers whose contexts have `s` tokens.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// The hardware and the model.
    #[serde(default)]
    pub about: String,
    /// Where the numbers are from.
    #[serde(default)]
    pub source: String,
    /// Milliseconds of every step.
    pub a0: f64,
    /// Milliseconds per prompt token.
    pub a1: f64,
    /// Milliseconds per prompt token and token before it.
    pub a2: f64,
    /// Milliseconds per answer under way.
    pub d1: f64,
    /// Milliseconds per token in the contexts of those answers.
    pub d2: f64,
    /// Milliseconds per cached token that is loaded from the host.
    #[serde(default)]
    pub host: f64,
    /// Tokens that its KV cache holds.
    pub kv_tokens: u64,
    /// Tokens that its host tier holds.
    #[serde(default)]
    pub host_tokens: u64,
    /// Prompt tokens of one step, at most.
    #[serde(default = "chunk_tokens")]
    pub chunk_tokens: u32,
    /// Requests it works on at the same time, at most.
    #[serde(default = "sequences_max")]
    pub sequences_max: usize,
    /// How many times as long everything takes.
    #[serde(default = "one")]
    pub slow: f64,
}

const fn chunk_tokens() -> u32 {
    2_048
}

const fn sequences_max() -> usize {
    256
}

const fn one() -> f64 {
    1.0
}

#[derive(Deserialize)]
struct Table {
    engine: Vec<Kind>,
}

/// Every engine that is known by name.
pub fn kinds() -> Vec<Kind> {
    let table: Table = toml::from_str(include_str!("engines.toml")).expect("invariant: the table is tested");
    table.engine
}

impl Kind {
    /// The name of the engine that is taken where none is named.
    pub const DEFAULT: &'static str = "h100-llama-3-8b";

    /// The engine of that name.
    ///
    /// # Errors
    ///
    /// Which there are.
    pub fn named(name: &str) -> Result<Self, String> {
        let mut kinds = kinds();
        let place = kinds.iter().position(|kind| kind.name == name);
        place.map(|place| kinds.swap_remove(place)).ok_or_else(|| {
            let known: Vec<String> = kinds.into_iter().map(|kind| kind.name).collect();
            format!("unknown engine `{name}`; known: {}", known.join(", "))
        })
    }

    /// What cannot be, if anything.
    ///
    /// # Errors
    ///
    /// The field and what is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let times = [
            ("a0", self.a0),
            ("a1", self.a1),
            ("a2", self.a2),
            ("d1", self.d1),
            ("d2", self.d2),
            ("host", self.host),
        ];
        if let Some((name, value)) = times.iter().find(|(_, value)| !(0.0..1e6).contains(value)) {
            return Err(format!("engine: `{name}` is {value}; it must be milliseconds, 0 or more"));
        }
        if !(1e-3..1e6).contains(&(self.a0 + self.a1)) {
            return Err("engine: `a0` and `a1` are 0; a step must take some time".to_owned());
        }
        if !(0.01..=1000.0).contains(&self.slow) {
            return Err(format!("engine: `slow` is {}; it must be from 0.01 to 1000", self.slow));
        }
        if self.kv_tokens == 0 || self.chunk_tokens == 0 || self.sequences_max == 0 {
            return Err(
                "engine: `kv_tokens`, `chunk_tokens` and `sequences_max` must be 1 or more".to_owned()
            );
        }
        Ok(())
    }

    /// Time to the first token of a prompt that is alone in an idle engine and of which nothing is cached, milliseconds.
    pub fn alone_ms(&self, tokens_in: u32) -> f64 {
        let p = f64::from(tokens_in.max(1));
        let steps = tokens_in.max(1).div_ceil(self.chunk_tokens);
        (f64::from(steps) * self.a0 + self.a1 * p + self.a2 * p * p / 2.0) * self.slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_table_is_sound() {
        let kinds = kinds();
        assert!(kinds.iter().any(|kind| kind.name == Kind::DEFAULT));
        for kind in &kinds {
            assert_eq!(kind.check(), Ok(()), "{}", kind.name);
            assert!(!kind.source.is_empty() && !kind.about.is_empty(), "{}", kind.name);
            assert_eq!(Kind::named(&kind.name).as_ref(), Ok(kind));
        }
    }

    #[test]
    fn an_unknown_name_is_told_what_there_is() {
        let error = Kind::named("h200").expect_err("there is none");
        assert!(error.starts_with("unknown engine `h200`; known: h100-llama-3-8b, "), "{error}");
    }

    #[test]
    fn the_published_decode_of_a_70b_comes_out() {
        // 64 sequences of 1,000 tokens: 28.8 + 0.28 x 64 + 9.4e-5 x 64,000 ms.
        let kind = Kind::named("h100-tp4-llama-2-70b").expect("known");
        assert!((kind.a0 + kind.d1 * 64.0 + kind.d2 * 64_000.0 - 52.736).abs() < 1e-9);
    }
}
