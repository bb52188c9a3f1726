//! The scanner against the grammar, and against a parser that others wrote.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use pointsman_wire::json::{self, JsonFault, Scanner, quote};
use proptest::prelude::*;

const DEPTH: usize = 64;

/// Whether another parser, which skips what it is not asked for like ours, accepts the text.
fn oracle(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

#[track_caller]
fn check(accepted: bool, texts: &[&str]) {
    for text in texts {
        assert_eq!(json::check(text, DEPTH).is_ok(), accepted, "{text:?}");
        assert_eq!(oracle(text), accepted, "the oracle on {text:?}");
    }
}

#[test]
fn c5_numbers_follow_the_grammar() {
    check(
        true,
        &[
            "0",
            "-0",
            "1",
            "-1",
            "10",
            "1.0",
            "1.5e3",
            "1E+2",
            "1e-2",
            "0e0",
            "-0.0",
            "1e400",
            "9007199254740993",
        ],
    );
    check(true, &["123456789012345678901234567890", "0.00000000000000000000000000000000001"]);
    check(
        false,
        &[
            "01",
            "+1",
            ".5",
            "1.",
            "1.e1",
            "1e",
            "1e+",
            "-",
            "--1",
            "0x1",
            "1_000",
            "NaN",
            "-Infinity",
            "Infinity",
        ],
    );
    check(false, &["1 2", "-01", "1.2.3", "1a", "１"]);
}

#[test]
fn c5_strings_follow_the_grammar() {
    check(
        true,
        &[r#""""#, r#""a""#, r#""\"\\\/\b\f\n\r\t""#, r#""\u0041""#, r#""\uD834\uDD1E""#, r#""\ud800""#],
    );
    check(true, &[r#""\udc00\ud800""#, r#""\uFFFF""#, "\"\u{7f}\"", "\"é😀\u{2028}\"", r#""\u0000""#]);
    check(
        false,
        &[
            r#"""#,
            r#""a"#,
            r#""\"#,
            r#""\x41""#,
            r#""\u12""#,
            r#""\u12G4""#,
            r#""\U0041""#,
            "\"\t\"",
            "\"\n\"",
        ],
    );
    check(false, &["\"\u{0}\"", "\"\u{1f}\"", "'a'", r#""a" "b""#, r#"\"a""#]);
}

#[test]
fn structures_follow_the_grammar() {
    check(
        true,
        &[
            "[]",
            "{}",
            "[ ]",
            "{ }",
            "[[]]",
            "[{}]",
            r#"{"a":[]}"#,
            r#"{"a":1,"a":2}"#,
            "[1,2]",
            " [1 , 2 ] \r\n",
        ],
    );
    check(true, &["null", "true", "false", r#"{"":0}"#, r#"[[1],{"a":{"b":[null]}}]"#, "\t1"]);
    check(
        false,
        &["", " ", "[", "]", "{", "}", "[1", "[1,", "[1,]", "[,1]", "[,]", "[1 2]", "[1]]", "[}", "{]"],
    );
    check(
        false,
        &[
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{,"a":1}"#,
            r#"{"a" 1}"#,
            "{1:1}",
            "{a:1}",
            r#"{"a":1 "b":2}"#,
        ],
    );
    check(
        false,
        &[
            "nul",
            "nulll",
            "True",
            "tru",
            "[nul]",
            "undefined",
            "// x\n1",
            "/**/1",
            "\u{a0}1",
            "\u{feff}1",
            "\u{c}1",
        ],
    );
    check(false, &[r#"{"a":1]"#, "[1}", r#"{"a":[1}"#, r#"[{"a":1]]"#]);
}

#[test]
fn c3_depth_is_limited_and_never_recursed() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(json::check(&nested(64), 64), Ok(()));
    assert_eq!(json::check(&nested(65), 64).unwrap_err().what, JsonFault::TooDeep);
    assert_eq!(json::check(&nested(100_000), usize::MAX).unwrap_err().what, JsonFault::TooDeep);
    assert_eq!(json::check(&nested(1024), usize::MAX), Ok(()));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(100), "}".repeat(100));
    assert_eq!(json::check(&objects, 100), Ok(()));
    assert_eq!(json::check(&objects, 99).unwrap_err().what, JsonFault::TooDeep);
}

#[test]
fn faults_say_where() {
    let check = |text: &str, at: usize| assert_eq!(json::check(text, DEPTH).unwrap_err().at, at, "{text:?}");
    check("", 0);
    check("[1,]", 3);
    check("[1]x", 3);
    check(r#"{"a":tru}"#, 5);
    check("\"abc\u{1}\"", 4);
    check(r#""a\q""#, 2);
}

#[test]
fn strings_end_where_they_end_whatever_their_length() {
    for length in 0..300 {
        for special in ["\"", "\\n\"", "\u{1}"] {
            let text = format!("\"{}{special}", "x".repeat(length));
            let mut scanner = Scanner::new(&text, DEPTH);
            match special {
                "\u{1}" => assert_eq!(scanner.string().unwrap_err().at, length + 1),
                _ => assert_eq!(scanner.string().unwrap().span().end, text.len(), "{length}"),
            }
        }
    }
}

#[test]
fn escapes_are_decoded_as_others_do() {
    let check = |literal: &str| {
        let ours = Scanner::new(literal, DEPTH).string().unwrap();
        let theirs: String = serde_json::from_str(literal).unwrap();
        assert_eq!(ours.decode().as_deref(), Some(&*theirs), "{literal}");
        assert_eq!(ours.meant_bytes(), theirs.len(), "{literal}");
        assert!(ours.is(&theirs));
    };
    check(r#""""#);
    check(r#""plain""#);
    check(r#""\n\t\r\b\f\/\\\"""#);
    check(r#""a\u0041\u00e9\u4e2d\ud83d\ude00b""#);
    check(r#""\u0000""#);
    assert_eq!(Scanner::new(r#""\ud800x""#, DEPTH).string().unwrap().decode(), None);
    assert_eq!(Scanner::new(r#""\ude00\ud83d""#, DEPTH).string().unwrap().decode(), None);
    let mut chunks = Vec::new();
    Scanner::new(r#""a\ud800b""#, DEPTH).string().unwrap().chunks(|chunk| {
        chunks.extend_from_slice(chunk);
        true
    });
    assert_eq!(chunks, b"a\xEF\xBFb", "half a surrogate pair is what no text has");
}

/// Bytes that matter to the grammar.
const LIKELY: &[u8] = b"{}[]\",:\\ue0-+.1 \n\x01tnf";

/// Any JSON value as text.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(|value| format!("{value:e}")),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<String>().prop_map(|value| serde_json::to_string(&value).unwrap()),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(" , "))),
            prop::collection::vec((any::<String>(), inner), 0..5).prop_map(|members| {
                let member = |(key, value): &(String, String)| {
                    format!("{} : {value}", serde_json::to_string(key).unwrap())
                };
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

/// What may stand in a string between runs of plain text.
const ESCAPES: [&str; 8] = ["", "\\n", "\\\"", "\\\\", "\\u00e9", "\\ud83d\\ude00", "é", "\\u0022"];

proptest! {
    /// Escapes fall on every place of the blocks that are read at once, and across their borders.
    #[test]
    fn long_strings_mean_what_others_make_of_them(
        runs in prop::collection::vec((0..150_usize, prop::sample::select(&ESCAPES[..])), 1..40),
        behind in prop::sample::select(&["", " ", ",\"next\":\"\\n"][..]),
    ) {
        let inside: String = runs.iter().map(|(plain, escape)| "p".repeat(*plain) + escape).collect();
        let literal = format!("\"{inside}\"");
        let whole = format!("{literal}{behind}");
        let ours = Scanner::new(&whole, DEPTH).string().unwrap();
        let theirs: String = serde_json::from_str(&literal).unwrap();
        prop_assert_eq!(ours.span().end, literal.len());
        prop_assert_eq!(ours.meant_bytes(), theirs.len());
        let decoded = ours.decode();
        prop_assert_eq!(decoded.as_deref(), Some(&*theirs));
        let mut meant = Vec::new();
        ours.chunks(|chunk| { meant.extend_from_slice(chunk); true });
        prop_assert_eq!(meant, theirs.as_bytes());
    }

    #[test]
    fn what_is_wrong_with_a_long_string_is_told_with_its_place(before in 0..200_usize, after in 0..100_usize) {
        let fault = |text: &str| {
            let fault = Scanner::new(text, DEPTH).string().unwrap_err();
            (fault.at, fault.what)
        };
        let (before_text, after_text) = ("p".repeat(before), "p".repeat(after));
        for escape in ["\\x", "\\u12g4", "\\u"] {
            let text = format!("\"{before_text}{escape}\"{after_text}");
            prop_assert_eq!(fault(&text), (1 + before, JsonFault::Escape), "{}", escape);
        }
        for end in ["", "\\", "\\n"] {
            let text = format!("\"{before_text}{end}");
            let at = if end == "\\" { 1 + before } else { text.len() };
            prop_assert_eq!(fault(&text), (at, JsonFault::Ended), "{}", end);
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_two_bytes_at_every_place(before in 0..1100_usize, after in 0..100_usize) {
        let text = format!("\"{}\\ud83d{}\"", "p".repeat(before), "q".repeat(after));
        let mut meant = Vec::new();
        Scanner::new(&text, DEPTH).string().unwrap().chunks(|chunk| { meant.extend_from_slice(chunk); true });
        let expected = ["p".repeat(before).as_bytes(), b"\xEF\xBF", "q".repeat(after).as_bytes()].concat();
        prop_assert_eq!(meant, expected);
    }

    #[test]
    fn chunks_end_when_there_is_enough(enough in 1..4000_usize) {
        let text = format!("\"{}\"", "0123456789\\n".repeat(500));
        let mut meant = Vec::new();
        let string = Scanner::new(&text, DEPTH).string().unwrap();
        string.chunks(|chunk| { meant.extend_from_slice(chunk); meant.len() < enough });
        prop_assert!(meant.len() >= enough && meant.len() < enough + 2048, "{} of {}", meant.len(), enough);
        prop_assert!("0123456789\n".repeat(500).as_bytes().starts_with(&meant));
    }

    #[test]
    fn a_control_character_is_found_wherever_it_stands(before in 0..200_usize, after in 0..200_usize, byte in 0..0x20_u8) {
        let text = format!("\"{}\\n{}{}\"", "é".repeat(before), char::from(byte), "p".repeat(after));
        let fault = Scanner::new(&text, DEPTH).string().unwrap_err();
        prop_assert_eq!((fault.at, fault.what), (3 + 2 * before, JsonFault::Control));
    }

    #[test]
    fn valid_json_is_accepted(text in any_json()) {
        prop_assert!(json::check(&text, DEPTH).is_ok());
    }

    #[test]
    fn mutated_json_is_judged_as_others_do(
        text in any_json(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4),
    ) {
        let mut bytes = text.into_bytes();
        for (index, byte, action) in edits {
            if bytes.is_empty() { break; }
            let at = index.index(bytes.len());
            let byte = LIKELY[usize::from(byte) % LIKELY.len()];
            match action {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        if let Ok(text) = std::str::from_utf8(&bytes) {
            prop_assert_eq!(json::check(text, DEPTH).is_ok(), oracle(text), "{}", text);
        }
    }

    #[test]
    fn soup_is_judged_as_others_do(text in r#"[\[\]{},:"\\ue0-9.+\- \ntrfalsn]{0,24}"#) {
        prop_assert_eq!(json::check(&text, DEPTH).is_ok(), oracle(&text), "{}", text);
    }

    #[test]
    fn i8_any_text_survives_quoting(text in any::<String>()) {
        let literal = quote(&text);
        prop_assert_eq!(serde_json::from_str::<String>(&literal).unwrap(), text.clone());
        prop_assert!(Scanner::new(&literal, 1).string().unwrap().is(&text));
    }
}
