//! Metrics in the text format of Prometheus and OpenMetrics: the samples somebody wants, and nothing else.
//!
//! An engine's page has thousands of lines, nearly all of them buckets of histograms. Lines of other names are stepped
//! over without a look at their labels; lines of wanted names are read strictly, and one that is malformed is counted and
//! left out, so that half a number is never taken for a whole one. Nothing here panics or grows beyond its bounds,
//! whatever comes.

use std::borrow::Cow;

use memchr::memchr;
use smallvec::SmallVec;

/// Bytes of a page that are read; what is longer is refused.
pub const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a line that are read.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Labels of one sample.
const LABELS_MAX: usize = 64;
/// Wanted samples of one page.
const SAMPLES_MAX: usize = 4096;

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// Its name, as it stands there.
    pub name: &'a str,
    /// Its labels, in their order.
    pub labels: SmallVec<[(&'a str, Cow<'a, str>); 4]>,
    /// Its value, which may be infinite or not a number.
    pub value: f64,
}

impl Sample<'_> {
    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }
}

/// What was found on a page.
#[derive(Debug, Default)]
pub struct Page<'a> {
    /// The wanted samples, in their order.
    pub samples: Vec<Sample<'a>>,
    /// Lines of wanted names that are not what they should be.
    pub malformed: usize,
}

/// Reads a page; `wanted` says of a name whether its samples are kept.
///
/// `None` where the page or the number of wanted samples is beyond its bound.
pub fn read(text: &[u8], wanted: impl Fn(&[u8]) -> bool) -> Option<Page<'_>> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let mut page = Page::default();
    let mut rest = text;
    while !rest.is_empty() {
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let line = rest[..end].trim_ascii();
        rest = rest.get(end + 1..).unwrap_or_default();
        let name = &line[..line.iter().take_while(|byte| is_of_name(**byte)).count()];
        if name.is_empty() || !wanted(name) {
            continue;
        }
        match sample(line, name.len()) {
            Some(sample) if page.samples.len() < SAMPLES_MAX => page.samples.push(sample),
            Some(_) => return None,
            None => page.malformed += 1,
        }
    }
    Some(page)
}

const fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':'
}

/// `name{label="value",…} value [timestamp] [# exemplar]`.
fn sample(line: &[u8], name_bytes: usize) -> Option<Sample<'_>> {
    if line.len() > LINE_BYTES_MAX || line[0].is_ascii_digit() {
        return None;
    }
    let (name, rest) = std::str::from_utf8(line).ok()?.split_at(name_bytes);
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(rest) => labels(rest)?,
        // What is neither a label nor a space belongs to another name.
        None if rest.starts_with([' ', '\t']) => (SmallVec::new(), rest),
        None => return None,
    };
    let mut words = rest.split('#').next()?.split_ascii_whitespace();
    let value = number(words.next()?)?;
    let timestamp_is_one = words.next().is_none_or(|timestamp| number(timestamp).is_some());
    (timestamp_is_one && words.next().is_none()).then_some(Sample { name, labels, value })
}

type Labels<'a> = SmallVec<[(&'a str, Cow<'a, str>); 4]>;

/// Labels up to their brace, and what comes after it.
fn labels(mut rest: &str) -> Option<(Labels<'_>, &str)> {
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_end();
        let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if labels.len() == LABELS_MAX || !begins_well || !name.bytes().all(is_of_name) {
            return None;
        }
        let (value, after) = quoted(after.trim_start().strip_prefix('"')?)?;
        labels.push((name, value));
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(after) => after,
            None if after.starts_with('}') => after,
            None => return None,
        };
    }
}

/// A value up to its quotation mark, and what comes after it.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(['"', '\\'])?;
    if text[end..].starts_with('"') {
        return Some((Cow::Borrowed(&text[..end]), &text[end + 1..]));
    }
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((Cow::Owned(value), &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            }),
            plain => value.push(plain),
        }
    }
    None
}

/// A number as the format has it: `NaN`, `+Inf`, `-Inf` and exponents included.
fn number(word: &str) -> Option<f64> {
    let plain = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    let named = || {
        let bare = word.trim_start_matches(['+', '-']);
        ["nan", "inf", "infinity"].iter().any(|name| bare.eq_ignore_ascii_case(name))
    };
    if word.bytes().all(plain) || named() { word.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Option<(&[(&str, &str)], f64)>) {
        let page = read(line.as_bytes(), |_| true).expect("within bounds");
        let found = page.samples.first().map(|sample| {
            let labels: Vec<(&str, &str)> =
                sample.labels.iter().map(|(name, value)| (*name, &**value)).collect();
            (labels, sample.value)
        });
        let expected = expected.map(|(labels, value)| (labels.to_vec(), value));
        match (&found, &expected) {
            (Some((labels, value)), Some((wanted, number))) => {
                assert_eq!(labels, wanted, "{line}");
                assert_eq!(value.to_bits(), number.to_bits(), "{line}");
            }
            _ => assert_eq!(found, expected, "{line}"),
        }
    }

    #[test]
    fn lines_are_read_strictly() {
        check("a 1", Some((&[], 1.0)));
        check("vllm:a{} 1.5e-3", Some((&[], 0.0015)));
        check("a{b=\"c\"} +Inf", Some((&[("b", "c")], f64::INFINITY)));
        check("a{b=\"c\",} -Inf 1790347303000", Some((&[("b", "c")], f64::NEG_INFINITY)));
        check("a{b=\"}\\\"\\\\\\n\", c = \"ü\" }  4\r", Some((&[("b", "}\"\\\n"), ("c", "ü")], 4.0)));
        check("a_total 7 # {trace_id=\"x\"} 0.5", Some((&[], 7.0)));
        check("a NaN", Some((&[], f64::NAN)));
        for bad in [
            "a",
            "a ",
            "a{",
            "a{b",
            "a{b=\"c\"",
            "a{b=\"c\"}",
            "a{b=c} 1",
            "a{b=\"c\" d=\"e\"} 1",
            "a{b=\"\\x\"} 1",
            "a 1 2 3",
            "a one",
            "a 0x10",
            "a-b 1",
            "a{1b=\"c\"} 1",
            "# a 1",
            "a 1e",
            "a\u{a0}1",
            "9a 1",
            "a{,} 1",
            "{\"a\"} 1",
            "a .",
            "a infinit",
            "",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn m4_what_is_beyond_the_bounds_is_refused() {
        let page = "a 1\n".repeat(SAMPLES_MAX);
        assert_eq!(read(page.as_bytes(), |_| true).expect("within bounds").samples.len(), SAMPLES_MAX);
        assert!(read(format!("{page}a 1").as_bytes(), |_| true).is_none());
        assert!(read(format!("{page}b 1").as_bytes(), |name| name == b"a").is_some());
        assert!(read(&vec![b'x'; TEXT_BYTES_MAX + 1], |_| true).is_none());
        let long = format!("a{{b=\"{}\"}} 1", "x".repeat(LINE_BYTES_MAX));
        assert_eq!(read(long.as_bytes(), |_| true).expect("within bounds").malformed, 1);
        assert_eq!(read(b"\xff\na{b=\"\xff\"} 1\n", |_| true).expect("within bounds").malformed, 1);
    }
}
