//! Times and spans of time as they are written in a filter.

use chrono::{DateTime, Months, NaiveDate, NaiveDateTime, TimeDelta, Utc};

/// From this instant on, up to that one: `2026-11-27` is a day, `2026-11-27T10:00` a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(super) from: DateTime<Utc>,
    pub(super) to: DateTime<Utc>,
}

/// Reads an instant, in UTC unless it says otherwise.
pub(super) fn instant(text: &str, now: DateTime<Utc>) -> Option<Written> {
    let lasting = |from: DateTime<Utc>, unit: TimeDelta| {
        Some(Written { from, to: from.checked_add_signed(unit)? })
    };
    if text.eq_ignore_ascii_case("now") {
        return lasting(now, TimeDelta::microseconds(1));
    }
    if let Ok(month) = NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d") {
        let from = month.and_time(chrono::NaiveTime::MIN).and_utc();
        return Some(Written { from, to: from.checked_add_months(Months::new(1))? });
    }
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return lasting(day.and_time(chrono::NaiveTime::MIN).and_utc(), TimeDelta::days(1));
    }
    let text = text.replace(' ', "T");
    if let Ok(at) = DateTime::parse_from_rfc3339(&text) {
        return lasting(at.with_timezone(&Utc), precision(&text));
    }
    // Without an offset, with or without seconds and their fraction, and with an offset but without seconds.
    let plain = text.strip_suffix(['Z', 'z']).unwrap_or(&text);
    let formats =
        [("%Y-%m-%dT%H:%M", TimeDelta::minutes(1)), ("%Y-%m-%dT%H:%M:%S%.f", precision(plain))];
    for (format, unit) in formats {
        if let Ok(at) = NaiveDateTime::parse_from_str(plain, format) {
            return lasting(at.and_utc(), unit);
        }
    }
    let at = DateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M%:z").ok()?;
    lasting(at.with_timezone(&Utc), TimeDelta::minutes(1))
}

/// A second, or with a fraction a microsecond.
fn precision(text: &str) -> TimeDelta {
    if text.contains('.') { TimeDelta::microseconds(1) } else { TimeDelta::seconds(1) }
}

/// Units, the longest name of each letter first.
const UNITS: &[(&str, i64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

/// Reads a span of time, such as `10m` or `1h30m`.
pub(super) fn span(text: &str) -> Option<TimeDelta> {
    let (mut rest, mut all) = (text, TimeDelta::zero());
    while !rest.is_empty() {
        let digits = rest.find(|one: char| !one.is_ascii_digit())?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|one: char| !one.is_ascii_lowercase()).unwrap_or(behind.len());
        let (name, next) = behind.split_at(letters);
        let (_, millis) = UNITS.iter().find(|(unit, _)| *unit == name)?;
        let part = number.parse::<i64>().ok()?.checked_mul(*millis)?;
        all = all.checked_add(&TimeDelta::try_milliseconds(part)?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("is one")
    }

    #[test]
    fn an_instant_lasts_as_long_as_the_unit_it_is_written_in() {
        let now = at("2026-11-30T12:00:00Z");
        for (text, from, to) in [
            ("2026-11", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"),
            ("2026-11-27", "2026-11-27T00:00:00Z", "2026-11-28T00:00:00Z"),
            ("2026-11-27T10:05", "2026-11-27T10:05:00Z", "2026-11-27T10:06:00Z"),
            ("2026-11-27 10:05", "2026-11-27T10:05:00Z", "2026-11-27T10:06:00Z"),
            ("2026-11-27T10:05Z", "2026-11-27T10:05:00Z", "2026-11-27T10:06:00Z"),
            ("2026-11-27T10:05+02:00", "2026-11-27T08:05:00Z", "2026-11-27T08:06:00Z"),
            ("2026-11-27T10:05:06", "2026-11-27T10:05:06Z", "2026-11-27T10:05:07Z"),
            ("2026-11-27T10:05:06+01:00", "2026-11-27T09:05:06Z", "2026-11-27T09:05:07Z"),
            ("2026-11-27T10:05:06.5Z", "2026-11-27T10:05:06.5Z", "2026-11-27T10:05:06.500001Z"),
            ("now", "2026-11-30T12:00:00Z", "2026-11-30T12:00:00.000001Z"),
        ] {
            let expected = Written { from: at(from), to: at(to) };
            assert_eq!(instant(text, now), Some(expected), "{text}");
        }
        for text in
            ["", "yesterday", "2026-13-01", "10:00", "2026-02-30", "20261127", "99999999-01-01"]
        {
            assert_eq!(instant(text, now), None, "{text}");
        }
    }

    #[test]
    fn a_span_is_a_sum_of_numbers_with_units() {
        for (text, seconds) in
            [("10m", 600), ("1h30m", 5_400), ("2d", 172_800), ("1w", 604_800), ("0s", 0)]
        {
            assert_eq!(span(text), Some(TimeDelta::seconds(seconds)), "{text}");
        }
        assert_eq!(span("250ms"), Some(TimeDelta::milliseconds(250)));
        for text in [
            "",
            "10",
            "m",
            "10 m",
            "1y",
            "-1s",
            "1.5h",
            "99999999999999999999s",
            "9223372036854775807w",
        ] {
            assert_eq!(span(text), None, "{text}");
        }
    }
}
