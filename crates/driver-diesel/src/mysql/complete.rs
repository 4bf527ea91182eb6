use qudo_core::driver::DriverError;
use uuid::Uuid;

use super::Mysql;
use super::list::{NUMBERED, numbered_json};
use crate::engine::Engine;
use crate::sql::Bind;
use crate::statements::settle::complete_held;

/// Removes lease and facts of completed jobs: one statement when all leases are still held, which
/// is nearly always.
///
/// Locking: leases by primary key in the order of the ids, each followed by its facts.
pub(super) fn complete(
    engine: &Mysql,
    worker: &Uuid,
    ids: &[Uuid],
    claims: &[i64],
) -> Result<Vec<Uuid>, DriverError> {
    let mut leases: Vec<_> = ids.iter().copied().zip(claims.iter().copied()).collect();
    leases.sort_unstable();
    let json = numbered_json(leases.iter().map(|(id, claim)| (*claim, *id)));
    let sql = format!(
        "DELETE l, j FROM {NUMBERED} \
         STRAIGHT_JOIN qudo_lease l FORCE INDEX (PRIMARY) ON l.id = UNHEX(v.hex) \
         STRAIGHT_JOIN qudo_job j FORCE INDEX (PRIMARY) ON j.id = l.id \
         WHERE l.claim = v.number AND l.worker = ?"
    );
    engine.write(|conn| {
        let mut all = false;
        // Rows of both tables count.
        let attempted = conn.transaction(|conn| {
            all = conn.run(&sql, &[Bind::Text(&json), Bind::Id(worker)])? == 2 * ids.len();
            if all { Ok(()) } else { Err(diesel::result::Error::RollbackTransaction) }
        });
        match attempted {
            Ok(()) => Ok(ids.to_vec()),
            Err(diesel::result::Error::RollbackTransaction) if !all => {
                conn.transaction(|conn| complete_held::<Mysql>(conn, worker, &leases))
            }
            Err(error) => Err(error),
        }
    })
}
