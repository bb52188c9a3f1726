//! What becomes of answers that do not fit their schema.

use pointsman_routing::flow::misfit::OnMismatch;

use super::{check, read};

const MODEL: &str = "strategy: { name: consistent_hash, key: session, bound: 1.5 }\n";

fn policy(text: &str) -> Option<OnMismatch> {
    let with = super::GOOD.replacen(MODEL, &format!("{MODEL}    {text}\n"), 1);
    read(&with).expect("it is good").models["llama"].structured_output.on_mismatch.policy()
}

#[test]
fn each_setting_is_understood_and_off_is_usual() {
    assert_eq!(policy("structured_output: {}"), None);
    assert_eq!(policy("structured_output: { on_mismatch: off }"), None);
    assert_eq!(policy("structured_output: { on_mismatch: fail_over }"), Some(OnMismatch::FailOver));
    assert_eq!(policy("structured_output: { on_mismatch: repair }"), Some(OnMismatch::Repair));
    assert_eq!(policy("structured_output: { on_mismatch: refuse }"), Some(OnMismatch::Refuse));
}

#[test]
fn what_sends_again_needs_a_second_attempt() {
    let bad = format!("{MODEL}    attempts_max: 1\n    structured_output: {{ on_mismatch: repair }}\n");
    check(
        (MODEL, &bad),
        "12:26: models.llama.structured_output.on_mismatch: `repair` sends a request a second time, and `attempts_max` is 1; \
         set `attempts_max` to 2 or more, or say `refuse`",
    );
}
