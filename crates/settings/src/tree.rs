//! A YAML document as a tree in which every node knows its place, with `${VAR}` and `file:` put in once.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

use crate::diagnostic::{Diagnostic, Problem};

/// Nesting a configuration may have.
const DEPTH_MAX: usize = 32;

/// Where values that are not in the file come from.
pub struct Sources<'a> {
    /// Environment variables.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Files of secrets; an error says why one cannot be read.
    pub file: &'a dyn Fn(&str) -> Result<String, String>,
}

/// Places by the path of the node, such as `models.llama.deployments[1].provider`.
pub(crate) type Places = BTreeMap<String, (u64, u64)>;

enum Node {
    Scalar(Value),
    Seq(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

/// Reads a document: its value, and the place of every node.
pub(crate) fn read(text: &str, sources: &Sources<'_>) -> Result<(Value, Places), Vec<Diagnostic>> {
    let mut reader = Reader { sources, places: Places::new(), problems: Vec::new() };
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok((Value::Object(Map::new()), reader.places));
    }
    let options = serde_saphyr::options! {
        strict_booleans: true,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        merge_keys: serde_saphyr::MergeKeyPolicy::Error,
        with_snippet: false,
    };
    let root: Spanned<Node> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        let message = error.to_string();
        // The parser's message ends with the place, which stands in front of it here.
        let short = message.split(", set DuplicateKeyPolicy").next().unwrap_or(&message);
        let message = short.split(" at line ").next().unwrap_or(short).trim_start_matches("error: ").to_owned();
        vec![Diagnostic { line, column, problem: Problem::new("", message) }]
    })?;
    let value = reader.value(root.value, "", 0);
    if reader.problems.is_empty() { Ok((value, reader.places)) } else { Err(reader.problems) }
}

struct Reader<'a> {
    sources: &'a Sources<'a>,
    places: Places,
    problems: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn value(&mut self, node: Node, path: &str, depth: usize) -> Value {
        if depth > DEPTH_MAX {
            self.problem(path, "the configuration is nested too deeply".to_owned());
            return Value::Null;
        }
        match node {
            Node::Scalar(Value::String(text)) => Value::String(self.expand(&text, path)),
            Node::Scalar(value) => value,
            Node::Seq(items) => {
                let items = items.into_iter().enumerate().map(|(index, item)| {
                    let path = format!("{path}[{index}]");
                    self.place(&path, item.defined);
                    self.value(item.value, &path, depth + 1)
                });
                Value::Array(items.collect())
            }
            Node::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    let path = join(path, &key.value);
                    self.place(&path, key.defined);
                    let value = self.value(value.value, &path, depth + 1);
                    map.insert(key.value, value);
                }
                Value::Object(map)
            }
        }
    }

    fn place(&mut self, path: &str, at: serde_saphyr::Location) {
        self.places.insert(path.to_owned(), (at.line(), at.column()));
    }

    fn problem(&mut self, path: &str, message: String) {
        let (line, column) = self.places.get(path).copied().unwrap_or_default();
        self.problems.push(Diagnostic { line, column, problem: Problem::new(path, message) });
    }

    /// Puts in `${VAR}`, `${VAR:-default}` and a whole `file:PATH`. What is put in is not looked at again.
    fn expand(&mut self, text: &str, path: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            out.push_str(before);
            let Some((inside, behind)) = after.split_once('}') else {
                self.problem(path, "`${` without `}`".to_owned());
                return out;
            };
            rest = behind;
            let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, d)| (name, Some(d)));
            match (self.sources.env)(name).or_else(|| default.map(str::to_owned)) {
                Some(value) => out.push_str(&value),
                None => {
                    let text = format!(
                        "environment variable `{name}` is not set; set it, or write `${{{name}:-default}}`"
                    );
                    self.problem(path, text);
                }
            }
        }
        out.push_str(rest);
        let Some(file) = text.strip_prefix("file:") else { return out };
        (self.sources.file)(file)
            .map(|content| content.trim_end_matches(['\r', '\n']).to_owned())
            .unwrap_or_else(|error| {
                self.problem(path, format!("cannot read `{file}`: {error}"));
                String::new()
            })
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
