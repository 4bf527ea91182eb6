use std::collections::HashMap;

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{
    Due, Exception, ExceptionId, ExceptionScan, Inserted, JobFacts, JobRecord, Keep, Redrive,
    WorkerId,
};
use qudo_hooks::{FailureKind, JobId};
use uuid::Uuid;

use super::facts::FACTS;
use super::insert::insert_within;
use super::ledger::balance;
use super::lookup::instant;
use crate::bulk::{Keyed, insert_rows};
use crate::engine::{Engine, micros};
use crate::sql::{Bind, Columns, FromRow, Sql};

/// A row to be logged.
pub(crate) struct NewException<'a> {
    pub(crate) id: &'a Uuid,
    pub(crate) job: &'a Uuid,
    pub(crate) ability: &'a str,
    pub(crate) queue: &'a str,
    pub(crate) worker: &'a Uuid,
    pub(crate) worker_name: Option<&'a str>,
    pub(crate) version: Option<&'a str>,
    pub(crate) attempt: i32,
    pub(crate) kind: &'a str,
    pub(crate) class: Option<&'a str>,
    pub(crate) message: &'a str,
    pub(crate) discarded: bool,
    pub(crate) uniqkey: Option<&'a str>,
    pub(crate) priority: i32,
    pub(crate) codec: Option<&'a str>,
    pub(crate) arg: Option<&'a [u8]>,
    pub(crate) meta: Option<&'a str>,
}

/// Appends to the exception log. New ids, so nothing is waited for.
pub(crate) fn log_exceptions<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    exceptions: &[NewException<'_>],
) -> QueryResult<()> {
    let rows: Vec<_> = exceptions
        .iter()
        .map(|one| {
            vec![
                Bind::Id(one.id),
                Bind::Id(one.job),
                Bind::Text(one.ability),
                Bind::Text(one.queue),
                Bind::Id(one.worker),
                Bind::Int(one.attempt),
                Bind::Text(one.kind),
                Bind::Text(one.message),
                Bind::Int(one.discarded.into()),
                Bind::OptText(one.uniqkey),
                Bind::Int(one.priority),
                Bind::OptText(one.codec),
                Bind::OptBytes(one.arg),
                Bind::OptText(one.meta),
                Bind::OptText(one.worker_name),
                Bind::OptText(one.version),
                Bind::OptText(one.class),
            ]
        })
        .collect();
    let head = "INSERT INTO qudo_exception_log (id, job_id, ability, queue, worker, attempt, kind, \
                message, discarded, uniqkey, priority, codec, arg, meta, worker_name, \
                program_version, error_class, failed_at) VALUES ";
    let row = format!("(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,{})", E::NOW);
    balance("log exceptions", rows.len(), insert_rows(conn, head, &row, &rows, "")?)
}

struct Row(Exception);

const COLUMNS: &str = "id, job_id, attempt, kind, error_class, message, failed_at, worker, worker_name, \
                       program_version, discarded, redriven_as";

impl FromRow for Row {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let id = ExceptionId::from_uuid(columns.id()?);
        let (job, attempt) = (JobId::from_uuid(columns.id()?), columns.int()?);
        let (kind, class) = (FailureKind::from_stored(&columns.text()?), columns.opt_text()?);
        let (message, failed_at) = (columns.text()?, instant(columns.big()?));
        let worker = WorkerId::from_uuid(columns.id()?);
        let (worker_name, version) = (columns.opt_text()?, columns.opt_text()?);
        let discarded = columns.int()? != 0;
        let redriven_as = columns.opt_id()?.map(JobId::from_uuid);
        let facts = JobFacts::from_row(columns)?;
        let mut row = Exception::new(id, job, facts, kind, message, worker, failed_at);
        (row.attempt, row.class) = (attempt.unsigned_abs(), class);
        (row.worker_name, row.version) = (worker_name, version);
        (row.discarded, row.redriven_as) = (discarded, redriven_as);
        Ok(Self(row))
    }
}

/// Rows of the exception log, newest first: the ids sort by time. Those of one job are found by its index, and are few.
pub(crate) fn scan<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    scan: &ExceptionScan,
) -> QueryResult<Vec<Exception>> {
    // Of the type of the column, and not read.
    let facts = if scan.arguments {
        FACTS.to_owned()
    } else {
        FACTS.replace("arg", "CASE WHEN 1 = 0 THEN arg END")
    };
    let is_all = scan.discarded_only && scan.job.is_none() && scan.id.is_none();
    let by = if is_all { E::BY_DISCARDED } else { "" };
    let mut sql = format!("SELECT {COLUMNS}, {facts} FROM qudo_exception_log{by} WHERE 1 = 1");
    let mut binds = Vec::new();
    let ids = [
        (" AND job_id = ?", scan.job.as_ref().map(JobId::as_uuid)),
        (" AND id = ?", scan.id.as_ref().map(ExceptionId::as_uuid)),
        (" AND id < ?", scan.before.as_ref().map(ExceptionId::as_uuid)),
    ];
    for (condition, id) in ids {
        if let Some(id) = id {
            sql.push_str(condition);
            binds.push(Bind::Id(id));
        }
    }
    if scan.discarded_only {
        sql.push_str(" AND discarded = 1");
    }
    sql.push_str(" ORDER BY id DESC LIMIT ?");
    binds.push(Bind::Big(scan.limit.into()));
    let rows: Vec<Row> = conn.rows(&sql, &binds)?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// Whether this is the job that a discarded one was enqueued again as.
pub(crate) fn is_redriven_as<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    exception: &Uuid,
    new: JobId,
) -> QueryResult<bool> {
    let sql = "SELECT id FROM qudo_exception_log WHERE id = ? AND redriven_as = ?";
    let binds = [Bind::Id(exception), Bind::Id(new.as_uuid())];
    Ok(conn.row::<Uuid>(sql, &binds)?.is_some())
}

/// Enqueues discarded jobs again, each once: the row's lock decides between two who try. One answer for each, in order,
/// and the queues of those that are ready now.
///
/// Locking: rows of the log by id, then the keys in their order.
pub(crate) fn redrive<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    wanted: &[(ExceptionId, JobId)],
) -> QueryResult<(Vec<Redrive>, Vec<String>)> {
    let mut ids: Vec<_> = wanted.iter().map(|(row, _)| *row.as_uuid()).collect();
    ids.sort_unstable();
    ids.dedup();
    // All of them, before the first key is taken.
    let log = Keyed::table("qudo_exception_log");
    E::rows_by_id::<Uuid>(conn, "id", &log, &ids, E::FOR_UPDATE)?;
    let (mut answers, mut queues) = (Vec::with_capacity(wanted.len()), Vec::new());
    // Of two with the same key the first that is wanted wins.
    for piece in wanted.chunks(ARGUMENTS) {
        let (of_piece, queues_of_piece) = redrive_some::<E>(conn, piece)?;
        answers.extend(of_piece);
        queues.extend(queues_of_piece);
    }
    Ok((answers, queues))
}

/// So many arguments are in memory at once, which may be large.
const ARGUMENTS: usize = 16;

/// The rows are locked.
fn redrive_some<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    wanted: &[(ExceptionId, JobId)],
) -> QueryResult<(Vec<Redrive>, Vec<String>)> {
    let mut ids: Vec<_> = wanted.iter().map(|(row, _)| *row.as_uuid()).collect();
    ids.sort_unstable();
    ids.dedup();
    let (columns, log) = (format!("{COLUMNS}, {FACTS}"), Keyed::table("qudo_exception_log"));
    let rows: Vec<Row> = E::rows_by_id(conn, &columns, &log, &ids, E::FOR_UPDATE)?;
    let mut rows: HashMap<_, _> = rows.into_iter().map(|Row(row)| (row.id, row)).collect();
    let mut answers = vec![Redrive::NotFound; wanted.len()];
    let (mut records, mut places) = (Vec::new(), Vec::new());
    for (at, (exception, new)) in wanted.iter().enumerate() {
        // One that is wanted twice is not found the second time.
        let Some(row) = rows.remove(exception) else { continue };
        match row.redriven_as {
            // Our own, if the answer to the first try was lost.
            Some(job) if job == *new => answers[at] = Redrive::Enqueued(job),
            Some(job) => answers[at] = Redrive::Already(job),
            None if !row.discarded => answers[at] = Redrive::NotDiscarded,
            None => {
                records.push(JobRecord { id: *new, facts: row.facts, due: Due::Now });
                places.push(at);
            }
        }
    }
    let mut redriven = Vec::with_capacity(records.len());
    let mut queues = Vec::new();
    for ((at, record), inserted) in
        places.iter().zip(&records).zip(insert_within::<E>(conn, &records)?)
    {
        answers[*at] = match inserted {
            Inserted::Existing(holder) => Redrive::Conflict(holder),
            Inserted::New => {
                redriven.push((*wanted[*at].0.as_uuid(), *record.id.as_uuid()));
                queues.push(record.facts.queue.to_string());
                Redrive::Enqueued(record.id)
            }
        };
    }
    if !redriven.is_empty() {
        note_redriven::<E>(conn, &redriven)?;
    }
    Ok((answers, queues))
}

/// Notes under which id each row was redriven.
fn note_redriven<E: Engine>(conn: &mut Sql<'_, E::Conn>, rows: &[(Uuid, Uuid)]) -> QueryResult<()> {
    let cases = ["WHEN ? THEN ?"].repeat(rows.len()).join(" ");
    let set = format!("redriven_as = CASE id {cases} END");
    let binds: Vec<_> = rows.iter().flat_map(|(row, new)| [Bind::Id(row), Bind::Id(new)]).collect();
    let mut ids: Vec<_> = rows.iter().map(|(row, _)| *row).collect();
    ids.sort_unstable();
    let log = Keyed::table("qudo_exception_log");
    let noted = E::update_by_id(conn, &set, &binds, &log, &ids)?;
    balance("note a redrive", rows.len(), noted)
}

/// What a purge has to know of an exception.
struct Old {
    id: Uuid,
    discarded: bool,
    redriven: bool,
    /// How long ago it was, in microseconds.
    age: i64,
}

impl FromRow for Old {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let (id, discarded) = (columns.id()?, columns.int()? != 0);
        Ok(Self { id, discarded, redriven: columns.opt_id()?.is_some(), age: columns.big()? })
    }
}

/// The newest row of the log that is one too many: as many as may be are newer. Reads that many ids.
fn first_too_many<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    keep: &Keep,
) -> QueryResult<Option<Uuid>> {
    let Some(most) = keep.exceptions_at_most else { return Ok(None) };
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let sql = "SELECT id FROM qudo_exception_log ORDER BY id DESC LIMIT 1 OFFSET ?";
    conn.row(sql, &[Bind::Big(most)])
}

/// How far a purge has come through the exception log.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PurgedTo {
    /// The next page lies behind this row; nil before the first one.
    pub(crate) after: Uuid,
    /// What [`first_too_many`] said before the first page.
    too_many: Option<Uuid>,
}

/// Looks through the next page of the exception log and removes what is old enough there. Returns how many
/// rows that were, and where the next page begins. The ids sort by time, but what is kept may lie before
/// what is not.
///
/// Locking: as [`trace::purge`](super::trace::purge).
pub(crate) fn purge<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    keep: &Keep,
    to: PurgedTo,
    limit: u32,
) -> QueryResult<(usize, PurgedTo)> {
    let PurgedTo { after, too_many } = to;
    let too_many = if after.is_nil() { first_too_many::<E>(conn, keep)? } else { too_many };
    let sql = format!(
        "SELECT id, discarded, redriven_as, {} - failed_at FROM qudo_exception_log WHERE id > ? \
         ORDER BY id LIMIT ?",
        E::NOW
    );
    let page: Vec<Old> = conn.rows(&sql, &[Bind::Id(&after), Bind::Big(limit.into())])?;
    let is_too_many = |one: &Old| too_many.is_some_and(|first| one.id <= first);
    let is_old = |one: &Old| {
        let age = keep.exception(one.discarded, one.redriven, is_too_many(one));
        age.is_some_and(|age| one.age > micros(age))
    };
    // Those behind a page of young ones are no older.
    let ends = (page.len() as u32) < limit
        || page.last().is_some_and(|last| {
            let youngest = keep.discarded.map_or(keep.exceptions, |age| age.min(keep.exceptions));
            last.age <= micros(youngest) && !is_too_many(last)
        });
    let after = page.last().filter(|_| !ends).map_or(Uuid::nil(), |last| last.id);
    let next = PurgedTo { after, too_many };
    let ids = page.iter().filter(|one| is_old(one)).map(|one| one.id).collect();
    let log = Keyed::table("qudo_exception_log");
    Ok((super::trace::remove_free::<E>(conn, &log, ids)?, next))
}
