//! Tables: the columns by name, and Azure's times.

use super::{Format, TraceError};
use crate::workload::Record;

/// Where the columns are.
pub(super) struct Columns {
    format: Format,
    /// Lower case, without spaces and underscores.
    names: Vec<String>,
}

impl Columns {
    /// The columns of a header, if it is one that is known.
    pub(super) fn read(header: &str) -> Option<Self> {
        let plain = |name: &str| name.trim().trim_matches('"').to_lowercase().replace([' ', '_'], "");
        let names: Vec<String> = header.split(',').map(plain).collect();
        let has = |name: &str| names.iter().any(|known| known == name);
        let format = if has("timestamp") && has("contexttokens") && has("generatedtokens") {
            Format::Azure
        } else if has("timestamp") && has("requesttokens") && has("responsetokens") {
            Format::BurstGpt
        } else {
            return None;
        };
        Some(Self { format, names })
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// The field of that column, or nothing if there is no such column.
    pub(super) fn field<'l>(&self, line: &'l str, name: &str) -> Option<&'l str> {
        let place = self.names.iter().position(|known| known == name)?;
        line.split(',').nth(place).map(|field| field.trim().trim_matches('"'))
    }

    fn required<'l>(&self, line: &'l str, name: &str) -> Result<&'l str, TraceError> {
        let missing = || TraceError::new(name.to_owned(), "is missing");
        self.field(line, name).filter(|field| !field.is_empty()).ok_or_else(missing)
    }

    pub(super) fn tokens(&self, line: &str, name: &str) -> Result<u32, TraceError> {
        let field = self.required(line, name)?;
        // Some tables have whole numbers with a point.
        let number = field.strip_suffix(".0").unwrap_or(field);
        number.parse().map_err(|_| {
            TraceError::new(name.to_owned(), format!("`{}` is no number of tokens", shown(field)))
        })
    }

    pub(super) fn seconds(&self, line: &str, name: &str) -> Result<f64, TraceError> {
        let field = self.required(line, name)?;
        let seconds = field.parse().ok().filter(|seconds: &f64| (0.0..1e10).contains(seconds));
        seconds.ok_or_else(|| {
            TraceError::new(name.to_owned(), format!("`{}` is no time in seconds", shown(field)))
        })
    }

    pub(super) fn azure(&self, line: &[u8]) -> Result<Record, TraceError> {
        let line = utf8(line)?;
        let at = self.required(line, "timestamp")?;
        let at_ns = date_ns(at).ok_or_else(|| {
            let what = "is no time such as 2023-11-16 18:17:03.9799600";
            TraceError::new("timestamp".to_owned(), format!("`{}` {what}", shown(at)))
        })?;
        Ok(Record {
            at_ns,
            tokens_in: self.tokens(line, "contexttokens")?,
            tokens_out: self.tokens(line, "generatedtokens")?,
            ..Record::default()
        })
    }
}

pub(super) fn utf8(line: &[u8]) -> Result<&str, TraceError> {
    str::from_utf8(line)
        .map_err(|error| TraceError::new((error.valid_up_to() + 1).to_string(), "is no UTF-8"))
}

/// As much of a field as helps.
fn shown(field: &str) -> &str {
    &field[..field.floor_char_boundary(40)]
}

/// A date with time as nanoseconds since 1970. What stands behind the fraction, such as a zone, is the same for a whole
/// trace and not looked at.
fn date_ns(text: &str) -> Option<u64> {
    let (date, time) = text.split_once([' ', 'T'])?;
    let mut numbers = date.split('-').map(str::parse::<i64>);
    let (year, month, day) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    let time = time.split(['+', 'Z']).next()?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut numbers = clock.split(':').map(str::parse::<u64>);
    let (hour, minute, second) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    let fits = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !fits || hour > 23 || minute > 59 || second > 60 || !fraction.bytes().all(|byte| byte.is_ascii_digit())
    {
        return None;
    }
    let nanos: u64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    // Days since 1970 by years that begin in March (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let from_march = if month > 2 { year } else { year - 1 };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days =
        from_march * 365 + from_march / 4 - from_march / 100 + from_march / 400 + day_of_year - 719_468;
    let seconds = u64::try_from(days).ok()? * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(seconds * 1_000_000_000 + nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_nanoseconds() {
        assert_eq!(date_ns("1970-01-02 00:00:01.5"), Some(86_401_500_000_000));
        assert_eq!(date_ns("2023-11-16 18:17:03.9799600"), Some(1_700_158_623_979_960_000));
        assert_eq!(date_ns("2024-05-10 00:00:00.009930+00:00"), Some(1_715_299_200_009_930_000));
        assert_eq!(date_ns("2024-02-29T12:00:00Z"), Some(1_709_208_000_000_000_000));
        for bad in [
            "",
            "yesterday",
            "2023-13-01 00:00:00",
            "2023-01-01",
            "2023-01-01 25:00:00",
            "2023-01-01 00:00:0x",
        ] {
            assert_eq!(date_ns(bad), None, "{bad}");
        }
    }
}
