//! Two small wake-up primitives: a bell for one sleeper, an epoch for many.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
