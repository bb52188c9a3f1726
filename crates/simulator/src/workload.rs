//! What is asked of the world: requests in the order they come, kept small, for there may be millions.

use std::time::Duration;

use pointsman_routing::catalog::{Capabilities, Name};
use pointsman_routing::facts::{Class, Lane, Objective};

use crate::trace::BadLines;

/// One request to come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ask {
    /// When it comes, nanoseconds after the first.
    pub at_ns: u64,
    /// Prompt tokens.
    pub tokens_in: u32,
    /// Output tokens, which only the engine knows before.
    pub tokens_out: u32,
    /// Its tenant, by place in [`Workload::tenants`].
    pub tenant: u32,
    /// Its model, by place in [`Workload::models`]; 0 is the one that is asked for where nothing else is said.
    pub model: u32,
    /// Its session; 0: none.
    pub session: u64,
    /// Live or batch traffic.
    pub lane: Lane,
    /// How important it is.
    pub class: Class,
    /// Where its blocks begin.
    blocks_at: u32,
    blocks: u32,
    /// Its place among those of which more is known, from 1; 0: it is not one of them.
    details: u32,
}

/// What a router knew of a request, beyond what every trace tells. Hashes are the router's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Details {
    /// What it needs of a deployment.
    pub needs: Capabilities,
    /// Whether its answer is streamed.
    pub stream: bool,
    /// Prompt tokens as they were estimated.
    pub tokens_in_estimate: u32,
    /// Prompt tokens there are at the very least.
    pub tokens_in_min: u32,
    /// The most output it asked for.
    pub tokens_out_max: Option<u32>,
    /// The version it asked for.
    pub version: Option<Name>,
    /// The region it would like.
    pub region: Option<Name>,
    /// Tags a deployment must carry.
    pub tags: Vec<Name>,
    /// How fast it would like its answer.
    pub objective: Objective,
    /// How long after its arrival the whole answer must be there.
    pub deadline: Option<Duration>,
    /// Hash of its tenant's name.
    pub tenant_hash: u64,
    /// Hash of its session, salted with the tenant.
    pub session_hash: Option<u64>,
    /// Hash of its `user` field, salted with the tenant.
    pub user_hash: Option<u64>,
}

/// One request as it is read or made, before it is packed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// When it comes, nanoseconds after some beginning.
    pub at_ns: u64,
    /// Prompt tokens.
    pub tokens_in: u32,
    /// Output tokens.
    pub tokens_out: u32,
    /// Who asks.
    pub tenant: Option<String>,
    /// What for.
    pub model: Option<String>,
    /// Its session; 0: none.
    pub session: u64,
    /// Live or batch traffic.
    pub lane: Lane,
    /// How important it is.
    pub class: Class,
    /// The prompt's beginnings: how long each is, and its hash. Ascending; equal hashes are equal beginnings.
    pub blocks: Vec<(u32, u64)>,
    /// What else a router knew of it. With this, hashes of blocks are taken as they are.
    pub details: Option<Box<Details>>,
}

/// Requests in the order they come.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Where it is from, in words.
    pub source: String,
    /// Who asks.
    pub tenants: Vec<Name>,
    /// What for. The first stands for the model that is asked for where nothing else is said, and is empty.
    pub models: Vec<Name>,
    /// Lines of its file that could not be read.
    pub left_out: BadLines,
    details: Vec<Details>,
    asks: Vec<Ask>,
    ends: Vec<u32>,
    hashes: Vec<u64>,
}

/// Names of tenants or models, at most; what is beyond shares the last.
const NAMES_MAX: usize = 10_000;

impl Workload {
    /// Nothing yet.
    pub fn new(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            tenants: Vec::new(),
            models: vec!["".into()],
            left_out: BadLines::default(),
            details: Vec::new(),
            asks: Vec::new(),
            ends: Vec::new(),
            hashes: Vec::new(),
        }
    }

    /// Adds a request.
    pub fn push(&mut self, record: &Record) {
        let tenant = place(&mut self.tenants, record.tenant.as_deref().unwrap_or("default"));
        let model = place(&mut self.models, record.model.as_deref().unwrap_or(""));
        let salt = mix(u64::from(tenant) ^ u64::from(model).rotate_left(32));
        let blocks_at = self.hashes.len() as u32;
        for (end, hash) in &record.blocks {
            self.ends.push(*end);
            self.hashes.push(if record.details.is_some() { *hash } else { mix(hash ^ salt) });
        }
        self.details.extend(record.details.as_deref().cloned());
        self.asks.push(Ask {
            at_ns: record.at_ns,
            tokens_in: record.tokens_in.max(1),
            tokens_out: record.tokens_out.max(1),
            tenant,
            model,
            session: record.session,
            lane: record.lane,
            class: record.class,
            blocks_at,
            blocks: record.blocks.len() as u32,
            details: if record.details.is_some() { self.details.len() as u32 } else { 0 },
        });
    }

    /// Puts the requests in order, the first at the beginning.
    pub fn sort(&mut self) {
        self.asks.sort_by_key(|ask| ask.at_ns);
        let first = self.asks.first().map_or(0, |ask| ask.at_ns);
        self.asks.iter_mut().for_each(|ask| ask.at_ns -= first);
    }

    /// Spreads requests that were written down at the same moment evenly up to the next such moment, or over
    /// `quantum_ns` if that is later; not given: over the usual time between two moments.
    pub fn spread(&mut self, quantum_ns: Option<u64>) {
        let mut gaps: Vec<u64> = self.asks.windows(2).map(|two| two[1].at_ns - two[0].at_ns).collect();
        gaps.retain(|gap| *gap > 0);
        gaps.sort_unstable();
        let Some(usual) = gaps.get(gaps.len() / 2).copied() else { return };
        let quantum = quantum_ns.unwrap_or(usual);
        let mut from = 0;
        while from < self.asks.len() {
            let at = self.asks[from].at_ns;
            let next =
                self.asks[from..].iter().position(|ask| ask.at_ns > at).map_or(self.asks.len(), |n| from + n);
            let width = self.asks.get(next).map_or(quantum, |ask| (ask.at_ns - at).min(quantum));
            let count = (next - from) as u64;
            for (place, ask) in self.asks[from..next].iter_mut().enumerate() {
                ask.at_ns = at + width * place as u64 / count;
            }
            from = next;
        }
    }

    /// Keeps the first so many requests.
    pub fn truncate(&mut self, requests: usize) {
        self.asks.truncate(requests);
    }

    /// The requests.
    pub fn asks(&self) -> &[Ask] {
        &self.asks
    }

    /// The blocks of a request: how long its prompt is up to the end of each, and the hash of that.
    pub fn blocks(&self, ask: &Ask) -> impl ExactSizeIterator<Item = (u32, u64)> + '_ {
        let range = ask.blocks_at as usize..(ask.blocks_at + ask.blocks) as usize;
        self.ends[range.clone()].iter().copied().zip(self.hashes[range].iter().copied())
    }

    /// What else was known of a request.
    pub fn details(&self, ask: &Ask) -> Option<&Details> {
        self.details.get((ask.details as usize).checked_sub(1)?)
    }

    /// Time from the first request to the last, seconds.
    pub fn span_s(&self) -> f64 {
        self.asks.last().map_or(0.0, |ask| ask.at_ns as f64 / 1e9)
    }
}

fn place(names: &mut Vec<Name>, name: &str) -> u32 {
    let known = names.iter().position(|known| &**known == name);
    let place = known.unwrap_or_else(|| {
        if names.len() < NAMES_MAX {
            names.push(name.into());
        }
        names.len() - 1
    });
    place as u32
}

/// Spreads the bits of a number (the finaliser of SplitMix64).
pub(crate) const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(moments: &[u64]) -> Workload {
        let mut workload = Workload::new("by hand");
        for at_ns in moments {
            workload.push(&Record { at_ns: *at_ns, ..Record::default() });
        }
        workload.sort();
        workload
    }

    fn moments(workload: &Workload) -> Vec<u64> {
        workload.asks().iter().map(|ask| ask.at_ns).collect()
    }

    #[test]
    fn what_was_written_down_together_is_spread_up_to_the_next() {
        let mut workload = at(&[1_000, 1_000, 1_000, 4_000, 4_000, 7_000, 7_000, 7_000, 100_000]);
        workload.spread(None);
        assert_eq!(moments(&workload), [0, 1_000, 2_000, 3_000, 4_500, 6_000, 7_000, 8_000, 99_000]);
        let mut workload = at(&[0, 0, 50]);
        workload.spread(Some(10));
        assert_eq!(moments(&workload), [0, 5, 50]);
    }

    #[test]
    fn equal_blocks_of_two_tenants_are_not_the_same() {
        let mut workload = Workload::new("by hand");
        for tenant in ["a", "b", "a"] {
            let tenant = Some(tenant.to_owned());
            workload.push(&Record { tenant, blocks: vec![(512, 7)], ..Record::default() });
        }
        let hashes: Vec<_> = workload.asks().iter().flat_map(|ask| workload.blocks(ask)).collect();
        assert!(hashes[0] == hashes[2] && hashes[0] != hashes[1], "{hashes:?}");
    }
}
