//! What a run leaves behind for others to read: replies and the job status.

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{
    Ending, Keep, Purged, Remains, ReplyRow, Settlement, StatusId, StatusRow, StatusScan,
};
use qudo_hooks::JobId;
use uuid::Uuid;

use super::lookup::instant;
use crate::bulk::{Keyed, insert_rows};
use crate::engine::{Engine, micros};
use crate::sql::{Bind, Columns, FromRow, Sql};

/// Writes the replies of settled jobs; in the settling transaction, so that a reply always belongs
/// to the attempt that settled.
pub(crate) fn write_replies<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    ours: &[&Settlement],
) -> QueryResult<()> {
    let rows: Vec<_> = ours
        .iter()
        .filter_map(|one| Some((one, one.extras.as_ref()?)))
        .flat_map(|(one, extras)| {
            extras.replies.iter().zip(0..).map(|(reply, seq)| {
                vec![
                    Bind::Id(one.job.id.as_uuid()),
                    Bind::Int(seq),
                    Bind::Text(&reply.codec),
                    Bind::Bytes(&reply.body),
                ]
            })
        })
        .collect();
    // A client may give a finished job's id to a new one; the first reply then stays, and the
    // settle goes on.
    insert_replies::<E>(conn, &rows)
}

fn insert_replies<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    rows: &[Vec<Bind<'_>>],
) -> QueryResult<()> {
    let (words, tail) = E::INSERT_IGNORE;
    let head = format!("{words} INTO qudo_reply (job_id, seq, codec, body, created_at) VALUES ");
    insert_rows(conn, &head, &format!("(?,?,?,?,{})", E::NOW), rows, tail).map(drop)
}

/// The place of a tombstone among the replies of its job. They share a table, so that one look finds either and both
/// are purged together.
const TOMBSTONE: i32 = -1;

/// The word of a tombstone whose body is the id of the job that took the place of its own.
const REPLACED: &str = "replaced";

/// Says which jobs took the place of others that left no reply; in the transaction that stores them.
pub(crate) fn write_successors<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    jobs: &[(JobId, JobId)],
) -> QueryResult<()> {
    let binds: Vec<_> = jobs
        .iter()
        .map(|(job, by)| {
            let (job, by) = (Bind::Id(job.as_uuid()), Bind::Bytes(by.as_uuid().as_bytes()));
            vec![job, Bind::Int(TOMBSTONE), Bind::Text(REPLACED), by]
        })
        .collect();
    insert_replies::<E>(conn, &binds)
}

/// Says how jobs ended that nobody ran to their end; in the transaction that removes them. What an earlier job with this id
/// left gives way, or it would be taken for this one's, and be purged before this one's time.
pub(crate) fn write_tombstones<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    jobs: &[Uuid],
    ending: Ending,
) -> QueryResult<()> {
    E::delete_by_id(conn, &Keyed { key: "job_id", ..Keyed::table("qudo_reply") }, jobs)?;
    let row = |job| {
        vec![Bind::Id(job), Bind::Int(TOMBSTONE), Bind::Text(ending.as_str()), Bind::Bytes(&[])]
    };
    insert_replies::<E>(conn, &jobs.iter().map(row).collect::<Vec<_>>())
}

/// Writes the history of settled jobs whose ability asks for it.
pub(crate) fn write_status<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    ours: &[&Settlement],
) -> QueryResult<()> {
    let with: Vec<_> = ours
        .iter()
        .filter_map(|one| Some((*one, one.extras.as_ref()?.status.as_ref()?, Uuid::now_v7())))
        .collect();
    let rows: Vec<_> = with
        .iter()
        .map(|(one, status, id)| {
            let job = &one.job;
            vec![
                Bind::Id(id),
                Bind::Id(job.id.as_uuid()),
                Bind::Text(&job.facts.ability),
                Bind::Text(status.status),
                Bind::Int(job.attempt),
                Bind::OptText(job.facts.uniqkey.as_deref()),
                Bind::Big(job.enqueued_at.timestamp_micros()),
                Bind::OptText(status.message.as_deref()),
                Bind::Big(micros(status.took)),
            ]
        })
        .collect();
    let head = "INSERT INTO qudo_job_status (id, job_id, ability, status, attempt, uniqkey, \
                enqueued_at, message, started_at, finished_at) VALUES ";
    let row = format!("(?,?,?,?,?,?,?,?,{} - ?,{})", E::NOW, E::NOW);
    insert_rows(conn, head, &row, &rows, "").map(drop)
}

struct Reply(i32, ReplyRow);

impl FromRow for Reply {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let seq = columns.int()?;
        Ok(Self(seq, ReplyRow { codec: columns.text()?, body: columns.bytes()? }))
    }
}

/// What a job left: its replies in order, or its tombstone.
pub(crate) fn remains<E: Engine>(conn: &mut Sql<'_, E::Conn>, job: &Uuid) -> QueryResult<Remains> {
    let sql = "SELECT seq, codec, body FROM qudo_reply WHERE job_id = ? ORDER BY seq";
    let rows: Vec<Reply> = conn.rows(sql, &[Bind::Id(job)])?;
    let mut remains = Remains::default();
    for Reply(seq, row) in rows {
        match seq {
            TOMBSTONE if row.codec == REPLACED => {
                remains.replaced_by = Uuid::from_slice(&row.body).ok().map(JobId::from_uuid);
            }
            TOMBSTONE => remains.ending = Some(Ending::from_stored(&row.codec)),
            _ => remains.replies.push(row),
        }
    }
    Ok(remains)
}

const STATUS: &str =
    "id, job_id, ability, status, attempt, uniqkey, enqueued_at, started_at, finished_at, message";

struct Status(StatusRow);

impl FromRow for Status {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let (id, job) = (StatusId::from_uuid(columns.id()?), JobId::from_uuid(columns.id()?));
        let (ability, status) = (columns.text()?, columns.text()?);
        let (attempt, uniqkey) = (columns.int()?.unsigned_abs(), columns.opt_text()?);
        let (enqueued, started) = (instant(columns.big()?), instant(columns.big()?));
        let finished = instant(columns.big()?);
        let mut row =
            StatusRow::new(id, job, ability, status, attempt, enqueued, started, finished);
        row.uniqkey = uniqkey;
        row.message = columns.opt_text()?;
        Ok(Self(row))
    }
}

/// The history of a job, oldest first.
pub(crate) fn status<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    job: &Uuid,
) -> QueryResult<Vec<StatusRow>> {
    let sql = format!("SELECT {STATUS} FROM qudo_job_status WHERE job_id = ? ORDER BY id");
    let rows: Vec<Status> = conn.rows(&sql, &[Bind::Id(job)])?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// Rows of the job status, newest first: the ids sort by time.
pub(crate) fn scan_status<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    scan: &StatusScan,
) -> QueryResult<Vec<StatusRow>> {
    let mut sql = format!("SELECT {STATUS} FROM qudo_job_status WHERE 1 = 1");
    let mut binds = Vec::new();
    if let Some(job) = &scan.job {
        sql.push_str(" AND job_id = ?");
        binds.push(Bind::Id(job.as_uuid()));
    }
    if let Some(before) = &scan.before {
        sql.push_str(" AND id < ?");
        binds.push(Bind::Id(before.as_uuid()));
    }
    sql.push_str(" ORDER BY id DESC LIMIT ?");
    binds.push(Bind::Big(scan.limit.into()));
    let rows: Vec<Status> = conn.rows(&sql, &binds)?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// Removes old replies, history and trails of moved jobs, a bounded number of each: found by index, deleted by key.
///
/// Locking: by key, passing over what another purge has locked. By the index first it would wait for it.
pub(crate) fn purge<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    keep: &Keep,
    limit: u32,
) -> QueryResult<Purged> {
    let mut done = Purged::default();
    for (table, only, key, time, age) in [
        ("qudo_reply", "", "job_id", "created_at", keep.replies),
        ("qudo_job_status", "", "id", "finished_at", keep.status),
        ("qudo_moving", "leg IN ('gone', 'arrived', 'cancelled')", "id", "moved_at", keep.replies),
    ] {
        let sql = format!(
            "SELECT {key} FROM {table} WHERE {only}{and}{time} < (SELECT {}) - ? ORDER BY {time} LIMIT ?",
            E::NOW,
            and = if only.is_empty() { "" } else { " AND " },
        );
        let binds = [Bind::Big(micros(age)), Bind::Big(limit.into())];
        let ids: Vec<Uuid> = conn.rows(&sql, &binds)?;
        done.more |= ids.len() >= limit as usize;
        // A job may have come back since: of its rows only the old one goes.
        let old = format!("{only} AND {time} < (SELECT {}) - ?", E::NOW);
        let keyed = match only {
            "" => Keyed { table, key, only, binds: &[] },
            _ => Keyed { table, key, only: &old, binds: &binds[..1] },
        };
        done.removed += remove_free::<E>(conn, &keyed, ids)?;
    }
    Ok(done)
}

/// Deletes those of these rows that nobody else holds.
pub(super) fn remove_free<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    keyed: &Keyed<'_>,
    mut ids: Vec<Uuid>,
) -> QueryResult<usize> {
    ids.sort_unstable();
    ids.dedup();
    if !E::SKIP_LOCKED.is_empty() && !ids.is_empty() {
        ids = E::rows_by_id(conn, keyed.key, keyed, &ids, E::SKIP_LOCKED)?;
        ids.sort_unstable();
        ids.dedup();
    }
    if ids.is_empty() {
        return Ok(0);
    }
    E::delete_by_id(conn, keyed, &ids)
}
