use std::time::{Duration, Instant};

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{DriverError, Promotion};
use uuid::Uuid;

use super::ledger::balance;
use super::waiting::{Waiting, columns_of_waiting};
use super::{Place, Since, put_ready};
use crate::bulk::Keyed;
use crate::clock::ServerClock;
use crate::due_floor::{ALL, DueFloor, HORIZON, Range};
use crate::engine::Engine;
use crate::share::is_dear;
use crate::sql::{Bind, Columns, FromRow, Sql};

/// The server's clock, and when the next job is due; both in microseconds since 1970.
#[derive(Clone, Copy)]
struct NextDue {
    now: i64,
    at: Option<i64>,
}

impl NextDue {
    /// How long until then, in microseconds; negative when it is overdue.
    fn left(&self) -> Option<i64> {
        self.at.map(|at| at - self.now)
    }
}

impl FromRow for NextDue {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self { now: columns.big()?, at: columns.opt_big()? })
    }
}

/// One row at the start of a range of the primary key. To MySQL it is the first that is read by the key: asked for
/// the first in order it reads a table which it takes for empty from its start, dead rows included, and asked for the
/// least it does not stop at the end of the range.
fn next_due<E: Engine>(conn: &mut Sql<'_, E::Conn>, range: Range) -> QueryResult<NextDue> {
    let least = if E::LOCKS_INDEXES {
        format!(
            "SELECT run_after FROM (SELECT run_after, id, queue FROM qudo_scheduled{} \
             WHERE run_after >= ? AND run_after <= ? LIMIT 1) least",
            E::BY_KEY
        )
    } else {
        "SELECT MIN(run_after) FROM qudo_scheduled WHERE run_after >= ? AND run_after <= ?"
            .to_owned()
    };
    let sql = format!("SELECT {}, ({least})", E::NOW);
    let binds = [Bind::Big(range.from), Bind::Big(range.until)];
    Ok(conn.row(&sql, &binds)?.unwrap_or(NextDue { now: 0, at: None }))
}

/// Moves due jobs to ready, and tells how long the look took that found them. Rows that another promotion moves are
/// skipped.
fn promote_due<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    range: Range,
    limit: u32,
) -> QueryResult<(u32, Duration)> {
    let (due, took) = if E::LOCKS_INDEXES {
        lock_due_by_id::<E>(conn, range, limit)?
    } else {
        let begun = Instant::now();
        let due = lock_due::<E>(conn, range, limit)?;
        (due, begun.elapsed())
    };
    let mut ids: Vec<_> = due.iter().map(|row| row.stand.id).collect();
    ids.sort_unstable();
    let taken = E::delete_by_id(conn, &Keyed::table("qudo_scheduled"), &ids)?;
    // Ready since it was due, however late that is noticed.
    let since = |row: &Waiting| row.run_after.map_or(Since::Now, Since::At);
    let place = |row| Place { since: since(row), ..Place::from(&row.stand) };
    let places: Vec<_> = due.iter().map(place).collect();
    balance("promote", taken, put_ready::<E>(conn, &places)?)?;
    Ok((due.len() as u32, took))
}

/// Reads from the start of the primary key, or from a floor, so the cost is that of the due rows alone.
///
/// The clock is read in a subquery, here and wherever a bound depends on it: PostgreSQL takes a
/// volatile function for another value in each row, and would go through the whole index.
fn lock_due<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    range: Range,
    limit: u32,
) -> QueryResult<Vec<Waiting>> {
    let sql = format!(
        "SELECT {} FROM qudo_scheduled WHERE run_after >= ? AND run_after <= ? \
         AND run_after <= (SELECT {}) ORDER BY run_after, id LIMIT ?{}",
        columns_of_waiting::<E>(),
        E::NOW,
        E::SKIP_LOCKED
    );
    conn.rows(&sql, &[Bind::Big(range.from), Bind::Big(range.until), Bind::Big(limit.into())])
}

/// The same where each index has locks of its own: found by the primary key without a lock, then locked
/// by id, as whoever dequeues a job, moves it or schedules it anew locks it. By the primary key first it
/// would be a deadlock with them, one in some hundred promotions.
///
/// Rows that others hold are passed over, and if all of a page are held the next is tried. A page is read
/// by the primary key, so it is the first in its order although it does not ask for that, which would cost
/// what is said of the look; and it asks for a column that is in no other index, for the same reason. Tells how long
/// the longest page took.
fn lock_due_by_id<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    range: Range,
    limit: u32,
) -> QueryResult<(Vec<Waiting>, Duration)> {
    let page = format!(
        "SELECT run_after, id, queue FROM qudo_scheduled{} WHERE run_after >= ? AND run_after <= ? \
         AND NOT (run_after = ? AND id <= ?) LIMIT ?",
        E::BY_KEY
    );
    let now = format!("SELECT {}", E::NOW);
    let until = conn.row::<i64>(&now, &[])?.unwrap_or_default().min(range.until);
    let still_due = format!("run_after <= (SELECT {})", E::NOW);
    let (mut at, mut after, mut longest) = (range.from, Uuid::nil(), Duration::ZERO);
    loop {
        let binds = [
            Bind::Big(at),
            Bind::Big(until),
            Bind::Big(at),
            Bind::Id(&after),
            Bind::Big(limit.into()),
        ];
        let begun = Instant::now();
        let mut found: Vec<DueAt> = conn.rows(&page, &binds)?;
        longest = longest.max(begun.elapsed());
        found.sort_unstable_by_key(|one| (one.0, one.1));
        let Some(last) = found.last() else { return Ok((Vec::new(), longest)) };
        (at, after) = (last.0, last.1);
        let mut ids: Vec<_> = found.iter().map(|one| one.1).collect();
        ids.sort_unstable();
        let scheduled = Keyed::table("qudo_scheduled").only(&still_due, &[]);
        let columns = columns_of_waiting::<E>();
        let due: Vec<Waiting> = E::rows_by_id(conn, &columns, &scheduled, &ids, E::SKIP_LOCKED)?;
        if !due.is_empty() || found.len() < limit as usize {
            return Ok((due, longest));
        }
    }
}

struct DueAt(i64, Uuid);

impl FromRow for DueAt {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.big()?, columns.id()?))
    }
}

/// A write that failed after longer than this stepped over rows for nothing.
const LONG_WRITE: Duration = Duration::from_secs(1);

/// What each row costs the look that locks it.
const A_ROW: Duration = Duration::from_micros(100);

/// Once the slices of one promotion took longer, the others wait for the next one.
const SLICES_FOR: Duration = Duration::from_secs(1);

/// Looks first, without a lock: most calls find nothing due and write nothing.
pub(crate) fn promote<E: Engine>(
    engine: &E,
    floor: &DueFloor,
    limit: u32,
) -> Result<Promotion, DriverError> {
    let round_trip = engine.clock().map(ServerClock::round_trip);
    let (mut moved, mut next) = (0, None);
    // Where looks do not end each is one at everything.
    let most = if engine.ends_looks() { usize::MAX } else { 1 };
    let promotion = Instant::now();
    let mut is_full = false;
    for _ in 0..floor.slices_due().min(most) {
        if is_full || promotion.elapsed() > SLICES_FOR {
            break;
        }
        let (Some(slice), Some(round_trip)) = (floor.slice(), round_trip) else { break };
        let mut look = DueLook::default();
        let done = promote_in(engine, slice, limit, &mut look);
        let took = look.took.unwrap_or_default().saturating_sub(round_trip);
        is_full = done.as_ref().is_ok_and(|(some, _)| *some >= limit);
        match (look.first, look.rest.and_then(|rest| rest.at)) {
            // It goes on behind what was promoted, which would be stepped over.
            (_, Some(rest)) if is_full => floor.note_part(slice, rest, took),
            // If the write failed, the look was none the worse, unless it is what took long.
            (Some(_), _) => match look.failed_after.filter(|after| *after > LONG_WRITE) {
                Some(after) => floor.note_failed(slice, after),
                None => floor.note_slice(slice, took),
            },
            (None, _) if look.took.is_some() => floor.note_failed(slice, took),
            (None, _) => {}
        }
        let (some, after) = done?;
        moved += some;
        next = next.into_iter().chain(after).min();
    }
    let now = engine.clock().map_or(0, ServerClock::now);
    let span = |micros: i64| Duration::from_micros(u64::try_from(micros).unwrap_or(0));
    let (range, mut look) = match floor.range(now) {
        Ok(range) => (range, DueLook::default()),
        Err(pause) => {
            let next = next.map_or(pause, |next| span(next).min(pause));
            return Ok(Promotion {
                moved,
                next: Some(if is_full { Duration::ZERO } else { next }),
            });
        }
    };
    let done = promote_in(engine, range, limit, &mut look);
    if let (Some(round_trip), Some(took)) = (round_trip, look.took)
        && (look.first.is_some() || is_dear(took, round_trip))
    {
        // A server may end every look that takes so long. The next one begins behind what this one stepped over.
        let mut first = look.first.unwrap_or(NextDue { now, at: None });
        if look.is_in_vain {
            // What is overdue still is held by somebody. If they leave it, the sweep finds it.
            first.at = None;
        }
        floor.note(range, (took, round_trip), first.now, first.at, engine.ends_looks());
    }
    let (more, after) = done?;
    moved += more;
    let horizon = (range != ALL).then_some(HORIZON);
    next = next.into_iter().chain(after).chain(horizon).min();
    Ok(Promotion { moved, next: if is_full { Some(Duration::ZERO) } else { next.map(span) } })
}

/// A look at what is due next.
#[derive(Default)]
struct DueLook {
    /// How long it took, or the one that locks if that took longer; `None` without a connection.
    took: Option<Duration>,
    /// What it found; `None` when it failed.
    first: Option<NextDue>,
    /// What is left after a promotion.
    rest: Option<NextDue>,
    /// All that could be locked is promoted, and something is overdue still.
    is_in_vain: bool,
    /// How long the last try of a write took that failed.
    failed_after: Option<Duration>,
}

/// Promotes what is due in a range. Returns how many, and how long until the next is due there.
fn promote_in<E: Engine>(
    engine: &E,
    range: Range,
    limit: u32,
    look: &mut DueLook,
) -> Result<(u32, Option<i64>), DriverError> {
    let first = engine.read(|conn| {
        let begun = Instant::now();
        let first = next_due::<E>(conn, range);
        look.took = Some(begun.elapsed());
        first
    })?;
    look.first = Some(first);
    if first.left().is_none_or(|left| left > 0) {
        return Ok((0, first.left()));
    }
    let mut begun = Instant::now();
    let written = engine.write(|conn| {
        begun = Instant::now();
        let (moved, locking) = conn.transaction(|conn| promote_due::<E>(conn, range, limit))?;
        Ok((moved, next_due::<E>(conn, range)?, locking))
    });
    if written.is_err() {
        look.failed_after = Some(begun.elapsed());
    }
    let (moved, rest, locking) = written?;
    let for_nothing = locking.saturating_sub(A_ROW.saturating_mul(moved));
    look.took = look.took.map(|took| took.max(for_nothing));
    look.rest = Some(rest);
    look.is_in_vain = moved < limit && rest.left().is_some_and(|left| left <= 0);
    Ok((moved, rest.left()))
}
