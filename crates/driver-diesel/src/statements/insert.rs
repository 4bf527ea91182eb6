use std::collections::{HashMap, HashSet};

use diesel::deserialize;
use diesel::result::{Error, QueryResult};
use qudo_core::driver::{Due, Inserted, JobRecord};
use qudo_hooks::JobId;
use uuid::Uuid;

use super::facts::{self, FACTS};
use super::ledger::balance;
use super::{Place, RunAfter, put_ready, put_scheduled};
use crate::bulk::{Keyed, insert_rows};
use crate::classify::{Class, classify};
use crate::clock::Window;
use crate::engine::Engine;
use crate::sql::{Bind, Columns, FromRow, Sql};

/// How often a unique key whose holder vanishes under our eyes is tried again.
const MOST_TRIES: usize = 5;

/// Stores jobs in a transaction. Ids that are there already are looked for only when the insert
/// stumbles over one: a repeated insert is rare, and looking costs a round trip.
pub(crate) fn insert<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    jobs: &[JobRecord],
    window: &Window,
) -> QueryResult<Vec<Inserted>> {
    Ok(insert_telling::<E>(conn, jobs, window)?.0)
}

/// As [`insert`], and tells which ids it wrote: a job that was there already counts as new too.
pub(crate) fn insert_telling<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    jobs: &[JobRecord],
    window: &Window,
) -> QueryResult<(Vec<Inserted>, Vec<Uuid>)> {
    let mut store = |look| {
        E::transaction_within(conn, window, |conn| insert_checked::<E>(conn, jobs, look, window))
    };
    match store(false) {
        Err(error) if classify(&error) == Class::Unique => store(true),
        other => other,
    }
}

/// Stores jobs inside the caller's transaction. An id that is there already must not break it,
/// so they are always looked for.
pub(crate) fn insert_within<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    jobs: &[JobRecord],
) -> QueryResult<Vec<Inserted>> {
    Ok(insert_checked::<E>(conn, jobs, true, &Window::OPEN)?.0)
}

fn insert_checked<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    jobs: &[JobRecord],
    look_for_ids: bool,
    window: &Window,
) -> QueryResult<(Vec<Inserted>, Vec<Uuid>)> {
    let mut answers = vec![Inserted::New; jobs.len()];
    let mut stored: HashSet<Uuid> = HashSet::new();
    if look_for_ids {
        let ids: Vec<_> = jobs.iter().map(|job| *job.id.as_uuid()).collect();
        let job = Keyed::table("qudo_job");
        stored.extend(E::rows_by_id::<Uuid>(conn, "id", &job, &ids, "")?);
    }
    // An id twice in one call is stored once.
    let mut fresh: Vec<(usize, &JobRecord)> = if look_for_ids {
        jobs.iter().enumerate().filter(|(_, job)| stored.insert(*job.id.as_uuid())).collect()
    } else {
        jobs.iter().enumerate().collect()
    };
    if fresh.iter().any(|(_, job)| job.facts.uniqkey.is_some()) {
        let taken = take_keys::<E>(conn, &fresh)?;
        fresh.retain(|(place, _)| match taken.get(place) {
            Some(holder) => {
                answers[*place] = Inserted::Existing(JobId::from_uuid(*holder));
                false
            }
            None => true,
        });
    }
    let fresh: Vec<&JobRecord> = fresh.into_iter().map(|(_, job)| job).collect();
    if !fresh.is_empty() {
        E::insert_new(conn, &fresh, window)?;
    }
    Ok((answers, fresh.iter().map(|job| *job.id.as_uuid()).collect()))
}

type Key<'a> = (&'a str, &'a str);

/// Takes the unique keys of the jobs that have one; returns those held by others, by place.
///
/// The index decides, never a prior look: of two transactions that overlap, the second waits for
/// the first's row. Keys are taken in their order, so that two bulk inserts cannot deadlock.
pub(super) fn take_keys<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    jobs: &[(usize, &JobRecord)],
) -> QueryResult<HashMap<usize, Uuid>> {
    let mut wanted: Vec<(usize, Key<'_>, &Uuid)> = jobs
        .iter()
        .filter_map(|(place, job)| {
            Some((
                *place,
                (job.facts.ability.as_ref(), job.facts.uniqkey.as_deref()?),
                job.id.as_uuid(),
            ))
        })
        .collect();
    wanted.sort_by_key(|(place, key, _)| (*key, *place));
    let mut taken = HashMap::new();
    for _ in 0..MOST_TRIES {
        let rows: Vec<_> = wanted
            .iter()
            .map(|(_, (ability, key), id)| vec![Bind::Text(ability), Bind::Text(key), Bind::Id(id)])
            .collect();
        let (words, tail) = E::INSERT_IGNORE;
        let head = format!("{words} INTO qudo_unique (ability, uniqkey, id) VALUES ");
        if insert_rows(conn, &head, "(?,?,?)", &rows, tail)? == wanted.len() {
            return Ok(taken);
        }
        let holders = holders::<E>(conn, &wanted)?;
        wanted.retain(|(place, (ability, key), id)| {
            match holders.get(&((*ability).to_owned(), (*key).to_owned())) {
                Some(holder) if holder == *id => false,
                Some(holder) => {
                    taken.insert(*place, *holder);
                    false
                }
                // The holder ended between the insert and the look: the key is free again.
                None => true,
            }
        });
        if wanted.is_empty() {
            return Ok(taken);
        }
    }
    Err(Error::QueryBuilderError("a unique key changed hands too often; try again".into()))
}

/// Takes one unique key if it is free; tells whether it was.
pub(super) fn take_key<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    ability: &str,
    key: &str,
    id: &Uuid,
) -> QueryResult<bool> {
    let (words, tail) = E::INSERT_IGNORE;
    let sql = format!("{words} INTO qudo_unique (ability, uniqkey, id) VALUES (?,?,?){tail}");
    Ok(conn.run(&sql, &[Bind::Text(ability), Bind::Text(key), Bind::Id(id)])? > 0)
}

struct Holder(String, String, Uuid);

impl FromRow for Holder {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.text()?, columns.text()?, columns.id()?))
    }
}

/// Who holds these keys now; in a caller's repeatable-read transaction also a holder that committed
/// after it began. The row must not be locked for good where that can be helped: the caller's
/// transaction may stay open for long, and the settle of the holder would wait for it.
fn holders<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    wanted: &[(usize, Key<'_>, &Uuid)],
) -> QueryResult<HashMap<(String, String), Uuid>> {
    let mut holders = HashMap::new();
    for piece in wanted.chunks(64) {
        let pairs = vec!["(ability = ? AND uniqkey = ?)"; piece.len()].join(" OR ");
        let sql =
            format!("SELECT ability, uniqkey, id FROM qudo_unique WHERE {pairs}{}", E::CURRENT);
        let binds: Vec<_> =
            piece.iter().flat_map(|(_, (a, k), _)| [Bind::Text(a), Bind::Text(k)]).collect();
        for Holder(ability, key, id) in conn.rows::<Holder>(&sql, &binds)? {
            holders.insert((ability, key), id);
        }
    }
    Ok(holders)
}

/// Facts first, then the narrow rows: for engines without arrays. Nothing is waited for, because
/// the ids are new.
pub(crate) fn insert_new_rows<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    jobs: &[&JobRecord],
) -> QueryResult<()> {
    let rows: Vec<_> = jobs
        .iter()
        .map(|job| {
            let mut binds = vec![Bind::Id(job.id.as_uuid())];
            binds.extend(facts::binds(&job.facts));
            binds
        })
        .collect();
    let head = format!("INSERT INTO qudo_job (id, {FACTS}, enqueued_at) VALUES ");
    let row = format!("(?,?,?,?,?,?,?,?,{})", E::NOW);
    let stored = insert_rows(conn, &head, &row, &rows, "")?;
    let (ready, scheduled): (Vec<&JobRecord>, Vec<&JobRecord>) =
        jobs.iter().partition(|job| job.due == Due::Now);
    let ready: Vec<_> = ready.into_iter().map(place).collect();
    let mut placed = put_ready::<E>(conn, &ready)?;
    let scheduled: Vec<_> =
        scheduled.into_iter().map(|job| (place(job), RunAfter::from(job.due))).collect();
    placed += put_scheduled::<E>(conn, &scheduled)?;
    balance("insert facts", jobs.len(), stored)?;
    balance("insert places", jobs.len(), placed)
}

/// The narrow row of a new job.
pub(crate) fn place(job: &JobRecord) -> Place<'_> {
    Place {
        id: job.id.as_uuid(),
        queue: &job.facts.queue,
        claim_rank: -job.facts.priority,
        ability: &job.facts.ability,
        attempt: 0,
        crashes: 0,
        flags: job.facts.flags(),
    }
}
