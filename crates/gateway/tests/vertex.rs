//! Vertex AI behind the gateway: tokens of service accounts, fetched once, renewed when they are refused, and what comes of
//! those that cannot be had.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pointsman_settings::Config;
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use serde_json::{Value, json};
use support::fake::{Fake, Reply, Seen};
use support::{World, config, hello, stream};

const PEM: &str = include_str!("support/account-key.pem");
const EMAIL: &str = "router@my-project.iam.gserviceaccount.com";

fn account() -> String {
    json!({
        "type": "service_account", "project_id": "my-project", "private_key_id": "k1", "private_key": PEM,
        "client_email": EMAIL, "token_uri": "https://oauth2.googleapis.com/token",
    })
    .to_string()
}

fn text(kind: &str, vertex: &Fake, tokens: &Fake) -> String {
    let (at, from, account) = (vertex.url(), tokens.url(), account());
    format!(
        "timeouts: {{ connect_ms: 20000 }}\nproviders:\n  v:\n    kind: {kind}\n    base_url: '{at}'\n    project: my-project\n    location: us-east5\n    \
         token_uri: '{from}/token'\n    keys: [ {{ name: robot, service_account: '{account}' }} ]\n\
         models:\n  m:\n    deployments: [ {{ name: d, provider: v, model: 'claude@20250514' }} ]\n"
    )
}

fn base64url(text: &str) -> Vec<u8> {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digit = |byte: u8| digits.iter().position(|one| *one == byte).expect("a digit of Base64") as u32;
    let (mut out, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for byte in text.bytes() {
        bits = bits << 6 | digit(byte);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    out
}

/// The claims of an assertion whose signature holds.
fn claims(seen: &Seen) -> Value {
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/token"));
    assert_eq!(seen.header("content-type"), Some("application/x-www-form-urlencoded"));
    let assertion = seen
        .body
        .strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=")
        .expect("the grant of RFC 7523");
    let (signed, signature) = assertion.rsplit_once('.').expect("three parts");
    let der: String = PEM.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64url(&der.replace('+', "-").replace('/', "_").replace('=', ""));
    let key = RsaKeyPair::from_pkcs8(&der).expect("a key");
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public().as_ref().to_vec());
    public.verify(signed.as_bytes(), &base64url(signature)).expect("signed by the account");
    let (header, claims) = signed.split_once('.').expect("two parts");
    let read = |part: &str| serde_json::from_slice::<Value>(&base64url(part)).expect("JSON");
    assert_eq!(read(header), json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}));
    read(claims)
}

/// A place that gives the tokens `t0`, `t1`, …
fn tokens() -> Fake {
    Fake::new(|_, before| {
        Reply::json(
            200,
            json!({"access_token": format!("t{before}"), "expires_in": 3599, "token_type": "Bearer"}),
        )
    })
}

fn gemini_answer() -> Value {
    json!({
        "candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": "Hello"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}, "modelVersion": "g",
    })
}

/// A Vertex AI that lets in who has the token of the moment.
fn vertex(good: &Arc<Mutex<String>>) -> Fake {
    let good = Arc::clone(good);
    Fake::new(move |seen, _| {
        let wanted = format!("Bearer {}", good.lock().expect("no panic"));
        if seen.header("authorization") == Some(wanted.as_str()) {
            return Reply::json(200, gemini_answer());
        }
        let error = json!({"error": {"code": 401, "message": "Request had invalid authentication credentials.", "status": "UNAUTHENTICATED"}});
        Reply::json(401, error)
    })
}

fn good(token: &str) -> Arc<Mutex<String>> {
    Arc::new(Mutex::new(token.to_owned()))
}

#[test]
fn a_token_is_fetched_once_with_a_signed_assertion() {
    let (tokens, vertex) = (tokens(), vertex(&good("t0")));
    let world = World::of(&text("vertex", &vertex, &tokens));
    for _ in 0..3 {
        let answer = world.chat(&hello());
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["choices"][0]["message"]["content"], "Hello");
    }
    let [fetch]: [Seen; 1] = tokens.seen().try_into().expect("one fetch");
    let claims = claims(&fetch);
    assert_eq!(
        (&claims["iss"], &claims["aud"]),
        (&json!(EMAIL), &json!("https://oauth2.googleapis.com/token"))
    );
    assert_eq!(
        claims["exp"].as_u64().zip(claims["iat"].as_u64()).map(|(end, begin)| end - begin),
        Some(3600)
    );
    let prefix = "/v1/projects/my-project/locations/us-east5/publishers/google/models/";
    assert_eq!(vertex.last().path, format!("{prefix}claude@20250514:generateContent"));
    let metrics = world.metrics();
    let fetched = r#"pointsman_access_tokens_total{provider="v",credential="robot",result="fetched"} 1"#;
    assert!(metrics.contains(fetched), "{metrics}");
}

#[test]
fn many_that_wait_for_the_first_token_cause_one_fetch() {
    let arrived = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&arrived);
    let tokens = Fake::new(move |_, _| {
        // The answer waits until all requests are there.
        while count.load(Ordering::Acquire) < 6 {
            std::thread::yield_now();
        }
        Reply::json(200, json!({"access_token": "t0", "expires_in": 3599}))
    });
    let vertex = vertex(&good("t0"));
    let world = World::of(&text("vertex", &vertex, &tokens));
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(|| world.chat_quickly(&hello()).status)).collect();
        world.until("all wait", || world.permits() == 6);
        arrived.store(6, Ordering::Release);
        for one in asked {
            assert_eq!(one.join().expect("no panic"), 200);
        }
    });
    assert_eq!(tokens.seen().len(), 1);
}

#[test]
fn a_token_near_its_end_is_fetched_anew_beside_the_requests() {
    let tokens = Fake::new(|_, before| {
        let lasts_s = if before == 0 { 200 } else { 3599 };
        Reply::json(200, json!({"access_token": format!("t{before}"), "expires_in": lasts_s}))
    });
    let vertex = Fake::new(|_, _| Reply::json(200, gemini_answer()));
    let world = World::of(&text("vertex", &vertex, &tokens));
    let sent = || {
        assert_eq!(world.chat(&hello()).status, 200);
        vertex.last().header("authorization").map(str::to_owned)
    };
    assert_eq!(sent().as_deref(), Some("Bearer t0"), "the old one is good while the next is fetched");
    sent();
    let fetched = r#"pointsman_access_tokens_total{provider="v",credential="robot",result="fetched"} 2"#;
    world.until("the next one is there", || world.metrics().contains(fetched));
    world.until("it is used", || sent().as_deref() == Some("Bearer t1"));
    assert_eq!(tokens.seen().len(), 2);
}

#[test]
fn a_token_that_is_given_for_no_time_is_an_error() {
    let tokens = Fake::new(|_, _| Reply::json(200, json!({"access_token": "t0", "expires_in": 1})));
    let vertex = vertex(&good("t0"));
    let world = World::of(&text("vertex", &vertex, &tokens));
    let answer = world.chat(&hello());
    assert_eq!((answer.status, answer.error("code")), (502, json!("upstream_connect_failed")), "{answer:?}");
    assert!(answer.body.contains("ends as soon as it came") && vertex.seen().is_empty(), "{answer:?}");
}

#[test]
fn a_token_that_is_refused_is_renewed_once_and_the_request_sent_again() {
    let (tokens, good) = (tokens(), good("t0"));
    let vertex = vertex(&good);
    let world = World::of(&text("vertex", &vertex, &tokens));
    assert_eq!(world.chat(&hello()).status, 200);
    "t1".clone_into(&mut good.lock().expect("no panic"));
    let answer = world.chat(&hello());
    assert_eq!((answer.status, answer.header("x-pointsman-attempts")), (200, Some("1")), "{answer:?}");
    assert_eq!(tokens.seen().len(), 2);
    let sent = vertex.seen();
    assert_eq!(sent.len(), 3, "the first, the one that was refused, and it again");
    assert_eq!(sent[1].body, sent[2].body);
    assert_eq!(world.chat(&hello()).status, 200);
    assert_eq!(tokens.seen().len(), 2, "the new one is kept");
}

#[test]
fn i6_an_account_whose_tokens_are_refused_is_put_aside() {
    let (tokens, vertex) = (tokens(), vertex(&good("another's")));
    let world = World::of(&text("vertex", &vertex, &tokens));
    let answer = world.chat(&hello());
    assert_eq!((answer.status, answer.error("code")), (502, json!("upstream_credential")), "{answer:?}");
    assert_eq!((tokens.seen().len(), vertex.seen().len()), (2, 2), "once more, and no more");
    assert_eq!(world.record(&answer)["detail"], "credential_dead");
    assert_eq!(world.chat(&hello()).status, 503);
    assert_eq!(vertex.seen().len(), 2, "it is out");
}

#[test]
fn an_account_that_google_refuses_is_put_aside_and_counted() {
    let tokens = Fake::new(|_, _| {
        Reply::json(400, json!({"error": "invalid_grant", "error_description": "Invalid JWT Signature."}))
    });
    let vertex = vertex(&good("t0"));
    let world = World::of(&text("vertex", &vertex, &tokens));
    let answer = world.chat(&hello());
    assert_eq!((answer.status, answer.error("code")), (502, json!("upstream_credential")), "{answer:?}");
    assert!(vertex.seen().is_empty(), "nothing is sent without a token");
    let refused = r#"pointsman_access_tokens_total{provider="v",credential="robot",result="refused"} 1"#;
    assert!(world.metrics().contains(refused), "{}", world.metrics());
}

#[test]
fn a_place_of_tokens_that_is_down_is_an_error_that_says_so() {
    let tokens = Fake::new(|_, _| Reply::json(503, "down"));
    let vertex = vertex(&good("t0"));
    let world = World::of(&text("vertex", &vertex, &tokens));
    let answer = world.chat(&hello());
    assert_eq!((answer.status, answer.error("code")), (502, json!("upstream_connect_failed")), "{answer:?}");
    assert!(answer.body.contains("google gave no token (503)"), "{answer:?}");
    assert!(vertex.seen().is_empty(), "nothing is sent without a token");
    let failed = r#"pointsman_access_tokens_total{provider="v",credential="robot",result="failed"} "#;
    let metrics = world.metrics();
    let count = metrics.lines().find_map(|line| line.strip_prefix(failed)).expect("it is counted");
    assert_eq!(count.parse::<usize>().ok(), Some(tokens.seen().len()));
}

#[test]
fn tokens_outlive_a_reload_and_other_accounts_get_their_own() {
    let (tokens, vertex) = (tokens(), vertex(&good("t0")));
    let text = text("vertex", &vertex, &tokens);
    let world = World::of(&text);
    assert_eq!(world.chat(&hello()).status, 200);
    let reload = |text: &str| {
        let read = config(text);
        let running = Config::clone(&world.app().snapshot.load().config);
        world.app().install(Config { providers: read.providers, models: read.models, ..running })
    };
    reload(&text.replace("location: us-east5", "location: us-east5\n    slots: 4"));
    assert_eq!(world.chat(&hello()).status, 200);
    assert_eq!(tokens.seen().len(), 1);
    reload(&text.replace(EMAIL, "another@my-project.iam.gserviceaccount.com"));
    assert_eq!(world.chat(&hello()).status, 502, "its tokens are others, which this place does not know");
    assert!(tokens.seen().len() > 1);
}

#[test]
fn claude_is_asked_below_its_publisher() {
    let tokens = tokens();
    let event =
        |value: Value| format!("event: {}\ndata: {value}\n\n", value["type"].as_str().unwrap_or_default());
    let events = [
        json!({"type": "message_start", "message": {"id": "m1", "type": "message", "role": "assistant", "model": "c",
               "content": [], "stop_reason": null, "usage": {"input_tokens": 7, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}),
        json!({"type": "message_stop"}),
    ];
    let body: String = events.into_iter().map(event).collect();
    let vertex = Fake::new(move |_, _| {
        Reply::stream("text/event-stream", body.as_bytes().chunks(50).map(<[u8]>::to_vec).collect())
    });
    let world = World::of(&text("vertex_anthropic", &vertex, &tokens));
    let answer = world.chat(&stream());
    assert!(
        answer.status == 200 && answer.body.contains("Hello") && answer.body.ends_with("[DONE]\n\n"),
        "{answer:?}"
    );
    let seen = vertex.last();
    let path = "/v1/projects/my-project/locations/us-east5/publishers/anthropic/models/claude@20250514:streamRawPredict";
    assert_eq!((seen.path.as_str(), seen.header("authorization")), (path, Some("Bearer t0")));
    assert_eq!(seen.json()["anthropic_version"], "vertex-2023-10-16");
    assert_eq!(seen.json()["model"], Value::Null);
    assert_eq!(world.record(&answer)["usage"]["tokens_out"], 3);
}

#[test]
fn clients_of_gemini_are_relayed() {
    let (tokens, vertex) = (tokens(), vertex(&good("t0")));
    let world = World::of(&text("vertex", &vertex, &tokens));
    let below = "/v1/projects/my-project/locations/us-east5/publishers/google/models/claude@20250514:";
    let body = r#"{"contents" : [{"role":"user","parts":[{"text":"hi"}]}],"safetySettings":[],"labels":{"a":"b"},"tools":[{"googleSearch":{}}],"cachedContent":"projects/p/locations/l/cachedContents/1","generationConfig":{"mediaResolution":"MEDIA_RESOLUTION_LOW"}}"#;
    let answer = world.post("/v1beta/models/m:generateContent", "", body.as_bytes());
    assert_eq!((answer.status, answer.json()), (200, gemini_answer()), "{answer:?}");
    let seen = vertex.last();
    assert_eq!((seen.path, seen.body.as_str()), (format!("{below}generateContent"), body));
    let record = world.record(&answer);
    assert_eq!((&record["usage"]["tokens_in"], &record["conversion"]), (&json!(7), &Value::Null), "{record}");
    let counts = r#"{"generateContentRequest":{"model":"models/m","contents":[{"parts":[{"text":"hi"}]}]}}"#;
    let answer = world.post("/v1beta/models/m:countTokens", "", counts.as_bytes());
    assert_eq!(answer.header("x-pointsman-served-by"), Some("d"), "it is asked, not estimated");
    let seen = vertex.last();
    assert_eq!(
        (seen.path, seen.body.as_str()),
        (format!("{below}countTokens"), r#"{"contents":[{"parts":[{"text":"hi"}]}]}"#)
    );
    let stream = world.post("/v1beta/models/m:streamGenerateContent?alt=sse", "", body.as_bytes());
    assert_eq!(vertex.last().path, format!("{below}streamGenerateContent?alt=sse"), "{stream:?}");
    let embeds = world.post("/v1beta/models/m:embedContent", "", br#"{"content":{"parts":[{"text":"hi"}]}}"#);
    assert_eq!(embeds.status, 400, "it has another form there: {embeds:?}");
}

#[test]
fn clients_of_anthropic_are_relayed() {
    let tokens = tokens();
    let answer = json!({"id": "m1", "type": "message", "role": "assistant", "model": "claude-x", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "Hello"}, {"type": "new_block"}], "usage": {"input_tokens": 7, "output_tokens": 3}});
    let given = answer.clone();
    let vertex = Fake::new(move |_, _| Reply::json(200, given.clone()));
    let world = World::of(&text("vertex_anthropic", &vertex, &tokens));
    let below = "/v1/projects/my-project/locations/us-east5/publishers/anthropic/models/";
    let rest = r#""max_tokens":9,"tools":[{"type":"web_search_20250305","name":"web_search"}],"context_management":{"edits":[]},"messages":[{"role":"user","content":"hi"}]}"#;
    let beta = "anthropic-beta: context-management-2025-06-27\r\n";
    let told = world.post("/v1/messages", beta, format!(r#"{{"model":"m",{rest}"#).as_bytes());
    assert_eq!((told.status, told.json()), (200, answer), "as it came: {told:?}");
    let seen = vertex.last();
    assert_eq!(seen.path, format!("{below}claude@20250514:rawPredict"));
    assert_eq!(seen.body, format!(r#"{{"anthropic_version":"vertex-2023-10-16",{rest}"#));
    assert_eq!(seen.header("anthropic-beta"), Some("context-management-2025-06-27"));
    assert_eq!(seen.header("authorization"), Some("Bearer t0"));
    assert_eq!(world.record(&told)["usage"]["tokens_out"], 3);
    let streamed =
        world.post("/v1/messages", "", format!(r#"{{"model":"m","stream":true,{rest}"#).as_bytes());
    assert_eq!(vertex.last().path, format!("{below}claude@20250514:streamRawPredict"), "{streamed:?}");
    let counts = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    let counted = world.post("/v1/messages/count_tokens", "", counts.as_bytes());
    assert_eq!(counted.header("x-pointsman-served-by"), Some("d"), "{counted:?}");
    let seen = vertex.last();
    assert_eq!(seen.path, format!("{below}count-tokens:rawPredict"));
    assert_eq!(
        (&seen.json()["model"], &seen.json()["anthropic_version"]),
        (&json!("claude@20250514"), &json!("vertex-2023-10-16"))
    );
}
