//! Whether a silence is a worker's or the database's.
//!
//! A worker process that does not beat may be dead, or the database may have been away, and then
//! nobody could beat. From outside both look the same: a row that has not changed. What tells them
//! apart are our own heartbeats: only while they arrive can the silence of another count.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::driver::{DeadWorker, WorkerId, WorkerSeen};
use crate::tools::time::Instant;

/// Heartbeats that arrived: when each began and was answered. When there are more, older ones are
/// forgotten: what lies far back is needed for long promises only, which ask for less dense beats.
const MAX_BEATS: usize = 512;

/// What is forgotten leaves no pause longer than this part of its age.
const SPARSE: u32 = 8;

/// The longest pause between two of our beats in which an outage cannot hide for long enough to make
/// a living worker look dead, as a share of what that worker promised. It may have been about to
/// beat (a quarter of its promise at most, see `Rhythm`), comes back with its next probe (an eighth,
/// see `Database::begin_work`), and an outage between two beats of ours is shorter than their distance.
/// Our beats are a quarter apart too, so that an answer that takes another quarter is no pause.
const GAP_SHARE: u32 = 2;

/// The same for workers of a version that told no promise: they beat at half of it at the latest.
const GAP_SHARE_BEFORE: u32 = 3;

/// This process's own heartbeats at one database, and what it saw of those of others.
#[derive(Default)]
pub(crate) struct Watch {
    beats: VecDeque<(Instant, Instant)>,
    last_look: Option<Instant>,
    seen: HashMap<WorkerId, Seen>,
}

/// A beat of another worker, as we saw it. The server tells by its own clock how old it is; that clock
/// may be set while we look.
#[derive(Clone, Copy)]
struct Seen {
    beat: DateTime<Utc>,
    /// It was there already when this look was answered.
    known_since: Instant,
    /// It was not there yet when this look began.
    unknown_at: Option<Instant>,
}

impl Seen {
    /// What the server says, as far as our own looks allow.
    fn silent(&self, told: Duration, begun: Instant, now: Instant) -> Duration {
        let least = begun.saturating_duration_since(self.known_since);
        let most = self.unknown_at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        told.clamp(least, most.max(least))
    }
}

/// What is known of the silent workers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// Those that were silent for longer than they promised, while we were not.
    pub(crate) dead: Vec<DeadWorker>,
    /// How long until the next one may be.
    pub(crate) next: Option<Duration>,
    /// How often we have to beat ourselves to be sure of one that is silent for too long.
    pub(crate) beat_every: Option<Duration>,
}

impl Watch {
    /// Notes a heartbeat that arrived.
    pub(crate) fn note(&mut self, begun: Instant, answered: Instant) {
        if self.beats.len() >= MAX_BEATS {
            self.thin_out(answered);
        }
        self.beats.push_back((begun, answered));
    }

    /// Forgets older beats that others lie close to, as seen from now. A year fits.
    fn thin_out(&mut self, now: Instant) {
        let recent = self.beats.split_off(MAX_BEATS / 2);
        let mut newer = recent.front().map_or(now, |(begun, _)| *begun);
        let mut kept = VecDeque::with_capacity(MAX_BEATS);
        let mut older = std::mem::take(&mut self.beats).into_iter().rev().peekable();
        while let Some(beat) = older.next() {
            let age = now.saturating_duration_since(beat.0);
            let gap = older.peek().map(|next| newer.saturating_duration_since(next.0));
            if gap.is_none_or(|gap| gap > age / SPARSE) && kept.len() < MAX_BEATS / 2 {
                newer = beat.0;
                kept.push_front(beat);
            }
        }
        kept.extend(recent);
        self.beats = kept;
    }

    /// For how long the database was reachable without a pause longer than `gap`.
    ///
    /// Between the beginning of one beat and the answer to the next it may have been away.
    pub(crate) fn reachable_for(&self, gap: Duration, now: Instant) -> Duration {
        let mut since = now;
        for &(begun, answered) in self.beats.iter().rev() {
            if since.saturating_duration_since(begun) > gap {
                break;
            }
            since = answered;
        }
        now.saturating_duration_since(since)
    }

    /// Whether leases past their end may be taken: not in the moment when the database is back, when
    /// their owners are about to settle what ended meanwhile.
    pub(crate) fn outlasted(&self, dead_after: Duration, now: Instant) -> bool {
        self.reachable_for(dead_after / GAP_SHARE, now) >= dead_after / 2
    }

    /// Who is dead among the others. `own` is the promise of this process, for those that told none;
    /// `begun` is when they were asked for.
    pub(crate) fn judge(
        &mut self,
        workers: &[WorkerSeen],
        own: Duration,
        begun: Instant,
        now: Instant,
    ) -> Judgement {
        self.look(workers, begun, now);
        let mut judgement = Judgement::default();
        let sooner = |known: Option<Duration>, other: Duration| {
            Some(known.map_or(other, |known| known.min(other)))
        };
        for worker in workers {
            let told = worker.info.dead_after;
            let promise = if told.is_zero() { own } else { told };
            let gap = promise / if told.is_zero() { GAP_SHARE_BEFORE } else { GAP_SHARE };
            let Some(seen) = self.seen.get(&worker.info.id) else { continue };
            let silent = seen.silent(worker.silent, begun, now);
            let witnessed = silent.min(self.reachable_for(gap, now));
            let is_dead = witnessed > promise;
            if is_dead {
                judgement.dead.push(DeadWorker { id: worker.info.id, seen_at: worker.seen_at });
            }
            if silent > promise / 2 {
                // Also for the dead: what a rescue could not lock is left for the next one.
                judgement.beat_every = sooner(judgement.beat_every, gap / 2);
            }
            let left = if is_dead || silent <= promise / 2 {
                promise / 4
            } else {
                promise.saturating_sub(witnessed)
            };
            judgement.next = sooner(judgement.next, left);
        }
        judgement
    }

    fn look(&mut self, workers: &[WorkerSeen], begun: Instant, now: Instant) {
        let unknown_at = self.last_look.replace(begun);
        self.seen.retain(|id, _| workers.iter().any(|worker| worker.info.id == *id));
        for worker in workers {
            let beat = worker.seen_at;
            let fresh = Seen { beat, known_since: now, unknown_at };
            let seen = self.seen.entry(worker.info.id).or_insert(fresh);
            if seen.beat != beat {
                *seen = fresh;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::driver::WorkerInfo;

    const SECOND: Duration = Duration::from_secs(1);
    const OWN: Duration = Duration::from_secs(20);

    fn worker(silent: Duration, dead_after: Duration) -> WorkerSeen {
        let info = WorkerInfo::new("it", dead_after);
        WorkerSeen { info, seen_at: Utc::now(), silent }
    }

    /// Beats of no length at these seconds.
    fn watch(start: Instant, beats: impl IntoIterator<Item = u64>) -> Watch {
        let mut watch = Watch::default();
        for at in beats {
            watch.note(start + SECOND * at as u32, start + SECOND * at as u32);
        }
        watch
    }

    #[test]
    fn a_worker_that_is_silent_while_we_beat_is_dead() {
        let start = Instant::now();
        let mut watch = watch(start, (0..=40).step_by(5));
        let now = start + SECOND * 40;
        let one = worker(SECOND * 21, SECOND * 20);
        let judged = watch.judge(std::slice::from_ref(&one), OWN, now, now);
        assert_eq!(judged.dead, [DeadWorker { id: one.info.id, seen_at: one.seen_at }]);
        let mut watch = Watch { last_look: None, ..watch };
        let judged = watch.judge(&[worker(SECOND * 19, SECOND * 20)], OWN, now, now);
        assert!(judged.dead.is_empty());
        assert_eq!(judged.next, Some(SECOND), "looked at again when it may be");
    }

    #[test]
    fn a_database_that_answers_slowly_hides_no_dead_worker() {
        let start = Instant::now();
        let mut watch = Watch::default();
        // A beat every five seconds, each answered after four.
        for at in (0..=60).step_by(5) {
            watch.note(start + SECOND * at, start + SECOND * (at + 4));
        }
        let now = start + SECOND * 64;
        let one = [worker(SECOND * 50, OWN)];
        assert_eq!(watch.judge(&one, OWN, now, now).dead.len(), 1);
    }

    #[test]
    fn a_silence_during_an_outage_counts_from_its_end() {
        let start = Instant::now();
        // Nobody could beat from 10 to 46.
        let (mut watch, now) = (watch(start, [0, 5, 10, 46, 50, 55]), start + SECOND * 55);
        let silent = worker(SECOND * 47, SECOND * 20);
        let judged = watch.judge(std::slice::from_ref(&silent), OWN, now, now);
        assert!(judged.dead.is_empty(), "it had nine seconds only");
        assert_eq!(judged.next, Some(SECOND * 11));
    }

    #[test]
    fn a_process_that_just_started_knows_nothing() {
        let (start, silent) = (Instant::now(), worker(SECOND * 900, SECOND * 20));
        let now = start + SECOND;
        assert_eq!(watch(start, [0]).judge(std::slice::from_ref(&silent), OWN, now, now).dead, []);
        assert_eq!(Watch::default().judge(&[silent], OWN, start, start).dead, []);
    }

    #[test]
    fn a_short_promise_needs_beats_as_dense() {
        let (start, one) = (Instant::now(), [worker(SECOND * 20, SECOND * 3)]);
        let now = start + SECOND * 40;
        let sparse = watch(start, (0..=40).step_by(5)).judge(&one, OWN, now, now);
        assert!(sparse.dead.is_empty(), "an outage of four seconds may lie between two beats");
        assert_eq!(sparse.beat_every, Some(SECOND.mul_f64(0.75)));
        let dense = watch(start, 0..=40).judge(&one, OWN, now, now);
        assert_eq!(dense.dead.len(), 1);
    }

    #[test]
    fn a_worker_that_promised_nothing_is_held_to_our_own_promise() {
        let (start, one) = (Instant::now(), [worker(SECOND * 21, Duration::ZERO)]);
        let now = start + SECOND * 40;
        let mut watch = watch(start, (0..=40).step_by(5));
        assert_eq!(watch.judge(&one, SECOND * 30, now, now).dead, []);
        assert_eq!(watch.judge(&one, OWN, now, now).dead.len(), 1);
    }

    #[test]
    fn a_server_whose_clock_is_set_neither_kills_the_living_nor_hides_the_dead() {
        let start = Instant::now();
        let mut watch = watch(start, (0..=60).step_by(5));
        let mut one = worker(SECOND * 2, OWN);
        let at = |second: u32| start + SECOND * second;
        assert_eq!(watch.judge(std::slice::from_ref(&one), OWN, at(40), at(40)).dead, []);
        // It beats, and the clock goes on by an hour.
        one.seen_at += chrono::TimeDelta::seconds(1);
        one.silent = SECOND * 3_600;
        assert_eq!(watch.judge(std::slice::from_ref(&one), OWN, at(41), at(41)).dead, []);
        // It falls silent, and the clock goes back by an hour.
        one.silent = Duration::ZERO;
        assert_eq!(watch.judge(std::slice::from_ref(&one), OWN, at(60), at(60)).dead, []);
        assert_eq!(watch.judge(&[one], OWN, at(62), at(62)).dead.len(), 1);
    }

    #[test]
    fn many_beats_still_show_how_long_the_database_was_there() {
        let start = Instant::now();
        let watch = watch(start, 0..20_000);
        let reachable = watch.reachable_for(SECOND * 20_000 / GAP_SHARE, start + SECOND * 20_000);
        assert!(reachable > SECOND * 19_000, "{reachable:?}");
        assert!(watch.reachable_for(SECOND, start + SECOND * 20_000) >= SECOND * 200);
    }

    proptest! {
        /// A worker that beats whenever the database is there is never called dead, whatever outages
        /// there are and however the two processes' beats fall.
        #[test]
        fn a_living_worker_is_never_dead(
            outages in prop::collection::vec((0_u64..300, 1_u64..80), 0..6),
            promise in 4_u64..40,
            ours in 1_u64..12,
            phase in 0_u64..10,
            set in any::<bool>(),
            clock in any::<u64>(),
        ) {
            let (id, epoch) = (WorkerId::new(), Utc::now());
            let away = |at: u64| outages.iter().any(|(from, long)| (*from..from + long).contains(&at));
            let start = Instant::now();
            let mut watch = Watch::default();
            // Its beats come at a quarter of its promise at the latest, and once it is back.
            let (mut theirs_at, mut next_theirs, mut next_ours) = (0, 0, phase);
            for at in 0..400_u64 {
                // Back within an eighth of its promise after an outage, and at least a second.
                if at >= next_theirs {
                    if away(at) {
                        next_theirs = at + (promise / 8).max(1);
                    } else {
                        theirs_at = at;
                        next_theirs = at + (promise / 4).max(1);
                    }
                }
                if at >= next_ours {
                    next_ours = at + ours;
                    if !away(at) {
                        let now = start + SECOND * at as u32;
                        watch.note(now, now);
                        let told = clock.wrapping_mul(at) % 97;
                        // The server's clock says what it likes.
                        let silent = if set { told } else { at - theirs_at };
                        let mut seen = worker(SECOND * silent as u32, SECOND * promise as u32);
                        seen.info.id = id;
                        seen.seen_at = epoch + chrono::TimeDelta::seconds(theirs_at as i64);
                        let judged = watch.judge(&[seen], OWN, now, now);
                        prop_assert!(judged.dead.is_empty(), "dead at {at}, last beat {theirs_at}");
                    }
                }
            }
        }
    }
}
