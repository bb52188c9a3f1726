//! Escapes of strings and templates, as the language has them.

/// A string with its escapes put in.
pub(super) fn unescape(raw: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let Some(escape) = after.chars().next() else { return Err("a string ends within an escape") };
        rest = &after[escape.len_utf8()..];
        match escape {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'v' => out.push('\u{b}'),
            '0' if !rest.starts_with(|next: char| next.is_ascii_digit()) => out.push('\0'),
            '0'..='9' => return Err("an octal escape is not understood; write `\\x` and two digits"),
            'x' => {
                let code = digits(&mut rest, 2).ok_or("an escape is no character")?;
                out.push(char::from_u32(code.into()).ok_or("an escape is no character")?);
            }
            'u' => out.push(code_point(&mut rest).ok_or("an escape is no character")?),
            // The line goes on.
            '\r' => rest = rest.strip_prefix('\n').unwrap_or(rest),
            '\n' | '\u{2028}' | '\u{2029}' => {}
            other => out.push(other),
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// What `\u0041`, `\u{1f600}` or a pair of `\ud83d\ude00` stands for, behind the `u`.
fn code_point(rest: &mut &str) -> Option<char> {
    if let Some(inside) = rest.strip_prefix('{') {
        // No character has more digits; leading zeros are as many as one likes.
        let end = inside.bytes().position(|byte| byte == b'}')?;
        let digits = &inside[..end];
        *rest = &inside[end + 1..];
        let is_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        return char::from_u32(u32::from_str_radix(digits, 16).ok().filter(|_| is_hex)?);
    }
    let first = digits(rest, 4)?;
    if let (0xd800..0xdc00, Some(behind)) = (first, rest.strip_prefix("\\u")) {
        *rest = behind;
        return char::decode_utf16([first, digits(rest, 4)?]).next()?.ok();
    }
    char::from_u32(first.into())
}

/// Hexadecimal digits, so many.
fn digits(rest: &mut &str, count: usize) -> Option<u16> {
    let digits = rest.get(..count).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    *rest = &rest[count..];
    u16::from_str_radix(digits, 16).ok()
}
