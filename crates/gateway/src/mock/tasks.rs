//! What the mock's model says to tasks: rerank, moderations, images, sounds.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use pointsman_wire::openai::request::Operation;
use pointsman_wire::rerank::Form;
use pointsman_wire::tasks::Task;
use pointsman_wire::tasks::multipart::{PartLimits, read};
use serde_json::{Value, json};

/// An image of one pixel, as PNG in Base64.
const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
/// Bytes of silence in a sound, at 8 kHz and 8 bits.
const SILENCE_BYTES: u32 = 800;
/// What is heard in every sound.
const HEARD: [&str; 3] = ["This", " is", " the mock."];

/// An answer.
pub(super) struct Said {
    pub(super) kind: &'static str,
    /// In one piece, or as events.
    pub(super) pieces: Vec<Bytes>,
}

/// The fields of a form that matter here.
pub(super) fn fields(path: &str, headers: &HeaderMap, body: &[u8]) -> Option<Result<Value, String>> {
    let task = Task::of_path(path).filter(|task| task.is_multipart())?;
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let limits = PartLimits { field_bytes_max: u64::MAX, file_bytes_max: u64::MAX, ..PartLimits::default() };
    let request = read(task, kind, body, limits).map_err(|invalid| invalid.message);
    Some(request.map(|request| json!({"model": request.model_asked(), "stream": request.stream})))
}

/// What is said to a task; `None` for all else.
pub(super) fn answer(path: &str, body: &Value, tokens_in: usize) -> Option<Said> {
    let Operation::Task(task) = Operation::of_path(path)? else { return None };
    let usage = json!({"input_tokens": tokens_in, "output_tokens": 1, "total_tokens": tokens_in + 1});
    let streams = body["stream"] == json!(true) || body["stream_format"] == json!("sse");
    let whole = |value: Value| Said { kind: "application/json", pieces: vec![value.to_string().into()] };
    Some(match task {
        Task::Rerank => whole(ranked(path, body, tokens_in)),
        Task::Moderation => whole(moderated(body)),
        Task::ImageGeneration | Task::ImageEdit => {
            let count = body["n"].as_u64().unwrap_or(1).clamp(1, 10) as usize;
            whole(json!({"created": 0, "data": vec![json!({"b64_json": PIXEL}); count], "usage": usage}))
        }
        Task::Speech if streams => events(&[
            json!({"type": "speech.audio.delta", "audio": "UklGRg=="}),
            json!({"type": "speech.audio.done", "usage": usage}),
        ]),
        Task::Speech => Said { kind: "audio/wav", pieces: vec![silence()] },
        Task::Transcription | Task::Translation if streams => {
            let mut told: Vec<Value> =
                HEARD.iter().map(|word| json!({"type": "transcript.text.delta", "delta": word})).collect();
            told.push(json!({"type": "transcript.text.done", "text": HEARD.concat(), "usage": usage}));
            events(&told)
        }
        Task::Transcription | Task::Translation => whole(json!({"text": HEARD.concat(), "usage": usage})),
    })
}

fn events(told: &[Value]) -> Said {
    let pieces = told.iter().map(|event| format!("data: {event}\n\n").into()).collect();
    Said { kind: "text/event-stream", pieces }
}

/// The last document fits best.
fn ranked(path: &str, body: &Value, tokens_in: usize) -> Value {
    let documents = body["documents"].as_array().map_or(&[][..], Vec::as_slice);
    let top = body["top_n"].as_u64().map_or(usize::MAX, |top| top as usize);
    let cohere = Form::of_path(path) == Some(Form::Cohere);
    let returns = !cohere && body["return_documents"] != json!(false);
    let results = documents.iter().enumerate().rev().take(top).map(|(index, document)| {
        let mut result =
            json!({"index": index, "relevance_score": (index + 1) as f64 / documents.len() as f64});
        if returns {
            let object = document.is_object();
            result["document"] = if object { document.clone() } else { json!({"text": document}) };
        }
        result
    });
    let results: Vec<Value> = results.collect();
    if cohere {
        return json!({"id": "mock", "results": results, "meta": {"api_version": {"version": "2"},
            "billed_units": {"search_units": 1}}});
    }
    json!({"model": body["model"], "object": "list", "usage": {"total_tokens": tokens_in}, "results": results})
}

/// What says `bad` is.
fn moderated(body: &Value) -> Value {
    let inputs =
        body["input"].as_array().map_or_else(|| vec![&body["input"]], |inputs| inputs.iter().collect());
    let results = inputs.iter().map(|input| {
        let bad = input.to_string().contains("bad");
        json!({"flagged": bad, "categories": {"violence": bad},
            "category_scores": {"violence": if bad { 0.9 } else { 0.1 }}})
    });
    json!({"id": "modr-mock", "model": body["model"], "results": results.collect::<Vec<_>>()})
}

/// A sound in which nothing is heard, as WAV.
fn silence() -> Bytes {
    let mut wav = b"RIFF".to_vec();
    let put = |wav: &mut Vec<u8>, number: u32| wav.extend_from_slice(&number.to_le_bytes());
    put(&mut wav, 36 + SILENCE_BYTES);
    wav.extend_from_slice(b"WAVEfmt ");
    put(&mut wav, 16);
    // PCM, one channel; samples and bytes a second; one byte of 8 bits each.
    wav.extend_from_slice(&[1, 0, 1, 0]);
    put(&mut wav, 8_000);
    put(&mut wav, 8_000);
    wav.extend_from_slice(&[1, 0, 8, 0]);
    wav.extend_from_slice(b"data");
    put(&mut wav, SILENCE_BYTES);
    wav.resize(wav.len() + SILENCE_BYTES as usize, 0x80);
    wav.into()
}
