//! What a world is like.

use crate::fault::Fault;
use crate::scenario::Rate;

/// What the world is like.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The model that is asked for.
    pub model: String,
    /// Requests in all, at most.
    pub requests: u64,
    /// Time after which no more arrive, seconds.
    pub duration_s: f64,
    /// Requests a second, each from its moment on, at random moments (Poisson). At least one.
    pub rates: Vec<Rate>,
    /// Prompt tokens on average.
    pub tokens_in_mean: u32,
    /// Output tokens on average.
    pub tokens_out_mean: u32,
    /// Time before the first content that does not depend on the prompt, milliseconds.
    pub first_content_base_ms: u64,
    /// Time per prompt token, microseconds.
    pub prefill_us_per_token: u64,
    /// Time per output token, microseconds.
    pub decode_us_per_token: u64,
    /// Share of attempts that fail with 500, whatever else goes wrong.
    pub error_rate: f64,
    /// Share of clients that leave at some moment of their request.
    pub leave_rate: f64,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            model: String::new(),
            requests: 10_000,
            duration_s: f64::INFINITY,
            rates: vec![Rate { from_s: 0.0, per_s: 50.0 }],
            tokens_in_mean: 500,
            tokens_out_mean: 100,
            first_content_base_ms: 0,
            prefill_us_per_token: 100,
            decode_us_per_token: 5_000,
            error_rate: 0.0,
            leave_rate: 0.0,
            faults: Vec::new(),
        }
    }
}
