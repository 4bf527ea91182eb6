//! How many jobs may be done, and how fast, over all databases.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::tools::threads::sleep;
use crate::tools::time::Instant;

/// A stop is noticed this soon.
const LOOK: Duration = Duration::from_millis(50);

/// What the databases' parts of one operation share.
pub(super) struct Pace {
    begun: Instant,
    rate: Option<u32>,
    /// How many jobs were looked at that there was something to do about.
    met: AtomicU64,
    /// How many may still be done; `u64::MAX` without a limit.
    left: AtomicU64,
    stopped: AtomicBool,
}

impl Pace {
    pub(super) fn new(rate: Option<u32>, left: Option<u64>) -> Self {
        Self {
            begun: Instant::now(),
            rate,
            met: AtomicU64::new(0),
            left: AtomicU64::new(left.unwrap_or(u64::MAX)),
            stopped: AtomicBool::new(false),
        }
    }

    /// The most that one slice takes: a quarter of a second's, so that the rate is even.
    pub(super) fn slice(&self, most: u32) -> u32 {
        self.rate.map_or(most, |rate| (rate / 4).clamp(1, most))
    }

    /// Takes so many of those that may be done, or as many as are left.
    pub(super) fn take(&self, wanted: u64) -> u64 {
        let mut taken = 0;
        let take = |left: u64| {
            taken = wanted.min(left);
            Some(if left == u64::MAX { left } else { left - taken })
        };
        // It always changes something, if only to the same.
        let _ = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        taken
    }

    /// Gives back what was not done after all.
    pub(super) fn give_back(&self, unused: u64) {
        let give = |left: u64| Some(if left == u64::MAX { left } else { left + unused });
        let _ = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, give);
    }

    /// Waits until so many more were not too fast.
    pub(super) fn wait(&self, met: u64) {
        let all = self.met.fetch_add(met, Ordering::AcqRel) + met;
        let Some(rate) = self.rate else { return };
        let due = self.begun + Duration::from_secs_f64(all as f64 / f64::from(rate));
        while !self.is_stopped() {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            sleep(left.min(LOOK));
        }
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_taken_than_may_be_done() {
        let pace = Pace::new(None, Some(10));
        assert_eq!((pace.take(4), pace.take(4)), (4, 4));
        pace.give_back(1);
        assert_eq!((pace.take(4), pace.take(4)), (3, 0));
        let free = Pace::new(None, None);
        assert_eq!((free.take(1_000), free.take(u64::MAX)), (1_000, u64::MAX));
    }

    #[test]
    fn slices_are_small_where_the_rate_is() {
        assert_eq!(Pace::new(None, None).slice(500), 500);
        for (rate, slice) in [(1, 1), (100, 25), (100_000, 500)] {
            assert_eq!(Pace::new(Some(rate), None).slice(500), slice);
        }
    }

    #[test]
    fn who_stops_does_not_wait() {
        let pace = Pace::new(Some(1), None);
        pace.stop();
        let begun = Instant::now();
        pace.wait(3_600);
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}
