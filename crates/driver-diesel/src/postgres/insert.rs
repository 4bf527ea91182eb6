use diesel::PgConnection;
use diesel::result::QueryResult;
use qudo_core::driver::{DriverError, Due, Inserted, JobRecord};

use super::notify::{CHANNEL, Nothing};
use super::{Array, Postgres};
use crate::classify::{Class, classify};
use crate::engine::{Engine, micros};
use crate::sql::{Bind, SqlConn};
use crate::statements::insert::insert;

/// Rows of one statement: enough for full speed, few enough to keep its memory small.
const MOST_ROWS: usize = 2_000;

/// Bytes of arguments in one statement.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// The facts and the narrow rows of jobs that are ready at once.
const READY: &str = "WITH job AS (INSERT INTO qudo_job (id, queue, ability, codec, arg, uniqkey, \
     priority, enqueued_at) SELECT t.*, qudo_now() FROM unnest(?, ?, ?, ?, ?, ?, ?) AS t \
     RETURNING id, queue, ability, priority) \
     INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes) \
     SELECT queue, -priority, id, ability, 0, 0 FROM job";

/// The same for one job, without arrays: they cost more than the row.
const ONE: &str = "WITH job AS (INSERT INTO qudo_job (id, queue, ability, codec, arg, uniqkey, \
     priority, enqueued_at) VALUES (?, ?, ?, ?, ?, NULL, ?, qudo_now())) \
     INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes) \
     VALUES (?, ?, ?, ?, 0, 0)";

/// The same for jobs that wait; the last two arrays say until when.
const SCHEDULED: &str = "WITH data AS (SELECT * FROM unnest(?, ?, ?, ?, ?, ?, ?, ?, ?) \
     AS t (id, queue, ability, codec, arg, uniqkey, priority, at, after)), \
     job AS (INSERT INTO qudo_job (id, queue, ability, codec, arg, uniqkey, priority, enqueued_at) \
     SELECT id, queue, ability, codec, arg, uniqkey, priority, qudo_now() FROM data) \
     INSERT INTO qudo_scheduled (run_after, id, queue, claim_rank, ability, attempt, crashes) \
     SELECT COALESCE(at, qudo_now() + after), id, queue, -priority, ability, 0, 0 FROM data";

/// One statement, one commit, one round trip in the common case: no unique keys and few rows.
///
/// Locking: new ids only. An id that is there already violates the primary key, and then the long
/// way finds out which.
pub(super) fn insert_commit(
    engine: &Postgres,
    jobs: &[JobRecord],
) -> Result<(Vec<Inserted>, bool), DriverError> {
    let alike = jobs.iter().all(|job| job.uniqkey.is_none() && job.due == Due::Now);
    // After a quiet moment nobody else is likely to commit at this instant, so the lock that NOTIFY
    // takes until the commit hurts nobody, and a round trip and a thread's wake are saved.
    let notify = alike && jobs.len() == 1 && engine.notifier.is_quiet();
    engine.write(|conn| {
        if alike && pieces(jobs.iter().collect()).len() == 1 {
            let all: Vec<&JobRecord> = jobs.iter().collect();
            let done = engine.sessions.attempt(conn, |conn| match jobs {
                [job] => insert_one(conn, job, notify),
                _ => insert_new(conn, &all),
            });
            match done {
                Ok(()) => return Ok((vec![Inserted::New; jobs.len()], notify)),
                Err(error) if classify(&error) == Class::Unique => {}
                Err(error) => return Err(error),
            }
        }
        Ok((insert::<Postgres>(conn, jobs)?, false))
    })
}

/// Stores a ready job without a key; if asked to, notifies at the commit of the same statement.
fn insert_one(conn: &mut PgConnection, job: &JobRecord, notify: bool) -> QueryResult<()> {
    let id = Bind::Id(job.id.as_uuid());
    let (queue, ability) = (Bind::Text(&job.queue), Bind::Text(&job.ability));
    let (codec, arg) = (Bind::Text(&job.codec), Bind::Bytes(&job.arg));
    let (priority, rank) = (Bind::Int(job.priority), Bind::Int(-job.priority));
    let binds = [id, queue, ability, codec, arg, priority, queue, rank, id, ability];
    if notify {
        conn.rows::<Nothing>(&format!("{ONE} RETURNING pg_notify('{CHANNEL}', queue)"), &binds)?;
    } else {
        conn.run(ONE, &binds)?;
    }
    Ok(())
}

/// Stores new jobs with arrays: a value per column instead of one per field.
pub(super) fn insert_new(conn: &mut PgConnection, jobs: &[&JobRecord]) -> QueryResult<()> {
    let (ready, scheduled): (Vec<&JobRecord>, Vec<&JobRecord>) =
        jobs.iter().partition(|job| job.due == Due::Now);
    for piece in pieces(ready) {
        let columns = columns(&piece);
        let binds: Vec<_> = columns.iter().map(Bind::Array).collect();
        conn.run(READY, &binds)?;
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
        let binds: Vec<_> = columns.iter().map(Bind::Array).collect();
        conn.run(SCHEDULED, &binds)?;
    }
    Ok(())
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
