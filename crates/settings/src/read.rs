//! From the text of a file to a configuration, or to everything that is wrong with it, each with its place.

use std::collections::BTreeSet;

use pointsman_wire::prices;
use serde_json::{Map, Value, json};
use serde_path_to_error::{Path, Segment};

use crate::Config;
use crate::diagnostic::{Diagnostic, Problem, nearest};
use crate::limits::{PROBLEMS_MAX, STAND_INS_MAX, TEXT_BYTES_MAX};
use crate::tree::{self, Document, Sources, join};
use crate::validate::validate;

/// Reads and validates a configuration.
///
/// # Errors
/// Everything that is wrong, each with its place in `text`. What was put in for `${VAR}` and `file:` is never shown.
pub fn parse(text: &str, sources: &Sources<'_>) -> Result<Config, Vec<Diagnostic>> {
    let (document, problems) = tree::read(text, sources)?;
    let wrong = problems.iter().map(|problem| problem.path.clone()).collect();
    let mut reading = Reading { document, problems, wrong, stood_in: BTreeSet::new() };
    let mut config = reading.shape();
    if let Some(config) = &mut config
        && let Some(file) = &config.prices
    {
        match read_prices(file, sources) {
            Ok(list) => config.price_list = list,
            Err(why) => reading.problems.push(Problem::new("prices", why)),
        }
    }
    if let Some(config) = &config {
        let found = validate(config);
        let found: Vec<Problem> = found.into_iter().filter(|problem| !reading.follows(problem)).collect();
        reading.problems.extend(found);
    }
    let Reading { document, problems, .. } = reading;
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        Some(_) | None => {
            let mut told: Vec<Diagnostic> =
                problems.into_iter().map(|problem| document.diagnostic(problem)).collect();
            told.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
            told.truncate(PROBLEMS_MAX);
            Err(told)
        }
    }
}

fn read_prices(file: &std::path::Path, sources: &Sources<'_>) -> Result<prices::List, String> {
    let name = file.to_string_lossy();
    let text = (sources.file)(&name).map_err(|error| format!("cannot read `{name}`: {error}"))?;
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("`{name}` has {} bytes, {TEXT_BYTES_MAX} are allowed", text.len()));
    }
    prices::List::parse(&text).map_err(|error| format!("`{name}`: {error}"))
}

/// A document on its way into the types. What is wrong is told once and taken away or stood in for, so that one run
/// tells of everything; what would be wrong only because of that is not told.
struct Reading {
    document: Document,
    problems: Vec<Problem>,
    /// Where something was wrong.
    wrong: BTreeSet<String>,
    /// Where something stands in for what was wrong or missing.
    stood_in: BTreeSet<String>,
}

impl Reading {
    /// Fits the document into the types; `None` when it cannot be made to fit.
    fn shape(&mut self) -> Option<Config> {
        // Ends, for every round puts in, takes away or stands in for something.
        while self.problems.len() < PROBLEMS_MAX && self.stood_in.len() < STAND_INS_MAX {
            let error = match serde_path_to_error::deserialize::<_, Config>(&self.document.value) {
                Ok(config) => return Some(config),
                Err(error) => error,
            };
            if !self.mend(error.path(), &error.inner().to_string()) {
                break;
            }
        }
        None
    }

    /// Tells of a mistake and takes it out of the way; whether that could be done.
    fn mend(&mut self, path: &Path, message: &str) -> bool {
        // A key that did not even become one has no name in the path.
        let mut at: Vec<Segment> =
            path.iter().filter(|segment| !matches!(segment, Segment::Unknown)).cloned().collect();
        let (mistake, option) = Mistake::of(message, !self.document.is_inserted(&spell(&at)));
        at.extend(option.map(|key| Segment::Map { key }));
        let Mistake { problem, kind } = mistake;
        match kind {
            Kind::UnknownKey { key, meant } => {
                let at = path_with(&at, &key);
                self.tell(&at, problem);
                if let Some(meant) = meant {
                    let meant = path_with(&at[..at.len() - 1], &meant);
                    if node_mut(&mut self.document.value, &meant).is_none() {
                        self.wrong.insert(spell(&meant));
                    }
                }
                take(&mut self.document.value, &at)
            }
            Kind::UnknownWord { word, instead } => {
                // The keys of some maps are words of ours too.
                let key = path_with(&at, &word);
                if take(&mut self.document.value, &key) {
                    self.tell(&key, problem);
                    return true;
                }
                self.tell(&at, problem);
                self.stand_in(&at, instead.map(Value::String)) || self.widen(at)
            }
            Kind::Missing(field) => {
                let field = path_with(&at, &field);
                if !self.is_near_wrong(&spell(&field)) {
                    self.problems.push(Problem { path: spell(&at), ..problem });
                    self.wrong.insert(spell(&field));
                }
                self.stand_in(&field, Some(json!(""))) || self.widen(field)
            }
            Kind::Mismatch { instead, text_for_number } => {
                if text_for_number && self.document.retype(&at) {
                    return true;
                }
                self.tell(&at, problem);
                self.stand_in(&at, instead) || self.widen(at)
            }
            Kind::Other => {
                // A strategy that has a name in a map is unknown by that name.
                let name = path_with(&at, "name");
                let named = problem.message.starts_with("unknown strategy")
                    && node_mut(&mut self.document.value, &name).is_some();
                self.tell(if named { &name } else { &at }, problem);
                self.widen(at)
            }
        }
    }

    fn tell(&mut self, at: &[Segment], problem: Problem) {
        let path = spell(at);
        if !self.is_near_wrong(&path) {
            self.problems.push(Problem { path: path.clone(), ..problem });
        }
        self.wrong.insert(path);
    }

    /// Whether something was wrong here, in what this is part of, or in part of this.
    fn is_near_wrong(&self, path: &str) -> bool {
        self.wrong.iter().any(|wrong| is_within(path, wrong) || is_within(wrong, path))
    }

    /// Puts `value` where something was wrong or missing, once.
    fn stand_in(&mut self, at: &[Segment], value: Option<Value>) -> bool {
        let (Some(value), Some((last, parents))) = (value, at.split_last()) else { return false };
        let Some(parent) = node_mut(&mut self.document.value, parents) else { return false };
        if !self.stood_in.insert(spell(at)) {
            return false;
        }
        match (last, parent) {
            (Segment::Map { key }, Value::Object(map)) => drop(map.insert(key.clone(), value)),
            (Segment::Seq { index }, Value::Array(items)) if *index < items.len() => items[*index] = value,
            _ => return false,
        }
        true
    }

    /// Takes the innermost entry of a map away that has to do with `at`.
    fn widen(&mut self, mut at: Vec<Segment>) -> bool {
        while !at.is_empty() {
            if take(&mut self.document.value, &at) {
                self.wrong.insert(spell(&at));
                return true;
            }
            at.pop();
        }
        false
    }

    /// Whether a problem may come of what was taken away or stood in for.
    fn follows(&self, problem: &Problem) -> bool {
        self.is_near_wrong(&problem.path) || self.wrong.iter().any(|wrong| leans_on(problem, wrong))
    }
}

/// Whether `path` is `whole` or a part of it.
fn is_within(path: &str, whole: &str) -> bool {
    path.strip_prefix(whole).is_some_and(|rest| {
        rest.is_empty() || whole.is_empty() || rest.starts_with('.') || rest.starts_with('[')
    })
}

/// Whether a problem is about something that stands elsewhere, where something was wrong.
fn leans_on(problem: &Problem, wrong: &str) -> bool {
    let path = problem.path.as_str();
    let names = |section: &str| {
        let name = wrong.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'));
        wrong == section || name.is_some_and(|name| problem.message.contains(&format!("`{name}`")))
    };
    let same_model = |part: &str| {
        wrong
            .find(part)
            .and_then(|end| path.strip_prefix(&wrong[..end]))
            .filter(|_| wrong.starts_with("models."))
    };
    match path.rsplit('.').next() {
        Some("listen" | "admin") => is_within(wrong, "auth"),
        Some("provider") => names("providers"),
        Some("arm") => same_model(".split").is_some(),
        Some(_) if path.starts_with("auth.") => names("models") || wrong.contains(".aliases"),
        Some(_) | None => same_model(".deployments")
            .is_some_and(|rest| rest.starts_with(".tiers") || rest.starts_with(".split")),
    }
}

/// What serde complains of, in our words.
struct Mistake {
    problem: Problem,
    kind: Kind,
}

/// What can be done about a mistake.
enum Kind {
    UnknownKey { key: String, meant: Option<String> },
    UnknownWord { word: String, instead: Option<String> },
    Missing(String),
    Mismatch { instead: Option<Value>, text_for_number: bool },
    Other,
}

impl Mistake {
    /// From serde's message; with the option of the strategy that it is about, if it is. Numbers are told if they may
    /// be shown.
    fn of(message: &str, may_show: bool) -> (Self, Option<String>) {
        // A strategy checks its options itself and says whose they are.
        let named = message.strip_prefix("strategy `").and_then(|rest| rest.split_once("`: "));
        let Some((name, rest)) = named else { return (Self::told(message, "", may_show), None) };
        let option = rest.strip_prefix("option `").and_then(|rest| rest.split_once("`: "));
        let (option, rest) = option.map_or((None, rest), |(option, rest)| (Some(option.to_owned()), rest));
        (Self::told(rest, &format!("strategy `{name}`: "), may_show), option)
    }

    fn told(message: &str, whose: &str, may_show: bool) -> Self {
        let found = |text: String| Problem::new("", format!("{whose}{text}"));
        let other = |problem| Self { problem, kind: Kind::Other };
        if let Some(rest) = message.strip_prefix("unknown field `") {
            let (key, known) = unknown(rest);
            let (help, meant) = advice(&key, &known);
            let problem = Problem { help, ..found(format!("unknown key `{key}`")) };
            return Self { problem, kind: Kind::UnknownKey { key, meant } };
        }
        if let Some(rest) = message.strip_prefix("unknown variant `") {
            let (word, known) = unknown(rest);
            let (help, _) = advice(&word, &known);
            let problem = Problem { help, ..found(format!("unknown value `{word}`")) };
            return Self { problem, kind: Kind::UnknownWord { word, instead: known.into_iter().next() } };
        }
        if let Some(rest) = message.strip_prefix("missing field ") {
            let kind = Kind::Missing(rest.trim_matches('`').to_owned());
            return Self { problem: found(format!("{rest} is missing")), kind };
        }
        let wrong =
            message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
        // The value itself may be a secret in the wrong place, so only its kind is told.
        if let Some((value, expected)) = wrong.and_then(|wrong| wrong.rsplit_once(", expected ")) {
            return Self::mismatch(value, expected, may_show, found);
        }
        // A list where a map is expected is taken for the map's values in order, and is found too short or too long.
        if message.starts_with("invalid length ") && message.contains("expected struct ") {
            return Self::mismatch("sequence", "struct", may_show, found);
        }
        if message.contains("expected key to be a number") {
            return other(found("a key here is a whole number, such as `1`".to_owned()));
        }
        if message.contains("socket address") {
            let help = "an address is IP:PORT, such as 127.0.0.1:8080";
            return other(found("not an address".to_owned()).help(help));
        }
        other(found(message.to_owned()))
    }

    fn mismatch(value: &str, expected: &str, may_show: bool, found: impl Fn(String) -> Problem) -> Self {
        let kind = kind(value);
        let instead = stand_in_for(expected);
        let expected = in_words(expected);
        let is_number = expected.contains("number");
        let shown = match value.split('`').nth(1) {
            // A number where a number is expected is no secret in the wrong place.
            Some(number) if kind == "a number" && is_number && may_show => number,
            Some(_) | None => kind,
        };
        let problem = found(format!("expected {expected}, found {shown}"));
        let text_for_number = kind == "text" && (is_number || expected.contains("`true`"));
        let problem = match (expected.as_str(), kind) {
            ("text", "a number" | "true or false") => problem.help("put it in quotes"),
            (_, "nothing") => problem.help("give it a value, or remove the key"),
            _ => problem,
        };
        Self { problem, kind: Kind::Mismatch { instead, text_for_number } }
    }
}

/// Something of the expected kind, for reading on.
fn stand_in_for(expected: &str) -> Option<Value> {
    match expected {
        "a boolean" => Some(false.into()),
        "a sequence" => Some(json!([])),
        "u32" | "u64" | "usize" | "f64" => Some(1.into()),
        "a map" => Some(Value::Object(Map::new())),
        other if other.starts_with("struct") => Some(Value::Object(Map::new())),
        other if other == "a string" || other.contains("text") => Some(json!("")),
        _ => None,
    }
}

/// The unknown word and the known ones, from serde's list of them in backticks.
fn unknown(rest: &str) -> (String, Vec<String>) {
    let (word, rest) = rest.split_once('`').unwrap_or((rest, ""));
    (word.to_owned(), rest.split('`').skip(1).step_by(2).map(str::to_owned).collect())
}

/// What to do about an unknown word, and the known one that was probably meant.
fn advice(word: &str, known: &[String]) -> (Option<String>, Option<String>) {
    match nearest(word, known.iter().map(String::as_str)) {
        Some(nearest) => (Some(format!("did you mean `{nearest}`?")), Some(nearest.to_owned())),
        None => ((!known.is_empty()).then(|| format!("known here: {}", known.join(", "))), None),
    }
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
        other if other.starts_with("struct") => "a map",
        other => other,
    };
    words.to_owned()
}

/// The path to `key` in the map at `path`, which may lead to the key already.
fn path_with(path: &[Segment], key: &str) -> Vec<Segment> {
    let mut at = path.to_vec();
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
