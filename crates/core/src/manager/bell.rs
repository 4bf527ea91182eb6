//! Two small wake-up primitives: a bell for one sleeper, an epoch for many.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Takes a lock whose data stays valid even if a holder panicked.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes one sleeper; a ring while nobody sleeps is remembered.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    condvar: Condvar,
}

impl Bell {
    /// Ends the sleeper's wait, now or the next time.
    pub(crate) fn ring(&self) {
        // Who rang first woke the sleeper, if there was one.
        if !std::mem::replace(&mut *lock(&self.rung), true) {
            self.condvar.notify_one();
        }
    }

    /// Sleeps until rung or until the pause is over; tells whether it was rung.
    pub(crate) fn wait(&self, pause: Duration) -> bool {
        let guard = lock(&self.rung);
        let (mut rung, _) = self
            .condvar
            .wait_timeout_while(guard, pause, |rung| !*rung)
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *rung)
    }
}

/// A number that only grows, and waiters for its growth.
///
/// Advancing costs one atomic load while nobody waits: settlers advance it for every batch.
#[derive(Default)]
pub(crate) struct Epoch {
    waiters: AtomicUsize,
    now: Mutex<u64>,
    condvar: Condvar,
}

impl Epoch {
    /// Wakes all waiters.
    pub(crate) fn advance(&self) {
        if self.waiters.load(Ordering::SeqCst) > 0 {
            *lock(&self.now) += 1;
            self.condvar.notify_all();
        }
    }

    /// Announces interest; hold it over the check that precedes the wait, so that no advance
    /// between the check and the wait is missed.
    pub(crate) fn watch(&self) -> Watch<'_> {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        Watch { epoch: self, seen: *lock(&self.now) }
    }
}

/// Interest in an [`Epoch`].
pub(crate) struct Watch<'a> {
    epoch: &'a Epoch,
    seen: u64,
}

impl Watch<'_> {
    /// Waits for an advance since the last wait, at most so long.
    pub(crate) fn wait(&mut self, pause: Duration) {
        let deadline = Instant::now() + pause;
        let mut now = lock(&self.epoch.now);
        while *now == self.seen {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            now = self
                .epoch
                .condvar
                .wait_timeout(now, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        self.seen = *now;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.epoch.waiters.fetch_sub(1, Ordering::SeqCst);
    }
}
