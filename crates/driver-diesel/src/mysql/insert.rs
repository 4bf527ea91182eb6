use std::sync::atomic::{AtomicBool, Ordering};

use diesel::MysqlConnection;
use diesel::result::QueryResult;
use qudo_core::driver::{DriverError, Due, Inserted, JobRecord};

use super::Mysql;
use crate::classify::{Class, classify};
use crate::sql::{Bind, SqlConn};
use crate::statements::insert::insert;

/// A transaction in one round trip; see the migration that makes the procedure.
const CALL: &str = "CALL qudo_enqueue_1(?, ?, ?, ?, ?, ?)";

/// Whether the procedure can be called, as far as is known.
#[derive(Default)]
pub(super) struct Procedure {
    missing: AtomicBool,
}

/// Stores jobs; a lone one that is ready at once, and without a key, by the procedure.
///
/// Locking: new ids only. An id that is there already violates the primary key, and then the long
/// way finds out which. A server without the procedure is asked only once: nothing was stored by
/// the call that did not find it.
pub(super) fn insert_commit(
    engine: &Mysql,
    jobs: &[JobRecord],
) -> Result<(Vec<Inserted>, bool), DriverError> {
    engine.pool.with(true, |conn| {
        let mut missing = None;
        if let [job] = jobs
            && job.uniqkey.is_none()
            && job.due == Due::Now
            && !engine.procedure.missing.load(Ordering::Relaxed)
        {
            match call(conn, job) {
                Ok(()) => return Ok((vec![Inserted::New], false)),
                Err(error) => match classify(&error) {
                    Class::Unique => {}
                    Class::Schema | Class::Permission => missing = Some(error),
                    _ => return Err(error),
                },
            }
        }
        let answers = insert::<Mysql>(conn, jobs)?;
        // Only now is it sure that the tables are there and may be written.
        if let Some(error) = missing {
            engine.procedure.missing.store(true, Ordering::Relaxed);
            log::warn!(
                "{}: enqueues take four round trips instead of one, because the procedure \
                 qudo_enqueue_1 cannot be called: {error}",
                engine.source.described
            );
        }
        Ok((answers, false))
    })
}

fn call(conn: &mut MysqlConnection, job: &JobRecord) -> QueryResult<()> {
    let binds = [
        Bind::Id(job.id.as_uuid()),
        Bind::Text(&job.queue),
        Bind::Text(&job.ability),
        Bind::Text(&job.codec),
        Bind::Bytes(&job.arg),
        Bind::Int(job.priority),
    ];
    conn.run(CALL, &binds).map(drop)
}
