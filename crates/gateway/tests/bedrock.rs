//! AWS Bedrock behind the gateway: requests are signed, event streams are read, and errors mean what AWS means by them.

mod support;

use std::fmt::Write as _;

use pointsman_wire::bedrock::events::{encode_event, encode_exception};
use ring::{digest, hmac};
use serde_json::{Value, json};
use support::fake::{Fake, Reply, Seen};
use support::{Answer, World, hello, stream};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const MODEL: &str = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0";
const KEY: &str = "{ access_key_id: AKIDEXAMPLE, secret_access_key: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY', session_token: 'the+session/token=' }";

fn world(fake: &Fake, key: &str) -> World {
    World::of(&format!(
        "providers:\n  aws: {{ kind: bedrock, base_url: '{}', location: eu-west-1, keys: [ {key} ] }}\n\
         models:\n  m:\n    attempts_max: 1\n    deployments: [ {{ name: d, provider: aws, model: '{MODEL}' }} ]\n",
        fake.url()
    ))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

/// What is wrong with the signature of a request, reckoned anew from the bytes that came.
fn signature_fault(seen: &Seen) -> Result<(), String> {
    let authorization = seen.header("authorization").ok_or("unsigned")?;
    let rest = authorization.strip_prefix("AWS4-HMAC-SHA256 ").ok_or("another algorithm")?;
    let field = |name: &str| {
        let found = rest.split(", ").find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        found.ok_or_else(|| format!("no {name}"))
    };
    let (scope, names, signature) = (field("Credential")?, field("SignedHeaders")?, field("Signature")?);
    let moment = seen.header("x-amz-date").ok_or("no date")?;
    let day = &moment[..8];
    let wanted = format!("AKIDEXAMPLE/{day}/eu-west-1/bedrock/aws4_request");
    if scope != wanted {
        return Err(format!("{scope} is not {wanted}"));
    }
    for name in ["host", "x-amz-date", "x-amz-security-token"] {
        if !names.split(';').any(|one| one == name) {
            return Err(format!("{name} is not signed"));
        }
    }
    let mut canonical = format!("POST\n{}\n\n", seen.path.replace('%', "%25"));
    for name in names.split(';') {
        let value = seen.header(name).ok_or("signed, and not sent")?;
        let _ = writeln!(canonical, "{name}:{value}");
    }
    let hash = |text: &str| hex(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
    let _ = write!(canonical, "\n{names}\n{}", hash(&seen.body));
    let to_sign =
        format!("AWS4-HMAC-SHA256\n{moment}\n{day}/eu-west-1/bedrock/aws4_request\n{}", hash(&canonical));
    let mut key = mac(format!("AWS4{SECRET}").as_bytes(), day);
    for part in ["eu-west-1", "bedrock", "aws4_request"] {
        key = mac(&key, part);
    }
    let expected = hex(&mac(&key, &to_sign));
    if signature == expected { Ok(()) } else { Err(format!("{signature} is not {expected} of\n{canonical}")) }
}

fn said(text: &str) -> Value {
    json!({
        "output": {"message": {"role": "assistant", "content": [{"text": text}]}}, "stopReason": "end_turn",
        "usage": {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10}, "metrics": {"latencyMs": 5},
    })
}

/// A fake that answers only what is signed as it should be.
fn strict(answer: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Fake {
    Fake::new(move |seen, before| match signature_fault(seen) {
        Ok(()) => answer(seen, before),
        Err(fault) => {
            Reply::json(403, json!({"message": fault})).with("x-amzn-errortype", "InvalidSignatureException")
        }
    })
}

fn refusing(status: u16, kind: &'static str, message: &'static str) -> Fake {
    strict(move |_, _| {
        let url = format!("{kind}:http://internal.amazon.com/coral/com.amazon.bedrock/");
        Reply::json(status, json!({"message": message})).with("x-amzn-errortype", &url)
    })
}

/// The frames of an answer up to `rest`.
fn frames(rest: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode_event("messageStart", r#"{"role":"assistant"}"#, &mut out);
    for text in ["Hel", "lo"] {
        let delta = json!({"contentBlockIndex": 0, "delta": {"text": text}});
        encode_event("contentBlockDelta", &delta.to_string(), &mut out);
    }
    rest(&mut out);
    out
}

fn end(out: &mut Vec<u8>) {
    encode_event("contentBlockStop", r#"{"contentBlockIndex":0}"#, out);
    encode_event("messageStop", r#"{"stopReason":"end_turn"}"#, out);
    let usage = r#"{"usage":{"inputTokens":7,"outputTokens":2,"totalTokens":9},"metrics":{"latencyMs":5}}"#;
    encode_event("metadata", usage, out);
}

fn streaming(bytes: Vec<u8>, piece_bytes: usize) -> Fake {
    strict(move |_, _| {
        let pieces = bytes.chunks(piece_bytes).map(<[u8]>::to_vec).collect();
        Reply::stream("application/vnd.amazon.eventstream", pieces)
    })
}

fn events(answer: &Answer) -> Vec<Value> {
    let data = answer.body.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).expect("JSON")).collect()
}

fn text_of(events: &[Value]) -> String {
    events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
}

#[test]
fn requests_are_signed_over_what_is_sent() {
    let fake = strict(|_, _| Reply::json(200, said("Hello")));
    let world = world(&fake, KEY);
    let answer = world.chat(&hello());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "Hello");
    assert_eq!(answer.json()["usage"]["completion_tokens"], 3);
    let seen = fake.last();
    assert_eq!(seen.path, "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse");
    assert_eq!(seen.header("x-amz-security-token"), Some("the+session/token="));
    assert_eq!(seen.header("accept"), Some("application/json"));
    assert_eq!(seen.json()["messages"][0]["content"][0]["text"], "hello");
    let record = world.record(&answer);
    assert_eq!((&record["conversion"]["to"], &record["usage"]["tokens_in"]), (&json!("bedrock"), &json!(7)));
    assert!(!record.to_string().contains("EXAMPLE"), "{record}");
}

#[test]
fn an_access_key_without_a_token_sends_none() {
    let fake = Fake::new(|_, _| Reply::json(200, said("Hello")));
    let key = "{ access_key_id: AKIDEXAMPLE, secret_access_key: 'a-secret-key', session_token: '' }";
    assert_eq!(world(&fake, key).chat(&hello()).status, 200);
    let seen = fake.last();
    assert_eq!(seen.header("x-amz-security-token"), None);
    assert!(
        seen.header("authorization")
            .is_some_and(|value| value.contains("SignedHeaders=content-type;host;x-amz-date,"))
    );
}

#[test]
fn an_api_key_of_bedrocks_goes_into_its_header_and_nothing_is_signed() {
    let fake = Fake::new(|_, _| Reply::json(200, said("Hello")));
    assert_eq!(world(&fake, "bedrock-api-key-1").chat(&hello()).status, 200);
    let seen = fake.last();
    assert_eq!(
        (seen.header("authorization"), seen.header("x-amz-date")),
        (Some("Bearer bedrock-api-key-1"), None)
    );
}

#[test]
fn d1_a_stream_of_frames_is_the_same_however_it_is_cut() {
    for piece_bytes in [1, 7, 100, usize::MAX] {
        let fake = streaming(frames(end), piece_bytes);
        let world = world(&fake, KEY);
        let mut body = stream();
        body["stream_options"] = json!({"include_usage": true});
        let answer = world.chat(&body);
        assert_eq!(answer.header("content-type"), Some("text/event-stream"), "{answer:?}");
        let events = events(&answer);
        assert_eq!(text_of(&events), "Hello");
        assert_eq!(events.last().expect("usage")["usage"]["completion_tokens"], 2, "{answer:?}");
        assert!(answer.whole && answer.body.ends_with("data: [DONE]\n\n"));
        let seen = fake.last();
        assert!(seen.path.ends_with("/converse-stream"));
        assert_eq!(seen.header("accept"), Some("application/vnd.amazon.eventstream"));
        let record = world.record(&answer);
        assert_eq!((&record["outcome"], &record["usage"]["estimated"]), (&json!("completed"), &json!(false)));
    }
}

#[test]
fn d4_an_exception_within_a_stream_is_told_and_counts_as_what_it_is() {
    for (exception, class) in [
        ("modelStreamErrorException", "transient"),
        ("throttlingException", "credential_quota"),
        ("internalServerException", "transient"),
        ("serviceUnavailableException", "overloaded"),
    ] {
        let broken = frames(|out| encode_exception(exception, r#"{"message":"it broke"}"#, out));
        let fake = streaming(broken, 33);
        let world = world(&fake, KEY);
        let answer = world.chat(&stream());
        let events = events(&answer);
        assert_eq!(text_of(&events), "Hello");
        assert_eq!(events.last().expect("an error")["error"]["message"], "it broke", "{answer:?}");
        assert!(!answer.body.contains("[DONE]"), "{answer:?}");
        let record = world.record(&answer);
        assert_eq!(
            (&record["outcome"], &record["detail"]),
            (&json!("truncated"), &json!(class)),
            "{exception}"
        );
    }
}

#[test]
fn an_exception_before_any_content_is_answered_elsewhere() {
    let mut broken = Vec::new();
    encode_event("messageStart", r#"{"role":"assistant"}"#, &mut broken);
    encode_exception("modelStreamErrorException", r#"{"message":"it broke"}"#, &mut broken);
    let (bad, good) = (streaming(broken, 10), streaming(frames(end), 10));
    let provider = |name: &str, fake: &Fake| {
        format!(
            "  {name}: {{ kind: bedrock, base_url: '{}', location: eu-west-1, keys: [ {KEY} ] }}\n",
            fake.url()
        )
    };
    let deployment =
        |name: &str, tier: u8| format!("{{ name: {name}, provider: {name}, model: x, tier: {tier} }}");
    let world = World::of(&format!(
        "providers:\n{}{}models:\n  m: {{ deployments: [ {}, {} ] }}\n",
        provider("bad", &bad),
        provider("good", &good),
        deployment("bad", 1),
        deployment("good", 2)
    ));
    let answer = world.chat(&stream());
    assert_eq!(text_of(&events(&answer)), "Hello");
    assert_eq!(answer.header("x-pointsman-served-by"), Some("good"));
    assert!(!answer.body.contains("it broke"));
}

#[test]
fn d5_a_stream_that_is_cut_off_or_damaged_is_noticed() {
    let mut damaged = frames(end);
    let at = damaged.len() - 40;
    damaged[at] ^= 1;
    let whole = frames(end);
    for bytes in [whole[..whole.len() - 3].to_vec(), damaged] {
        let fake = streaming(bytes, 64);
        let world = world(&fake, KEY);
        let answer = world.chat(&stream());
        assert_eq!(text_of(&events(&answer)), "Hello");
        assert_eq!(world.record(&answer)["usage"]["tokens_out"], 2, "as far as it was seen");
        assert_ne!(world.record(&answer)["usage"]["estimated"], false);
    }
}

#[test]
fn errors_mean_what_the_header_says() {
    let check = |status, kind, message, expected: (u16, &str), class: &str| {
        let fake = refusing(status, kind, message);
        let world = world(&fake, KEY);
        let answer = world.chat(&hello());
        assert_eq!(
            (answer.status, answer.error("code")),
            (expected.0, json!(expected.1)),
            "{kind}: {answer:?}"
        );
        assert_eq!(world.record(&answer)["detail"], class, "{kind}");
    };
    let long = "Input is too long for requested model.";
    check(400, "ValidationException", long, (400, "context_length_exceeded"), "context_length");
    check(400, "ValidationException", "messages is empty", (400, "ValidationException"), "client");
    let missing = "The provided model identifier is invalid.";
    check(400, "ValidationException", missing, (502, "upstream_model_missing"), "model_missing");
    check(403, "ExpiredTokenException", "old", (502, "upstream_credential"), "credential_dead");
    let access = "You don't have access to the model with the specified model ID.";
    check(403, "AccessDeniedException", access, (502, "upstream_model_missing"), "model_missing");
    check(429, "ThrottlingException", "slow down", (429, "rate_limit_exceeded"), "credential_quota");
    check(429, "ModelNotReadyException", "not yet", (503, "overloaded"), "overloaded");
    check(424, "ModelErrorException", "broke", (502, "ModelErrorException"), "transient");
    check(500, "InternalServerException", "broke", (500, "InternalServerException"), "transient");
}

#[test]
fn i6_a_key_that_signs_wrongly_is_put_aside() {
    let fake = strict(|_, _| Reply::json(200, said("Hello")));
    let world = world(&fake, "{ access_key_id: AKIDEXAMPLE, secret_access_key: 'not-the-secret' }");
    let answer = world.chat(&hello());
    assert_eq!((answer.status, answer.error("code")), (502, json!("upstream_credential")), "{answer:?}");
    let state = world.app().live.lock().fleet.view(pointsman::clock::now()).providers[0].credentials[0].state;
    assert_eq!(state, "dead");
}
