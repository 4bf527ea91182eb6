use diesel::PgConnection;
use diesel::result::{Error, QueryResult};
use qudo_core::driver::{DriverError, Due, Inserted, JobRecord};

use super::notify::CHANNEL;
use super::{Array, Postgres};
use crate::classify::{Class, classify};
use crate::clock::{TooLate, Window};
use crate::engine::{Engine, micros};
use crate::sql::{Bind, SqlConn};
use crate::statements::insert::insert;
use crate::statements::ledger::{Mismatch, balance, inner};

/// Rows of one statement: enough for full speed, few enough to keep its memory small.
const MOST_ROWS: usize = 2_000;

/// Bytes of arguments in one statement.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// The end of each statement here: the number of jobs that were stored, which is 0 outside of the
/// window. The rows are counted inside of it, because a statement by itself is its own commit: an error
/// afterwards would come too late. A trigger or a rule may have kept a row out of either table.
const COUNTED: &str = "SELECT CASE WHEN (SELECT count(*) FROM job) = (SELECT count(*) FROM placed) \
     AND (SELECT count(*) FROM job) IN (0, ?) THEN (SELECT count(*) FROM placed) \
     ELSE CAST(qudo_refuse('rows do not add up: ' || (SELECT count(*) FROM job) || ' facts, ' \
     || (SELECT count(*) FROM placed) || ' places put by the step \"insert\"') AS BIGINT) END";

/// The facts and the narrow rows of jobs that are ready at once.
const READY: &str = "WITH job AS (INSERT INTO qudo_job (id, queue, ability, codec, arg, uniqkey, \
     priority, enqueued_at) SELECT t.*, qudo_now() FROM unnest(?, ?, ?, ?, ?, ?, ?) AS t \
     WHERE (SELECT qudo_now()) BETWEEN ? AND ? RETURNING id, queue, ability, priority), \
     placed AS (INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes) \
     SELECT queue, -priority, id, ability, 0, 0 FROM job RETURNING 1)";

/// The same for one job, without arrays: they cost more than the row. It answers with the number of its
/// places instead of a row that compares them with its facts, which would cost an enqueue one by one a
/// twenty-fifth; see [`take_back`]. Values are bound once: each parameter costs the server a look-up.
const ONE: &str = "WITH job AS (INSERT INTO qudo_job (id, queue, ability, codec, arg, uniqkey, \
     priority, enqueued_at) SELECT ?, ?, ?, ?, ?, NULL, ?, qudo_now() \
     WHERE qudo_now() BETWEEN ? AND ? RETURNING id) \
     INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes) \
     SELECT $2, -$6, id, $3, 0, 0 FROM job";

/// The facts of a job that has no place. One statement, so that a job on its way from one place to the
/// next is seen in exactly one of them.
const WITHOUT_PLACE: &str = "DELETE FROM qudo_job j WHERE j.id = ? \
     AND NOT EXISTS (SELECT FROM qudo_ready r WHERE r.queue = j.queue \
         AND r.claim_rank = -j.priority AND r.id = j.id) \
     AND NOT EXISTS (SELECT FROM qudo_scheduled s WHERE s.id = j.id) \
     AND NOT EXISTS (SELECT FROM qudo_lease l WHERE l.id = j.id) \
     AND NOT EXISTS (SELECT FROM qudo_moving m WHERE m.id = j.id AND m.leg IN ('leaving', 'arriving'))";

/// The same for jobs that wait; the last two arrays say until when.
const SCHEDULED: &str = "WITH data AS (SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?) \
     AS t (id, queue, ability, codec, arg, uniqkey, priority, at, after) \
     WHERE (SELECT qudo_now()) BETWEEN ? AND ?), \
     job AS (INSERT INTO qudo_job (id, queue, ability, codec, arg, uniqkey, priority, enqueued_at) \
     SELECT id, queue, ability, codec, arg, uniqkey, priority, qudo_now() FROM data RETURNING 1), \
     placed AS (INSERT INTO qudo_scheduled (run_after, id, queue, claim_rank, ability, attempt, crashes) \
     SELECT COALESCE(at, qudo_now() + after), id, queue, -priority, ability, 0, 0 FROM data \
     RETURNING 1)";

/// One statement, one commit, one round trip in the common case: no unique keys and few rows.
///
/// Locking: new ids only. An id that is there already violates the primary key, and then the long
/// way finds out which.
pub(super) fn insert_commit(
    engine: &Postgres,
    jobs: &[JobRecord],
    window: &Window,
) -> Result<(Vec<Inserted>, bool), DriverError> {
    let keyless = jobs.iter().all(|job| job.uniqkey.is_none());
    let ready = jobs.iter().filter(|job| job.due == Due::Now).count();
    // One statement stores either kind.
    let alike = keyless && (ready == jobs.len() || ready == 0);
    // After a quiet moment nobody else is likely to commit at this instant, so the lock that NOTIFY
    // takes until the commit hurts nobody, and a round trip and a thread's wake are saved.
    let notify = alike && jobs.len() == 1 && ready == 1 && engine.notifier.is_quiet();
    engine.write(|conn| {
        if alike && pieces(jobs.iter().collect()).len() == 1 {
            let all: Vec<&JobRecord> = jobs.iter().collect();
            let lone = jobs.first().filter(|_| jobs.len() == 1 && ready == 1);
            let done = engine.sessions.attempt(conn, |conn| match lone {
                Some(job) => insert_one(conn, job, notify, window),
                None => insert_new(conn, &all, window),
            });
            match (done, lone) {
                (Ok(()), _) => return Ok((vec![Inserted::New; jobs.len()], notify)),
                (Err(error), Some(job)) => take_back(conn, job, error)?,
                (Err(error), None) if classify(&error) == Class::Unique => {}
                (Err(error), None) => return Err(error),
            }
        }
        Ok((insert::<Postgres>(conn, jobs, window)?, false))
    })
}

/// Stores a ready job without a key; if asked to, notifies at the commit of the same statement.
fn insert_one(
    conn: &mut PgConnection,
    job: &JobRecord,
    notify: bool,
    window: &Window,
) -> QueryResult<()> {
    let id = Bind::Id(job.id.as_uuid());
    let (queue, ability) = (Bind::Text(&job.queue), Bind::Text(&job.ability));
    let (codec, arg) = (Bind::Text(&job.codec), Bind::Bytes(&job.arg));
    let (from, until) = (Bind::Big(window.from), Bind::Big(window.until));
    let binds = [id, queue, ability, codec, arg, Bind::Int(job.priority), from, until];
    let stored = if notify {
        // A column that is never read, but evaluated.
        conn.run(&format!("{ONE} RETURNING pg_notify('{CHANNEL}', queue)"), &binds)?
    } else {
        conn.run(ONE, &binds)?
    };
    all_or_late(1, stored, window)
}

/// After a lone insert that did not store its job: removes facts that got no place, because a trigger or
/// a rule kept the second row out of a statement that was its own commit. An id that was there already
/// is no error, but it may be what such an insert left when it was cut off right here; the job is not
/// called stored before it is.
///
/// Locking: the facts, before the statement that looks for places begins. Whoever moves a job holds
/// them or moves it in one commit, so what it sees is the one place that the job has.
fn take_back(conn: &mut PgConnection, job: &JobRecord, error: Error) -> QueryResult<()> {
    let was_there = classify(&error) == Class::Unique;
    let counted = inner::<Mismatch>(&error).is_some() || inner::<TooLate>(&error).is_some();
    if !was_there && !counted {
        return Err(error);
    }
    let id = [Bind::Id(job.id.as_uuid())];
    let taken = conn.transaction(|conn| {
        conn.run("SELECT 1 FROM qudo_job WHERE id = ? FOR UPDATE", &id)?;
        conn.run(WITHOUT_PLACE, &id)
    })?;
    match (was_there, taken) {
        (true, _) => Ok(()),
        (false, 0) => Err(error),
        (false, taken) => balance("insert", taken, 0),
    }
}

/// A statement outside of its window stores nothing.
fn all_or_late(jobs: usize, stored: usize, window: &Window) -> QueryResult<()> {
    if stored == 0 && !window.is_open() {
        return Err(TooLate::error());
    }
    balance("insert", jobs, stored)
}

/// Stores new jobs with arrays: a value per column instead of one per field.
pub(super) fn insert_new(
    conn: &mut PgConnection,
    jobs: &[&JobRecord],
    window: &Window,
) -> QueryResult<()> {
    let (ready, scheduled): (Vec<&JobRecord>, Vec<&JobRecord>) =
        jobs.iter().partition(|job| job.due == Due::Now);
    for piece in pieces(ready) {
        let columns = columns(&piece);
        put(conn, READY, &columns, piece.len(), window)?;
    }
    for piece in pieces(scheduled) {
        let mut columns = columns(&piece);
        let (at, after): (Vec<_>, Vec<_>) = piece
            .iter()
            .map(|job| match job.due {
                Due::At(at) => (Some(at.timestamp_micros()), 0),
                Due::In(after) => (None, micros(after)),
                Due::Now => (None, 0),
            })
            .unzip();
        columns.extend([Array::OptBigs(at), Array::Bigs(after)]);
        put(conn, SCHEDULED, &columns, piece.len(), window)?;
    }
    Ok(())
}

fn put(
    conn: &mut PgConnection,
    sql: &str,
    columns: &[Array<'_>],
    jobs: usize,
    window: &Window,
) -> QueryResult<()> {
    let mut binds: Vec<_> = columns.iter().map(Bind::Array).collect();
    binds.extend([window.from, window.until, jobs as i64].map(Bind::Big));
    let stored = conn.row::<i64>(&format!("{sql} {COUNTED}"), &binds)?;
    let stored = stored.unwrap_or_default().unsigned_abs() as usize;
    all_or_late(jobs, stored, window)
}

fn columns<'a>(jobs: &[&'a JobRecord]) -> Vec<Array<'a>> {
    vec![
        Array::Ids(jobs.iter().map(|job| *job.id.as_uuid()).collect()),
        Array::Texts(jobs.iter().map(|job| &*job.queue).collect()),
        Array::Texts(jobs.iter().map(|job| &*job.ability).collect()),
        Array::Texts(jobs.iter().map(|job| &*job.codec).collect()),
        Array::Bytes(jobs.iter().map(|job| &job.arg[..]).collect()),
        Array::OptTexts(jobs.iter().map(|job| job.uniqkey.as_deref()).collect()),
        Array::Ints(jobs.iter().map(|job| job.priority).collect()),
    ]
}

/// Cuts jobs into pieces that one statement takes.
fn pieces(jobs: Vec<&JobRecord>) -> Vec<Vec<&JobRecord>> {
    let mut pieces: Vec<Vec<&JobRecord>> = Vec::new();
    let mut bytes = 0;
    for job in jobs {
        bytes += job.arg.len();
        match pieces.last_mut() {
            Some(piece) if piece.len() < MOST_ROWS && bytes < MOST_BYTES => piece.push(job),
            _ => {
                bytes = job.arg.len();
                pieces.push(vec![job]);
            }
        }
    }
    pieces
}
