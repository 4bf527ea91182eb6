use std::collections::HashMap;
use std::time::Instant;

use diesel::MysqlConnection;
use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{ClaimRequest, ClaimedJob, DriverError};
use uuid::Uuid;

use super::Mysql;
use super::list::{NUMBERED, numbered_json};
use crate::claimed::{FACTS, FactsRow, READY, ReadyRow, claimed};
use crate::cursor::Place;
use crate::engine::{Engine, ability_filter, lease_length};
use crate::sql::{Bind, Columns, FromRow, SqlConn};

/// Leases ready jobs of a queue in one transaction: select, insert and delete by key, read facts.
///
/// Locking: rows of ready are locked in key order with SKIP LOCKED, under READ COMMITTED, so no
/// gaps are locked and nothing is waited for; the rest goes by primary keys that nobody else
/// touches. Deadlocks, which MariaDB raises all the same, are retried by the pool.
pub(super) fn claim(
    engine: &Mysql,
    request: &ClaimRequest<'_>,
) -> Result<Vec<ClaimedJob>, DriverError> {
    let after = engine.cursors.get(request.queue);
    let mut outcome = None;
    let jobs = engine.write(|conn| {
        conn.transaction(|conn| {
            let (rows, noted) = lock_ready(conn, request, after)?;
            outcome = Some(noted);
            lease(conn, request, rows)
        })
    })?;
    match outcome {
        Some(Noted::Advanced(last)) => engine.cursors.advance(request.queue, last),
        Some(Noted::FromStart(took, last)) => engine.cursors.restart(request.queue, took, last),
        None => {}
    }
    Ok(jobs)
}

/// What the cursor learns.
enum Noted {
    Advanced(Place),
    FromStart(std::time::Duration, Option<Place>),
}

/// The statement whose plan the tests check; `position` narrows it behind the cursor. The index is
/// forced, because a table that the statistics still take for empty is read through and
/// sorted. The order leaves out the queue: to MariaDB a column is no constant when the value compared
/// has another collation, and ordering by it costs a sort of the whole queue.
pub(crate) fn ready_sql(position: &str, filter: &str) -> String {
    format!(
        "SELECT {READY} FROM qudo_ready r FORCE INDEX (PRIMARY) \
         WHERE r.queue = ? {position} AND {filter} \
         ORDER BY r.claim_rank, r.id LIMIT ?{}",
        Mysql::SKIP_LOCKED
    )
}

/// Rows after the cursor at its own rank, which is a range of the key; then, if those are too few,
/// from the start. (A comparison of pairs would not be a range to MySQL.)
fn lock_ready(
    conn: &mut MysqlConnection,
    request: &ClaimRequest<'_>,
    after: Option<Place>,
) -> QueryResult<(Vec<ReadyRow>, Noted)> {
    let (filter, abilities) = ability_filter("r.ability", request.abilities);
    let limit = request.limit as usize;
    let mut rows: Vec<ReadyRow> = Vec::new();
    if let Some((rank, id)) = after {
        let mut binds = vec![Bind::Text(request.queue), Bind::Int(rank), Bind::Id(&id)];
        binds.extend(abilities.iter().copied());
        binds.push(Bind::Big(request.limit.into()));
        rows = conn.rows(&ready_sql("AND r.claim_rank = ? AND r.id > ?", &filter), &binds)?;
        if let Some(last) = rows.last().filter(|_| rows.len() >= limit) {
            let place = (last.claim_rank, last.id);
            return Ok((rows, Noted::Advanced(place)));
        }
    }
    let begun = Instant::now();
    let missing = limit - rows.len();
    let mut binds = vec![Bind::Text(request.queue)];
    // What lies behind the cursor is locked by us now, and would be returned again.
    let elsewhere = after.as_ref().map_or("", |(rank, id)| {
        binds.extend([Bind::Int(*rank), Bind::Id(id)]);
        "AND NOT (r.claim_rank = ? AND r.id > ?)"
    });
    binds.extend(abilities);
    binds.push(Bind::Big(missing as i64));
    let more: Vec<ReadyRow> = conn.rows(&ready_sql(elsewhere, &filter), &binds)?;
    let last = more.last().filter(|_| more.len() >= missing);
    let noted = Noted::FromStart(begun.elapsed(), last.map(|row| (row.claim_rank, row.id)));
    rows.extend(more);
    Ok((rows, noted))
}

/// Rows of ready that are locked, joined from the list of their ranks and ids. Each is found by its
/// whole primary key, see [`super::list`].
const LOCKED: &str = "STRAIGHT_JOIN qudo_ready r FORCE INDEX (PRIMARY) \
     ON r.queue = ? AND r.claim_rank = v.number AND r.id = UNHEX(v.hex)";

/// Deletes rows that are locked; those that are gone already are no error.
fn remove_ready(
    conn: &mut MysqlConnection,
    request: &ClaimRequest<'_>,
    list: &str,
) -> QueryResult<()> {
    let sql = format!("DELETE r FROM {NUMBERED} {LOCKED}");
    conn.run(&sql, &[Bind::Text(list), Bind::Text(request.queue)]).map(drop)
}

fn ready_list(rows: &[ReadyRow]) -> String {
    numbered_json(rows.iter().map(|row| (i64::from(row.claim_rank), row.id)))
}

struct Facts(Uuid, FactsRow);

impl FromRow for Facts {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.id()?, FactsRow::from_row(columns)?))
    }
}

/// Moves the locked rows from ready to lease, inside the server, and reads their facts.
fn lease(
    conn: &mut MysqlConnection,
    request: &ClaimRequest<'_>,
    rows: Vec<ReadyRow>,
) -> QueryResult<Vec<ClaimedJob>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let list = ready_list(&rows);
    let (length, lengths) = lease_length("r.ability", request.abilities);
    let insert = format!(
        "INSERT INTO qudo_lease (id, worker, claim, leased_until, queue, claim_rank, ability, \
         attempt, crashes) SELECT r.id, ?, ?, {now} + {length}, r.queue, r.claim_rank, r.ability, \
         r.attempt + 1, r.crashes FROM {NUMBERED} {LOCKED}",
        now = Mysql::NOW
    );
    let mut binds = vec![Bind::Id(request.worker.as_uuid()), Bind::Big(request.claim)];
    binds.extend(lengths);
    binds.extend([Bind::Text(&list), Bind::Text(request.queue)]);
    conn.run(&insert, &binds)?;
    remove_ready(conn, request, &list)?;
    let facts = format!(
        "SELECT j.id, {FACTS} FROM {NUMBERED} STRAIGHT_JOIN qudo_job j ON j.id = UNHEX(v.hex)"
    );
    let facts: Vec<Facts> = conn.rows(&facts, &[Bind::Text(&list)])?;
    let mut facts: HashMap<_, _> = facts.into_iter().map(|Facts(id, facts)| (id, facts)).collect();
    Ok(rows
        .into_iter()
        .filter_map(|row| facts.remove(&row.id).map(|facts| claimed(row, facts, request)))
        .collect())
}
