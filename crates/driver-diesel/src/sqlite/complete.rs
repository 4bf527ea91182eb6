use std::collections::BTreeMap;

use diesel::SqliteConnection;
use diesel::result::QueryResult;
use uuid::Uuid;

use super::Sqlite;
use crate::bulk::{Keyed, rows_in};
use crate::engine::Engine;
use crate::sql::Bind;

/// Removes lease and facts of completed jobs: two statements per claim, and a group of completed
/// jobs comes from one claim or two.
///
/// Locking: the caller's `BEGIN IMMEDIATE`.
pub(super) fn complete(
    conn: &mut SqliteConnection,
    worker: &Uuid,
    ids: &[Uuid],
    claims: &[i64],
) -> QueryResult<Vec<Uuid>> {
    let mut by_claim: BTreeMap<i64, Vec<Uuid>> = BTreeMap::new();
    for (id, claim) in ids.iter().zip(claims) {
        by_claim.entry(*claim).or_default().push(*id);
    }
    let mut held = Vec::with_capacity(ids.len());
    for (claim, mut ids) in by_claim {
        // In the order of the key, so that neighbours are found on the page at hand.
        ids.sort_unstable();
        let lease = "DELETE FROM qudo_lease WHERE worker = ? AND claim = ? AND id IN";
        let binds = [Bind::Id(worker), Bind::Big(claim)];
        let mut ours: Vec<Uuid> = rows_in(conn, lease, &binds, &ids, " RETURNING id")?;
        ours.sort_unstable();
        Sqlite::delete_by_id(conn, &Keyed::table("qudo_job"), &ours)?;
        held.append(&mut ours);
    }
    Ok(held)
}
