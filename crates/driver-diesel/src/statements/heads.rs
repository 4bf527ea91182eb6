//! What waits at the heads of the queues, and before one job.

use std::collections::HashMap;
use std::time::Duration;

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{Ages, Bounded, Head, JobInfo, Part, Pause};
use uuid::Uuid;

use crate::bulk::rows_in;
use crate::engine::Engine;
use crate::sql::{Bind, Columns, FromRow, Sql};

struct Ability(String, i64);

impl FromRow for Ability {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.text()?, columns.big()?))
    }
}

/// The abilities of the first ready jobs of each queue, in the order of the claim. From queue to queue the index is
/// entered anew: `DISTINCT` would read all of it.
///
/// Locking: none. Dead rows at the start of a queue are stepped over, so callers ask seldom.
pub(crate) fn heads<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    queues: u32,
    rows: u32,
) -> QueryResult<Vec<Head>> {
    let (mut heads, mut queue) = (Vec::new(), String::new());
    for _ in 0..queues {
        let next = "SELECT queue FROM qudo_ready WHERE queue > ? ORDER BY queue LIMIT 1";
        match conn.row::<String>(next, &[Bind::Text(&queue)])? {
            Some(next) => queue = next,
            None => break,
        }
        let first = "SELECT ability, COUNT(*) FROM (SELECT ability FROM qudo_ready WHERE queue = ? \
                     ORDER BY queue, claim_rank, id LIMIT ?) AS head GROUP BY ability ORDER BY ability";
        let binds = [Bind::Text(&queue), Bind::Big(rows.into())];
        let all = conn.rows::<Ability>(first, &binds)?.into_iter();
        heads.extend(
            all.map(|Ability(ability, count)| Head::new(&*queue, ability, count.unsigned_abs())),
        );
    }
    Ok(heads)
}

/// How many ready jobs of its queue come before this job, up to the bound: two ranges of the key of the claim, since
/// not every engine reads a comparison of pairs as one range.
///
/// Locking: none.
pub(crate) fn ahead<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    job: &JobInfo,
    bound: u64,
) -> QueryResult<Bounded> {
    let (queue, rank) = (&*job.facts.queue, -i64::from(job.facts.priority));
    let limit = i64::try_from(bound).unwrap_or(i64::MAX).saturating_add(1);
    let higher = "SELECT COUNT(*) FROM (SELECT 1 AS one FROM qudo_ready WHERE queue = ? \
                  AND claim_rank < ? LIMIT ?) AS higher";
    let binds = [Bind::Text(queue), Bind::Big(rank), Bind::Big(limit)];
    let higher = conn.row::<i64>(higher, &binds)?.unwrap_or_default();
    let older = "SELECT COUNT(*) FROM (SELECT 1 AS one FROM qudo_ready WHERE queue = ? \
                 AND claim_rank = ? AND id < ? LIMIT ?) AS older";
    let id = job.id.as_uuid();
    let binds = [Bind::Text(queue), Bind::Big(rank), Bind::Id(id), Bind::Big(limit - higher)];
    let older = conn.row::<i64>(older, &binds)?.unwrap_or_default();
    Ok(Bounded::new((higher + older).unsigned_abs(), bound))
}

/// A ready row, for its age.
struct Aged {
    queue: String,
    rank: i32,
    id: Uuid,
    ability: String,
    /// `None` since it was enqueued.
    ready_at: Option<i64>,
}

impl FromRow for Aged {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let (queue, rank, id) = (columns.text()?, columns.int()?, columns.id()?);
        Ok(Self { queue, rank, id, ability: columns.text()?, ready_at: columns.opt_big()? })
    }
}

struct Enqueued(Uuid, i64);

impl FromRow for Enqueued {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.id()?, columns.big()?))
    }
}

/// So many parts of the queues are read for the job that has been ready for longest.
const MAX_PARTS: usize = 64;

/// And so many rows at the start of each queue and priority, or a few more where the next ones are short.
const PART: u32 = 100;

/// How long the job has been ready that has been ready for longest, and for how long the first lease is over. Jobs that are new are in the order of their
/// time; those that were put back, or came due, lie among them by their ids, so the first rows of each queue and priority are looked at, and not the
/// first alone. The key is entered anew for each part.
///
/// Locking: none.
pub(crate) fn ages<E: Engine>(conn: &mut Sql<'_, E::Conn>, pauses: &[Pause]) -> QueryResult<Ages> {
    let mut found: Vec<(Uuid, Option<i64>)> = Vec::new();
    let mut at: Option<At> = None;
    for _ in 0..MAX_PARTS {
        let Some(rows) = part_behind::<E>(conn, at.as_ref())? else { break };
        let Some(last) = rows.last() else { break };
        let mut next = At { queue: last.queue.clone(), rank: Some(last.rank), id: None };
        for of_one in rows.chunk_by(|one, next| (&one.queue, one.rank) == (&next.queue, next.rank))
        {
            let open = of_one
                .iter()
                .filter(|row| Pause::among(pauses, &row.queue, &row.ability).is_none());
            if open.clone().next().is_none() && of_one.len() == rows.len() {
                // All that was read of this priority is paused: the whole queue, or those behind may be open.
                let is_queue = |pause: &Pause| matches!(&pause.part, Part::Queue(_));
                let why = Pause::among(pauses, &last.queue, &last.ability);
                next = match why {
                    Some(pause) if is_queue(pause) => At { rank: None, ..next },
                    _ => At { id: Some(last.id), ..next },
                };
            }
            // Of those that are ready since their enqueue the first is the oldest.
            let oldest = open.clone().filter(|row| row.ready_at.is_some());
            found.extend(oldest.min_by_key(|row| row.ready_at).map(|row| (row.id, row.ready_at)));
            let first = open.filter(|row| row.ready_at.is_none()).map(|row| (row.id, None));
            found.extend(first.take(1));
        }
        at = Some(next);
    }
    let ids: Vec<_> = found.iter().map(|(id, _)| *id).collect();
    let since = "SELECT id, enqueued_at FROM qudo_job WHERE id IN";
    let enqueued: Vec<Enqueued> = rows_in(conn, since, &[], &ids, "")?;
    let enqueued: HashMap<_, _> = enqueued.into_iter().map(|one| (one.0, one.1)).collect();
    // Never before it was there, although it may have been due.
    let since = |(id, ready_at): &(Uuid, Option<i64>)| {
        let enqueued = *enqueued.get(id)?;
        Some(ready_at.unwrap_or(enqueued).max(enqueued))
    };
    let ready = found.iter().filter_map(since).min();
    let now = conn.row::<i64>(&format!("SELECT {}", E::NOW), &[])?.unwrap_or_default();
    let overdue = format!(
        "SELECT {now} - leased_until FROM qudo_lease WHERE leased_until < {now} ORDER BY leased_until LIMIT 1",
        now = E::NOW
    );
    let overdue = conn.row::<i64>(&overdue, &[])?;
    let time = |micros: i64| Duration::from_micros(u64::try_from(micros).unwrap_or_default());
    Ok(Ages::new(ready.map(|at| time(now - at)), overdue.map(time)))
}

/// Behind what is read: a row, a priority if there is no id, a queue if there is neither.
struct At {
    queue: String,
    rank: Option<i32>,
    id: Option<Uuid>,
}

/// The first rows behind a place, of whole priorities as far as they are that short; `None` behind the last.
fn part_behind<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    at: Option<&At>,
) -> QueryResult<Option<Vec<Aged>>> {
    let head = format!(
        "SELECT queue, claim_rank, id, ability, ready_at FROM qudo_ready{} WHERE",
        E::BY_KEY
    );
    let limit = Bind::Big(PART.into());
    let mut rows: Vec<Aged> = Vec::new();
    if let Some(At { queue, rank: Some(rank), id: Some(id) }) = at {
        let sql = format!(
            "{head} queue = ? AND claim_rank = ? AND id > ? ORDER BY claim_rank, id LIMIT ?"
        );
        rows = conn.rows(&sql, &[Bind::Text(queue), Bind::Int(*rank), Bind::Id(id), limit])?;
    }
    if let (Some(At { queue, rank: Some(rank), .. }), true) = (at, rows.is_empty()) {
        let sql = format!("{head} queue = ? AND claim_rank > ? ORDER BY claim_rank, id LIMIT ?");
        rows = conn.rows(&sql, &[Bind::Text(queue), Bind::Int(*rank), limit])?;
    }
    if rows.is_empty() {
        let queue = at.map_or("", |at| &at.queue);
        let sql = format!("{head} queue > ? ORDER BY queue, claim_rank, id LIMIT ?");
        rows = conn.rows(&sql, &[Bind::Text(queue), limit])?;
    }
    let Some(last) = rows.last() else { return Ok(None) };
    if rows.len() == PART as usize {
        // The last priority may be longer than what was read of it, and is then begun again, unless it is the only one.
        let (queue, rank) = (last.queue.clone(), last.rank);
        let whole = rows.iter().take_while(|row| row.queue != queue || row.rank != rank).count();
        if whole > 0 {
            rows.truncate(whole);
        }
    }
    Ok(Some(rows))
}
