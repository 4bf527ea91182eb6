use diesel::SqliteConnection;
use diesel::result::QueryResult;
use uuid::Uuid;

use super::Sqlite;
use crate::bulk::Keyed;
use crate::engine::Engine;
use crate::statements::settle::take_leases;

/// Removes lease and facts of completed jobs.
///
/// Locking: the caller's `BEGIN IMMEDIATE`.
pub(super) fn complete(
    conn: &mut SqliteConnection,
    worker: &Uuid,
    ids: &[Uuid],
    claims: &[i64],
) -> QueryResult<Vec<Uuid>> {
    let leases: Vec<_> = ids.iter().copied().zip(claims.iter().copied()).collect();
    let mut held: Vec<_> = take_leases::<Sqlite>(conn, worker, &leases)?.into_iter().collect();
    held.sort_unstable();
    Sqlite::delete_by_id(conn, &Keyed::table("qudo_job"), &held)?;
    Ok(held)
}
