//! Jobs that are to end: those that wait end at once, those that run are ordered to.
//!
//! An order is stored in a transaction that holds the lock of the job's lease, so that whoever finds the job waiting
//! later, after its run, finds the order too. Neither a claim nor a settle looks at orders: jobs that are not
//! cancelled pay nothing.

use std::collections::{BTreeMap, HashMap};

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{Acted, CancelOrder, JobFacts};
use qudo_hooks::{FailureKind, JobId};
use uuid::Uuid;

use super::act::Answers;
use super::exception::{NewException, log_exceptions};
use super::facts::FACTS;
use super::keys::free_keys;
use super::ledger::balance;
use super::{STAND, Stand};
use crate::bulk::{Keyed, insert_rows};
use crate::engine::Engine;
use crate::held_key::HeldKey;
use crate::sql::{Bind, Columns, FromRow, Sql};

/// A job that ends, and who held it.
pub(super) struct Ended {
    stand: Stand,
    worker: Uuid,
}

impl Ended {
    /// Nobody held it.
    pub(super) const fn waited(stand: Stand) -> Self {
        Self { stand, worker: Uuid::nil() }
    }
}

impl FromRow for Ended {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self { stand: Stand::from_row(columns)?, worker: columns.id()? })
    }
}

/// Orders those of these jobs to end that run; by force it takes their leases, and returns them for [`end`].
pub(super) fn leased<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    reason: &str,
    by_force: bool,
    ids: &[Uuid],
    answers: &mut Answers,
) -> QueryResult<Vec<Ended>> {
    let lease = Keyed::table("qudo_lease");
    // First without locks: most are not there.
    let mut found: Vec<Uuid> = E::rows_by_id(conn, "id", &lease, ids, "")?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    found.sort_unstable();
    let columns = format!("{STAND}, worker");
    let leases: Vec<Ended> = E::rows_by_id(conn, &columns, &lease, &found, E::FOR_UPDATE)?;
    let mut held: Vec<_> = leases.iter().map(|one| one.stand.id).collect();
    held.sort_unstable();
    if by_force {
        let taken = E::delete_by_id(conn, &lease, &held)?;
        balance("take leases by force", leases.len(), taken)?;
        answers.of.extend(held.into_iter().map(|id| (id, Acted::Done)));
        return Ok(leases);
    }
    let before = order::<E>(conn, reason, &held)?;
    answers.ordered |= !held.is_empty();
    let acted = |id| if before.contains(&id) { Acted::AskedBefore } else { Acted::Asked };
    answers.of.extend(held.into_iter().map(|id| (id, acted(id))));
    Ok(Vec::new())
}

struct EnqueuedAt(Uuid, i64);

impl FromRow for EnqueuedAt {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.id()?, columns.big()?))
    }
}

/// Stores orders for jobs whose leases are locked. Returns the jobs that were ordered to end before: they keep the reason that they
/// have.
fn order<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    reason: &str,
    ids: &[Uuid],
) -> QueryResult<Vec<Uuid>> {
    let (columns, job) = ("id, enqueued_at", Keyed::table("qudo_job"));
    let mut jobs: Vec<EnqueuedAt> = E::rows_by_id(conn, columns, &job, ids, "")?;
    jobs.sort_unstable_by_key(|job| job.0);
    // An order for an earlier job of the id must not stand in the way.
    let over =
        "NOT EXISTS (SELECT 1 FROM qudo_job j WHERE j.id = x.id AND j.enqueued_at = x.enqueued_at)";
    let order = Keyed::table("qudo_cancel").only(over, &[]);
    let mut stale: Vec<Uuid> = E::rows_by_id(conn, "id", &order, ids, "")?;
    stale.sort_unstable();
    E::delete_by_id(conn, &Keyed::table("qudo_cancel"), &stale)?;
    let row = |EnqueuedAt(id, at): &EnqueuedAt| (*id, *at);
    let jobs: Vec<_> = jobs.iter().map(row).collect();
    let rows: Vec<_> =
        jobs.iter().map(|(id, at)| [Bind::Id(id), Bind::Text(reason), Bind::Big(*at)]).collect();
    let before: Vec<Uuid> = E::rows_by_id(conn, "id", &Keyed::table("qudo_cancel"), ids, "")?;
    let (words, tail) = E::INSERT_IGNORE;
    let into = format!("{words} INTO qudo_cancel (id, reason, enqueued_at, asked_at) VALUES ");
    insert_rows(conn, &into, &format!("(?,?,?,{})", E::NOW), &rows, tail)?;
    Ok(before)
}

/// A name and a version by the id of a worker.
struct Said(Uuid, String, Option<String>);

impl FromRow for Said {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.id()?, columns.text()?, columns.opt_text()?))
    }
}

struct Filed(Uuid, JobFacts);

impl FromRow for Filed {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.id()?, JobFacts::from_row(columns)?))
    }
}

/// So many arguments are in memory at once, which may be large.
const PIECE: usize = 16;

/// Ends jobs whose rows are taken: their facts go to the exception log, from which they can be redriven.
pub(super) fn end<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    reason: &str,
    mut ended: Vec<Ended>,
) -> QueryResult<()> {
    ended.sort_unstable_by_key(|one| one.stand.id);
    let mut keys = Vec::new();
    for piece in ended.chunks(PIECE) {
        keys.extend(end_some::<E>(conn, reason, piece)?);
    }
    let held = keys.iter().map(|(id, ability, uniqkey)| HeldKey { ability, uniqkey, id });
    free_keys::<E>(conn, held.collect()).map(drop)
}

/// A job with its ability and its unique key.
type Key = (Uuid, String, String);

/// Returns the keys that the jobs held.
fn end_some<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    reason: &str,
    ended: &[Ended],
) -> QueryResult<Vec<Key>> {
    let ids: Vec<_> = ended.iter().map(|one| one.stand.id).collect();
    let (columns, job) = (format!("id, {FACTS}"), Keyed::table("qudo_job"));
    let facts: Vec<Filed> = E::rows_by_id(conn, &columns, &job, &ids, E::CURRENT)?;
    let facts: BTreeMap<_, _> = facts.into_iter().map(|Filed(id, facts)| (id, facts)).collect();
    let said = said::<E>(conn, ended)?;
    let rows: Vec<_> = ended.iter().map(|one| (one, Uuid::now_v7())).collect();
    let rows: Vec<_> = rows
        .iter()
        .filter_map(|(one, id)| Some((one, id, facts.get(&one.stand.id)?)))
        .map(|(one, id, facts)| {
            let said = said.iter().find(|said| said.0 == one.worker);
            NewException {
                id,
                job: &one.stand.id,
                ability: &facts.ability,
                queue: &facts.queue,
                worker: &one.worker,
                worker_name: said.map(|said| &*said.1),
                version: said.and_then(|said| said.2.as_deref()),
                attempt: one.stand.attempt,
                kind: FailureKind::Cancelled.as_str(),
                class: None,
                message: reason,
                discarded: true,
                uniqkey: facts.uniqkey.as_deref(),
                priority: facts.priority,
                codec: Some(&facts.codec),
                arg: Some(&facts.arg),
                meta: facts.meta.as_deref(),
            }
        })
        .collect();
    log_exceptions::<E>(conn, &rows)?;
    let removed = E::remove_facts(conn, &ids)?;
    if removed != ids.len() {
        log::error!("{} of {} cancelled jobs had no facts", ids.len() - removed, ids.len());
    }
    let key = |(id, facts): (Uuid, JobFacts)| Some((id, facts.ability.to_string(), facts.uniqkey?));
    Ok(facts.into_iter().filter_map(key).collect())
}

/// What the rows of those workers say that held jobs.
fn said<E: Engine>(conn: &mut Sql<'_, E::Conn>, ended: &[Ended]) -> QueryResult<Vec<Said>> {
    let held = ended.iter().map(|one| one.worker).filter(|worker| !worker.is_nil());
    let mut workers: Vec<_> = held.collect();
    workers.sort_unstable();
    workers.dedup();
    let worker = Keyed::table("qudo_worker");
    E::rows_by_id(conn, "id, name, program_version", &worker, &workers, "")
}

/// Removes the orders of jobs that ended now, or are not there.
pub(super) fn forget<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    answers: &HashMap<Uuid, Acted>,
) -> QueryResult<()> {
    let over = answers.iter().filter(|(_, acted)| matches!(acted, Acted::Done | Acted::Gone));
    let mut ids: Vec<_> = over.map(|(id, _)| *id).collect();
    ids.sort_unstable();
    // Most have none, and on MySQL the look for one to delete would lock the gap where it is not.
    let (columns, order) = ("id, enqueued_at", Keyed::table("qudo_cancel"));
    let orders: Vec<EnqueuedAt> = E::rows_by_id(conn, columns, &order, &ids, "")?;
    delete::<E>(conn, orders).map(drop)
}

/// Deletes these orders, and none that was stored since for a later job of the id. There are few.
fn delete<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    mut orders: Vec<EnqueuedAt>,
) -> QueryResult<usize> {
    orders.sort_unstable_by_key(|order| order.0);
    let sql = "DELETE FROM qudo_cancel WHERE id = ? AND enqueued_at = ?";
    let one = |EnqueuedAt(id, at): &EnqueuedAt| conn.run(sql, &[Bind::Id(id), Bind::Big(*at)]);
    orders.iter().map(one).sum()
}

struct Order(CancelOrder);

impl FromRow for Order {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let job = JobId::from_uuid(columns.id()?);
        Ok(Self(CancelOrder { job, claim: columns.big()?, reason: columns.text()? }))
    }
}

/// The orders of jobs that this worker has leased. As a rule there is no order at all.
pub(crate) fn cancels<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    worker: &Uuid,
) -> QueryResult<Vec<CancelOrder>> {
    let sql = "SELECT c.id, l.claim, c.reason FROM qudo_cancel c JOIN qudo_lease l ON l.id = c.id \
               JOIN qudo_job j ON j.id = c.id AND j.enqueued_at = c.enqueued_at WHERE l.worker = ?";
    Ok(conn.rows::<Order>(sql, &[Bind::Id(worker)])?.into_iter().map(|row| row.0).collect())
}

struct Open(JobId, String);

impl FromRow for Open {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(JobId::from_uuid(columns.id()?), columns.text()?))
    }
}

/// Orders of jobs that nobody has leased, the oldest jobs first.
pub(crate) fn open_cancels<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    limit: u32,
) -> QueryResult<Vec<(JobId, String)>> {
    let sql = "SELECT c.id, c.reason FROM qudo_cancel c \
               JOIN qudo_job j ON j.id = c.id AND j.enqueued_at = c.enqueued_at WHERE NOT EXISTS \
               (SELECT 1 FROM qudo_lease l WHERE l.id = c.id) ORDER BY c.id LIMIT ?";
    let rows: Vec<Open> = conn.rows(sql, &[Bind::Big(limit.into())])?;
    Ok(rows.into_iter().map(|Open(id, reason)| (id, reason)).collect())
}

/// Removes orders whose jobs are not there any more. Returns how many.
pub(super) fn forget_over<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    limit: Bind<'_>,
) -> QueryResult<usize> {
    let sql = "SELECT c.id, c.enqueued_at FROM qudo_cancel c WHERE NOT EXISTS (SELECT 1 FROM qudo_job j \
               WHERE j.id = c.id AND j.enqueued_at = c.enqueued_at) ORDER BY c.id LIMIT ?";
    let orders: Vec<EnqueuedAt> = conn.rows(sql, &[limit])?;
    delete::<E>(conn, orders)
}
