//! How clients of Gemini's and of Anthropic's API are relayed: on other paths, and with what Vertex AI wants in the body
//! besides, or not at all.

use bytes::Bytes;

use crate::dialect::{Asked, CONVERTED_DEPTH_MAX, Relay, Wrapping};
use crate::json::{Scanner, Span};
use crate::openai::request::{Operation, Request};
use crate::openai::rewrite::{Edit, Edits, cut_member, member_of, model_edit};

use super::{ANTHROPIC_VERSION, Publisher, path_of};

/// Clients of the Gemini API. Embeddings are asked for in another form here, which is not spoken.
pub(super) const GEMINI: Relay = Relay {
    client: "gemini",
    operations: &[Operation::Chat],
    path: gemini_path,
    wrapping: Some(&Wrapping { stream_path: gemini_path, edits: gemini_edits }),
};

/// Clients of Anthropic's API.
pub(super) const ANTHROPIC: Relay = Relay {
    client: "anthropic",
    operations: &[Operation::Chat],
    path: |asked, model| Some(anthropic_path(asked, model, Publisher::Anthropic.method(false))),
    wrapping: Some(&Wrapping {
        stream_path: |asked, model| Some(anthropic_path(asked, model, Publisher::Anthropic.method(true))),
        edits: anthropic_edits,
    }),
};

/// The call that counts tokens, in either API.
const GEMINI_COUNT: &str = "countTokens";
const ANTHROPIC_COUNT: &str = "messages/count_tokens";
/// What Anthropic's tokens are counted by; the body names the model.
const COUNTER: &str = "count-tokens";

/// Calls that Vertex AI has under the same names. A stream that is to be one array is read of events.
fn gemini_path(asked: &Asked, model: &str) -> Option<String> {
    let taken = ["generateContent", "streamGenerateContent?alt=sse", GEMINI_COUNT].contains(&asked.call);
    let model = model.strip_prefix("models/").unwrap_or(model);
    taken.then(|| path_of(Publisher::Google, model, asked.call))
}

/// The path names the model, and a count asks for what stands inside the request that the Gemini API takes.
fn gemini_edits(asked: &Asked, request: &Request, body: &Bytes, _: &Bytes) -> Edits {
    let whole = Span { start: 0, end: body.len() };
    let inner = if asked.call == GEMINI_COUNT { inner_request(body) } else { None }.unwrap_or(whole);
    let around = [Span { start: 0, end: inner.start }, Span { start: inner.end, end: whole.end }];
    let cut = around.into_iter().filter(|span| !span.is_empty());
    let mut edits: Edits = cut.map(|span| Edit::new(span, Bytes::new())).collect();
    let named = request.spans.named.iter().filter(|span| inner.start <= span.start && span.end <= inner.end);
    edits.extend(named.map(|span| cut_member(member_of(*span, body), body)));
    edits
}

/// Where a count holds the request that it is about.
fn inner_request(body: &[u8]) -> Option<Span> {
    let mut scanner = Scanner::new(std::str::from_utf8(body).ok()?, CONVERTED_DEPTH_MAX);
    let mut members = scanner.object().ok()?;
    while let Some(key) = scanner.next_key(&mut members).ok()? {
        let is_it = key.is("generateContentRequest") || key.is("generate_content_request");
        let value = scanner.skip_value().ok()?;
        if is_it {
            return Some(value);
        }
    }
    None
}

fn anthropic_path(asked: &Asked, model: &str, method: &str) -> String {
    if asked.call == ANTHROPIC_COUNT {
        return path_of(Publisher::Anthropic, COUNTER, Publisher::Anthropic.method(false));
    }
    path_of(Publisher::Anthropic, model, method)
}

/// The version stands where the model stood; where tokens are counted, before all else.
fn anthropic_edits(asked: &Asked, request: &Request, body: &Bytes, model: &Bytes) -> Edits {
    let version = format!(r#""anthropic_version":"{ANTHROPIC_VERSION}""#);
    let mut edits = Edits::new();
    if asked.call == ANTHROPIC_COUNT {
        let at = request.spans.body_start;
        edits.push(Edit::new(Span { start: at, end: at }, Bytes::from(version + ",")));
        edits.extend(model_edit(request, body, model));
    } else {
        edits.push(Edit::new(member_of(request.spans.model, body), version.into()));
    }
    edits
}

#[cfg(test)]
mod tests {
    use super::super as vertex;
    use crate::dialect::{ProviderDef, client, route};
    use crate::openai::request::BodyLimits;
    use crate::openai::rewrite::{literal, rewrite_wrapped};

    /// The path and the body for the upstream's model `up@1`, of a request to that path.
    fn sent(
        provider: &ProviderDef,
        path: &str,
        body: &'static str,
        stream: bool,
    ) -> Option<(String, String)> {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let (dialect, asked) = route(path, query).unwrap();
        let request = (dialect.read)(&asked, body.as_bytes(), &BodyLimits::default(), 0).unwrap();
        let plain = provider.relay_path(dialect, &asked, "up@1")?;
        let wrapping = provider.wrapping(client(dialect.name).unwrap()).unwrap();
        let path = if stream { (wrapping.stream_path)(&asked, "up@1").unwrap() } else { plain };
        let body = bytes::Bytes::from_static(body.as_bytes());
        let edits = (wrapping.edits)(&asked, &request, &body, &literal("up@1"));
        let rewritten = rewrite_wrapped(&request, &body, edits);
        let text = String::from_utf8(rewritten.concat().to_vec()).unwrap();
        assert_eq!(text.len() as u64, rewritten.len);
        Some((path, text))
    }

    #[test]
    fn claude_gets_the_version_where_the_model_stood() {
        let check = |path: &str, body, stream, expected: (&str, &str)| {
            let sent = sent(&vertex::ANTHROPIC, path, body, stream).unwrap();
            assert_eq!((sent.0.as_str(), sent.1.as_str()), expected);
            serde_json::from_str::<serde_json::Value>(&sent.1).unwrap();
        };
        let below = "/publishers/anthropic/models/up@1:";
        check(
            "/v1/messages",
            r#"{ "max_tokens":9, "mod\u0065l" : "claude" , "messages":[{"role":"user","content":"\"model\""}],"new":[1e3]}"#,
            false,
            (
                &format!("{below}rawPredict"),
                r#"{ "max_tokens":9, "anthropic_version":"vertex-2023-10-16" , "messages":[{"role":"user","content":"\"model\""}],"new":[1e3]}"#,
            ),
        );
        check(
            "/v1/messages",
            r#"{"api_base":"http://x","model":"m","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"x"}],"api_key":"k"}"#,
            true,
            (
                &format!("{below}streamRawPredict"),
                r#"{"anthropic_version":"vertex-2023-10-16","stream":true,"max_tokens":9,"messages":[{"role":"user","content":"x"}]}"#,
            ),
        );
        check(
            "/v1/messages/count_tokens",
            r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#,
            false,
            (
                "/publishers/anthropic/models/count-tokens:rawPredict",
                r#"{"anthropic_version":"vertex-2023-10-16","model":"up@1","messages":[{"role":"user","content":"x"}]}"#,
            ),
        );
    }

    #[test]
    fn gemini_passes_as_it_came_but_for_the_model() {
        let check = |call: &str, body, expected: Option<(&str, &str)>| {
            let got = sent(&vertex::GEMINI, &format!("/v1beta/models/m:{call}"), body, call.contains("sse"));
            assert_eq!(
                got.as_ref().map(|(path, body)| (path.as_str(), body.as_str())),
                expected,
                "{call} {body}"
            );
        };
        let at = |call: &str| format!("/publishers/google/models/up@1:{call}");
        let plain = r#"{ "contents":[{"parts":[{"text":"x"}]}], "labels":{"a":"b"},"safetySettings":[]}"#;
        for call in ["generateContent", "streamGenerateContent?alt=sse", "countTokens"] {
            check(call, plain, Some((&at(call), plain)));
        }
        let rest = r#"{"contents":[{"parts":[{"text":"x"}]}]}"#;
        let named = r#"{"model":"models/m" , "contents":[{"parts":[{"text":"x"}]}]}"#;
        check(
            "generateContent",
            named,
            Some((&at("generateContent"), r#"{ "contents":[{"parts":[{"text":"x"}]}]}"#)),
        );
        let last = r#"{"contents":[{"parts":[{"text":"x"}]}] , "model":"m"}"#;
        check(
            "generateContent",
            last,
            Some((&at("generateContent"), r#"{"contents":[{"parts":[{"text":"x"}]}] }"#)),
        );
        let inner = r#"{"model":"m","generateContentRequest": {"contents":[{"parts":[{"text":"x"}]}],"model":"models/m"} }"#;
        check("countTokens", inner, Some((&at("countTokens"), rest)));
        check("streamGenerateContent", plain, None);
        let embeds = r#"{"content":{"parts":[{"text":"x"}]}}"#;
        check("embedContent", embeds, None);
    }
}
