//! Halves of surrogate pairs, which JSON can spell and no text can hold.

use std::fmt::Write as _;

use memchr::memmem;

use super::{JsonError, Kind, Piece, Scanner, Text};

/// The path of the first string in `text` with half a surrogate pair in it, such as `messages[0].content`; `None` if there
/// is none. O(n), and one search for `\ud` where there is nothing of the kind.
pub fn lone_surrogate(text: &str, depth_max: usize) -> Option<String> {
    let may = |escape: &str| memmem::find(text.as_bytes(), escape.as_bytes()).is_some();
    if !may("\\ud") && !may("\\uD") {
        return None;
    }
    let mut path = String::new();
    let found = find(&mut Scanner::new(text, depth_max), &mut path);
    found.unwrap_or(false).then_some(path)
}

fn is_broken(text: &Text<'_>) -> bool {
    let mut broken = false;
    text.pieces(|piece| {
        broken = piece == Piece::LoneSurrogate;
        !broken
    });
    broken
}

/// Whether there is one in the next value; its path is then behind `path`. The scanner bounds how deep this calls itself.
fn find(scanner: &mut Scanner<'_>, path: &mut String) -> Result<bool, JsonError> {
    let length = path.len();
    match scanner.peek()? {
        Kind::String => return Ok(is_broken(&scanner.string()?)),
        Kind::Array => {
            let (mut walk, mut index) = (scanner.array()?, 0_u64);
            while scanner.next_element(&mut walk)? {
                let _ = write!(path, "[{index}]");
                if find(scanner, path)? {
                    return Ok(true);
                }
                path.truncate(length);
                index += 1;
            }
        }
        Kind::Object => {
            let mut walk = scanner.object()?;
            while let Some(key) = scanner.next_key(&mut walk)? {
                // A name that no text can hold is told by where it stands.
                if is_broken(&key) {
                    return Ok(true);
                }
                if length > 0 {
                    path.push('.');
                }
                path.push_str(&key.decode().unwrap_or_default());
                if find(scanner, path)? {
                    return Ok(true);
                }
                path.truncate(length);
            }
        }
        Kind::Null | Kind::Bool | Kind::Number => drop(scanner.skip_value()?),
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c5_half_a_pair_is_found_by_its_place() {
        for (text, path) in [
            (r#"{"messages":[{"content":"ok"},{"content":"a\ud83db"}]}"#, Some("messages[1].content")),
            (r#"{"a":["\uDC00"]}"#, Some("a[0]")),
            (r#"{"a":{"b\ud800":1}}"#, Some("a")),
            (r#"{"a":"\ud83d\ude00","b":"\\ud800"}"#, None),
            (r#"{"a":"plain"}"#, None),
        ] {
            assert_eq!(lone_surrogate(text, 16).as_deref(), path, "{text}");
        }
        assert_eq!(lone_surrogate(r#"[[["\ud800"]]]"#, 2), None, "what is too deep is refused for that");
    }
}
