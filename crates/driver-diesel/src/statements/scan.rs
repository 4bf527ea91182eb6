//! Tables read piece by piece in the order of a key, for lists. Locking: none, and no table is read further than asked.

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{
    Bounded, JobCursor, JobScan, JobState, Leg, Name, Past, Place, PlacedJob, WorkerId,
};
use qudo_hooks::JobId;

use super::lookup::instant;
use crate::engine::Engine;
use crate::sql::{Bind, Columns, FromRow, Sql};

/// What all narrow tables have, and one or two columns of their own.
const COLUMNS: &str = "id, queue, claim_rank, ability, attempt";

struct Narrow {
    id: JobId,
    queue: String,
    rank: i32,
    ability: String,
    attempt: i32,
}

impl FromRow for Narrow {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self {
            id: JobId::from_uuid(columns.id()?),
            queue: columns.text()?,
            rank: columns.int()?,
            ability: columns.text()?,
            attempt: columns.int()?,
        })
    }
}

impl Narrow {
    fn placed(self, at: JobCursor, state: JobState) -> PlacedJob {
        PlacedJob {
            at,
            queue: Name::from(self.queue),
            ability: Name::from(self.ability),
            priority: -self.rank,
            attempt: self.attempt.unsigned_abs(),
            state,
        }
    }
}

struct Ready(PlacedJob);

impl FromRow for Ready {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let row = Narrow::from_row(columns)?;
        let at = JobCursor::Ready(row.queue.clone(), row.rank, row.id);
        Ok(Self(row.placed(at, JobState::Ready)))
    }
}

struct Scheduled(PlacedJob);

impl FromRow for Scheduled {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let row = Narrow::from_row(columns)?;
        let run_after = instant(columns.big()?);
        let at = JobCursor::Scheduled(run_after, row.id);
        Ok(Self(row.placed(at, JobState::Scheduled { run_after })))
    }
}

struct Leased(PlacedJob);

impl FromRow for Leased {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let row = Narrow::from_row(columns)?;
        let worker = WorkerId::from_uuid(columns.id()?);
        let until = instant(columns.big()?);
        let at = JobCursor::Leased(row.id);
        Ok(Self(row.placed(at, JobState::Running { worker, until })))
    }
}

struct Moving(String, Narrow);

impl FromRow for Moving {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let row = Narrow::from_row(columns)?;
        Ok(Self(columns.text()?, row))
    }
}

/// Rows of a narrow table behind a row.
pub(crate) fn scan_jobs<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    scan: &JobScan<'_>,
) -> QueryResult<Vec<PlacedJob>> {
    match scan.place {
        Place::Ready => ready::<E>(conn, scan),
        Place::Scheduled => scheduled::<E>(conn, scan),
        Place::Leaving => moving::<E>(conn, scan, Leg::Leaving, JobCursor::Leaving),
        Place::Arriving => moving::<E>(conn, scan, Leg::Arriving, JobCursor::Arriving),
        Place::Leased => leased::<E>(conn, scan),
        // A table of a later version.
        _ => Ok(Vec::new()),
    }
}

/// Rows of several ranges of one key, one range after the other until there are enough: a comparison of pairs is no
/// range to MySQL.
fn ranges<E: Engine, T: FromRow>(
    conn: &mut Sql<'_, E::Conn>,
    select: &str,
    order: &str,
    ranges: &[(&str, Vec<Bind<'_>>)],
    limit: u32,
) -> QueryResult<Vec<T>> {
    let mut rows = Vec::new();
    for (range, binds) in ranges {
        let left = i64::from(limit) - rows.len() as i64;
        if left <= 0 {
            break;
        }
        let sql = format!("{select} WHERE {range} ORDER BY {order} LIMIT ?");
        let binds: Vec<_> = binds.iter().copied().chain([Bind::Big(left)]).collect();
        rows.extend(conn.rows::<T>(&sql, &binds)?);
    }
    Ok(rows)
}

fn leased<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    scan: &JobScan<'_>,
) -> QueryResult<Vec<PlacedJob>> {
    let select = format!("SELECT {COLUMNS}, worker, leased_until FROM qudo_lease");
    let after = scan.after.map(JobCursor::id);
    let range = match &after {
        Some(id) => ("id > ?", vec![Bind::Id(id.as_uuid())]),
        None => ("1 = 1", Vec::new()),
    };
    let rows = ranges::<E, Leased>(conn, &select, "id", &[range], scan.limit)?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

fn ready<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    scan: &JobScan<'_>,
) -> QueryResult<Vec<PlacedJob>> {
    let mut all: Vec<(&str, Vec<Bind<'_>>)> = Vec::new();
    match (scan.after, scan.queue) {
        (Some(JobCursor::Ready(queue, rank, id)), only) => {
            let (text, rank) = (Bind::Text(queue), Bind::Int(*rank));
            let behind = "queue = ? AND claim_rank = ? AND id > ?";
            all.push((behind, vec![text, rank, Bind::Id(id.as_uuid())]));
            all.push(("queue = ? AND claim_rank > ?", vec![text, rank]));
            if only.is_none() {
                all.push(("queue > ?", vec![text]));
            }
        }
        (_, Some(queue)) => all.push(("queue = ?", vec![Bind::Text(queue)])),
        (_, None) => all.push(("1 = 1", Vec::new())),
    }
    let select = format!("SELECT {COLUMNS} FROM qudo_ready{}", E::BY_KEY);
    let rows = ranges::<E, Ready>(conn, &select, "queue, claim_rank, id", &all, scan.limit)?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

fn scheduled<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    scan: &JobScan<'_>,
) -> QueryResult<Vec<PlacedJob>> {
    let mut all: Vec<(&str, Vec<Bind<'_>>)> = Vec::new();
    match scan.after {
        Some(JobCursor::Scheduled(at, id)) => {
            let at = Bind::Big(at.timestamp_micros());
            all.push(("run_after = ? AND id > ?", vec![at, Bind::Id(id.as_uuid())]));
            all.push(("run_after > ?", vec![at]));
        }
        _ => all.push(("1 = 1", Vec::new())),
    }
    let select = format!("SELECT {COLUMNS}, run_after FROM qudo_scheduled{}", E::BY_KEY);
    let rows = ranges::<E, Scheduled>(conn, &select, "run_after, id", &all, scan.limit)?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

fn moving<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    scan: &JobScan<'_>,
    leg: Leg,
    cursor: fn(String, JobId) -> JobCursor,
) -> QueryResult<Vec<PlacedJob>> {
    let leg = Bind::Text(leg.as_str());
    let mut all: Vec<(&str, Vec<Bind<'_>>)> = Vec::new();
    match scan.after {
        Some(JobCursor::Leaving(other, id) | JobCursor::Arriving(other, id)) => {
            let (other, id) = (Bind::Text(other), Bind::Id(id.as_uuid()));
            all.push(("leg = ? AND other = ? AND id > ?", vec![leg, other, id]));
            all.push(("leg = ? AND other > ?", vec![leg, other]));
        }
        _ => all.push(("leg = ?", vec![leg])),
    }
    let select = format!("SELECT {COLUMNS}, other FROM qudo_moving");
    let rows = ranges::<E, Moving>(conn, &select, "leg, other, id", &all, scan.limit)?;
    let placed = rows.into_iter().map(|Moving(other, row)| {
        let at = cursor(other, row.id);
        row.placed(at, JobState::Moving)
    });
    Ok(placed.collect())
}

/// Rows of a table, counted up to a bound.
pub(crate) fn count_past<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    of: Past,
    bound: u64,
) -> QueryResult<Bounded> {
    let table = match of {
        Past::Exceptions => "qudo_exception_log",
        Past::Status => "qudo_job_status",
    };
    let limit = i64::try_from(bound).unwrap_or(i64::MAX).saturating_add(1);
    let sql = format!("SELECT COUNT(*) FROM (SELECT 1 AS one FROM {table} LIMIT ?) AS counted");
    let counted = conn.row::<i64>(&sql, &[Bind::Big(limit)])?.unwrap_or_default();
    Ok(Bounded::new(counted.unsigned_abs(), bound))
}
