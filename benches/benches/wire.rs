//! What a request and a streamed chunk cost in the wire crate.

use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use pointsman_wire::json;
use pointsman_wire::openai::sse::Out;
use pointsman_wire::openai::{BodyLimits, Operation, StreamObserver, UsageAsk, literal, parse, rewrite};

fn main() {
    divan::main();
}

/// A chat request whose last message has about this many bytes, with line breaks and quotes as real text has.
fn chat_body(content_bytes: usize) -> Bytes {
    const PROSE: &str =
        r#"The quick brown fox says \"hello\" to the lazy dog, who does not care at all about it.\n"#;
    let content = PROSE.repeat(content_bytes.div_ceil(PROSE.len()).max(1));
    Bytes::from(format!(
        r#"{{"model":"llama-3-8b","messages":[{{"role":"system","content":"be brief"}},{{"role":"user","content":"{content}"}}],"max_tokens":128,"temperature":0.7,"stream":true}}"#
    ))
}

#[divan::bench(args = [100, 64 << 10, 1 << 20], sample_size = 50)]
fn parse_and_rewrite(bencher: Bencher<'_, '_>, content_bytes: usize) {
    let body = chat_body(content_bytes);
    let limits = BodyLimits::default();
    let upstream_model = literal("meta-llama/Llama-3.1-8B-Instruct");
    bencher.counter(BytesCount::new(body.len())).bench(|| {
        let request = parse(Operation::Chat, black_box(&body), &limits, 1).ok();
        request.map(|request| rewrite(&request, &body, &upstream_model, UsageAsk::Inject))
    });
}

#[divan::bench]
fn scan_long_string(bencher: Bencher<'_, '_>) {
    let text = format!("\"{}\"", "plain text without escapes ".repeat(40_000));
    bencher.counter(BytesCount::new(text.len())).bench(|| json::check(black_box(&text), 8));
}

/// One event of 250 bytes after content began: the usual case.
#[divan::bench(args = ["null_usage", "no_usage"], sample_size = 1000)]
fn relay_chunk(bencher: Bencher<'_, '_>, form: &str) {
    let usage = if form == "null_usage" { r#","usage":null"# } else { "" };
    let head = r#"data: {"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1732000000,"model":"m""#;
    let tail = format!(
        r#","choices":[{{"index":0,"delta":{{"content":" word"}},"logprobs":null,"finish_reason":null}}]{usage}}}"#
    );
    let padding = "x".repeat(250_usize.saturating_sub(head.len() + tail.len() + 9));
    let chunk = Bytes::from(format!("{head},\"p\":\"{padding}\"{tail}\n\n"));
    let mut observer = StreamObserver::new(Operation::Chat, true);
    let mut out = Out::new();
    bencher.counter(BytesCount::new(chunk.len())).bench_local(|| {
        out.clear();
        observer.push(black_box(&chunk).clone(), &mut out).map(|seen| seen.content)
    });
}
