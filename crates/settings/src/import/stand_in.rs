//! What variables and files stand for while what is written is checked: something of the kind that is wanted where they are
//! used. A name that cannot be a variable's stands for nothing, so that `check` refuses it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::node::is_variable;

/// A key file of Google's as `check` looks at it.
const ACCOUNT: &str = r#"{"type": "service_account", "client_email": "variable@example.com",
 "private_key": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"}"#;

/// What a variable is used as; where it is used in several ways, the last of these counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// A whole value, or what one begins with: it has to do for keys as well as for base URLs.
    Whole,
    /// A part of one, such as a host.
    Part,
    /// What stands before `://`.
    Scheme,
    /// A whole key file.
    Account,
    Location,
    /// What follows a host.
    Port,
}

impl Use {
    const fn stand_in(self) -> &'static str {
        match self {
            Self::Whole => "https://variable.example",
            Self::Part => "variable.example",
            Self::Scheme => "https",
            Self::Account => ACCOUNT,
            Self::Location => "us-east-1",
            Self::Port => "8080",
        }
    }
}

/// What variables and files stand for.
#[derive(Default)]
pub(super) struct StandIns {
    variables: BTreeMap<String, Use>,
    /// Variables that have something to stand in for them, wherever they are used.
    usual: BTreeSet<String>,
    /// Variables that have nothing somewhere.
    needed: BTreeSet<String>,
    /// Key files by their paths.
    files: BTreeSet<String>,
}

impl StandIns {
    /// Those for these values, each with the name of its field.
    pub(super) fn of<'v>(values: impl Iterator<Item = (&'v str, &'v Value)>) -> Self {
        let mut all = Self::default();
        let mut paths = Vec::new();
        for (field, value) in values {
            all.gather(field, value, &mut paths);
        }
        all.usual = all.usual.difference(&all.needed).cloned().collect();
        for path in paths {
            for is_set in [true, false] {
                let expanded = all.expand(path, is_set);
                all.files.insert(expanded);
            }
        }
        all
    }

    fn gather<'v>(&mut self, field: &str, value: &'v Value, paths: &mut Vec<&'v str>) {
        match value {
            Value::String(text) => {
                let path = text.strip_prefix("file:").filter(|_| field == "service_account");
                paths.extend(path);
                pieces(path.unwrap_or(text), |piece| {
                    let Piece::Variable { name, usual, before, behind } = piece else { return };
                    let is_whole = before.is_empty() && behind.is_empty();
                    let used = match field {
                        "location" if is_whole => Use::Location,
                        "service_account" if is_whole && path.is_none() => Use::Account,
                        _ if before.is_empty() && behind.starts_with("://") => Use::Scheme,
                        _ if before.is_empty() && path.is_none() => Use::Whole,
                        _ if before.ends_with(':') && (behind.is_empty() || behind.starts_with('/')) => {
                            Use::Port
                        }
                        _ => Use::Part,
                    };
                    let known = self.variables.entry(name.to_owned()).or_insert(used);
                    *known = used.max(*known);
                    let names = if usual.is_some() { &mut self.usual } else { &mut self.needed };
                    names.insert(name.to_owned());
                });
            }
            Value::Array(items) => items.iter().for_each(|item| self.gather(field, item, paths)),
            Value::Object(map) => map.iter().for_each(|(field, value)| self.gather(field, value, paths)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// A path with its variables put in.
    fn expand(&self, path: &str, is_set: bool) -> String {
        let mut out = String::new();
        pieces(path, |piece| match piece {
            Piece::Plain(text) => out.push_str(text),
            Piece::Variable { name, usual, .. } => {
                let set = self.variable(name, is_set);
                out.push_str(set.as_deref().or(usual).unwrap_or_default());
            }
        });
        out
    }

    /// Whether there are variables that may be unset.
    pub(super) fn has_usual(&self) -> bool {
        !self.usual.is_empty()
    }

    /// What a variable stands for; nothing where it is to be unset and may be.
    pub(super) fn variable(&self, name: &str, is_set: bool) -> Option<String> {
        let may_be = is_variable(name) && (is_set || !self.usual.contains(name));
        let used = self.variables.get(name).copied().unwrap_or(Use::Whole);
        may_be.then(|| used.stand_in().to_owned())
    }

    /// What a file stands for.
    pub(super) fn file(&self, path: &str) -> Result<String, String> {
        if self.files.contains(path) {
            return Ok(ACCOUNT.to_owned());
        }
        Err("an import reads no other file".to_owned())
    }
}

/// A piece of a text.
enum Piece<'t> {
    Plain(&'t str),
    /// A variable, what stands in for it, and what the text has before and behind it.
    Variable {
        name: &'t str,
        usual: Option<&'t str>,
        before: &'t str,
        behind: &'t str,
    },
}

/// Cuts a text at its variables, as the reader of a configuration does.
fn pieces<'t>(text: &'t str, mut each: impl FnMut(Piece<'t>)) {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            each(Piece::Plain(before));
            each(Piece::Plain("${"));
            rest = after;
            continue;
        }
        each(Piece::Plain(before));
        let Some((inside, behind)) = after.split_once('}') else { return };
        let (name, usual) =
            inside.split_once(":-").map_or((inside, None), |(name, usual)| (name, Some(usual)));
        let before = &text[..text.len() - rest.len() + before.len()];
        each(Piece::Variable { name, usual, before, behind });
        rest = behind;
    }
    each(Piece::Plain(rest));
}
