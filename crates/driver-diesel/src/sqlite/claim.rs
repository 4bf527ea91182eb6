use diesel::SqliteConnection;
use diesel::result::QueryResult;
use qudo_core::driver::{ClaimRequest, ClaimedJob};
use uuid::Uuid;

use super::Sqlite;
use crate::claimed::{ClaimRow, FACTS, READY};
use crate::engine::{Engine, claim_filter, lease_length};
use crate::sql::{Bind, Sql};
use crate::statements::ledger::{Orphans, balance};

/// Leases the first ready jobs of a queue: three statements, whatever their number.
///
/// Locking: the caller's `BEGIN IMMEDIATE` holds the file, so what the first statement reads is
/// still there for the others. A left join is read in its order: the narrow table from the start of
/// its key, then the facts by id; no sort, whatever the statistics say.
pub(super) fn claim(
    conn: &mut Sql<'_, SqliteConnection>,
    request: &ClaimRequest<'_>,
    without: &[Uuid],
) -> QueryResult<Vec<ClaimedJob>> {
    let (filter, abilities) = claim_filter(request.abilities, without);
    let rows = first_ready(conn, request, &filter, &abilities)?;
    let Some(last) = rows.last() else {
        return Ok(Vec::new());
    };
    Orphans::refuse(rows.iter().filter(|row| !row.has_facts()).map(|row| row.ready.id).collect())?;
    let (rank, id) = (last.ready.claim_rank, last.ready.id);
    let (length, lengths) = lease_length("r.ability", request.abilities);
    let range = format!("r.queue = ? AND (r.claim_rank, r.id) <= (?, ?) AND {filter}");
    let mut range_binds = vec![Bind::Text(request.queue), Bind::Int(rank), Bind::Id(&id)];
    range_binds.extend(abilities.iter().copied());
    // The rows read are those of the range: both take the first of the queue by ability.
    let lease = format!(
        "INSERT INTO qudo_lease (id, worker, claim, leased_until, queue, claim_rank, ability, \
         attempt, crashes, flags) SELECT r.id, ?, ?, {now} + {length}, r.queue, r.claim_rank, r.ability, \
         r.attempt + 1, r.crashes, r.flags FROM qudo_ready r WHERE {range}",
        now = Sqlite::NOW
    );
    let mut binds = vec![Bind::Id(request.worker.as_uuid()), Bind::Big(request.claim)];
    binds.extend(lengths);
    binds.extend(range_binds.iter().copied());
    let put = conn.run(&lease, &binds)?;
    balance("claim what was read", rows.len(), put)?;
    let taken = conn.run(&format!("DELETE FROM qudo_ready AS r WHERE {range}"), &range_binds)?;
    balance("claim", taken, put)?;
    let now = chrono::Utc::now().timestamp_micros();
    Ok(rows.into_iter().filter_map(|row| row.into_claimed(request, now)).collect())
}

/// Whether a claim would find something, without a lock.
pub(super) fn has_ready(
    conn: &mut Sql<'_, SqliteConnection>,
    request: &ClaimRequest<'_>,
    without: &[Uuid],
) -> QueryResult<bool> {
    let (filter, abilities) = claim_filter(request.abilities, without);
    let sql = format!("SELECT r.id FROM qudo_ready r WHERE r.queue = ? AND {filter} LIMIT 1");
    let mut binds = vec![Bind::Text(request.queue)];
    binds.extend(abilities);
    Ok(conn.row::<Uuid>(&sql, &binds)?.is_some())
}

/// The statement whose plan the tests check.
pub(crate) fn claim_sql(filter: &str) -> String {
    format!(
        "SELECT {READY}, {FACTS} FROM qudo_ready r LEFT JOIN qudo_job j ON j.id = r.id \
         WHERE r.queue = ? AND {filter} ORDER BY r.queue, r.claim_rank, r.id LIMIT ?"
    )
}

fn first_ready(
    conn: &mut Sql<'_, SqliteConnection>,
    request: &ClaimRequest<'_>,
    filter: &str,
    abilities: &[Bind<'_>],
) -> QueryResult<Vec<ClaimRow>> {
    let mut binds = vec![Bind::Text(request.queue)];
    binds.extend(abilities.iter().copied());
    binds.push(Bind::Big(request.limit.into()));
    conn.rows(&claim_sql(filter), &binds)
}
