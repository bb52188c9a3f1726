//! What clients may ask for: queries of lists and the body of a new batch, held to their forms field by field.

use percent_encoding::percent_decode_str;
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::Operation;
use serde_json::Value;

use super::rows::Page;
use crate::http::route::printable;
use crate::members::Members;

/// Pairs that `metadata` may have, and characters of a key and a value.
const METADATA: (usize, usize, usize) = (16, 64, 512);
/// Seconds that results may be kept for, as their owner says.
const KEEP_S: std::ops::RangeInclusive<i64> = 3_600..=2_592_000;

/// Fields of a new batch.
const KNOWN: [&str; 5] =
    ["input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"];

/// An error that names the field at fault.
pub(super) fn wrong(param: &str, code: &'static str, text: impl Into<String>) -> ErrorBody {
    ErrorBody::router(400, "invalid_request_error", code, text).with_param(param)
}

fn invalid(param: &str, text: &str) -> ErrorBody {
    wrong(param, "invalid_value", format!("`{param}` {text}"))
}

/// The page that a query asks for, of `usual` and at most `most`.
pub fn page(query: Option<&str>, usual: u32, most: u32) -> Result<Page, ErrorBody> {
    let mut page = Page { limit: usual, ..Page::default() };
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value =
            percent_decode_str(value).decode_utf8().map_err(|_| invalid(&printable(name), "is not UTF-8"))?;
        match name {
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=most).contains(limit));
                let text = format!("must be a whole number from 1 to {most}");
                page.limit = limit.ok_or_else(|| invalid("limit", &text))?;
            }
            "after" => page.after = Some(value.into_owned()),
            "order" => {
                page.ascending = match &*value {
                    "asc" => true,
                    "desc" => false,
                    _ => return Err(invalid("order", "must be `asc` or `desc`")),
                }
            }
            "purpose" => page.purpose = Some(value.into_owned()),
            // Clients send what newer versions of the API know.
            _ => {}
        }
    }
    Ok(page)
}

/// A new batch as its body describes it.
#[derive(Debug)]
pub struct Wanted {
    /// The file with its requests.
    pub input_file_id: String,
    /// The path of its requests.
    pub endpoint: Operation,
    /// What its owner notes.
    pub metadata: Option<Value>,
    /// How long its results are kept, if its owner says.
    pub output_keep_s: Option<i64>,
}

/// Reads the body of a new batch.
pub fn new_batch(body: &[u8]) -> Result<Wanted, ErrorBody> {
    let Members { all: body, twice } = serde_json::from_slice(body)
        .map_err(|error| ErrorBody::malformed(format!("the body is not a JSON object: {error}")))?;
    if let Some(name) = twice {
        let name = printable(&name);
        let text = format!("`{name}` appears twice in the body; send it once");
        return Err(wrong(&name, "invalid_value", text));
    }
    if let Some(unknown) = body.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        let name = printable(unknown);
        let text = format!("`{name}` is no field of a batch; known: {}", KNOWN.join(", "));
        return Err(wrong(&name, "unknown_parameter", text));
    }
    let text = |name: &'static str| match body.get(name) {
        Some(Value::String(text)) => Ok(text.as_str()),
        None | Some(Value::Null) => {
            Err(wrong(name, "missing_required_parameter", format!("`{name}` is missing")))
        }
        Some(_) => Err(wrong(name, "invalid_type", format!("`{name}` must be a string"))),
    };
    let input_file_id = text("input_file_id")?.to_owned();
    let paths = || Operation::TEXT.map(Operation::path).join(", ");
    let endpoint = Operation::of_text_path(text("endpoint")?)
        .ok_or_else(|| invalid("endpoint", &format!("must be one of: {}", paths())))?;
    if text("completion_window")? != "24h" {
        return Err(invalid("completion_window", "must be `24h`"));
    }
    Ok(Wanted {
        input_file_id,
        endpoint,
        metadata: metadata(body.get("metadata"))?,
        output_keep_s: keep(body.get("output_expires_after"))?,
    })
}

fn metadata(given: Option<&Value>) -> Result<Option<Value>, ErrorBody> {
    let given = match given {
        None | Some(Value::Null) => return Ok(None),
        Some(given) => given,
    };
    let (pairs_max, key_max, value_max) = METADATA;
    let fits = given.as_object().is_some_and(|pairs| {
        pairs.len() <= pairs_max
            && pairs.iter().all(|(key, value)| {
                let value = value.as_str().map(|value| value.chars().count());
                key.chars().count() <= key_max && value.is_some_and(|chars| chars <= value_max)
            })
    });
    if !fits {
        let text = format!(
            "must be an object of at most {pairs_max} pairs, with keys of at most {key_max} characters and strings of \
             at most {value_max}"
        );
        return Err(invalid("metadata", &text));
    }
    Ok(Some(given.clone()))
}

/// `{"anchor": "created_at", "seconds": N}`.
fn keep(given: Option<&Value>) -> Result<Option<i64>, ErrorBody> {
    let given = match given {
        None | Some(Value::Null) => return Ok(None),
        Some(given) => given,
    };
    if given["anchor"] != "created_at" {
        return Err(invalid("output_expires_after.anchor", "must be `created_at`"));
    }
    seconds("output_expires_after.seconds", given["seconds"].as_i64()).map(Some)
}

/// Holds the time that a file is to be kept for to what is allowed.
pub(super) fn seconds(param: &str, given: Option<i64>) -> Result<i64, ErrorBody> {
    let (least, most) = (KEEP_S.start(), KEEP_S.end());
    let text = format!("must be a whole number from {least} to {most}");
    given.filter(|seconds| KEEP_S.contains(seconds)).ok_or_else(|| invalid(param, &text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn refused(change: &Value, param: &str, code: &str) {
        let mut body =
            json!({"input_file_id": "file-1", "endpoint": "/v1/embeddings", "completion_window": "24h"});
        for (key, value) in change.as_object().expect("an object") {
            body[key] = value.clone();
        }
        let error = new_batch(body.to_string().as_bytes()).expect_err("refused");
        assert_eq!((error.param.as_deref(), error.code.as_deref()), (Some(param), Some(code)), "{error:?}");
        assert_eq!(error.status, 400);
    }

    #[test]
    fn a_batch_is_held_to_its_form_and_the_field_is_named() {
        let body = br#"{"input_file_id":"f","endpoint":"/v1/chat/completions","completion_window":"24h",
            "metadata":{"a":"b"},"output_expires_after":{"anchor":"created_at","seconds":3600}}"#;
        let wanted = new_batch(body).expect("valid");
        assert_eq!((wanted.endpoint, wanted.output_keep_s), (Operation::Chat, Some(3600)));
        assert_eq!(wanted.metadata, Some(json!({"a": "b"})));
        refused(&json!({"input_file_id": null}), "input_file_id", "missing_required_parameter");
        refused(&json!({"input_file_id": 7}), "input_file_id", "invalid_type");
        refused(&json!({"endpoint": "/v1/images"}), "endpoint", "invalid_value");
        refused(&json!({"completion_window": "1h"}), "completion_window", "invalid_value");
        refused(&json!({"metadata": {"a": 1}}), "metadata", "invalid_value");
        refused(&json!({"metadata": {"a": "x".repeat(513)}}), "metadata", "invalid_value");
        refused(&json!({"window": 1}), "window", "unknown_parameter");
        let short = json!({"output_expires_after": {"anchor": "created_at", "seconds": 1}});
        refused(&short, "output_expires_after.seconds", "invalid_value");
        let anchor = json!({"output_expires_after": {"anchor": "now", "seconds": 3600}});
        refused(&anchor, "output_expires_after.anchor", "invalid_value");
        assert_eq!(new_batch(b"[]").expect_err("refused").status, 400);
        for twice in [
            &b"{\"input_file_id\":\"f\",\"input_file_id\":\"g\"}"[..],
            br#"{"endpoint":1,"endp\u006fint":2}"#,
        ] {
            let error = new_batch(twice).expect_err("c4: refused");
            assert!(error.message.contains("appears twice") && error.param.is_some(), "{error:?}");
        }
    }

    #[test]
    fn pages_have_bounds() {
        let asked =
            page(Some("after=file%2D1&limit=7&order=asc&purpose=batch&new=1"), 20, 100).expect("valid");
        assert_eq!((asked.after.as_deref(), asked.limit, asked.ascending), (Some("file-1"), 7, true));
        assert_eq!(asked.purpose.as_deref(), Some("batch"));
        assert_eq!(page(None, 20, 100).expect("valid").limit, 20);
        for (query, param) in
            [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("order=up", "order")]
        {
            assert_eq!(page(Some(query), 20, 100).expect_err(query).param.as_deref(), Some(param));
        }
    }
}
