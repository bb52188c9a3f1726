//! Single values: read, held to type and range, with errors that name the field.

use crate::json::{Kind, Scanner, Text};
use crate::openai::error::Invalid;

pub(crate) fn wrong_type(param: &str, expected: &str, got: Kind) -> Invalid {
    Invalid::field(param, format!("`{param}` must be {expected}, not {}", got.name()))
}

/// Passes over `null`, which stands for an absent optional field. `true` if it was there.
pub(crate) fn absent(scanner: &mut Scanner<'_>) -> Result<bool, Invalid> {
    let null = scanner.peek()? == Kind::Null;
    if null {
        scanner.null()?;
    }
    Ok(null)
}

pub(crate) fn boolean(scanner: &mut Scanner<'_>, param: &str) -> Result<Option<bool>, Invalid> {
    match scanner.peek()? {
        Kind::Bool => Ok(Some(scanner.boolean()?)),
        Kind::Null => Ok(scanner.null().map(|()| None)?),
        got @ (Kind::Object | Kind::Array | Kind::String | Kind::Number) => {
            Err(wrong_type(param, "a boolean", got))
        }
    }
}

pub(crate) fn text<'a>(scanner: &mut Scanner<'a>, param: &str) -> Result<Option<Text<'a>>, Invalid> {
    match scanner.peek()? {
        Kind::String => Ok(Some(scanner.string()?)),
        Kind::Null => Ok(scanner.null().map(|()| None)?),
        got @ (Kind::Object | Kind::Array | Kind::Number | Kind::Bool) => {
            Err(wrong_type(param, "a string", got))
        }
    }
}

/// A number between `min` and `max`.
pub(crate) fn number(
    scanner: &mut Scanner<'_>,
    param: &str,
    (min, max): (f64, f64),
) -> Result<Option<f64>, Invalid> {
    let Some(written) = written_number(scanner, param, "a number")? else { return Ok(None) };
    let value: f64 = written.parse().unwrap_or(f64::INFINITY);
    if (min..=max).contains(&value) {
        return Ok(Some(value));
    }
    Err(out_of_range(param, written, &format!("{min} to {max}")))
}

/// A whole number between `min` and `max`.
pub(crate) fn count(
    scanner: &mut Scanner<'_>,
    param: &str,
    (min, max): (u64, u64),
) -> Result<Option<u64>, Invalid> {
    let Some(written) = written_number(scanner, param, "an integer")? else { return Ok(None) };
    let value = whole(written).ok_or_else(|| {
        Invalid::field(param, format!("`{param}` must be an integer, not {}", short(written)))
    })?;
    match u64::try_from(value) {
        Ok(value) if (min..=max).contains(&value) => Ok(Some(value)),
        Ok(_) | Err(_) => Err(out_of_range(param, written, &format!("{min} to {max}"))),
    }
}

/// A whole number of either sign.
pub(crate) fn integer(scanner: &mut Scanner<'_>, param: &str) -> Result<Option<i64>, Invalid> {
    let Some(written) = written_number(scanner, param, "an integer")? else { return Ok(None) };
    let value = whole(written).ok_or_else(|| {
        Invalid::field(param, format!("`{param}` must be an integer, not {}", short(written)))
    })?;
    Ok(Some(value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64))
}

fn written_number<'a>(
    scanner: &mut Scanner<'a>,
    param: &str,
    expected: &str,
) -> Result<Option<&'a str>, Invalid> {
    match scanner.peek()? {
        Kind::Number => Ok(Some(scanner.number()?)),
        Kind::Null => Ok(scanner.null().map(|()| None)?),
        got @ (Kind::Object | Kind::Array | Kind::String | Kind::Bool) => {
            Err(wrong_type(param, expected, got))
        }
    }
}

/// A whole number, also when written as `3.0` or `1e3`. Too large for any use: saturated.
fn whole(written: &str) -> Option<i128> {
    if written.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        let limit = if written.starts_with('-') { i128::MIN } else { i128::MAX };
        return Some(written.parse().unwrap_or(limit));
    }
    let value: f64 = written.parse().ok()?;
    (value.is_infinite() || value.fract() == 0.0).then_some(value as i128)
}

fn out_of_range(param: &str, written: &str, allowed: &str) -> Invalid {
    let message = format!("`{param}` is {}, allowed is {allowed}", short(written));
    Invalid::field(param, message)
}

/// A number as the client wrote it, which may be long.
fn short(written: &str) -> &str {
    const NUMBER_BYTES_MAX: usize = 32;
    &written[..written.len().min(NUMBER_BYTES_MAX)]
}
