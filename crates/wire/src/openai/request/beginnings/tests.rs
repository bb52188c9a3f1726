use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{BodyLimits, Operation, Request, parse};
use super::*;

fn read(operation: Operation, body: &Value, salt: u64) -> Request {
    parse(operation, body.to_string().as_bytes(), &BodyLimits::default(), salt).expect("a valid body")
}

fn chat(messages: &[(&str, &str)]) -> Vec<PrefixBlock> {
    // Who speaks comes before what is said, as clients write it.
    let message = |(role, content): &(&str, &str)| {
        format!(r#"{{"role":{},"content":{}}}"#, json!(role), json!(content))
    };
    let messages: Vec<String> = messages.iter().map(message).collect();
    let body = format!(r#"{{"model":"m","messages":[{}]}}"#, messages.join(","));
    parse(Operation::Chat, body.as_bytes(), &BodyLimits::default(), 7).expect("a valid body").prefix
}

/// Tokens of the longest beginning that both have.
fn common(a: &[PrefixBlock], b: &[PrefixBlock]) -> u32 {
    a.iter().rev().find(|block| b.contains(block)).map_or(0, |block| block.tokens)
}

/// Text of so many bytes that does not repeat.
fn words(seed: u64, bytes: usize) -> String {
    let mut text: String =
        (0..).map(|word| format!("{:x} ", seed * 7919 + word)).take(bytes / 2 + 1).collect();
    text.truncate(bytes);
    text
}

#[test]
fn steps_are_fine_at_first_and_an_eighth_later() {
    let blocks = chat(&[("user", &words(1, 400_000))]);
    let tokens: Vec<u32> = blocks.iter().map(|block| block.tokens).collect();
    assert_eq!(&tokens[..9], [64, 128, 192, 256, 320, 384, 448, 512, 576]);
    for pair in tokens.windows(2) {
        let step = pair[1] - pair[0];
        assert!(step > 0 && (step <= 64 || step * 8 <= pair[0] + 8), "{pair:?}");
    }
    assert!(tokens.len() <= 80, "{} beginnings of 100,000 tokens", tokens.len());
    assert!(tokens.last().is_some_and(|last| *last >= 100_000), "the whole of it: {tokens:?}");
}

#[test]
fn a_short_prompt_has_none() {
    assert_eq!(chat(&[("user", "hello"), ("assistant", "hi"), ("user", "how are you?")]), []);
    assert_eq!(chat(&[("user", &words(1, 200))]), []);
    assert_eq!(chat(&[("user", &words(1, 256))]).len(), 1 + 1);
}

#[test]
fn the_next_turn_begins_with_all_of_the_last() {
    let mut messages: Vec<(&str, String)> = vec![("system", words(1, 3_000)), ("user", words(2, 777))];
    let told = |messages: &[(&str, String)]| {
        chat(&messages.iter().map(|(role, text)| (*role, text.as_str())).collect::<Vec<_>>())
    };
    for turn in 0..40 {
        let before = told(&messages);
        messages.push(("assistant", words(100 + turn, 333)));
        messages.push(("user", words(200 + turn, 555)));
        let after = told(&messages);
        assert_eq!(common(&before, &after), before.last().expect("some").tokens, "turn {turn}");
    }
}

#[test]
fn conversations_part_where_they_part() {
    let system = words(1, 5_001);
    let one = chat(&[("system", &system), ("user", &words(2, 4_000))]);
    let other = chat(&[("system", &system), ("user", &words(3, 4_000))]);
    assert_eq!(common(&one, &other), 5_001 / 4 + 4, "exactly the system prompt");
    let role = chat(&[("user", &system), ("user", &words(2, 4_000))]);
    assert_eq!(common(&one, &role), 0, "the role belongs to it");
    let joined = chat(&[("user", "ab"), ("user", &words(2, 4_000))]);
    let split = chat(&[("user", "a"), ("user", &format!("b{}", words(2, 4_000)))]);
    assert_eq!(common(&joined, &split), 0, "so do the ends of messages");
}

#[test]
fn nothing_is_found_across_tenants() {
    let body = json!({"model": "m", "messages": [{"role": "user", "content": words(1, 9_000)}]});
    let of = |salt| read(Operation::Chat, &body, salt).prefix;
    assert_eq!(common(&of(1), &of(1)), of(1).last().expect("some").tokens);
    assert_eq!(common(&of(1), &of(2)), 0);
}

#[test]
fn tools_and_instructions_come_first_wherever_they_stand() {
    let tools =
        |name: &str| json!([{"type": "function", "function": {"name": name, "description": words(5, 900)}}]);
    let text = words(1, 4_000);
    let body = |tools: &Value, first: bool| {
        let messages = json!([{"role": "user", "content": text}]);
        let body = if first {
            format!(r#"{{"tools":{tools},"model":"m","messages":{messages}}}"#)
        } else {
            format!(r#"{{"model":"m","messages":{messages},"tools":{tools}}}"#)
        };
        parse(Operation::Chat, body.as_bytes(), &BodyLimits::default(), 7).expect("valid").prefix
    };
    assert_eq!(body(&tools("a"), true), body(&tools("a"), false));
    assert_eq!(common(&body(&tools("a"), true), &body(&tools("b"), true)), 0);
    let respond = |instructions: &str, input: &str| {
        let body = json!({"model": "m", "input": input, "instructions": instructions});
        read(Operation::Response, &body, 7).prefix
    };
    let (one, other) = (words(8, 2_000), words(9, 2_000));
    assert_eq!(common(&respond(&one, &text), &respond(&one, &other)), 500, "the instructions");
    assert_eq!(common(&respond(&one, &text), &respond(&other, &text)), 0);
}

#[test]
fn tokens_texts_and_media_count() {
    let tokens: Vec<u32> = (0..1_000).collect();
    let given =
        |tokens: &[u32]| read(Operation::Completion, &json!({"model": "m", "prompt": tokens}), 7).prefix;
    assert_eq!(common(&given(&tokens), &given(&tokens[..700])), 640, "to the step before they part");
    let text = read(Operation::Completion, &json!({"model": "m", "prompt": words(1, 2_000)}), 7).prefix;
    assert_eq!(text.last().expect("some").tokens, 504);
    let image = |url: &str| {
        let parts =
            json!([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "what?"}]);
        read(Operation::Chat, &json!({"model": "m", "messages": [{"role": "user", "content": parts}]}), 7)
            .prefix
    };
    assert!(image("data:aaaa").last().is_some_and(|last| last.tokens >= 765));
    assert_eq!(common(&image("data:aaaa"), &image("data:aaab")), 0);
    let embedding = json!({"model": "m", "input": words(1, 9_000)});
    assert_eq!(read(Operation::Embedding, &embedding, 7).prefix, [], "nothing of it is kept");
}

#[test]
fn escapes_are_read_as_what_they_mean() {
    let text = words(1, 3_000);
    let escaped: Vec<String> = text.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    let body =
        |content: &str| format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{content}"}}]}}"#);
    let of = |content: &str| {
        parse(Operation::Chat, body(content).as_bytes(), &BodyLimits::default(), 7).expect("valid").prefix
    };
    assert_eq!(of(&text), of(&escaped.concat()));
}

proptest! {
    #[test]
    fn equal_beginnings_give_equal_blocks_up_to_where_they_part(
        lengths in prop::collection::vec(0_usize..3_000, 1..30),
        part in any::<prop::sample::Index>(),
        seed in 1_u64..1_000,
    ) {
        let one: Vec<(&str, String)> = lengths.iter().enumerate().map(|(nth, length)| {
            (["user", "assistant"][nth % 2], words(seed + nth as u64, *length + 1))
        }).collect();
        let mut other = one.clone();
        let at = part.index(one.len());
        other[at].1.push('!');
        let told = |messages: &[(&str, String)]| {
            chat(&messages.iter().map(|(role, text)| (*role, text.as_str())).collect::<Vec<_>>())
        };
        let (a, b) = (told(&one), told(&other));
        prop_assert_eq!(&a, &told(&one), "the same prompt, the same beginnings");
        prop_assert!(a.len() <= BEGINNINGS_MAX && b.len() <= BEGINNINGS_MAX);
        prop_assert!(a.windows(2).all(|pair| pair[0].tokens <= pair[1].tokens));
        // Where they part, in the same tokens.
        let before: usize = one[..at].iter().map(|(_, text)| text.len() + 16).sum();
        let alike = ((before + one[at].1.len()) / 4) as u32;
        for block in a.iter().filter(|block| block.tokens > alike) {
            prop_assert!(!b.iter().any(|other| other.hash == block.hash), "{:?} beyond {}", block, alike);
        }
        let found = common(&a, &b);
        let steps = |blocks: &[PrefixBlock]| blocks.iter().filter(|block| block.tokens <= alike).map(|block| block.tokens).max().unwrap_or(0);
        prop_assert!(found <= alike);
        // Steps that both have are found: to about an eighth, and 64 tokens.
        prop_assert!(f64::from(found) >= f64::from(alike.min(steps(&a))) * 0.85 - 70.0, "{} of {}", found, alike);
    }
}
