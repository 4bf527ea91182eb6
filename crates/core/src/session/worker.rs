use std::sync::Arc;

use qudo_hooks::Outcome;

use crate::job::Tenure;
use crate::session::Session;
use crate::session::run::{Context, run_job};
use crate::tools::guard::{guard, say};
use crate::tools::time::Instant;

/// Runs jobs on one thread until the session stops.
pub(crate) fn run(session: &Session) {
    let mut took = None;
    while let Some((lane, job)) = session.dispatch.pop(took.take()) {
        if lane.is_stopping() || !lane.heart.holds_leases() {
            lane.give_back(job);
            continue;
        }
        let begun = Instant::now();
        let context = Context {
            program: &session.client.program,
            host: &session.host,
            database: &lane.database.name,
            driver: lane.database.driver(),
            worker: &session.worker,
        };
        let tenure = Arc::clone(&lane) as Arc<dyn Tenure>;
        let id = job.id;
        // The user's code is contained further in; what is left is a logger or an observer.
        let ran = guard(|| run_job(&context, tenure, job));
        let Ok((settlement, outcome)) = ran else {
            say(|| log::error!("job {id} will run again when its lease ends: its run panicked"));
            lane.note_settled(1);
            continue;
        };
        took = Some(begun.elapsed());
        if let Some(settlement) = settlement {
            lane.settle.push(settlement);
            continue;
        }
        // The ability settled it in a transaction of its own.
        lane.note_settled(1);
        session.client.waiters.note([id]);
        if matches!(outcome, Outcome::Replaced(_)) {
            lane.database.bell.ring();
        }
    }
}
