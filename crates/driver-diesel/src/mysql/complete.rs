use diesel::MysqlConnection;
use diesel::result::{Error, QueryResult};
use qudo_core::driver::DriverError;
use uuid::Uuid;

use super::Mysql;
use super::list::{NUMBERED, numbered_json};
use crate::engine::Engine;
use crate::sql::{Bind, Sql};
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
    let ends = Ends::of(worker, &leases);
    engine.write(|conn| {
        let attempt = |conn: &mut Sql<'_, MysqlConnection>| ends.remove(conn);
        match all_or_nothing(conn, attempt)? {
            Some(()) => Ok(ids.to_vec()),
            None => conn.transaction(|conn| complete_held::<Mysql>(conn, worker, &leases)),
        }
    })
}

/// Leases and facts of jobs that are gone, to be removed in one statement.
pub(super) struct Ends<'a> {
    worker: &'a Uuid,
    jobs: usize,
    json: String,
}

impl<'a> Ends<'a> {
    /// Those of these ids and claims, in the order of the ids.
    pub(super) fn of(worker: &'a Uuid, leases: &[(Uuid, i64)]) -> Self {
        let json = numbered_json(leases.iter().map(|(id, claim)| (*claim, *id)));
        Self { worker, jobs: leases.len(), json }
    }

    /// Removes them; answers whether all leases were held and all had facts.
    pub(super) fn remove(&self, conn: &mut Sql<'_, MysqlConnection>) -> QueryResult<bool> {
        let sql = format!(
            "DELETE l, j FROM {NUMBERED} \
             STRAIGHT_JOIN qudo_lease l FORCE INDEX (PRIMARY) ON l.id = UNHEX(v.hex) \
             STRAIGHT_JOIN qudo_job j FORCE INDEX (PRIMARY) ON j.id = l.id \
             WHERE l.claim = v.number AND l.worker = ?"
        );
        // Rows of both tables count.
        let binds = [Bind::Text(&self.json), Bind::Id(self.worker)];
        Ok(conn.run(&sql, &binds)? == 2 * self.jobs)
    }
}

/// Runs `act` in a transaction of its own, which is rolled back when it answers `false`: `None` then.
pub(super) fn all_or_nothing(
    conn: &mut Sql<'_, MysqlConnection>,
    act: impl FnOnce(&mut Sql<'_, MysqlConnection>) -> QueryResult<bool>,
) -> QueryResult<Option<()>> {
    let mut all = false;
    let attempted = conn.transaction(|conn| {
        all = act(conn)?;
        if all { Ok(()) } else { Err(Error::RollbackTransaction) }
    });
    match attempted {
        Ok(()) => Ok(Some(())),
        Err(Error::RollbackTransaction) if !all => Ok(None),
        Err(error) => Err(error),
    }
}
