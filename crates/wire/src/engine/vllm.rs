//! vLLM, v0 and v1: `/metrics`.

use super::table::{Quantity, Record, STARTED, Table, label, value, value_where};
use super::{Ask, Family, Signal};

pub(super) static FAMILY: Family = Family {
    name: "vllm",
    tells_slots: false,
    publishes: true,
    asks: &[Ask::page("/metrics", &[Signal::Running, Signal::Waiting, Signal::KvUsed], |page, model| {
        TABLE.read(page, model)
    })],
};

static TABLE: Table = Table {
    model_labels: &["model_name"],
    // Data-parallel engines of one server, each with a cache of its own.
    rank_labels: &["engine"],
    records: &[
        Record { quantity: Quantity::Running, spellings: &[value("vllm_num_requests_running")] },
        Record { quantity: Quantity::Waiting, spellings: &[value("vllm_num_requests_waiting")] },
        Record {
            quantity: Quantity::KvUsed,
            spellings: &[value("vllm_kv_cache_usage_perc"), value("vllm_gpu_cache_usage_perc")],
        },
        Record {
            quantity: Quantity::KvTokens,
            spellings: &[label("vllm_cache_config_info", "kv_cache_size_tokens")],
        },
        Record {
            quantity: Quantity::KvBlocks,
            spellings: &[label("vllm_cache_config_info", "num_gpu_blocks")],
        },
        Record {
            quantity: Quantity::KvBlockTokens,
            spellings: &[label("vllm_cache_config_info", "block_size")],
        },
        Record {
            quantity: Quantity::Awake,
            spellings: &[value_where("vllm_engine_sleep_state", "sleep_state", "awake")],
        },
        Record { quantity: Quantity::Preemptions, spellings: &[value("vllm_num_preemptions")] },
        Record {
            quantity: Quantity::PrefixTokens,
            spellings: &[value("vllm_prefix_cache_queries"), value("vllm_gpu_prefix_cache_queries")],
        },
        Record {
            quantity: Quantity::PrefixTokensHit,
            spellings: &[value("vllm_prefix_cache_hits"), value("vllm_gpu_prefix_cache_hits")],
        },
        STARTED,
    ],
};
