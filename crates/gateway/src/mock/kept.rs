//! Answers of the Responses API that the mock keeps, for the key that asked for them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Method;
use pointsman_wire::openai::responses::state::{Action, Place};
use serde_json::{Value, json};

/// Answers that are kept; older ones are forgotten.
const KEPT_MAX: usize = 256;

/// Answers that are kept.
#[derive(Default)]
pub(super) struct Answers(VecDeque<Kept>);

struct Kept {
    id: String,
    key: Option<String>,
    response: Value,
    input: Value,
}

/// An id that no other mock gives out.
pub(super) fn new_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (now_ms, next) = (crate::clock::unix_ms(), NEXT.fetch_add(1, Ordering::Relaxed));
    format!("resp_mock_{:x}_{now_ms:x}_{next}", std::process::id())
}

impl Answers {
    /// Keeps an answer and what it was asked with.
    pub(super) fn keep(&mut self, key: Option<&str>, response: Value, input: Value) {
        if self.0.len() >= KEPT_MAX {
            self.0.pop_front();
        }
        let id = response["id"].as_str().unwrap_or_default().to_owned();
        self.0.push_back(Kept { id, key: key.map(str::to_owned), response, input });
    }

    fn place(&self, key: Option<&str>, id: &str) -> Option<usize> {
        self.0.iter().position(|kept| kept.id == id && kept.key.as_deref() == key)
    }

    /// Why a request cannot go on with what it names, if so: status and body.
    pub(super) fn against(&self, key: Option<&str>, body: &Value) -> Option<Value> {
        let id = body["previous_response_id"].as_str().filter(|id| self.place(key, id).is_none())?;
        Some(json!({"error": {"message": format!("Previous response with id '{id}' not found."),
            "type": "invalid_request_error", "param": "previous_response_id", "code": "previous_response_not_found"}}))
    }

    /// What becomes of a request about an answer: status and body.
    pub(super) fn ask(&mut self, method: &Method, place: &Place, key: Option<&str>) -> (u16, Value) {
        let Some(at) = self.place(key, &place.id) else {
            let message = format!("Response with id '{}' not found.", place.id);
            return (
                404,
                json!({"error": {"message": message, "type": "invalid_request_error", "param": "id", "code": null}}),
            );
        };
        let kept = &mut self.0[at];
        match (place.action, method) {
            (Action::Itself, &Method::GET) => (200, kept.response.clone()),
            (Action::Itself, &Method::DELETE) => {
                let deleted = json!({"id": kept.id, "object": "response", "deleted": true});
                self.0.remove(at);
                (200, deleted)
            }
            (Action::Cancel, &Method::POST) => {
                kept.response["status"] = "cancelled".into();
                (200, kept.response.clone())
            }
            (Action::InputItems, &Method::GET) => {
                let text = json!([{"type": "input_text", "text": kept.input}]);
                let item = json!({"id": "msg_in", "type": "message", "role": "user", "content": text});
                let items = if kept.input.is_array() { kept.input.clone() } else { json!([item]) };
                (
                    200,
                    json!({"object": "list", "data": items, "first_id": "msg_in", "last_id": "msg_in", "has_more": false}),
                )
            }
            _ => (405, json!({"error": {"message": "not here", "type": "invalid_request_error"}})),
        }
    }
}
