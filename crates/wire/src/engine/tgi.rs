//! Text Generation Inference: `/metrics`, and what it was started with by `/info`.

use serde::Deserialize;

use super::table::{Quantity, Record, STARTED, Table, value};
use super::{Ask, Family, Misread, Reading, Signal, capacity, slots};

pub(super) static FAMILY: Family = Family {
    name: "tgi",
    tells_slots: true,
    publishes: false,
    asks: &[
        Ask::page("/metrics", &[Signal::Running, Signal::Waiting], |page, model| TABLE.read(page, model)),
        Ask::once("/info", read_info),
    ],
};

static TABLE: Table = Table {
    model_labels: &[],
    rank_labels: &[],
    records: &[
        Record { quantity: Quantity::Running, spellings: &[value("tgi_batch_current_size")] },
        Record { quantity: Quantity::Waiting, spellings: &[value("tgi_queue_size")] },
        // What the requests of the batch may come to, which is what the router of TGI itself reserves for them.
        Record { quantity: Quantity::KvUsedTokens, spellings: &[value("tgi_batch_current_max_tokens")] },
        STARTED,
    ],
};

#[derive(Deserialize)]
struct Info {
    max_batch_total_tokens: Option<f64>,
    max_batch_size: Option<f64>,
}

fn read_info(answer: &[u8], _: &str) -> Result<Reading, Misread> {
    let info: Info = serde_json::from_slice(answer).map_err(Misread::json)?;
    Ok(Reading {
        slots: info.max_batch_size.and_then(slots),
        kv_capacity_tokens: info.max_batch_total_tokens.and_then(capacity),
        ..Reading::default()
    })
}
