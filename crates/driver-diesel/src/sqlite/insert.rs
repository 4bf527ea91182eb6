use diesel::SqliteConnection;
use diesel::result::QueryResult;
use qudo_core::driver::{Due, JobRecord};

use super::Sqlite;
use crate::bulk::insert_rows_from;
use crate::sql::{Bind, Sql};
use crate::statements::facts;
use crate::statements::insert::insert_new_rows;
use crate::statements::ledger::balance;

/// Shorter runs of like jobs gain nothing.
const MIN_RUN: usize = 4;

/// Stores new jobs; those in a row that differ only in id and argument share the other values.
///
/// Each bound value costs a lock of SQLite's and two calls of diesel's, together more than the
/// b-tree's part in a row: three values a job instead of thirteen store twice as many a second.
///
/// Locking: the caller's `BEGIN IMMEDIATE`.
pub(super) fn insert_new(
    conn: &mut Sql<'_, SqliteConnection>,
    jobs: &[&JobRecord],
) -> QueryResult<()> {
    let mut others = Vec::new();
    for run in jobs.chunk_by(|one, next| are_alike(one, next)) {
        if run.len() < MIN_RUN || !is_plain(run[0]) {
            others.extend(run.iter().copied());
        } else {
            insert_run(conn, run)?;
        }
    }
    if others.is_empty() { Ok(()) } else { insert_new_rows::<Sqlite>(conn, &others) }
}

fn is_plain(job: &JobRecord) -> bool {
    facts::is_plain(&job.facts) && job.due == Due::Now
}

fn are_alike(one: &JobRecord, other: &JobRecord) -> bool {
    one.due == Due::Now && other.due == Due::Now && facts::are_alike(&one.facts, &other.facts)
}

fn insert_run(conn: &mut Sql<'_, SqliteConnection>, run: &[&JobRecord]) -> QueryResult<()> {
    let job = run[0];
    let (queue, ability) = (Bind::Text(&job.facts.queue), Bind::Text(&job.facts.ability));
    let facts = "INSERT INTO qudo_job (id, arg, queue, ability, codec, priority, enqueued_at) \
                 SELECT column1, column2, ?, ?, ?, ?, CAST(unixepoch('subsec') * 1000000 AS \
                 INTEGER) FROM (VALUES ";
    let shared = [queue, ability, Bind::Text(&job.facts.codec), Bind::Int(job.facts.priority)];
    let rows = run.iter().map(|job| [Bind::Id(job.id.as_uuid()), Bind::Bytes(&job.facts.arg)]);
    let stored = insert_rows_from(conn, facts, &shared, "(?,?)", rows, ")")?;
    let ready = "INSERT INTO qudo_ready (id, queue, claim_rank, ability, attempt, crashes, flags) \
                 SELECT column1, ?, ?, ?, 0, 0, 0 FROM (VALUES ";
    let shared = [queue, Bind::Int(-job.facts.priority), ability];
    let rows = run.iter().map(|job| [Bind::Id(job.id.as_uuid())]);
    let placed = insert_rows_from(conn, ready, &shared, "(?)", rows, ")")?;
    balance("insert facts", run.len(), stored)?;
    balance("insert places", run.len(), placed)
}
