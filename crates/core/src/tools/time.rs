//! The clocks.

use chrono::{DateTime, Utc};

pub(crate) use std::time::{Instant, SystemTime};

/// The time of day, which may be set.
pub(crate) fn utc_now() -> DateTime<Utc> {
    Utc::now()
}
