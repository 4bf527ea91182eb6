use std::collections::BTreeMap;

use diesel::SqliteConnection;
use diesel::result::QueryResult;
use uuid::Uuid;

use super::Sqlite;
use crate::bulk::{Keyed, rows_in};
use crate::engine::Engine;
use crate::sql::{Bind, Sql};

/// Fewer ids are listed: to look for ranges costs two statements.
const MIN_RANGE: usize = 16;

/// More ranges than this are no faster than a list.
const MAX_RANGES: usize = 8;

/// Removes lease and facts of completed jobs. A group of completed jobs comes from one claim or two,
/// and is most of the claim's ids without a gap.
///
/// Locking: the caller's `BEGIN IMMEDIATE`, so that what was read of the tables stays true.
pub(super) fn complete(
    conn: &mut Sql<'_, SqliteConnection>,
    worker: &Uuid,
    ids: &[Uuid],
    claims: &[i64],
) -> QueryResult<Vec<Uuid>> {
    let leases: Vec<_> = ids.iter().copied().zip(claims.iter().copied()).collect();
    let mut held = Vec::with_capacity(ids.len());
    for (_, mut ours) in take_leases(conn, worker, &leases)? {
        remove_facts(conn, &ours)?;
        held.append(&mut ours);
    }
    Ok(held)
}

/// Ends leases; returns those that were ours, by claim, in order.
pub(super) fn take_leases(
    conn: &mut Sql<'_, SqliteConnection>,
    worker: &Uuid,
    leases: &[(Uuid, i64)],
) -> QueryResult<Vec<(i64, Vec<Uuid>)>> {
    let mut by_claim: BTreeMap<i64, Vec<Uuid>> = BTreeMap::new();
    for (id, claim) in leases {
        by_claim.entry(*claim).or_default().push(*id);
    }
    let mut held = Vec::with_capacity(by_claim.len());
    for (claim, mut ids) in by_claim {
        // In the order of the key, so that neighbours are found on the page at hand.
        ids.sort_unstable();
        let ours = if ids.len() < MIN_RANGE {
            end_leases(conn, worker, claim, &ids)?
        } else {
            end_leases_between(conn, worker, claim, &ids)?
        };
        held.push((claim, ours));
    }
    Ok(held)
}

/// Ends the leases of listed ids; returns those that were ours, in order.
fn end_leases(
    conn: &mut Sql<'_, SqliteConnection>,
    worker: &Uuid,
    claim: i64,
    ids: &[Uuid],
) -> QueryResult<Vec<Uuid>> {
    let lease = "DELETE FROM qudo_lease WHERE worker = ? AND claim = ? AND id IN";
    let binds = [Bind::Id(worker), Bind::Big(claim)];
    let mut ours: Vec<Uuid> = rows_in(conn, lease, &binds, ids, " RETURNING id")?;
    ours.sort_unstable();
    Ok(ours)
}

/// The same for many ids. `SQLite` removes a range of keys in one pass over the pages; a list it
/// puts into a table of its own, joins, puts the result into another, and binds each id under a lock.
fn end_leases_between(
    conn: &mut Sql<'_, SqliteConnection>,
    worker: &Uuid,
    claim: i64,
    ids: &[Uuid],
) -> QueryResult<Vec<Uuid>> {
    let [first, .., last] = ids else { return end_leases(conn, worker, claim, ids) };
    let condition = "worker = ? AND claim = ? AND id BETWEEN ? AND ?";
    let binds = |first, last| [Bind::Id(worker), Bind::Big(claim), Bind::Id(first), Bind::Id(last)];
    let leased: Vec<Uuid> = conn.rows(
        &format!("SELECT id FROM qudo_lease WHERE {condition} ORDER BY id"),
        &binds(first, last),
    )?;
    let Some(ranges) = ranges(ids, &leased) else {
        return end_leases(conn, worker, claim, ids);
    };
    let delete = format!("DELETE FROM qudo_lease WHERE {condition}");
    for range in &ranges {
        conn.run(&delete, &binds(&range[0], &range[range.len() - 1]))?;
    }
    Ok(ranges.concat())
}

/// Removes the facts of these ids, which are in order; returns how many there were.
pub(super) fn remove_facts(
    conn: &mut Sql<'_, SqliteConnection>,
    ids: &[Uuid],
) -> QueryResult<usize> {
    if let [first, .., last] = ids
        && ids.len() >= MIN_RANGE
    {
        // Jobs of other queues, priorities or instants may lie in between, in any number.
        let most = ids.len() + MAX_RANGES;
        let stored: Vec<Uuid> = conn.rows(
            "SELECT id FROM qudo_job WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?",
            &[Bind::Id(first), Bind::Id(last), Bind::Big(i64::try_from(most).unwrap_or(i64::MAX))],
        )?;
        let ranges = if stored.len() < most { ranges(ids, &stored) } else { None };
        if let Some(ranges) = ranges {
            let mut removed = 0;
            for range in ranges {
                let ends = [Bind::Id(&range[0]), Bind::Id(&range[range.len() - 1])];
                removed += conn.run("DELETE FROM qudo_job WHERE id BETWEEN ? AND ?", &ends)?;
            }
            return Ok(removed);
        }
    }
    Sqlite::delete_by_id(conn, &Keyed::table("qudo_job"), ids)
}

/// The runs of keys in a table that all are `wanted`; `None` when they are too many. Both are in
/// order.
fn ranges<'p>(wanted: &[Uuid], present: &'p [Uuid]) -> Option<Vec<&'p [Uuid]>> {
    let mut wanted = wanted.iter().peekable();
    let mut is_wanted = |id: &Uuid| {
        while wanted.next_if(|other| *other < id).is_some() {}
        wanted.next_if_eq(&id).is_some()
    };
    let mut ranges = Vec::new();
    let mut begin = None;
    for (at, id) in present.iter().enumerate() {
        match (is_wanted(id), begin) {
            (true, None) => begin = Some(at),
            (false, Some(first)) => {
                ranges.push(&present[first..at]);
                begin = None;
            }
            _ => {}
        }
    }
    ranges.extend(begin.map(|first| &present[first..]));
    (ranges.len() <= MAX_RANGES).then_some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u128]) -> Vec<Uuid> {
        numbers.iter().copied().map(Uuid::from_u128).collect()
    }

    fn found(wanted: &[u128], present: &[u128]) -> Option<Vec<Vec<Uuid>>> {
        let (wanted, present) = (ids(wanted), ids(present));
        let found = ranges(&wanted, &present)?;
        Some(found.into_iter().map(<[Uuid]>::to_vec).collect())
    }

    #[test]
    fn a_range_holds_nothing_that_is_not_wanted() {
        assert_eq!(found(&[1, 2, 3], &[1, 2, 3]), Some(vec![ids(&[1, 2, 3])]));
        assert_eq!(found(&[1, 3], &[1, 2, 3]), Some(vec![ids(&[1]), ids(&[3])]));
        assert_eq!(found(&[2, 5], &[1, 2, 3, 4]), Some(vec![ids(&[2])]));
        assert_eq!(found(&[1, 2, 4], &[2, 4, 9]), Some(vec![ids(&[2, 4])]));
        assert_eq!(found(&[1], &[]), Some(vec![]));
    }

    #[test]
    fn too_many_ranges_are_left_to_a_list() {
        let all: Vec<u128> = (0..40).collect();
        let even: Vec<u128> = (0..40).step_by(2).collect();
        assert_eq!(found(&even, &all), None);
    }
}
