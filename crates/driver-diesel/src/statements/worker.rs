use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{DeadWorker, Name, Rescued, WorkerId, WorkerInfo, WorkerSeen};
use qudo_hooks::{FailureKind, JobId};
use uuid::Uuid;

use super::exception::{NewException, log_exceptions};
use super::ledger::balance;
use super::lookup::instant;
use super::{Place, STAND, Stand, put_ready};
use crate::bulk::Keyed;
use crate::engine::{Engine, micros};
use crate::migrate::level;
use crate::sql::{Bind, Columns, FromRow, Sql};

/// Renews the heartbeat row; `false` if it had to be made.
pub(crate) fn heartbeat<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    worker: &WorkerInfo,
) -> QueryResult<bool> {
    let (id, promise) = (Bind::Id(worker.id.as_uuid()), Bind::Big(micros(worker.dead_after)));
    // The row is read rather than the count of changed rows trusted: MySQL reports 0 for a row
    // that was found and not changed, as with two beats in one microsecond.
    let update =
        format!("UPDATE qudo_worker SET seen_at = {}, dead_after = ? WHERE id = ?", E::NOW);
    if conn.run(&update, &[promise, id])? > 0 {
        return Ok(true);
    }
    if conn.row::<Uuid>("SELECT id FROM qudo_worker WHERE id = ?", &[id])?.is_some() {
        return Ok(true);
    }
    let insert = format!(
        "INSERT INTO qudo_worker (id, name, program_version, abilities, queues, dead_after, schema_level, \
         started_at, seen_at) VALUES (?, ?, ?, ?, ?, ?, ?, {now}, {now})",
        now = E::NOW
    );
    let (abilities, queues) = (list_of(&worker.abilities), list_of(&worker.queues));
    let binds = [
        id,
        Bind::Text(&worker.name),
        Bind::OptText(worker.version.as_deref()),
        Bind::Text(&abilities),
        Bind::Text(&queues),
        promise,
        Bind::Int(level::<E>()),
    ];
    conn.run(&insert, &binds)?;
    Ok(false)
}

/// Names as a JSON array.
fn list_of(names: &[Name]) -> String {
    let names: Vec<_> = names.iter().map(Name::as_str).collect();
    serde_json::Value::from(names).to_string()
}

/// The names of such an array. One that another program wrote in another way has none.
fn names_of(list: &str) -> Arc<[Name]> {
    let names: Vec<String> = serde_json::from_str(list).unwrap_or_default();
    names.into_iter().map(Name::from).collect()
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

/// Takes back the leases of dead workers, those without a worker, and those past their end. Inside a
/// transaction.
///
/// Locking: the row of a dead worker before its leases. Its own beat waits for that lock or comes
/// first, and then the row shows a later time and nothing is taken; a row that is locked at this moment
/// belongs to a worker that beats, or to another rescue, and is passed over. The leases' row locks decide
/// between a rescue and the worker's own settle; those that are being settled or rescued elsewhere
/// are skipped, so that one stuck row holds up no other. Also tells the queues of the jobs.
pub(crate) fn rescue<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    dead: &[DeadWorker],
    expired: bool,
    limit: u32,
) -> QueryResult<(Vec<Rescued>, Vec<String>)> {
    let mut lost: Vec<Lost> = Vec::new();
    let left = |lost: &Vec<Lost>| limit.saturating_sub(lost.len() as u32);
    let mut gone = Vec::new();
    // In the order of their keys, as everywhere.
    let mut dead: Vec<_> = dead.iter().collect();
    dead.sort_unstable_by_key(|one| one.id);
    for one in dead {
        if left(&lost) == 0 {
            break;
        }
        let id = one.id.as_uuid();
        let row =
            format!("SELECT id FROM qudo_worker WHERE id = ? AND seen_at = ?{}", E::SKIP_LOCKED);
        let seen = Bind::Big(one.seen_at.timestamp_micros());
        if conn.row::<Uuid>(&row, &[Bind::Id(id), seen])?.is_some() {
            let ids = "SELECT id FROM qudo_lease WHERE worker = ? ORDER BY id LIMIT ?";
            let ids = conn.rows(ids, &[Bind::Id(id), Bind::Big(left(&lost).into())])?;
            lost.extend(lock_leases::<E>(conn, "worker = ?", &[Bind::Id(id)], &ids)?);
            gone.push(id);
        }
    }
    let ids = ownerless::<E>(conn, expired, left(&lost))?;
    let mut swept = lock_leases::<E>(conn, "", &[], &ids)?;
    keep_owned::<E>(conn, expired, &mut swept)?;
    swept.retain(|one| !lost.iter().any(|other| other.stand.id == one.stand.id));
    lost.extend(swept);
    if !lost.is_empty() {
        take_back::<E>(conn, &lost)?;
    }
    for id in gone {
        // A worker's row goes only once none of its leases is left; a plain read, because one that
        // locks would wait for whoever holds a lease.
        let lease = "SELECT id FROM qudo_lease WHERE worker = ? LIMIT 1";
        if conn.row::<Uuid>(lease, &[Bind::Id(id)])?.is_none() {
            conn.run("DELETE FROM qudo_worker WHERE id = ?", &[Bind::Id(id)])?;
        }
    }
    let rescued = |one: Lost| Rescued {
        id: JobId::from_uuid(one.stand.id),
        worker: WorkerId::from_uuid(one.worker),
        kind: kind(&one),
    };
    let queues = lost.iter().map(|one| one.stand.queue.clone()).collect();
    Ok((lost.into_iter().map(rescued).collect(), queues))
}

/// Leases whose worker has no row, and those past their end. A plain read: a locking one would make
/// every claim and settle of the moment wait on MySQL, which locks each row that it reads.
fn ownerless<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    expired: bool,
    limit: u32,
) -> QueryResult<Vec<Uuid>> {
    let past = format!("leased_until < (SELECT {}) OR ", E::NOW);
    let sql = format!(
        "SELECT id FROM qudo_lease WHERE {}worker NOT IN (SELECT id FROM qudo_worker) \
         ORDER BY id LIMIT ?",
        if expired { &past } else { "" },
    );
    conn.rows(&sql, &[Bind::Big(limit.into())])
}

/// Locks leases by id; those that others hold are passed over.
fn lock_leases<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    only: &str,
    binds: &[Bind<'_>],
    ids: &[Uuid],
) -> QueryResult<Vec<Lost>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let columns = format!(
        "{STAND}, worker, CAST(CASE WHEN leased_until < {} THEN 1 ELSE 0 END AS {})",
        E::NOW,
        E::BIG
    );
    let lease = Keyed::table("qudo_lease").only(only, binds);
    E::rows_by_id(conn, &columns, &lease, ids, E::SKIP_LOCKED)
}

/// Leaves out leases that have an owner after all. Between the look and the lock a job may have been
/// settled and claimed again, and on MySQL the first claim of a worker that just started looks like
/// one without a worker. A plain read: the beat of a worker ends before its first claim begins, so
/// whoever could lock a lease also sees the worker. One that locks would wait for beats, and other
/// rescues for it, against the order of locks.
fn keep_owned<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    expired: bool,
    lost: &mut Vec<Lost>,
) -> QueryResult<()> {
    let mut workers: Vec<_> = lost.iter().map(|one| one.worker).collect();
    workers.sort_unstable();
    workers.dedup();
    let row = Keyed::table("qudo_worker");
    let alive: HashSet<Uuid> =
        E::rows_by_id::<Uuid>(conn, "id", &row, &workers, "")?.into_iter().collect();
    lost.retain(|one| (expired && one.expired) || !alive.contains(&one.worker));
    Ok(())
}

fn kind(lost: &Lost) -> FailureKind {
    if lost.expired { FailureKind::LeaseExpired } else { FailureKind::Crash }
}

/// What the rows of workers say of them, by their ids; some may have none.
fn said_of<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    lost: &[Lost],
) -> QueryResult<HashMap<Uuid, Said>> {
    let ids: HashSet<_> = lost.iter().map(|one| one.worker).collect();
    let mut ids: Vec<_> = ids.into_iter().collect();
    ids.sort_unstable();
    let row = Keyed::table("qudo_worker");
    let rows: Vec<(Uuid, Said)> = E::rows_by_id(conn, "id, name, program_version", &row, &ids, "")?;
    Ok(rows.into_iter().collect())
}

/// The name of a worker, and the version of its program.
#[derive(Default)]
struct Said(Option<String>, Option<String>);

impl FromRow for (Uuid, Said) {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok((columns.id()?, Said(columns.opt_text()?, columns.opt_text()?)))
    }
}

/// The unique key and the metadata of a job.
type Beside = (Option<String>, Option<String>);

impl FromRow for (Uuid, Beside) {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok((columns.id()?, (columns.opt_text()?, columns.opt_text()?)))
    }
}

fn take_back<E: Engine>(conn: &mut Sql<'_, E::Conn>, lost: &[Lost]) -> QueryResult<()> {
    let said = said_of::<E>(conn, lost)?;
    let (nothing, unknown) = (Said::default(), (None, None));
    let all: Vec<_> = lost.iter().map(|one| one.stand.id).collect();
    let job = Keyed::table("qudo_job");
    let facts: Vec<(Uuid, Beside)> = E::rows_by_id(conn, "id, uniqkey, meta", &job, &all, "")?;
    let facts: HashMap<_, _> = facts.into_iter().collect();
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
        .map(|(one, (id, message))| {
            let Said(name, version) = said.get(&one.worker).unwrap_or(&nothing);
            let (uniqkey, meta) = facts.get(&one.stand.id).unwrap_or(&unknown);
            NewException {
                id,
                job: &one.stand.id,
                ability: &one.stand.ability,
                queue: &one.stand.queue,
                worker: &one.worker,
                worker_name: name.as_deref(),
                version: version.as_deref(),
                attempt: one.stand.attempt,
                kind: kind(one).as_str(),
                class: None,
                message,
                discarded: false,
                uniqkey: uniqkey.as_deref(),
                priority: -one.stand.claim_rank,
                codec: None,
                arg: None,
                meta: meta.as_deref(),
            }
        })
        .collect();
    log_exceptions::<E>(conn, &exceptions)?;
    let mut ids: Vec<_> = lost.iter().map(|one| one.stand.id).collect();
    ids.sort_unstable();
    let taken = E::delete_by_id(conn, &Keyed::table("qudo_lease"), &ids)?;
    let places: Vec<_> = lost
        .iter()
        .map(|one| Place { crashes: one.stand.crashes + 1, ..Place::from(&one.stand) })
        .collect();
    balance("rescue", taken, put_ready::<E>(conn, &places)?)?;
    balance("rescue what is locked", lost.len(), taken)
}

/// Returns leases to ready, the attempt unspent: all of a worker, or those of one claim. Tells the queue of
/// each. Inside a transaction.
pub(crate) fn give_back<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    worker: &Uuid,
    claim: Option<i64>,
) -> QueryResult<Vec<String>> {
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
    let taken = E::delete_by_id(conn, &Keyed::table("qudo_lease"), &ids)?;
    let places: Vec<_> = stands
        .iter()
        .map(|stand| Place { attempt: stand.attempt - 1, ..Place::from(stand) })
        .collect();
    balance("give back", taken, put_ready::<E>(conn, &places)?)?;
    balance("give back what is locked", stands.len(), taken)?;
    Ok(stands.into_iter().map(|stand| stand.queue).collect())
}

/// Removes a worker that stops, and gives back what it still holds. Inside a transaction.
///
/// Locking: the worker's row before its leases, as in a rescue.
pub(crate) fn remove_worker<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    worker: &Uuid,
) -> QueryResult<Vec<String>> {
    conn.run("DELETE FROM qudo_worker WHERE id = ?", &[Bind::Id(worker)])?;
    give_back::<E>(conn, worker, None)
}

struct Seen(WorkerSeen);

impl FromRow for Seen {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let info = WorkerInfo {
            id: WorkerId::from_uuid(columns.id()?),
            name: columns.text()?.into(),
            version: columns.opt_text()?.map(Into::into),
            abilities: names_of(&columns.text()?),
            queues: names_of(&columns.text()?),
            dead_after: Duration::ZERO,
        };
        let span = |micros: i64| Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        let (seen_at, dead_after) = (instant(columns.big()?), span(columns.big()?));
        let info = WorkerInfo { dead_after, ..info };
        Ok(Self(WorkerSeen { info, seen_at, silent: span(columns.big()?) }))
    }
}

/// The worker processes with how long they have been silent.
pub(crate) fn workers<E: Engine>(conn: &mut Sql<'_, E::Conn>) -> QueryResult<Vec<WorkerSeen>> {
    let sql = format!(
        "SELECT id, name, program_version, abilities, queues, seen_at, dead_after, {} - seen_at FROM qudo_worker ORDER BY id",
        E::NOW
    );
    Ok(conn.rows::<Seen>(&sql, &[])?.into_iter().map(|row| row.0).collect())
}
