//! Provider truth: what a provider's answers say, in their headers, of its limits and of themselves.
//!
//! Every provider has a spelling of its own. What is no number, no duration and no date is passed over: a header is a hint,
//! never a reason to fail.

mod spans;

use crate::openai::error::retry_after_ms;

use spans::reset_ms;

/// Windows that are told apart, such as requests a minute and requests a day.
const WINDOWS_MAX: usize = 16;
/// The longest id that is kept, in bytes.
const ID_BYTES_MAX: usize = 128;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dimension {
    Requests,
    Tokens,
    TokensIn,
    TokensOut,
}

/// What is known of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// How much there may be in its window.
    pub limit: Option<u64>,
    /// How much is left.
    pub remaining: Option<u64>,
    /// When there is all of it again, in milliseconds from now.
    pub reset_ms: Option<u64>,
}

impl Limit {
    /// Whether nothing is known.
    pub const fn is_unknown(&self) -> bool {
        self.limit.is_none() && self.remaining.is_none() && self.reset_ms.is_none()
    }
}

/// What the headers of one answer say. Of several windows the one counts in which the least is left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Truth {
    /// Requests.
    pub requests: Limit,
    /// Tokens, of prompts and answers together.
    pub tokens: Limit,
    /// Tokens of prompts.
    pub tokens_in: Limit,
    /// Tokens of answers.
    pub tokens_out: Limit,
    /// When to ask again, in milliseconds from now.
    pub retry_after_ms: Option<u64>,
    /// The provider's own id of the answer, cut to printable ASCII.
    pub request_id: Option<String>,
}

/// Headers that carry the id of an answer, the most telling first.
const REQUEST_IDS: [&str; 10] = [
    "x-request-id",
    "request-id",
    "x-amzn-requestid",
    "x-amz-request-id",
    "apim-request-id",
    "x-ms-request-id",
    "x-goog-request-id",
    "x-groq-request-id",
    "x-inference-id",
    "cf-ray",
];

/// Reads the headers of an answer, names in lower case or not.
pub fn read<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>, now_unix_ms: u64) -> Truth {
    let mut reader = Reader { now_unix_ms, ..Reader::default() };
    for (name, value) in headers {
        reader.take(&name.to_ascii_lowercase(), value.trim());
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    now_unix_ms: u64,
    windows: Vec<(Dimension, String, Limit)>,
    retry_after_s: Option<u64>,
    retry_after_ms: Option<u64>,
    request_id: Option<(usize, String)>,
}

/// Which of a limit's three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Limit,
    Remaining,
    Reset,
}

impl Reader {
    fn take(&mut self, name: &str, value: &str) {
        match name {
            "retry-after" => self.retry_after_s = retry_after_ms(value, self.now_unix_ms / 1_000),
            // The finer one, where both are given.
            "retry-after-ms" | "x-ms-retry-after-ms" => {
                let ms = value.parse::<f64>().ok().filter(|ms| ms.is_finite() && *ms >= 0.0);
                self.retry_after_ms = ms.map(|ms| ms as u64).or(self.retry_after_ms);
            }
            "ratelimit" | "x-ratelimit" | "ratelimit-policy" => self.take_structured(name, value),
            _ => {
                if let Some(rank) = REQUEST_IDS.iter().position(|known| *known == name) {
                    return self.take_id(rank, value);
                }
                if let Some((dimension, window, field)) = meaning(name) {
                    self.put(dimension, &window, field, value);
                }
            }
        }
    }

    fn take_id(&mut self, rank: usize, value: &str) {
        let id: String = value.chars().filter(char::is_ascii_graphic).take(ID_BYTES_MAX).collect();
        if !id.is_empty() && self.request_id.as_ref().is_none_or(|(known, _)| rank < *known) {
            self.request_id = Some((rank, id));
        }
    }

    fn window(&mut self, dimension: Dimension, window: &str) -> Option<&mut Limit> {
        let at = self.windows.iter().position(|(known, name, _)| *known == dimension && name == window);
        if at.is_none() && self.windows.len() < WINDOWS_MAX {
            self.windows.push((dimension, window.to_owned(), Limit::default()));
        }
        let at = at.unwrap_or(self.windows.len().saturating_sub(1));
        let (known, name, limit) = self.windows.get_mut(at)?;
        (*known == dimension && name == window).then_some(limit)
    }

    fn put(&mut self, dimension: Dimension, window: &str, field: Field, value: &str) {
        let now_unix_ms = self.now_unix_ms;
        let read = match field {
            // `100, 100;w=60` and `1e6` are seen as well.
            Field::Limit | Field::Remaining => count(value.split([',', ';']).next().unwrap_or_default()),
            Field::Reset => reset_ms(value, now_unix_ms),
        };
        let (Some(read), Some(limit)) = (read, self.window(dimension, window)) else { return };
        match field {
            Field::Limit => limit.limit = Some(read),
            Field::Remaining => limit.remaining = Some(read),
            Field::Reset => limit.reset_ms = Some(read),
        }
    }

    /// `"burst";r=50;t=30` and `"burst";q=100;w=60` of the IETF's draft, or `limit=100, remaining=50, reset=30` of the
    /// one before.
    fn take_structured(&mut self, name: &str, value: &str) {
        if name != "ratelimit-policy" && value.contains("remaining=") {
            for item in value.split([',', ';']) {
                let (key, value) = item.split_once('=').unwrap_or((item, ""));
                let field = match key.trim() {
                    "limit" => Field::Limit,
                    "remaining" => Field::Remaining,
                    "reset" => Field::Reset,
                    _ => continue,
                };
                self.put(Dimension::Requests, "", field, value.trim());
            }
            return;
        }
        for item in value.split(',') {
            let mut parts = item.split(';');
            let policy = parts.next().unwrap_or_default().trim().trim_matches('"').to_ascii_lowercase();
            let parameters: Vec<(&str, &str)> = parts
                .filter_map(|part| part.split_once('='))
                .map(|(key, value)| (key.trim(), value.trim().trim_matches('"')))
                .collect();
            let unit = parameters.iter().find(|(key, _)| *key == "qu").map_or("", |(_, unit)| *unit);
            let dimension = structured_dimension(&policy, unit);
            for (key, value) in parameters {
                let field = match key {
                    "q" => Field::Limit,
                    "r" => Field::Remaining,
                    "t" => Field::Reset,
                    _ => continue,
                };
                self.put(dimension, &policy, field, value);
            }
        }
    }

    fn finish(self) -> Truth {
        let least = |dimension: Dimension| {
            let of =
                self.windows.iter().filter(|(known, _, limit)| *known == dimension && !limit.is_unknown());
            // Where nothing is said of what is left, another window knows better.
            of.min_by_key(|(_, _, limit)| limit.remaining.unwrap_or(u64::MAX))
                .map_or_else(Limit::default, |(_, _, limit)| *limit)
        };
        Truth {
            requests: least(Dimension::Requests),
            tokens: least(Dimension::Tokens),
            tokens_in: least(Dimension::TokensIn),
            tokens_out: least(Dimension::TokensOut),
            retry_after_ms: self.retry_after_ms.or(self.retry_after_s),
            request_id: self.request_id.map(|(_, id)| id),
        }
    }
}

fn structured_dimension(policy: &str, unit: &str) -> Dimension {
    match unit {
        "tokens" | "token" => Dimension::Tokens,
        "" => dimension_of(policy).map_or(Dimension::Requests, |(dimension, _)| dimension),
        _ => Dimension::Requests,
    }
}

/// A whole number; a fraction is cut off.
fn count(value: &str) -> Option<u64> {
    let value = value.trim().replace('_', "");
    value.parse().ok().or_else(|| {
        let number: f64 = value.parse().ok()?;
        (number.is_finite() && number >= 0.0).then_some(number as u64)
    })
}

/// What a header's name says: what is counted, in which window, and which number it is.
fn meaning(name: &str) -> Option<(Dimension, String, Field)> {
    let (rest, by_size) = if let Some(rest) = name.strip_prefix("x-ratelimitbysize-") {
        (rest, true)
    } else {
        let rest = ["x-ratelimit-", "anthropic-ratelimit-", "ratelimit-", "x-rate-limit-"]
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix))?;
        (rest, false)
    };
    let words: Vec<&str> = rest.split('-').collect();
    let field_at = words.iter().position(|word| matches!(*word, "limit" | "remaining" | "reset"));
    let field = match field_at.map(|at| words[at]) {
        Some("limit") => Field::Limit,
        Some("remaining") => Field::Remaining,
        Some("reset") => Field::Reset,
        Some(_) | None => return None,
    };
    let others: Vec<&str> =
        words.iter().enumerate().filter(|(at, _)| Some(*at) != field_at).map(|(_, word)| *word).collect();
    let others = others.join("-");
    if by_size {
        return Some((Dimension::Tokens, others, field));
    }
    if others.is_empty() {
        return Some((Dimension::Requests, others, field));
    }
    let (dimension, window) = dimension_of(&others)?;
    Some((dimension, window, field))
}

/// Words of names that say what is counted.
const KINDS: [&str; 12] = [
    "tokens",
    "token",
    "tok",
    "tpm",
    "requests",
    "request",
    "req",
    "rpm",
    "input",
    "prompt",
    "output",
    "generated",
];

/// What is counted by a name such as `input-tokens`, `tokens-minute` or `req-day`, and what else it says.
fn dimension_of(name: &str) -> Option<(Dimension, String)> {
    let words: Vec<&str> = name.split(['-', '_', ' ']).filter(|word| !word.is_empty()).collect();
    let has = |names: &[&str]| words.iter().any(|word| names.contains(word));
    let tokens = has(&["tokens", "token", "tpm", "tok"]);
    let dimension = if tokens && has(&["input", "prompt"]) {
        Dimension::TokensIn
    } else if tokens && has(&["output", "generated", "completion"]) {
        Dimension::TokensOut
    } else if tokens {
        Dimension::Tokens
    } else if has(&["requests", "request", "req", "rpm", "minute", "day", "second", "hour"]) {
        Dimension::Requests
    } else {
        return None;
    };
    let window = words.into_iter().filter(|word| !KINDS.contains(word)).collect::<Vec<_>>().join("-");
    Some((dimension, window))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    const fn limit(limit: u64, remaining: u64, reset_ms: u64) -> Limit {
        Limit { limit: Some(limit), remaining: Some(remaining), reset_ms: Some(reset_ms) }
    }

    #[test]
    fn openai_and_groq() {
        let truth = read(
            [
                ("X-RateLimit-Limit-Requests", "10000"),
                ("x-ratelimit-remaining-requests", "9999"),
                ("x-ratelimit-reset-requests", "8.64s"),
                ("x-ratelimit-limit-tokens", "150000"),
                ("x-ratelimit-remaining-tokens", "149984"),
                ("x-ratelimit-reset-tokens", "1m30.5s"),
                ("x-request-id", "req_1"),
            ],
            NOW,
        );
        assert_eq!(truth.requests, limit(10_000, 9_999, 8_640));
        assert_eq!(truth.tokens, limit(150_000, 149_984, 90_500));
        assert_eq!(truth.request_id.as_deref(), Some("req_1"));
        assert!(truth.tokens_in.is_unknown() && truth.retry_after_ms.is_none());
    }

    #[test]
    fn anthropic() {
        let truth = read(
            [
                ("anthropic-ratelimit-requests-limit", "50"),
                ("anthropic-ratelimit-requests-remaining", "49"),
                ("anthropic-ratelimit-requests-reset", "2023-11-14T22:13:21Z"),
                ("anthropic-ratelimit-tokens-limit", "100000"),
                ("anthropic-ratelimit-input-tokens-limit", "80000"),
                ("anthropic-ratelimit-input-tokens-remaining", "79000"),
                ("anthropic-ratelimit-input-tokens-reset", "2023-11-14T22:14:20Z"),
                ("anthropic-ratelimit-output-tokens-remaining", "16000"),
                ("anthropic-ratelimit-unified-status", "allowed"),
                ("request-id", "req_011"),
                ("retry-after", "7"),
            ],
            NOW,
        );
        assert_eq!(truth.requests, limit(50, 49, 1_000));
        assert_eq!(truth.tokens, Limit { limit: Some(100_000), ..Limit::default() });
        assert_eq!(truth.tokens_in, limit(80_000, 79_000, 60_000));
        assert_eq!(truth.tokens_out, Limit { remaining: Some(16_000), ..Limit::default() });
        assert_eq!((truth.request_id.as_deref(), truth.retry_after_ms), (Some("req_011"), Some(7_000)));
    }

    #[test]
    fn windows_of_which_the_tightest_counts() {
        let truth = read(
            [
                ("x-ratelimit-limit-requests-day", "14400"),
                ("x-ratelimit-remaining-requests-day", "14000"),
                ("x-ratelimit-reset-requests-day", "33011.382867"),
                ("x-ratelimit-limit-tokens-minute", "60000"),
                ("x-ratelimit-remaining-tokens-minute", "59000"),
                ("x-ratelimit-reset-tokens-minute", "11.38"),
                ("x-ratelimit-limit-req-minute", "30"),
                ("x-ratelimit-remaining-req-minute", "3"),
            ],
            NOW,
        );
        assert_eq!(truth.requests, Limit { limit: Some(30), remaining: Some(3), reset_ms: None });
        assert_eq!(truth.tokens, limit(60_000, 59_000, 11_380));
    }

    #[test]
    fn the_drafts_of_the_ietf() {
        let truth = read(
            [
                (
                    "ratelimit-policy",
                    r#""burst";q=100;w=60,"day";q=1000;w=86400, "tok";q=5000;w=60;qu="tokens""#,
                ),
                ("ratelimit", r#""burst";r=50;t=30, "day";r=10;t=7000, "tok";r=9;t=1"#),
            ],
            NOW,
        );
        assert_eq!(truth.requests, limit(1_000, 10, 7_000_000));
        assert_eq!(truth.tokens, limit(5_000, 9, 1_000));
        let older = read([("RateLimit", "limit=100, remaining=50, reset=5")], NOW);
        assert_eq!(older.requests, limit(100, 50, 5_000));
        let oldest = read(
            [("ratelimit-limit", "100, 100;w=60"), ("ratelimit-remaining", "7"), ("ratelimit-reset", "5")],
            NOW,
        );
        assert_eq!(oldest.requests, limit(100, 7, 5_000));
    }

    #[test]
    fn azure_openrouter_fireworks_and_mistral() {
        let azure = read(
            [
                ("x-ratelimit-remaining-requests", "1"),
                ("x-ratelimit-remaining-tokens", "-1"),
                ("retry-after-ms", "1250"),
                ("retry-after", "2"),
                ("apim-request-id", "a-1"),
                ("x-ms-request-id", "m-1"),
            ],
            NOW,
        );
        assert_eq!(azure.requests.remaining, Some(1));
        assert_eq!(azure.tokens, Limit::default());
        assert_eq!((azure.retry_after_ms, azure.request_id.as_deref()), (Some(1_250), Some("a-1")));
        let openrouter = read([("X-RateLimit-Limit", "20"), ("X-RateLimit-Reset", "1700000060000")], NOW);
        assert_eq!(openrouter.requests, Limit { limit: Some(20), remaining: None, reset_ms: Some(60_000) });
        let fireworks = read(
            [("x-ratelimit-limit-tokens-prompt", "60000"), ("x-ratelimit-remaining-tokens-generated", "5")],
            NOW,
        );
        assert_eq!((fireworks.tokens_in.limit, fireworks.tokens_out.remaining), (Some(60_000), Some(5)));
        let mistral = read([("x-ratelimitbysize-remaining-minute", "499000")], NOW);
        assert_eq!(mistral.tokens.remaining, Some(499_000));
        let aws = read([("x-amzn-requestid", "b3\r\n<b>é"), ("x-request-id", "")], NOW);
        assert_eq!(aws.request_id.as_deref(), Some("b3<b>"));
    }

    #[test]
    fn garbage_is_passed_over() {
        let names = [
            "x-ratelimit-remaining-requests",
            "x-ratelimit-reset-tokens",
            "ratelimit",
            "ratelimit-policy",
            "retry-after",
            "retry-after-ms",
            "anthropic-ratelimit-tokens-reset",
            "x-ratelimit-",
            "ratelimit-limit-limit",
            "x-ratelimit-reset",
        ];
        let values = [
            "",
            "-5",
            "NaN",
            "inf",
            "soon",
            ";;,=",
            "\"a;q=",
            "é",
            "1e999",
            "-1ms",
            "1h2",
            "2023-99-99T00:00:00Z",
        ];
        for name in names {
            for value in values {
                let truth = read([(name, value)], NOW);
                assert!(truth.requests.remaining.is_none() && truth.request_id.is_none(), "{name}: {value}");
            }
        }
        let many: Vec<String> = (0..100).map(|at| format!("x-ratelimit-remaining-requests-w{at}")).collect();
        let truth = read(many.iter().map(|name| (name.as_str(), "5")), NOW);
        assert_eq!(truth.requests.remaining, Some(5));
    }
}
