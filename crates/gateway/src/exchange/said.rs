//! What providers say of themselves beside their answers, in the words of routing.

use std::time::Duration;

use http::HeaderMap;
use pointsman_routing::said::{Allowance, Allowances, Said};
use pointsman_wire::truth::{self, Limit};

use crate::clock;

/// Parts of the names of headers that tell something; the others are not even read.
const TELLING: [&str; 6] = ["ratelimit", "rate-limit", "request-id", "requestid", "inference-id", "cf-ray"];

/// What the head of an answer says; `None` if that is nothing.
pub(super) fn of_head(headers: &HeaderMap) -> Option<Said> {
    let telling = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str();
        TELLING.iter().any(|part| name.contains(part)).then_some((name, value.to_str().ok()?))
    });
    let truth = truth::read(telling, clock::unix_ms());
    let said = Said {
        allowances: Allowances {
            requests: allowance(truth.requests),
            tokens: allowance(truth.tokens),
            tokens_in: allowance(truth.tokens_in),
            tokens_out: allowance(truth.tokens_out),
        },
        request_id: truth.request_id.map(Into::into),
        model: None,
    };
    (said != Said::default()).then_some(said)
}

const fn allowance(limit: Limit) -> Allowance {
    Allowance {
        limit: limit.limit,
        remaining: limit.remaining,
        resets_in: match limit.reset_ms {
            Some(ms) => Some(Duration::from_millis(ms)),
            None => None,
        },
    }
}

/// That this is the model which answered.
pub(super) fn of_model(model: &str) -> Said {
    Said { model: Some(model.into()), ..Said::default() }
}
