//! Stop claiming → give back unstarted → wait for the running → settle → remove the worker.

use std::sync::Arc;
use std::time::Duration;

use super::Session;
use super::lane::Lane;
use super::stop::Phase;
use crate::database::Database;
use crate::tools::time::Instant;

/// A database that answers gets so long to settle even when jobs used up the time of a stop.
const GRACE: Duration = Duration::from_millis(500);

/// Ends a session within its time; what still runs then goes on.
pub(crate) fn shut_down(session: &Session) {
    let (stop, deadline) = (&session.stop, deadline(session));
    log::info!("worker process {} stops", session.worker.name);
    stop.advance(Phase::Stopping);
    session.dispatch.close();
    let lanes = session.lanes();
    for lane in &lanes {
        session.dispatch.take_back(lane.index).into_iter().for_each(|job| lane.give_back(job));
        lane.ring_all();
    }
    if !stop.wait_for(deadline, || stop.workers() == 0) {
        log::warn!(
            "{} jobs still run after the shutdown timeout; if the process ends before they do, \
             they are rescued and run again",
            stop.workers()
        );
        if !stop.is_hard() {
            return leave_running(session, deadline, &lanes);
        }
    }
    // A settler ends when nothing more can come: no job runs and its fetcher has ended, so that
    // what a last claim brought is given back too. A fetcher that hangs holds up only its own.
    stop.wait_for(deadline, || {
        lanes.iter().filter(|lane| !lane.is_fetching()).for_each(|lane| lane.settle.close());
        lanes.iter().all(|lane| !lane.is_fetching())
    });
    for lane in &lanes {
        lane.settle.close();
    }
    wait_for_lanes(session, deadline, &lanes);
}

fn deadline(session: &Session) -> Instant {
    Instant::now() + session.client.program.options.shutdown_timeout
}

/// The process may live on, so what still runs is settled when it ends, and its lease is kept
/// alive until then. What has ended gets a moment to be settled now.
fn leave_running(session: &Session, deadline: Instant, lanes: &[Arc<Lane>]) {
    let stop = &session.stop;
    stop.advance(Phase::Overdue);
    session.end_if_overdue();
    let grace = deadline.max(Instant::now() + GRACE);
    stop.wait_for(grace, || {
        if stop.workers() == 0 {
            return lanes.iter().all(|lane| lane.has_ended());
        }
        lanes.iter().all(|lane| lane.settle.is_idle())
    });
}

/// Waits until the lanes' threads ended, or gives them up.
fn wait_for_lanes(session: &Session, deadline: Instant, lanes: &[Arc<Lane>]) {
    let grace = deadline.max(Instant::now() + GRACE);
    if !session.stop.wait_for(grace, || lanes.iter().all(|lane| lane.has_ended())) {
        log::warn!(
            "a database did not answer before the shutdown timeout; its jobs will be rescued"
        );
    }
    for lane in lanes {
        lane.give_up();
    }
}

/// Ends the work for one database, while the others go on.
pub(crate) fn remove_lane(session: &Session, database: &Arc<Database>) {
    let lanes = session.lanes();
    let mut ours = lanes.iter().filter(|lane| Arc::ptr_eq(&lane.database, database));
    let Some(lane) = ours.next_back() else { return };
    let (stop, deadline) = (&session.stop, deadline(session));
    lane.leave();
    session.dispatch.take_back(lane.index).into_iter().for_each(|job| lane.give_back(job));
    lane.ring_all();
    if !stop.wait_for(deadline, || lane.is_empty()) {
        // Its threads end by themselves with the last run: the result is still settled.
        log::warn!("database {:?} is removed; jobs of it still run", &*lane.database.name);
        return;
    }
    lane.heartbeat_bell.ring();
    // The listener notices the end only at its next tick, and takes the lane's place with it.
    let has_place = || session.lanes().iter().any(|one| Arc::ptr_eq(one, lane));
    stop.wait_for(deadline, || lane.has_ended() && (lane.listens() || !has_place()));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::fixture::SOON;
    use crate::session::bed::{Bed, eventually};
    use crate::session::start::add_lane;

    #[test]
    fn an_idle_session_ends_at_once_and_leaves_nothing() {
        let bed = Bed::with(SOON);
        eventually(|| bed.left().2 == 1);
        let begun = Instant::now();
        shut_down(&bed.session);
        assert!(begun.elapsed() < SOON / 2);
        assert_eq!(bed.left(), (0, 0, 0));
        assert!(bed.session.lanes().iter().all(|lane| lane.has_ended()));
    }

    #[test]
    fn what_runs_may_end_and_what_has_not_begun_goes_back() {
        let bed = Bed::with(SOON);
        bed.insert(5);
        bed.begun(1);
        bed.pace.may_end.ring();
        shut_down(&bed.session);
        let (ready, running, workers) = bed.left();
        let done = u64::from(bed.pace.begun.load(Ordering::SeqCst));
        assert_eq!((ready + done, running, workers), (5, 0, 0));
    }

    #[test]
    fn what_runs_on_after_the_time_of_the_stop_is_settled_when_it_ends() {
        let bed = Bed::with(Duration::from_millis(20));
        bed.insert(1);
        bed.begun(1);
        shut_down(&bed.session);
        assert_eq!(bed.left(), (0, 1, 1), "it keeps its lease");
        assert_eq!(bed.session.stop.phase(), Phase::Overdue);
        bed.pace.may_end.ring();
        eventually(|| bed.left() == (0, 0, 0));
    }

    #[test]
    fn a_stop_at_once_waits_for_nobody() {
        let bed = Bed::with(SOON);
        bed.insert(1);
        bed.begun(1);
        bed.session.stop.ask(true);
        let begun = Instant::now();
        shut_down(&bed.session);
        assert!(begun.elapsed() < SOON / 2);
        bed.pace.may_end.ring();
    }

    #[test]
    fn a_database_that_is_removed_leaves_no_thread_and_no_place() {
        let bed = Bed::with(SOON);
        for _ in 0..3 {
            eventually(|| bed.left().2 == 1);
            remove_lane(&bed.session, &bed.database);
            eventually(|| bed.session.lanes().is_empty());
            assert_eq!(bed.left().2, 0);
            let weak = Arc::downgrade(&bed.database);
            add_lane(&bed.session, &bed.database).expect("starts");
            let lanes = bed.session.lanes();
            assert_eq!((lanes.len(), lanes[0].index), (1, 0), "in the place of the former");
            assert!(weak.strong_count() > 0);
        }
        bed.insert(1);
        bed.begun(1);
        bed.pace.may_end.ring();
        eventually(|| bed.left().0 + bed.left().1 == 0);
        shut_down(&bed.session);
        assert_eq!(bed.left(), (0, 0, 0));
    }

    #[test]
    fn a_thread_that_ran_a_job_of_a_removed_database_does_not_hold_on_to_it() {
        let bed = Bed::with(SOON);
        let lane = Arc::downgrade(&bed.session.lanes()[0]);
        bed.insert(1);
        bed.begun(1);
        bed.pace.may_end.ring();
        eventually(|| bed.left().0 + bed.left().1 == 0);
        remove_lane(&bed.session, &bed.database);
        eventually(|| lane.strong_count() == 0);
        shut_down(&bed.session);
    }

    #[test]
    fn a_job_of_a_removed_database_is_settled_all_the_same() {
        let bed = Bed::with(Duration::from_millis(20));
        bed.insert(1);
        bed.begun(1);
        remove_lane(&bed.session, &bed.database);
        assert_eq!(bed.left().1, 1);
        bed.pace.may_end.ring();
        eventually(|| bed.left() == (0, 0, 0) && bed.session.lanes().is_empty());
        shut_down(&bed.session);
    }
}
