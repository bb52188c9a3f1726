//! Object literals of JSON, JavaScript and TypeScript, read without running anything. Values that only the program can
//! work out (calls, functions, names) are kept as [`Kind::Code`].

use serde_json::Number;

use super::node::{Kind, Node, escaped};
use crate::limits::{DEPTH_MAX, NODES_MAX};

/// Braces at which a file is tried.
const STARTS_MAX: usize = 1_000;

/// The first object in the text that has a field of this name.
pub(super) fn find_object(text: &str, field: &str) -> Result<Node, String> {
    let mut last = None;
    for (at, _) in text.match_indices('{').take(STARTS_MAX) {
        let mut reader = Reader { text, at, nodes: 0 };
        match reader.value(0) {
            Ok(node) if node.entries().iter().any(|(name, _)| name == field) => return Ok(node),
            Ok(_) => {}
            Err(error) => last = Some(error),
        }
    }
    let why = last.map_or_else(String::new, |error| format!("; {error}"));
    Err(format!("there is no object with `{field}`{why}"))
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    nodes: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn line(&self) -> u64 {
        1 + self.text[..self.at].bytes().filter(|byte| *byte == b'\n').count() as u64
    }

    fn error(&self, what: &str) -> String {
        format!("line {}: {what}", self.line())
    }

    /// Passes over spaces and comments.
    fn space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            let end = match trimmed.get(..2) {
                Some("//") => trimmed.find('\n').unwrap_or(trimmed.len()),
                Some("/*") => trimmed.find("*/").map_or(trimmed.len(), |end| end + 2),
                Some(_) | None => return,
            };
            self.at += end;
        }
    }

    fn eat(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn value(&mut self, depth: usize) -> Result<Node, String> {
        self.space();
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return Err(self.error("it is nested too deep, or too long"));
        }
        let (line, start) = (self.line(), self.at);
        let kind = match self.rest().chars().next() {
            Some('{') => self.object(depth)?,
            Some('[') => self.list(depth)?,
            Some('"' | '\'' | '`') => Kind::Text(self.string()?),
            Some(_) => self.word(),
            None => return Err(self.error("it ends within an object")),
        };
        let kind = self.tail(kind, start)?;
        Ok(Node { line, kind })
    }

    /// What follows a value: nothing, a type, a value to fall back on, or more of an expression.
    fn tail(&mut self, kind: Kind, start: usize) -> Result<Kind, String> {
        let _ = self.eat("!");
        for word in ["as ", "satisfies "] {
            if self.eat(word) {
                self.expression()?;
                return Ok(kind);
            }
        }
        if let Kind::Text(text) = &kind
            && let Some(open) = text.strip_suffix('}').filter(|text| text.starts_with("${"))
            && (self.eat("||") || self.eat("??"))
            && let Kind::Text(usual) = self.value(0)?.kind
        {
            return Ok(Kind::Text(if usual.is_empty() {
                text.clone()
            } else {
                format!("{open}:-{usual}}}")
            }));
        }
        self.space();
        if self.rest().starts_with([',', '}', ']', ')', ';']) || self.rest().is_empty() {
            return Ok(kind);
        }
        self.at = start;
        self.expression()?;
        Ok(Kind::Code)
    }

    /// A number, a word of the language, a variable of the environment; of anything else nothing is taken.
    fn word(&mut self) -> Kind {
        let end = self
            .rest()
            .find(|c: char| !c.is_alphanumeric() && !"_$.+-".contains(c))
            .unwrap_or(self.rest().len());
        let word = &self.rest()[..end];
        self.at += end;
        match word {
            "true" => Kind::Bool(true),
            "false" => Kind::Bool(false),
            "null" | "undefined" => Kind::Null,
            "process.env" if self.eat("[") => {
                let name = self.string().unwrap_or_default();
                if self.eat("]") { Kind::Text(format!("${{{name}}}")) } else { Kind::Code }
            }
            word => match word.strip_prefix("process.env.") {
                Some(name) if !name.contains('.') => Kind::Text(format!("${{{name}}}")),
                Some(_) | None => {
                    serde_json::from_str::<Number>(&word.replace('_', "")).map_or(Kind::Code, Kind::Number)
                }
            },
        }
    }

    /// A string in any of the three quotes. Variables of the environment in a template are ours.
    fn string(&mut self) -> Result<String, String> {
        self.space();
        let quote = self.rest().chars().next().unwrap_or(' ');
        if !"\"'`".contains(quote) {
            return Err(self.error("a string is missing"));
        }
        self.at += 1;
        let mut out = String::new();
        let mut plain = String::new();
        loop {
            let Some(next) = self.rest().chars().next() else {
                return Err(self.error("a string does not end"));
            };
            if quote == '`' && self.rest().starts_with("${") {
                out.push_str(&escaped(&std::mem::take(&mut plain)));
                self.at += 2;
                let end = self.rest().find('}').ok_or_else(|| self.error("a template does not end"))?;
                let inside = self.rest()[..end].trim();
                self.at += end + 1;
                match inside.strip_prefix("process.env.") {
                    Some(name) => out.extend(["${", name, "}"]),
                    None => return Err(self.error("a template has more than variables of the environment")),
                }
                continue;
            }
            self.at += next.len_utf8();
            match next {
                end if end == quote => return Ok(out + &escaped(&plain)),
                '\\' => {
                    let Some(escape) = self.rest().chars().next() else { continue };
                    self.at += escape.len_utf8();
                    match escape {
                        'n' => plain.push('\n'),
                        't' => plain.push('\t'),
                        'r' => plain.push('\r'),
                        'u' => plain.push(self.code_point()?),
                        other => plain.push(other),
                    }
                }
                other => plain.push(other),
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Kind, String> {
        let _ = self.eat("[");
        let mut items = Vec::new();
        while !self.eat("]") {
            items.push(self.value(depth + 1)?);
            if !self.eat(",") && !self.peek(']') {
                return Err(self.error("a comma is missing"));
            }
        }
        Ok(Kind::List(items))
    }

    fn peek(&mut self, wanted: char) -> bool {
        self.space();
        self.rest().starts_with(wanted)
    }

    fn object(&mut self, depth: usize) -> Result<Kind, String> {
        let _ = self.eat("{");
        let mut entries = Vec::new();
        while !self.eat("}") {
            self.space();
            let line = self.line();
            if self.rest().is_empty() {
                return Err(self.error("an object does not end"));
            }
            let name = self.key()?;
            let node = if self.eat(":") {
                Node { line, ..self.value(depth + 1)? }
            } else {
                // A shorthand, a method or a spread: only the program knows its value.
                self.expression()?;
                Node { line, kind: Kind::Code }
            };
            entries.push((name, node));
            if !self.eat(",") && !self.peek('}') {
                return Err(self.error("a comma is missing"));
            }
        }
        Ok(Kind::Map(entries))
    }

    fn key(&mut self) -> Result<String, String> {
        self.space();
        if self.rest().starts_with(['"', '\'']) {
            return self.string();
        }
        let end = self
            .rest()
            .find(|c: char| !c.is_alphanumeric() && !"_$-.".contains(c))
            .unwrap_or(self.rest().len());
        if end == 0 {
            return Err(self.error("a name is missing"));
        }
        let name = self.rest()[..end].to_owned();
        self.at += end;
        Ok(name)
    }

    /// What `\u0041`, `\u{1f600}` or a pair of `\ud83d\ude00` stands for, behind the `u`.
    fn code_point(&mut self) -> Result<char, String> {
        if self.rest().starts_with('{') {
            let end = self.rest().find('}').ok_or_else(|| self.error("an escape does not end"))?;
            let unit = u32::from_str_radix(&self.rest()[1..end], 16);
            self.at += end + 1;
            return unit.ok().and_then(char::from_u32).ok_or_else(|| self.error("an escape is no character"));
        }
        let first = self.code_unit()?;
        if let (0xd800..0xdc00, true) = (first, self.rest().starts_with("\\u")) {
            self.at += 2;
            let pair = [first, self.code_unit()?];
            let whole = char::decode_utf16(pair).next().and_then(Result::ok);
            return whole.ok_or_else(|| self.error("an escape is no character"));
        }
        char::from_u32(first.into()).ok_or_else(|| self.error("an escape is no character"))
    }

    fn code_unit(&mut self) -> Result<u16, String> {
        let digits = self.rest().get(..4).and_then(|digits| u16::from_str_radix(digits, 16).ok());
        self.at += if digits.is_some() { 4 } else { 0 };
        digits.ok_or_else(|| self.error("an escape is no character"))
    }

    /// Passes over an expression, to what ends it in the object or list around it.
    fn expression(&mut self) -> Result<(), String> {
        let mut open = 0_usize;
        loop {
            self.space();
            let Some(next) = self.rest().chars().next() else {
                return if open == 0 { Ok(()) } else { Err(self.error("an expression does not end")) };
            };
            match next {
                '"' | '\'' | '`' => {
                    self.quoted(next)?;
                    continue;
                }
                '(' | '[' | '{' => open += 1,
                ')' | ']' | '}' | ',' | ';' if open == 0 => return Ok(()),
                ')' | ']' | '}' => open -= 1,
                _ => {}
            }
            self.at += next.len_utf8();
        }
    }

    /// Passes over a string of an expression.
    fn quoted(&mut self, quote: char) -> Result<(), String> {
        self.at += 1;
        loop {
            let Some(next) = self.rest().chars().next() else {
                return Err(self.error("a string does not end"));
            };
            self.at += next.len_utf8();
            if next == '\\' {
                self.at += self.rest().chars().next().map_or(0, char::len_utf8);
            } else if next == quote {
                return Ok(());
            }
        }
    }
}
