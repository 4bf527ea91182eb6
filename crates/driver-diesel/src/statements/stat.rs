//! Numbers of runs. Inside a transaction where they are written.

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{BUCKETS, Histogram, Keep, RunStats, StatRow, StatScan};
use uuid::Uuid;

use super::lookup::instant;
use crate::bulk::insert_rows;
use crate::engine::{Engine, micros};
use crate::sql::{Bind, Columns, FromRow, Sql};

/// A minute in microseconds.
const MINUTE: i64 = 60_000_000;

/// The minute of the row that has the sums since there are any.
const EVER: i64 = 0;

/// The columns with numbers that every row has.
const COUNTS: [&str; 8] =
    ["completed", "replaced", "retried", "failed", "cancelled", "snoozed", "wait_sum", "run_sum"];

/// The buckets of both histograms: NULL where there is none.
static BUCKET_COLUMNS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let of = |kind: &'static str| (0..BUCKETS).map(move |at| format!("{kind}_{at:02}"));
    of("wait").chain(of("run")).collect()
});

/// All columns with numbers, in the order in which they are read and written.
fn columns() -> impl Iterator<Item = &'static str> {
    COUNTS.into_iter().chain(BUCKET_COLUMNS.iter().map(String::as_str))
}

/// What stands for a column in a list.
fn list(mut of: impl FnMut(&mut String, &str)) -> String {
    let mut text = String::with_capacity(2_048);
    for column in columns() {
        if !text.is_empty() {
            text.push(',');
        }
        of(&mut text, column);
    }
    text
}

/// Adds to the numbers of this minute and to those since there are any, unless the process said the same under this number
/// before; `false` if the process has no row.
///
/// Locking: the row of the process, then the sums in the order of their keys, then those of the minute: the same rows as every other
/// process adds to, and a lock of each lasts until the commit. So it is not done with a claim or a settle.
pub(crate) fn add<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    worker: &Uuid,
    number: i64,
    rows: &[StatRow],
) -> QueryResult<bool> {
    let note = "UPDATE qudo_worker SET stat_number = ? WHERE id = ? AND stat_number < ?";
    let binds = [Bind::Big(number), Bind::Id(worker), Bind::Big(number)];
    if conn.run(note, &binds)? == 0 {
        let known = "SELECT id FROM qudo_worker WHERE id = ?";
        return Ok(conn.row::<Uuid>(known, &[Bind::Id(worker)])?.is_some());
    }
    let now = conn.row::<i64>(&format!("SELECT {}", E::NOW), &[])?.unwrap_or_default();
    let minute = now - now.rem_euclid(MINUTE);
    let (words, tail) = upsert::<E>();
    let numbers: Vec<_> = rows.iter().map(|row| numbers(&row.stats)).collect();
    for minute in [EVER, minute] {
        let rows: Vec<_> = rows
            .iter()
            .zip(&numbers)
            .map(|(row, numbers)| {
                let key = [Bind::Big(minute), Bind::Text(&row.queue), Bind::Text(&row.ability)];
                key.into_iter().chain(numbers.iter().copied()).collect::<Vec<_>>()
            })
            .collect();
        let row = format!("(?,?,?{})", ",?".repeat(COUNTS.len() + BUCKET_COLUMNS.len()));
        insert_rows(conn, &words, &row, &rows, &tail)?;
    }
    Ok(true)
}

/// The words before and after the values of an insert that adds to a row that is there.
fn upsert<E: Engine>() -> (String, String) {
    let names = list(|text, column| text.push_str(column));
    let (alias, clause, new) = E::UPSERT;
    let words = format!("INSERT INTO qudo_stat{alias} (minute,queue,ability,{names}) VALUES ");
    let sums = list(|text, column| {
        let old = if alias.is_empty() { column.to_owned() } else { format!("s.{column}") };
        let new = new.replace("{}", column);
        // Writing to a string cannot fail.
        let _ = write!(text, "{column}=COALESCE({old}+{new},{old},{new})");
    });
    (words, format!("{}{sums}", clause.replace("{}", "minute,queue,ability")))
}

/// The values of [`columns`].
fn numbers<'b>(stats: &RunStats) -> Vec<Bind<'b>> {
    let big = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let some = |count: u64| Bind::OptBig((count > 0).then(|| big(count)));
    let (waiting, running) = (&stats.waiting, &stats.running);
    let mut all: Vec<_> =
        stats.by_outcome().iter().map(|(_, count)| Bind::Big(big(*count))).collect();
    all.extend([waiting, running].map(|one| Bind::Big(micros(one.sum()))));
    all.extend(waiting.counts().iter().chain(running.counts()).map(|count| some(*count)));
    all
}

struct Row(StatRow);

impl FromRow for Row {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let (minute, queue, ability) = (columns.big()?, columns.text()?, columns.text()?);
        let mut number = || columns.big().map(i64::unsigned_abs);
        let mut stats = RunStats {
            completed: number()?,
            replaced: number()?,
            retried: number()?,
            failed: number()?,
            cancelled: number()?,
            snoozed: number()?,
            ..RunStats::default()
        };
        let (waited, ran) = (Duration::from_micros(number()?), Duration::from_micros(number()?));
        stats.waiting = histogram(columns, waited)?;
        stats.running = histogram(columns, ran)?;
        let since = (minute != EVER).then(|| instant(minute));
        Ok(Self(StatRow::new(since, queue, ability, stats)))
    }
}

fn histogram(columns: &mut dyn Columns, sum: Duration) -> deserialize::Result<Histogram> {
    let mut counts = [0; BUCKETS];
    for count in &mut counts {
        *count = columns.opt_big()?.unwrap_or_default().unsigned_abs();
    }
    Ok(Histogram::new(counts, sum))
}

/// Numbers since there are any, or those of the last minutes, summed up by the server. By the primary key, from where the span
/// begins.
///
/// Locking: none.
pub(crate) fn stats<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    scan: &StatScan,
) -> QueryResult<Vec<StatRow>> {
    let limit = Bind::Big(scan.limit.into());
    let Some(last) = scan.last else {
        let names = list(|text, column| text.push_str(column));
        let sql = format!(
            "SELECT minute,queue,ability,{names} FROM qudo_stat WHERE minute = {EVER} ORDER BY queue,ability LIMIT ?"
        );
        let rows: Vec<Row> = conn.rows(&sql, &[limit])?;
        return Ok(rows.into_iter().map(|row| row.0).collect());
    };
    let now = conn.row::<i64>(&format!("SELECT {}", E::NOW), &[])?.unwrap_or_default();
    let from = (now - micros(last)).max(MINUTE);
    let first = from - from.rem_euclid(MINUTE);
    // In the text, because to PostgreSQL two binds are two values: it would not group by what it reads.
    let since = match scan.step_minutes() {
        Some(minutes) => {
            let step = i64::try_from(minutes).unwrap_or(i64::MAX).saturating_mul(MINUTE);
            format!("minute - minute % {step}")
        }
        None => format!("CAST({first} AS {})", E::BIG),
    };
    let sums = list(|text, column| {
        let _ = write!(text, "CAST(SUM({column}) AS {})", E::BIG);
    });
    let sql = format!(
        "SELECT {since},queue,ability,{sums} FROM qudo_stat WHERE minute >= ? GROUP BY 1,2,3 ORDER BY 1,2,3 LIMIT ?"
    );
    let rows: Vec<Row> = conn.rows(&sql, &[Bind::Big(first), limit])?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// Removes old minutes, about so many rows; tells how many, and whether there may be more. The sums stay.
///
/// Locking: a range at the start of the primary key, in its order. Nobody adds to minutes that are over.
pub(crate) fn purge<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    keep: &Keep,
    limit: u32,
) -> QueryResult<(usize, bool)> {
    let last = format!(
        "SELECT MAX(minute) FROM (SELECT minute FROM qudo_stat WHERE minute > {EVER} AND minute < (SELECT {}) - ? \
         ORDER BY minute,queue,ability LIMIT ?) old",
        E::NOW
    );
    let binds = [Bind::Big(micros(keep.stats).saturating_add(MINUTE)), Bind::Big(limit.into())];
    let Some(Newest(Some(last))) = conn.row(&last, &binds)? else { return Ok((0, false)) };
    let remove = format!("DELETE FROM qudo_stat WHERE minute > {EVER} AND minute <= ?");
    let removed = conn.run(&remove, &[Bind::Big(last)])?;
    Ok((removed, removed >= limit as usize))
}

struct Newest(Option<i64>);

impl FromRow for Newest {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.opt_big()?))
    }
}
