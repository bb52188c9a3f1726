//! `retry-after`, in either of its forms.

/// How long to wait by a `retry-after` value, in milliseconds: seconds (fractions accepted), or an IMF-fixdate
/// relative to `now_unix_s`. `None` if it is neither; 0 if the date has passed.
pub fn retry_after_ms(value: &str, now_unix_s: u64) -> Option<u64> {
    let value = value.trim();
    if value.starts_with(|first: char| first.is_ascii_digit()) {
        let seconds: f64 = value.parse().ok()?;
        // A float cast saturates, so an absurd value is merely very long.
        return seconds.is_finite().then_some((seconds * 1000.0) as u64);
    }
    let at = unix_seconds(value)?;
    Some(at.saturating_sub(now_unix_s).saturating_mul(1000))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since 1970.
fn unix_seconds(date: &str) -> Option<u64> {
    let (_weekday, rest) = date.split_once(", ")?;
    let mut parts = rest.split(' ');
    let day: u64 = parts.next()?.parse().ok()?;
    let month = month_number(parts.next()?)?;
    let year: u64 = parts.next()?.parse().ok()?;
    let mut clock = parts.next()?.split(':');
    if parts.next()? != "GMT" || parts.next().is_some() {
        return None;
    }
    let mut next = |max: u64| clock.next()?.parse::<u64>().ok().filter(|&value| value <= max);
    let (hour, minute, second) = (next(23)?, next(59)?, next(60)?);
    if clock.next().is_some() || !(1970..=9999).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days_since_1970(year, month, day);
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

fn month_number(name: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    MONTHS.iter().position(|month| *month == name).map(|index| index as u64 + 1)
}

/// Days in the proleptic Gregorian calendar. Years are counted from March, so that the leap day comes last.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    const DAYS_TO_1970: u64 = 719_468;
    let year = if month <= 2 { year - 1 } else { year };
    let months_from_march = (month + 9) % 12;
    let days_before_month = (153 * months_from_march + 2) / 5;
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + days_before_month + day - 1 - DAYS_TO_1970
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_both_forms() {
        let check = |value: &str, now: u64, expected: Option<u64>| {
            assert_eq!(retry_after_ms(value, now), expected, "{value}");
        };
        check("0", 0, Some(0));
        check(" 12 ", 0, Some(12_000));
        check("1.5", 0, Some(1_500));
        check("99999999999999999999", 0, Some(u64::MAX));
        check("-1", 0, None);
        check("soon", 0, None);
        check("", 0, None);
        check("1h", 0, None);
        check("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_770, Some(7_000));
        check("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_800, Some(0));
        check("Thu, 01 Jan 1970 00:00:10 GMT", 0, Some(10_000));
        check("Thu, 29 Feb 2024 00:00:00 GMT", 1_709_164_799, Some(1_000));
        check("Sun, 06 Nov 1994 08:49:37 CET", 0, None);
        check("Sun, 06 Foo 1994 08:49:37 GMT", 0, None);
        check("Sun, 06 Nov 1994 28:49:37 GMT", 0, None);
    }
}
