//! The boundary that a content type names, and the heads of parts.

use crate::openai::error::Invalid;

/// Bytes of a boundary, by RFC 2046.
const BOUNDARY_BYTES_MAX: usize = 70;
/// Bytes of a part's name.
const NAME_BYTES_MAX: usize = 128;

/// The boundary of a `multipart/form-data` content type.
pub fn boundary(content_type: &str) -> Result<String, Invalid> {
    let (kind, params) = content_type.split_once(';').unwrap_or((content_type, ""));
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        let text = "the body must be multipart/form-data, with the boundary in its content type";
        return Err(Invalid { status: 415, ..Invalid::body(text) });
    }
    let bad = || Invalid::body("the content type names no boundary of 1 to 70 characters that may be one");
    let mut found = None;
    for (name, value) in Params(params) {
        if name.eq_ignore_ascii_case("boundary") && found.replace(value.ok_or_else(bad)?).is_some() {
            return Err(bad());
        }
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    found
        .filter(|found| (1..=BOUNDARY_BYTES_MAX).contains(&found.len()))
        .filter(|found| found.bytes().all(allowed) && !found.ends_with(' '))
        .ok_or_else(bad)
}

/// What a part's head says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) name: String,
    pub(super) is_file: bool,
}

/// Reads a head, without the blank line at its end.
pub(super) fn read(head: &[u8]) -> Result<Head, Invalid> {
    let bad = |what: &str| Invalid::body(format!("the head of a part of the multipart body {what}"));
    let head = std::str::from_utf8(head).map_err(|_| bad("is not UTF-8"))?;
    let mut found = None;
    let mut encoded = false;
    for line in head.split("\r\n") {
        // A line that goes on, or a lone end of line, is read in different ways.
        if line.starts_with([' ', '\t']) || line.contains(['\r', '\n', '\0']) {
            return Err(bad("has a line that goes on, or a control character"));
        }
        let Some((name, value)) = line.split_once(':') else { return Err(bad("has a line without a colon")) };
        if name.eq_ignore_ascii_case("content-disposition") {
            if found.is_some() {
                return Err(bad("has two content dispositions"));
            }
            found = Some(
                disposition(value.trim())
                    .ok_or_else(|| bad("has no content disposition `form-data` with one plain name"))?,
            );
        }
        // Parts are passed on as they are, but a model's name in Base64 would be another for the upstream.
        encoded |= name.eq_ignore_ascii_case("content-transfer-encoding")
            && !["7bit", "8bit", "binary"].iter().any(|plain| value.trim().eq_ignore_ascii_case(plain));
    }
    let found = found.ok_or_else(|| bad("has no content disposition"))?;
    if encoded {
        let text = format!("`{}` has a transfer encoding; send it as it is", found.name);
        return Err(Invalid::field(found.name, text));
    }
    Ok(found)
}

fn disposition(value: &str) -> Option<Head> {
    let (kind, params) = value.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return None;
    }
    let (mut name, mut is_file) = (None, false);
    for (param, value) in Params(params) {
        let value = value?;
        if param.eq_ignore_ascii_case("name") {
            if name.replace(value).is_some() {
                return None;
            }
        } else if param.eq_ignore_ascii_case("filename") || param.eq_ignore_ascii_case("filename*") {
            is_file = true;
        } else if param.eq_ignore_ascii_case("name*") {
            return None;
        }
    }
    let name: String = name?;
    // Escapes in names are read in different ways; no field of ours has any.
    let plain = (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.chars().any(|c| c.is_control() || matches!(c, '\\' | '"' | '%'));
    plain.then_some(Head { name, is_file })
}

/// Parameters of a header: names, and values, `None` for what is malformed.
struct Params<'a>(&'a str);

impl Iterator for Params<'_> {
    type Item = (String, Option<String>);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.trim_start_matches([' ', '\t', ';']);
        if rest.is_empty() {
            return None;
        }
        let Some((name, rest)) = rest.split_once('=') else {
            self.0 = "";
            return Some((rest.to_owned(), None));
        };
        let name = name.trim().to_owned();
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut escaped = false;
            let end = quoted.bytes().position(|byte| {
                let ends = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                ends
            });
            let Some(end) = end else {
                self.0 = "";
                return Some((name, None));
            };
            let behind = quoted[end + 1..].trim_start();
            self.0 = behind;
            let sound = behind.is_empty() || behind.starts_with(';');
            return Some((name, Some(quoted[..end].to_owned()).filter(|_| sound)));
        }
        let end = rest.find(';').unwrap_or(rest.len());
        self.0 = &rest[end..];
        Some((name, Some(rest[..end].trim().to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c9_boundaries_are_those_of_the_standard() {
        let check = |content_type: &str, expected: Option<&str>| {
            assert_eq!(boundary(content_type).ok().as_deref(), expected, "{content_type}");
        };
        check("multipart/form-data; boundary=abc", Some("abc"));
        check("Multipart/Form-Data;charset=utf-8;  Boundary=\"a b'c\"", Some("a b'c"));
        check("multipart/form-data", None);
        check("multipart/form-data; boundary=", None);
        check("multipart/form-data; boundary=\"\"", None);
        check("multipart/form-data; boundary=a; boundary=b", None);
        check("multipart/form-data; boundary=\"a", None);
        check("multipart/form-data; boundary=a\"b", None);
        check("multipart/form-data; boundary=é", None);
        check("application/json", None);
        check(&format!("multipart/form-data; boundary={}", "x".repeat(70)), Some(&"x".repeat(70)));
        check(&format!("multipart/form-data; boundary={}", "x".repeat(71)), None);
    }

    #[test]
    fn c4_heads_that_parsers_read_in_different_ways_are_refused() {
        let check = |head: &str, expected: Option<(&str, bool)>| {
            let got = read(head.as_bytes()).ok().map(|head| (head.name, head.is_file));
            assert_eq!(got, expected.map(|(name, file)| (name.to_owned(), file)), "{head}");
        };
        check("Content-Disposition: form-data; name=\"model\"", Some(("model", false)));
        check("content-disposition:form-data;name=model", Some(("model", false)));
        check(
            "Content-Type: audio/wav\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a;\\\".wav\"",
            Some(("file", true)),
        );
        check("Content-Disposition: form-data; name=\"file\"; filename*=UTF-8''a.wav", Some(("file", true)));
        for bad in [
            "",
            "Content-Type: text/plain",
            "Content-Disposition: form-data",
            "Content-Disposition: form-data; name=\"\"",
            "Content-Disposition: attachment; name=\"model\"",
            "Content-Disposition: form-data; name=\"model\"; name=\"other\"",
            "Content-Disposition: form-data; name=\"mo\\\"del\"",
            "Content-Disposition: form-data; name=\"mo%22del\"",
            "Content-Disposition: form-data; name*=UTF-8''model",
            "Content-Disposition: form-data; name=\"model",
            "Content-Disposition: form-data; name=\"model\"x",
            "Content-Disposition: form-data;\r\n name=\"model\"",
            "Content-Disposition: form-data; name=\"model\"\nX: y",
            "Content-Disposition: form-data; name=\"a\"\r\nContent-Disposition: form-data; name=\"b\"",
            "Content-Disposition: form-data; name=\"model\"\r\nContent-Transfer-Encoding: base64",
            "no colon",
        ] {
            check(bad, None);
        }
    }
}
