//! What tokens cost: a bundled table, and lists that stand before it.
//!
//! A price is looked up by the kind of vendor and the model's name as the vendor has it. A dated snapshot
//! (`gpt-4o-2024-08-06`) costs what its alias costs, unless it has an entry of its own. What is not in the table is
//! unknown, and what is unknown is never taken for zero.

use std::sync::{Arc, LazyLock};

use serde::Deserialize;

use crate::openai::usage::Usage;
use crate::vendor;

/// Entries of one list.
pub const ENTRIES_MAX: usize = 20_000;

/// What tokens of each kind cost, USD per million.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Price {
    /// Prompt tokens.
    pub input: f64,
    /// Output tokens; `None`: the model gives none, or it is not known.
    pub output: Option<f64>,
    /// Prompt tokens read from the vendor's cache; `None`: as `input`.
    pub cached_input: Option<f64>,
    /// Prompt tokens written to it; `None`: as `input`.
    pub cache_write: Option<f64>,
    /// Prompt tokens written to it for an hour; `None`: unknown.
    pub cache_write_1h: Option<f64>,
    /// Thoughts; `None`: as `output`.
    pub reasoning: Option<f64>,
    /// Prompt tokens of images; `None`: as `input`.
    pub image: Option<f64>,
    /// Prompt tokens of sounds; `None`: unknown.
    pub audio_input: Option<f64>,
    /// Output tokens of sounds; `None`: unknown.
    pub audio_output: Option<f64>,
    /// The longest prompt that all this holds for, tokens; what a longer one costs is unknown.
    pub tokens_in_max: Option<u64>,
}

impl Price {
    /// What an answer cost, millionths of a USD; `None` if the price of anything it used is unknown.
    pub fn micro_usd(&self, used: &Usage) -> Option<u64> {
        if used.off_list || self.tokens_in_max.is_some_and(|max| used.tokens_in > max) {
            return None;
        }
        let audio_in = used.tokens_in_audio.min(used.tokens_in);
        let mut left = used.tokens_in - audio_in;
        let mut of_rest = |tokens: u64| {
            let part = tokens.min(left);
            left -= part;
            part
        };
        let cached = of_rest(used.tokens_in_cached);
        let hourly = of_rest(used.tokens_in_cache_written_1h.min(used.tokens_in_cache_written));
        let written = of_rest(used.tokens_in_cache_written.saturating_sub(hourly));
        let image = of_rest(used.tokens_in_image);
        let audio_out = used.tokens_out_audio.min(used.tokens_out);
        let reasoning = used.tokens_out_reasoning.min(used.tokens_out - audio_out);
        let plain_out = used.tokens_out - audio_out - reasoning;
        let parts = [
            (left, Some(self.input)),
            (cached, self.cached_input.or(Some(self.input))),
            (written, self.cache_write.or(Some(self.input))),
            (hourly, self.cache_write_1h),
            (image, self.image.or(Some(self.input))),
            (audio_in, self.audio_input),
            (plain_out, self.output),
            (reasoning, self.reasoning.or(self.output)),
            (audio_out, self.audio_output),
        ];
        // A price in USD per million gives millionths of a USD: the two millions cancel out.
        let cost = |(tokens, price): (u64, Option<f64>)| match (tokens, price) {
            (0, _) => Some(0.0),
            (tokens, price) => Some(tokens as f64 * price?),
        };
        let sum = parts.into_iter().map(cost).sum::<Option<f64>>()?;
        Some(sum.round().max(0.0) as u64)
    }
}

/// An entry of a list.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The kind of vendor.
    pub vendor: String,
    /// The models that it is about, by the names that the vendor has for them.
    pub models: Vec<String>,
    /// Prompt tokens.
    pub input: f64,
    /// Output tokens.
    pub output: Option<f64>,
    /// Prompt tokens read from the vendor's cache.
    pub cached_input: Option<f64>,
    /// Prompt tokens written to it.
    pub cache_write: Option<f64>,
    /// Prompt tokens written to it for an hour.
    pub cache_write_1h: Option<f64>,
    /// Thoughts.
    pub reasoning: Option<f64>,
    /// Prompt tokens of images.
    pub image: Option<f64>,
    /// Prompt tokens of sounds.
    pub audio_input: Option<f64>,
    /// Output tokens of sounds.
    pub audio_output: Option<f64>,
    /// The longest prompt that the entry is about, tokens.
    pub tokens_in_max: Option<u64>,
    /// Where the vendor or whoever is trusted says so.
    pub source: Option<String>,
    /// The day on which it was looked up, such as `2026-11-21`.
    pub date: Option<String>,
}

impl Entry {
    /// The price that it gives.
    pub const fn price(&self) -> Price {
        Price {
            input: self.input,
            output: self.output,
            cached_input: self.cached_input,
            cache_write: self.cache_write,
            cache_write_1h: self.cache_write_1h,
            reasoning: self.reasoning,
            image: self.image,
            audio_input: self.audio_input,
            audio_output: self.audio_output,
            tokens_in_max: self.tokens_in_max,
        }
    }

    fn numbers(&self) -> impl Iterator<Item = f64> {
        let price = self.price();
        let some = [
            price.output,
            price.cached_input,
            price.cache_write,
            price.cache_write_1h,
            price.reasoning,
            price.image,
            price.audio_input,
            price.audio_output,
        ];
        std::iter::once(price.input).chain(some.into_iter().flatten())
    }
}

/// A list of prices. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct List(Arc<[Entry]>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    price: Vec<Entry>,
}

impl List {
    /// Reads a list in the form of the bundled one, TOML with a table `[[price]]` for each entry.
    ///
    /// # Errors
    /// What is wrong, with its line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let list = Self::read(text)?;
        for entry in list.0.iter() {
            vendor::vendor(&entry.vendor).map_err(|unknown| unknown.to_string())?;
        }
        Ok(list)
    }

    fn read(text: &str) -> Result<Self, String> {
        let table: Table = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        if table.price.len() > ENTRIES_MAX {
            return Err(format!("{} entries, {ENTRIES_MAX} are allowed", table.price.len()));
        }
        for entry in &table.price {
            if !entry.numbers().all(|price| price.is_finite() && price >= 0.0) {
                return Err(format!("{} {:?}: a price is a number of 0 or more", entry.vendor, entry.models));
            }
            if entry.models.is_empty() {
                return Err(format!("an entry of {} names no models", entry.vendor));
            }
        }
        Ok(Self(table.price.into()))
    }

    /// The entries, in their order.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The entry for a model: of its very name, or of the alias it is a snapshot of.
    fn entry(&self, vendor: &str, model: &str) -> Option<&Entry> {
        let of = |name: &str| {
            let mut entries = self.0.iter();
            entries.find(|entry| is_kind(&entry.vendor, vendor) && entry.models.iter().any(|one| one == name))
        };
        of(model).or_else(|| of(undated(model)?))
    }
}

/// Whether two names are of one kind of vendor.
fn is_kind(name: &str, kind: &str) -> bool {
    name == kind || vendor::vendor(name).is_ok_and(|vendor| vendor.kind == kind)
}

static BUNDLED: LazyLock<List> =
    LazyLock::new(|| List::read(include_str!("prices.toml")).expect("the embedded table is tested"));

/// The list that comes with the program.
pub fn bundled() -> &'static List {
    &BUNDLED
}

/// What a model of a vendor costs: by `own`, and where that says nothing by the bundled list.
pub fn price(own: &List, kind: &str, model: &str) -> Option<Price> {
    let kind = vendor::vendor(kind).map_or(kind, |vendor| vendor.kind.as_str());
    let entry = own.entry(kind, model).or_else(|| bundled().entry(kind, model))?;
    Some(entry.price())
}

/// The alias that a dated snapshot belongs to: its name without `-2024-08-06`, `-20250929` or `@20250929`.
fn undated(model: &str) -> Option<&str> {
    let digits =
        |text: &str, count: usize| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let plausible = |year: &str, month: &str, day: &str| {
        let number = |text: &str| text.parse::<u32>().unwrap_or(0);
        (2020..2100).contains(&number(year))
            && (1..=12).contains(&number(month))
            && (1..=31).contains(&number(day))
    };
    if let Some((rest, tail)) = model.len().checked_sub(11).and_then(|at| model.split_at_checked(at)) {
        let mut parts = tail.split('-');
        if let (Some(""), Some(year), Some(month), Some(day)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
            && digits(year, 4)
            && digits(month, 2)
            && digits(day, 2)
            && plausible(year, month, day)
        {
            return Some(rest).filter(|rest| !rest.is_empty());
        }
    }
    let (rest, tail) = model.rsplit_once(['-', '@'])?;
    let whole = digits(tail, 8) && plausible(&tail[..4], &tail[4..6], &tail[6..]);
    (whole && !rest.is_empty()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_entry_has_source_and_date_and_no_model_stands_twice() {
        let mut seen = BTreeSet::new();
        for entry in bundled().entries() {
            let source = entry.source.as_deref().expect("a source");
            assert!(source.starts_with("https://"), "{source}");
            let date = entry.date.as_deref().expect("a date");
            assert_eq!(undated(&format!("x-{date}")), Some("x"), "{date}");
            for model in &entry.models {
                assert!(seen.insert((entry.vendor.clone(), model.clone())), "{} {model} twice", entry.vendor);
            }
        }
        assert!(seen.len() >= 40, "{}", seen.len());
    }

    #[test]
    fn an_hour_in_the_cache_of_anthropic_costs_twice_the_input() {
        let anthropic = bundled().entries().iter().filter(|entry| entry.vendor == "anthropic");
        let mut seen = 0;
        for entry in anthropic {
            assert_eq!(entry.cache_write_1h, Some(2.0 * entry.input), "{:?}", entry.models);
            seen += 1;
        }
        assert!(seen > 5, "{seen}");
    }

    #[test]
    fn snapshots_cost_what_their_alias_costs() {
        for (model, alias) in [
            ("gpt-4o-2024-08-06", Some("gpt-4o")),
            ("claude-sonnet-4-5-20250929", Some("claude-sonnet-4-5")),
            ("claude-sonnet-4-5@20250929", Some("claude-sonnet-4-5")),
            ("gpt-4o", None),
            ("model-12345678", None),
            ("model-2024-13-06", None),
            ("-2024-08-06", None),
            ("llama-3.1-8b", None),
            ("é-2024-08-0é", None),
        ] {
            assert_eq!(undated(model), alias, "{model}");
        }
        let list = List::parse(
            "[[price]]\nvendor = 'openai'\nmodels = ['m']\ninput = 2\n\
             [[price]]\nvendor = 'openai'\nmodels = ['m-2024-05-13']\ninput = 5\n",
        )
        .expect("a list");
        let input = |kind, model| price(&list, kind, model).map(|price| price.input);
        assert_eq!(input("openai", "m"), Some(2.0));
        assert_eq!(input("openai", "m-2024-08-06"), Some(2.0));
        assert_eq!(input("openai", "m-2024-05-13"), Some(5.0), "it has an entry of its own");
        assert_eq!(input("openai", "m-mini"), None);
        assert_eq!(input("groq", "m"), None, "another vendor");
    }

    #[test]
    fn own_entries_stand_before_the_bundled_ones() {
        let list =
            List::parse("[[price]]\nvendor = 'openai'\nmodels = ['gpt-4o']\ninput = 1\n").expect("a list");
        let input = |list: &List, model| price(list, "openai", model).map(|price| price.input);
        assert_eq!(input(&list, "gpt-4o"), Some(1.0));
        assert_eq!(input(&List::default(), "gpt-4o"), Some(2.5));
        assert_eq!(input(&list, "gpt-4o-mini"), Some(0.15), "what it does not say is as it was");
    }

    #[test]
    fn a_list_that_is_wrong_is_refused() {
        for (text, says) in [
            ("[[price]]\nvendor = 'openai'\nmodels = ['m']\ninput = -1\n", "0 or more"),
            ("[[price]]\nvendor = 'openai'\nmodels = []\ninput = 1\n", "no models"),
            ("[[price]]\nvendor = 'opanai'\nmodels = ['m']\ninput = 1\n", "did you mean `openai`?"),
            ("[[price]]\nvendor = 'openai'\nmodels = ['m']\ninputs = 1\n", "line 4"),
            ("[[price]]\nvendor = 'openai'\nmodels = ['m']\ninput = nan\n", "0 or more"),
        ] {
            let error = List::parse(text).expect_err(text);
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn every_part_costs_its_own_and_what_is_unknown_makes_all_unknown() {
        let price = Price {
            input: 10.0,
            output: Some(100.0),
            cached_input: Some(1.0),
            cache_write: Some(12.5),
            ..Price::default()
        };
        let used = Usage {
            tokens_in: 100,
            tokens_in_cached: 30,
            tokens_in_cache_written: 20,
            tokens_out: 5,
            ..Usage::default()
        };
        assert_eq!(price.micro_usd(&used), Some(50 * 10 + 30 + 250 + 500));
        let hourly = Usage { tokens_in_cache_written_1h: 15, ..used };
        assert_eq!(price.micro_usd(&hourly), None, "nobody says what an hour costs");
        let known = Price { cache_write_1h: Some(20.0), ..price };
        assert_eq!(known.micro_usd(&hourly), Some(50 * 10 + 30 + 63 + 300 + 500));
        assert_eq!(
            price.micro_usd(&Usage { off_list: true, ..used }),
            None,
            "another tier, or tools beside it"
        );
        let plain = Price { cached_input: None, cache_write: None, ..price };
        assert_eq!(
            plain.micro_usd(&used),
            Some(100 * 10 + 500),
            "without a discount they cost what all cost"
        );
        let thinking = Usage { tokens_out: 50, tokens_out_reasoning: 40, ..Usage::default() };
        assert_eq!(price.micro_usd(&thinking), Some(5_000));
        assert_eq!(Price { reasoning: Some(1.0), ..price }.micro_usd(&thinking), Some(1_040));
        let sounds = Usage {
            tokens_in: 10,
            tokens_in_audio: 4,
            tokens_out: 3,
            tokens_out_audio: 3,
            ..Usage::default()
        };
        assert_eq!(price.micro_usd(&sounds), None, "nobody says what sounds cost");
        let heard = Price { audio_input: Some(40.0), audio_output: Some(80.0), ..price };
        assert_eq!(heard.micro_usd(&sounds), Some(60 + 160 + 240));
        let silent = Price { output: None, ..price };
        assert_eq!(silent.micro_usd(&used), None);
        assert_eq!(silent.micro_usd(&Usage { tokens_in: 7, ..Usage::default() }), Some(70), "an embedding");
        let seen = Usage { tokens_in: 10, tokens_in_image: 6, ..Usage::default() };
        assert_eq!(Price { image: Some(20.0), ..price }.micro_usd(&seen), Some(40 + 120));
        let short = Price { tokens_in_max: Some(99), ..price };
        assert_eq!(short.micro_usd(&used), None, "a longer prompt has another price");
        // Parts that are more than the whole are not counted twice.
        let odd =
            Usage { tokens_in: 10, tokens_in_cached: 8, tokens_in_cache_written: 8, ..Usage::default() };
        assert_eq!(price.micro_usd(&odd), Some(8 + 25));
        assert_eq!(price.micro_usd(&Usage { tokens_in: u64::MAX, ..Usage::default() }), Some(u64::MAX));
    }
}
