//! Rows of jobs that wait: found by their ids, locked, and taken out of ready and scheduled. Inside a transaction.

use std::collections::{BTreeMap, HashSet};

use diesel::deserialize;
use diesel::result::QueryResult;
use uuid::Uuid;

use super::ledger::balance;
use super::{STAND, Since, Stand};
use crate::bulk::Keyed;
use crate::engine::Engine;
use crate::sql::{Bind, Columns, FromRow, Sql};

/// A narrow row with the time until which it waits, or since when it is ready.
pub(super) struct Waiting {
    pub(super) stand: Stand,
    pub(super) run_after: Option<i64>,
    pub(super) since: Since,
}

/// The columns of a [`Waiting`] in a table that says until when, in the order in which it is read.
pub(super) fn columns_of_waiting<E: Engine>() -> String {
    format!("{STAND}, run_after, CAST(NULL AS {})", E::BIG)
}

/// The same of a ready row.
pub(super) fn columns_of_ready<E: Engine>() -> String {
    format!("{STAND}, CAST(NULL AS {}), ready_at", E::BIG)
}

impl FromRow for Waiting {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let (stand, run_after) = (Stand::from_row(columns)?, columns.opt_big()?);
        Ok(Self { stand, run_after, since: Since::stored(columns.opt_big()?) })
    }
}

/// The key of a ready row, for a job of which only the id is known.
struct ReadyKey(String, i32);

impl FromRow for ReadyKey {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.text()?, -columns.int()?))
    }
}

struct Filed(Uuid, ReadyKey);

impl FromRow for Filed {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.id()?, ReadyKey::from_row(columns)?))
    }
}

/// The waiting rows of these jobs, locked; a claim that locks one first wins. Two questions for all of
/// them, and one or two for each queue and priority.
pub(super) fn waiting_each<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    ids: &[Uuid],
) -> QueryResult<Vec<Waiting>> {
    let job = Keyed::table("qudo_job");
    let facts: Vec<(Uuid, ReadyKey)> =
        E::rows_by_id::<Filed>(conn, "id, queue, priority", &job, ids, "")?
            .into_iter()
            .map(|Filed(id, key)| (id, key))
            .collect();
    let mut rows = ready_each::<E>(conn, &facts)?;
    let mut found: HashSet<Uuid> = rows.iter().map(|row| row.stand.id).collect();
    let mut rest: Vec<_> =
        facts.iter().map(|(id, _)| *id).filter(|id| !found.contains(id)).collect();
    if E::LOCKS_INDEXES {
        // As with ready rows.
        rest = E::rows_by_id(conn, "id", &Keyed::table("qudo_scheduled"), &rest, "")?;
        rest.sort_unstable();
    }
    let (columns, scheduled) = (columns_of_waiting::<E>(), Keyed::table("qudo_scheduled"));
    rows.extend(E::rows_by_id::<Waiting>(conn, &columns, &scheduled, &rest, E::FOR_UPDATE)?);
    found.extend(rows.iter().map(|row| row.stand.id));
    // They may have become due between the two looks.
    let rest: Vec<_> = facts.into_iter().filter(|(id, _)| !found.contains(id)).collect();
    rows.extend(ready_each::<E>(conn, &rest)?);
    Ok(rows)
}

/// Ready rows by their keys, locked.
fn ready_each<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    facts: &[(Uuid, ReadyKey)],
) -> QueryResult<Vec<Waiting>> {
    let columns = columns_of_ready::<E>();
    let mut rows = Vec::with_capacity(facts.len());
    let keys = facts.iter().map(|(id, ReadyKey(queue, rank))| (&**queue, *rank, *id));
    for ((queue, rank), mut ids) in by_rank(keys) {
        let key = [Bind::Text(queue), Bind::Int(rank)];
        let ready = Keyed::table("qudo_ready").only("queue = ? AND claim_rank = ?", &key);
        if E::LOCKS_INDEXES {
            // As in schedule.rs: what is left of rows that are gone is not to be locked.
            ids = E::rows_by_id::<Uuid>(conn, "id", &ready, &ids, "")?;
            ids.sort_unstable();
        }
        rows.extend(E::rows_by_id::<Waiting>(conn, &columns, &ready, &ids, E::FOR_UPDATE)?);
    }
    Ok(rows)
}

/// Ids by queue and rank, in the order of the key of the ready rows.
fn by_rank<'k>(
    keys: impl Iterator<Item = (&'k str, i32, Uuid)>,
) -> BTreeMap<(&'k str, i32), Vec<Uuid>> {
    let mut groups: BTreeMap<_, Vec<Uuid>> = BTreeMap::new();
    for (queue, rank, id) in keys {
        groups.entry((queue, rank)).or_default().push(id);
    }
    for ids in groups.values_mut() {
        ids.sort_unstable();
    }
    groups
}

/// Takes locked rows out of ready and scheduled. Returns how many.
pub(super) fn take<E: Engine>(conn: &mut Sql<'_, E::Conn>, rows: &[Waiting]) -> QueryResult<usize> {
    let ready = rows.iter().filter(|row| row.run_after.is_none()).map(|row| &row.stand);
    let keys = ready.map(|stand| (&*stand.queue, stand.claim_rank, stand.id));
    let mut taken = 0;
    for ((queue, rank), ids) in by_rank(keys) {
        let key = [Bind::Text(queue), Bind::Int(rank)];
        let ready = Keyed::table("qudo_ready").only("queue = ? AND claim_rank = ?", &key);
        taken += E::delete_by_id(conn, &ready, &ids)?;
    }
    let scheduled = rows.iter().filter(|row| row.run_after.is_some());
    let mut scheduled: Vec<_> = scheduled.map(|row| row.stand.id).collect();
    scheduled.sort_unstable();
    taken += E::delete_by_id(conn, &Keyed::table("qudo_scheduled"), &scheduled)?;
    balance("take jobs that wait", rows.len(), taken)?;
    Ok(taken)
}
