use diesel::MysqlConnection;
use diesel::result::QueryResult;
use uuid::Uuid;

use super::Mysql;
use crate::bulk::run_in;
use crate::statements::settle::take_leases;

/// Removes lease and facts of completed jobs.
///
/// Locking: leases by id in order, then facts by id; all by primary key.
pub(super) fn complete(
    conn: &mut MysqlConnection,
    worker: &Uuid,
    ids: &[Uuid],
    claims: &[i64],
) -> QueryResult<Vec<Uuid>> {
    let leases: Vec<_> = ids.iter().copied().zip(claims.iter().copied()).collect();
    let mut held: Vec<_> = take_leases::<Mysql>(conn, worker, &leases)?.into_iter().collect();
    held.sort_unstable();
    run_in(conn, "DELETE FROM qudo_job WHERE id IN", &[], &held)?;
    Ok(held)
}
