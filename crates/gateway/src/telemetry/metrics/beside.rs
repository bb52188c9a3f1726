//! Counters of what requests have to do with others: idempotency keys, shadows, other models.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::{Kind, Series};
use super::{Metrics, ModelLabels};

/// Labels: a model and what became of a copy of its request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MirrorLabels {
    model: String,
    result: &'static str,
}

/// Labels: one result.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// The counters.
#[derive(Default)]
pub(super) struct Beside {
    fallback: Series<ModelLabels, Counter>,
    mirror: Series<MirrorLabels, Counter>,
    idempotency: Family<ResultLabels, Counter>,
    idempotency_entries: Gauge,
    idempotency_bytes: Gauge,
    idempotency_evicted: Gauge,
    pinned: Counter,
    issued_ids: Gauge,
    issued_forgotten: Gauge,
}

impl Beside {
    pub(super) fn register(&self, r: &mut Registry) {
        self.register_pins(r);
        r.register(
            "pointsman_fallback",
            "Requests that were served by another model they named",
            self.fallback.family.clone(),
        );
        r.register(
            "pointsman_mirror",
            "Copies to shadows, by what became of them",
            self.mirror.family.clone(),
        );
        r.register(
            "pointsman_idempotency",
            "Requests with an idempotency key, by what it meant",
            self.idempotency.clone(),
        );
        r.register(
            "pointsman_idempotency_entries",
            "Idempotency keys that are remembered",
            self.idempotency_entries.clone(),
        );
        r.register(
            "pointsman_idempotency_bytes",
            "Bytes of the answers that are kept for their idempotency keys",
            self.idempotency_bytes.clone(),
        );
        r.register(
            "pointsman_idempotency_evicted",
            "Keys or answers given up before their time for want of room, since the start",
            self.idempotency_evicted.clone(),
        );
    }

    fn register_pins(&self, r: &mut Registry) {
        r.register(
            "pointsman_pinned",
            "Requests that only the account could serve that keeps what they name",
            self.pinned.clone(),
        );
        r.register(
            "pointsman_issued_ids",
            "Ids of what providers keep whose account is remembered",
            self.issued_ids.clone(),
        );
        r.register(
            "pointsman_issued_ids_forgotten",
            "Such ids that were forgotten for want of room, since the start",
            self.issued_forgotten.clone(),
        );
    }

    /// Forgets the series of models that are gone.
    pub(super) fn retain(&self, keeps: impl Fn(&str) -> bool) {
        self.fallback.retain(|series| keeps(&series.model));
        self.mirror.retain(|series| keeps(&series.model));
    }
}

impl Metrics {
    /// A request for this model was served by another that it named.
    pub fn fell_back(&self, model: &str) {
        self.beside.fallback.get(&ModelLabels { model: self.labels.value(Kind::Model, model) }).inc();
    }

    /// A request of this model was to be mirrored, and this became of the copy.
    pub fn mirrored(&self, model: &str, result: &'static str) {
        let model = self.labels.value(Kind::Model, model);
        self.beside.mirror.get(&MirrorLabels { model, result }).inc();
    }

    /// A request with an idempotency key came, and this is what the key meant.
    pub fn idempotency(&self, result: &'static str) {
        self.beside.idempotency.get_or_create(&ResultLabels { result }).inc();
    }

    /// A request is pinned to an account.
    pub fn pinned(&self) {
        self.beside.pinned.inc();
    }

    /// How many ids are known of what providers keep, and how many were forgotten for want of room.
    pub fn issued_state(&self, ids: usize, forgotten: u64) {
        self.beside.issued_ids.set(ids as i64);
        self.beside.issued_forgotten.set(forgotten as i64);
    }

    /// How many idempotency keys are remembered, with how many bytes of answers, and how many gave way so far.
    pub fn idempotency_state(&self, (entries, bytes, evicted): (usize, u64, u64)) {
        self.beside.idempotency_entries.set(entries as i64);
        self.beside.idempotency_bytes.set(bytes as i64);
        self.beside.idempotency_evicted.set(evicted as i64);
    }
}
