//! `trtllm-serve`: `/prometheus/metrics`. Its `/metrics` is another thing, which everybody who asks takes from the others.

use super::table::{Quantity, Record, STARTED, Table, value};
use super::{Ask, Family, Signal};

pub(super) static FAMILY: Family = Family {
    name: "tensorrt_llm",
    tells_slots: false,
    publishes: false,
    asks: &[Ask::page(
        "/prometheus/metrics",
        &[Signal::Running, Signal::Waiting, Signal::KvUsed],
        |page, model| TABLE.read(page, model),
    )],
};

static TABLE: Table = Table {
    model_labels: &["model_name"],
    rank_labels: &[],
    records: &[
        Record {
            quantity: Quantity::Running,
            spellings: &[value("trtllm_num_requests_running"), value("trtllm_num_active_requests")],
        },
        Record {
            quantity: Quantity::Waiting,
            spellings: &[value("trtllm_num_requests_waiting"), value("trtllm_num_queued_requests")],
        },
        Record {
            quantity: Quantity::KvUsed,
            spellings: &[value("trtllm_kv_cache_utilization"), value("trtllm_kv_cache_usage_perc")],
        },
        Record { quantity: Quantity::KvBlocks, spellings: &[value("trtllm_kv_cache_max_blocks")] },
        Record { quantity: Quantity::KvBlockTokens, spellings: &[value("trtllm_kv_cache_tokens_per_block")] },
        STARTED,
    ],
};
