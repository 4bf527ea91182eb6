//! Whether something in the database may keep rows out of our tables while they are inserted.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::PgConnection;
use diesel::result::QueryResult;

use crate::sql::Sql;

/// What was seen of the catalog is used for so long.
const FRESH_FOR: Duration = Duration::from_secs(10);

/// Triggers and rules on the tables that an insert writes: only by them can PostgreSQL store less than a
/// statement says. The catalog is readable by every account. It remembers those that were dropped until
/// the next vacuum.
const LOOK: &str = "SELECT 1 FROM pg_catalog.pg_class WHERE (relhastriggers OR relhasrules) \
     AND oid IN (to_regclass('qudo_job'), to_regclass('qudo_ready'))";

/// What was last seen of them.
#[derive(Default)]
pub(super) struct Triggers(Mutex<Option<(bool, Instant)>>);

impl Triggers {
    /// Whether there are any, or were, as of the last ten seconds.
    pub(super) fn are_there(&self, conn: &mut Sql<'_, PgConnection>) -> QueryResult<bool> {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((are_there, at)) = known
            && at.elapsed() < FRESH_FOR
        {
            return Ok(are_there);
        }
        let are_there = conn.run(LOOK, &[])? > 0;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((are_there, Instant::now()));
        Ok(are_there)
    }

    /// The next insert looks anew.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
