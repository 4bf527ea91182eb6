use std::time::Instant;

use diesel::deserialize;
use qudo_core::driver::{ClaimRequest, ClaimedJob, DriverError};
use uuid::Uuid;

use super::{Array, Postgres};
use crate::claimed::ClaimRow;
use crate::cursor::Place;
use crate::engine::micros;
use crate::sql::{Bind, SqlConn};

const CLAIM: &str = "SELECT * FROM qudo_claim(?, ?, ?, ?, ?, ?, ?, ?)";

/// Before every row of a queue.
const START: Place = (i32::MIN, Uuid::nil());

/// Leases ready jobs of a queue: one statement, or two when the cursor finds too few.
///
/// Locking: rows of ready are locked with SKIP LOCKED and deleted, new rows go into lease; nothing
/// is waited for. The plan is held inside the function (see its migration).
pub(super) fn claim(
    engine: &Postgres,
    request: &ClaimRequest<'_>,
) -> Result<Vec<ClaimedJob>, DriverError> {
    let limit = request.limit as usize;
    let mut jobs = Vec::new();
    if let Some(after) = engine.cursors.get(request.queue) {
        let (rows, last) = claim_after(engine, request, after, limit)?;
        jobs = rows;
        if jobs.len() >= limit {
            if let Some(last) = last {
                engine.cursors.advance(request.queue, last);
            }
            return Ok(jobs);
        }
    }
    let begun = Instant::now();
    let missing = limit - jobs.len();
    match claim_after(engine, request, START, missing) {
        Ok((rows, last)) => {
            let last = last.filter(|_| rows.len() >= missing);
            engine.cursors.restart(request.queue, begun.elapsed(), last);
            jobs.extend(rows);
            Ok(jobs)
        }
        // What the first statement leased is ours; the next call meets the error again.
        Err(_) if !jobs.is_empty() => Ok(jobs),
        Err(error) => Err(error),
    }
}

fn claim_after(
    engine: &Postgres,
    request: &ClaimRequest<'_>,
    (rank, id): Place,
    limit: usize,
) -> Result<(Vec<ClaimedJob>, Option<Place>), DriverError> {
    let abilities = Array::Texts(request.abilities.iter().map(|one| &*one.name).collect());
    let leases = Array::Bigs(request.abilities.iter().map(|one| micros(one.grab_for)).collect());
    let binds = [
        Bind::Text(request.queue),
        Bind::Int(rank),
        Bind::Id(&id),
        Bind::Array(&abilities),
        Bind::Array(&leases),
        Bind::Big(limit as i64),
        Bind::Id(request.worker.as_uuid()),
        Bind::Big(request.claim),
    ];
    let mut rows: Vec<Claimed> = engine.sessions.with(true, |conn| conn.rows(CLAIM, &binds))?;
    // RETURNING promises no order.
    rows.sort_unstable_by_key(|row| row.place);
    let last = rows.last().map(|row| row.place);
    Ok((rows.into_iter().map(|row| row.row.into_claimed(request)).collect(), last))
}

struct Claimed {
    place: Place,
    row: ClaimRow,
}

impl crate::sql::FromRow for Claimed {
    fn from_row(columns: &mut dyn crate::sql::Columns) -> deserialize::Result<Self> {
        let row = ClaimRow::from_row(columns)?;
        Ok(Self { place: (row.ready.claim_rank, row.ready.id), row })
    }
}
