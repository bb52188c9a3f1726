//! What providers of the Responses API keep: the paths of it, and the ids that answers give out.

use crate::dialect::CONVERTED_DEPTH_MAX;
use crate::events::Events;
use crate::json::Scanner;
use crate::json::tree::Tree;

/// Bytes of an answer that is not streamed in which ids are looked for.
pub const WATCHED_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Longest id of a response in a path, in bytes.
pub const ID_BYTES_MAX: usize = 256;

/// What is asked about a response that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its id.
    pub id: String,
    /// What.
    pub action: Action,
}

/// What can be asked about a response that is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The response itself, to be given or deleted.
    Itself,
    /// That it ends, if it goes on in the background.
    Cancel,
    /// What it was asked with.
    InputItems,
}

impl Place {
    /// The place that a path means, if it is one of these.
    pub fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/v1/responses/")?;
        let (id, action) = match rest.split_once('/') {
            None => (rest, Action::Itself),
            Some((id, "cancel")) => (id, Action::Cancel),
            Some((id, "input_items")) => (id, Action::InputItems),
            Some(_) => return None,
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        // These are calls of their own, and no ids.
        let other = matches!(id, "compact" | "input_tokens");
        let good = !id.is_empty() && !other && id.len() <= ID_BYTES_MAX && id.bytes().all(plain);
        good.then(|| Self { id: id.to_owned(), action })
    }

    /// The path below a provider's path of responses.
    pub fn below(&self) -> String {
        match self.action {
            Action::Itself => format!("/{}", self.id),
            Action::Cancel => format!("/{}/cancel", self.id),
            Action::InputItems => format!("/{}/input_items", self.id),
        }
    }
}

/// Finds the ids that an answer gives out, as its bytes pass.
#[derive(Debug, Default)]
pub struct Watch {
    /// Set if it is a stream.
    events: Option<Events>,
    /// An answer that is not streamed.
    whole: Vec<u8>,
    /// Its id was found already.
    named: bool,
    /// It is too long to be looked into any further.
    blind: bool,
}

impl Watch {
    /// The answer is a stream.
    pub fn of_stream() -> Self {
        Self { events: Some(Events::default()), ..Self::default() }
    }

    /// Takes the next bytes, and gives every id in them to `found`.
    pub fn push(&mut self, bytes: &[u8], mut found: impl FnMut(&str)) {
        if self.blind {
            return;
        }
        if let Some(events) = &mut self.events {
            self.blind = events.push(bytes, |name, data| ids_of_event(name, data, &mut found)).is_err();
            return;
        }
        if self.whole.len() + bytes.len() > WATCHED_BYTES_MAX {
            self.blind = true;
            self.whole = Vec::new();
            return;
        }
        self.whole.extend_from_slice(bytes);
        if !self.named
            && let Some(id) = id_of_beginning(&self.whole)
        {
            self.named = true;
            found(&id);
        }
    }

    /// The answer is there as a whole.
    pub fn finish(&mut self, mut found: impl FnMut(&str)) {
        let whole = std::mem::take(&mut self.whole);
        let Ok(text) = std::str::from_utf8(&whole) else { return };
        if let Ok(tree) = Tree::parse(text, CONVERTED_DEPTH_MAX) {
            ids_of_response(&tree, &mut found);
        }
    }
}

fn ids_of_response(response: &Tree<'_>, found: &mut impl FnMut(&str)) {
    let conversation = response.get("conversation").and_then(|conversation| conversation.get("id"));
    let ids = response.get("id").into_iter().chain(conversation);
    ids.filter_map(Tree::text).for_each(&mut *found);
    for item in response.get("output").map(Tree::items).unwrap_or_default() {
        ids_of_item(item, found);
    }
}

fn ids_of_item(item: &Tree<'_>, found: &mut impl FnMut(&str)) {
    let ids = [item.get("id"), item.get("encrypted_content")];
    ids.into_iter().flatten().filter_map(Tree::text).filter(|id| !id.is_empty()).for_each(found);
}

/// Only two events bring ids; most are not looked into.
fn ids_of_event(name: &str, data: &str, found: &mut impl FnMut(&str)) {
    const BEGINS: &str = "response.created";
    const ITEM: &str = "response.output_item.done";
    // The type stands anywhere in the data, and again in the event's name, unless that was left out.
    let is = |kind: &str| name == kind || (name.is_empty() && data.contains(kind));
    let (begins, item) = (is(BEGINS), is(ITEM));
    if !(begins || item) {
        return;
    }
    let Ok(event) = Tree::parse(data, CONVERTED_DEPTH_MAX) else { return };
    if let Some(response) = event.get("response").filter(|_| begins) {
        ids_of_response(response, found);
    }
    if let Some(item) = event.get("item").filter(|_| item) {
        ids_of_item(item, found);
    }
}

/// The id of a response whose rest is still to come: it stands before what is long.
fn id_of_beginning(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes)
        .or_else(|error| std::str::from_utf8(&bytes[..error.valid_up_to()]))
        .ok()?;
    let mut scanner = Scanner::new(text, CONVERTED_DEPTH_MAX);
    let mut members = scanner.object().ok()?;
    while let Ok(Some(key)) = scanner.next_key(&mut members) {
        if key.is("id") {
            return Some(scanner.string().ok()?.decode()?.into_owned());
        }
        scanner.skip_value().ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_kept_responses_are_told_from_others() {
        let of = |path: &str| Place::of(path).map(|place| (place.action, place.below()));
        assert_eq!(of("/v1/responses/resp_1"), Some((Action::Itself, "/resp_1".to_owned())));
        assert_eq!(of("/v1/responses/resp_1/cancel"), Some((Action::Cancel, "/resp_1/cancel".to_owned())));
        let items = Some((Action::InputItems, "/resp_1/input_items".to_owned()));
        assert_eq!(of("/v1/responses/resp_1/input_items"), items);
        for other in [
            "/v1/responses/compact",
            "/v1/responses",
            "/v1/responses/",
            "/v1/responses/a/b",
            "/v1/responses/a%2Fb",
            "/v1/x",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(of(&format!("/v1/responses/{}", "x".repeat(ID_BYTES_MAX + 1))), None);
    }

    fn ids(mut watch: Watch, pieces: &[&str]) -> Vec<String> {
        let mut all = Vec::new();
        for piece in pieces {
            watch.push(piece.as_bytes(), |id| all.push(id.to_owned()));
        }
        watch.finish(|id| all.push(id.to_owned()));
        all.sort();
        all.dedup();
        all
    }

    #[test]
    fn ids_are_found_wherever_an_answer_is_cut() {
        let whole = r#"{"object":"response","id":"resp_1","output":[{"type":"reasoning","id":"rs_1","encrypted_content":"gAAAAAé"}],"conversation":{"id":"conv_1"}}"#;
        let stream = "event: response.created\ndata: {\"response\":{\"id\":\"resp_1\",\"output\":[],\"metadata\":{\"k\":\"0123456789012345678901234567890123456789012345678901234567890123456789\"}},\"type\":\"response.created\"}\n\n\
            event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"item_id\":\"msg_1\",\"delta\":\"x\"}\n\n\
            data: {\"type\":\"response.output_item.done\",\"item\":{\"type\":\"reasoning\",\"id\":\"rs_1\",\"encrypted_content\":\"gAAAAAé\"}}\n\n";
        for cut in (0..whole.len()).filter(|cut| whole.is_char_boundary(*cut)) {
            let (head, tail) = whole.split_at(cut);
            assert_eq!(
                ids(Watch::default(), &[head, tail]),
                ["conv_1", "gAAAAAé", "resp_1", "rs_1"],
                "{cut}"
            );
        }
        for cut in (0..stream.len()).filter(|cut| stream.is_char_boundary(*cut)) {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(ids(Watch::of_stream(), &[head, tail]), ["gAAAAAé", "resp_1", "rs_1"], "{cut}");
        }
        let mut early = Vec::new();
        Watch::default().push(&whole.as_bytes()[..40], |id| early.push(id.to_owned()));
        assert_eq!(early, ["resp_1"], "before the client can have read it");
        let long = format!("{{\"output\":\"{}\"}}", "x".repeat(WATCHED_BYTES_MAX));
        assert!(ids(Watch::default(), &[&long, "{\"id\":\"resp_1\"}"]).is_empty());
    }
}
