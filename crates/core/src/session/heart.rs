//! The heartbeats of this process at one database, and whether others may have taken its jobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::tools::awake;

/// No heartbeat yet.
const NEVER: u64 = u64::MAX;

/// What is known of our own heartbeats; times by the clock that goes on while the machine sleeps.
pub(crate) struct Heart {
    started: Duration,
    dead_after: Duration,
    /// Milliseconds since the start at which the last heartbeat began that arrived.
    last: AtomicU64,
    /// The same for the last one that found this process declared dead.
    declared_dead: AtomicU64,
    /// In milliseconds, how often beats are needed to be sure that a silent worker is dead; 0 when
    /// there is none.
    beat_every: AtomicU64,
    /// A beat made the row anew, so that others may have taken our jobs before: until that was dealt with.
    pub(super) is_anew: Arc<AtomicBool>,
    /// How many beats there were since the tables were found usable; [`NEVER`] before that.
    since_look: AtomicU64,
}

/// One beat of this number looks whether the tables may still be worked on: once a minute by default.
pub(super) const LOOK_EVERY: u64 = 12;

impl Heart {
    pub(crate) fn new(dead_after: Duration) -> Self {
        Self {
            started: awake::now(),
            dead_after,
            last: AtomicU64::new(NEVER),
            declared_dead: AtomicU64::new(NEVER),
            beat_every: AtomicU64::new(0),
            is_anew: Arc::default(),
            since_look: AtomicU64::new(NEVER),
        }
    }

    /// Milliseconds since the start, also those that the machine slept.
    fn millis(&self) -> u64 {
        self.millis_at(awake::now())
    }

    fn millis_at(&self, moment: Duration) -> u64 {
        moment.saturating_sub(self.started).as_millis() as u64
    }

    /// Notes a beat that began then, by [`awake::now`]; tells whether it is the first.
    pub(crate) fn note(&self, begun: Duration) -> bool {
        self.last.swap(self.millis_at(begun), Ordering::AcqRel) == NEVER
    }

    /// Whether a beat is to look at the tables: until one found them usable, and again after a number of beats.
    pub(crate) fn looks_at_schema(&self) -> bool {
        self.since_look.load(Ordering::Relaxed) >= LOOK_EVERY - 1
    }

    /// Notes a beat that arrived: whether it looked at the tables, and whether they may be worked on.
    pub(crate) fn note_look(&self, looked: bool, usable: bool) {
        let since = match (looked, usable) {
            (true, true) => 0,
            (true, false) => NEVER,
            (false, _) => self.since_look.load(Ordering::Relaxed).saturating_add(1),
        };
        self.since_look.store(since, Ordering::Relaxed);
    }

    pub(crate) fn has_beaten(&self) -> bool {
        self.last.load(Ordering::Acquire) != NEVER
    }

    /// Asks for beats at least this often, or for the usual ones again; tells whether that is news.
    pub(crate) fn beat_at_least_every(&self, pause: Option<Duration>) -> bool {
        let millis = pause.map_or(0, |pause| pause.as_millis().max(1) as u64);
        self.beat_every.swap(millis, Ordering::AcqRel) != millis
    }

    pub(crate) fn beat_every(&self) -> Option<Duration> {
        let millis = self.beat_every.load(Ordering::Acquire);
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    /// Whether the last heartbeat is young enough that nobody can have rescued our jobs. A process
    /// that slept, or whose database was away, must not start jobs that others may hold by now.
    pub(crate) fn holds_leases(&self) -> bool {
        self.holds_leases_at(awake::now())
    }

    /// The same at this moment, by [`awake::now`].
    pub(crate) fn holds_leases_at(&self, moment: Duration) -> bool {
        let last = self.last.load(Ordering::Acquire);
        if last == NEVER {
            return false;
        }
        let silent = Duration::from_millis(self.millis_at(moment).saturating_sub(last));
        silent < self.dead_after.mul_f64(0.9)
    }

    /// Others took the leases that this process had.
    pub(crate) fn note_death(&self) {
        self.declared_dead.store(self.millis(), Ordering::Release);
    }

    /// When others took the leases, the last time: what was claimed before is not ours any more.
    pub(crate) fn death(&self) -> u64 {
        self.declared_dead.load(Ordering::Acquire)
    }

    /// Whether others may hold the lease of a run that began then, by [`awake::now`].
    pub(crate) fn may_have_lost(&self, begun: Duration) -> bool {
        let (died, begun) = (self.death(), self.millis_at(begun));
        !self.holds_leases() || (died != NEVER && died >= begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_held_from_the_first_beat_until_the_last_is_old() {
        let heart = Heart::new(Duration::from_secs(60));
        assert!(!heart.holds_leases() && !heart.has_beaten());
        assert!(heart.note(awake::now()));
        assert!(!heart.note(awake::now()));
        assert!(heart.holds_leases());
        // It slept, or was stopped.
        let heart =
            Heart { started: awake::now().saturating_sub(Duration::from_secs(100)), ..heart };
        heart.note(awake::now().saturating_sub(Duration::from_secs(55)));
        assert!(!heart.holds_leases());
        assert!(heart.may_have_lost(awake::now()));
    }

    #[test]
    fn a_run_that_began_before_the_process_was_declared_dead_may_be_another_s() {
        let heart = Heart::new(Duration::from_secs(60));
        let before = awake::now();
        heart.note(before);
        assert!(!heart.may_have_lost(before));
        std::thread::sleep(Duration::from_millis(3));
        heart.note_death();
        std::thread::sleep(Duration::from_millis(3));
        heart.note(awake::now());
        assert!(heart.may_have_lost(before));
        assert!(!heart.may_have_lost(awake::now()));
    }

    #[test]
    fn denser_beats_are_asked_for_once() {
        let heart = Heart::new(Duration::from_secs(60));
        assert_eq!(heart.beat_every(), None);
        assert!(heart.beat_at_least_every(Some(Duration::from_micros(10))));
        assert!(!heart.beat_at_least_every(Some(Duration::from_micros(20))));
        assert_eq!(heart.beat_every(), Some(Duration::from_millis(1)));
        assert!(heart.beat_at_least_every(None));
        assert_eq!(heart.beat_every(), None);
    }
}
