use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::bell::lock;
use super::jitter;
use super::lane::Lane;
use super::session::Session;
use crate::driver::{DriverError, Settled, Settlement, Verdict};
use crate::error::with_causes;
use crate::observe::Event;

/// One statement settles at most so many: enough for full effect, short enough not to block.
const LARGEST_GROUP: usize = 1_000;

/// Runs that ended and wait to be settled.
///
/// Group commit without a timer: while one group is on its way, the next one gathers. Idle, a
/// single job is settled at once; busy, hundreds share a commit.
#[derive(Default)]
pub(crate) struct SettleQueue {
    inner: Mutex<Pending>,
    filled: Condvar,
}

#[derive(Default)]
struct Pending {
    settlements: Vec<Settlement>,
    settler_waits: bool,
    closed: bool,
}

impl SettleQueue {
    pub(crate) fn push(&self, settlement: Settlement) {
        let mut pending = lock(&self.inner);
        pending.settlements.push(settlement);
        // The settler is woken once per group, not once per job.
        if std::mem::take(&mut pending.settler_waits) {
            self.filled.notify_one();
        }
    }

    /// Says that nothing more will come.
    pub(crate) fn close(&self) {
        lock(&self.inner).closed = true;
        self.filled.notify_one();
    }

    /// Blocks until there is something; `None` when closed and empty.
    fn take(&self) -> Option<Vec<Settlement>> {
        let mut pending = lock(&self.inner);
        loop {
            if !pending.settlements.is_empty() {
                let group = pending.settlements.len().min(LARGEST_GROUP);
                let tail = pending.settlements.split_off(group);
                return Some(std::mem::replace(&mut pending.settlements, tail));
            }
            if pending.closed {
                return None;
            }
            pending.settler_waits = true;
            pending = self.filled.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Settles for one database until the session's last run ended, then removes the worker's row.
pub(super) fn run(session: &Arc<Session>, lane: &Arc<Lane>) {
    while let Some(group) = lane.settle.take() {
        let runs = group.len();
        settle_group(session, lane, &Arc::new(group));
        lane.note_settled(session, runs);
    }
    // While a job of ours still runs, our row must stay: removing it would free its lease.
    let done = session.workers_done() || lane.is_empty();
    if done && lane.database.is_up() {
        let worker = session.worker.id;
        match lane.database.ask(move |driver| driver.remove_worker(worker)) {
            Ok(0) => {}
            Ok(jobs) => log::info!("{jobs} jobs given back to {:?}", &*lane.database.name),
            Err(error) => log::warn!("cannot remove the row of this worker process: {error}"),
        }
    }
}

type Group = Arc<Vec<Settlement>>;

fn ask(session: &Session, lane: &Lane, group: &Group) -> Result<Vec<Settled>, DriverError> {
    let (worker, group) = (session.worker.id, Arc::clone(group));
    lane.database.ask(move |driver| driver.settle(worker, &group))
}

/// Settles a group, waiting out the database's absence: the results exist only here.
fn settle_group(session: &Session, lane: &Lane, group: &Group) {
    let mut failures = 0_u32;
    let mut repeated = false;
    while !lane.given_up.load(Ordering::Acquire) {
        if !lane.database.is_trusted() {
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        match ask(session, lane, group) {
            Ok(answers) => return note_answers(session, lane, group, &answers, repeated),
            // The answer may have been lost on its way: the settlement may be done already.
            Err(error) if error.is_down() => repeated |= error.is_ambiguous(),
            Err(error) => {
                failures += 1;
                if failures >= 3 {
                    return settle_one_by_one(session, lane, group, &error);
                }
                log::warn!(
                    "database {:?} could not settle: {}",
                    &*lane.database.name,
                    with_causes(&error)
                );
                std::thread::sleep(jitter(Duration::from_millis(100 << failures)));
            }
        }
    }
}

/// One settlement that the database refuses must not hold up the others. The refused one keeps
/// its lease until it ends, is rescued then, and runs again: at least once, never lost.
fn settle_one_by_one(session: &Session, lane: &Lane, group: &Group, error: &DriverError) {
    log::warn!(
        "database {:?} refuses a group of {}: {}; settling one by one",
        &*lane.database.name,
        group.len(),
        with_causes(error)
    );
    for at in 0..group.len() {
        let (worker, shared) = (session.worker.id, Arc::clone(group));
        let one = std::slice::from_ref(&group[at]);
        let mut repeated = false;
        while !lane.given_up.load(Ordering::Acquire) {
            if !lane.database.is_trusted() {
                std::thread::sleep(Duration::from_millis(50));
                continue;
            }
            let shared = Arc::clone(&shared);
            match lane.database.ask(move |driver| driver.settle(worker, &shared[at..=at])) {
                Ok(answers) => {
                    note_answers(session, lane, one, &answers, repeated);
                    break;
                }
                Err(error) if error.is_down() => repeated |= error.is_ambiguous(),
                Err(error) => {
                    log::error!(
                        "job {} ({}) cannot be settled and will run again when its lease ends: {}",
                        one[0].job.id,
                        one[0].job.ability,
                        with_causes(&error)
                    );
                    break;
                }
            }
        }
    }
}

fn note_answers(
    session: &Session,
    lane: &Lane,
    group: &[Settlement],
    answers: &[Settled],
    repeated: bool,
) {
    for (settlement, answer) in group.iter().zip(answers) {
        let lost = *answer == Settled::LeaseLost;
        // After a lost answer it cannot be told whether the lease was lost or our own first try
        // ended it.
        let answer = (!repeated || !lost).then_some(*answer);
        session.manager.tell(|| Event::Settled {
            worker: session.worker.id,
            database: &lane.database.name,
            job: settlement.job.id,
            attempt: settlement.job.attempt,
            verdict: settlement.verdict,
            answer,
        });
        if lost && !repeated && settlement.verdict != Verdict::GiveBack {
            lane.lost_leases.fetch_add(1, Ordering::Relaxed);
            log::warn!(
                "job {} ({}) attempt {}: the lease was lost, so its end changed nothing",
                settlement.job.id,
                settlement.job.ability,
                settlement.job.attempt
            );
        }
    }
}
