//! Dates as seconds since the Unix epoch, and back.

/// A moment by the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// The year.
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 59.
    pub second: u32,
}

/// Days from the first of March of the year 0 to the first of January 1970.
const DAYS_TO_1970: i64 = 719_468;
/// Days in 400 years, after which the calendar repeats.
const DAYS_400_YEARS: i64 = 146_097;

impl Date {
    /// The date of so many seconds since 1970.
    pub fn of_unix_s(unix_s: u64) -> Self {
        let (days, of_day) = ((unix_s / 86_400) as i64, unix_s % 86_400);
        // Years are counted from March, so that the leap day comes last.
        let days = days + DAYS_TO_1970;
        let (era, of_era) = (days.div_euclid(DAYS_400_YEARS), days.rem_euclid(DAYS_400_YEARS));
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let march_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Self {
            year: era * 400 + year + i64::from(month <= 2),
            month: month as u32,
            day: day as u32,
            hour: (of_day / 3_600) as u32,
            minute: (of_day / 60 % 60) as u32,
            second: (of_day % 60) as u32,
        }
    }

    /// Seconds since 1970; `None` before that, or if there is no such date.
    fn unix_s(self) -> Option<u64> {
        let in_range = (1970..=9999).contains(&self.year)
            && (1..=12).contains(&self.month)
            && (1..=31).contains(&self.day)
            && self.hour < 24
            && self.minute < 60
            // A leap second counts as the first of the next minute.
            && self.second <= 60;
        if !in_range {
            return None;
        }
        let year = self.year - i64::from(self.month <= 2);
        let from_march = i64::from((self.month + 9) % 12);
        let days = year * 365 + year / 4 - year / 100
            + year / 400
            + (153 * from_march + 2) / 5
            + i64::from(self.day)
            - 1
            - DAYS_TO_1970;
        let of_day = u64::from(self.hour) * 3_600 + u64::from(self.minute) * 60 + u64::from(self.second);
        Some(u64::try_from(days).ok()? * 86_400 + of_day)
    }
}

/// `2024-01-31T23:59:59.5+02:00` (RFC 3339) as milliseconds since 1970.
pub fn rfc3339_ms(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let digits = |from: usize, to: usize| -> Option<u32> {
        let part = bytes.get(from..to)?;
        part.iter()
            .try_fold(0, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u32::from(digit - b'0')))
    };
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| bytes.get(*at) != Some(mark))
        || !matches!(bytes.get(10), Some(b'T' | b't' | b' '))
    {
        return None;
    }
    let date = Date {
        year: i64::from(digits(0, 4)?),
        month: digits(5, 7)?,
        day: digits(8, 10)?,
        hour: digits(11, 13)?,
        minute: digits(14, 16)?,
        second: digits(17, 19)?,
    };
    let mut at = 19;
    let mut ms = 0;
    if bytes.get(at) == Some(&b'.') {
        let from = at + 1;
        at = from + bytes.get(from..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
        for place in 0..3 {
            ms = ms * 10 + digits(from + place, (from + place + 1).min(at)).unwrap_or(0);
        }
    }
    let offset_s = match bytes.get(at)? {
        b'Z' | b'z' if bytes.len() == at + 1 => 0,
        sign @ (b'+' | b'-') if bytes.len() == at + 6 && bytes.get(at + 3) == Some(&b':') => {
            let (hours, minutes) = (digits(at + 1, at + 3)?, digits(at + 4, at + 6)?);
            let offset = i64::from(hours * 3_600 + minutes * 60);
            if *sign == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    let unix_s = date.unix_s()?.checked_add_signed(-offset_s)?;
    Some(unix_s * 1_000 + u64::from(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_go_there_and_back() {
        for unix_s in [0, 86_399, 951_782_400, 1_440_938_160, 1_709_164_800, 4_102_444_799, 253_402_300_799] {
            assert_eq!(Date::of_unix_s(unix_s).unix_s(), Some(unix_s));
        }
        let date = Date::of_unix_s(1_440_938_160);
        assert_eq!((date.year, date.month, date.day, date.hour, date.minute), (2015, 8, 30, 12, 36));
        let leap = Date::of_unix_s(1_709_164_800);
        assert_eq!((leap.year, leap.month, leap.day), (2024, 2, 29));
    }

    #[test]
    fn moments_of_rfc_3339() {
        let check = |text: &str, expected| assert_eq!(rfc3339_ms(text), expected, "{text}");
        check("1970-01-01T00:00:01Z", Some(1_000));
        check("2024-02-29T00:00:00Z", Some(1_709_164_800_000));
        check("2024-02-29T00:00:00.25+00:00", Some(1_709_164_800_250));
        check("2024-02-29T02:00:00.1239+02:00", Some(1_709_164_800_123));
        check("2024-02-28T19:00:00-05:00", Some(1_709_164_800_000));
        for wrong in [
            "",
            "soon",
            "2024-02-29",
            "2024-02-29T00:00:00",
            "2024-13-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "2024-02-29T24:00:00Z",
            "2024-02-29T00:00:00Zx",
            "2024-02-2éT00:00:00Z",
            "+024-02-29T00:00:00Z",
            "2024-02-29T00:00:00.Z.",
        ] {
            check(wrong, None);
        }
    }
}
