//! How many jobs may be done, and how fast, over all databases.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::tools::sync::Mutex;
use crate::tools::threads::sleep;
use crate::tools::time::Instant;

/// A stop is noticed this soon.
const LOOK: Duration = Duration::from_millis(50);

/// What the databases' parts of one operation share.
pub(super) struct Pace {
    rate: Option<u32>,
    /// When the next slice may be done.
    due: Mutex<Instant>,
    /// `None` without a limit.
    budget: Option<Mutex<Budget>>,
    stopped: AtomicBool,
}

struct Budget {
    /// How many may still be done.
    left: u64,
    /// How many more are tried at this moment, and may turn out not to be done.
    tried: u64,
    /// Of some nobody knows whether they were done.
    unsure: bool,
}

impl Pace {
    pub(super) fn new(rate: Option<u32>, left: Option<u64>) -> Self {
        Self {
            rate,
            due: Mutex::new(Instant::now()),
            budget: left.map(|left| Mutex::new(Budget { left, tried: 0, unsure: false })),
            stopped: AtomicBool::new(false),
        }
    }

    /// The most that one slice takes: a quarter of a second's, so that the rate is even.
    pub(super) fn slice(&self, most: u32) -> u32 {
        self.rate.map_or(most, |rate| (rate / 4).clamp(1, most))
    }

    /// Takes so many of those that may be done, or as many as are left; 0 when all are done. While the other
    /// databases try those that are left it waits, because they may give some back. `None` when it was stopped meanwhile, or
    /// nobody knows whether all are done.
    pub(super) fn take(&self, wanted: u64) -> Option<u64> {
        let Some(budget) = &self.budget else { return Some(wanted) };
        if wanted == 0 {
            return Some(0);
        }
        while !self.is_stopped() {
            let mut now = budget.lock();
            if now.left == 0 && now.tried == 0 && now.unsure {
                return None;
            }
            if now.left > 0 || now.tried == 0 {
                let taken = wanted.min(now.left);
                now.left -= taken;
                now.tried += taken;
                return Some(taken);
            }
            drop(now);
            sleep(LOOK);
        }
        None
    }

    /// Of so many that were taken so many were done: the others may be done elsewhere. More than were taken may have been done, by
    /// another process.
    pub(super) fn settle(&self, taken: u64, done: u64) {
        let Some(budget) = &self.budget else { return };
        let mut now = budget.lock();
        now.tried -= taken;
        now.left = (now.left + taken).saturating_sub(done);
    }

    /// Of so many that were taken nobody knows whether they were done: they count as done, and nothing comes to its end for them.
    pub(super) fn settle_unsure(&self, taken: u64) {
        let Some(budget) = &self.budget else { return };
        let mut now = budget.lock();
        now.tried -= taken;
        now.unsure |= taken > 0;
    }

    /// Waits until so many more are not too fast. What was slow before is not made up for.
    pub(super) fn wait(&self, met: u64) {
        let Some(rate) = self.rate else { return };
        let span = Duration::from_secs_f64(met as f64 / f64::from(rate));
        let due = {
            let mut due = self.due.lock();
            *due = (*due).max(Instant::now()) + span;
            *due
        };
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
        assert_eq!((pace.take(4), pace.take(4), pace.take(4)), (Some(4), Some(4), Some(2)));
        // Two of them were not done.
        pace.settle(4, 2);
        assert_eq!(pace.take(9), Some(2));
        for (taken, done) in [(4, 4), (2, 2), (2, 2)] {
            pace.settle(taken, done);
        }
        assert_eq!(pace.take(1), Some(0), "all are done");
        let free = Pace::new(None, None);
        assert_eq!(free.take(1_000), Some(1_000));
        free.settle(1_000, 0);
    }

    #[test]
    fn who_finds_none_left_waits_for_those_that_are_tried() {
        let pace = Pace::new(None, Some(5));
        assert_eq!(pace.take(5), Some(5));
        let late = crate::tools::threads::scope(|scope| {
            let waits = scope.spawn(|| pace.take(3));
            // Another process did one of them.
            pace.settle(5, 3);
            waits.join().expect("no panic")
        });
        assert_eq!(late, Some(2));
        pace.settle_unsure(2);
        assert_eq!(pace.take(1), None, "nobody knows whether all are done");
    }

    #[test]
    fn what_was_slow_before_is_not_made_up_for() {
        let pace = Pace::new(Some(1_000), None);
        sleep(Duration::from_millis(50));
        let begun = Instant::now();
        pace.wait(40);
        assert!(begun.elapsed() >= Duration::from_millis(40), "{:?}", begun.elapsed());
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
