//! Triton: `/metrics`, on a port of its own (8002 by default), with its TensorRT-LLM backend or without.

use super::table::{Quantity, Record, Table, value, value_where};
use super::{Ask, Family, Signal};

pub(super) static FAMILY: Family = Family {
    name: "triton",
    tells_slots: true,
    publishes: false,
    // Other backends than TensorRT-LLM tell no more than their queue.
    asks: &[Ask::page("/metrics", &[Signal::Waiting], |page, model| TABLE.read(page, model))],
};

const REQUESTS: &str = "nv_trt_llm_request_metrics";
const BLOCKS: &str = "nv_trt_llm_kv_cache_block_metrics";
const BLOCK_TYPE: &str = "kv_cache_block_type";

static TABLE: Table = Table {
    model_labels: &["model"],
    // Versions of a model run side by side.
    rank_labels: &["version"],
    records: &[
        Record {
            quantity: Quantity::Running,
            spellings: &[value_where(REQUESTS, "request_type", "scheduled")],
        },
        Record {
            quantity: Quantity::Waiting,
            spellings: &[
                value_where(REQUESTS, "request_type", "waiting"),
                value("nv_inference_pending_request_count"),
            ],
        },
        Record { quantity: Quantity::Slots, spellings: &[value_where(REQUESTS, "request_type", "max")] },
        Record { quantity: Quantity::KvUsed, spellings: &[value_where(BLOCKS, BLOCK_TYPE, "fraction")] },
        Record { quantity: Quantity::KvBlocks, spellings: &[value_where(BLOCKS, BLOCK_TYPE, "max")] },
        Record {
            quantity: Quantity::KvBlockTokens,
            spellings: &[value_where(BLOCKS, BLOCK_TYPE, "tokens_per")],
        },
    ],
};
