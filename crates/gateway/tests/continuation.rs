//! Streams that break off and are continued by another deployment, over sockets.

mod support;

use pointsman::mock::Scripted;
use serde_json::Value;
use support::{World, stream};

const OPTED_IN: &str = "    retry: { continuation: true }\n";

fn event(id: &str, text: &str) -> String {
    format!(
        "data: {{\"id\":\"{id}\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
    )
}

/// A stream of these texts that breaks off after them.
fn cut(id: &str, texts: &[&str]) -> Scripted {
    let mut pieces: Vec<String> = texts.iter().map(|text| event(id, text)).collect();
    pieces.push(event(id, "never seen"));
    Scripted { cut_after: Some(texts.len()), piece_delay_ms: 20, pieces: Some(pieces), ..Default::default() }
}

fn whole(id: &str, texts: &[&str]) -> Scripted {
    let pieces = texts.iter().map(|text| event(id, text)).chain(["data: [DONE]\n\n".to_owned()]);
    Scripted { pieces: Some(pieces.collect()), ..Default::default() }
}

#[test]
fn d3_the_rest_comes_from_another_and_looks_like_one_answer() {
    let world = World::with(3, "", OPTED_IN, "");
    world.script(0, [cut("one", &["a ", "b "])]);
    world.script(1, [cut("two", &["c "])]);
    world.script(2, [whole("three", &["d", "e"])]);
    let answer = world.chat(&stream());
    let expected: String = ["a ", "b ", "c ", "d", "e"].iter().map(|text| event("one", text)).collect();
    assert_eq!(answer.body, expected + "data: [DONE]\n\n");
    assert!(answer.whole && answer.status == 200);
    let sent: Value = serde_json::from_str(&world.stats(2).last_body).expect("JSON");
    assert_eq!(sent["messages"][1]["role"], "assistant");
    assert_eq!(sent["messages"][1]["content"], "a b c ");
    let record = world.record(&answer);
    assert_eq!(record["outcome"], "completed", "{record}");
    let attempts = record["attempts"].as_array().expect("attempts");
    let kinds: Vec<&Value> = attempts.iter().map(|attempt| &attempt["kind"]).collect();
    assert_eq!(kinds, ["usual", "continuation", "continuation"]);
    assert_eq!(record["usage"]["tokens_out"], 5, "{record}");
    assert_eq!(record["first_content_us"], attempts[0]["first_content_us"], "{record}");
    assert_eq!(world.permits(), 0);
}

#[test]
fn d3_without_the_opt_in_or_with_nobody_able_it_is_cut() {
    for (provider, model) in [("", ""), (", continuation: none", OPTED_IN)] {
        let world = World::with(2, provider, model, "");
        world.script(0, [cut("one", &["a "])]);
        let answer = world.chat(&stream());
        assert!(answer.body.contains("\"error\"") && !answer.body.contains("[DONE]"), "{}", answer.body);
        assert_eq!(world.stats(1).requests, 0);
        let record = world.record(&answer);
        assert_eq!(record["outcome"], "truncated");
        if !model.is_empty() {
            let why_not = &record["decisions"][1]["candidates"][1]["why_not"];
            assert_eq!(why_not["missing"], serde_json::json!(["continuation"]), "{record}");
        }
    }
}

#[test]
fn d3_an_error_that_the_provider_tells_after_content_is_passed_on_and_counts() {
    let world = World::with(1, "", OPTED_IN, "");
    let pieces =
        [event("one", "a "), "data: {\"error\":{\"message\":\"engine died\",\"code\":500}}\n\n".into()];
    for ends in [&["data: [DONE]\n\n"][..], &[]] {
        let told: Vec<String> = pieces.iter().cloned().chain(ends.iter().map(|&end| end.into())).collect();
        let expected = told.concat();
        world.script(0, [Scripted { pieces: Some(told), ..Default::default() }]);
        let answer = world.chat(&stream());
        assert_eq!(answer.body, expected, "nothing is added");
        let record = world.record(&answer);
        assert_eq!((&record["outcome"], &record["detail"]), (&"truncated".into(), &"transient".into()));
        assert_eq!(record["attempts"][0]["failure"]["class"], "transient", "{record}");
    }
    assert_eq!(world.permits(), 0);
}

#[test]
fn d6_a_stall_is_continued_too() {
    let world = World::with(2, "", OPTED_IN, "timeouts: { idle_ms: 200 }");
    let stall = Scripted {
        hang_after: Some(1),
        pieces: Some(vec![event("one", "a "), event("one", "b ")]),
        ..Default::default()
    };
    world.script(0, [stall]);
    world.script(1, [whole("two", &["c"])]);
    let answer = world.chat(&stream());
    assert_eq!(answer.body, event("one", "a ") + &event("one", "c") + "data: [DONE]\n\n");
    world.until("the stalled one is cancelled", || world.stats(0).cancelled == 1);
}
