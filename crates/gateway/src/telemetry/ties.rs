//! What a decision record says of a request's ties to others.

use pointsman_routing::catalog::Name;
use pointsman_routing::flow::fallback::Stop;
use serde_json::{Value, json};

use super::record::RequestId;

/// What a request has to do with others.
#[derive(Debug, Clone, Default)]
pub struct Ties {
    /// Other models it named, and why one was left out if it was.
    pub fallbacks: Vec<(Name, Option<String>)>,
    /// Those of them it went on to.
    pub stops: Vec<Stop>,
    /// The tensors it was asked with and those of the answer, counted.
    pub tensors: Option<Value>,
    /// The request that it is a shadow's copy of.
    pub mirror_of: Option<RequestId>,
    /// The batch and the line of its input that it is.
    pub line: Option<(Name, i64)>,
    /// What its idempotency key meant (`first`, `joined`, `replayed`), and the request that was the first with the key.
    pub idempotency: Option<(&'static str, RequestId)>,
}

/// A request that has nothing to do with others.
pub const NO_TIES: &Ties = &Ties {
    fallbacks: Vec::new(),
    stops: Vec::new(),
    tensors: None,
    mirror_of: None,
    line: None,
    idempotency: None,
};

impl Ties {
    /// The model that a decision is about, if it is not the one asked for.
    pub(super) fn model_of(&self, decision: usize) -> Option<&Name> {
        self.stops.iter().rev().find(|stop| stop.decision <= decision).map(|stop| &stop.model)
    }

    pub(super) fn fallbacks_json(&self) -> Option<Value> {
        let named = self.fallbacks.iter().map(|(name, why)| json!({"model": name, "left_out": why}));
        (!self.fallbacks.is_empty()).then(|| named.collect())
    }
}
