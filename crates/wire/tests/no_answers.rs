//! D2: bodies of a good status that are no answers, in every provider's dialect.

use pointsman_wire::dialect::{AnswerFault, PROVIDERS, provider};

#[test]
fn d2_a_body_that_says_nothing_is_no_answer_in_any_dialect() {
    for def in PROVIDERS {
        for body in ["{}", r#"{"id":"x","model":"m"}"#, r#"{"detail":"Not Found"}"#] {
            let read = def.dialect.answer(body);
            assert!(matches!(read, Err(AnswerFault::Missing(_))), "{}: {body}: {read:?}", def.name);
        }
        assert!(matches!(def.dialect.answer("<html>"), Err(AnswerFault::Json(_))), "{}", def.name);
    }
}

#[test]
fn d2_an_error_with_a_good_status_is_an_error() {
    for (name, body, status, kind, message) in [
        (
            "anthropic",
            r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#,
            Some(529),
            Some("overloaded_error"),
            "busy",
        ),
        ("ollama", r#"{"error":"model is loading"}"#, None, None, "model is loading"),
        (
            "gemini",
            r#"{"error":{"code":429,"message":"slow down","status":"RESOURCE_EXHAUSTED"}}"#,
            Some(429),
            Some("RESOURCE_EXHAUSTED"),
            "slow down",
        ),
    ] {
        let dialect = provider(name).expect(name).dialect;
        let Err(AnswerFault::Failed(error)) = dialect.answer(body) else { panic!("{name}: {body}") };
        assert_eq!((error.status, error.message.as_deref()), (status, Some(message)), "{name}");
        assert_eq!(error.kind.as_deref(), kind, "{name}");
    }
}

#[test]
fn a_prompt_that_is_blocked_is_answered() {
    let body = r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#;
    assert!(provider("gemini").expect("gemini").dialect.answer(body).is_ok());
}
