//! What is to be sent again may be sent more than once.

use crate::diagnostic::Problem;
use crate::models::ModelConfig;
use crate::tree::join;

pub(super) fn check(path: &str, model: &ModelConfig, found: &mut Vec<Problem>) {
    let Some(word) = model.structured_output.on_mismatch.sends_again() else { return };
    if model.attempts_max == Some(1) {
        let path = join(&join(path, "structured_output"), "on_mismatch");
        let text = format!("`{word}` sends a request a second time, and `attempts_max` is 1");
        found.push(Problem::new(path, text).help("set `attempts_max` to 2 or more, or say `refuse`"));
    }
}
