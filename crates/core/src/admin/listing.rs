//! Questions to all databases.

use std::collections::BTreeMap;
use std::sync::Arc;

use qudo_hooks::{CodecSet, JobId};

use super::failures::{self, FailureGroups};
use super::jobs::Question;
use super::page::{Budget, Cursor, Listing, Page, Paging, Position};
use super::past::{self, Extent};
use crate::client::Client;
use crate::database::Database;
use crate::database::asked::{Asked, LISTING};
use crate::database::everywhere::PerDatabase;
use crate::database::set::Databases;
use crate::driver::{CountRow, Driver, DriverError, Exception, JobInfo, StatusRow, WorkerSeen};
use crate::error::Error;
use crate::filter::{ExceptionFilter, Field, Filter, Filtered, JobFilter, StatusFilter, Value};
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

/// Live jobs that a filter means.
pub(crate) fn jobs(client: &Arc<Client>, filter: &JobFilter, paging: &Paging) -> Listing<JobInfo> {
    list(client, "list jobs", filter, paging, |ask| {
        let Ask { driver, database, codecs, filter, paging, budget, from } = ask;
        Question { driver, database, codecs, filter, paging, budget }.page(from)
    })
}

/// Rows of the exception log that a filter means, newest first.
pub(crate) fn exceptions(
    client: &Arc<Client>,
    filter: &ExceptionFilter,
    paging: &Paging,
) -> Listing<Exception> {
    list(client, "read the exception log", filter, paging, |ask| {
        let Ask { driver, database, codecs, filter, paging, budget, from } = ask;
        past::exceptions(
            driver,
            database,
            codecs,
            filter,
            &Extent { paging, budget: &budget, from },
        )
    })
}

/// Rows of the job status that a filter means, newest first.
pub(crate) fn statuses(
    client: &Arc<Client>,
    filter: &StatusFilter,
    paging: &Paging,
) -> Listing<StatusRow> {
    list(client, "read the job status", filter, paging, |ask| {
        let Ask { driver, database, codecs, filter, paging, budget, from } = ask;
        past::status(driver, database, codecs, filter, &Extent { paging, budget: &budget, from })
    })
}

/// Failures that a filter means, by kind.
pub(crate) fn failures(
    client: &Arc<Client>,
    filter: &ExceptionFilter,
    search: u32,
) -> Vec<PerDatabase<FailureGroups>> {
    let begin = |database: Arc<Database>| {
        if is_left_out(filter, &database) {
            return None;
        }
        let time = database.limit().saturating_mul(LISTING) / 2;
        let (client, name, filter) =
            (Arc::clone(client), Arc::clone(&database.name), filter.clone());
        let asked = database.begin("group failures", move |driver| {
            let (codecs, budget) = (&client.program.codecs, Budget::new(search, time));
            failures::group(driver, &name, codecs, &filter, &budget)
        });
        Some((database, asked))
    };
    let asked: Vec<_> = client.databases.everywhere().into_iter().filter_map(begin).collect();
    let answer = |(database, asked): (Arc<Database>, Asked<_>)| PerDatabase {
        database: database.name.to_string(),
        answer: asked.wait(),
    };
    asked.into_iter().map(answer).collect()
}

/// Whether no row of a database can be meant.
pub(super) fn is_left_out<R>(filter: &Filter<R>, database: &Database) -> bool {
    let known = |field, _: &[String]| match field {
        Field::Db => Value::text(&*database.name),
        _ => Value::Unknown,
    };
    filter.holds(&known) == Some(false)
}

/// What one database is asked for its page.
struct Ask<'a, R> {
    driver: &'a dyn Driver,
    database: &'a str,
    codecs: &'a CodecSet,
    filter: &'a Filter<R>,
    paging: &'a Paging,
    budget: Budget,
    from: Option<&'a Position>,
}

type Answer<R> = Result<(Page<R>, Option<Position>), DriverError>;

/// Asks all databases at the same time that the filter does not leave out, and that are not at their end.
fn list<R: Filtered + Send + 'static>(
    client: &Arc<Client>,
    action: &'static str,
    filter: &Filter<R>,
    paging: &Paging,
    page: fn(Ask<'_, R>) -> Answer<R>,
) -> Listing<R> {
    let wanted = Arc::new((filter.clone(), paging.clone()));
    let ask = |database: Arc<Database>| {
        let from = match &paging.after {
            None => Position::Start,
            Some(cursor) => cursor.of(&database.name)?.clone(),
        };
        if is_left_out(filter, &database) {
            return None;
        }
        // In half of the time that a listing has, so that what was found is told.
        let time = database.limit().saturating_mul(LISTING) / 2;
        let (client, name, wanted) =
            (Arc::clone(client), Arc::clone(&database.name), Arc::clone(&wanted));
        let start = from.clone();
        let asked = database.begin(action, move |driver| {
            let (filter, paging) = &*wanted;
            let budget = Budget::new(paging.search, time);
            let (codecs, from) = (&client.program.codecs, Some(&start));
            page(Ask { driver, database: &name, codecs, filter, paging, budget, from })
        });
        Some((database, from, asked))
    };
    let begun: Vec<_> = client.databases.everywhere().into_iter().filter_map(ask).collect();
    let mut of = BTreeMap::new();
    let pages = begun.into_iter().map(|(database, from, asked)| {
        let answer = asked.wait();
        let next = match &answer {
            Ok((_, next)) => next.clone(),
            Err(_) => Some(from),
        };
        if let Some(next) = next {
            of.insert(database.name.to_string(), next);
        }
        PerDatabase { database: database.name.to_string(), answer: answer.map(|(page, _)| page) }
    });
    let pages = pages.collect();
    Listing { pages, next: Cursor::new(of) }
}

/// Live jobs, counted.
pub(crate) fn job_count(databases: &Databases) -> Vec<PerDatabase<Vec<JobCount>>> {
    databases.on_each("count jobs", |driver| driver.count())
}

/// The worker processes that each database knows.
pub(crate) fn workers(databases: &Databases) -> Vec<PerDatabase<Vec<WorkerSeen>>> {
    databases.on_each("list worker processes", |driver| driver.workers())
}

/// The history of a job, oldest first.
pub(crate) fn job_status(databases: &Databases, job: JobId) -> Result<Vec<StatusRow>, Error> {
    let found = databases.first("read a job's status", move |driver| {
        Ok(Some(driver.status(job)?).filter(|rows| !rows.is_empty()))
    })?;
    Ok(found.map_or_else(Vec::new, |(_, rows)| rows))
}
