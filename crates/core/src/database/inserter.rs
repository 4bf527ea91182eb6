//! Enqueues of many threads to one database share a statement and a commit.
//!
//! Group commit without a timer: while one insert is on its way, the jobs of other threads gather;
//! the next insert takes them all. Alone, a thread's job is stored at once. A commit costs a sync
//! of the disk and a statement a round trip, both far more than a row.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::calls::{Call, Calls, no_answer};
use crate::driver::{Deadline, Driver, DriverError, Inserted, JobRecord};
use crate::tools::reply::{Departure, Reply};
use crate::tools::sync::Mutex;
use crate::tools::time::Instant;

/// A larger insert goes by itself: it gains nothing from sharing and would delay the others.
const MAX_SHARED: usize = 16;

/// One statement takes at most so many jobs of others along.
const MAX_GROUP: usize = 256;

/// And at most so many bytes of their arguments, which are copied for it.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Whoever leaves within this time is not taken along.
const SOON: Duration = Duration::from_millis(100);

/// A large insert may take this much longer per job than the limit of a call.
const PER_JOB: Duration = Duration::from_millis(1);

/// How long an insert of so many jobs may take where a call may take `limit`.
pub(crate) fn insert_limit(limit: Duration, jobs: usize) -> Duration {
    limit.saturating_add(PER_JOB.saturating_mul(u32::try_from(jobs).unwrap_or(u32::MAX)))
}

/// Who enqueues in a local database waits awake for the answer, for so long: the wake of a thread that sleeps is a
/// fifth of an enqueue there. Not for a server's, which on the same machine needs the processor.
const AWAKE_FOR: Duration = Duration::from_micros(500);

/// After an answer that did not come by then, so many callers sleep.
const MISSES: u32 = 50;

/// Inserts at once that may take long.
const MAX_INSERTS: usize = 3;

type Answer = Result<Vec<Inserted>, DriverError>;

/// Stores jobs in one database.
pub(crate) struct Inserter {
    /// Of the database: a series of inserts is one of its calls.
    calls: Arc<Calls>,
    /// For inserts that may take long: large ones, and those that wait for somebody's key.
    alone: Calls,
    shared: Arc<Shared>,
}

struct Shared {
    driver: Arc<dyn Driver>,
    line: Mutex<Line>,
    /// How many callers are not to look out for their answers. Locked by one who does.
    missed: Mutex<u32>,
}

#[derive(Default)]
struct Line {
    waiting: Vec<Arc<Slot>>,
    /// Who inserts now. One that hangs is superseded by the next number.
    active: Option<(u64, Call<()>)>,
    last: u64,
}

/// One caller's jobs.
struct Slot {
    jobs: Arc<Vec<JobRecord>>,
    /// When the caller leaves.
    deadline: Deadline,
    /// The caller is about to leave when no more than this time is left.
    soon: Duration,
    /// The series that was under way when they lined up, or began with them.
    series: AtomicU64,
    reply: Reply<Answer>,
}

impl Inserter {
    pub(crate) fn new(driver: &Arc<dyn Driver>, calls: &Arc<Calls>) -> Self {
        let (line, missed) = (Mutex::default(), Mutex::default());
        let shared = Arc::new(Shared { driver: Arc::clone(driver), line, missed });
        Self { calls: Arc::clone(calls), alone: Calls::new(driver, MAX_INSERTS), shared }
    }

    /// Stores jobs within a time, sharing the statement with other threads. The caller notes an
    /// error that means the database is down, after it tried again where that is safe.
    pub(crate) fn insert(&self, jobs: &Arc<Vec<JobRecord>>, limit: Duration) -> Answer {
        // A unique key may have to wait for somebody's open transaction; nobody else must.
        let keyed = jobs.iter().any(|job| job.facts.uniqkey.is_some());
        if keyed || jobs.len() > MAX_SHARED || !self.shared.driver.may_block() {
            return self.insert_alone(jobs, limit);
        }
        let slot = Arc::new(Slot {
            jobs: Arc::clone(jobs),
            deadline: Deadline::within(limit),
            soon: SOON.min(limit / 4),
            series: AtomicU64::new(0),
            reply: Reply::default(),
        });
        let begun = Instant::now();
        if self.line_up(&slot) && self.shared.driver.is_local() {
            self.shared.look_out(&slot, begun);
        }
        match slot.reply.wait(Some(begun + limit)) {
            Some(answer) => answer,
            None => self.give_up(&slot, limit),
        }
    }

    fn insert_alone(&self, jobs: &Arc<Vec<JobRecord>>, limit: Duration) -> Answer {
        let (asked, deadline) = (Arc::clone(jobs), Deadline::within(limit));
        let call =
            self.alone.begin(move |driver| driver.insert(&asked, deadline), Box::new(|_, _| {}));
        call.wait(limit)
    }

    /// Tells whether nobody waits before them.
    fn line_up(&self, slot: &Arc<Slot>) -> bool {
        let mut line = self.shared.line.lock();
        line.waiting.push(Arc::clone(slot));
        let is_first = line.waiting.len() == 1;
        if line.active.is_none() {
            self.begin_series(&mut line);
        }
        slot.series.store(line.last, Ordering::Relaxed);
        is_first
    }

    fn begin_series(&self, line: &mut Line) {
        line.last += 1;
        let (number, shared) = (line.last, Arc::clone(&self.shared));
        // The members of a group know by themselves when an answer comes too late.
        let call = self.calls.begin_series(
            move |_, renew| {
                // Whatever happens to the helper, the next caller must not wait for it.
                let _over = Over { shared: &shared, number };
                shared.insert_waiting(number, renew);
                Ok(())
            },
            Box::new(|_, _| {}),
        );
        line.active = Some((number, call));
    }

    /// The caller's time is up. If the series it lined up for still runs, it hangs: it is given up,
    /// and another serves those who wait behind it.
    fn give_up(&self, slot: &Arc<Slot>, limit: Duration) -> Answer {
        let begun = match slot.reply.leave(|()| {}) {
            Departure::Answered(answer) => return answer,
            Departure::Begun => true,
            Departure::InTime => false,
        };
        let mut line = self.shared.line.lock();
        line.waiting.retain(|other| !Arc::ptr_eq(other, slot));
        let series = slot.series.load(Ordering::Relaxed);
        let hangs = line.active.as_ref().is_some_and(|(number, _)| *number == series);
        if hangs && let Some((_, call)) = line.active.take() {
            call.abandon();
        }
        if line.active.is_none() && !line.waiting.is_empty() {
            self.begin_series(&mut line);
        }
        drop(line);
        Err(no_answer(limit, begun || hangs).ambiguous(begun))
    }
}

impl Shared {
    /// Waits awake for an answer that is about to come; one caller at a time, and none after one whose answer
    /// took too long.
    fn look_out(&self, slot: &Slot, begun: Instant) {
        let Some(mut missed) = self.missed.try_lock() else { return };
        // From time to time it is tried again: the disk may be as fast as before.
        if *missed > 0 {
            *missed -= 1;
            return;
        }
        slot.reply.look_out(AWAKE_FOR);
        if begun.elapsed() >= AWAKE_FOR {
            *missed = MISSES;
        }
    }

    /// Inserts group after group until nobody waits.
    fn insert_waiting(&self, number: u64, renew: &dyn Fn()) {
        loop {
            let group = {
                let mut line = self.line.lock();
                if line.active.as_ref().is_none_or(|(active, _)| *active != number) {
                    return;
                }
                let group = line.take_group();
                if group.is_empty() {
                    line.active = None;
                    return;
                }
                group
            };
            self.insert_group(group, renew);
            renew();
        }
    }

    /// Inserts the jobs of a group and answers each of its members.
    fn insert_group(&self, group: Vec<Arc<Slot>>, renew: &dyn Fn()) {
        // A group lives no longer than the first of its members, so those that are about to leave
        // would let it fail for all.
        let (hurried, mut group): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|slot| slot.leaves_soon());
        self.insert_each(&hurried, renew);
        let mut tries = 0;
        while group.len() > 1 {
            let Err(error) = self.insert_together(&group) else { return };
            renew();
            tries += 1;
            // Whoever left in the meantime may have let it come too late; the others are tried once more.
            group.retain(|slot| slot.reply.is_wanted());
            if tries == 2 || !error.is_too_late() {
                break;
            }
        }
        // One member's trouble is not the others': each finds out for itself.
        self.insert_each(&group, renew);
    }

    /// Whoever has left meanwhile may have stored the job elsewhere.
    fn insert_each(&self, slots: &[Arc<Slot>], renew: &dyn Fn()) {
        for slot in slots.iter().filter(|slot| slot.reply.is_wanted()) {
            slot.answer(self.driver.insert(&slot.jobs, slot.deadline));
            renew();
        }
    }

    /// Inserts the jobs of several in one statement and answers them. An error that need not be that of
    /// all is returned instead.
    fn insert_together(&self, group: &[Arc<Slot>]) -> Result<(), DriverError> {
        let jobs: Vec<JobRecord> =
            group.iter().flat_map(|slot| slot.jobs.iter().cloned()).collect();
        let first = group.iter().filter_map(|slot| slot.deadline.instant()).min();
        match self.driver.insert(&jobs, first.map_or(Deadline::NONE, Deadline::at)) {
            Ok(inserted) => {
                let mut inserted = inserted.into_iter();
                for slot in group {
                    slot.answer(Ok(inserted.by_ref().take(slot.jobs.len()).collect()));
                }
                Ok(())
            }
            Err(error) if error.is_down() && !error.is_too_late() => {
                for slot in group {
                    slot.answer(Err(error.shared()));
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Ends a series also when the driver panics.
struct Over<'s> {
    shared: &'s Shared,
    number: u64,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let mut line = self.shared.line.lock();
        if line.active.as_ref().is_some_and(|(number, _)| *number == self.number) {
            line.active = None;
        }
    }
}

impl Line {
    fn take_group(&mut self) -> Vec<Arc<Slot>> {
        let (mut jobs, mut bytes) = (0, 0);
        let fits = self.waiting.iter().take_while(|slot| {
            jobs += slot.jobs.len();
            bytes += slot.jobs.iter().map(|job| job.facts.size()).sum::<usize>();
            jobs <= MAX_GROUP && bytes <= MAX_BYTES
        });
        // A large one alone.
        let fit = fits.count().max(self.waiting.len().min(1));
        let later = self.waiting.split_off(fit);
        let group = std::mem::replace(&mut self.waiting, later);
        group.into_iter().filter(|slot| slot.reply.begin(|| ())).collect()
    }
}

impl Slot {
    /// Whether its caller is about to leave.
    fn leaves_soon(&self) -> bool {
        self.deadline.instant().is_some_and(|at| at < Instant::now() + self.soon)
    }

    fn answer(&self, answer: Answer) {
        // Who left does not hear it.
        let _late = self.reply.answer(answer, |()| {});
    }
}
