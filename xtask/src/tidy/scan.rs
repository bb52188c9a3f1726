//! A reader of Rust sources that knows comments, literals and braces, and nothing else.
//!
//! It serves to count: `rustfmt` has been over every file, so what it finds has one shape.

/// A function with a body, a trait, or a test module.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Its name.
    pub(super) name: String,
    /// The line of its keyword, counted from 1.
    pub(super) line: usize,
    /// Lines from the keyword to the closing brace, both included.
    pub(super) lines: usize,
    /// Where the body stands in the masked text, braces included.
    body: (usize, usize),
}

/// The source with comments and the inside of literals replaced by spaces; line breaks and length stay.
pub(super) fn mask(source: &str) -> String {
    let mut out = source.as_bytes().to_vec();
    let bytes = source.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(bytes, at);
        if end == at {
            at += 1;
            continue;
        }
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Every function with a body.
pub(super) fn functions(masked: &str) -> Vec<Item> {
    items(masked, "fn")
}

/// Every trait.
pub(super) fn traits(masked: &str) -> Vec<Item> {
    items(masked, "trait")
}

/// The names of the methods of `of` that have no default.
pub(super) fn required_methods(masked: &str, of: &Item) -> Vec<String> {
    let body = &masked[of.body.0 + 1..of.body.1 - 1];
    keywords(body, "fn")
        .filter(|at| braces(&body[..*at]) == 0)
        .filter(|at| body_start(body, *at).is_none())
        .map(|at| name_after(body, at + 2))
        .collect()
}

/// How many lines stand outside `#[cfg(test)]` modules.
pub(super) fn lines_without_tests(masked: &str) -> usize {
    let in_tests: usize = test_modules(masked).iter().map(|module| module.lines).sum();
    masked.lines().count() - in_tests
}

/// The `#[cfg(test)]` modules with a body, attribute included.
pub(super) fn test_modules(masked: &str) -> Vec<Item> {
    const ATTRIBUTE: &str = "#[cfg(test)]";
    let mut found: Vec<Item> = Vec::new();
    for (at, _) in masked.match_indices(ATTRIBUTE) {
        let rest = &masked[at + ATTRIBUTE.len()..];
        let is_module = rest.trim_start().starts_with("mod ");
        let Some(open) = is_module.then(|| body_start(masked, at + ATTRIBUTE.len())).flatten() else {
            continue;
        };
        found.push(item(masked, "tests".to_owned(), at, open));
    }
    found
}

/// Whether line `line` stands in one of `modules`.
pub(super) fn is_within(modules: &[Item], line: usize) -> bool {
    modules.iter().any(|module| (module.line..module.line + module.lines).contains(&line))
}

fn items(masked: &str, keyword: &str) -> Vec<Item> {
    keywords(masked, keyword)
        .filter_map(|at| {
            let name = name_after(masked, at + keyword.len());
            // `fn(u8) -> u8` is a type.
            let open = (!name.is_empty()).then(|| body_start(masked, at)).flatten()?;
            Some(item(masked, name, at, open))
        })
        .collect()
}

fn item(masked: &str, name: String, at: usize, open: usize) -> Item {
    let close = body_end(masked, open);
    Item {
        name,
        line: masked[..at].matches('\n').count() + 1,
        lines: masked[at..close].matches('\n').count() + 1,
        body: (open, close),
    }
}

fn keywords<'a>(text: &'a str, keyword: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(keyword).map(|(at, _)| at).filter(move |at| {
        let before = text[..*at].chars().next_back();
        let after = text[at + keyword.len()..].chars().next();
        before.is_none_or(|c| !is_name(c) && c != '$') && after.is_some_and(char::is_whitespace)
    })
}

fn name_after(text: &str, at: usize) -> String {
    text[at..].trim_start().chars().take_while(|c| is_name(*c)).collect()
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The first `{` after `at` outside parentheses and brackets, unless a `;` comes before it.
fn body_start(masked: &str, at: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (offset, c) in masked[at..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 => return Some(at + offset),
            ';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Just behind the brace that closes the one at `open`.
fn body_end(masked: &str, open: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, c) in masked[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset + 1;
        }
    }
    masked.len()
}

fn braces(text: &str) -> i32 {
    text.chars().map(|c| i32::from(c == '{') - i32::from(c == '}')).sum()
}

/// The end of the comment or literal that begins at `at`; `at` itself if none does.
fn literal_end(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    match rest {
        [b'/', b'/', ..] => at + rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => block_comment_end(bytes, at),
        [b'"', ..] => string_end(bytes, at),
        [b'r', b'"' | b'#', ..] if !continues_name(bytes, at) => raw_string_end(bytes, at),
        [b'\'', ..] => char_end(bytes, at),
        _ => at,
    }
}

/// Whether the byte at `at` is in the middle of a name; the `b` and `c` of byte and C strings are not one.
fn continues_name(bytes: &[u8], at: usize) -> bool {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match bytes[..at] {
        [] => false,
        [.., before, b'b' | b'c'] => is_name(before),
        [.., before] => is_name(before) && !matches!(before, b'b' | b'c'),
    }
}

fn block_comment_end(bytes: &[u8], from: usize) -> usize {
    let mut depth = 0;
    let mut at = from;
    while at < bytes.len() {
        match bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn raw_string_end(bytes: &[u8], from: usize) -> usize {
    let hashes = bytes[from + 1..].iter().take_while(|b| **b == b'#').count();
    let open = from + 1 + hashes;
    // `r#name` is a name.
    if bytes.get(open) != Some(&b'"') {
        return from;
    }
    let closing: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let found = bytes[open + 1..].windows(closing.len()).position(|window| window == closing);
    found.map_or(bytes.len(), |offset| open + 1 + offset + closing.len())
}

/// A character has its quote one (escaped: at most ten) characters later; a lifetime has not.
fn char_end(bytes: &[u8], from: usize) -> usize {
    if bytes.get(from + 1) == Some(&b'\\') {
        let quote = bytes[from + 2..].iter().skip(1).take(10).position(|b| *b == b'\'');
        return quote.map_or(from, |offset| from + 2 + 1 + offset + 1);
    }
    let Ok(rest) = std::str::from_utf8(&bytes[from + 1..(from + 6).min(bytes.len())]).or_else(|error| {
        // The window may end within a character.
        std::str::from_utf8(&bytes[from + 1..from + 1 + error.valid_up_to()])
    }) else {
        return from;
    };
    let mut chars = rest.chars();
    match (chars.next(), chars.next()) {
        (Some(c), Some('\'')) => from + 1 + c.len_utf8() + 1,
        _ => from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_mask(source: &str, expected: &str) {
        assert_eq!(mask(source), expected, "{source}");
    }

    #[test]
    fn comments_and_literals_are_masked() {
        check_mask("a // {\nb", "a     \nb");
        check_mask("a /* { /* } */ */ b", "a                 b");
        check_mask(r#"f("}", x)"#, "f(   , x)");
        check_mask(r#"f("\"}", x)"#, "f(     , x)");
        check_mask("f(r#\"\"}\"#, x)", "f(       , x)");
        check_mask("f(br\"{\\\", x)", "f(b     , x)");
        check_mask("var\"x\"", "var   ");
        check_mask("r#fn()", "r#fn()");
        check_mask("c == '{' || d == '\\'' || e == '\\u{7d}'", "c ==     || d ==      || e ==         ");
        check_mask("'é'x", "    x");
        check_mask("fn f<'a>(x: &'a str, y: &'a str) {}", "fn f<'a>(x: &'a str, y: &'a str) {}");
    }

    #[test]
    fn functions_have_a_name_a_line_and_a_length() {
        let source = "\
pub async fn one(x: [u8; 2]) -> u8 {
    let f: fn(u8) -> u8 = |x| { x };
    f(x[0])
}
trait T {
    fn none(&self);
    fn some(&self) { \"}\"; }
}
";
        let found: Vec<_> = functions(&mask(source)).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, [("one".to_owned(), 1, 4), ("some".to_owned(), 7, 1)]);
    }

    #[test]
    fn only_methods_without_a_default_are_required() {
        let source = "
pub trait Seam: Send {
    fn one(&self) -> [u8; 4];
    fn with_default(&self) -> u8 { fn inner() -> u8 { 1 } inner() }
    // fn comment(&self);
    fn two<F: Fn(u8)>(&self, f: F) where F: Send;
}
fn outside() { trait Small { fn three(); } }
";
        let masked = mask(source);
        let found: Vec<_> = traits(&masked).iter().map(|t| required_methods(&masked, t)).collect();
        assert_eq!(found, [vec!["one", "two"], vec!["three"]]);
    }

    #[test]
    fn test_modules_do_not_count() {
        let source = "\
fn f() {}
#[cfg(test)]
mod tests {
    #[test]
    fn t() {}
}
fn g() {}
#[cfg(test)]
mod elsewhere;
#[cfg(test)]
fn helper() {}
";
        let masked = mask(source);
        assert_eq!(lines_without_tests(&masked), 6);
        let modules = test_modules(&masked);
        assert!(is_within(&modules, 5) && !is_within(&modules, 7) && !is_within(&modules, 1));
    }
}
