//! When a limit is whole again, in all spellings.

use crate::calendar::rfc3339_ms;

/// A number of seconds from here on is a moment, not a span: ten years.
const SPAN_S_MAX: f64 = 315_360_000.0;
/// A number from here on counts milliseconds since 1970, not seconds.
const UNIX_MS_MIN: f64 = 100_000_000_000.0;

/// The time until a reset, in milliseconds: a moment of RFC 3339, a duration such as `1m30.5s` or `20ms`, seconds, or a Unix
/// time in seconds or milliseconds. A moment that has passed is 0.
pub(super) fn reset_ms(value: &str, now_unix_ms: u64) -> Option<u64> {
    let value = value.trim();
    if let Some(moment) = rfc3339_ms(value) {
        return Some(moment.saturating_sub(now_unix_ms));
    }
    if value.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        if let Ok(number) = value.parse::<f64>() {
            return of_number(number, now_unix_ms);
        }
        return span_ms(value);
    }
    None
}

fn of_number(number: f64, now_unix_ms: u64) -> Option<u64> {
    if !number.is_finite() {
        return None;
    }
    if number >= UNIX_MS_MIN {
        return Some((number as u64).saturating_sub(now_unix_ms));
    }
    if number >= SPAN_S_MAX {
        return Some(((number * 1_000.0) as u64).saturating_sub(now_unix_ms));
    }
    Some((number * 1_000.0).round() as u64)
}

/// `1d2h3m4.5s`, `20ms`, `150us`: numbers with units, nothing else.
fn span_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut sum_ms = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters =
            rest.find(|character: char| character.is_ascii_digit() || character == '.').unwrap_or(rest.len());
        let unit_ms = match &rest[..letters] {
            "d" => 86_400_000.0,
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1_000.0,
            "ms" => 1.0,
            "us" | "µs" | "μs" => 0.001,
            "ns" => 0.000_001,
            _ => return None,
        };
        sum_ms += number * unit_ms;
        rest = &rest[letters..];
    }
    sum_ms.is_finite().then_some(sum_ms.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_in_all_spellings() {
        const NOW: u64 = 1_700_000_000_000;
        let check = |value: &str, expected| assert_eq!(reset_ms(value, NOW), expected, "{value}");
        check("1s", Some(1_000));
        check("6m0s", Some(360_000));
        check("1m30.5s", Some(90_500));
        check("20ms", Some(20));
        check("1h2m3s4ms", Some(3_723_004));
        check("1d", Some(86_400_000));
        check("500µs", Some(1));
        check(" 12 ", Some(12_000));
        check("0.25", Some(250));
        check("0", Some(0));
        check("1700000060", Some(60_000));
        check("1700000060.5", Some(60_500));
        check("1700000060000", Some(60_000));
        check("1600000000", Some(0));
        check("2023-11-14T22:13:21Z", Some(1_000));
        check("2020-01-01T00:00:00Z", Some(0));
        for wrong in ["", "s", "1", "1x", "m1", "-1", "1m-3s", "1..2s", "é", "1é", "+5", "inf", "NaN"] {
            if wrong != "1" {
                check(wrong, None);
            }
        }
        check("1e999", None);
    }
}
