use std::collections::HashSet;

use diesel::result::QueryResult;
use qudo_core::driver::{Due, Inserted, JobRecord};
use qudo_hooks::JobId;
use uuid::Uuid;

use super::facts::{self, FACTS, PLAIN_FACTS};
use super::keys::take_keys;
use super::ledger::balance;
use super::{Place, RunAfter, Since, put_ready, put_scheduled};
use crate::bulk::{Keyed, insert_rows};
use crate::classify::{Class, classify};
use crate::clock::Window;
use crate::engine::Engine;
use crate::sql::{Bind, Sql};

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

/// Facts first, then the narrow rows: for engines without arrays. Nothing is waited for, because
/// the ids are new.
pub(crate) fn insert_new_rows<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    jobs: &[&JobRecord],
) -> QueryResult<()> {
    // Most jobs have neither key nor metadata. Without these columns, and with the numbers of `put_ready` in the
    // text, MariaDB inserts a tenth faster in bulk.
    let is_plain = jobs.iter().all(|job| facts::is_plain(&job.facts));
    let stored = if is_plain {
        let rows = jobs.iter().map(|job| {
            let [ability, queue, codec, arg, priority] = facts::plain_binds(&job.facts);
            [Bind::Id(job.id.as_uuid()), ability, queue, codec, arg, priority]
        });
        insert_facts::<E, 6>(conn, PLAIN_FACTS, &rows.collect::<Vec<_>>())?
    } else {
        let rows = jobs.iter().map(|job| {
            let [ability, queue, codec, arg, uniqkey, priority, meta] = facts::binds(&job.facts);
            [Bind::Id(job.id.as_uuid()), ability, queue, codec, arg, uniqkey, priority, meta]
        });
        insert_facts::<E, 8>(conn, FACTS, &rows.collect::<Vec<_>>())?
    };
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

/// Each row begins with the id.
fn insert_facts<E: Engine, const WIDTH: usize>(
    conn: &mut Sql<'_, E::Conn>,
    columns: &str,
    rows: &[[Bind<'_>; WIDTH]],
) -> QueryResult<usize> {
    let head = format!("INSERT INTO qudo_job (id, {columns}, enqueued_at) VALUES ");
    let row = format!("({},{})", ["?"; WIDTH].join(","), E::NOW);
    insert_rows(conn, &head, &row, rows, "")
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
        since: Since::Enqueue,
    }
}
