use crate::tools::guard::{guard, say};
use crate::tools::time::Instant;

use qudo_hooks::Outcome;

use super::run::{Context, run_job};
use super::session::Session;

/// Runs jobs on one thread until the session stops.
pub(super) fn run(session: &Session) {
    let mut took = None;
    while let Some((lane, job)) = session.dispatch.pop(took.take()) {
        if lane.is_stopping(session) || !lane.holds_leases() {
            lane.give_back(job);
            continue;
        }
        let begun = Instant::now();
        let context = Context {
            manager: &session.manager,
            database: &lane.database.name,
            driver: &lane.database.driver,
            worker: session.worker.id,
            stopping: &session.stopping,
            lane: Some(&lane),
        };
        let id = job.id;
        // The user's code is contained further in; what is left is a logger or an observer.
        let ran = guard(|| run_job(&context, job));
        let Ok((settlement, outcome)) = ran else {
            say(|| log::error!("job {id} will run again when its lease ends: its run panicked"));
            lane.note_settled(session, 1);
            continue;
        };
        took = Some(begun.elapsed());
        if let Some(settlement) = settlement {
            lane.settle.push(settlement);
            continue;
        }
        // The ability settled it in a transaction of its own.
        lane.note_settled(session, 1);
        session.manager.inner.waiters.note([id]);
        if matches!(outcome, Outcome::Replaced(_)) {
            lane.database.bell.ring();
        }
    }
}
