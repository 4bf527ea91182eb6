//! Wakes one sleeper.

use std::time::Duration;

use super::sync::{Condvar, Mutex};

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
        if !std::mem::replace(&mut *self.rung.lock(), true) {
            self.condvar.notify_one();
        }
    }

    /// Sleeps until rung or until the pause is over; tells whether it was rung.
    pub(crate) fn wait(&self, pause: Duration) -> bool {
        let mut rung = self.rung.lock();
        self.condvar.wait_while_for(&mut rung, |rung| !*rung, pause);
        std::mem::take(&mut *rung)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_while_nobody_sleeps_ends_the_next_wait_and_no_other() {
        let bell = Bell::default();
        bell.ring();
        bell.ring();
        assert!(bell.wait(Duration::from_secs(60)));
        assert!(!bell.wait(Duration::ZERO));
    }
}
