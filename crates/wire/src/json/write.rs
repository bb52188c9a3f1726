//! JSON text, written member by member. Values that were read from another text are put in as they were written.

use std::fmt::Write as _;

use super::quote_into;

/// An object that is being written.
#[derive(Debug)]
pub struct Object {
    text: String,
}

impl Default for Object {
    fn default() -> Self {
        Self::new()
    }
}

impl Object {
    /// An object without members.
    pub fn new() -> Self {
        Self { text: String::from("{") }
    }

    fn key(&mut self, name: &str) -> &mut String {
        if self.text.len() > 1 {
            self.text.push(',');
        }
        quote_into(name, &mut self.text);
        self.text.push(':');
        &mut self.text
    }

    /// A value that is JSON already.
    pub fn raw(&mut self, name: &str, json: &str) -> &mut Self {
        self.key(name).push_str(json);
        self
    }

    /// A string.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        quote_into(value, self.key(name));
        self
    }

    /// A string, if there is one.
    pub fn text_if(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value {
            self.text(name, value);
        }
        self
    }

    /// A whole number.
    pub fn count(&mut self, name: &str, value: u64) -> &mut Self {
        let key = self.key(name);
        let _ = write!(key, "{value}");
        self
    }

    /// A whole number, if there is one.
    pub fn count_if(&mut self, name: &str, value: Option<u64>) -> &mut Self {
        if let Some(value) = value {
            self.count(name, value);
        }
        self
    }

    /// A number, if there is one and it is finite.
    pub fn number_if(&mut self, name: &str, value: Option<f64>) -> &mut Self {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            let key = self.key(name);
            let _ = write!(key, "{value}");
        }
        self
    }

    /// A boolean.
    pub fn boolean(&mut self, name: &str, value: bool) -> &mut Self {
        self.raw(name, if value { "true" } else { "false" })
    }

    /// A boolean, if there is one.
    pub fn boolean_if(&mut self, name: &str, value: Option<bool>) -> &mut Self {
        if let Some(value) = value {
            self.boolean(name, value);
        }
        self
    }

    /// An object.
    pub fn object(&mut self, name: &str, fill: impl FnOnce(&mut Object)) -> &mut Self {
        let mut inner = Object::new();
        fill(&mut inner);
        let text = inner.finish();
        self.raw(name, &text)
    }

    /// An array of what is JSON already.
    pub fn array<S: AsRef<str>>(&mut self, name: &str, items: impl IntoIterator<Item = S>) -> &mut Self {
        let text = array(items);
        self.raw(name, &text)
    }

    /// Whether it has no members yet.
    pub fn is_empty(&self) -> bool {
        self.text.len() == 1
    }

    /// The text.
    pub fn finish(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

/// An object, filled at once.
pub fn object(fill: impl FnOnce(&mut Object)) -> String {
    let mut object = Object::new();
    fill(&mut object);
    object.finish()
}

/// An array of what is JSON already.
pub fn array<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    let mut text = String::from("[");
    for item in items {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(item.as_ref());
    }
    text.push(']');
    text
}

/// JSON without the space between its tokens, otherwise as it was written.
pub fn compact(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    let mut rest = json;
    // In turns: what stands outside of strings, and a string.
    while let Some(quote) = rest.find('"') {
        text.extend(rest[..quote].chars().filter(|character| !character.is_ascii_whitespace()));
        let inside = &rest.as_bytes()[quote + 1..];
        let mut end = 0;
        while let Some(found) = memchr::memchr2(b'"', b'\\', inside.get(end..).unwrap_or_default()) {
            end += found;
            if inside[end] == b'"' {
                break;
            }
            end += 2;
        }
        let end = (quote + 2 + end).min(rest.len());
        text.push_str(rest.get(quote..end).unwrap_or_default());
        rest = rest.get(end..).unwrap_or_default();
    }
    text.extend(rest.chars().filter(|character| !character.is_ascii_whitespace()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compact_means_the_same() {
        let spaced = " { \"a b\" : [ 1 ,\n \" \\\" \\\\\" , \"\" ] } ";
        assert_eq!(compact(spaced), r#"{"a b":[1," \" \\",""]}"#);
        assert_eq!((compact("  1e5 "), compact("")), ("1e5".to_owned(), String::new()));
    }

    #[test]
    fn members_stand_in_the_order_they_were_put_in() {
        let text = object(|it| {
            it.text("a\"", "b\n\u{1}").count("n", 3).number_if("x", Some(f64::NAN)).number_if("t", Some(0.5));
            it.object("o", |inner| _ = inner.boolean("yes", true)).array("l", ["1", "{}"]).raw("r", "1e400");
        });
        assert_eq!(text, r#"{"a\"":"b\n\u0001","n":3,"t":0.5,"o":{"yes":true},"l":[1,{}],"r":1e400}"#);
        assert!(crate::json::check(&text, 4).is_ok());
    }
}
