//! Jobs that end because an operator cancelled them, where they do not run.

use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::{JobId, JobView};

use super::Client;
use super::draft::call_post_cancel;
use crate::database::Database;
use crate::driver::{Act, Acted, Driver, DriverError, JobInfo};
use crate::observe::Event;
use crate::tools::time::Instant;

/// What a cancel of jobs did in one database, and what hooks have to know of those that ended.
pub(crate) struct Ended {
    pub(crate) answers: Vec<Acted>,
    jobs: Vec<JobInfo>,
}

/// Asks a database to cancel jobs. Hooks are told of the facts as they were before, so these are read where there are hooks.
pub(crate) fn ask(
    driver: &dyn Driver,
    jobs: &[JobId],
    reason: &str,
    by_force: bool,
    has_hooks: bool,
    act: impl FnOnce(&Act) -> Result<Option<Vec<Acted>>, DriverError>,
) -> Result<Option<Ended>, DriverError> {
    let infos = if has_hooks { driver.jobs(jobs, false)? } else { Vec::new() };
    let answers = act(&Act::Cancel { reason: reason.to_owned(), by_force })?;
    Ok(answers.map(|answers| {
        let is_done =
            |id| jobs.iter().zip(&answers).any(|(job, acted)| *job == id && *acted == Acted::Done);
        let jobs = infos.into_iter().filter(|info| is_done(info.id)).collect();
        Ended { answers, jobs }
    }))
}

/// Wakes who waits for these jobs, and tells hooks.
pub(crate) fn tell(
    client: &Client,
    database: &Arc<Database>,
    jobs: &[JobId],
    ended: &Ended,
    reason: &str,
) {
    let done = jobs.iter().zip(&ended.answers).filter(|(_, acted)| **acted == Acted::Done);
    let done: Vec<_> = done.map(|(job, _)| *job).collect();
    client.waiters.note(done.iter().copied());
    for job in done {
        client.program.tell(|| Event::Dropped { job });
    }
    let (program, hooks) = (&client.program, client.program.hooks());
    for info in &ended.jobs {
        let max_retries = program.max_retries(&info.facts.ability);
        let facts = &info.facts;
        let view = JobView::new(info.id, &facts.ability, &facts.queue)
            .with_arg(&facts.codec, &[])
            .with_database(&database.name)
            .with_uniqkey(facts.uniqkey.as_deref())
            .with_priority(facts.priority)
            .with_meta(facts.meta.as_deref())
            .with_attempt(info.attempt, max_retries)
            .with_enqueued_at(Some(info.enqueued_at))
            .with_plugins(&program.plugins);
        call_post_cancel(program, &hooks, &view, reason);
    }
}

/// At most so many orders are carried out in one pass.
const MAX_ORDERS: u32 = 100;

/// One pass begins no other order after so long: hooks are called in between, and others wait for the thread.
const PASS: Duration = Duration::from_secs(1);

/// Ends the jobs that were ordered to end while they ran, and do not run any more: they were retried, put off, or taken
/// back from a worker that died. An order that cannot be carried out keeps no other from it; the first error is told.
pub(crate) fn carry_out(client: &Client, database: &Arc<Database>) -> Result<(), DriverError> {
    let (begun, has_hooks) = (Instant::now(), !client.program.hooks().is_empty());
    let open = database.ask(|driver| driver.open_cancels(MAX_ORDERS))?;
    let mut failed = Ok(());
    for (job, reason) in open {
        let why = reason.clone();
        let ended = database.ask(move |driver| {
            ask(driver, &[job], &why, false, has_hooks, |act| driver.act(act, &[job], None))
        });
        match ended {
            Ok(Some(ended)) => tell(client, database, &[job], &ended, &reason),
            Ok(None) => {}
            Err(error) => failed = failed.and(Err(error)),
        }
        if begun.elapsed() > PASS {
            break;
        }
    }
    failed
}
