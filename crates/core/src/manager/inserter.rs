//! Enqueues of many threads to one database share a statement and a commit.
//!
//! Group commit without a timer: while one insert is on its way, the jobs of other threads gather;
//! the next insert takes them all. Alone, a thread's job is stored at once. A commit costs a sync
//! of the disk and a statement a round trip, both far more than a row.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::bell::lock;
use super::calls::Call;
use super::database::Database;
use crate::Driver;
use crate::driver::{DriverError, ErrorKind, Inserted, JobRecord};

/// A larger insert goes by itself: it gains nothing from sharing and would delay the others.
const LARGEST_SHARED: usize = 16;

/// One statement takes at most so many jobs of others along.
const LARGEST_GROUP: usize = 256;

/// A large insert may take this much longer per job than the limit of a call.
const PER_JOB: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(super) struct Inserter {
    line: Mutex<Line>,
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
    jobs: Arc<[JobRecord]>,
    /// A late answer means jobs that were stored elsewhere meanwhile.
    remove_late: bool,
    state: Mutex<State>,
    answered: Condvar,
}

enum State {
    Waiting,
    Taken,
    Answered(Result<Vec<Inserted>, DriverError>),
    Left,
}

impl Database {
    /// Stores jobs, sharing the statement with other threads. With `remove_late` the jobs are
    /// removed again if they are stored after this call gave up waiting. The caller notes an error
    /// that means the database is down, after it tried again where that is safe.
    pub(super) fn insert(
        self: &Arc<Self>,
        jobs: &Arc<[JobRecord]>,
        remove_late: bool,
    ) -> Result<Vec<Inserted>, DriverError> {
        if jobs.len() > LARGEST_SHARED || !self.driver().may_block() {
            return self.insert_alone(jobs, remove_late);
        }
        let slot = Arc::new(Slot {
            jobs: Arc::clone(jobs),
            remove_late,
            state: Mutex::new(State::Waiting),
            answered: Condvar::new(),
        });
        self.line_up(&slot);
        match slot.wait(self.limit()) {
            Some(answer) => answer,
            None => Err(self.give_up(&slot)),
        }
    }

    fn insert_alone(
        &self,
        jobs: &Arc<[JobRecord]>,
        remove_late: bool,
    ) -> Result<Vec<Inserted>, DriverError> {
        let limit = self.limit().saturating_add(PER_JOB * jobs.len() as u32);
        let (asked, stored) = (Arc::clone(jobs), Arc::clone(jobs));
        let call = self.calls.begin(
            move |driver| driver.insert(&asked),
            Box::new(move |driver, late| {
                if late.is_ok() && remove_late {
                    remove(driver, &stored);
                }
            }),
        );
        call.wait(limit)
    }

    fn line_up(self: &Arc<Self>, slot: &Arc<Slot>) {
        let mut line = lock(&self.inserter.line);
        line.waiting.push(Arc::clone(slot));
        if line.active.is_none() {
            line.last += 1;
            let number = line.last;
            let database = Arc::clone(self);
            // The members of a group know by themselves when an answer comes too late.
            let call = self.calls.begin_series(
                move |driver, renew| {
                    database.insert_waiting(driver, number, renew);
                    Ok(())
                },
                Box::new(|_, _| {}),
            );
            line.active = Some((number, call));
        }
    }

    /// Inserts group after group until nobody waits.
    fn insert_waiting(&self, driver: &dyn Driver, number: u64, renew: &dyn Fn()) {
        loop {
            let group = {
                let mut line = lock(&self.inserter.line);
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
            insert_group(driver, &group);
            renew();
        }
    }

    /// The caller's time is up: the insert under way hangs, and others must not wait behind it.
    fn give_up(&self, slot: &Arc<Slot>) -> DriverError {
        let mut state = lock(&slot.state);
        let begun = match std::mem::replace(&mut *state, State::Left) {
            State::Answered(Err(error)) => return error,
            State::Taken => true,
            _ => false,
        };
        drop(state);
        let mut line = lock(&self.inserter.line);
        line.waiting.retain(|other| !Arc::ptr_eq(other, slot));
        if let Some((_, hangs)) = line.active.take() {
            hangs.abandon();
        }
        drop(line);
        let message = format!("no answer within {} s", self.limit().as_secs_f32());
        DriverError::new(ErrorKind::Down, message).hung(true).ambiguous(begun)
    }
}

impl Line {
    fn take_group(&mut self) -> Vec<Arc<Slot>> {
        let mut jobs = 0;
        let fit = self
            .waiting
            .iter()
            .take_while(|slot| {
                jobs += slot.jobs.len();
                jobs <= LARGEST_GROUP
            })
            .count();
        let later = self.waiting.split_off(fit);
        let group = std::mem::replace(&mut self.waiting, later);
        group.into_iter().filter(|slot| slot.take()).collect()
    }
}

/// Inserts the jobs of a group and answers each of its members.
fn insert_group(driver: &dyn Driver, group: &[Arc<Slot>]) {
    if let [slot] = group {
        return slot.answer(driver, driver.insert(&slot.jobs));
    }
    let jobs: Vec<JobRecord> = group.iter().flat_map(|slot| slot.jobs.iter().cloned()).collect();
    match driver.insert(&jobs) {
        Ok(inserted) => {
            let mut inserted = inserted.into_iter();
            for slot in group {
                slot.answer(driver, Ok(inserted.by_ref().take(slot.jobs.len()).collect()));
            }
        }
        Err(error) if error.is_down() => {
            for slot in group {
                slot.answer(driver, Err(error.shared()));
            }
        }
        // One member's trouble is not the others': each finds out for itself.
        Err(_) => {
            for slot in group {
                slot.answer(driver, driver.insert(&slot.jobs));
            }
        }
    }
}

/// Jobs that went to another database after this one did not answer must not run here too.
fn remove(driver: &dyn Driver, jobs: &[JobRecord]) {
    for job in jobs {
        match driver.dequeue(job.id) {
            Ok(true) => log::info!("job {} was stored too late and is removed again", job.id),
            Ok(false) => {}
            Err(error) => log::warn!("job {} was stored twice: {error}", job.id),
        }
    }
}

impl Slot {
    fn take(&self) -> bool {
        let mut state = lock(&self.state);
        let waits = matches!(*state, State::Waiting);
        if waits {
            *state = State::Taken;
        }
        waits
    }

    fn answer(&self, driver: &dyn Driver, answer: Result<Vec<Inserted>, DriverError>) {
        let mut state = lock(&self.state);
        if matches!(*state, State::Left) {
            drop(state);
            if answer.is_ok() && self.remove_late {
                remove(driver, &self.jobs);
            }
            return;
        }
        *state = State::Answered(answer);
        drop(state);
        self.answered.notify_one();
    }

    fn wait(&self, limit: Duration) -> Option<Result<Vec<Inserted>, DriverError>> {
        let deadline = Instant::now() + limit;
        let mut state = lock(&self.state);
        loop {
            if matches!(*state, State::Answered(_))
                && let State::Answered(answer) = std::mem::replace(&mut *state, State::Left)
            {
                return Some(answer);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state =
                self.answered.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
