//! Numbers of runs. Inside a transaction where they are written.

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{BUCKETS, Histogram, Keep, RunStats, StatRow, StatScan};
use uuid::Uuid;

use super::lookup::instant;
use super::trace::remove_free;
use crate::bulk::{Keyed, insert_rows};
use crate::engine::{Engine, micros};
use crate::sql::{Bind, Columns, FromRow, Sql};

/// In microseconds.
const MINUTE: i64 = 60_000_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// 50 years, in minutes.
const LONGEST_STEP: i64 = 50 * 365 * 24 * 60;

/// The minute of the row that has the sums since there are any.
const EVER: i64 = 0;

/// What a sum grows to, in microseconds: half of what a column takes, so that it may be added to another.
const MOST: i64 = i64::MAX / 2;

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

/// Adds to the numbers of this minute and to those since there are any, unless the same was reported under this number
/// before.
///
/// Locking: the row of the reporter, which nobody else asks for; then the sums in the order of their keys, then those of the minute:
/// the same rows as every other process adds to, and a lock of each lasts until the commit. So it is not done with a claim, a settle or a heartbeat.
pub(crate) fn add<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    reporter: &Uuid,
    number: i64,
    rows: &[StatRow],
) -> QueryResult<()> {
    if !is_new::<E>(conn, reporter, number)? {
        return Ok(());
    }
    let now = conn.row::<i64>(&format!("SELECT {}", E::NOW), &[])?.unwrap_or_default();
    let (words, tail) = upsert::<E>();
    let numbers: Vec<_> = rows.iter().map(|row| numbers(&row.stats)).collect();
    let of_minute = |minute: i64| {
        rows.iter().zip(&numbers).map(move |(row, numbers)| {
            let key = [Bind::Big(minute), Bind::Text(&row.queue), Bind::Text(&row.ability)];
            key.into_iter().chain(numbers.iter().copied()).collect::<Vec<_>>()
        })
    };
    let all: Vec<_> = of_minute(EVER).chain(of_minute(now - now.rem_euclid(MINUTE))).collect();
    let row = format!("(?,?,?{})", ",?".repeat(COUNTS.len() + BUCKET_COLUMNS.len()));
    insert_rows(conn, &words, &row, &all, &tail).map(drop)
}

/// Notes the number of a report; `false` if one with this number, or a greater one, was noted before.
fn is_new<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    reporter: &Uuid,
    number: i64,
) -> QueryResult<bool> {
    let note = format!(
        "UPDATE qudo_stat_report SET number = ?, reported_at = {} WHERE reporter = ? AND number < ?",
        E::NOW
    );
    let binds = [Bind::Big(number), Bind::Id(reporter), Bind::Big(number)];
    if conn.run(&note, &binds)? > 0 {
        return Ok(true);
    }
    let (words, tail) = E::INSERT_IGNORE;
    let first = format!(
        "{words} INTO qudo_stat_report (reporter, number, reported_at) VALUES (?, ?, {}){tail}",
        E::NOW
    );
    Ok(conn.run(&first, &[Bind::Id(reporter), Bind::Big(number)])? > 0)
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
        let _ = if column.ends_with("_sum") {
            // Rather than to fail for ever they stay where they are.
            write!(text, "{column}=CASE WHEN {old}>{MOST}-{new} THEN {old} ELSE {old}+{new} END")
        } else {
            write!(text, "{column}=COALESCE({old}+{new},{old},{new})")
        };
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
    all.extend([waiting, running].map(|one| Bind::Big(micros(one.sum()).min(MOST))));
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
            // A span that began in 1970 would look like the sums.
            let step =
                i64::try_from(minutes).unwrap_or(i64::MAX).min(LONGEST_STEP).saturating_mul(MINUTE);
            format!("minute - minute % {step}")
        }
        None => format!("CAST({first} AS {})", E::BIG),
    };
    let sums = list(|text, column| {
        // A sum of sums may be more than a column takes.
        let _ = if column.ends_with("_sum") {
            text.push_str(&E::CAPPED_SUM.replace("{}", column));
            Ok(())
        } else {
            write!(text, "CAST(SUM({column}) AS {})", E::BIG)
        };
    });
    let sql = format!(
        "SELECT {since},queue,ability,{sums} FROM qudo_stat WHERE minute >= ? GROUP BY 1,2,3 ORDER BY 1 DESC,2,3 LIMIT ?"
    );
    let rows: Vec<Row> = conn.rows(&sql, &[Bind::Big(first), limit])?;
    let mut rows: Vec<_> = rows.into_iter().map(|row| row.0).collect();
    // The latest are asked for, and told in the order of their time.
    rows.sort_by_key(|row| row.since);
    Ok(rows)
}

/// Removes all numbers of a queue. The table is read through: it is for an operator, of a queue that is gone.
///
/// Locking: the rows of the queue, to which nobody adds any more.
pub(crate) fn forget<E: Engine>(conn: &mut Sql<'_, E::Conn>, queue: &str) -> QueryResult<usize> {
    conn.run("DELETE FROM qudo_stat WHERE queue = ?", &[Bind::Text(queue)])
}

/// Removes old minutes, so many rows, and the numbers of reports after a day; tells how many, and whether there may be more. The sums stay.
///
/// Locking: a range at the start of the primary key, in its order. Nobody adds to minutes that are over.
pub(crate) fn purge<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    keep: &Keep,
    limit: u32,
) -> QueryResult<(usize, bool)> {
    let age = micros(keep.stats).saturating_add(MINUTE);
    let old = format!("minute > {EVER} AND minute < (SELECT {}) - ?", E::NOW);
    let last = format!(
        "SELECT minute,queue,ability FROM (SELECT minute,queue,ability FROM qudo_stat WHERE {old} \
         ORDER BY minute,queue,ability LIMIT ?) old ORDER BY minute DESC,queue DESC,ability DESC LIMIT 1"
    );
    let (most, limit) = (limit as usize, Bind::Big(limit.into()));
    let last = conn.row::<Key>(&last, &[Bind::Big(age), limit])?;
    let mut removed = 0;
    if let Some(Key(minute, queue, ability)) = last {
        let upto = format!(
            "DELETE FROM qudo_stat WHERE minute > {EVER} AND minute <= ? \
             AND (minute < ? OR queue < ? OR (queue = ? AND ability <= ?))"
        );
        let (minute, queue) = (Bind::Big(minute), Bind::Text(&queue));
        removed = conn.run(&upto, &[minute, minute, queue, queue, Bind::Text(&ability)])?;
    }
    let reports = format!(
        "SELECT reporter FROM qudo_stat_report WHERE reported_at < (SELECT {}) - ? ORDER BY reported_at LIMIT ?",
        E::NOW
    );
    let ids: Vec<Uuid> = conn.rows(&reports, &[Bind::Big(DAY), limit])?;
    let more = removed + ids.len();
    let report = Keyed { key: "reporter", ..Keyed::table("qudo_stat_report") };
    removed += remove_free::<E>(conn, &report, ids)?;
    Ok((removed, more >= most))
}

struct Key(i64, String, String);

impl FromRow for Key {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.big()?, columns.text()?, columns.text()?))
    }
}
