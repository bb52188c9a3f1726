//! What a request names of what a provider keeps: only the account that made it can go on with it.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::json::{Kind, Text};
use crate::openai::error::Invalid;

use super::body::Reader;

/// Things of one request that are looked up; those beyond them are taken to be of the same account.
pub const KEPT_MAX: usize = 256;

/// Something that a provider keeps, or that only one of its accounts can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The field that names it.
    pub field: String,
    /// Hash of its id, salted (see [`kept_hash`]).
    pub hash: u64,
    /// What it is.
    pub kind: KeptKind,
}

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptKind {
    /// An earlier answer, a conversation, an item of one, or a stored prompt.
    Answer,
    /// A file, or a container of files.
    File,
    /// A cached beginning.
    Cache,
    /// Thoughts, encrypted by the provider: the client carries them.
    Thoughts,
}

/// The hash of an id, salted so that tenants cannot find each other's.
pub fn kept_hash(id: &str, salt: u64) -> u64 {
    xxh3_64_with_seed(id.as_bytes(), salt)
}

impl super::Request {
    /// Whether it can be served only where what it names is kept.
    pub fn needs_keeper(&self) -> bool {
        self.kept.iter().any(|kept| kept.kind != KeptKind::Thoughts)
    }
}

impl Reader<'_, '_> {
    /// Notes something that is kept.
    pub(super) fn keep(&mut self, field: impl FnOnce() -> String, id: &Text<'_>, kind: KeptKind) {
        let meant = id.decode();
        let id = meant.as_deref().unwrap_or_else(|| id.raw());
        if id.is_empty() || self.kept.len() >= KEPT_MAX {
            return;
        }
        let hash = kept_hash(id, self.salt);
        if !self.kept.iter().any(|known| known.hash == hash) {
            self.kept.push(Kept { field: field(), hash, kind });
        }
    }

    /// An id as it stands, or in the member `id` of an object. Anything else is for the provider to judge.
    pub(super) fn read_kept(&mut self, field: &str, kind: KeptKind) -> Result<(), Invalid> {
        self.read_kept_in(&|| field.to_owned(), "id", kind)
    }

    /// The same with the member's name.
    pub(super) fn read_kept_in(
        &mut self,
        field: &dyn Fn() -> String,
        member: &str,
        kind: KeptKind,
    ) -> Result<(), Invalid> {
        match self.scanner.peek()? {
            Kind::String => {
                let id = self.scanner.string()?;
                self.keep(field, &id, kind);
            }
            Kind::Object => {
                let mut members = self.scanner.object()?;
                while let Some(key) = self.scanner.next_key(&mut members)? {
                    if key.is(member) && self.scanner.peek()? == Kind::String {
                        let id = self.scanner.string()?;
                        self.keep(|| format!("{}.{member}", field()), &id, kind);
                    } else {
                        self.scanner.skip_value()?;
                    }
                }
            }
            Kind::Array | Kind::Number | Kind::Bool | Kind::Null => drop(self.scanner.skip_value()?),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::request::{BodyLimits, Operation, Request, Shape, parse, parse_as};

    fn fields(request: &Request) -> Vec<(&str, KeptKind)> {
        request.kept.iter().map(|kept| (kept.field.as_str(), kept.kind)).collect()
    }

    #[test]
    fn what_is_kept_is_found_in_every_place_it_is_named() {
        let body = r#"{"model":"m","previous_response_id":"resp_1","conversation":{"id":"conv_1"},"input":[
            {"id":"msg_9","type":"item_reference"},
            {"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"gAAAAABx"},
            {"role":"user","content":[{"type":"input_file","file_id":"file_1"},{"type":"input_image","file_id":"file_1"}]}]}"#;
        let request = parse(Operation::Response, body.as_bytes(), &BodyLimits::default(), 7).unwrap();
        assert_eq!(
            fields(&request),
            [
                ("previous_response_id", KeptKind::Answer),
                ("conversation.id", KeptKind::Answer),
                ("input[0].id", KeptKind::Answer),
                ("input[1].encrypted_content", KeptKind::Thoughts),
                ("input[2].content[0].file_id", KeptKind::File),
            ]
        );
        assert_eq!(request.kept[0].hash, kept_hash("resp_1", 7));
        assert_ne!(request.kept[0].hash, kept_hash("resp_1", 8), "tenants do not find each other's");
        assert!(request.needs_keeper());
        let chat = r#"{"model":"m","messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"file_1"}}]}]}"#;
        let chat = parse(Operation::Chat, chat.as_bytes(), &BodyLimits::default(), 7).unwrap();
        assert_eq!(fields(&chat), [("messages[0].content[0].file.file_id", KeptKind::File)]);
        let claude = r#"{"model":"m","max_tokens":1,"container":"cont_1","messages":[{"role":"user","content":[{"type":"document","source":{"type":"file","file_id":"file_1"}}]}]}"#;
        let shape = Shape::AnthropicMessages;
        let claude = parse_as(shape, Operation::Chat, claude.as_bytes(), &BodyLimits::default(), 7).unwrap();
        assert_eq!(
            fields(&claude),
            [("container", KeptKind::File), ("messages[0].content[0].source.file_id", KeptKind::File)]
        );
    }

    #[test]
    fn no_more_is_looked_up_than_the_bound_and_thoughts_alone_need_no_keeper() {
        let items: Vec<String> = (0..2 * KEPT_MAX)
            .map(|at| format!(r#"{{"type":"reasoning","summary":[],"encrypted_content":"gAAAAA{at}"}}"#))
            .collect();
        let body = format!(r#"{{"model":"m","previous_response_id":null,"input":[{}]}}"#, items.join(","));
        let request = parse(Operation::Response, body.as_bytes(), &BodyLimits::default(), 7).unwrap();
        assert_eq!(request.kept.len(), KEPT_MAX);
        assert!(!request.needs_keeper());
    }
}
