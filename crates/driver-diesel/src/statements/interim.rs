//! What runs tell before they end: values that they send, and how far they are.

use std::collections::HashSet;

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{
    Keep, LeaseKey, News, ProgressRecord, ProgressRow, ReplyRow, Sending, SentLast, SentRecord,
    SentRow,
};
use qudo_hooks::JobId;
use uuid::Uuid;

use super::lookup::instant;
use super::settle::held;
use super::trace::remove_free;
use crate::bulk::{Keyed, insert_rows, rows_in};
use crate::engine::{Engine, micros};
use crate::sql::{Bind, Columns, FromRow, Sql};

/// Stores a value that a run sends, if its lease is held.
///
/// Locking: none but of the new row. A lease that is taken back at the same moment was held when the statement began. A run that
/// lost its lease may put the same number at the same moment, so a row that is there is no error.
pub(crate) fn send<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    lease: &LeaseKey,
    sent: &SentRecord,
) -> QueryResult<Sending> {
    let (words, tail) = E::INSERT_IGNORE;
    let sql = format!(
        "{words} INTO qudo_sent (job_id, number, attempt, codec, body, sent_at) \
         SELECT l.id, ?, ?, ?, ?, {} FROM qudo_lease l WHERE {HELD}{tail}",
        E::NOW
    );
    let [job, worker, claim] = guard(lease);
    let (attempt, codec) = (Bind::Int(sent.attempt), Bind::Text(&sent.value.codec));
    let body = Bind::Bytes(&sent.value.body);
    let binds = [Bind::Int(sent.number), attempt, codec, body, job, worker, claim];
    if conn.run(&sql, &binds)? > 0 || is_sent::<E>(conn, lease, sent)? {
        return Ok(Sending::Stored);
    }
    let is_held = conn.row::<Uuid>(
        &format!("SELECT l.id FROM qudo_lease l WHERE {HELD}"),
        &[job, worker, claim],
    )?;
    Ok(if is_held.is_some() { Sending::NumberTaken } else { Sending::LeaseLost })
}

/// The lease that guards a write.
const HELD: &str = "l.id = ? AND l.worker = ? AND l.claim = ?";

fn guard(lease: &LeaseKey) -> [Bind<'_>; 3] {
    [Bind::Id(lease.job.as_uuid()), Bind::Id(lease.worker.as_uuid()), Bind::Big(lease.claim)]
}

/// Whether the same value is there under its number: the answer to a former call was lost.
pub(crate) fn is_sent<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    lease: &LeaseKey,
    sent: &SentRecord,
) -> QueryResult<bool> {
    let sql = "SELECT job_id FROM qudo_sent \
               WHERE job_id = ? AND number = ? AND attempt = ? AND codec = ? AND body = ?";
    let (number, attempt) = (Bind::Int(sent.number), Bind::Int(sent.attempt));
    let (codec, body) = (Bind::Text(&sent.value.codec), Bind::Bytes(&sent.value.body));
    let binds = [Bind::Id(lease.job.as_uuid()), number, attempt, codec, body];
    Ok(conn.row::<Uuid>(sql, &binds)?.is_some())
}

/// Stores how far the runs of a worker are whose leases are held. In a transaction.
///
/// Locking: the rows of these jobs, which nobody else writes while this worker holds their leases. Removed and
/// put, not changed: that is two statements for any number of rows on every engine.
pub(crate) fn note_progress<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    worker: &Uuid,
    records: &[ProgressRecord],
) -> QueryResult<()> {
    let mut ids: Vec<_> = records.iter().map(|one| *one.job.as_uuid()).collect();
    ids.sort_unstable();
    ids.dedup();
    let held: HashSet<_> = held::<E>(conn, worker, &ids, "")?.into_iter().collect();
    let mut ours: Vec<_> =
        records.iter().filter(|one| held.contains(&(*one.job.as_uuid(), one.claim))).collect();
    ours.sort_unstable_by_key(|one| one.job);
    let ids: Vec<_> = ours.iter().map(|one| *one.job.as_uuid()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let old: Vec<Uuid> = E::rows_by_id(conn, "x.job_id", &PROGRESS, &ids, "")?;
    if !old.is_empty() {
        E::delete_by_id(conn, &PROGRESS, &old)?;
    }
    let stored = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let rows: Vec<_> = ours
        .iter()
        .map(|one| {
            vec![
                Bind::Id(one.job.as_uuid()),
                Bind::Int(one.attempt),
                Bind::Big(stored(one.done)),
                Bind::OptBig(one.total.map(stored)),
                Bind::OptText(one.note.as_deref()),
            ]
        })
        .collect();
    // A worker that lost its lease a moment ago may have put the same row.
    let (words, tail) = E::INSERT_IGNORE;
    let insert = format!(
        "{words} INTO qudo_progress (job_id, attempt, done, total, note, noted_at) VALUES "
    );
    insert_rows(conn, &insert, &format!("(?,?,?,?,?,{})", E::NOW), &rows, tail).map(drop)
}

const PROGRESS: Keyed<'static> = Keyed { key: "job_id", ..Keyed::table("qudo_progress") };

struct Sent(SentRow);

impl FromRow for Sent {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(SentRow {
            number: columns.int()?,
            attempt: columns.int()?,
            sent_at: instant(columns.big()?),
            value: ReplyRow { codec: columns.text()?, body: columns.bytes()? },
        }))
    }
}

/// What a job sent, from this number on.
pub(crate) fn sent<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    job: &Uuid,
    from: i32,
    limit: u32,
) -> QueryResult<Vec<SentRow>> {
    let sql = "SELECT number, attempt, sent_at, codec, body FROM qudo_sent \
               WHERE job_id = ? AND number >= ? ORDER BY number LIMIT ?";
    let binds = [Bind::Id(job), Bind::Int(from), Bind::Big(limit.into())];
    Ok(conn.rows::<Sent>(sql, &binds)?.into_iter().map(|row| row.0).collect())
}

struct Progress(ProgressRow);

impl FromRow for Progress {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(ProgressRow {
            attempt: columns.int()?,
            done: columns.big()?.unsigned_abs(),
            total: columns.opt_big()?.map(i64::unsigned_abs),
            note: columns.opt_text()?,
            noted_at: instant(columns.big()?),
        }))
    }
}

/// How far the last run of a job said that it was.
pub(crate) fn progress<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    job: &Uuid,
) -> QueryResult<Option<ProgressRow>> {
    let sql = "SELECT attempt, done, total, note, noted_at FROM qudo_progress WHERE job_id = ?";
    Ok(conn.row::<Progress>(sql, &[Bind::Id(job)])?.map(|row| row.0))
}

struct Last(SentLast);

impl FromRow for Last {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(SentLast { number: columns.int()?, attempt: columns.int()? }))
    }
}

struct Told(News);

impl FromRow for Told {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let job = JobId::from_uuid(columns.id()?);
        let whole = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
        let (number, attempt) = (columns.opt_big()?.map(whole), columns.opt_big()?.map(whole));
        let sent = number.zip(attempt).map(|(number, attempt)| SentLast { attempt, number });
        Ok(Self(News { job, sent, noted_at: columns.opt_big()?.map(instant) }))
    }
}

/// What is new of one job, also of one that ended.
pub(crate) fn news_of<E: Engine>(conn: &mut Sql<'_, E::Conn>, job: &Uuid) -> QueryResult<News> {
    let last =
        "SELECT number, attempt FROM qudo_sent WHERE job_id = ? ORDER BY number DESC LIMIT 1";
    let sent = conn.row::<Last>(last, &[Bind::Id(job)])?.map(|last| last.0);
    let noted = "SELECT noted_at FROM qudo_progress WHERE job_id = ?";
    let noted_at = conn.row::<i64>(noted, &[Bind::Id(job)])?.map(instant);
    Ok(News { job: JobId::from_uuid(*job), sent, noted_at })
}

/// What is new of those of these jobs that live. Each answer is two steps into an index, however many values a job sent: a maximum over
/// groups would read all of them.
pub(crate) fn news<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    jobs: &[Uuid],
) -> QueryResult<Vec<News>> {
    let last = |column: &str| {
        format!(
            "(SELECT CAST(s.{column} AS {}) FROM qudo_sent s WHERE s.job_id = j.id \
             ORDER BY s.number DESC LIMIT 1)",
            E::BIG
        )
    };
    let head = format!(
        "SELECT j.id, {}, {}, (SELECT p.noted_at FROM qudo_progress p WHERE p.job_id = j.id) \
         FROM qudo_job j WHERE j.id IN",
        last("number"),
        last("attempt")
    );
    let rows = rows_in::<_, Told>(conn, &head, &[], jobs, "")?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

struct Aged(Uuid, i64);

impl FromRow for Aged {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.id()?, columns.big()?))
    }
}

/// Removes what is older than replies are kept, but for what live jobs sent, whose numbers go on, and the progress of runs that are not
/// over. Returns how many rows, and whether there may be more.
///
/// Locking: by key, passing over what another purge has locked.
pub(crate) fn purge<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    keep: &Keep,
    limit: u32,
) -> QueryResult<(usize, bool)> {
    let age = [Bind::Big(micros(keep.replies)), Bind::Big(limit.into())];
    let sql = format!(
        "SELECT s.job_id, s.sent_at FROM qudo_sent s WHERE s.sent_at < (SELECT {}) - ? \
         AND NOT EXISTS (SELECT 1 FROM qudo_job j WHERE j.id = s.job_id) ORDER BY s.sent_at LIMIT ?",
        E::NOW
    );
    let old: Vec<Aged> = conn.rows(&sql, &age)?;
    let mut removed = 0;
    if let Some(Aged(_, last)) = old.last() {
        // Not beyond the last that was found: one job may have sent millions.
        let last = [Bind::Big(*last)];
        let keyed =
            Keyed { key: "job_id", ..Keyed::table("qudo_sent") }.only("sent_at <= ?", &last);
        removed += remove_free::<E>(conn, &keyed, old.iter().map(|row| row.0).collect())?;
    }
    let sql = format!(
        "SELECT p.job_id FROM qudo_progress p WHERE p.noted_at < (SELECT {}) - ? \
         AND NOT EXISTS (SELECT 1 FROM qudo_lease l WHERE l.id = p.job_id) ORDER BY p.noted_at LIMIT ?",
        E::NOW
    );
    let over: Vec<Uuid> = conn.rows(&sql, &age)?;
    let more = old.len().max(over.len()) >= limit as usize;
    Ok((removed + remove_free::<E>(conn, &PROGRESS, over)?, more))
}
