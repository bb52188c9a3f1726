//! The models that there are, as clients of the Messages API ask for them: `/v1/models`.

use crate::json::write::{array, object};

/// When a model was made, where nobody knows: the API demands a time.
const UNKNOWN: &str = "1970-01-01T00:00:00Z";

/// One model.
pub fn model(name: &str) -> String {
    object(|it| {
        it.text("type", "model").text("id", name).text("display_name", name).text("created_at", UNKNOWN);
    })
}

/// All of them, on one page.
pub fn models(names: &[&str]) -> String {
    object(|it| {
        it.raw("data", &array(names.iter().map(|name| model(name)))).boolean("has_more", false);
        for (field, name) in [("first_id", names.first()), ("last_id", names.last())] {
            match name {
                Some(name) => it.text(field, name),
                None => it.raw(field, "null"),
            };
        }
    })
}
