//! What holds of dialects, tasks and parts, whatever comes.

use bytes::Bytes;
use pointsman_wire::chat::{Event, Losses};
use pointsman_wire::dialect::{CLIENTS, CONVERTED_DEPTH_MAX, NO_HEADERS, PROVIDERS, Told};
use pointsman_wire::json;
use pointsman_wire::json::tree::Tree;
use pointsman_wire::json::write::compact;
use pointsman_wire::ollama::{models, request};
use pointsman_wire::openai::{BodyLimits, UsageAsk, literal, rewrite};
use pointsman_wire::rerank;
use pointsman_wire::tasks::multipart::{PartLimits, Scanner, Splice, boundary};
use pointsman_wire::tasks::{self, Task};

fn told() -> Told {
    Told {
        call: "",
        model: "asked".to_owned(),
        now_unix_s: 1_700_000_000,
        id: "req_1".to_owned(),
        stream_usage: true,
        ..Told::default()
    }
}

/// What a client sends is refused, or becomes JSON for every provider; what a provider answers becomes JSON for every client.
pub(crate) fn conversions(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(tree) = Tree::parse(text, CONVERTED_DEPTH_MAX) else { return };
    assert!(Tree::parse(&compact(text), CONVERTED_DEPTH_MAX).is_ok());
    for client in CLIENTS {
        let Ok(all) = client.dialect.conversation(tree.clone()) else { continue };
        for provider in PROVIDERS {
            let sent = provider.dialect.request(&all, "m", &mut Losses::default());
            json::check(&sent, CONVERTED_DEPTH_MAX + 8).unwrap();
        }
    }
    for provider in PROVIDERS {
        let _ = provider.dialect.fault(400, NO_HEADERS, input);
        let Ok(answer) = provider.dialect.answer(text) else { continue };
        for client in CLIENTS {
            let given = client.dialect.answer(&answer, &told(), &mut Losses::default());
            json::check(&given, CONVERTED_DEPTH_MAX + 8).unwrap();
        }
    }
}

/// However a stream of any provider is cut, its events are the same; parts are opened and closed in turn, and nothing follows
/// an end.
pub(crate) fn streams(input: &[u8]) {
    for provider in PROVIDERS {
        let read = |piece_bytes: usize| {
            let (mut reader, mut events) = (provider.dialect.stream(), Vec::new());
            let sound = input.chunks(piece_bytes).all(|piece| reader.push(piece, &mut events).is_ok());
            sound.then_some(events)
        };
        let Some(whole) = read(input.len().max(1)) else { continue };
        for piece_bytes in [1, 29] {
            assert_eq!(read(piece_bytes).as_ref(), Some(&whole), "{}", provider.name);
        }
        let ends = whole.iter().filter(|event| matches!(event, Event::Ended)).count();
        assert!(ends <= 1, "{}: {ends} ends", provider.name);
        for client in CLIENTS {
            let (mut writer, mut text) = (client.dialect.stream(told()), String::new());
            for event in &whole {
                writer.write(event, &mut text);
            }
        }
    }
}

/// What is accepted of an Ollama client is forwarded with the model changed.
pub(crate) fn ollama(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    for api in request::Api::ALL {
        let Ok(read) = request::parse(api, &body, &BodyLimits::default(), 1) else { continue };
        let sent = rewrite(&read, &body, &literal("up"), UsageAsk::Inject).concat();
        let again = request::parse(api, &sent, &BodyLimits::default(), 1).unwrap();
        assert!(again.model == "up" && again.forbidden.is_empty());
        assert_eq!((again.prompt_bytes, again.stream), (read.prompt_bytes, read.stream));
    }
    let _ = models::asked_to_show(input, &BodyLimits::default());
}

/// A task that is accepted is forwarded with the model changed or put in.
pub(crate) fn tasks(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    for task in Task::ALL.into_iter().filter(|task| !task.is_multipart()) {
        let Ok(read) = tasks::json::parse(task, &body, &BodyLimits::default()) else { continue };
        let sent = rewrite(&read.clone().into_request(), &body, &literal("up"), UsageAsk::AsSent);
        let whole = sent.concat();
        assert_eq!(whole.len() as u64, sent.len);
        let again = tasks::json::parse(task, &whole, &BodyLimits::default()).unwrap();
        assert_eq!(again.model.as_deref(), Some("up"));
        assert_eq!((again.items, again.text_bytes, again.stream), (read.items, read.text_bytes, read.stream));
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    if tasks::json::parse(Task::Rerank, input, &BodyLimits::default()).is_ok() {
        let asked = rerank::read(text).unwrap();
        for form in rerank::Form::ALL {
            let sent = rerank::write(&asked, form, "up", &mut Losses::default());
            tasks::json::parse(Task::Rerank, sent.as_bytes(), &BodyLimits::default()).unwrap();
        }
    }
    if let Ok(ranked) = rerank::read_answer(text) {
        for form in rerank::Form::ALL {
            let given =
                rerank::write_answer(&ranked, &rerank::Rerank::default(), form, &rerank::Told::default());
            json::check(&given, CONVERTED_DEPTH_MAX + 8).unwrap();
        }
    }
}

/// However parts are cut they are the same parts, and a model that is put in is the one that is found then. The first line is
/// the content type, the rest the body.
pub(crate) fn multipart(input: &[u8]) {
    let at = input.iter().position(|byte| *byte == b'\n').map_or(input.len(), |at| at + 1);
    let (head, body) = input.split_at(at);
    let found = std::str::from_utf8(head).ok().and_then(|head| boundary(head.trim_end()).ok());
    let boundary = found.unwrap_or_else(|| "b".to_owned());
    for task in Task::ALL.into_iter().filter(|task| task.is_multipart()) {
        let scan = |body: &[u8], piece_bytes: usize| {
            let mut scanner = Scanner::new(task, &boundary, PartLimits::default());
            body.chunks(piece_bytes).try_for_each(|piece| scanner.push(piece))?;
            scanner.finish()
        };
        let whole = scan(body, body.len().max(1));
        for piece_bytes in [1, 5] {
            assert_eq!(scan(body, piece_bytes).is_ok(), whole.is_ok());
            if let Ok(whole) = &whole {
                assert_eq!(scan(body, piece_bytes).as_ref(), Ok(whole));
            }
        }
        let Some(place) = whole.ok().and_then(|form| form.model_at) else { continue };
        let (mut splice, mut out) =
            (Splice::new(place, Bytes::from_static(b"up")), pointsman_wire::openai::Segments::new());
        body.chunks(7).for_each(|piece| splice.push(&Bytes::copy_from_slice(piece), &mut out));
        assert_eq!(scan(&out.concat(), 64).unwrap().model.as_deref(), Some("up"));
    }
}
