//! Spans of time on the command line.

use std::time::Duration;

use qudo::Due;
use qudo::admin::read_due;

/// Seconds, with decimals perhaps.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is not a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// For how many seconds something is waited.
pub(crate) fn timeout(text: &str) -> Result<Duration, String> {
    let (least, most) = (Duration::from_millis(10), Duration::from_secs(3_600));
    let span = seconds(text)?;
    if (least..=most).contains(&span) { Ok(span) } else { Err("from 0.01 to 3600".to_owned()) }
}

/// A span with its units, such as `1h30m`.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    match read_due(text) {
        Some(Due::In(span)) if !span.is_zero() => Ok(span),
        _ => Err("expected a span of time, such as 30m, 12h or 1h30m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_of_time_is_asked_for_with_its_unit() {
        assert_eq!(span("1h30m"), Ok(Duration::from_secs(5_400)));
        for wrong in ["0s", "2026-12-01", "soon", ""] {
            assert!(span(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn seconds_may_have_decimals_and_a_timeout_has_bounds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(seconds("86400"), Ok(Duration::from_secs(86_400)));
        for wrong in ["-1", "NaN", "1e30", "1s"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
        assert!(timeout("3600").is_ok() && timeout("0").is_err() && timeout("3601").is_err());
    }
}
