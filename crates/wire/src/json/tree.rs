//! A JSON text as a tree, for bodies that are turned into another dialect.
//!
//! Members keep their order, numbers and values that are only passed on keep their spelling, and what a reader does not
//! take can be told by name: nothing is lost unseen.

use std::borrow::Cow;

use super::{JsonError, Kind, Piece, Scanner, Text};

/// A value and what it was written as.
#[derive(Debug, Clone, PartialEq)]
pub struct Tree<'a> {
    raw: &'a str,
    node: Node<'a>,
}

#[derive(Debug, Clone, PartialEq)]
enum Node<'a> {
    Null,
    Bool(bool),
    Number,
    Text(Cow<'a, str>),
    Array(Vec<Tree<'a>>),
    Object(Vec<(Cow<'a, str>, Tree<'a>)>),
}

impl<'a> Tree<'a> {
    /// The value that `text` is, nested `depth_max` levels at most. Of members of one name the first counts; the others are
    /// left over.
    pub fn parse(text: &'a str, depth_max: usize) -> Result<Self, JsonError> {
        let mut scanner = Scanner::new(text, depth_max);
        let tree = Self::read(&mut scanner)?;
        scanner.finish()?;
        Ok(tree)
    }

    /// The next value. The scanner bounds how deep this calls itself.
    fn read(scanner: &mut Scanner<'a>) -> Result<Self, JsonError> {
        let kind = scanner.peek()?;
        let start = scanner.at();
        let node = match kind {
            Kind::Null => scanner.null().map(|()| Node::Null)?,
            Kind::Bool => Node::Bool(scanner.boolean()?),
            Kind::Number => scanner.number().map(|_| Node::Number)?,
            Kind::String => Node::Text(meaning(scanner.string()?)),
            Kind::Array => {
                let (mut walk, mut items) = (scanner.array()?, Vec::new());
                while scanner.next_element(&mut walk)? {
                    items.push(Self::read(scanner)?);
                }
                Node::Array(items)
            }
            Kind::Object => {
                let (mut walk, mut members) = (scanner.object()?, Vec::new());
                while let Some(key) = scanner.next_key(&mut walk)? {
                    members.push((meaning(key), Self::read(scanner)?));
                }
                Node::Object(members)
            }
        };
        let span = super::Span { start, end: scanner.at() };
        Ok(Self { raw: scanner.slice(span).trim_ascii_end(), node })
    }

    /// The value as it was written.
    pub fn raw(&self) -> &'a str {
        self.raw
    }

    /// Its type.
    pub fn kind(&self) -> Kind {
        match &self.node {
            Node::Null => Kind::Null,
            Node::Bool(_) => Kind::Bool,
            Node::Number => Kind::Number,
            Node::Text(_) => Kind::String,
            Node::Array(_) => Kind::Array,
            Node::Object(_) => Kind::Object,
        }
    }

    /// What a string means; half a surrogate pair is replaced (U+FFFD).
    pub fn text(&self) -> Option<&str> {
        match &self.node {
            Node::Text(text) => Some(text),
            Node::Null | Node::Bool(_) | Node::Number | Node::Array(_) | Node::Object(_) => None,
        }
    }

    /// The same, kept.
    pub fn into_text(self) -> Option<String> {
        match self.node {
            Node::Text(text) => Some(text.into_owned()),
            Node::Null | Node::Bool(_) | Node::Number | Node::Array(_) | Node::Object(_) => None,
        }
    }

    /// A boolean.
    pub fn boolean(&self) -> Option<bool> {
        match self.node {
            Node::Bool(value) => Some(value),
            Node::Null | Node::Number | Node::Text(_) | Node::Array(_) | Node::Object(_) => None,
        }
    }

    /// A number that is finite.
    pub fn number(&self) -> Option<f64> {
        let number = matches!(self.node, Node::Number).then(|| self.raw.parse::<f64>().ok())?;
        number.filter(|number| number.is_finite())
    }

    /// A whole number from 0 on; a fraction is cut off.
    pub fn count(&self) -> Option<u64> {
        if !matches!(self.node, Node::Number) {
            return None;
        }
        self.raw
            .parse()
            .ok()
            .or_else(|| self.number().filter(|number| *number >= 0.0).map(|number| number as u64))
    }

    /// A whole number from 0 on, however it is spelled (`3`, `3.0`); no fraction is one.
    pub fn whole(&self) -> Option<u64> {
        let is_whole = |number: &f64| *number >= 0.0 && *number < u64::MAX as f64 && number.fract() == 0.0;
        matches!(self.node, Node::Number).then_some(())?;
        self.raw.parse().ok().or_else(|| self.number().filter(is_whole).map(|number| number as u64))
    }

    /// The elements of an array; none of anything else.
    pub fn items(&self) -> &[Tree<'a>] {
        match &self.node {
            Node::Array(items) => items,
            Node::Null | Node::Bool(_) | Node::Number | Node::Text(_) | Node::Object(_) => &[],
        }
    }

    /// The same, kept.
    pub fn into_items(self) -> Vec<Tree<'a>> {
        match self.node {
            Node::Array(items) => items,
            Node::Null | Node::Bool(_) | Node::Number | Node::Text(_) | Node::Object(_) => Vec::new(),
        }
    }

    /// A member of an object, unless it is `null`.
    pub fn get(&self, name: &str) -> Option<&Tree<'a>> {
        match &self.node {
            Node::Object(members) => {
                let found = members.iter().find(|(known, _)| known == name);
                found.map(|(_, value)| value).filter(|value| value.kind() != Kind::Null)
            }
            Node::Null | Node::Bool(_) | Node::Number | Node::Text(_) | Node::Array(_) => None,
        }
    }

    /// The members of an object, to be taken one by one; none of anything else.
    pub fn into_members(self) -> Members<'a> {
        match self.node {
            Node::Object(members) => Members(members),
            Node::Null | Node::Bool(_) | Node::Number | Node::Text(_) | Node::Array(_) => Members(Vec::new()),
        }
    }
}

fn meaning(text: Text<'_>) -> Cow<'_, str> {
    text.decode().unwrap_or_else(|| {
        let mut lossy = String::with_capacity(text.meant_bytes());
        text.pieces(|piece| {
            match piece {
                Piece::Plain(plain) => lossy.push_str(plain),
                Piece::Character(character) => lossy.push(character),
                Piece::LoneSurrogate => lossy.push(char::REPLACEMENT_CHARACTER),
            }
            true
        });
        Cow::Owned(lossy)
    })
}

/// The members of an object that nobody took yet.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Members<'a>(Vec<(Cow<'a, str>, Tree<'a>)>);

impl<'a> Members<'a> {
    /// Takes a member out; `None` if there is none, or if it is `null`.
    pub fn take(&mut self, name: &str) -> Option<Tree<'a>> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        // Order matters to what is left: what is passed on comes in the order it was sent.
        let (_, value) = self.0.remove(at);
        Some(value).filter(|value| value.kind() != Kind::Null)
    }

    /// Takes a string out.
    pub fn take_text(&mut self, name: &str) -> Option<String> {
        self.take(name)?.into_text()
    }

    /// Whether an array of this name is there, and is not empty.
    pub fn has_items(&self, name: &str) -> bool {
        self.0.iter().any(|(known, value)| known == name && !value.items().is_empty())
    }

    /// All that is left.
    pub fn all(self) -> impl Iterator<Item = (Cow<'a, str>, Tree<'a>)> {
        self.0.into_iter()
    }

    /// What is left, without what is `null`.
    pub fn rest(self) -> impl Iterator<Item = (Cow<'a, str>, Tree<'a>)> {
        self.0.into_iter().filter(|(_, value)| value.kind() != Kind::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_spelling_and_order() {
        let text = r#" {"b": 1e400 , "a":[1.50,"\u0041\ud800",null], "schema" : {"z":1,"y":{}} } "#;
        let tree = Tree::parse(text, 8).unwrap();
        assert_eq!(tree.get("b").unwrap().raw(), "1e400");
        assert_eq!(tree.get("b").unwrap().number(), None);
        let items = tree.get("a").unwrap().items();
        assert_eq!((items[0].raw(), items[1].text()), ("1.50", Some("A\u{FFFD}")));
        assert_eq!(tree.get("schema").unwrap().raw(), r#"{"z":1,"y":{}}"#);
        let mut members = tree.into_members();
        assert!(members.take("a").is_some() && members.take("a").is_none());
        assert_eq!(members.rest().map(|(name, _)| name).collect::<Vec<_>>(), ["b", "schema"]);
    }

    #[test]
    fn the_first_of_a_name_counts_and_what_is_no_json_is_refused() {
        let twice = Tree::parse(r#"{"a":1,"\u0061":2}"#, 8).unwrap();
        assert_eq!(twice.get("a").unwrap().raw(), "1");
        let mut members = twice.into_members();
        members.take("a");
        assert_eq!(members.rest().count(), 1, "the other one is left over");
        assert!(Tree::parse("[[[[1]]]]", 3).is_err());
        assert!(Tree::parse("{\"a\":1}x", 3).is_err());
    }

    #[test]
    fn no_fraction_is_a_whole_number() {
        let whole = |text| Tree::parse(text, 1).unwrap().whole();
        assert_eq!((whole("12"), whole("12.0"), whole("1e2")), (Some(12), Some(12), Some(100)));
        assert_eq!((whole("2.5"), whole("-1"), whole("1e30"), whole("\"1\"")), (None, None, None, None));
    }

    #[test]
    fn counts_are_never_negative() {
        let count = |text| Tree::parse(text, 1).unwrap().count();
        assert_eq!(
            (count("12"), count("12.9"), count("-1"), count("\"1\"")),
            (Some(12), Some(12), None, None)
        );
    }
}
