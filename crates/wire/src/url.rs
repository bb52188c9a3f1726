//! Names as parts of a path.

use std::fmt::Write as _;

/// Puts a name behind `out` as one segment of a path: all that is not unreserved (RFC 3986 §2.3) is percent-encoded, and so
/// are the dots of a name that would mean this or the upper folder.
pub fn segment_into(name: &str, out: &mut String) {
    let dots = matches!(name, "." | "..");
    for byte in name.bytes() {
        if is_unreserved(byte) && !dots {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// A name as one segment of a path.
pub fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    segment_into(name, &mut out);
    out
}

/// Whether a byte stands for itself anywhere in a URL.
pub(crate) const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i8_a_name_never_leaves_its_segment() {
        let check = |name: &str, expected: &str| assert_eq!(segment(name), expected);
        check("gpt-4o_mini.v1~", "gpt-4o_mini.v1~");
        check("../../admin?x=1#y", "..%2F..%2Fadmin%3Fx%3D1%23y");
        check("..", "%2E%2E");
        check(".", "%2E");
        check("a\r\nhost: b", "a%0D%0Ahost%3A%20b");
        check("é%2f", "%C3%A9%252f");
        check(
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.m-v1:0",
            "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.m-v1%3A0",
        );
    }
}
