use diesel::PgConnection;
use diesel::result::QueryResult;
use qudo_core::driver::{DriverError, Due, Inserted, JobRecord};

use super::Postgres;
use crate::classify::{Class, classify};
use crate::clock::{TooLate, Window};
use crate::engine::{Engine, micros};
use crate::sql::Array;
use crate::sql::{Bind, Sql};
use crate::statements::facts;
use crate::statements::insert::insert;
use crate::statements::ledger::balance;

/// What a commit with a notification fails with when the server can keep no more of them.
const QUEUE_IS_FULL: &str = "too many notifications in the NOTIFY queue";

/// Rows of one statement: enough for full speed, few enough to keep its memory small.
const MAX_ROWS: usize = 2_000;

/// Bytes of arguments in one statement.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// The end of each statement here: the number of jobs that were stored, which is 0 outside of the
/// window. The rows are counted inside of it, because a statement by itself is its own commit: an error
/// afterwards would come too late. A trigger or a rule may have kept a row out of either table.
const COUNTED: &str = "SELECT CASE WHEN (SELECT count(*) FROM job) = (SELECT count(*) FROM placed) \
     AND (SELECT count(*) FROM job) IN (0, ?) THEN (SELECT count(*) FROM placed) \
     ELSE CAST(qudo_refuse('rows do not add up: ' || (SELECT count(*) FROM job) || ' facts, ' \
     || (SELECT count(*) FROM placed) || ' places put by the step \"insert\"') AS BIGINT) END";

/// The facts and the narrow rows of jobs that are ready at once.
const READY: &str = "WITH job AS (INSERT INTO qudo_job (id, ability, queue, codec, arg, \
     priority, uniqkey, meta, enqueued_at) SELECT t.*, qudo_now() FROM unnest(?, ?, ?, ?, ?, ?, ?, ?) AS t \
     WHERE (SELECT qudo_now()) BETWEEN ? AND ? RETURNING id, queue, ability, priority, uniqkey), \
     placed AS (INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes, flags) \
     SELECT queue, -priority, id, ability, 0, 0, (uniqkey IS NOT NULL)::INTEGER FROM job RETURNING 1)";

/// The same for jobs of one kind, as those of a bulk insert mostly are.
const ALIKE: &str = "SELECT qudo_insert(?, ?, ?, ?, ?, ?, ?, ?)";

/// The same for jobs with neither keys nor metadata, as most are: the two arrays, and the key read back, cost a bulk
/// insert 7 % of its rate.
const READY_PLAIN: &str = "WITH job AS (INSERT INTO qudo_job (id, ability, queue, codec, arg, \
     priority, enqueued_at) SELECT t.*, qudo_now() FROM unnest(?, ?, ?, ?, ?, ?) AS t \
     WHERE (SELECT qudo_now()) BETWEEN ? AND ? RETURNING id, queue, ability, priority), \
     placed AS (INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes, flags) \
     SELECT queue, -priority, id, ability, 0, 0, 0 FROM job RETURNING 1)";

/// The same for one job, without arrays: they cost more than the row. Nothing is counted inside, which
/// would cost a lone enqueue 3 to 6 % of its rate: it is for tables without triggers and rules, where
/// PostgreSQL stores what a statement says or fails. The place comes first, and the facts are made from
/// what was put there: should a row be kept out all the same, there is no job, or a place without facts.
/// The other way round there could be facts without a place, and whoever repeated the insert would be
/// told that the job is stored. Values are bound once: each parameter costs the server a look-up.
const ONE: &str = "WITH placed AS (INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, \
     crashes, flags) SELECT ?, -?, ?, ?, 0, 0, 0 WHERE qudo_now() BETWEEN ? AND ? RETURNING id) \
     INSERT INTO qudo_job (id, queue, ability, codec, arg, priority, enqueued_at) \
     SELECT id, $1, $4, ?, ?, $2, qudo_now() FROM placed";

/// The same for jobs that wait; the last two arrays say until when.
const SCHEDULED: &str = "WITH data AS (SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
     AS t (id, ability, queue, codec, arg, priority, uniqkey, meta, at, after) \
     WHERE (SELECT qudo_now()) BETWEEN ? AND ?), \
     job AS (INSERT INTO qudo_job (id, ability, queue, codec, arg, uniqkey, priority, meta, \
     enqueued_at) SELECT id, ability, queue, codec, arg, uniqkey, priority, meta, qudo_now() FROM data \
     RETURNING 1), placed AS (INSERT INTO qudo_scheduled (run_after, id, queue, claim_rank, ability, attempt, \
     crashes, flags) SELECT COALESCE(at, qudo_now() + after), id, queue, -priority, ability, 0, 0, \
     (uniqkey IS NOT NULL)::INTEGER FROM data RETURNING 1)";

/// One statement, one commit, one round trip in the common case: no unique keys and few rows.
///
/// Locking: new ids only. An id that is there already violates the primary key, and then the long
/// way finds out which.
pub(super) fn insert_commit(
    engine: &Postgres,
    jobs: &[JobRecord],
    window: &Window,
) -> Result<(Vec<Inserted>, bool), DriverError> {
    match insert_told(engine, jobs, window, true) {
        // Somebody listens in a transaction that has been open for days; the job is no part of that.
        Err(error) if error.to_string().contains(QUEUE_IS_FULL) => {
            log::warn!("{}: nobody is notified: {error}", engine.source.described);
            insert_told(engine, jobs, window, false)
        }
        done => done,
    }
}

/// If it may, it notifies with the insert itself.
fn insert_told(
    engine: &Postgres,
    jobs: &[JobRecord],
    window: &Window,
    may_notify: bool,
) -> Result<(Vec<Inserted>, bool), DriverError> {
    let keyless = jobs.iter().all(|job| job.facts.uniqkey.is_none());
    let ready = jobs.iter().filter(|job| job.due == Due::Now).count();
    // One statement stores either kind.
    let alike = keyless && (ready == jobs.len() || ready == 0);
    engine.write(|conn| {
        if alike && pieces(jobs.iter().collect()).len() == 1 {
            let all: Vec<&JobRecord> = jobs.iter().collect();
            let (mut lone, mut notify) = (false, false);
            let done = engine.sessions.attempt(conn, |conn| {
                if let [job] = jobs
                    && ready == 1
                    && job.facts.meta.is_none()
                    && !engine.triggers.are_there(conn)?
                {
                    // After a quiet moment nobody else is likely to commit at this instant, so the lock
                    // that NOTIFY takes until the commit hurts nobody, and a round trip and a thread's
                    // wake are saved.
                    (lone, notify) = (true, may_notify && engine.notifier.is_quiet());
                    return insert_one(conn, job, notify, window);
                }
                insert_new(conn, &all, window)
            });
            match done {
                Ok(()) => return Ok((vec![Inserted::New; jobs.len()], notify)),
                Err(error) if classify(&error) == Class::Unique => {}
                Err(error) => {
                    if lone {
                        // Most likely it came too late. If not, the repetition counts.
                        engine.triggers.forget();
                    }
                    return Err(error);
                }
            }
        }
        Ok((insert::<Postgres>(conn, jobs, window)?, false))
    })
}

/// Stores a ready job without a key; if asked to, notifies at the commit of the same statement.
fn insert_one(
    conn: &mut Sql<'_, PgConnection>,
    job: &JobRecord,
    notify: bool,
    window: &Window,
) -> QueryResult<()> {
    let (queue, ability) = (Bind::Text(&job.facts.queue), Bind::Text(&job.facts.ability));
    let (priority, id) = (Bind::Int(job.facts.priority), Bind::Id(job.id.as_uuid()));
    let (from, until) = (Bind::Big(window.from), Bind::Big(window.until));
    let (codec, arg) = (Bind::Text(&job.facts.codec), Bind::Bytes(&job.facts.arg));
    let binds = [queue, priority, id, ability, from, until, codec, arg];
    let stored = if notify {
        // A column that is never read, but evaluated.
        conn.run(&format!("{ONE} RETURNING pg_notify('qudo', queue)"), &binds)?
    } else {
        conn.run(ONE, &binds)?
    };
    all_or_late(1, stored, window)
}

/// A statement outside of its window stores nothing; nor does one whose facts or places a trigger kept
/// out, which is told as if it came too late.
fn all_or_late(jobs: usize, stored: usize, window: &Window) -> QueryResult<()> {
    if stored == 0 && !window.is_open() {
        return Err(TooLate::error());
    }
    balance("insert", jobs, stored)
}

/// Stores new jobs with arrays: a value per column instead of one per field.
pub(super) fn insert_new(
    conn: &mut Sql<'_, PgConnection>,
    jobs: &[&JobRecord],
    window: &Window,
) -> QueryResult<()> {
    let (ready, scheduled): (Vec<&JobRecord>, Vec<&JobRecord>) =
        jobs.iter().partition(|job| job.due == Due::Now);
    for piece in pieces(ready) {
        if piece.iter().all(|job| facts::are_alike(&job.facts, &piece[0].facts)) {
            put_alike(conn, &piece, window)?;
            continue;
        }
        let mut columns = columns(&piece);
        if piece.iter().all(|job| facts::is_plain(&job.facts)) {
            put(conn, READY_PLAIN, &columns, piece.len(), window)?;
        } else {
            columns.extend(beside(&piece));
            put(conn, READY, &columns, piece.len(), window)?;
        }
    }
    for piece in pieces(scheduled) {
        let mut columns = columns(&piece);
        columns.extend(beside(&piece));
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
    conn: &mut Sql<'_, PgConnection>,
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

fn put_alike(
    conn: &mut Sql<'_, PgConnection>,
    jobs: &[&JobRecord],
    window: &Window,
) -> QueryResult<()> {
    let facts = &jobs[0].facts;
    let ids = Array::Ids(jobs.iter().map(|job| *job.id.as_uuid()).collect());
    let args = Array::Bytes(jobs.iter().map(|job| &job.facts.arg[..]).collect());
    let binds = [
        Bind::Array(&ids),
        Bind::Array(&args),
        Bind::Text(&facts.ability),
        Bind::Text(&facts.queue),
        Bind::Text(&facts.codec),
        Bind::Int(facts.priority),
        Bind::Big(window.from),
        Bind::Big(window.until),
    ];
    let stored = conn.row::<i64>(ALIKE, &binds)?.unwrap_or_default();
    all_or_late(jobs.len(), stored.unsigned_abs() as usize, window)
}

fn columns<'a>(jobs: &[&'a JobRecord]) -> Vec<Array<'a>> {
    vec![
        Array::Ids(jobs.iter().map(|job| *job.id.as_uuid()).collect()),
        Array::Texts(jobs.iter().map(|job| &*job.facts.ability).collect()),
        Array::Texts(jobs.iter().map(|job| &*job.facts.queue).collect()),
        Array::Texts(jobs.iter().map(|job| &*job.facts.codec).collect()),
        Array::Bytes(jobs.iter().map(|job| &job.facts.arg[..]).collect()),
        Array::Ints(jobs.iter().map(|job| job.facts.priority).collect()),
    ]
}

fn beside<'a>(jobs: &[&'a JobRecord]) -> [Array<'a>; 2] {
    let uniqkey = optional(jobs.iter().map(|job| job.facts.uniqkey.as_deref()));
    [uniqkey, optional(jobs.iter().map(|job| job.facts.meta.as_deref()))]
}

/// A column that is nearly always empty: `unnest` fills a shorter array up with NULL.
fn optional<'a>(values: impl Iterator<Item = Option<&'a str>> + Clone) -> Array<'a> {
    let is_empty = values.clone().all(|value| value.is_none());
    Array::OptTexts(if is_empty { Vec::new() } else { values.collect() })
}

/// Cuts jobs into pieces that one statement takes.
fn pieces(jobs: Vec<&JobRecord>) -> Vec<Vec<&JobRecord>> {
    let mut pieces: Vec<Vec<&JobRecord>> = Vec::new();
    let mut bytes = 0;
    for job in jobs {
        bytes += job.facts.size();
        match pieces.last_mut() {
            Some(piece) if piece.len() < MAX_ROWS && bytes < MAX_BYTES => piece.push(job),
            _ => {
                bytes = job.facts.size();
                pieces.push(vec![job]);
            }
        }
    }
    pieces
}
