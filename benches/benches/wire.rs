//! What a request and a streamed chunk cost in the wire crate.

use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use pointsman_wire::dialect::{self, Told};
use pointsman_wire::openai::sse::Out;
use pointsman_wire::openai::{BodyLimits, Operation, StreamObserver, UsageAsk, literal, parse, rewrite};
use pointsman_wire::{json, kserve};

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

/// An inference request of about a MiB: floats as numpy prints them, small integers, texts, and in binary.
#[divan::bench(args = ["fp32", "int64", "uint8", "pixels", "bytes", "nested", "binary"], sample_size = 20)]
fn validate_tensors(bencher: Bencher<'_, '_>, form: &str) {
    const BYTES: usize = 1 << 20;
    let (datatype, element) = match form {
        "int64" => ("INT64", "123456"),
        "uint8" => ("UINT8", "7"),
        "pixels" => ("UINT8", "128"),
        "bytes" => ("BYTES", r#""a text of usual length""#),
        _ => ("FP32", "0.48437118"),
    };
    let count = BYTES / (element.len() + 1) / 64 * 64;
    let (body, json_bytes, shape) = if form == "binary" {
        let json = format!(
            r#"{{"inputs":[{{"name":"x","shape":[1,262144],"datatype":"FP32","parameters":{{"binary_data_size":{BYTES}}}}}]}}"#
        );
        let body = [json.as_bytes(), &vec![0; BYTES]].concat();
        (body, Some(json.len() as u64), vec![-1, 262_144])
    } else {
        let row = vec![element; 64].join(",");
        let row = if form == "nested" { format!("[{row}]") } else { row };
        let data = vec![row; count / 64].join(",");
        let shape = if form == "nested" { vec![count as i64 / 64, 64] } else { vec![count as i64] };
        let body = format!(
            r#"{{"inputs":[{{"name":"x","shape":{shape:?},"datatype":"{datatype}","data":[{data}]}}]}}"#
        );
        (body.into_bytes(), None, shape)
    };
    let spec = |datatype| kserve::TensorSpec {
        name: "x".to_owned(),
        datatype,
        shape: shape.clone(),
        optional: false,
    };
    let inputs = kserve::Datatype::of(datatype).map(spec).into_iter().collect();
    let signature = kserve::Signature { inputs, outputs: Vec::new() };
    let limits = BodyLimits::default();
    bencher.counter(BytesCount::new(body.len())).bench(|| {
        let request = kserve::parse(black_box(&body), json_bytes, &limits);
        assert!(request.is_ok_and(|request| kserve::check(&request, "m", &signature).is_ok()));
    });
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

/// Chunks of text in the dialect of a provider, as they come one by one.
fn text_chunk(dialect: &str) -> Bytes {
    Bytes::from_static(match dialect {
        "anthropic" => {
            b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" word\"}}\n\n"
        }
        "gemini" => {
            b"data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\" word\"}],\"role\":\"model\"},\"index\":0}],\"modelVersion\":\"m\",\"responseId\":\"r\"}\n\n"
        }
        _ => {
            b"data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1732000000,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n"
        }
    })
}

/// What comes before the first text.
fn stream_head(dialect: &str) -> Bytes {
    Bytes::from_static(match dialect {
        "anthropic" => {
            b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":9,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n"
        }
        _ => b"",
    })
}

/// One chunk of text, turned from the dialect of a provider into that of a client. What it costs over `relay_chunk` is what
/// turning costs.
#[divan::bench(
    args = ["openai to anthropic", "anthropic to openai", "gemini to openai", "openai to gemini"],
    sample_size = 1000
)]
fn convert_chunk(bencher: Bencher<'_, '_>, pair: &str) {
    let (from, to) = pair.split_once(" to ").unwrap_or((pair, pair));
    let (Some(provider), Some(client)) = (dialect::provider(from), dialect::client(to)) else { return };
    let (mut reader, mut writer) = (provider.dialect.stream(), client.dialect.stream(Told::default()));
    let (chunk, mut events, mut text) = (text_chunk(from), Vec::new(), String::new());
    let _ = reader.push(&stream_head(from), &mut events);
    for event in events.drain(..) {
        writer.write(&event, &mut text);
    }
    bencher.counter(BytesCount::new(chunk.len())).bench_local(|| {
        text.clear();
        let read = reader.push(black_box(&chunk), &mut events);
        for event in events.drain(..) {
            writer.write(&event, &mut text);
        }
        (read.is_ok(), text.len())
    });
}
