use std::time::Instant;

use diesel::deserialize;
use diesel::result::Error;
use qudo_core::driver::{ClaimRequest, ClaimedJob, DriverError};
use uuid::Uuid;

use super::{Array, Postgres};
use crate::claimed::ClaimRow;
use crate::clock::{LATE, TooLate, Window};
use crate::cursor::Place;
use crate::engine::micros;
use crate::sql::{Bind, SqlConn};
use crate::statements::ledger::Orphans;

/// The columns are named, so that a later version of the function may have more.
const CLAIM: &str = "SELECT id, claim_rank, ability, attempt, crashes, codec, arg, uniqkey, \
     enqueued_at FROM qudo_claim(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// How it names ready rows without facts.
const ORPHAN: &str = "qudo: no facts: ";

/// Before every row of a queue.
const START: Place = (i32::MIN, Uuid::nil());

/// Leases ready jobs of a queue: one statement, or two when the cursor finds too few.
///
/// Locking: rows of ready are locked with SKIP LOCKED and deleted, new rows go into lease; nothing
/// is waited for. The plan is held inside the function (see its migration).
pub(super) fn claim(
    engine: &Postgres,
    request: &ClaimRequest<'_>,
    window: &Window,
    without: &[Uuid],
) -> Result<Vec<ClaimedJob>, DriverError> {
    let asked = Asked { engine, request, window, without };
    let limit = request.limit as usize;
    let mut jobs = Vec::new();
    if let Some(after) = engine.cursors.get(request.queue) {
        let (rows, last) = asked.claim_after(after, limit)?;
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
    match asked.claim_after(START, missing) {
        Ok((rows, last)) => {
            let last = last.filter(|_| rows.len() >= missing);
            engine.cursors.restart(request.queue, begun.elapsed(), last);
            jobs.extend(rows);
            Ok(jobs)
        }
        // What the first statement leased is ours; the next call meets the error again. Unless
        // the second may have leased jobs that we do not know: then the caller gives back all that
        // lies under the claim's number.
        Err(error) if !jobs.is_empty() && !error.is_ambiguous() => {
            log::debug!("a claim found only a part: {error}");
            Ok(jobs)
        }
        Err(error) => Err(error),
    }
}

struct Asked<'a> {
    engine: &'a Postgres,
    request: &'a ClaimRequest<'a>,
    window: &'a Window,
    without: &'a [Uuid],
}

impl Asked<'_> {
    fn claim_after(
        &self,
        (rank, id): Place,
        limit: usize,
    ) -> Result<(Vec<ClaimedJob>, Option<Place>), DriverError> {
        let Self { engine, request, window, without } = self;
        let without = Array::Ids(without.to_vec());
        let abilities = Array::Texts(request.abilities.iter().map(|one| &*one.name).collect());
        let leases =
            Array::Bigs(request.abilities.iter().map(|one| micros(one.grab_for)).collect());
        let binds = [
            Bind::Text(request.queue),
            Bind::Int(rank),
            Bind::Id(&id),
            Bind::Array(&abilities),
            Bind::Array(&leases),
            Bind::Big(limit as i64),
            Bind::Id(request.worker.as_uuid()),
            Bind::Big(request.claim),
            Bind::Big(window.from),
            Bind::Big(window.until),
            Bind::Array(&without),
        ];
        let mut rows: Vec<Claimed> =
            engine.sessions.with(true, |conn| conn.rows(CLAIM, &binds).map_err(own_error))?;
        // RETURNING promises no order.
        rows.sort_unstable_by_key(|row| row.place);
        let last = rows.last().map(|row| row.place);
        Ok((rows.into_iter().filter_map(|row| row.row.into_claimed(request)).collect(), last))
    }
}

/// The function's own errors, told from others.
fn own_error(error: Error) -> Error {
    let text = error.to_string();
    if text.contains(LATE) {
        return TooLate::error();
    }
    let orphan = text.split_once(ORPHAN).and_then(|(_, id)| Uuid::parse_str(id.get(..36)?).ok());
    match orphan.map(|id| Orphans::refuse(vec![id])) {
        Some(Err(orphan)) => orphan,
        _ => error,
    }
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
