use std::sync::atomic::{AtomicBool, Ordering};

use diesel::MysqlConnection;
use diesel::result::QueryResult;
use qudo_core::driver::{DriverError, Due, Inserted, JobRecord};

use super::{Mysql, NOW, missing};
use crate::bulk::{Keyed, insert_rows};
use crate::classify::{Class, classify};
use crate::clock::{LATE, TooLate, Window};
use crate::engine::Engine as _;
use crate::sql::{Bind, Sql};
use crate::statements::facts;
use crate::statements::insert::{insert_new_rows, insert_telling};
use crate::statements::ledger::balance;

/// A transaction in one round trip.
const CALL: &str = "CALL qudo_enqueue_1(?, ?, ?, ?, ?, ?, ?, ?)";

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
    window: &Window,
) -> Result<(Vec<Inserted>, bool), DriverError> {
    let mut committed = false;
    let inserted = engine.with(true, |conn| {
        let mut broken = None;
        if let [job] = jobs
            && job.facts.uniqkey.is_none()
            && job.facts.meta.is_none()
            && job.due == Due::Now
            && !engine.procedure.missing.load(Ordering::Relaxed)
        {
            match call(conn, job, window) {
                Ok(()) => return Ok((vec![Inserted::New], false)),
                Err(error) if error.to_string().contains(LATE) => return Err(TooLate::error()),
                Err(error) => match classify(&error) {
                    Class::Unique => {}
                    Class::Schema | Class::Permission => broken = Some(error),
                    // A procedure that is broken by itself, by an upgrade of the server perhaps,
                    // may have left its transaction open. The long way tells whether the job was
                    // at fault.
                    Class::Other => {
                        conn.run("ROLLBACK", &[])?;
                        broken = Some(error);
                    }
                    Class::Retry | Class::Down | Class::Late | Class::Slow => return Err(error),
                },
            }
        }
        // Only over a key can two nodes' inserts collide.
        let has_keys = jobs.iter().any(|job| job.facts.uniqkey.is_some());
        let before = if has_keys { engine.last_commit(conn)? } else { None };
        let (answers, written) = insert_telling::<Mysql>(conn, jobs, window)?;
        committed = true;
        // What was written may be gone although it was committed, because it ran and ended meanwhile.
        if before.is_some()
            && !written.is_empty()
            && !missing(conn, &[Keyed::table("qudo_job")], &written)?.is_empty()
        {
            engine.stands(conn, before.as_ref())?;
        }
        // Only now is it sure that it was the procedure.
        if let Some(error) = broken {
            engine.procedure.missing.store(true, Ordering::Relaxed);
            log::warn!(
                "{}: enqueues take four round trips instead of one, because the procedure \
                 {}enqueue_1 cannot be called: {error}",
                engine.source.described,
                conn.tables.prefix()
            );
        }
        Ok((answers, false))
    });
    // The commit was answered, and may stand although the look at it failed.
    inserted.map_err(|error| if committed { error.ambiguous(true) } else { error })
}

/// Fewer like jobs in a row are not worth the statement that tells what they share.
const MIN_RUN: usize = 32;

/// Stores new jobs; those in a row that differ only in id and argument share the other values.
///
/// Each bound value costs this end and the server, and three values a job instead of ten store a third more a
/// second. What is shared is told in variables of the session, because a text with the values in it would be one
/// more prepared statement for each kind of job.
///
/// Locking: new ids only.
pub(super) fn insert_new(
    conn: &mut Sql<'_, MysqlConnection>,
    jobs: &[&JobRecord],
) -> QueryResult<()> {
    let are_alike = |one: &&JobRecord, next: &&JobRecord| {
        one.due == Due::Now && next.due == Due::Now && facts::are_alike(&one.facts, &next.facts)
    };
    let mut others = Vec::new();
    for run in jobs.chunk_by(are_alike) {
        if run.len() < MIN_RUN {
            others.extend(run.iter().copied());
        } else {
            insert_run(conn, run)?;
        }
    }
    if others.is_empty() { Ok(()) } else { insert_new_rows::<Mysql>(conn, &others) }
}

fn insert_run(conn: &mut Sql<'_, MysqlConnection>, run: &[&JobRecord]) -> QueryResult<()> {
    let shared = &run[0].facts;
    conn.run(
        "SET @ability_of_qudo = ?, @queue_of_qudo = ?, @codec_of_qudo = ?, @priority_of_qudo = ?",
        &[
            Bind::Text(&shared.ability),
            Bind::Text(&shared.queue),
            Bind::Text(&shared.codec),
            Bind::Int(shared.priority),
        ],
    )?;
    let head =
        "INSERT INTO qudo_job (id, arg, ability, queue, codec, priority, enqueued_at) VALUES ";
    let row =
        format!("(?,?,@ability_of_qudo,@queue_of_qudo,@codec_of_qudo,@priority_of_qudo,{NOW})");
    let facts = run.iter().map(|job| [Bind::Id(job.id.as_uuid()), Bind::Bytes(&job.facts.arg)]);
    let facts: Vec<_> = facts.collect();
    let stored = insert_rows(conn, head, &row, &facts, "")?;
    let head =
        "INSERT INTO qudo_ready (id, queue, claim_rank, ability, attempt, crashes, flags) VALUES ";
    let row = "(?,@queue_of_qudo,-@priority_of_qudo,@ability_of_qudo,0,0,0)";
    let rows: Vec<_> = run.iter().map(|job| [Bind::Id(job.id.as_uuid())]).collect();
    let placed = insert_rows(conn, head, row, &rows, "")?;
    balance("insert facts", run.len(), stored)?;
    balance("insert places", run.len(), placed)
}

fn call(conn: &mut Sql<'_, MysqlConnection>, job: &JobRecord, window: &Window) -> QueryResult<()> {
    let binds = [
        Bind::Id(job.id.as_uuid()),
        Bind::Text(&job.facts.queue),
        Bind::Text(&job.facts.ability),
        Bind::Text(&job.facts.codec),
        Bind::Bytes(&job.facts.arg),
        Bind::Int(job.facts.priority),
        Bind::Big(window.from),
        Bind::Big(window.until),
    ];
    conn.run(CALL, &binds).map(drop)
}
