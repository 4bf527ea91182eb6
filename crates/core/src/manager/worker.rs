use std::time::Instant;

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
        };
        let (settlement, _) = run_job(&context, job);
        took = Some(begun.elapsed());
        match settlement {
            Some(settlement) => lane.settle.push(settlement),
            None => lane.note_settled(session, 1),
        }
    }
}
