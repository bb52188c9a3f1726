//! The fuzz corpora, replayed: every seed and every input that once broke something.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![expect(clippy::disallowed_methods, reason = "the corpus is files; the crate itself reads none")]

#[path = "invariants/gemini.rs"]
mod gemini;
#[path = "invariants/grpc.rs"]
mod grpc;
mod invariants;

use std::path::Path;

#[track_caller]
fn replay(target: &str, run: fn(&[u8])) {
    replay_cut(target, run, 1);
}

/// The same with cuts so many bytes apart, of what takes its time.
#[track_caller]
fn replay_cut(target: &str, run: fn(&[u8]), step: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut inputs: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    for path in inputs {
        let input = std::fs::read(&path).unwrap();
        run(&input);
        // Cut short, each seed is many more.
        for end in (0..input.len().min(2048)).step_by(step) {
            run(&input[..end]);
        }
    }
}

#[test]
fn requests_of_the_corpus_are_forwarded_as_authorised() {
    replay("request", invariants::request);
}

#[test]
fn c12_tensors_of_the_corpus_are_what_they_say() {
    replay("kserve", invariants::kserve);
}

#[test]
fn c12_calls_of_the_corpus_are_over_http_what_they_were() {
    replay("kserve_grpc", grpc::kserve_grpc);
}

#[test]
fn d1_streams_of_the_corpus_are_relayed_whole() {
    replay("sse", invariants::sse);
}

#[test]
fn c4_anthropic_requests_of_the_corpus_are_forwarded_as_authorised() {
    replay("anthropic_request", invariants::anthropic::request);
}

#[test]
fn c12_anthropic_conversations_of_the_corpus_keep_their_meaning() {
    replay("anthropic_conversation", invariants::anthropic::conversation);
}

#[test]
fn anthropic_answers_of_the_corpus_can_be_said_in_every_dialect() {
    replay("anthropic_answer", invariants::anthropic::answer);
}

#[test]
fn d1_anthropic_streams_of_the_corpus_are_read_however_they_are_cut() {
    replay("anthropic_stream", invariants::anthropic::stream);
}

#[test]
fn c12_gemini_requests_of_the_corpus_are_forwarded_and_converted() {
    replay("gemini_request", gemini::request);
}

#[test]
fn d1_gemini_answers_of_the_corpus_mean_the_same_however_they_are_cut() {
    replay("gemini_answer", gemini::answer);
}

#[test]
fn c12_bodies_of_the_corpus_become_json_in_every_dialect() {
    replay_cut("conversions", invariants::dialects::conversions, 3);
}

#[test]
fn d1_streams_of_the_corpus_give_the_same_events_however_they_are_cut() {
    replay_cut("streams", invariants::dialects::streams, 7);
}

#[test]
fn d1_lines_of_the_corpus_are_relayed_whole() {
    replay("ollama", invariants::dialects::ollama);
}

#[test]
fn c6_tasks_of_the_corpus_are_forwarded_as_authorised() {
    replay("tasks", invariants::dialects::tasks);
}

#[test]
fn c9_parts_of_the_corpus_are_the_same_however_they_are_cut() {
    replay("multipart", invariants::dialects::multipart);
}

#[test]
fn d1_streams_of_bedrock_in_the_corpus_are_read_the_same_however_cut() {
    replay("bedrock", invariants::bedrock);
}

#[test]
fn headers_of_the_corpus_are_understood_or_passed_over() {
    replay("truth", invariants::truth);
}

#[test]
fn c5_texts_of_the_corpus_are_judged_as_others_do() {
    replay("json", invariants::json);
}

#[test]
fn f8_engines_of_the_corpus_say_what_is_possible_or_nothing() {
    replay("engine", invariants::engine);
}
