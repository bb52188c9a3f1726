//! What answers and streams have in common: reasons to stop, usage.

use crate::chat::{Logprob, Losses, Stop, Usage};
use crate::json::tree::Tree;

/// Why an answer ended, by its word.
pub(super) fn stop_of(word: &str) -> Stop {
    match word {
        "COMPLETE" => Stop::End,
        "MAX_TOKENS" => Stop::Length,
        "STOP_SEQUENCE" => Stop::Sequence,
        "TOOL_CALL" => Stop::ToolCalls,
        // `ERROR`, `TIMEOUT` and what may come.
        _ => Stop::Other,
    }
}

/// Usage: what was read and written, or at least what is billed of it.
pub(super) fn usage_of(tree: &Tree<'_>) -> Usage {
    let count = |name: &str| {
        let within = |group: &str| tree.get(group)?.get(name)?.count();
        within("tokens").or_else(|| within("billed_units")).unwrap_or(0)
    };
    let cached = tree.get("cached_tokens").and_then(Tree::count).unwrap_or(0);
    let tokens_in = count("input_tokens");
    Usage {
        tokens_in,
        tokens_in_cached: cached.min(tokens_in),
        tokens_out: count("output_tokens"),
        ..Usage::default()
    }
}

/// Log probabilities: one text for one token, or for several whose texts are not told apart.
pub(super) fn logprobs_of(items: Option<&Tree<'_>>, losses: &mut Losses) -> Vec<Logprob> {
    let mut found = Vec::new();
    for item in items.map(Tree::items).unwrap_or_default() {
        match (item.get("text").and_then(Tree::text), item.get("logprobs").map(Tree::items)) {
            (Some(token), Some([one])) if one.number().is_some() => found.push(Logprob {
                token: token.to_owned(),
                logprob: one.number().unwrap_or_default(),
                bytes: None,
                top: Vec::new(),
            }),
            (_, _) => losses.note("logprobs", "Cohere gives several tokens one text"),
        }
    }
    found
}
