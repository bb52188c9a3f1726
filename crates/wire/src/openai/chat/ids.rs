//! Ids for calls that came without one. Other dialects tell calls apart by their ids, and results by the call's.

use crate::chat::{Conversation, Part};

use super::words::call_id;

/// Gives calls of a history that have no id one by their place, and results without one that of the first call whose result has
/// not come.
pub(super) fn name_calls(all: &mut Conversation) {
    let mut open: Vec<String> = Vec::new();
    for (turn, message) in all.messages.iter_mut().enumerate() {
        for (at, part) in message.parts.iter_mut().enumerate() {
            match part {
                Part::ToolCall { id, .. } if id.is_empty() => {
                    *id = call_id("", turn, at);
                    open.push(id.clone());
                }
                Part::ToolResult { id, .. } if id.is_empty() && !open.is_empty() => *id = open.remove(0),
                Part::ToolCall { .. }
                | Part::ToolResult { .. }
                | Part::Text { .. }
                | Part::Media(_)
                | Part::Thinking { .. }
                | Part::HiddenThinking { .. }
                | Part::Refusal(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Role};

    #[test]
    fn d15_calls_without_ids_are_told_apart_and_get_their_results() {
        let call = |id: &str| Part::ToolCall {
            id: id.to_owned(),
            name: "f".to_owned(),
            arguments: "{}".to_owned(),
            signature: None,
        };
        let result =
            |id: &str| Part::ToolResult { id: id.to_owned(), name: None, parts: Vec::new(), is_error: false };
        let message = |role, parts| Message { role, name: None, parts };
        let mut all = Conversation {
            messages: vec![
                message(Role::Assistant, vec![call(""), call("own"), call("")]),
                message(Role::Tool, vec![result(""), result("own"), result("")]),
                message(Role::Assistant, vec![call("")]),
                message(Role::Tool, vec![result("")]),
            ],
            ..Conversation::default()
        };
        name_calls(&mut all);
        let ids = |at: usize| -> Vec<&str> {
            fn id(part: &Part) -> &str {
                match part {
                    Part::ToolCall { id, .. } | Part::ToolResult { id, .. } => id.as_str(),
                    Part::Text { .. }
                    | Part::Media(_)
                    | Part::Thinking { .. }
                    | Part::HiddenThinking { .. }
                    | Part::Refusal(_) => "",
                }
            }
            all.messages[at].parts.iter().map(id).collect()
        };
        assert_eq!((ids(0), ids(2)), (ids(1), ids(3)));
        assert_eq!(ids(0)[1], "own");
        let mut made = vec![ids(0)[0], ids(0)[2], ids(2)[0]];
        made.sort_unstable();
        made.dedup();
        assert!(made.len() == 3 && made.iter().all(|id| id.starts_with("call_")), "{made:?}");
    }
}
