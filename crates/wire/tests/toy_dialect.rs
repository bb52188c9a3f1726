//! A dialect is one file and one line: this is such a file, and every dialect there is gets along with it. The line, in
//! `CLIENTS` or `PROVIDERS`, is what the tests below do without.
//!
//! Requests are `{"model": "m", "say": ["a question", "an answer", …]}`, answers `{"said": "…"}`, streams lines of JSON texts
//! that end with `null`.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "golden files lie on disk, and a test may stop"
)]

use std::fs;
use std::path::Path;

use pointsman_wire::chat::{Answer, Choice, Conversation, Event, Losses, Message, Opened, Part, Role, Stop};
use pointsman_wire::dialect::{
    AnswerFault, Asked, CLIENTS, CONVERTED_DEPTH_MAX, ClientDef, ClientDialect, Headers, OPENAI, PROVIDERS,
    ProviderDef, ProviderDialect, ReadStream, Told, WriteStream, provider,
};
use pointsman_wire::json::quote;
use pointsman_wire::json::tree::Tree;
use pointsman_wire::json::write::{array, object};
use pointsman_wire::openai::error::{ErrorBody, Fault, Invalid, classify};
use pointsman_wire::openai::request::Operation;
use pointsman_wire::openai::sse::StreamFault;

static CLIENT: ClientDef = ClientDef {
    name: "toy",
    summary: "Toys.",
    route: |path, _| (path == "/toy").then(|| Asked::call(Operation::Chat, "/toy")),
    read: |_, body, limits, salt| {
        // The facts of a conversation are the same in every dialect: here, those of OpenAI's form of it.
        let text = std::str::from_utf8(body).map_err(|_| Invalid::body("the body is not UTF-8"))?;
        let tree = Tree::parse(text, CONVERTED_DEPTH_MAX)?;
        let model = tree.get("model").and_then(Tree::text).unwrap_or_default().to_owned();
        let conversation = Toy.conversation(tree)?;
        let openai =
            provider("openai").unwrap().dialect.request(&conversation, &model, &mut Losses::default());
        (OPENAI.read)(&Asked::of(Operation::Chat), openai.as_bytes(), limits, salt)
    },
    headers: &[],
    places: &["/toy"],
    schema_field: "",
    words: &[],
    request_id_header: None,
    error_status: |error| error.status,
    stream_type: |_| "application/x-ndjson",
    heartbeat: "",
    dialect: &Toy,
};

static PROVIDER: ProviderDef = ProviderDef {
    name: "toy",
    summary: "Toys.",
    stream_type: "application/x-ndjson",
    relays: &[],
    dialect: &Toy,
};

struct Toy;

impl ClientDialect for Toy {
    fn conversation(&self, body: Tree<'_>) -> Result<Conversation, Invalid> {
        let say = body.get("say").ok_or_else(|| Invalid::field("say", "`say` is missing"))?;
        let message = |(at, text): (usize, &Tree<'_>)| Message {
            role: if at % 2 == 0 { Role::User } else { Role::Assistant },
            name: None,
            parts: vec![Part::text(text.text().unwrap_or_default())],
        };
        let messages = say.items().iter().enumerate().map(message).collect();
        Ok(Conversation { messages, choices: 1, ..Conversation::default() })
    }

    fn answer(&self, answer: &Answer, _: &Told, losses: &mut Losses) -> String {
        object(|it| {
            it.text("said", &text_of(answer.choices.iter().flat_map(|choice| &choice.parts), losses));
        })
    }

    fn stream(&self, _: Told) -> Box<dyn WriteStream> {
        Box::new(Lines)
    }

    fn error(&self, error: &ErrorBody, _: &str) -> String {
        object(|it| {
            it.text("wrong", &error.message);
        })
    }
}

impl ProviderDialect for Toy {
    fn path(&self, _: &str, _: bool) -> String {
        "/toy".to_owned()
    }

    fn request(&self, conversation: &Conversation, model: &str, losses: &mut Losses) -> String {
        let said: Vec<String> =
            conversation.messages.iter().map(|message| quote(&text_of(&message.parts, losses))).collect();
        object(|it| {
            it.text("model", model).raw("say", &array(said));
        })
    }

    fn answer(&self, body: &str) -> Result<Answer, AnswerFault> {
        let tree = Tree::parse(body, CONVERTED_DEPTH_MAX)?;
        let parts = tree.get("said").and_then(Tree::text).map(Part::text).into_iter().collect();
        let choice = Choice { parts, stop: Some(Stop::End), ..Choice::default() };
        Ok(Answer { choices: vec![choice], ..Answer::default() })
    }

    fn stream(&self) -> Box<dyn ReadStream> {
        Box::new(Reader::default())
    }

    fn fault(&self, status: u16, headers: Headers<'_>, body: &[u8]) -> Fault {
        classify(status, headers("retry-after"), body)
    }
}

fn text_of<'a>(parts: impl IntoIterator<Item = &'a Part>, losses: &mut Losses) -> String {
    let mut all = String::new();
    for part in parts {
        if let Part::Text { text, .. } = part {
            all += text;
        } else {
            losses.note("say", "toys speak text");
        }
    }
    all
}

struct Lines;

impl WriteStream for Lines {
    fn write(&mut self, event: &Event, out: &mut String) {
        if let Event::Added { text, .. } = event {
            *out += &quote(text);
            *out += "\n";
        } else if *event == Event::Ended {
            *out += "null\n";
        }
    }
}

#[derive(Default)]
struct Reader {
    line: Vec<u8>,
    began: bool,
}

impl ReadStream for Reader {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), StreamFault> {
        let (choice, part) = (0, 0);
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            if !std::mem::replace(&mut self.began, true) {
                let started =
                    Event::Started { id: String::new(), model: String::new(), created_s: None, usage: None };
                events.extend([started, Event::Opened { choice, part, what: Opened::Text }]);
            }
            let tree = Tree::parse(std::str::from_utf8(&line).unwrap(), 1).unwrap();
            match tree.text() {
                Some(text) => events.push(Event::Added { choice, part, text: text.to_owned() }),
                None => {
                    let stopped = Event::Stopped { choice, stop: Stop::End, sequence: None };
                    events.extend([Event::Closed { choice, part }, stopped, Event::Ended]);
                }
            }
        }
        Ok(())
    }
}

fn golden(path: &str) -> Option<String> {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(path)).ok()
}

fn streamed(reader: &mut dyn ReadStream, bytes: &[u8], writer: &mut dyn WriteStream) -> String {
    let (mut events, mut out) = (Vec::new(), String::new());
    for byte in bytes {
        reader.push(&[*byte], &mut events).unwrap();
    }
    reader.finish(&mut events);
    for event in events {
        writer.write(&event, &mut out);
    }
    out
}

#[test]
fn a_client_dialect_is_one_file() {
    let body = r#"{"model":"m","say":["What is a pointsman?","A switchman.","And what does one do?"]}"#;
    let (def, asked) = (&CLIENT, (CLIENT.route)("/toy", None).unwrap());
    let facts = (def.read)(&asked, body.as_bytes(), &Default::default(), 0).unwrap();
    assert_eq!((facts.model.as_str(), facts.needs.tools), ("m", false));
    let conversation = def.dialect.conversation(Tree::parse(body, CONVERTED_DEPTH_MAX).unwrap()).unwrap();
    for other in PROVIDERS {
        let sent = other.dialect.request(&conversation, "m", &mut Losses::default());
        assert!(
            sent.contains("A switchman.") && sent.contains("And what does one do?"),
            "{}: {sent}",
            other.name
        );
        let Some(answer) = golden(&format!("answer/{}/text.json", other.name)) else { continue };
        let given = def.dialect.answer(
            &other.dialect.answer(&answer).unwrap(),
            &Told::default(),
            &mut Losses::default(),
        );
        assert!(given.len() > r#"{"said":""}"#.len(), "{}: {given}", other.name);
        let text = golden(&format!("stream/{}/text.txt", other.name)).filter(|_| other.name != "bedrock");
        let Some(text) = text else { continue };
        let out = streamed(
            &mut *other.dialect.stream(),
            text.as_bytes(),
            &mut *def.dialect.stream(Told::default()),
        );
        assert!(out.lines().count() > 1 && out.ends_with("null\n"), "{}: {out}", other.name);
    }
}

#[test]
fn a_provider_dialect_is_one_file() {
    for other in CLIENTS {
        let body = golden(&format!("request/{}/text.json", other.name)).unwrap();
        let conversation =
            other.dialect.conversation(Tree::parse(&body, CONVERTED_DEPTH_MAX).unwrap()).unwrap();
        let sent = PROVIDER.dialect.request(&conversation, "m", &mut Losses::default());
        let read = CLIENT.dialect.conversation(Tree::parse(&sent, CONVERTED_DEPTH_MAX).unwrap()).unwrap();
        assert_eq!(read.messages.len(), conversation.messages.len(), "{}: {sent}", other.name);
        let answer = PROVIDER.dialect.answer(r#"{"said":"It sets the points."}"#).unwrap();
        let given = other.dialect.answer(&answer, &Told::default(), &mut Losses::default());
        assert!(given.contains("It sets the points."), "{}: {given}", other.name);
        let stream = &mut *PROVIDER.dialect.stream();
        let out = streamed(
            stream,
            b"\"It sets\"\n\" the points.\"\nnull\n",
            &mut *other.dialect.stream(Told::default()),
        );
        assert!(out.contains("It sets") && out.contains(" the points."), "{}: {out}", other.name);
    }
}
