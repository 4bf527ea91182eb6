use std::collections::HashSet;
use std::time::Duration;

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{Rescued, WorkerId, WorkerInfo};
use qudo_hooks::{FailureKind, JobId};
use uuid::Uuid;

use super::exception::{NewException, log_exceptions};
use super::{Place, STAND, Stand, put_ready};
use crate::bulk::Keyed;
use crate::engine::{Engine, micros};
use crate::sql::{Bind, Columns, FromRow, SqlConn};

/// Renews the heartbeat row; `false` if it had to be made.
pub(crate) fn heartbeat<E: Engine>(conn: &mut E::Conn, worker: &WorkerInfo) -> QueryResult<bool> {
    let id = Bind::Id(worker.id.as_uuid());
    // The row is read rather than the count of changed rows trusted: MySQL reports 0 for a row
    // that was found and not changed, as with two beats in one microsecond.
    let update = format!("UPDATE qudo_worker SET seen_at = {} WHERE id = ?", E::NOW);
    if conn.run(&update, &[id])? > 0 {
        return Ok(true);
    }
    if conn.row::<Uuid>("SELECT id FROM qudo_worker WHERE id = ?", &[id])?.is_some() {
        return Ok(true);
    }
    let insert = format!(
        "INSERT INTO qudo_worker (id, name, started_at, seen_at) VALUES (?, ?, {now}, {now})",
        now = E::NOW
    );
    conn.run(&insert, &[id, Bind::Text(&worker.name)])?;
    Ok(false)
}

struct Lost {
    stand: Stand,
    worker: Uuid,
    expired: bool,
}

impl FromRow for Lost {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self {
            stand: Stand::from_row(columns)?,
            worker: columns.id()?,
            expired: columns.big()? != 0,
        })
    }
}

/// Takes jobs back whose lease ended or whose worker is silent or unknown. Inside a transaction.
///
/// The lease's row lock decides between a rescue and the worker's own settle. Leases that are
/// being settled or rescued elsewhere are skipped, so that one stuck row holds up no other.
pub(crate) fn rescue<E: Engine>(
    conn: &mut E::Conn,
    dead_after: Duration,
    limit: u32,
) -> QueryResult<Vec<Rescued>> {
    let dead = Bind::Big(micros(dead_after));
    let mut lost = lost::<E>(conn, dead, limit)?;
    forget_new::<E>(conn, dead, &mut lost)?;
    if !lost.is_empty() {
        take_back::<E>(conn, &lost)?;
    }
    let silent = format!("SELECT id FROM qudo_worker WHERE seen_at < {} - ? LIMIT 1", E::NOW);
    if conn.row::<Uuid>(&silent, &[dead])?.is_some() {
        // A worker's row goes only once none of its leases is left.
        let sql = format!(
            "DELETE FROM qudo_worker WHERE seen_at < {} - ? AND NOT EXISTS (SELECT 1 FROM \
             qudo_lease l WHERE l.worker = qudo_worker.id)",
            E::NOW
        );
        conn.run(&sql, &[dead])?;
    }
    let rescued = |one: Lost| Rescued {
        id: JobId::from_uuid(one.stand.id),
        worker: WorkerId::from_uuid(one.worker),
        kind: kind(&one),
    };
    Ok(lost.into_iter().map(rescued).collect())
}

/// The leases to take back, locked. Looked for without locks first: nearly always there are none,
/// and a locking look makes every claim and settle of the moment wait on MySQL, which locks
/// each row that it reads.
fn lost<E: Engine>(conn: &mut E::Conn, dead: Bind<'_>, limit: u32) -> QueryResult<Vec<Lost>> {
    let sql = format!(
        "SELECT {STAND}, worker, CAST(CASE WHEN leased_until < {now} THEN 1 ELSE 0 END AS {big}) \
         FROM qudo_lease WHERE leased_until < {now} OR NOT EXISTS (SELECT 1 FROM qudo_worker w \
         WHERE w.id = qudo_lease.worker AND w.seen_at >= {now} - ?) ORDER BY id LIMIT ?",
        now = E::NOW,
        big = E::BIG,
    );
    if conn.row::<Lost>(&sql, &[dead, Bind::Big(1)])?.is_none() {
        return Ok(Vec::new());
    }
    conn.rows(&format!("{sql}{}", E::SKIP_LOCKED), &[dead, Bind::Big(limit.into())])
}

/// Leaves out leases of workers that live after all. On MySQL the look at the leases sees what is committed while
/// it goes on, that at the workers what was when it began: the first claim of a worker that just
/// started would look like one without a worker.
fn forget_new<E: Engine>(
    conn: &mut E::Conn,
    dead: Bind<'_>,
    lost: &mut Vec<Lost>,
) -> QueryResult<()> {
    if lost.iter().all(|one| one.expired) {
        return Ok(());
    }
    let sql = format!("SELECT id FROM qudo_worker WHERE seen_at >= {} - ?", E::NOW);
    let alive: HashSet<Uuid> = conn.rows(&sql, &[dead])?.into_iter().collect();
    lost.retain(|one| one.expired || !alive.contains(&one.worker));
    Ok(())
}

fn kind(lost: &Lost) -> FailureKind {
    if lost.expired { FailureKind::LeaseExpired } else { FailureKind::Crash }
}

fn take_back<E: Engine>(conn: &mut E::Conn, lost: &[Lost]) -> QueryResult<()> {
    let notes: Vec<_> = lost
        .iter()
        .map(|one| {
            let message = if one.expired {
                format!("the lease of worker {} ended before the run did", one.worker)
            } else {
                format!("worker {} was silent for too long", one.worker)
            };
            (Uuid::now_v7(), message)
        })
        .collect();
    let exceptions: Vec<_> = lost
        .iter()
        .zip(&notes)
        .map(|(one, (id, message))| NewException {
            id,
            job: &one.stand.id,
            ability: &one.stand.ability,
            queue: &one.stand.queue,
            worker: &one.worker,
            attempt: one.stand.attempt,
            kind: kind(one).as_str(),
            message,
            discarded: false,
            uniqkey: None,
            priority: -one.stand.claim_rank,
            codec: None,
            arg: None,
        })
        .collect();
    log_exceptions::<E>(conn, &exceptions)?;
    let ids: Vec<_> = lost.iter().map(|one| one.stand.id).collect();
    E::delete_by_id(conn, &Keyed::table("qudo_lease"), &ids)?;
    let places: Vec<_> = lost
        .iter()
        .map(|one| Place { crashes: one.stand.crashes + 1, ..Place::from(&one.stand) })
        .collect();
    put_ready::<E>(conn, &places)
}

/// Returns leases to ready, the attempt unspent: all of a worker, or those of one claim.
/// Inside a transaction.
pub(crate) fn give_back<E: Engine>(
    conn: &mut E::Conn,
    worker: &Uuid,
    claim: Option<i64>,
) -> QueryResult<usize> {
    let (condition, binds) = match claim {
        Some(claim) => ("worker = ? AND claim = ?", vec![Bind::Id(worker), Bind::Big(claim)]),
        None => ("worker = ?", vec![Bind::Id(worker)]),
    };
    // Looked for without locks, which on MySQL would be those of all leases, then locked by id.
    let sql = format!("SELECT id FROM qudo_lease WHERE {condition} ORDER BY id");
    let ids: Vec<Uuid> = conn.rows(&sql, &binds)?;
    let lease = Keyed::table("qudo_lease").only(condition, &binds);
    let stands: Vec<Stand> = E::rows_by_id(conn, STAND, &lease, &ids, E::FOR_UPDATE)?;
    let ids: Vec<_> = stands.iter().map(|stand| stand.id).collect();
    E::delete_by_id(conn, &Keyed::table("qudo_lease"), &ids)?;
    let places: Vec<_> = stands
        .iter()
        .map(|stand| Place { attempt: stand.attempt - 1, ..Place::from(stand) })
        .collect();
    put_ready::<E>(conn, &places)?;
    Ok(stands.len())
}

/// Removes a worker that stops, with what it still holds. Inside a transaction.
pub(crate) fn remove_worker<E: Engine>(conn: &mut E::Conn, worker: &Uuid) -> QueryResult<usize> {
    let jobs = give_back::<E>(conn, worker, None)?;
    conn.run("DELETE FROM qudo_worker WHERE id = ?", &[Bind::Id(worker)])?;
    Ok(jobs)
}

struct Seen(WorkerInfo, Duration);

impl FromRow for Seen {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let (id, name) = (WorkerId::from_uuid(columns.id()?), columns.text()?);
        let silent = Duration::from_micros(u64::try_from(columns.big()?).unwrap_or(0));
        Ok(Self(WorkerInfo { id, name }, silent))
    }
}

/// The worker processes with how long they have been silent.
pub(crate) fn workers<E: Engine>(conn: &mut E::Conn) -> QueryResult<Vec<(WorkerInfo, Duration)>> {
    let sql = format!("SELECT id, name, {} - seen_at FROM qudo_worker ORDER BY id", E::NOW);
    let rows: Vec<Seen> = conn.rows(&sql, &[])?;
    Ok(rows.into_iter().map(|Seen(info, silent)| (info, silent)).collect())
}
