//! What holds for any input in the Gemini dialect. Shared by the corpus test and the fuzz targets.
#![expect(clippy::unwrap_used, reason = "a broken invariant has to stop the run")]

use bytes::Bytes;
use pointsman_wire::chat::{Event, Losses};
use pointsman_wire::dialect::{CLIENTS, CONVERTED_DEPTH_MAX, NO_HEADERS, PROVIDERS, Told, client, provider};
use pointsman_wire::gemini::{Method, Route, parse};
use pointsman_wire::json::{check, tree::Tree};
use pointsman_wire::openai::rewrite::{UsageAsk, literal, rewrite};
use pointsman_wire::openai::{BodyLimits, ErrorBody};

const MODEL: &str = "m";

fn told() -> Told {
    Told { model: MODEL.to_owned(), id: "req_1".to_owned(), ..Told::default() }
}

/// What is accepted is forwarded unchanged but for the model, and becomes JSON in every other dialect.
pub(crate) fn request(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    for method in Method::ALL {
        match parse(method, MODEL, &body, &BodyLimits::default(), 1) {
            Err(invalid) => {
                assert!(invalid.status == 400 && !invalid.message.is_empty());
                let error = client("gemini").unwrap().dialect.error(&ErrorBody::from(invalid), "req_1");
                check(&error, 8).unwrap();
            }
            Ok(asked) => {
                let same = rewrite(&asked, &body, &literal(MODEL), UsageAsk::AsSent);
                assert_eq!(same.concat().len() as u64, same.len);
                let again = parse(method, MODEL, &same.concat(), &BodyLimits::default(), 1).unwrap();
                assert_eq!(again, asked);
            }
        }
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    let _ = Route::of_path(text);
    let Ok(tree) = Tree::parse(text, CONVERTED_DEPTH_MAX) else { return };
    let Ok(all) = client("gemini").unwrap().dialect.conversation(tree) else { return };
    for provider in PROVIDERS {
        let sent = provider.dialect.request(&all, "upstream", &mut Losses::default());
        check(&sent, 2 * CONVERTED_DEPTH_MAX).unwrap();
    }
}

fn events(bytes: &[u8], piece_bytes: usize) -> (Vec<Event>, bool) {
    let (mut stream, mut events) = (provider("gemini").unwrap().dialect.stream(), Vec::new());
    for piece in bytes.chunks(piece_bytes) {
        if stream.push(piece, &mut events).is_err() {
            return (events, false);
        }
    }
    stream.finish(&mut events);
    (events, true)
}

/// However an answer is cut, the same is read, and every other dialect can say it.
pub(crate) fn answer(input: &[u8]) {
    let whole = events(input, input.len().max(1));
    for piece_bytes in [1, 7] {
        assert_eq!(events(input, piece_bytes), whole);
    }
    let ended = whole.0.iter().filter(|event| matches!(event, Event::Ended | Event::Failed(_))).count();
    assert!(ended <= 1 && (ended == 0 || matches!(whole.0.last(), Some(Event::Ended | Event::Failed(_)))));
    for client in CLIENTS {
        let (mut writer, mut text) = (client.dialect.stream(told()), String::new());
        whole.0.iter().for_each(|event| writer.write(event, &mut text));
    }
    let (mut array, mut text) = (
        client("gemini").unwrap().dialect.stream(Told { call: "streamGenerateContent", ..told() }),
        String::new(),
    );
    whole.0.iter().for_each(|event| array.write(event, &mut text));
    if ended == 1 {
        check(&text, 2 * CONVERTED_DEPTH_MAX).unwrap();
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    let _ = provider("gemini").unwrap().dialect.fault(500, NO_HEADERS, input);
    let Ok(answer) = provider("gemini").unwrap().dialect.answer(text) else { return };
    for client in CLIENTS {
        let given = client.dialect.answer(&answer, &told(), &mut Losses::default());
        check(&given, 2 * CONVERTED_DEPTH_MAX).unwrap();
    }
}
