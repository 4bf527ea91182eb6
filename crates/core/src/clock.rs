use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::tools::sync::Mutex;
use crate::tools::time::utc_now;

/// A source of the current time, for the in-memory driver and for tests.
///
/// Real databases use their own clock.
pub trait Clock: Send + Sync + 'static {
    /// The current instant.
    fn now(&self) -> DateTime<Utc>;
}

/// The clock of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        utc_now()
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct SettableClock {
    now: Mutex<DateTime<Utc>>,
}

impl Default for SettableClock {
    fn default() -> Self {
        Self { now: Mutex::new(utc_now()) }
    }
}

impl SettableClock {
    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        *self.now.lock() += by;
    }
}

impl Clock for SettableClock {
    fn now(&self) -> DateTime<Utc> {
        *self.now.lock()
    }
}
