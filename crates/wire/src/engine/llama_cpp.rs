//! llama.cpp's server: `/slots` (with `--slots`), `/metrics` (with `--metrics`), and `/props` for its number of slots.

use serde::Deserialize;

use super::table::{Quantity, Record, Table, value};
use super::{Ask, Family, Misread, Reading, Signal, capacity, count, large, slots};

pub(super) static FAMILY: Family = Family {
    name: "llama_cpp",
    tells_slots: true,
    publishes: false,
    asks: &[
        Ask {
            path: "/slots",
            metrics: false,
            rarely: false,
            expected: &[Signal::Running, Signal::Slots],
            read: read_slots,
        },
        Ask::page("/metrics", &[Signal::Running, Signal::Waiting], |page, model| TABLE.read(page, model)),
        Ask::once("/props", read_props),
    ],
};

static TABLE: Table = Table {
    model_labels: &["model"],
    rank_labels: &[],
    records: &[
        Record { quantity: Quantity::Running, spellings: &[value("llamacpp_requests_processing")] },
        Record { quantity: Quantity::Waiting, spellings: &[value("llamacpp_requests_deferred")] },
        // Not there in current builds, where the slots tell it.
        Record { quantity: Quantity::KvUsed, spellings: &[value("llamacpp_kv_cache_usage_ratio")] },
        Record { quantity: Quantity::KvUsedTokens, spellings: &[value("llamacpp_kv_cache_tokens")] },
        Record { quantity: Quantity::PrefixTokensHit, spellings: &[value("llamacpp_prompt_tokens_cached")] },
        // Cached ones are not in the count of prompt tokens here.
        Record { quantity: Quantity::PrefixTokensMissed, spellings: &[value("llamacpp_prompt_tokens")] },
    ],
};

/// A slot, of old builds (`state`, `n_past`) and new ones (`is_processing`, `n_prompt_tokens`). Whatever else stands
/// there, prompts included, is stepped over.
#[derive(Deserialize)]
struct Slot {
    is_processing: Option<bool>,
    state: Option<f64>,
    n_ctx: Option<f64>,
    n_past: Option<f64>,
    n_prompt_tokens: Option<f64>,
}

impl Slot {
    fn is_busy(&self) -> Option<bool> {
        self.is_processing.or_else(|| Some(self.state? > 0.0))
    }
}

fn read_slots(answer: &[u8], _: &str) -> Result<Reading, Misread> {
    let told: Vec<Slot> = serde_json::from_slice(answer).map_err(Misread::json)?;
    let busy: Option<Vec<bool>> = told.iter().map(Slot::is_busy).collect();
    let room: Option<f64> = told.iter().map(|slot| slot.n_ctx).sum();
    let used = told.iter().filter(|slot| slot.is_busy() == Some(true));
    let used: f64 = used.filter_map(|slot| slot.n_prompt_tokens.or(slot.n_past)).sum();
    Ok(Reading {
        running: busy.and_then(|busy| count(busy.iter().filter(|busy| **busy).count() as f64)),
        slots: slots(told.len() as f64),
        kv_used_tokens: large(used),
        kv_capacity_tokens: room.and_then(capacity),
        ..Reading::default()
    })
}

#[derive(Deserialize)]
struct Props {
    total_slots: Option<f64>,
}

fn read_props(answer: &[u8], _: &str) -> Result<Reading, Misread> {
    let props: Props = serde_json::from_slice(answer).map_err(Misread::json)?;
    Ok(Reading { slots: props.total_slots.and_then(slots), ..Reading::default() })
}
