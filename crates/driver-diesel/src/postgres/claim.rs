use std::time::Instant;

use diesel::deserialize;
use diesel::result::Error;
use qudo_core::driver::{ClaimRequest, ClaimedJob, DriverError};
use uuid::Uuid;

use super::Postgres;
use crate::claimed::ClaimRow;
use crate::clock::{LATE, TooLate, Window};
use crate::engine::{Engine as _, micros};
use crate::plan::{Found, Look, Patience, Place, Span};
use crate::sql::Array;
use crate::sql::Bind;
use crate::statements::ledger::Orphans;

/// The columns are named, so that a later version of the function may have more.
const CLAIM: &str = "SELECT id, claim_rank, ability, attempt, crashes, flags, ready_at, codec, \
     arg, uniqkey, meta, enqueued_at FROM qudo_claim_2(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// How it names ready rows without facts.
const ORPHAN: &str = "qudo: no facts: ";

/// Leases ready jobs of a queue: one statement as a rule, or two when the cursor finds too few.
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
    let plan = engine.cursors.plan(request.queue, request.thorough);
    let (mut taken, mut looks) = (Taken::default(), Vec::new());
    let patience = Patience::of(request);
    // What is committed from now on may lie behind the looks.
    let now = engine.clock.now();
    let mut outcome = Ok(true);
    while let Some(span) = plan.next(looks.len(), !taken.jobs.is_empty()) {
        let before = taken.jobs.len();
        if before >= limit || !patience.lasts(looks.len(), before > 0) {
            break;
        }
        let mut begun = None;
        outcome = taken.take(|missing| asked.claim_in(span, missing, &mut begun), limit);
        // Without a connection nothing was looked at.
        if let Some(begun) = begun {
            let found = &taken.jobs[before..];
            let bytes = found.iter().map(|job| job.facts.size()).sum();
            looks.push(Look { took: begun.elapsed(), rows: found.len(), bytes });
        }
        if !matches!(outcome, Ok(true)) {
            break;
        }
    }
    // Also when one failed: the next claim is to look elsewhere first.
    let found = Found {
        plan: &plan,
        looks: &looks,
        rows: &taken.places,
        full: taken.jobs.len() >= limit,
        failed: !matches!(outcome, Ok(true)),
        now,
        round_trip: engine.clock.round_trip(),
        ends_looks: engine.ends_looks(),
    };
    engine.cursors.note(request.queue, &found);
    outcome.map(|_| taken.jobs)
}

/// Behind which place a part of the queue begins, and with which it ends.
fn ends(span: Span) -> (Place, Place) {
    let (first, last) = ((i32::MIN, Uuid::nil()), (i32::MAX, Uuid::max()));
    match span {
        Span::Whole => (first, last),
        Span::Behind(place) => (place, last),
        Span::Within { rank, after, until } => ((rank, after), (rank, until)),
        Span::Ranks { from, to } => ((from, Uuid::nil()), (to, Uuid::max())),
    }
}

/// What the statements of one claim leased.
#[derive(Default)]
struct Taken {
    jobs: Vec<ClaimedJob>,
    places: Vec<Place>,
}

impl Taken {
    /// Adds what one more statement leases; `false` when it failed and what is there is all.
    ///
    /// What those before leased is ours; the next call meets the error again. Unless this one may have
    /// leased jobs that we do not know: then the caller gives back all that lies under the claim's number.
    fn take(
        &mut self,
        claim: impl FnOnce(usize) -> Result<(Vec<ClaimedJob>, Vec<Place>), DriverError>,
        limit: usize,
    ) -> Result<bool, DriverError> {
        match claim(limit - self.jobs.len()) {
            Ok((jobs, places)) => {
                if self.jobs.is_empty() {
                    self.jobs = jobs;
                } else {
                    self.jobs.extend(jobs);
                }
                self.places.extend(places);
                Ok(true)
            }
            Err(error) if !self.jobs.is_empty() && !error.is_ambiguous() => {
                log::debug!("a claim found only a part: {error}");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

struct Asked<'a> {
    engine: &'a Postgres,
    request: &'a ClaimRequest<'a>,
    window: &'a Window,
    without: &'a [Uuid],
}

impl Asked<'_> {
    /// `begun` becomes when the statement was sent, with the connection in hand.
    fn claim_in(
        &self,
        span: Span,
        limit: usize,
        begun: &mut Option<Instant>,
    ) -> Result<(Vec<ClaimedJob>, Vec<Place>), DriverError> {
        let Self { engine, request, window, without } = self;
        let ((rank, id), (until_rank, until_id)) = ends(span);
        let without = Array::Ids(without.to_vec());
        let abilities = Array::Texts(request.abilities.iter().map(|one| &*one.name).collect());
        let mut leases: Vec<_> = request.abilities.iter().map(|one| micros(one.grab_for)).collect();
        if leases.iter().all(|lease| *lease == leases[0]) {
            leases.truncate(1);
        }
        let leases = Array::Bigs(leases);
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
            Bind::Int(until_rank),
            Bind::Id(&until_id),
        ];
        let mut rows: Vec<Claimed> = engine.sessions.with(true, |conn| {
            *begun = Some(Instant::now());
            conn.rows(CLAIM, &binds).map_err(own_error)
        })?;
        // RETURNING promises no order.
        rows.sort_unstable_by_key(|row| row.place);
        let places = rows.iter().map(|row| row.place).collect();
        let now = engine.clock.now();
        Ok((
            rows.into_iter().filter_map(|row| row.row.into_claimed(request, now)).collect(),
            places,
        ))
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
