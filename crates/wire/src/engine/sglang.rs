//! SGLang: `/metrics` (with `--enable-metrics`), as `sglang:` and, after v0.5.3, `sglang_`.

use serde::Deserialize;

use super::table::{Quantity, Record, STARTED, Table, label, value};
use super::{Ask, Family, Misread, Reading, Signal, capacity, slots};

pub(super) static FAMILY: Family = Family {
    name: "sglang",
    tells_slots: true,
    publishes: true,
    asks: &[
        Ask::page("/metrics", &[Signal::Running, Signal::Waiting, Signal::KvUsed], |page, model| {
            TABLE.read(page, model)
        }),
        Ask::once("/get_server_info", read_info),
    ],
};

static TABLE: Table = Table {
    model_labels: &["model_name"],
    // The ranks of a tensor-parallel group all tell of the same requests; those of data parallelism of their own.
    rank_labels: &["dp_rank"],
    records: &[
        Record { quantity: Quantity::Running, spellings: &[value("sglang_num_running_reqs")] },
        Record { quantity: Quantity::Waiting, spellings: &[value("sglang_num_queue_reqs")] },
        Record { quantity: Quantity::KvUsed, spellings: &[value("sglang_token_usage")] },
        Record { quantity: Quantity::KvUsedTokens, spellings: &[value("sglang_num_used_tokens")] },
        Record { quantity: Quantity::KvTokens, spellings: &[value("sglang_max_total_num_tokens")] },
        Record {
            quantity: Quantity::KvBlocks,
            spellings: &[label("sglang_cache_config_info", "num_pages"), value("sglang_num_pages")],
        },
        Record {
            quantity: Quantity::KvBlockTokens,
            spellings: &[label("sglang_cache_config_info", "page_size"), value("sglang_page_size")],
        },
        Record {
            quantity: Quantity::Preemptions,
            spellings: &[value("sglang_num_retracted_requests"), value("sglang_num_retracted_reqs")],
        },
        Record { quantity: Quantity::PrefixTokens, spellings: &[value("sglang_prompt_tokens")] },
        Record { quantity: Quantity::PrefixTokensHit, spellings: &[value("sglang_cached_tokens")] },
        STARTED,
    ],
};

#[derive(Deserialize)]
struct Info {
    max_running_requests: Option<f64>,
    max_total_num_tokens: Option<f64>,
    #[serde(default)]
    internal_states: Vec<Rank>,
}

#[derive(Deserialize)]
struct Rank {
    effective_max_running_requests_per_dp: Option<f64>,
}

fn read_info(answer: &[u8], _: &str) -> Result<Reading, Misread> {
    let info: Info = serde_json::from_slice(answer).map_err(Misread::json)?;
    let by_rank: Option<f64> =
        info.internal_states.iter().map(|rank| rank.effective_max_running_requests_per_dp).sum();
    Ok(Reading {
        slots: by_rank.filter(|slots| *slots > 0.0).or(info.max_running_requests).and_then(slots),
        kv_capacity_tokens: info.max_total_num_tokens.and_then(capacity),
        ..Reading::default()
    })
}
