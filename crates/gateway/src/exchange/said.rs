//! What providers say of themselves beside their answers, in the words of routing.

use std::time::Duration;

use http::HeaderMap;
use pointsman_routing::said::{Allowance, Allowances, Said};
use pointsman_wire::truth::{self, Limit};

use crate::clock;

/// Bytes of a model's name that are kept.
const MODEL_BYTES_MAX: usize = 256;

/// Whether a header of this name may tell something; the values of the others are not even read.
fn is_telling(name: &str) -> bool {
    match name.as_bytes().first() {
        Some(b'x' | b'a' | b'r') => {
            name.ends_with("id") || name.contains("ratelimit") || name.contains("rate-limit")
        }
        Some(b'c') => name == "cf-ray",
        Some(_) | None => false,
    }
}

/// What the head of an answer says; `None` if that is nothing.
pub(super) fn of_head(headers: &HeaderMap) -> Option<Said> {
    let telling = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str();
        is_telling(name).then_some((name, value.to_str().ok()?))
    });
    let mut telling = telling.peekable();
    telling.peek()?;
    let truth = truth::read(telling, clock::unix_ms());
    let allowances = Allowances {
        requests: allowance(truth.requests),
        tokens: allowance(truth.tokens),
        tokens_in: allowance(truth.tokens_in),
        tokens_out: allowance(truth.tokens_out),
    };
    let allowances = (!allowances.is_unknown()).then(|| Box::new(allowances));
    let said = Said { allowances, request_id: truth.request_id.map(Into::into), model: None };
    (said != Said::default()).then_some(said)
}

/// When an answer's head says to be asked again, in milliseconds from now: as finely as it says it.
pub(super) fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let names = ["retry-after", "retry-after-ms", "x-ms-retry-after-ms"];
    let told = names.into_iter().filter_map(|name| Some((name, headers.get(name)?.to_str().ok()?)));
    truth::read(told, clock::unix_ms()).retry_after_ms
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

/// Adds that this is the model which answered.
pub(super) fn add_model(said: &mut Option<Said>, model: &str) {
    let model = &model[..model.floor_char_boundary(MODEL_BYTES_MAX)];
    said.get_or_insert_default().model = Some(model.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_every_vendor_are_read_and_others_are_not() {
        for vendor in pointsman_wire::vendor::vendors() {
            for name in vendor.limit_headers.iter().filter(|name| *name != "retry-after") {
                assert!(is_telling(name), "{}: {name}", vendor.kind);
            }
        }
        for name in
            ["anthropic-ratelimit-tokens-reset", "ratelimit", "request-id", "x-amzn-requestid", "cf-ray"]
        {
            assert!(is_telling(name), "{name}");
        }
        for name in ["content-type", "date", "server", "cache-control", "x-powered-by", "age", "retry-after"]
        {
            assert!(!is_telling(name), "{name}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(of_head(&headers), None);
        headers.insert("x-request-id", http::HeaderValue::from_static("req_1"));
        headers.insert("x-ratelimit-remaining-tokens", http::HeaderValue::from_static("7"));
        let said = of_head(&headers).expect("it says something");
        let left = said.allowances.and_then(|allowances| allowances.tokens.remaining);
        assert_eq!((said.request_id.as_deref(), left), (Some("req_1"), Some(7)));
    }

    #[test]
    fn e3_the_finest_wait_counts() {
        let check = |pairs: &[(&'static str, &'static str)], expected: Option<u64>| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, http::HeaderValue::from_static(value));
            }
            assert_eq!(retry_after_ms(&headers), expected, "{pairs:?}");
        };
        check(&[("retry-after", "2")], Some(2_000));
        check(&[("retry-after", "2"), ("retry-after-ms", "1250")], Some(1_250));
        check(&[("x-ms-retry-after-ms", "700")], Some(700));
        check(&[("retry-after-ms", "soon"), ("retry-after", "3")], Some(3_000));
        check(&[("x-request-id", "5")], None);
    }
}
