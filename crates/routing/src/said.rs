//! What a provider says of itself beside its answers: what is left of its limits, its own id of the answer, and which model
//! it was.

use std::time::Duration;

use crate::catalog::Name;

/// What is known of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowance {
    /// How much there may be in its window; 0 is taken for no limit.
    pub limit: Option<u64>,
    /// How much is left.
    pub remaining: Option<u64>,
    /// When there is all of it again, from the moment it was said.
    pub resets_in: Option<Duration>,
}

impl Allowance {
    /// Whether nothing is said.
    pub const fn is_unknown(&self) -> bool {
        self.limit.is_none() && self.remaining.is_none() && self.resets_in.is_none()
    }
}

/// What is left of each limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowances {
    /// Requests.
    pub requests: Allowance,
    /// Tokens, of prompts and answers together.
    pub tokens: Allowance,
    /// Tokens of prompts.
    pub tokens_in: Allowance,
    /// Tokens of answers.
    pub tokens_out: Allowance,
}

impl Allowances {
    /// Each with its name.
    pub const fn named(&self) -> [(&'static str, Allowance); 4] {
        [
            ("requests", self.requests),
            ("tokens", self.tokens),
            ("tokens_in", self.tokens_in),
            ("tokens_out", self.tokens_out),
        ]
    }

    /// Whether nothing is said of any.
    pub fn is_unknown(&self) -> bool {
        self.named().iter().all(|(_, one)| one.is_unknown())
    }
}

/// What a provider says of itself beside an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// What is left of the limits of what it was asked with, if it tells.
    pub allowances: Option<Box<Allowances>>,
    /// Its own id of the answer.
    pub request_id: Option<Name>,
    /// The model that answered, as it names it: the dated snapshot behind an alias.
    pub model: Option<Name>,
}

impl Said {
    /// Adds what was said later.
    pub fn merge(&mut self, later: Self) {
        self.allowances = later.allowances.or(self.allowances.take());
        self.request_id = later.request_id.or(self.request_id.take());
        self.model = later.model.or(self.model.take());
    }
}
