//! Object literals of JSON, JavaScript and TypeScript, read without running anything. Values that only the program can
//! work out (calls, functions, names) are kept as [`Kind::Code`].
//!
//! Every `{` of a text is tried once, those within an object together with it, so that a text is read in time that is
//! proportional to its length whatever is in it.

mod escapes;
mod tokens;

use serde_json::Number;

use super::node::{Kind, Node, escaped, is_variable};
use crate::limits::{DEPTH_MAX, NODES_MAX};
use escapes::unescape;
use tokens::{Bracket, Token, TokenKind, tokens};

/// The first object in the text that has a field of this name with something in it, or else with any value.
pub(super) fn find_object(text: &str, field: &str) -> Result<Node, String> {
    search(text, field).0
}

/// The same, with the number of characters and tokens that were looked at.
fn search(text: &str, field: &str) -> (Result<Node, String>, usize) {
    let (tokens, steps) = tokens(text);
    let mut reader = Reader {
        text,
        field,
        tried: vec![false; tokens.len()],
        tokens,
        at: 0,
        nodes: 0,
        steps,
        found: None,
        problem: None,
    };
    let result = reader.find();
    (result, reader.steps)
}

/// The number of characters and tokens that are looked at to find an object.
#[cfg(test)]
pub(super) fn steps(text: &str, field: &str) -> usize {
    search(text, field).1
}

struct Reader<'t> {
    text: &'t str,
    /// The field that the object is to have.
    field: &'t str,
    tokens: Vec<Token>,
    at: usize,
    nodes: usize,
    steps: usize,
    /// Braces that were looked at.
    tried: Vec<bool>,
    /// The first object with the field so far: whether there is something in the field, and where the object begins.
    found: Option<(bool, usize)>,
    /// The last thing that did not read as an object, with its line.
    problem: Option<String>,
}

/// A value while it is read.
enum Value {
    /// A variable of the environment.
    Variable(String),
    /// Text that stands for itself.
    Plain(String),
    /// Text as ours, with variables in it.
    Mixed(String),
    Other(Kind),
}

impl Value {
    fn kind(self) -> Kind {
        match self {
            Self::Variable(name) => Kind::Text(format!("${{{name}}}")),
            Self::Plain(text) => Kind::Text(escaped(&text)),
            Self::Mixed(text) => Kind::Text(text),
            Self::Other(kind) => kind,
        }
    }
}

impl<'t> Reader<'t> {
    fn find(&mut self) -> Result<Node, String> {
        for at in 0..self.tokens.len() {
            if self.tokens[at].kind == TokenKind::Open(Bracket::Curly) && !self.tried[at] {
                self.at = at;
                // What an object before it had does not count against this one.
                self.nodes = 0;
                let _ = self.object(0);
            }
        }
        let why = self.problem.take().map_or_else(String::new, |problem| format!("; {problem}"));
        let Some((_, at)) = self.found else {
            return Err(format!("there is no object with `{}`{why}", self.field));
        };
        self.at = at;
        self.nodes = 0;
        self.problem = None;
        let line = self.tokens[at].line;
        let kind = self.object(0).ok_or_else(|| self.problem.take().unwrap_or_default())?;
        let node = Node { line, kind };
        let is_code = |(name, node): &(String, Node)| name == self.field && node.kind == Kind::Code;
        if let Some((_, code)) = node.entries().iter().find(|entry| is_code(entry)) {
            let why = self.problem.take().map_or_else(String::new, |problem| format!(": {problem}"));
            return Err(format!("line {}: `{}` cannot be read{why}", code.line, self.field));
        }
        Ok(node)
    }

    /// The token that comes next, in the language's sense.
    fn peek(&self) -> Option<Token> {
        self.tokens.get(self.at).copied()
    }

    fn text_of(&self, token: Token) -> &'t str {
        &self.text[token.start..token.end]
    }

    fn is_mark(&self, at: usize, mark: char) -> bool {
        let token = self.tokens.get(at).filter(|token| token.kind == TokenKind::Mark);
        token.is_some_and(|token| self.text[token.start..].starts_with(mark))
    }

    fn is_word(&self, at: usize, word: &str) -> bool {
        let token = self.tokens.get(at).filter(|token| token.kind == TokenKind::Word);
        token.is_some_and(|token| &self.text[token.start..token.end] == word)
    }

    fn eat(&mut self, mark: char) -> bool {
        let found = self.is_mark(self.at, mark);
        self.at += usize::from(found);
        found
    }

    /// Whether an operator of two characters comes next.
    fn is_double(&self, mark: char) -> bool {
        self.is_mark(self.at, mark)
            && self.is_mark(self.at + 1, mark)
            && self.tokens[self.at].end == self.tokens[self.at + 1].start
    }

    fn fail<T>(&mut self, line: u64, what: &str) -> Option<T> {
        self.problem = Some(format!("line {line}: {what}"));
        None
    }

    /// Whether what is read ends here.
    fn is_at_end(&self) -> bool {
        let ends = |token: Token| match token.kind {
            TokenKind::Close(_) => true,
            TokenKind::Mark => matches!(self.text_of(token), "," | ";"),
            TokenKind::Word
            | TokenKind::Number
            | TokenKind::Text
            | TokenKind::Chunk
            | TokenKind::Regex
            | TokenKind::Broken
            | TokenKind::Open(_) => false,
        };
        self.peek().is_none_or(ends)
    }

    /// Passes over an expression, to what ends it in the object or list around it.
    fn skip(&mut self) {
        while !self.is_at_end() {
            self.steps += 1;
            let here = self.tokens[self.at];
            self.at = match (here.kind, here.mate) {
                (TokenKind::Open(_), Some(mate)) => mate + 1,
                (_, _) => self.at + 1,
            };
        }
    }

    fn value(&mut self, depth: usize) -> Option<Node> {
        let (start, line) = (self.at, self.peek().map_or(0, |token| token.line));
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return self.fail(line, "it has too many values");
        }
        let read = self.choice(depth).filter(|_| self.is_at_end());
        let kind = read.map_or(Kind::Code, Value::kind);
        if kind == Kind::Code {
            self.at = start;
            self.skip();
        }
        Some(Node { line, kind })
    }

    /// A value, or a variable with what stands in for it.
    fn choice(&mut self, depth: usize) -> Option<Value> {
        let first = self.operand(depth)?;
        if !self.is_double('|') && !self.is_double('?') {
            return Some(first);
        }
        self.at += 2;
        let Value::Variable(name) = first else { return None };
        match self.operand(depth + 1)? {
            Value::Plain(usual) if usual.is_empty() => Some(Value::Variable(name)),
            Value::Other(Kind::Null) => Some(Value::Variable(name)),
            // The first brace would end it.
            Value::Plain(usual) if !usual.contains('}') => {
                Some(Value::Mixed(format!("${{{name}:-{usual}}}")))
            }
            Value::Variable(_) | Value::Plain(_) | Value::Mixed(_) | Value::Other(_) => None,
        }
    }

    /// A value without operators, and the types behind it.
    fn operand(&mut self, depth: usize) -> Option<Value> {
        self.steps += 1;
        let value = self.simple(depth)?;
        if self.is_mark(self.at, '!') && !self.is_mark(self.at + 1, '=') {
            self.at += 1;
        }
        while self.is_word(self.at, "as") || self.is_word(self.at, "satisfies") {
            self.at += 1;
            while !self.is_at_end() && !self.is_double('|') && !self.is_double('?') {
                self.steps += 1;
                let next = self.tokens[self.at];
                self.at =
                    next.mate.filter(|_| matches!(next.kind, TokenKind::Open(_))).unwrap_or(self.at) + 1;
            }
        }
        Some(value)
    }

    fn simple(&mut self, depth: usize) -> Option<Value> {
        let token = self.peek()?;
        if depth > DEPTH_MAX {
            return self.fail(token.line, "it is nested too deep");
        }
        match token.kind {
            TokenKind::Open(Bracket::Curly) => self.object(depth).map(Value::Other),
            TokenKind::Open(Bracket::Square) => self.list(depth).map(Value::Other),
            TokenKind::Open(Bracket::Round) => self.within(depth, token.mate?),
            TokenKind::Open(Bracket::Template) => self.template(depth),
            TokenKind::Text => {
                self.at += 1;
                let inner = &self.text[token.start + 1..token.end - 1];
                self.unescaped(inner, token.line).map(Value::Plain)
            }
            TokenKind::Number => self.number("").map(Value::Other),
            TokenKind::Mark if matches!(self.text_of(token), "-" | "+") => {
                self.at += 1;
                self.number(if self.text_of(token) == "-" { "-" } else { "" }).map(Value::Other)
            }
            TokenKind::Word => self.word(token),
            TokenKind::Broken => self.fail(token.line, "a string does not end"),
            TokenKind::Mark
            | TokenKind::Chunk
            | TokenKind::Regex
            | TokenKind::Close(_)
            | TokenKind::Open(Bracket::Hole) => None,
        }
    }

    /// A value in brackets of its own, up to their end.
    fn within(&mut self, depth: usize, mate: usize) -> Option<Value> {
        self.at += 1;
        let value = self.choice(depth + 1)?;
        if self.at != mate {
            return None;
        }
        self.at = mate + 1;
        Some(value)
    }

    fn number(&mut self, sign: &str) -> Option<Kind> {
        let token = self.peek().filter(|token| token.kind == TokenKind::Number)?;
        self.at += 1;
        let text = format!("{sign}{}", self.text_of(token).replace('_', ""));
        serde_json::from_str::<Number>(&text).ok().map(Kind::Number)
    }

    /// A word of the language, or a variable of the environment.
    fn word(&mut self, token: Token) -> Option<Value> {
        self.at += 1;
        match self.text_of(token) {
            "true" => Some(Value::Other(Kind::Bool(true))),
            "false" => Some(Value::Other(Kind::Bool(false))),
            "null" | "undefined" => Some(Value::Other(Kind::Null)),
            "process" => {
                self.member().filter(|name| name == "env")?;
                let name = self.member()?;
                if is_variable(&name) {
                    return Some(Value::Variable(name));
                }
                self.fail(token.line, &format!("`{name}` cannot be the name of a variable here"))
            }
            _ => None,
        }
    }

    /// The name of a member: `.name`, `?.name`, `["name"]`.
    fn member(&mut self) -> Option<String> {
        let is_optional = self.is_mark(self.at, '?') && self.is_mark(self.at + 1, '.');
        self.at += if is_optional { 2 } else { 0 };
        let by_dot = is_optional || self.eat('.');
        let token = self.peek()?;
        if token.kind == TokenKind::Word && by_dot {
            self.at += 1;
            return Some(self.text_of(token).to_owned());
        }
        if token.kind != TokenKind::Open(Bracket::Square) || (by_dot && !is_optional) {
            return None;
        }
        let name = self.tokens.get(self.at + 1).copied().filter(|one| one.kind == TokenKind::Text)?;
        self.at = token.mate.filter(|mate| *mate == self.at + 2)? + 1;
        self.unescaped(&self.text[name.start + 1..name.end - 1], name.line)
    }

    /// A template of text and variables.
    fn template(&mut self, depth: usize) -> Option<Value> {
        let end = self.peek()?.mate?;
        self.at += 1;
        let (mut ours, mut plain) = (String::new(), String::new());
        while self.at < end {
            self.steps += 1;
            let token = self.tokens[self.at];
            if token.kind == TokenKind::Chunk {
                self.at += 1;
                plain.push_str(&self.unescaped(self.text_of(token), token.line)?);
                continue;
            }
            match self.within(depth, token.mate?)? {
                Value::Plain(text) => plain.push_str(&text),
                Value::Other(_) => return None,
                // A `$` before it would make it stand for itself.
                Value::Variable(_) | Value::Mixed(_) if plain.ends_with('$') => return None,
                variable @ (Value::Variable(_) | Value::Mixed(_)) => {
                    let Kind::Text(text) = variable.kind() else { return None };
                    ours.push_str(&escaped(&std::mem::take(&mut plain)));
                    ours.push_str(&text);
                }
            }
        }
        self.at = end + 1;
        if ours.is_empty() {
            return Some(Value::Plain(plain));
        }
        let ours = ours + &escaped(&plain);
        let name = ours.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        Some(match name.filter(|name| is_variable(name)) {
            Some(name) => Value::Variable(name.to_owned()),
            None => Value::Mixed(ours),
        })
    }

    fn list(&mut self, depth: usize) -> Option<Kind> {
        let open = self.tokens[self.at];
        let Some(end) = open.mate else { return self.fail(open.line, "a list does not end") };
        self.at += 1;
        let mut items = Vec::new();
        while self.at < end {
            self.steps += 1;
            items.push(self.value(depth + 1)?);
            if !self.eat(',') && self.at != end {
                return self.fail(self.tokens[self.at].line, "a comma is missing");
            }
        }
        self.at = end + 1;
        Some(Kind::List(items))
    }

    fn object(&mut self, depth: usize) -> Option<Kind> {
        let start = self.at;
        let open = self.tokens[start];
        self.tried[start] = true;
        let Some(end) = open.mate else { return self.fail(open.line, "an object does not end") };
        self.at += 1;
        let mut entries = Vec::new();
        while self.at < end {
            self.steps += 1;
            let line = self.tokens[self.at].line;
            let name = self.key()?;
            let node = if self.eat(':') {
                Node { line, ..self.value(depth + 1)? }
            } else {
                // A shorthand, a method or a spread: only the program knows its value.
                self.skip();
                Node { line, kind: Kind::Code }
            };
            entries.push((name, node));
            if !self.eat(',') && self.at != end {
                return self.fail(self.tokens[self.at].line, "a comma is missing");
            }
        }
        self.at = end + 1;
        if let Some((_, node)) = entries.iter().find(|(name, _)| name == self.field) {
            let is_whole = !node.items().is_empty() || !node.entries().is_empty();
            let better =
                |(whole, at): (bool, usize)| (is_whole && !whole) || (is_whole == whole && start < at);
            if self.found.is_none_or(better) {
                self.found = Some((is_whole, start));
            }
        }
        Some(Kind::Map(entries))
    }

    /// The name of a field, of a method or of what is spread.
    fn key(&mut self) -> Option<String> {
        self.pass_modifiers();
        let token = self.peek()?;
        self.at += 1;
        match token.kind {
            TokenKind::Text => self.unescaped(&self.text[token.start + 1..token.end - 1], token.line),
            TokenKind::Open(Bracket::Square) => {
                self.at = token.mate? + 1;
                Some(self.text[token.start..self.tokens[self.at - 1].end].to_owned())
            }
            TokenKind::Mark if self.text[token.start..].starts_with("...") => {
                self.at += 2;
                let name = self.peek().filter(|next| next.kind == TokenKind::Word);
                Some(format!("...{}", name.map_or("", |name| self.text_of(name))))
            }
            TokenKind::Word | TokenKind::Number => Some(self.text_of(token).to_owned()),
            TokenKind::Broken => self.fail(token.line, "a string does not end"),
            TokenKind::Mark
            | TokenKind::Chunk
            | TokenKind::Regex
            | TokenKind::Open(_)
            | TokenKind::Close(_) => self.fail(token.line, "a name is missing"),
        }
    }

    /// Passes over what stands before the name of a method.
    fn pass_modifiers(&mut self) {
        loop {
            let is_word = ["async", "get", "set"].iter().any(|word| self.is_word(self.at, word));
            let behind = self.tokens.get(self.at + 1).map(|next| next.kind);
            let is_before_name = matches!(behind, Some(TokenKind::Word | TokenKind::Text));
            let is_modifier = is_word && is_before_name;
            if !is_modifier && !self.is_mark(self.at, '*') {
                return;
            }
            self.at += 1;
            self.steps += 1;
        }
    }

    /// What stands in a string or template, with its escapes put in.
    fn unescaped(&mut self, raw: &str, line: u64) -> Option<String> {
        self.steps += raw.len();
        match unescape(raw) {
            Ok(text) => Some(text),
            Err(what) => self.fail(line, what),
        }
    }
}
