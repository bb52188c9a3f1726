//! What is read: a tree in which every field knows its line.

use std::collections::BTreeSet;

use serde_json::{Number, Value};
use serde_saphyr::Spanned;

use super::Note;
use crate::tree;

/// A value with its line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) line: u64,
    pub(super) kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// Text as our files have it: `${VAR}` stands for a variable.
    Text(String),
    Number(Number),
    Bool(bool),
    Null,
    /// An expression that only its own program can work out.
    Code,
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

/// Reads YAML; the line of a field is that of its key.
pub(super) fn of_yaml(text: &str) -> Result<Node, String> {
    let root = tree::parse_merged(text).map_err(|error| error.to_string())?;
    Ok(of_spanned(root))
}

fn of_spanned(node: Spanned<tree::Node>) -> Node {
    let line = node.referenced.line();
    let kind = match node.value {
        tree::Node::Scalar(Value::String(text)) => text_of(&text),
        tree::Node::Scalar(Value::Number(number)) => Kind::Number(number),
        tree::Node::Scalar(Value::Bool(value)) => Kind::Bool(value),
        tree::Node::Scalar(Value::Null | Value::Array(_) | Value::Object(_)) => Kind::Null,
        tree::Node::Seq(items) => Kind::List(items.into_iter().map(of_spanned).collect()),
        tree::Node::Map(entries) => {
            let entry = |(key, value): (Spanned<String>, Spanned<tree::Node>)| {
                let line = key.referenced.line();
                (key.value, Node { line, ..of_spanned(value) })
            };
            Kind::Map(entries.into_iter().map(entry).collect())
        }
    };
    Node { line, kind }
}

/// A text of LiteLLM's as ours: its variables are ours, and what would be one of ours stands for itself.
fn text_of(text: &str) -> Kind {
    match text.strip_prefix("os.environ/") {
        Some(name) if is_variable(name) => Kind::Text(format!("${{{name}}}")),
        Some(_) => Kind::Code,
        None => Kind::Text(escaped(text)),
    }
}

/// Whether a name can be that of a variable, in shells as well as between `${` and `}`.
pub(super) fn is_variable(name: &str) -> bool {
    let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    starts && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A text that stands for itself.
pub(super) fn escaped(text: &str) -> String {
    text.replace("${", "$${")
}

impl Node {
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            Kind::Number(_) | Kind::Bool(_) | Kind::Null | Kind::Code | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// A number, or a text that spells one.
    pub(super) fn number(&self) -> Option<f64> {
        match &self.kind {
            Kind::Number(number) => number.as_f64(),
            Kind::Text(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
            Kind::Bool(_) | Kind::Null | Kind::Code | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// A whole number of 0 or more.
    pub(super) fn count(&self) -> Option<u64> {
        self.number().filter(|number| *number >= 0.0 && number.fract() == 0.0).map(|number| number as u64)
    }

    pub(super) fn items(&self) -> &[Self] {
        match &self.kind {
            Kind::List(items) => items,
            Kind::Text(_) | Kind::Number(_) | Kind::Bool(_) | Kind::Null | Kind::Code | Kind::Map(_) => &[],
        }
    }

    pub(super) fn entries(&self) -> &[(String, Self)] {
        match &self.kind {
            Kind::Map(entries) => entries,
            Kind::Text(_) | Kind::Number(_) | Kind::Bool(_) | Kind::Null | Kind::Code | Kind::List(_) => &[],
        }
    }
}

/// What is told of a field whose value is another than it could be.
pub(super) const NOT_UNDERSTOOD: &str = "not imported: its value is not understood";

/// The fields of a map, each of which is taken or told.
pub(super) struct Fields<'n> {
    path: String,
    entries: &'n [(String, Node)],
    taken: Vec<bool>,
    /// The line, where there is something else than fields.
    odd: Option<u64>,
}

impl<'n> Fields<'n> {
    pub(super) fn new(path: impl Into<String>, node: &'n Node) -> Self {
        let entries = node.entries();
        let odd = (!matches!(node.kind, Kind::Map(_) | Kind::Null)).then_some(node.line);
        Self { path: path.into(), entries, taken: vec![false; entries.len()], odd }
    }

    /// Takes a field; one that says nothing is as good as none.
    pub(super) fn take(&mut self, name: &str) -> Option<&'n Node> {
        let at = self.entries.iter().position(|(key, _)| key == name)?;
        self.taken[at] = true;
        Some(&self.entries[at].1).filter(|node| node.kind != Kind::Null)
    }

    /// Takes a field if its value is wanted.
    pub(super) fn take_if(&mut self, name: &str, wanted: impl FnOnce(&Node) -> bool) -> Option<&'n Node> {
        let (_, node) = self.entries.iter().find(|(key, _)| key == name)?;
        if wanted(node) { self.take(name) } else { None }
    }

    /// Takes a field whose value `read` understands; another value is told.
    pub(super) fn read<T>(
        &mut self,
        name: &str,
        notes: &mut Vec<Note>,
        read: impl FnOnce(&'n Node) -> Option<T>,
    ) -> Option<T> {
        let node = self.take(name)?;
        let value = read(node);
        if value.is_none() {
            notes.push(Note { line: node.line, path: self.path_of(name), text: NOT_UNDERSTOOD.to_owned() });
        }
        value
    }

    /// A note at a field's line, or at `otherwise` if there is no such field.
    pub(super) fn note_at(&self, name: &str, otherwise: u64, text: impl Into<String>) -> Note {
        let found = self.entries.iter().find(|(key, _)| key == name);
        let line = found.map_or(otherwise, |(_, node)| node.line);
        Note { line, path: self.path_of(name), text: text.into() }
    }

    /// The line of the first field.
    pub(super) fn line(&self) -> u64 {
        self.entries.first().map_or(0, |(_, node)| node.line)
    }

    pub(super) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Tells of a field.
    pub(super) fn note(&self, node: &Node, name: &str, text: impl Into<String>, notes: &mut Vec<Note>) {
        notes.push(Note { line: node.line, path: self.path_of(name), text: text.into() });
    }

    /// Tells of the whole, at its first line.
    pub(super) fn told(self, text: &str, notes: &mut Vec<Note>) {
        notes.push(Note { line: self.line(), path: self.path, text: text.to_owned() });
    }

    /// Tells of every field of something that is left out, but of its name, of those that `notes` has told since `from`, and
    /// of those whose own fields are told.
    pub(super) fn left_out(self, from: usize, notes: &mut Vec<Note>) {
        let told: BTreeSet<(u64, String)> =
            notes[from..].iter().map(|note| (note.line, note.path.clone())).collect();
        for ((key, node), taken) in self.entries.iter().zip(&self.taken) {
            if key == "name" || (*taken && matches!(node.kind, Kind::Map(_))) {
                continue;
            }
            let note = Note {
                line: node.line,
                path: self.path_of(key),
                text: "not imported, as what it belongs to".to_owned(),
            };
            if !told.contains(&(note.line, note.path.clone())) {
                notes.push(note);
            }
        }
    }

    /// Tells of every field that was not taken.
    pub(super) fn rest(self, notes: &mut Vec<Note>) {
        if let Some(line) = self.odd {
            notes.push(Note {
                line,
                path: self.path.clone(),
                text: "not imported: it has no fields".to_owned(),
            });
        }
        for ((key, node), taken) in self.entries.iter().zip(&self.taken) {
            if !taken {
                let is_spread = key.starts_with("...");
                let text = if is_spread { NOT_UNDERSTOOD } else { "not imported: it has no counterpart" };
                notes.push(Note { line: node.line, path: self.path_of(key), text: text.to_owned() });
            }
        }
    }
}
