use std::collections::HashMap;
use std::time::Instant;

use diesel::MysqlConnection;
use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{ClaimRequest, ClaimedJob, DriverError};
use uuid::Uuid;

use super::Mysql;
use crate::bulk::{rows_in, run_in};
use crate::claimed::{FACTS, FactsRow, READY, ReadyRow, claimed, lease_of};
use crate::cursor::Place;
use crate::engine::{Engine, ability_filter, micros};
use crate::sql::{Bind, Columns, FromRow, SqlConn};
use crate::statements::settle::put_leases;

/// Leases ready jobs of a queue in one transaction: select, delete and insert by key, read facts.
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
        // They are locked by us now, and a second look would return them again.
        remove_ready(conn, request, &rows)?;
    }
    let begun = Instant::now();
    let missing = limit - rows.len();
    let mut binds = vec![Bind::Text(request.queue)];
    binds.extend(abilities);
    binds.push(Bind::Big(missing as i64));
    let more: Vec<ReadyRow> = conn.rows(&ready_sql("", &filter), &binds)?;
    let last = more.last().filter(|_| more.len() >= missing);
    let noted = Noted::FromStart(begun.elapsed(), last.map(|row| (row.claim_rank, row.id)));
    rows.extend(more);
    Ok((rows, noted))
}

/// Deletes by primary key, rank by rank; rows that are gone already are no error.
fn remove_ready(
    conn: &mut MysqlConnection,
    request: &ClaimRequest<'_>,
    rows: &[ReadyRow],
) -> QueryResult<()> {
    for same_rank in rows.chunk_by(|a, b| a.claim_rank == b.claim_rank) {
        let ids: Vec<_> = same_rank.iter().map(|row| row.id).collect();
        run_in(
            conn,
            "DELETE FROM qudo_ready WHERE queue = ? AND claim_rank = ? AND id IN",
            &[Bind::Text(request.queue), Bind::Int(same_rank[0].claim_rank)],
            &ids,
        )?;
    }
    Ok(())
}

struct Facts(Uuid, FactsRow);

impl FromRow for Facts {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.id()?, FactsRow::from_row(columns)?))
    }
}

fn lease(
    conn: &mut MysqlConnection,
    request: &ClaimRequest<'_>,
    rows: Vec<ReadyRow>,
) -> QueryResult<Vec<ClaimedJob>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    remove_ready(conn, request, &rows)?;
    let places: Vec<_> = rows
        .iter()
        .map(|row| {
            let length = lease_of(request, &row.ability).map_or(0, |lease| micros(lease.grab_for));
            let place = crate::statements::Place {
                id: &row.id,
                queue: request.queue,
                claim_rank: row.claim_rank,
                ability: &row.ability,
                attempt: row.attempt + 1,
                crashes: row.crashes,
            };
            (place, length)
        })
        .collect();
    put_leases::<Mysql>(conn, request.worker.as_uuid(), request.claim, &places)?;
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let head = format!("SELECT j.id, {FACTS} FROM qudo_job j WHERE j.id IN");
    let facts: Vec<Facts> = rows_in(conn, &head, &[], &ids, "")?;
    let mut facts: HashMap<_, _> = facts.into_iter().map(|Facts(id, facts)| (id, facts)).collect();
    Ok(rows
        .into_iter()
        .filter_map(|row| facts.remove(&row.id).map(|facts| claimed(row, facts, request)))
        .collect())
}
