//! One job by its id, on the calling thread: for somebody who tries it while its queue is stopped.

use std::sync::Arc;

use qudo_hooks::{JobId, Outcome};

use super::once::{Once, RanOnce};
use crate::client::Client;
use crate::database::schema::check_schema;
use crate::driver::{Driver, JobInfo, JobState};
use crate::error::Error;
use crate::job::Host;

/// Runs this job on the calling thread and settles it.
pub(crate) fn run_job(
    client: &Arc<Client>,
    host: &Arc<dyn Host>,
    id: JobId,
) -> Result<Outcome, Error> {
    let program = &client.program;
    program.check_needs()?;
    let refused = |reason: String| Err(Error::NotRunnable { job: id, reason });
    let look = move |driver: &dyn Driver| driver.lookup(id);
    let Some((name, job)) = client.databases.first("look up a job", look)? else {
        return refused("no database has it: it ended, or was never stored".to_owned());
    };
    let ability = &job.facts.ability;
    let leases = program.leases();
    let Some(lease) = leases.iter().find(|one| one.name == *ability) else {
        return refused(format!(
            "this program has no ability {ability:?}; a program that has it runs the job, such as a service with the \
             operator's commands in it (qudo_cli::run_with)"
        ));
    };
    let database = client.databases.found(&name)?;
    if client.databases.is_spool(&database) {
        return refused("it waits in the spool until a database takes it".to_owned());
    }
    check_schema(&database)?;
    match Once::new(client, host).by_id(&database, id, lease.grab_for)? {
        Some(RanOnce { is_lost: true, .. }) => Err(Error::LeaseLost { job: id }),
        Some(RanOnce { outcome, .. }) => Ok(outcome),
        // It may have moved since the look.
        None => match client.databases.first("look up a job", look)? {
            Some((_, job)) => refused(where_it_is(&job)),
            None => refused("it ended at this moment".to_owned()),
        },
    }
}

/// Why it could not be claimed.
fn where_it_is(job: &JobInfo) -> String {
    match &job.state {
        JobState::Running { worker, until } => {
            format!("it runs: worker process {worker} holds its lease until {until}")
        }
        JobState::Moving => "it is on its way to another database".to_owned(),
        _ => "a worker process claimed it, or it was removed, at this moment".to_owned(),
    }
}
