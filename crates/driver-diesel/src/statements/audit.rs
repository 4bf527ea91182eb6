//! Looks into the tables for what must not be there. Every statement reads one view of the data, in
//! ranges of an index, and locks nothing; only [`mend`](super::mend::mend) does.

use std::collections::BTreeMap;

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{KeyRow, Place, StrayCursor, Strays, Traces};
use qudo_hooks::JobId;
use uuid::Uuid;

use crate::engine::Engine;
use crate::sql::{Bind, Columns, FromRow, Sql};

/// Ids of one statement that finds by a list.
const LIST: usize = 64;

struct Sound(Traces);

impl FromRow for Sound {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let id = JobId::from_uuid(columns.id()?);
        let facts = Some((columns.text()?, columns.opt_text()?));
        let (leased, ownerless) = (columns.big()? != 0, columns.big()? != 0);
        let leg = columns.opt_text()?;
        let (ready, scheduled) = (columns.big()? != 0, columns.big()? != 0);
        let holder = columns.opt_id()?.map(JobId::from_uuid);
        let leg = leg.map(|leg| if leg == "leaving" { Place::Leaving } else { Place::Arriving });
        let places = [
            leased.then_some(Place::Leased),
            leg,
            ready.then_some(Place::Ready),
            scheduled.then_some(Place::Scheduled),
        ];
        let places = places.into_iter().flatten().collect();
        Ok(Self(Traces { facts, places, ownerless, holder, ..Traces::none(id) }))
    }
}

/// Live jobs with their places: the facts in a range of their key, the rest by keys.
pub(crate) fn traces<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    after: &Uuid,
    limit: u32,
) -> QueryResult<Vec<Traces>> {
    let is = |what: &str| format!("CAST(CASE WHEN {what} THEN 1 ELSE 0 END AS {})", E::BIG);
    let sql = format!(
        "SELECT j.id, j.ability, j.uniqkey, {leased}, {ownerless}, m.leg, {ready}, {scheduled}, u.id \
         FROM (SELECT id, queue, ability, uniqkey, priority FROM qudo_job WHERE id > ? \
         ORDER BY id LIMIT ?) j \
         LEFT JOIN qudo_ready r ON r.queue = j.queue AND r.claim_rank = -j.priority \
         AND r.id = j.id AND r.ability = j.ability \
         LEFT JOIN qudo_scheduled s ON s.id = j.id \
         LEFT JOIN qudo_lease l ON l.id = j.id LEFT JOIN qudo_worker w ON w.id = l.worker \
         LEFT JOIN qudo_moving m ON m.id = j.id AND m.leg IN ('leaving', 'arriving') \
         LEFT JOIN qudo_unique u ON u.ability = j.ability AND u.uniqkey = j.uniqkey \
         ORDER BY j.id",
        leased = is("l.id IS NOT NULL"),
        ownerless = is("l.id IS NOT NULL AND w.id IS NULL"),
        ready = is("r.id IS NOT NULL"),
        scheduled = is("s.id IS NOT NULL"),
    );
    let rows: Vec<Sound> = conn.rows(&sql, &[Bind::Id(after), Bind::Big(limit.into())])?;
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// An id, and whether it belongs to no facts.
struct Stray(Uuid, bool);

impl FromRow for Stray {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.id()?, columns.big()? != 0))
    }
}

struct Group(String, i32);

impl FromRow for Group {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.text()?, columns.int()?))
    }
}

/// The narrow tables that are read in the order of their ids.
const BY_ID: [(Place, &str); 4] = [
    (Place::Scheduled, "qudo_scheduled WHERE id > ?"),
    (Place::Leased, "qudo_lease WHERE id > ?"),
    (Place::Leaving, "qudo_moving WHERE leg = 'leaving' AND id > ?"),
    (Place::Arriving, "qudo_moving WHERE leg = 'arriving' AND id > ?"),
];

/// Rows without facts, or that say something else than these.
fn page<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    rows: &str,
    binds: &[Bind<'_>],
    limit: u32,
) -> QueryResult<Vec<Stray>> {
    let sql = format!(
        "SELECT x.id, CAST(CASE WHEN j.id IS NULL THEN 1 ELSE 0 END AS {}) \
         FROM (SELECT id, queue, claim_rank, ability FROM {rows} ORDER BY id LIMIT ?) x \
         LEFT JOIN qudo_job j ON j.id = x.id AND j.queue = x.queue \
         AND j.priority = -x.claim_rank AND j.ability = x.ability ORDER BY x.id",
        E::BIG
    );
    let mut all = binds.to_vec();
    all.push(Bind::Big(limit.into()));
    conn.rows(&sql, &all)
}

/// One page of one table; where it ends the next table begins.
pub(crate) fn strays<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    after: Option<&StrayCursor>,
    limit: u32,
) -> QueryResult<Strays> {
    let nil = Uuid::nil();
    match after {
        None => next_group::<E>(conn, None, limit),
        Some(StrayCursor::Ready(queue, rank, id)) => {
            group::<E>(conn, queue, *rank, id.as_uuid(), limit)
        }
        Some(StrayCursor::Place(place, id)) => {
            let at = BY_ID.iter().position(|(other, _)| other == place).unwrap_or(0);
            let rows = page::<E>(conn, BY_ID[at].1, &[Bind::Id(id.as_uuid())], limit)?;
            let next = match (rows.last(), BY_ID.get(at + 1)) {
                (Some(last), _) => StrayCursor::Place(*place, JobId::from_uuid(last.0)),
                (None, Some((place, _))) => StrayCursor::Place(*place, JobId::from_uuid(nil)),
                (None, None) => StrayCursor::Keys(String::new(), String::new()),
            };
            Ok(found(rows, Some(next)))
        }
        Some(StrayCursor::Keys(ability, uniqkey)) => {
            let rows = keys::<E>(conn, Some((ability, uniqkey)), limit)?;
            let next =
                rows.last().map(|row| StrayCursor::Keys(row.ability.clone(), row.uniqkey.clone()));
            let mut ids = Vec::new();
            for some in rows.chunks(LIST) {
                ids.extend(keys_without_jobs::<E>(conn, some)?);
            }
            Ok(Strays { ids, next })
        }
    }
}

fn found(rows: Vec<Stray>, next: Option<StrayCursor>) -> Strays {
    let ids = rows.into_iter().filter(|row| row.1).map(|row| JobId::from_uuid(row.0)).collect();
    Strays { ids, next }
}

/// Ready rows of one queue and rank, which are a range of the key.
fn group<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    queue: &str,
    rank: i32,
    after: &Uuid,
    limit: u32,
) -> QueryResult<Strays> {
    let binds = [Bind::Text(queue), Bind::Int(rank), Bind::Id(after)];
    let ready = "qudo_ready WHERE queue = ? AND claim_rank = ? AND id > ?";
    let rows = page::<E>(conn, ready, &binds, limit)?;
    let Some(last) = rows.last() else { return next_group::<E>(conn, Some((queue, rank)), limit) };
    let next = StrayCursor::Ready(queue.to_owned(), rank, JobId::from_uuid(last.0));
    Ok(found(rows, Some(next)))
}

/// Goes on with the next rank of the queue, or the next queue, or the other tables. Two looks,
/// because a comparison of pairs is no range to MySQL.
fn next_group<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    after: Option<(&str, i32)>,
    limit: u32,
) -> QueryResult<Strays> {
    let mut next: Option<Group> = None;
    if let Some((queue, rank)) = after {
        let sql = "SELECT queue, claim_rank FROM qudo_ready WHERE queue = ? AND claim_rank > ? \
                   ORDER BY queue, claim_rank LIMIT 1";
        next = conn.row(sql, &[Bind::Text(queue), Bind::Int(rank)])?;
    }
    if next.is_none() {
        let sql = "SELECT queue, claim_rank FROM qudo_ready WHERE queue > ? \
                   ORDER BY queue, claim_rank LIMIT 1";
        next = conn.row(sql, &[Bind::Text(after.map_or("", |(queue, _)| queue))])?;
    }
    if let Some(Group(queue, rank)) = next {
        return group::<E>(conn, &queue, rank, &Uuid::nil(), limit);
    }
    let nil = JobId::from_uuid(Uuid::nil());
    Ok(Strays { ids: Vec::new(), next: Some(StrayCursor::Place(BY_ID[0].0, nil)) })
}

struct Key(KeyRow);

impl FromRow for Key {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let (ability, uniqkey) = (columns.text()?, columns.text()?);
        Ok(Self(KeyRow { ability, uniqkey, id: JobId::from_uuid(columns.id()?) }))
    }
}

/// The index of unique keys in its own order; two looks, as above.
pub(crate) fn keys<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    after: Option<(&str, &str)>,
    limit: u32,
) -> QueryResult<Vec<KeyRow>> {
    let columns = "SELECT ability, uniqkey, id FROM qudo_unique";
    let (ability, uniqkey) = after.unwrap_or(("", ""));
    let limit = Bind::Big(limit.into());
    let sql =
        format!("{columns} WHERE ability = ? AND uniqkey > ? ORDER BY ability, uniqkey LIMIT ?");
    let mut rows: Vec<Key> = conn.rows(&sql, &[Bind::Text(ability), Bind::Text(uniqkey), limit])?;
    if rows.is_empty() {
        let sql = format!("{columns} WHERE ability > ? ORDER BY ability, uniqkey LIMIT ?");
        rows = conn.rows(&sql, &[Bind::Text(ability), limit])?;
    }
    Ok(rows.into_iter().map(|row| row.0).collect())
}

/// Of these keys the ids of those whose job does not have them.
fn keys_without_jobs<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    rows: &[KeyRow],
) -> QueryResult<Vec<JobId>> {
    let ids: Vec<_> = rows.iter().map(|row| *row.id.as_uuid()).collect();
    let marks = ["?"].repeat(ids.len()).join(",");
    let sql =
        format!("SELECT ability, COALESCE(uniqkey, ''), id FROM qudo_job WHERE id IN ({marks})");
    let binds: Vec<_> = ids.iter().map(Bind::Id).collect();
    let jobs: Vec<Key> = conn.rows(&sql, &binds)?;
    let has = |row: &&KeyRow| !jobs.iter().any(|job| job.0 == **row);
    Ok(rows.iter().filter(has).map(|row| row.id).collect())
}

/// One row of a trace: which table it is from, and what that says.
pub(super) struct Trace {
    pub(super) id: Uuid,
    pub(super) what: i64,
    pub(super) queue: String,
    ability: String,
    uniqkey: Option<String>,
    pub(super) rank: i64,
    other: Uuid,
}

impl FromRow for Trace {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self {
            id: columns.id()?,
            what: columns.big()?,
            queue: columns.text()?,
            ability: columns.text()?,
            uniqkey: columns.opt_text()?,
            rank: columns.big()?,
            other: columns.id()?,
        })
    }
}

/// All rows of all tables under these ids, in one statement, so in one view of the data. Ready rows
/// and keys are found by reading their tables through.
pub(super) fn trace_rows<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    ids: &[Uuid],
) -> QueryResult<Vec<Trace>> {
    let marks = ["?"].repeat(ids.len()).join(",");
    let big = |what: &str| format!("CAST({what} AS {})", E::BIG);
    let narrow = |what: &str, from: &str| {
        format!(
            "SELECT x.id, {}, x.queue, x.ability, NULL, {}, x.id FROM {from} x.id IN ({marks})",
            big(what),
            big("x.claim_rank")
        )
    };
    let sql = [
        format!(
            "SELECT x.id, {}, x.queue, x.ability, x.uniqkey, {}, x.id FROM qudo_job x \
             WHERE x.id IN ({marks})",
            big("0"),
            big("-x.priority")
        ),
        narrow("1", "qudo_ready x WHERE"),
        narrow("2", "qudo_scheduled x WHERE"),
        narrow(
            "CASE WHEN w.id IS NULL THEN 4 ELSE 3 END",
            "qudo_lease x LEFT JOIN qudo_worker w ON w.id = x.worker WHERE",
        ),
        narrow("5", "qudo_moving x WHERE x.leg = 'leaving' AND"),
        narrow("6", "qudo_moving x WHERE x.leg = 'arriving' AND"),
        format!(
            "SELECT x.id, {}, x.ability, x.ability, x.uniqkey, {}, x.id FROM qudo_unique x \
             WHERE x.id IN ({marks})",
            big("7"),
            big("0")
        ),
        format!(
            "SELECT x.id, {}, x.queue, x.ability, x.uniqkey, {}, u.id FROM qudo_job x \
             JOIN qudo_unique u ON u.ability = x.ability AND u.uniqkey = x.uniqkey \
             WHERE x.id IN ({marks})",
            big("8"),
            big("0")
        ),
    ]
    .join(" UNION ALL ");
    let binds: Vec<_> = (0..8).flat_map(|_| ids.iter().map(Bind::Id)).collect();
    conn.rows(&sql, &binds)
}

/// All that lies under these ids.
pub(crate) fn trace<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    ids: &[JobId],
) -> QueryResult<Vec<Traces>> {
    let mut all = Vec::with_capacity(ids.len());
    for some in ids.chunks(LIST) {
        let uuids: Vec<_> = some.iter().map(|id| *id.as_uuid()).collect();
        let mut rows: BTreeMap<Uuid, Vec<Trace>> = BTreeMap::new();
        for row in trace_rows::<E>(conn, &uuids)? {
            rows.entry(row.id).or_default().push(row);
        }
        all.extend(some.iter().map(|id| {
            assemble(*id, rows.get(id.as_uuid()).map(Vec::as_slice).unwrap_or_default())
        }));
    }
    Ok(all)
}

pub(super) fn assemble(id: JobId, rows: &[Trace]) -> Traces {
    let mut traces = Traces::none(id);
    let facts = rows.iter().find(|row| row.what == 0);
    traces.facts = facts.map(|row| (row.ability.clone(), row.uniqkey.clone()));
    for row in rows {
        let place = match row.what {
            1 => Place::Ready,
            2 => Place::Scheduled,
            3 | 4 => Place::Leased,
            5 => Place::Leaving,
            6 => Place::Arriving,
            7 => {
                let key = row.uniqkey.clone().unwrap_or_default();
                traces.keys.push((row.ability.clone(), key));
                continue;
            }
            8 => {
                traces.holder = Some(JobId::from_uuid(row.other));
                continue;
            }
            _ => continue,
        };
        traces.ownerless |= row.what == 4;
        traces.places.push(place);
        traces.misfiled |= facts.is_some_and(|facts| {
            (&facts.queue, &facts.ability, facts.rank) != (&row.queue, &row.ability, row.rank)
        });
    }
    traces.places.sort_unstable();
    traces
}
