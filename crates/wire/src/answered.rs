//! Which model an answer says it is of: the dated snapshot behind an alias, as the provider names it.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::json::{JsonError, Kind, Scanner};
use crate::openai::usage::ANSWER_DEPTH_MAX;

/// Bytes at the beginning of an answer in which its model is looked for.
const LOOKED_AT_MAX: usize = 16 * 1024;
/// Bytes of a model's name.
const NAME_BYTES_MAX: usize = 256;
/// Objects that have the answer inside: of Responses and Messages streams.
const WITHIN: [&str; 2] = ["response", "message"];

/// The model that the beginning of an answer names, streamed or not; what follows may be missing.
pub fn model_of(beginning: &[u8]) -> Option<String> {
    let looked_at = &beginning[..beginning.len().min(LOOKED_AT_MAX)];
    if let Some(name) = of_first_members(looked_at) {
        return Some(name.to_owned());
    }
    let text = match std::str::from_utf8(looked_at) {
        Ok(text) => text,
        // It may end within a character.
        Err(error) => std::str::from_utf8(&looked_at[..error.valid_up_to()]).ok()?,
    };
    if text.trim_start().starts_with('{') {
        return of_object(text);
    }
    text.lines().filter_map(|line| line.strip_prefix("data:")).find_map(of_object)
}

/// The same where only plain members stand before it in the outermost object, as nearly everywhere: found without reading
/// them. `None` where it has to be looked for.
fn of_first_members(beginning: &[u8]) -> Option<&str> {
    static MODEL: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"model\""));
    // Quotes inside strings are escaped, so this is a whole string.
    let at = MODEL.find(beginning)?;
    let (before, behind) = (&beginning[..at], beginning[at..].strip_prefix(b"\"model\"")?);
    let opened = memchr::memchr3(b'{', b'[', b'}', before).filter(|at| before[*at] == b'{')?;
    let is_outermost = memchr::memchr3(b'{', b'[', b'}', &before[opened + 1..]).is_none();
    let value = behind.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
    let value = &value[..value.len().min(NAME_BYTES_MAX + 1)];
    let name = &value[..memchr::memchr2(b'"', b'\\', value).filter(|end| value[*end] == b'"')?];
    let is_plain = !name.is_empty() && name.iter().all(|byte| matches!(byte, b' '..=b'~'));
    std::str::from_utf8(name).ok().filter(|_| is_outermost && is_plain)
}

fn of_object(text: &str) -> Option<String> {
    let mut found = None;
    // What is cut off is no JSON, and what was found before that is found.
    let _ = look(text, &mut found);
    found.filter(|name| {
        !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
    })
}

fn look(text: &str, found: &mut Option<String>) -> Result<(), JsonError> {
    let mut scanner = Scanner::new(text, ANSWER_DEPTH_MAX);
    let mut members = scanner.object()?;
    while let Some(key) = scanner.next_key(&mut members)? {
        if key.is("model") && scanner.peek()? == Kind::String {
            *found = scanner.string()?.decode().map(std::borrow::Cow::into_owned);
            return Ok(());
        }
        if WITHIN.contains(&key.raw()) && scanner.peek()? == Kind::Object {
            let mut inner = scanner.object()?;
            while let Some(key) = scanner.next_key(&mut inner)? {
                if key.is("model") && scanner.peek()? == Kind::String {
                    *found = scanner.string()?.decode().map(std::borrow::Cow::into_owned);
                    return Ok(());
                }
                scanner.skip_value()?;
            }
            continue;
        }
        scanner.skip_value()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found_where_each_dialect_has_it() {
        for (beginning, expected) in [
            (
                r#"{"id":"x","object":"chat.completion","model":"gpt-4o-2024-08-06","choices":[{"mess"#,
                Some("gpt-4o-2024-08-06"),
            ),
            (
                "data: {\"id\":\"x\",\"model\":\"m-1\",\"choices\":[]}\n\ndata: {\"model\":\"m-2\"}\n\n",
                Some("m-1"),
            ),
            (": ping\n\ndata:{\"choices\":[]}\n\ndata:{\"model\":\"m-2\"}\r\n", Some("m-2")),
            (
                "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"i\",\"model\":\"claude-x-20250101\"}}\n\n",
                Some("claude-x-20250101"),
            ),
            (
                "data: {\"type\":\"response.created\",\"response\":{\"usage\":{\"model\":\"no\"},\"model\":\"o-1\"}}\n",
                Some("o-1"),
            ),
            (r#"{"choices":[{"message":{"model":"no"}}],"model":"last"}"#, Some("last")),
            (r#"{"choices":[{"message":{"model":"no"}}]}"#, None),
            (r#"{"model":7}"#, None),
            (r#"{"model":""}"#, None),
            (r#"{"model":"a\nb"}"#, None),
            (r#"{"mod"#, None),
            ("data: [DONE]\n\n", None),
            ("", None),
        ] {
            assert_eq!(model_of(beginning.as_bytes()).as_deref(), expected, "{beginning}");
        }
        let cut = r#"{"model":"m","content":"é"#.as_bytes();
        assert_eq!(model_of(&cut[..cut.len() - 1]).as_deref(), Some("m"));
        assert_eq!(model_of(&[0xff, 0xfe]), None);
        let late = format!(r#"{{"content":"{}","model":"m"}}"#, "x".repeat(LOOKED_AT_MAX));
        assert_eq!(model_of(late.as_bytes()), None, "it is not looked for without end");
    }
}
