//! Questions to all databases.

use qudo_hooks::JobId;

use crate::database::everywhere::PerDatabase;
use crate::database::set::Databases;
use crate::driver::{
    CountRow, Exception, ExceptionFilter, JobFilter, JobInfo, StatusRow, WorkerSeen,
};
use crate::error::Error;
use crate::program::Program;

/// Live jobs of one queue, ability and state, in one database.
pub type JobCount = CountRow;

/// Waiting jobs that no worker like this manager will ever run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unworkable {
    /// Their ability.
    pub ability: String,
    /// Their queue.
    pub queue: String,
    /// How many.
    pub count: u64,
    /// Why.
    pub reason: &'static str,
}

/// Which waiting jobs nobody like this manager can do.
pub(crate) fn check_abilities(
    program: &Program,
    databases: &Databases,
) -> Vec<PerDatabase<Vec<Unworkable>>> {
    let queues = program.queues();
    let undoable = |row: CountRow| {
        let reason = if !program.abilities.can_do(&row.ability) {
            "no ability of this name is linked"
        } else if !queues.iter().any(|queue| **queue == *row.queue) {
            "this queue is not worked"
        } else {
            return None;
        };
        let CountRow { ability, queue, count, .. } = row;
        Some(Unworkable { ability, queue, count, reason })
    };
    let check = |on: PerDatabase<Vec<CountRow>>| PerDatabase {
        database: on.database,
        answer: on.answer.map(|rows| rows.into_iter().filter_map(undoable).collect()),
    };
    job_count(databases).into_iter().map(check).collect()
}

/// A live job.
pub(crate) fn lookup(databases: &Databases, id: JobId) -> Result<Option<(String, JobInfo)>, Error> {
    databases.first("look up a job", move |driver| driver.lookup(id))
}

/// The live job that holds a unique key.
pub(crate) fn holder(
    databases: &Databases,
    ability: &str,
    uniqkey: &str,
) -> Result<Option<(String, JobId)>, Error> {
    let (ability, uniqkey) = (ability.to_owned(), uniqkey.to_owned());
    databases.first("look up a unique key", move |driver| driver.holder(&ability, &uniqkey))
}

/// Live jobs.
pub(crate) fn jobs(databases: &Databases, filter: &JobFilter) -> Vec<PerDatabase<Vec<JobInfo>>> {
    let filter = filter.clone();
    databases.on_each("list jobs", move |driver| driver.list(&filter))
}

/// Live jobs, counted.
pub(crate) fn job_count(databases: &Databases) -> Vec<PerDatabase<Vec<JobCount>>> {
    databases.on_each("count jobs", |driver| driver.count())
}

/// The worker processes that each database knows.
pub(crate) fn workers(databases: &Databases) -> Vec<PerDatabase<Vec<WorkerSeen>>> {
    databases.on_each("list worker processes", |driver| driver.workers())
}

/// The exception log, newest first.
pub(crate) fn exceptions(
    databases: &Databases,
    filter: &ExceptionFilter,
) -> Vec<PerDatabase<Vec<Exception>>> {
    let filter = filter.clone();
    databases.on_each("read the exception log", move |driver| driver.exceptions(&filter))
}

/// The history of a job, oldest first.
pub(crate) fn job_status(databases: &Databases, job: JobId) -> Result<Vec<StatusRow>, Error> {
    let found = databases.first("read a job's status", move |driver| {
        Ok(Some(driver.status(job)?).filter(|rows| !rows.is_empty()))
    })?;
    Ok(found.map_or_else(Vec::new, |(_, rows)| rows))
}
