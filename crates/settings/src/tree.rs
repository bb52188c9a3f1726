//! A YAML document as a tree in which every node knows its place, with `${VAR}` and `file:` put in once.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

use crate::diagnostic::{Diagnostic, Problem};
use crate::limits::{ALIAS_NODES_MAX, ALIASES_MAX, DEPTH_MAX, NODES_MAX, TEXT_BYTES_MAX};

/// Text that was put in and is at least this long is hidden wherever it stands in a message; shorter text only where it
/// stands alone, for it may be part of a word.
const HIDDEN_BYTES_MIN: usize = 6;

/// Where values that are not in the file come from.
pub struct Sources<'a> {
    /// Environment variables.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Files of secrets; an error says why one cannot be read.
    pub file: &'a dyn Fn(&str) -> Result<String, String>,
}

/// A document with everything put in.
pub(crate) struct Document {
    /// The whole.
    pub(crate) value: Value,
    /// Line and column by the path of the node, such as `models.llama.deployments[1].provider`.
    places: BTreeMap<String, (u64, u64)>,
    inserted: Vec<Inserted>,
}

/// What was put in, where, and what stands in its place in messages.
struct Inserted {
    path: String,
    text: String,
    label: String,
}

/// A node of a document before anything is put in.
pub(crate) enum Node {
    Scalar(Value),
    Seq(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

/// Reads a document, and what could not be put in.
pub(crate) fn read(text: &str, sources: &Sources<'_>) -> Result<(Document, Vec<Problem>), Vec<Diagnostic>> {
    if text.len() > TEXT_BYTES_MAX {
        let message = format!("the file has {} bytes, {TEXT_BYTES_MAX} are allowed", text.len());
        return Err(vec![Diagnostic { line: 0, column: 0, problem: Problem::new("", message) }]);
    }
    let document =
        Document { value: Value::Object(Map::new()), places: BTreeMap::new(), inserted: Vec::new() };
    let mut reader = Reader { sources, document, problems: Vec::new() };
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok((reader.document, reader.problems));
    }
    let root: Spanned<Node> =
        serde_saphyr::from_str_with_options(text, options()).map_err(|error| vec![told(&error)])?;
    let value = reader.value(root.value, "");
    if !value.is_null() {
        reader.document.value = value;
    }
    Ok((reader.document, reader.problems))
}

/// A document of somebody else's as it stands, with its merge keys (`<<`) carried out.
pub(crate) fn parse_merged(text: &str) -> Result<Spanned<Node>, Diagnostic> {
    let mut options = options();
    options.merge_keys = serde_saphyr::MergeKeyPolicy::Merge;
    serde_saphyr::from_str_with_options(text, options).map_err(|error| told(&error))
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        strict_booleans: true,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        merge_keys: serde_saphyr::MergeKeyPolicy::Error,
        // A snippet could show a secret.
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: ALIAS_NODES_MAX },
    }
}

/// What the parser says, with the place in front.
fn told(error: &serde_saphyr::Error) -> Diagnostic {
    let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
    let message = error.to_string();
    // It ends with the place, or with advice for programmers.
    let short = [", set DuplicateKeyPolicy", " at line "]
        .iter()
        .fold(message.as_str(), |message, tail| message.split(tail).next().unwrap_or(message));
    let short = short.trim_start_matches("error: ").to_owned();
    Diagnostic { line, column, problem: Problem::new("", short) }
}

impl Document {
    /// A problem with its place, and with nothing in it that was put in.
    pub(crate) fn diagnostic(&self, problem: Problem) -> Diagnostic {
        let (line, column) = self.place(&problem.path);
        let message = self.hidden(problem.message);
        let help = problem.help.map(|help| self.hidden(help));
        Diagnostic { line, column, problem: Problem { path: problem.path, message, help } }
    }

    /// Whether the text at `path`, or part of it, was put in.
    pub(crate) fn is_inserted(&self, path: &str) -> bool {
        self.inserted.iter().any(|inserted| inserted.path == path)
    }

    fn hidden(&self, message: String) -> String {
        self.inserted.iter().fold(message, |message, inserted| {
            if inserted.text.len() >= HIDDEN_BYTES_MIN {
                return message.replace(&inserted.text, &inserted.label);
            }
            message.replace(&format!("`{}`", inserted.text), &format!("`{}`", inserted.label))
        })
    }

    /// The place of a node, or of the innermost node around it that has one.
    fn place(&self, path: &str) -> (u64, u64) {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return *place;
            }
            let Some(end) = path.rfind(['.', '[']) else { return (1, 1) };
            path = &path[..end];
        }
    }
}

struct Reader<'a> {
    sources: &'a Sources<'a>,
    document: Document,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn value(&mut self, node: Node, path: &str) -> Value {
        match node {
            Node::Scalar(Value::String(text)) => Value::String(self.expand(&text, path)),
            Node::Scalar(value) => value,
            Node::Seq(items) => {
                let items = items.into_iter().enumerate().map(|(index, item)| {
                    let path = format!("{path}[{index}]");
                    self.place(&path, item.referenced);
                    self.value(item.value, &path)
                });
                Value::Array(items.collect())
            }
            Node::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let path = join(path, &key.value);
                    self.place(&path, key.referenced);
                    let value = self.value(value.value, &path);
                    map.insert(key.value, value);
                }
                Value::Object(map)
            }
        }
    }

    fn place(&mut self, path: &str, at: serde_saphyr::Location) {
        self.document.places.insert(path.to_owned(), (at.line(), at.column()));
    }

    fn insert(&mut self, path: &str, text: &str, label: String) {
        if !text.is_empty() {
            self.document.inserted.push(Inserted { path: path.to_owned(), text: text.to_owned(), label });
        }
    }

    /// Puts in `${VAR}`, `${VAR:-default}` and a whole `file:PATH`. What is put in is not looked at again.
    fn expand(&mut self, text: &str, path: &str) -> String {
        let Some(file) = text.strip_prefix("file:") else { return self.variables(text, path) };
        let file = self.variables(file, path);
        match (self.sources.file)(&file) {
            Ok(content) => {
                let content = content.trim_end_matches(['\r', '\n']);
                self.insert(path, content, format!("file:{file}"));
                content.to_owned()
            }
            Err(error) => {
                self.problems.push(Problem::new(path, format!("cannot read `{file}`: {error}")));
                String::new()
            }
        }
    }

    fn variables(&mut self, text: &str, path: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(before) = before.strip_suffix('$') {
                out.push_str(before);
                out.push_str("${");
                rest = after;
                continue;
            }
            out.push_str(before);
            let Some((inside, behind)) = after.split_once('}') else {
                let help = "write `$${` for the characters themselves";
                self.problems.push(Problem::new(path, "`${` without `}`").help(help));
                return out;
            };
            rest = behind;
            out.push_str(&self.variable(inside, path));
        }
        out.push_str(rest);
        out
    }

    /// The value of a variable; as in a shell, an empty one has its default too.
    fn variable(&mut self, inside: &str, path: &str) -> String {
        let (name, default) =
            inside.split_once(":-").map_or((inside, None), |(name, text)| (name, Some(text)));
        let set = (self.sources.env)(name);
        match (set.filter(|text| !text.is_empty() || default.is_none()), default) {
            (Some(text), _) => {
                self.insert(path, &text, format!("${{{name}}}"));
                text
            }
            (None, Some(default)) => {
                self.insert(path, default, format!("${{{name}}}"));
                default.to_owned()
            }
            (None, None) => {
                let help = format!("set it, or write `${{{name}:-default}}`");
                let text = format!("environment variable `{name}` is not set");
                self.problems.push(Problem::new(path, text).help(help));
                String::new()
            }
        }
    }
}

/// The path of `key` below `path`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("numbers must be finite"))?;
        Ok(Node::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}
