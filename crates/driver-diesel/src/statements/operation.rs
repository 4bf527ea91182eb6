//! Verbs over filters, as far as they have come. Every function runs inside a transaction.

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{Counts, Keep, OperationId, OperationRecord, OperationRow, Step};
use uuid::Uuid;

use super::cancel;
use super::lookup::instant;
use super::trace::remove_free;
use crate::bulk::Keyed;
use crate::engine::{Engine, micros};
use crate::sql::{Bind, Columns, FromRow, Sql};

const COLUMNS: &str = "id, verb, filter, operator, reason, at_most, asked_at, started_at, changed_at, finished_at, \
                       place, done, conflicts, gone";

struct Row(OperationRow);

impl FromRow for Row {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let record = OperationRecord {
            id: OperationId::from_uuid(columns.id()?),
            verb: columns.text()?,
            filter: columns.text()?,
            operator: columns.text()?,
            reason: columns.text()?,
            at_most: columns.opt_big()?.map(i64::unsigned_abs),
            asked_at: instant(columns.big()?),
        };
        let started_at = instant(columns.big()?);
        let mut row = OperationRow::new(record, started_at);
        row.started_at = started_at;
        row.changed_at = instant(columns.big()?);
        row.finished_at = columns.opt_big()?.map(instant);
        row.place = columns.text()?;
        let mut count = || columns.big().map(i64::unsigned_abs);
        row.counts = Counts::new(count()?, count()?, count()?);
        Ok(Self(row))
    }
}

/// Stores an operation, unless it is there; twice is once.
pub(crate) fn begin<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    record: &OperationRecord,
) -> QueryResult<Option<OperationRow>> {
    let (words, tail) = E::INSERT_IGNORE;
    let now = E::NOW;
    let sql = format!(
        "{words} INTO qudo_operation (id, verb, filter, operator, reason, at_most, asked_at, started_at, changed_at, \
         place, done, conflicts, gone) VALUES (?,?,?,?,?,?,?,{now} - ?,{now},'',0,0,0){tail}"
    );
    let binds = [
        Bind::Id(record.id.as_uuid()),
        Bind::Text(&record.verb),
        Bind::Text(&record.filter),
        Bind::Text(&record.operator),
        Bind::Text(&record.reason),
        Bind::OptBig(record.at_most.map(|most| i64::try_from(most).unwrap_or(i64::MAX))),
        Bind::Big(record.asked_at.timestamp_micros()),
        // What was stored in the same step of the clock was there before.
        Bind::Big(micros(record.age()).saturating_sub(E::NOW_STEP)),
    ];
    conn.run(&sql, &binds)?;
    operation::<E>(conn, record.id.as_uuid())
}

/// An operation as it stands.
pub(crate) fn operation<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    id: &Uuid,
) -> QueryResult<Option<OperationRow>> {
    let sql = format!("SELECT {COLUMNS} FROM qudo_operation WHERE id = ?");
    Ok(conn.row::<Row>(&sql, &[Bind::Id(id)])?.map(|row| row.0))
}

/// Operations, newest first: the ids sort by time.
pub(crate) fn operations<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    before: Option<OperationId>,
    limit: u32,
) -> QueryResult<Vec<OperationRow>> {
    let before = before.map_or(Uuid::max(), |id| *id.as_uuid());
    let sql = format!("SELECT {COLUMNS} FROM qudo_operation WHERE id < ? ORDER BY id DESC LIMIT ?");
    let rows: Vec<Row> = conn.rows(&sql, &[Bind::Id(&before), Bind::Big(limit.into())])?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// Moves an operation on, if it stands where the step begins; the row's lock decides between two who try. First of
/// all in a transaction, so that the second changes no job.
pub(crate) fn step<E: Engine>(conn: &mut Sql<'_, E::Conn>, step: &Step<'_>) -> QueryResult<bool> {
    let ends = if step.ends { E::NOW } else { "NULL" };
    let sql = format!(
        "UPDATE qudo_operation SET place = ?, changed_at = {}, finished_at = {ends} \
         WHERE id = ? AND place = ? AND finished_at IS NULL",
        E::NOW
    );
    let binds = [Bind::Text(step.to), Bind::Id(step.operation.as_uuid()), Bind::Text(step.from)];
    Ok(conn.run(&sql, &binds)? == 1)
}

/// Counts what the step did.
pub(crate) fn count<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    step: &Step<'_>,
    counts: Counts,
) -> QueryResult<()> {
    if counts.sum() == 0 {
        return Ok(());
    }
    let sql = "UPDATE qudo_operation SET done = done + ?, conflicts = conflicts + ?, gone = gone + ? WHERE id = ?";
    let number = |count: u64| Bind::Big(i64::try_from(count).unwrap_or(i64::MAX));
    let [done, conflicts, gone] = [counts.done, counts.conflicts, counts.gone].map(number);
    conn.run(sql, &[done, conflicts, gone, Bind::Id(step.operation.as_uuid())]).map(drop)
}

/// Removes operations that nobody went on with for as long as failures are kept, and orders to end jobs that are not
/// there any more. Returns how many rows.
pub(crate) fn purge<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    keep: &Keep,
    limit: u32,
) -> QueryResult<usize> {
    let sql = format!(
        "SELECT id FROM qudo_operation WHERE changed_at < (SELECT {}) - ? ORDER BY changed_at LIMIT ?",
        E::NOW
    );
    let limit = Bind::Big(limit.into());
    let ids: Vec<Uuid> = conn.rows(&sql, &[Bind::Big(micros(keep.exceptions)), limit])?;
    let removed = remove_free::<E>(conn, &Keyed::table("qudo_operation"), ids)?;
    Ok(removed + cancel::forget_over::<E>(conn, limit)?)
}
