//! Engines whose metrics are a page of Prometheus, as tables: which quantity has which names.

use super::prometheus::{self, Page, Sample};
use super::{Misread, Reading, capacity, count, large, share, slots};

/// How an engine's page is read.
pub(super) struct Table {
    /// Labels that name the model; a series may have none.
    pub(super) model_labels: &'static [&'static str],
    /// Labels that tell apart the ranks that work side by side. Series that differ in other labels alone are copies.
    pub(super) rank_labels: &'static [&'static str],
    pub(super) records: &'static [Record],
}

/// One quantity and its spellings, the newest first.
pub(super) struct Record {
    pub(super) quantity: Quantity,
    pub(super) spellings: &'static [Spelling],
}

/// When the process was started, as exporters in most languages tell it.
pub(super) const STARTED: Record =
    Record { quantity: Quantity::StartedS, spellings: &[value("process_start_time_seconds")] };

/// Where a quantity stands.
pub(super) struct Spelling {
    /// The name, with `_` for `:` and without the `_total` of counters.
    name: &'static str,
    /// A label that the series must have.
    only: Option<(&'static str, &'static str)>,
    /// The label that has the number; `None`: the sample's value is it.
    label: Option<&'static str>,
}

/// A metric's value.
pub(super) const fn value(name: &'static str) -> Spelling {
    Spelling { name, only: None, label: None }
}

/// The value of the series with this label.
pub(super) const fn value_where(name: &'static str, label: &'static str, has: &'static str) -> Spelling {
    Spelling { name, only: Some((label, has)), label: None }
}

/// A number in a label.
pub(super) const fn label(name: &'static str, label: &'static str) -> Spelling {
    Spelling { name, only: None, label: Some(label) }
}

/// What pages speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantity {
    Running,
    Waiting,
    KvUsed,
    KvUsedTokens,
    KvTokens,
    KvBlocks,
    KvBlockTokens,
    Slots,
    Awake,
    Preemptions,
    PrefixTokens,
    PrefixTokensHit,
    /// Prompt tokens that were not in the cache.
    PrefixTokensMissed,
    StartedS,
}

impl Quantity {
    /// Whether it only ever grows.
    const fn counts(self) -> bool {
        matches!(
            self,
            Self::Preemptions | Self::PrefixTokens | Self::PrefixTokensHit | Self::PrefixTokensMissed
        )
    }

    /// The ranks of an engine taken together.
    fn of_ranks(self, ranks: &[f64]) -> f64 {
        match self {
            Self::Running
            | Self::Waiting
            | Self::KvUsedTokens
            | Self::KvTokens
            | Self::KvBlocks
            | Self::Slots
            | Self::Preemptions
            | Self::PrefixTokens
            | Self::PrefixTokensHit
            | Self::PrefixTokensMissed => ranks.iter().sum(),
            Self::KvUsed => ranks.iter().sum::<f64>() / ranks.len() as f64,
            // Who is asleep keeps all waiting.
            Self::Awake => ranks.iter().copied().fold(f64::INFINITY, f64::min),
            Self::KvBlockTokens | Self::StartedS => ranks.iter().copied().fold(0.0, f64::max),
        }
    }
}

impl Table {
    /// What a page says of a model.
    pub(super) fn read(&self, text: &[u8], model: &str) -> Result<Reading, Misread> {
        let page = prometheus::read(text, |name| self.wants(name)).ok_or(Misread::TooMuch)?;
        let of = |quantity| self.quantity(quantity, &page, model);
        let blocks = || Some(of(Quantity::KvBlocks)? * of(Quantity::KvBlockTokens)?);
        let hit = of(Quantity::PrefixTokensHit);
        let asked = || Some(hit? + of(Quantity::PrefixTokensMissed)?);
        Ok(Reading {
            running: of(Quantity::Running).and_then(count),
            waiting: of(Quantity::Waiting).and_then(count),
            kv_used: of(Quantity::KvUsed).and_then(share),
            kv_used_tokens: of(Quantity::KvUsedTokens).and_then(large),
            kv_capacity_tokens: of(Quantity::KvTokens).or_else(blocks).and_then(capacity),
            slots: of(Quantity::Slots).and_then(slots),
            awake: of(Quantity::Awake).map(|awake| awake > 0.0),
            preemptions: of(Quantity::Preemptions).and_then(large),
            prefix_tokens: of(Quantity::PrefixTokens).or_else(asked).and_then(large),
            prefix_tokens_hit: hit.and_then(large),
            started_s: of(Quantity::StartedS).and_then(large),
        })
    }

    fn wants(&self, name: &[u8]) -> bool {
        self.records.iter().any(|record| {
            let counts = record.quantity.counts();
            record.spellings.iter().any(|spelling| is_spelt(spelling.name, name, counts))
        })
    }

    /// A quantity by the newest of its spellings that is there.
    fn quantity(&self, quantity: Quantity, page: &Page<'_>, model: &str) -> Option<f64> {
        let record = self.records.iter().find(|record| record.quantity == quantity)?;
        record.spellings.iter().find_map(|spelling| {
            let known: Vec<(&Sample<'_>, f64)> = page
                .samples
                .iter()
                .filter_map(|sample| Some((sample, spelling.number(quantity, sample)?)))
                .collect();
            self.of_model(quantity, &known, model)
        })
    }

    /// The series of the model: those that name it, or all where no more than one model is named.
    fn of_model(&self, quantity: Quantity, known: &[(&Sample<'_>, f64)], model: &str) -> Option<f64> {
        let named = |sample: &Sample<'_>| {
            self.model_labels.iter().find_map(|label| sample.label(label)).map(str::to_owned)
        };
        let names: Vec<Option<String>> = known.iter().map(|(sample, _)| named(sample)).collect();
        let its_own = names.iter().flatten().any(|name| name == model);
        let mut others = names.iter().flatten();
        let first = others.next();
        if !its_own && others.any(|name| Some(name) != first) {
            return None;
        }
        let mut ranks: Vec<(Vec<&str>, f64)> = Vec::new();
        for ((sample, number), name) in known.iter().zip(&names) {
            if its_own && name.as_deref() != Some(model) {
                continue;
            }
            let rank: Vec<&str> =
                self.rank_labels.iter().map(|label| sample.label(label).unwrap_or_default()).collect();
            match ranks.iter_mut().find(|(known, _)| *known == rank) {
                Some((_, most)) => *most = most.max(*number),
                None => ranks.push((rank, *number)),
            }
        }
        let numbers: Vec<f64> = ranks.into_iter().map(|(_, number)| number).collect();
        (!numbers.is_empty()).then(|| quantity.of_ranks(&numbers))
    }
}

impl Spelling {
    /// The number that a sample gives, if it is one of this spelling and says anything.
    fn number(&self, quantity: Quantity, sample: &Sample<'_>) -> Option<f64> {
        if !is_spelt(self.name, sample.name.as_bytes(), quantity.counts()) {
            return None;
        }
        if self.only.is_some_and(|(label, has)| sample.label(label) != Some(has)) {
            return None;
        }
        let number = match self.label {
            None => sample.value,
            Some(label) => sample.label(label)?.parse().ok()?,
        };
        number.is_finite().then_some(number)
    }
}

/// Whether a name is this one: `:` is `_`, and counters may end in `_total`.
fn is_spelt(name: &str, spelt: &[u8], counts: bool) -> bool {
    let Some((head, rest)) = spelt.split_at_checked(name.len()) else { return false };
    (rest.is_empty() || counts && rest == b"_total")
        && head
            .iter()
            .zip(name.bytes())
            .all(|(spelt, name)| *spelt == name || (*spelt == b':' && name == b'_'))
}
