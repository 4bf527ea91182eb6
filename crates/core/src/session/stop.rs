//! The end of a session, and of one lane: how far it is, and who waits for it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use crate::tools::sync::{Condvar, Mutex};
use crate::tools::time::Instant;

/// How far an end is; it never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Jobs are claimed and run.
    Working,
    /// Somebody asked for the end, and it has not begun.
    Asked,
    /// Nothing is claimed any more, what has not begun is given back, and what runs may end.
    Stopping,
    /// The time for that is over and jobs still run: the last of them ends the lanes.
    Overdue,
    /// Nobody waits for what is left.
    GivenUp,
}

impl Phase {
    const ALL: [Self; 5] =
        [Self::Working, Self::Asked, Self::Stopping, Self::Overdue, Self::GivenUp];
}

/// Goes from phase to phase.
pub(crate) struct Progress(AtomicU8);

impl Default for Progress {
    fn default() -> Self {
        Self(AtomicU8::new(Phase::Working as u8))
    }
}

impl Progress {
    pub(crate) fn phase(&self) -> Phase {
        // SeqCst, as are all: of the end and the last run one must see the other.
        Phase::ALL[usize::from(self.0.load(Ordering::SeqCst))]
    }

    /// Goes on to this phase, if it is a later one.
    pub(crate) fn advance(&self, to: Phase) {
        self.0.fetch_max(to as u8, Ordering::SeqCst);
    }
}

/// The end of a session. Its lanes have a [`Progress`] each, for a database that is removed while the others go
/// on.
#[derive(Default)]
pub(crate) struct Stop {
    progress: Progress,
    /// Whoever waits is to go at once.
    hard: AtomicBool,
    /// Threads that run jobs.
    workers: AtomicUsize,
    /// Held by whoever looks whether to wait, and by whoever changes something that is waited for.
    turn: Mutex<()>,
    changed: Condvar,
}

impl Stop {
    pub(crate) fn phase(&self) -> Phase {
        self.progress.phase()
    }

    pub(crate) fn advance(&self, to: Phase) {
        self.progress.advance(to);
        self.note();
    }

    /// Asks for the end: softly, or at once.
    pub(crate) fn ask(&self, at_once: bool) {
        self.hard.fetch_or(at_once, Ordering::SeqCst);
        self.advance(Phase::Asked);
    }

    pub(crate) fn is_hard(&self) -> bool {
        self.hard.load(Ordering::SeqCst)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.phase() >= Phase::Stopping
    }

    /// Counts a thread that runs jobs, until [`end_worker`](Self::end_worker).
    pub(crate) fn begin_worker(&self) {
        self.workers.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn end_worker(&self) {
        self.workers.fetch_sub(1, Ordering::SeqCst);
        self.note();
    }

    /// How many threads run jobs or wait for some.
    pub(crate) fn workers(&self) -> usize {
        self.workers.load(Ordering::SeqCst)
    }

    /// Whether the time of the stop is over and the last job ended after it.
    pub(crate) fn is_overdue(&self) -> bool {
        self.phase() == Phase::Overdue && self.workers() == 0
    }

    /// Wakes whoever waits for something to change.
    pub(crate) fn note(&self) {
        let _turn = self.turn.lock();
        self.changed.notify_all();
    }

    /// Blocks until somebody asks for the end.
    pub(crate) fn wait_for_request(&self) {
        let mut turn = self.turn.lock();
        while self.phase() < Phase::Asked {
            self.changed.wait(&mut turn);
        }
    }

    /// Waits until `done`, the deadline, or a stop at once; tells whether it is done.
    pub(crate) fn wait_for(&self, deadline: Instant, done: impl Fn() -> bool) -> bool {
        let mut turn = self.turn.lock();
        loop {
            if done() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO || self.is_hard() {
                return false;
            }
            self.changed.wait_for(&mut turn, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn phases_are_told_as_they_were_set_and_never_go_back() {
        let progress = Progress::default();
        for phase in Phase::ALL {
            progress.advance(phase);
            assert_eq!(progress.phase(), phase);
        }
        progress.advance(Phase::Asked);
        assert_eq!(progress.phase(), Phase::GivenUp);
    }

    #[test]
    fn asking_twice_ends_every_wait() {
        let stop = Arc::new(Stop::default());
        let other = Arc::clone(&stop);
        let waits = std::thread::spawn(move || other.wait_for_request());
        stop.ask(false);
        waits.join().expect("it was asked");
        assert!(!stop.is_stopping() && !stop.is_hard());
        let other = Arc::clone(&stop);
        let waits = std::thread::spawn(move || other.wait_for(Instant::now() + SOON, || false));
        stop.ask(true);
        let begun = Instant::now();
        assert!(!waits.join().expect("ends"));
        assert!(begun.elapsed() < SOON / 2);
    }

    #[test]
    fn the_last_run_after_the_time_of_the_stop_is_seen() {
        let stop = Arc::new(Stop::default());
        stop.begin_worker();
        stop.begin_worker();
        stop.advance(Phase::Stopping);
        assert!(stop.is_stopping());
        assert!(!stop.wait_for(Instant::now(), || stop.workers() == 0));
        stop.advance(Phase::Overdue);
        stop.end_worker();
        assert!(!stop.is_overdue());
        let other = Arc::clone(&stop);
        let last = std::thread::spawn(move || other.end_worker());
        assert!(stop.wait_for(Instant::now() + SOON, || stop.is_overdue()));
        last.join().expect("ends");
    }
}
