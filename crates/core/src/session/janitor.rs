//! Rescue and clean-up, beside the heartbeat and never before it: both may take long, and others
//! would think this process dead.

use std::sync::Arc;
use std::time::Duration;

use crate::client::cancelled::carry_out;
use crate::driver::{DriverError, ErrorKind, Purged};
use crate::session::Session;
use crate::session::lane::Lane;
use crate::session::loops::supervise;
use crate::session::pulses::Kind;
use crate::session::stranded;
use crate::session::tally::Told;
use crate::tools::causes::with_causes;
use crate::tools::random::jitter;
use crate::tools::time::Instant;

/// The greatest number of jobs that one rescue moves; the next rescues follow at once.
const MAX_RESCUE: u32 = 500;

/// The greatest number of dead workers that one rescue looks after: it is a transaction.
const MAX_DEAD: usize = 50;

/// The limits of a slice: one call of the clean-up removes at most a slice of rows of each table; the next calls remove the rest.
const MAX_SLICE: u32 = 2_000;
const MIN_SLICE: u32 = 500;

/// A call that took longer is followed by a smaller one: no statement is to hold up others for a tenth of a second. A call is some twenty statements and
/// four commits, so that much smaller ones would remove less and be no shorter.
const LONG_CALL: Duration = Duration::from_millis(80);

/// A call that took shorter is followed by a larger one.
const SHORT_CALL: Duration = Duration::from_millis(40);

const PURGE_EVERY: Duration = Duration::from_secs(60);

/// The first clean-up is this long after the start, for processes that live shorter than `PURGE_EVERY`.
const FIRST_PURGE: Duration = Duration::from_secs(10);

/// After each call the clean-up rests for this many times the duration of the call. Without a rest it took a quarter of what workers
/// do on PostgreSQL and MariaDB, and three quarters on SQLite, where one connection writes at a time.
const REST: u32 = 9;

/// The rest of a clean-up that has removed rows for longer than [`BEHIND_AFTER`] without a break: perhaps more rows grow old than it removes.
const REST_BEHIND: u32 = 2;
const BEHIND_AFTER: Duration = Duration::from_secs(600);

/// The longest that one pass of the rescue or of the clean-up goes on; what is left waits for the next pass.
const PASS: Duration = Duration::from_secs(2);

/// How long the janitor waits for the answer to a report of runs.
const PATIENCE: Duration = Duration::from_secs(1);

/// The shortest pause between two passes.
const MIN_PAUSE: Duration = Duration::from_millis(50);

/// How fast the clean-up goes.
struct Pace {
    /// How many rows of a table the next call removes at most.
    slice: u32,
    /// Since when each call has removed rows and left more to look at.
    busy_since: Option<Instant>,
}

impl Pace {
    const fn new() -> Self {
        Self { slice: MAX_SLICE, busy_since: None }
    }

    /// Notes a call that ended now: how long it took, and what it did.
    fn note(&mut self, now: Instant, took: Duration, done: Purged) {
        if took > LONG_CALL {
            self.slice = (self.slice / 2).max(MIN_SLICE);
        } else if took < SHORT_CALL {
            self.slice = (self.slice * 2).min(MAX_SLICE);
        }
        // It also looks at rows that are kept, and then to hurry gains nothing.
        let is_busy = done.more && done.removed > 0;
        self.busy_since = is_busy.then(|| self.busy_since.unwrap_or(now));
    }

    /// How long to rest after a call that took this long.
    fn rest(&self, now: Instant, took: Duration) -> Duration {
        let busy = |since| now.saturating_duration_since(since);
        let behind = self.busy_since.is_some_and(|since| busy(since) >= BEHIND_AFTER);
        took * if behind { REST_BEHIND } else { REST }
    }
}

/// Looks for silent workers and old rows until the lane stops.
pub(crate) fn run(session: &Arc<Session>, lane: &Arc<Lane>) {
    supervise(lane, Kind::Janitor, || clean_on(session, lane));
}

fn clean_on(session: &Arc<Session>, lane: &Arc<Lane>) {
    let every = session.client.program.options.heartbeat_every;
    let mut next_purge = Instant::now() + jitter(FIRST_PURGE);
    let mut pace = Pace::new();
    // By then all processes that were started together have told which abilities they have.
    let mut next_warning = Instant::now() + session.client.program.options.dead_after;
    while !lane.is_stopping() {
        let mut pause = jitter(every);
        if lane.database.is_trusted() && lane.heart.has_beaten() {
            let done = rescue(session, lane).and_then(|next| {
                pause = next.map_or(pause, |next| next.min(pause)).max(MIN_PAUSE);
                note_orders(lane, carry_out(&session.client, &lane.database));
                if !lane.tally.rests() {
                    report_runs(lane);
                }
                if Instant::now() >= next_purge {
                    let next = purge(session, lane, &mut pace)?;
                    next_purge = Instant::now() + next;
                    pause = pause.min(next.max(MIN_PAUSE));
                }
                Ok(())
            });
            if done.is_ok() {
                lane.pulses.beat(Kind::Janitor);
            }
            // After it, and whatever comes of it.
            if done.is_ok() && Instant::now() >= next_warning {
                next_warning = Instant::now() + stranded::warn(lane);
            }
            if let Err(error) = done
                && !error.is_down()
            {
                let text = with_causes(&error);
                log::warn!("database {:?}: clean-up: {text}", &*lane.database.name);
            }
        }
        lane.janitor_bell.wait(pause);
    }
}

/// Orders that cannot be carried out keep nothing from being cleaned up: an account may lack the right.
fn note_orders(lane: &Lane, done: Result<(), DriverError>) {
    let failed = done.as_ref().is_err_and(|error| !error.is_down());
    if lane.cancels.note_undone(failed)
        && let Err(error) = done
    {
        let name = &*lane.database.name;
        log::warn!("database {name:?}: orders to cancel jobs cannot be carried out: {error}");
    }
}

/// Reports the runs since the last report to the database; returns whether the report that was due is counted, or no report was due. The heartbeat
/// itself must not do this, because others may hold locks of the rows. For the same reason a report that times out does not make the
/// database suspected.
pub(super) fn report_runs(lane: &Lane) -> bool {
    let name = &*lane.database.name;
    let Some(report) = lane.tally.report() else { return true };
    let asked = report.clone();
    let answer = lane.database.ask_shortly(PATIENCE, move |driver| asked.make(driver));
    match (lane.tally.heard(&report, &answer), &answer) {
        (Told::Counted, _) => true,
        (Told::Forbidden, _) => {
            log::warn!(
                "database {name:?}: the numbers of runs are lost: this account may not store them (docs/grants has what it needs)"
            );
            false
        }
        (Told::Dropped, Err(error)) if error.kind() != ErrorKind::Permission => {
            log::warn!("database {name:?}: numbers of runs are lost: {}", with_causes(error));
            false
        }
        (Told::NotYet, Err(error)) => {
            log::debug!("database {name:?}: numbers of runs are not stored yet: {error}");
            false
        }
        _ => false,
    }
}

/// Takes jobs back from processes that are silent while we are not. Returns how soon there may be
/// another.
fn rescue(session: &Session, lane: &Lane) -> Result<Option<Duration>, DriverError> {
    let (database, options) = (&lane.database, &session.client.program.options);
    let begun = Instant::now();
    loop {
        let asked = Instant::now();
        let workers = database.ask(|driver| driver.workers())?;
        let ours = session.worker.id;
        let others: Vec<_> = workers.into_iter().filter(|one| one.info.id != ours).collect();
        let (judged, expired) = {
            let mut watch = database.watch.lock();
            let (own, now) = (options.dead_after, Instant::now());
            (watch.judge(&others, own, asked, now), watch.outlasted(own, now))
        };
        if lane.heart.beat_at_least_every(judged.beat_every) {
            lane.heartbeat_bell.ring();
        }
        let mut dead = judged.dead;
        let more = dead.len() > MAX_DEAD;
        dead.truncate(MAX_DEAD);
        let rescued = database.ask(move |driver| driver.rescue(&dead, expired, MAX_RESCUE))?;
        for one in &rescued {
            log::warn!(
                "database {:?}: job {} rescued from worker {}: {}",
                &*database.name,
                one.id,
                one.worker,
                one.kind
            );
        }
        if !rescued.is_empty() {
            database.bell.ring();
        }
        let over = begun.elapsed() > PASS || lane.is_stopping();
        // Where others hold the first of many, the next pass comes soon enough.
        let all = rescued.is_empty() || (!more && (rescued.len() as u32) < MAX_RESCUE);
        if over || all {
            return Ok(judged.next);
        }
    }
}

/// Removes what is old enough. Returns how long until the next time.
fn purge(session: &Session, lane: &Lane, pace: &mut Pace) -> Result<Duration, DriverError> {
    let keep = session.client.program.options.keep;
    let begun = Instant::now();
    loop {
        let (slice, asked) = (pace.slice, Instant::now());
        let done = lane.database.ask(move |driver| driver.purge(&keep, slice))?;
        let (now, took) = (Instant::now(), asked.elapsed());
        pace.note(now, took, done);
        if !done.more {
            return Ok(jitter(PURGE_EVERY));
        }
        let rest = pace.rest(now, took);
        // A ring of the bell asks for the next round: a rescue, orders to cancel, the end.
        if begun.elapsed() > PASS {
            return Ok(rest);
        }
        if lane.is_stopping() || lane.janitor_bell.wait(rest) {
            return Ok(Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::driver::{Deadline, StatScan, WorkerInfo};
    use crate::fixture::{SOON, claim, memory, records, worker};
    use crate::session::bed::{Bed, eventually};
    use crate::session::shutdown::shut_down;
    use crate::testing::FaultyDriver;

    /// Another process that claimed and fell silent.
    fn silent(bed: &Bed, jobs: usize) -> WorkerInfo {
        let driver = bed.database.driver();
        driver.insert(&records(jobs), Deadline::NONE).expect("stored");
        let other = WorkerInfo { dead_after: Duration::from_millis(200), ..worker() };
        assert_eq!(claim(&**driver, &other, 1).len(), jobs);
        other
    }

    #[test]
    fn a_clean_up_that_takes_long_goes_on_in_smaller_slices_and_a_short_one_in_larger_ones() {
        let (mut pace, now) = (Pace::new(), Instant::now());
        let (long, short) = (LONG_CALL * 2, SHORT_CALL / 2);
        for (took, then) in [
            (short, 2_000),
            (LONG_CALL, 2_000),
            (long, 1_000),
            (long, 500),
            (long, 500),
            (LONG_CALL, 500),
            (short, 1_000),
        ] {
            pace.note(now, took, Purged { removed: 1, more: true });
            assert_eq!(pace.slice, then, "{took:?}");
        }
    }

    #[test]
    fn a_clean_up_that_falls_behind_rests_less_until_nothing_is_left() {
        let (mut pace, begun, took) = (Pace::new(), Instant::now(), Duration::from_millis(10));
        let mut rest_after = |seconds, removed, more| {
            let now = begun + Duration::from_secs(seconds);
            pace.note(now, took, Purged { removed, more });
            pace.rest(now, took)
        };
        assert_eq!(rest_after(0, 7, true), took * 9);
        assert_eq!(rest_after(599, 7, true), took * 9);
        assert_eq!(rest_after(600, 7, true), took * 2);
        assert_eq!(rest_after(1_800, 7, true), took * 2);
        assert_eq!(rest_after(1_801, 7, false), took * 9, "nothing is left");
        assert_eq!(rest_after(2_500, 7, true), took * 9, "it began again");
        assert_eq!(rest_after(3_000, 0, true), took * 9, "it passed rows that are kept");
        assert_eq!(rest_after(3_100, 7, true), took * 9);
    }

    /// The numbers that the database has of runs.
    fn counted(bed: &Bed) -> u64 {
        let rows = bed.database.driver().stats(&StatScan::ever()).expect("answers");
        rows.iter().map(|row| row.stats.completed).sum()
    }

    #[test]
    fn runs_are_told_with_the_next_round_and_the_last_of_them_at_the_end() {
        let bed = Bed::with(SOON);
        bed.pace.at_once.store(true, Ordering::SeqCst);
        bed.insert(3);
        let lane = Arc::clone(&bed.session.lanes()[0]);
        eventually(|| {
            lane.janitor_bell.ring();
            counted(&bed) == 3
        });
        bed.insert(2);
        bed.begun(5);
        shut_down(&bed.session);
        assert_eq!(counted(&bed), 5);
    }

    #[test]
    fn numbers_that_this_account_may_not_write_are_lost_and_nothing_else_is() {
        let driver = FaultyDriver::new(memory()).with_fault(|call| match call {
            "add_stats" => Err(DriverError::new(ErrorKind::Permission, "it lacks INSERT")),
            _ => Ok(()),
        });
        let bed = Bed::over(Arc::new(driver), SOON);
        bed.pace.at_once.store(true, Ordering::SeqCst);
        bed.insert(1);
        bed.begun(1);
        let lane = Arc::clone(&bed.session.lanes()[0]);
        eventually(|| {
            lane.janitor_bell.ring();
            lane.tally.report().is_none()
        });
        bed.insert(1);
        bed.begun(2);
        shut_down(&bed.session);
        assert_eq!((counted(&bed), bed.left()), (0, (0, 0, 0)));
    }

    #[test]
    fn a_report_that_fails_is_made_again_and_those_behind_it_too() {
        let lost = AtomicBool::new(true);
        let driver = FaultyDriver::new(memory()).with_fault(move |call| {
            if call == "add_stats" && lost.swap(false, Ordering::SeqCst) {
                return Err(DriverError::new(ErrorKind::Contention, "somebody holds the row"));
            }
            Ok(())
        });
        let bed = Bed::over(Arc::new(driver), SOON);
        bed.pace.at_once.store(true, Ordering::SeqCst);
        let lane = Arc::clone(&bed.session.lanes()[0]);
        for runs in 1..=3 {
            bed.insert(1);
            eventually(|| {
                lane.janitor_bell.ring();
                counted(&bed) == runs
            });
        }
        shut_down(&bed.session);
        assert_eq!(counted(&bed), 3);
    }

    #[test]
    fn jobs_of_a_process_that_falls_silent_run_again_here() {
        let bed = Bed::with(SOON);
        eventually(|| bed.left().2 == 1);
        // Nothing is claimed here meanwhile.
        bed.database.order(crate::driver::Order::Paused, true).expect("answers");
        silent(&bed, 3);
        bed.database.order(crate::driver::Order::Paused, false).expect("answers");
        bed.pace.may_end.ring();
        let lanes = bed.session.lanes();
        eventually(|| {
            lanes[0].janitor_bell.ring();
            lanes[0].heartbeat_bell.ring();
            bed.pace.begun.load(Ordering::SeqCst) == 3
        });
        eventually(|| bed.left() == (0, 0, 1));
        let log = bed.database.driver().scan_exceptions(&crate::driver::ExceptionScan::all(30));
        assert_eq!(log.expect("answers").len(), 3, "a row for each crash");
        shut_down(&bed.session);
    }
}
