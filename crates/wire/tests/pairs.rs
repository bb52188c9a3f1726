//! Every client dialect against every provider dialect, by golden files.
//!
//! `golden/request/<client>/<case>.json` is what a client sends, `golden/answer/<provider>/<case>.json` and
//! `golden/stream/<provider>/<case>.txt` what a provider answers. What becomes of each in every other dialect stands in
//! `golden/pairs/<client>-<provider>/`, losses included; run with `BLESS=1` to write it anew, and read the difference.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::format_push_string,
    clippy::format_collect,
    reason = "a test stops at the first surprise, and is in no hurry"
)]
#![expect(clippy::disallowed_methods, reason = "golden files lie on disk")]

use std::fs;
use std::path::{Path, PathBuf};

use pointsman_wire::bedrock::events::{encode_event, encode_exception};
use pointsman_wire::chat::{Answer, Choice, Conversation, Event, Losses, Opened, Part};
use pointsman_wire::dialect::{
    CLIENTS, CONVERTED_DEPTH_MAX, ClientDef, PROVIDERS, ProviderDef, Told, client,
};
use pointsman_wire::json::tree::Tree;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Dialects of clouds that wrap another, whose answers they give word for word.
const WRAPPED: [(&str, &str); 3] =
    [("azure", "openai"), ("vertex-gemini", "gemini"), ("vertex-anthropic", "anthropic")];

/// The cases of one dialect: names and texts, in order. What a cloud wraps has its own cases and those of the dialect inside.
fn cases(kind: &str, dialect: &str) -> Vec<(String, String)> {
    let mut cases = own_cases(kind, dialect);
    if let Some((_, inner)) = WRAPPED.iter().find(|(outer, _)| *outer == dialect) {
        let known: Vec<String> = cases.iter().map(|(name, _)| name.clone()).collect();
        cases.extend(own_cases(kind, inner).into_iter().filter(|(name, _)| !known.contains(name)));
    }
    cases.sort();
    cases
}

fn own_cases(kind: &str, dialect: &str) -> Vec<(String, String)> {
    let folder = golden().join(kind).join(dialect);
    let Ok(entries) = fs::read_dir(&folder) else { return Vec::new() };
    entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// Holds a text against its golden file, or writes that.
fn hold(pair: &str, file: &str, text: &str, wrong: &mut Vec<String>) {
    let path = golden().join("pairs").join(pair).join(file);
    if option_env!("BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        return;
    }
    let known = fs::read_to_string(&path).unwrap_or_default();
    if known != text {
        wrong.push(format!("{pair}/{file}\n--- golden\n{known}\n--- now\n{text}"));
    }
}

fn all_hold(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} differ (BLESS=1 writes them anew):\n{}", wrong.len(), wrong.join("\n\n"));
}

fn pretty(json: &str) -> String {
    fn print(tree: &Tree<'_>, indent: usize, out: &mut String) {
        let pad = "  ".repeat(indent + 1);
        if tree.kind() == pointsman_wire::json::Kind::Object {
            let members: Vec<_> = tree.clone().into_members().all().collect();
            if members.is_empty() {
                return out.push_str("{}");
            }
            out.push_str("{\n");
            for (at, (name, value)) in members.iter().enumerate() {
                out.push_str(&format!("{pad}{}: ", pointsman_wire::json::quote(name)));
                print(value, indent + 1, out);
                out.push_str(if at + 1 < members.len() { ",\n" } else { "\n" });
            }
            out.push_str(&format!("{}}}", "  ".repeat(indent)));
        } else if tree.items().is_empty() {
            out.push_str(tree.raw());
        } else {
            out.push_str("[\n");
            for (at, item) in tree.items().iter().enumerate() {
                out.push_str(&pad);
                print(item, indent + 1, out);
                out.push_str(if at + 1 < tree.items().len() { ",\n" } else { "\n" });
            }
            out.push_str(&format!("{}]", "  ".repeat(indent)));
        }
    }
    let mut out = String::new();
    print(&Tree::parse(json, CONVERTED_DEPTH_MAX).expect("what is written is JSON"), 0, &mut out);
    out.push('\n');
    out
}

fn losses_text(losses: &Losses) -> String {
    losses.named().iter().map(|loss| format!("// lost {loss}\n")).collect()
}

fn read(def: &ClientDef, body: &str) -> Conversation {
    def.dialect.conversation(Tree::parse(body, CONVERTED_DEPTH_MAX).unwrap()).unwrap()
}

fn told() -> Told {
    Told {
        call: "",
        model: "asked".to_owned(),
        now_unix_s: 1_700_000_000,
        id: "req_1".to_owned(),
        stream_usage: true,
        echoed: String::new(),
    }
}

fn events(def: &ProviderDef, pieces: &[&[u8]]) -> Vec<Event> {
    let mut stream = def.dialect.stream();
    let mut events = Vec::new();
    for piece in pieces {
        stream.push(piece, &mut events).unwrap();
    }
    stream.finish(&mut events);
    events
}

/// The bytes of a stream's golden file. Those of Bedrock are no text: each line there is one event, `!` before an exception.
fn stream_bytes(def: &ProviderDef, text: &str) -> Vec<u8> {
    if def.name != "bedrock" {
        return text.as_bytes().to_vec();
    }
    let mut out = Vec::new();
    for line in text.lines() {
        let (kind, payload) = line.split_once(' ').unwrap();
        match kind.strip_prefix('!') {
            Some(kind) => encode_exception(kind, payload, &mut out),
            None => encode_event(kind, payload, &mut out),
        }
    }
    out
}

fn pairs() -> impl Iterator<Item = (&'static ClientDef, &'static ProviderDef)> {
    CLIENTS.iter().flat_map(|client| PROVIDERS.iter().map(move |provider| (*client, *provider)))
}

/// What a dialect has no case of, because there is no such thing in it.
const NO_SUCH_THING: [(&str, &str, &str, &str); 17] = [
    ("request", "ollama-generate", "tools", "`/api/generate` takes no tools"),
    ("answer", "openai", "images", NO_IMAGES),
    ("answer", "azure", "images", NO_IMAGES),
    ("answer", "anthropic", "images", NO_IMAGES),
    ("answer", "vertex-anthropic", "images", NO_IMAGES),
    ("answer", "cohere", "images", NO_IMAGES),
    ("answer", "ollama", "images", NO_IMAGES),
    ("answer", "bedrock", "images", NO_IMAGES),
    ("stream", "openai", "images", NO_IMAGES),
    ("stream", "azure", "images", NO_IMAGES),
    ("stream", "anthropic", "images", NO_IMAGES),
    ("stream", "vertex-anthropic", "images", NO_IMAGES),
    ("stream", "gemini", "images", NO_STREAMED_IMAGES),
    ("stream", "vertex-gemini", "images", NO_STREAMED_IMAGES),
    ("stream", "cohere", "images", NO_IMAGES),
    ("stream", "ollama", "images", NO_IMAGES),
    ("stream", "bedrock", "images", NO_IMAGES),
];
const NO_STREAMED_IMAGES: &str = "no other dialect streams images: `image_streamed` shows the loss";
const NO_IMAGES: &str = "models of this dialect answer in texts";

/// Each cell of the matrix is there: every feature of every dialect, as a request, an answer and a stream.
#[test]
fn every_pair_has_tools_images_reasoning_and_structured_output() {
    let clients = CLIENTS.iter().map(|def| ("request", def.name));
    let providers = PROVIDERS.iter().flat_map(|def| [("answer", def.name), ("stream", def.name)]);
    let mut excused = 0;
    for (kind, dialect) in clients.chain(providers) {
        for feature in ["text", "tools", "images", "reasoning", "structured"] {
            // Images of answers are one.
            let case = if kind != "request" && feature == "images" { "image" } else { feature };
            let there = cases(kind, dialect).iter().any(|(name, _)| name == case);
            let excuse = NO_SUCH_THING.iter().find(|(k, d, f, _)| (*k, *d, *f) == (kind, dialect, feature));
            excused += usize::from(excuse.is_some());
            assert!(there != excuse.is_some(), "{kind} {dialect} {feature}: {excuse:?}");
        }
    }
    assert_eq!(excused, NO_SUCH_THING.len(), "every reason is about something");
}

#[test]
fn requests_of_every_client_for_every_provider() {
    let mut wrong = Vec::new();
    for (client, provider) in pairs() {
        for (case, body) in cases("request", client.name) {
            let all = read(client, &body);
            let (sent, losses) = client.write_for(provider, &all, "upstream-model");
            let path = provider.dialect.path("upstream-model", all.stream);
            let text = format!("// POST {path}\n{}{}", losses_text(&losses), pretty(&sent));
            hold(
                &format!("{}-{}", client.name, provider.name),
                &format!("{case}.request.txt"),
                &text,
                &mut wrong,
            );
        }
    }
    all_hold(&wrong);
}

#[test]
fn answers_of_every_provider_for_every_client() {
    let mut wrong = Vec::new();
    for (client, provider) in pairs() {
        for (case, body) in cases("answer", provider.name) {
            let answer = provider.dialect.answer(&body).unwrap();
            let mut losses = answer.losses.clone();
            let given = client.dialect.answer(&answer, &told(), &mut losses);
            let text = format!("{}{}", losses_text(&losses), pretty(&given));
            hold(
                &format!("{}-{}", client.name, provider.name),
                &format!("{case}.answer.txt"),
                &text,
                &mut wrong,
            );
        }
    }
    all_hold(&wrong);
}

#[test]
fn streams_of_every_provider_for_every_client() {
    let mut wrong = Vec::new();
    for (client, provider) in pairs() {
        for (case, bytes) in cases("stream", provider.name) {
            let mut writer = client.dialect.stream(told());
            let (mut said, mut losses) = (String::new(), Losses::default());
            for event in events(provider, &[&stream_bytes(provider, &bytes)]) {
                if let Event::Lost(lost) = &event {
                    losses.extend(lost.clone());
                }
                if let Some((field, why)) = writer.lost(&event) {
                    losses.note(field, why);
                }
                writer.write(&event, &mut said);
            }
            let text = format!("{}{said}", losses_text(&losses));
            hold(
                &format!("{}-{}", client.name, provider.name),
                &format!("{case}.stream.txt"),
                &text,
                &mut wrong,
            );
        }
    }
    all_hold(&wrong);
}

/// What a request became in a dialect that clients speak as well means the same when it is read again: what is lost is lost
/// once, and was named.
#[test]
fn c12_a_request_there_and_back_keeps_its_meaning() {
    let mut wrong = Vec::new();
    for (from, provider) in pairs() {
        let Some(back) = client(provider.name) else { continue };
        for (case, body) in cases("request", from.name) {
            let there = provider.dialect.request(&read(from, &body), "m", &mut Losses::default());
            let once = read(back, &there);
            let again = provider.dialect.request(&once, "m", &mut Losses::default());
            let meant = |body: &str| serde_json::from_str::<serde_json::Value>(body).unwrap();
            if meant(&again) != meant(&there) {
                wrong
                    .push(format!("{} as {} and again: {case}:\n{there}\n{again}", from.name, provider.name));
            }
        }
    }
    all_hold(&wrong);
}

#[test]
fn d1_a_stream_cut_at_every_byte_gives_the_same_events() {
    for provider in PROVIDERS {
        for (case, bytes) in cases("stream", provider.name) {
            let bytes = &stream_bytes(provider, &bytes)[..];
            let whole = events(provider, &[bytes]);
            for cut in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(cut);
                assert_eq!(events(provider, &[head, tail]), whole, "{}: {case} cut at {cut}", provider.name);
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(events(provider, &single), whole, "{}: {case} byte by byte", provider.name);
        }
    }
}

fn choice<'a>(answer: &'a mut Answer, open: &mut Vec<Vec<Part>>, at: u32) -> &'a mut Choice {
    while answer.choices.len() <= at as usize {
        answer.choices.push(Choice::default());
        open.push(Vec::new());
    }
    &mut answer.choices[at as usize]
}

/// Puts the events of a stream together to the answer that they are.
fn assembled(events: &[Event]) -> Answer {
    let mut answer = Answer::default();
    let mut open: Vec<Vec<Part>> = Vec::new();
    for event in events {
        match event {
            Event::Started { id, model, created_s, usage } => {
                (answer.id, answer.model) = (id.clone(), model.clone());
                (answer.created_s, answer.usage) = (*created_s, *usage);
            }
            Event::Opened { choice: at, part, what } => {
                let parts = &mut choice(&mut answer, &mut open, *at).parts;
                assert_eq!(parts.len(), *part as usize, "parts are counted from 0");
                parts.push(match what {
                    Opened::Text => Part::text(""),
                    Opened::Thinking => Part::Thinking { text: String::new(), signature: None },
                    Opened::HiddenThinking { data } => Part::HiddenThinking { data: data.clone() },
                    Opened::ToolCall { id, name } => Part::ToolCall {
                        id: id.clone(),
                        name: name.clone(),
                        arguments: String::new(),
                        signature: None,
                    },
                    Opened::Refusal => Part::Refusal(String::new()),
                });
            }
            Event::Added { choice: at, part, text: more } => {
                match &mut choice(&mut answer, &mut open, *at).parts[*part as usize] {
                    Part::Text { text, .. }
                    | Part::Thinking { text, .. }
                    | Part::Refusal(text)
                    | Part::ToolCall { arguments: text, .. } => text.push_str(more),
                    Part::Media(_) | Part::ToolResult { .. } | Part::HiddenThinking { .. } => {
                        panic!("nothing is added to this")
                    }
                }
            }
            Event::Signed { choice: at, part, signature: signed } => {
                match &mut choice(&mut answer, &mut open, *at).parts[*part as usize] {
                    Part::Thinking { signature, .. } | Part::ToolCall { signature, .. } => {
                        signature.get_or_insert_default().push_str(signed);
                    }
                    Part::Text { .. }
                    | Part::Media(_)
                    | Part::ToolResult { .. }
                    | Part::HiddenThinking { .. }
                    | Part::Refusal(_) => panic!("this is not signed"),
                }
            }
            Event::Cited { choice: at, part, citation } => {
                if let Part::Text { citations, .. } =
                    &mut choice(&mut answer, &mut open, *at).parts[*part as usize]
                {
                    let known = citations.take().unwrap_or_else(|| "[]".to_owned());
                    let comma = if known == "[]" { "" } else { "," };
                    *citations = Some(format!("{}{comma}{citation}]", &known[..known.len() - 1]));
                }
            }
            Event::Likely { choice: at, logprobs } => {
                choice(&mut answer, &mut open, *at).logprobs.extend(logprobs.iter().cloned());
            }
            Event::Stopped { choice: at, stop, sequence } => {
                let choice = choice(&mut answer, &mut open, *at);
                (choice.stop, choice.stop_sequence) = (Some(*stop), sequence.clone());
            }
            Event::Used(usage) => answer.usage = Some(*usage),
            Event::Lost(losses) => answer.losses.extend(losses.clone()),
            Event::Failed(error) => panic!("{error:?}"),
            Event::Closed { .. } | Event::Ping | Event::Ended => {}
        }
    }
    answer
}

/// A case that is there as an answer and as a stream is the same answer.
#[test]
fn a_stream_is_the_answer_it_would_have_been_as_a_whole() {
    for provider in PROVIDERS {
        let answers = cases("answer", provider.name);
        for (case, bytes) in cases("stream", provider.name) {
            let Some((_, body)) = answers.iter().find(|(name, _)| *name == case) else { continue };
            let mut streamed = assembled(&events(provider, &[&stream_bytes(provider, &bytes)]));
            let whole = provider.dialect.answer(body).unwrap();
            streamed.created_s = whole.created_s;
            streamed.service_tier.clone_from(&whole.service_tier);
            streamed.losses.clone_from(&whole.losses);
            assert_eq!(streamed, whole, "{}: {case}", provider.name);
        }
    }
}

/// What a client's dialect writes as a stream its provider's dialect reads as the same events, where there are both.
#[test]
fn a_stream_written_and_read_again_says_the_same() {
    let mut wrong = Vec::new();
    for (written, provider) in pairs() {
        let Some(reader) = PROVIDERS.iter().find(|reader| reader.name == written.name) else { continue };
        for (case, bytes) in cases("stream", provider.name) {
            // A ping is a comment in some dialects, which nobody reads.
            let mut first = events(provider, &[&stream_bytes(provider, &bytes)]);
            first.retain(|event| *event != Event::Ping);
            let write = |events: &[Event]| {
                let (mut writer, mut text) = (written.dialect.stream(told()), String::new());
                for event in events {
                    writer.write(event, &mut text);
                }
                text
            };
            let once = write(&first);
            let again = write(&events(reader, &[once.as_bytes()]));
            // A document that is carried over as it stands may be spaced by its writer.
            if again.replace(": ", ":") != once.replace(": ", ":") {
                wrong.push(format!("{} of {}: {case}\n{once}\n{again}", written.name, provider.name));
            }
        }
    }
    all_hold(&wrong);
}

#[test]
fn what_a_stream_cannot_show_is_named() {
    let lost = |name: &str, event: &Event| {
        client(name).unwrap().dialect.stream(told()).lost(event).map(|lost| lost.0)
    };
    let cited = |citation: &str| Event::Cited { choice: 0, part: 0, citation: citation.to_owned() };
    let document = cited(r#"{"type":"document","id":"d1"}"#);
    let page = cited(r#"{"url":"https://example.org"}"#);
    let place = cited(r#"{"url":"https://example.org","start_index":1,"end_index":2}"#);
    let second = Event::Opened { choice: 1, part: 0, what: Opened::Text };
    let likely = Event::Likely { choice: 0, logprobs: Vec::new() };
    let names = ["openai", "anthropic", "gemini", "ollama"];
    assert_eq!(names.map(|name| lost(name, &document)), [Some("citations"); 4]);
    assert_eq!(names.map(|name| lost(name, &page)), [None, None, None, Some("citations")]);
    assert_eq!(names.map(|name| lost(name, &place)), [None, Some("citations"), None, Some("citations")]);
    assert_eq!(
        [lost("openai-responses", &document), lost("openai-responses", &page)],
        [Some("citations"), None]
    );
    assert_eq!(names.map(|name| lost(name, &second)), [None, Some("choices"), None, Some("choices")]);
    assert_eq!(names.map(|name| lost(name, &likely)), [None, Some("logprobs"), None, None]);
    assert_eq!(names.map(|name| lost(name, &Event::Ended)), [None; 4]);
}
