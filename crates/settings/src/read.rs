//! From the text of a file to a configuration, or to everything that is wrong with it, each with its place.

use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use crate::Config;
use crate::diagnostic::{Diagnostic, Problem, did_you_mean};
use crate::limits::PROBLEMS_MAX;
use crate::tree::{self, Document, Sources, join};
use crate::validate::validate;

/// Reads and validates a configuration.
///
/// # Errors
/// Everything that is wrong, each with its place in `text`. What was put in for `${VAR}` and `file:` is never shown.
pub fn parse(text: &str, sources: &Sources<'_>) -> Result<Config, Vec<Diagnostic>> {
    let mut document = tree::read(text, sources)?;
    let (config, mut problems) = shape(&mut document);
    if problems.is_empty()
        && let Some(config) = &config
    {
        problems = validate(config);
    }
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        Some(_) | None => {
            let mut told: Vec<Diagnostic> =
                problems.into_iter().map(|problem| document.diagnostic(problem)).collect();
            told.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
            Err(told)
        }
    }
}

/// Fits the document into the types. An unknown key is told and taken away, so that one run tells of all.
fn shape(document: &mut Document) -> (Option<Config>, Vec<Problem>) {
    let mut problems = Vec::new();
    while problems.len() < PROBLEMS_MAX {
        let error = match serde_path_to_error::deserialize::<_, Config>(&document.value) {
            Ok(config) => return (Some(config), problems),
            Err(error) => error,
        };
        let path = error.path();
        match Mistake::of(&error.inner().to_string()) {
            Mistake::UnknownKey { key, problem } => {
                let at = path_with(path, &key);
                let taken = take(&mut document.value, &at);
                problems.push(Problem { path: spell(&at), ..problem });
                if !taken {
                    break;
                }
            }
            // The keys of some maps are words of ours too.
            Mistake::UnknownWord { word, problem } => {
                let key = path_with(path, &word);
                let taken = take(&mut document.value, &key);
                let at = if taken { spell(&key) } else { spell_path(path) };
                problems.push(Problem { path: at, ..problem });
                if !taken {
                    break;
                }
            }
            Mistake::TextForNumber(problem) => {
                let at: Vec<Segment> = path.iter().cloned().collect();
                if !document.retype(&at) {
                    problems.push(Problem { path: spell(&at), ..problem });
                    break;
                }
            }
            Mistake::Other(problem) => {
                problems.push(Problem { path: spell_path(path), ..problem });
                break;
            }
        }
    }
    (None, problems)
}

/// What serde complains of, in our words.
enum Mistake {
    UnknownKey { key: String, problem: Problem },
    UnknownWord { word: String, problem: Problem },
    TextForNumber(Problem),
    Other(Problem),
}

impl Mistake {
    fn of(message: &str) -> Self {
        // A strategy checks its options itself and says whose they are.
        let (whose, message) =
            match message.strip_prefix("strategy `").and_then(|rest| rest.split_once("`: ")) {
                Some((name, rest)) => (format!("strategy `{name}`: "), rest),
                None => (String::new(), message),
            };
        let found = |text: String| Problem::new("", format!("{whose}{text}"));
        if let Some(rest) = message.strip_prefix("unknown field `") {
            let (key, known) = unknown(rest);
            let help = advice(&key, &known);
            return Self::UnknownKey {
                problem: Problem { help, ..found(format!("unknown key `{key}`")) },
                key,
            };
        }
        if let Some(rest) = message.strip_prefix("unknown variant `") {
            let (word, known) = unknown(rest);
            let help = advice(&word, &known);
            return Self::UnknownWord {
                problem: Problem { help, ..found(format!("unknown value `{word}`")) },
                word,
            };
        }
        if let Some(rest) = message.strip_prefix("missing field ") {
            return Self::Other(found(format!("{rest} is missing")));
        }
        let wrong =
            message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
        // The value itself may be a secret in the wrong place, so only its kind is told.
        if let Some((value, expected)) = wrong.and_then(|wrong| wrong.rsplit_once(", expected ")) {
            return Self::mismatch(value, expected, found);
        }
        if message.contains("expected key to be a number") {
            return Self::Other(found("a key here is a whole number, such as `1`".to_owned()));
        }
        if message.contains("socket address") {
            let help = "an address is IP:PORT, such as 127.0.0.1:8080";
            return Self::Other(found("not an address".to_owned()).help(help));
        }
        Self::Other(found(message.to_owned()))
    }

    fn mismatch(value: &str, expected: &str, found: impl Fn(String) -> Problem) -> Self {
        let kind = kind(value);
        let expected = in_words(expected);
        let problem = found(format!("expected {expected}, found {kind}"));
        if kind == "text" && (expected.contains("number") || expected.contains("`true`")) {
            return Self::TextForNumber(problem);
        }
        Self::Other(match (expected.as_str(), kind) {
            ("text", "a number" | "true or false") => problem.help("put it in quotes"),
            (_, "nothing") => problem.help("give it a value, or remove the key"),
            _ => problem,
        })
    }
}

/// The unknown word and the known ones, from serde's list of them in backticks.
fn unknown(rest: &str) -> (String, Vec<String>) {
    let (word, rest) = rest.split_once('`').unwrap_or((rest, ""));
    (word.to_owned(), rest.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

fn advice(word: &str, known: &[String]) -> Option<String> {
    let nearest = did_you_mean(word, known.iter().map(String::as_str));
    nearest.or_else(|| (!known.is_empty()).then(|| format!("known here: {}", known.join(", "))))
}

/// What kind of value serde found, without the value.
fn kind(found: &str) -> &'static str {
    let kinds = [
        ("string", "text"),
        ("integer", "a number"),
        ("floating point", "a number"),
        ("boolean", "true or false"),
        ("sequence", "a list"),
        ("map", "a map"),
        ("null", "nothing"),
        ("unit", "nothing"),
    ];
    kinds.into_iter().find(|(prefix, _)| found.starts_with(prefix)).map_or("something else", |(_, kind)| kind)
}

fn in_words(expected: &str) -> String {
    let words = match expected {
        "a string" => "text",
        "a boolean" => "`true` or `false`",
        "a sequence" => "a list",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number of 0 or more",
        "f64" => "a number",
        other if other.starts_with("struct ") => "a map",
        other => other,
    };
    words.to_owned()
}

/// The path to an unknown key: the key is told of from where it stands or from the map around it.
fn path_with(path: &Path, key: &str) -> Vec<Segment> {
    // A key that did not even become one has no name in the path.
    let mut at: Vec<Segment> =
        path.iter().filter(|segment| !matches!(segment, Segment::Unknown)).cloned().collect();
    if !matches!(at.last(), Some(Segment::Map { key: last }) if last == key) {
        at.push(Segment::Map { key: key.to_owned() });
    }
    at
}

/// A path in the form that places are known by.
fn spell(path: &[Segment]) -> String {
    path.iter().fold(String::new(), |path, segment| match segment {
        Segment::Seq { index } => format!("{path}[{index}]"),
        Segment::Map { key } | Segment::Enum { variant: key } => join(&path, key),
        Segment::Unknown => path,
    })
}

fn spell_path(path: &Path) -> String {
    spell(&path.iter().cloned().collect::<Vec<_>>())
}

/// Takes the key at the end of `path` away; whether it was there.
fn take(root: &mut Value, path: &[Segment]) -> bool {
    let Some((Segment::Map { key }, parents)) = path.split_last() else { return false };
    let parent = node_mut(root, parents).and_then(Value::as_object_mut);
    parent.is_some_and(|map| map.remove(key).is_some())
}

fn node_mut<'a>(root: &'a mut Value, path: &[Segment]) -> Option<&'a mut Value> {
    path.iter().try_fold(root, |node, segment| match segment {
        Segment::Seq { index } => node.get_mut(index),
        Segment::Map { key } => node.get_mut(key),
        Segment::Enum { .. } | Segment::Unknown => None,
    })
}

impl Document {
    /// Reads a text that was put in from outside as the number or truth value it spells: `workers: ${WORKERS}`.
    fn retype(&mut self, path: &[Segment]) -> bool {
        if !self.is_inserted(&spell(path)) {
            return false;
        }
        let Some(node) = node_mut(&mut self.value, path) else { return false };
        let spelled = node.as_str().and_then(|text| serde_json::from_str::<Value>(text.trim()).ok());
        match spelled {
            Some(value @ (Value::Number(_) | Value::Bool(_))) => {
                *node = value;
                true
            }
            Some(Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_)) | None => false,
        }
    }
}
