//! What can be done with one job from outside.

use std::sync::Arc;

use qudo_hooks::JobId;
use uuid::Uuid;

use crate::backoff::LONGEST_DELAY;
use crate::client::Client;
use crate::client::ticket::Ticket;
use crate::database::set::Databases;
use crate::driver::{Due, Redrive};
use crate::error::Error;
use crate::observe::Event;

/// Removes a job that does not run; tells whether it did.
pub(crate) fn dequeue(client: &Client, id: JobId) -> Result<bool, Error> {
    let removed = client
        .databases
        .first("dequeue a job", move |driver| Ok(driver.dequeue(id)?.then_some(())))?;
    client.waiters.note([id]);
    if removed.is_some() {
        client.program.tell(|| Event::Dropped { job: id });
    }
    Ok(removed.is_some())
}

/// Changes when a waiting job runs; tells whether it did.
pub(crate) fn reenqueue(databases: &Databases, id: JobId, due: Due) -> Result<bool, Error> {
    let due = match due {
        Due::In(delay) => Due::In(delay.min(LONGEST_DELAY)),
        other => other,
    };
    let moved = databases
        .first("reenqueue a job", move |driver| Ok(driver.reschedule(id, due)?.then_some(())))?;
    let Some((name, ())) = moved else {
        return Ok(false);
    };
    databases.found(&name)?.bell.ring();
    Ok(true)
}

/// Enqueues a discarded job again from the exception log.
pub(crate) fn redrive(client: &Arc<Client>, exception: Uuid) -> Result<Ticket, Error> {
    let refused = |reason: String| Error::NotRedrivable { exception, reason };
    let new = JobId::new();
    let found = client.databases.first("redrive a job", move |driver| {
        Ok(Some(driver.redrive(exception, new)?).filter(|one| *one != Redrive::NotFound))
    })?;
    match found {
        Some((name, Redrive::Enqueued(job))) => {
            let database = client.databases.found(&name)?;
            database.bell.ring();
            Ok(Ticket::new(client, job, Some(database)))
        }
        Some((_, Redrive::Already(job))) => Err(Error::AlreadyRedriven { exception, job }),
        Some((_, Redrive::Conflict(job))) => {
            Err(refused(format!("job {job} lives and holds its unique key")))
        }
        Some((_, Redrive::NotDiscarded)) => {
            Err(refused("it was not the job's last failure: the job was retried".to_owned()))
        }
        _ => Err(refused("no database has such a row".to_owned())),
    }
}
