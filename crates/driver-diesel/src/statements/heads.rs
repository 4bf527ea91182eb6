//! What waits at the heads of the queues, and before one job.

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{Ages, Bounded, Head, JobInfo};
use std::time::Duration;
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

/// The first ready job of a queue and a priority.
struct First {
    queue: String,
    rank: i32,
    id: Uuid,
    /// `None` since it was enqueued.
    ready_at: Option<i64>,
}

impl FromRow for First {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let (queue, rank, id) = (columns.text()?, columns.int()?, columns.id()?);
        Ok(Self { queue, rank, id, ready_at: columns.opt_big()? })
    }
}

/// So many queues and priorities are looked at for the job that waits longest.
const MAX_GROUPS: usize = 64;

/// How long the job that waits longest has waited, and for how long the first lease is over. Within a queue and a priority ids sort by
/// their time, so that the first of each tells; the key is entered anew for each.
///
/// Locking: none.
pub(crate) fn ages<E: Engine>(conn: &mut Sql<'_, E::Conn>) -> QueryResult<Ages> {
    let mut firsts: Vec<First> = Vec::new();
    while firsts.len() < MAX_GROUPS {
        let head = "SELECT queue, claim_rank, id, ready_at FROM qudo_ready WHERE";
        let tail = "ORDER BY queue, claim_rank, id LIMIT 1";
        let mut next: Option<First> = None;
        let last = firsts.last().map_or(("", i32::MIN), |last| (&*last.queue, last.rank));
        if !firsts.is_empty() {
            let sql = format!("{head} queue = ? AND claim_rank > ? {tail}");
            next = conn.row(&sql, &[Bind::Text(last.0), Bind::Int(last.1)])?;
        }
        if next.is_none() {
            next = conn.row(&format!("{head} queue > ? {tail}"), &[Bind::Text(last.0)])?;
        }
        match next {
            Some(first) => firsts.push(first),
            None => break,
        }
    }
    let new = firsts.iter().filter(|first| first.ready_at.is_none());
    let ids: Vec<_> = new.map(|first| first.id).collect();
    let since = "SELECT enqueued_at FROM qudo_job WHERE id IN";
    let enqueued = rows_in::<_, i64>(conn, since, &[], &ids, "")?;
    let ready = firsts.iter().filter_map(|first| first.ready_at).chain(enqueued).min();
    let now = conn.row::<i64>(&format!("SELECT {}", E::NOW), &[])?.unwrap_or_default();
    let ready = ready.map(|at| now - at);
    let overdue = format!(
        "SELECT {now} - leased_until FROM qudo_lease WHERE leased_until < {now} ORDER BY leased_until LIMIT 1",
        now = E::NOW
    );
    let overdue = conn.row::<i64>(&overdue, &[])?;
    let time = |micros: i64| Duration::from_micros(u64::try_from(micros).unwrap_or_default());
    Ok(Ages::new(ready.map(time), overdue.map(time)))
}
