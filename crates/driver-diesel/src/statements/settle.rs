use std::collections::HashSet;

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{Inserted, JobRecord, Settled, Settlement, Verdict};
use qudo_hooks::JobId;
use uuid::Uuid;

use super::exception::{NewException, log_exceptions};
use super::insert::insert_within;
use super::keys::free_keys;
use super::ledger::balance;
use super::trace::{write_replies, write_status, write_successors};
use super::{Place, RunAfter, Since, put_ready, put_scheduled};
use crate::bulk::Keyed;
use crate::engine::{Engine, micros};
use crate::held_key::HeldKey;
use crate::sql::{Bind, Columns, FromRow, Sql};

/// Whether a group can take the short way: every run completed and wrote nothing else.
pub(crate) fn is_plain(settlements: &[Settlement]) -> bool {
    settlements.iter().all(|one| {
        one.verdict == Verdict::Complete
            && one.extras.is_none()
            && one.job.flags.is_empty()
            // A row that was put by other hands may not say so.
            && one.job.facts.uniqkey.is_none()
    })
}

/// Whether a job is there twice: of its two claims one is lost.
pub(crate) fn has_twins(settlements: &[Settlement]) -> bool {
    let mut ids: Vec<_> = settlements.iter().map(|one| one.job.id).collect();
    ids.sort_unstable();
    ids.windows(2).any(|pair| pair[0] == pair[1])
}

/// The size of the largest value that these settlements store.
pub(crate) fn largest_value(settlements: &[Settlement]) -> usize {
    let sizes = settlements.iter().filter_map(|one| Some((one, one.extras.as_deref()?))).flat_map(
        |(one, extras)| {
            let kept = if one.verdict == Verdict::Discard { one.job.facts.size() } else { 0 };
            let replies = extras.replies.iter().map(|reply| reply.body.len());
            let new = extras.replacements.iter().map(|job| job.facts.size());
            replies.chain(new).chain([kept])
        },
    );
    sizes.max().unwrap_or_default()
}

struct Held(Uuid, i64);

impl FromRow for Held {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.id()?, columns.big()?))
    }
}

/// Which of these leases this worker holds, and under which claims.
pub(crate) fn held<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    worker: &Uuid,
    ids: &[Uuid],
    lock: &str,
) -> QueryResult<Vec<(Uuid, i64)>> {
    let worker = [Bind::Id(worker)];
    let lease = Keyed::table("qudo_lease").only("worker = ?", &worker);
    let held: Vec<Held> = E::rows_by_id(conn, "id, claim", &lease, ids, lock)?;
    Ok(held.into_iter().map(|held| (held.0, held.1)).collect())
}

/// Removes the leases that this worker still holds under these claims; returns them.
///
/// The row lock decides between this settle, a rescue and a settle that is repeated: whoever comes
/// second finds no row. Inside a transaction.
pub(crate) fn take_leases<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    worker: &Uuid,
    leases: &[(Uuid, i64)],
) -> QueryResult<HashSet<(Uuid, i64)>> {
    if let Some(taken) = E::take_leases(conn, worker, leases)? {
        return Ok(taken);
    }
    let mut ids: Vec<_> = leases.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    let found: HashSet<(Uuid, i64)> =
        held::<E>(conn, worker, &ids, E::FOR_UPDATE)?.into_iter().collect();
    let ours: HashSet<_> = leases.iter().filter(|lease| found.contains(lease)).copied().collect();
    let mut ids: Vec<_> = ours.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    let taken = E::delete_by_id(conn, &Keyed::table("qudo_lease"), &ids)?;
    balance("take leases", ours.len(), taken)?;
    Ok(ours)
}

/// Ends runs that completed and wrote nothing, and finds out whose leases are held; in one transaction.
pub(crate) fn complete_held<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    worker: &Uuid,
    leases: &[(Uuid, i64)],
) -> QueryResult<Vec<Uuid>> {
    let held = take_leases::<E>(conn, worker, leases)?;
    let mut held: Vec<_> = held.into_iter().map(|(id, _)| id).collect();
    held.sort_unstable();
    remove_facts::<E>(conn, &held)?;
    Ok(held)
}

/// Facts that somebody removed before are no reason to run a job again.
fn remove_facts<E: Engine>(conn: &mut Sql<'_, E::Conn>, ids: &[Uuid]) -> QueryResult<()> {
    let removed = E::remove_facts(conn, ids)?;
    if removed != ids.len() {
        log::error!("{} of {} ended jobs had no facts", ids.len() - removed, ids.len());
    }
    Ok(())
}

/// Ends runs of every kind in one transaction.
pub(crate) fn settle<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    worker: &Uuid,
    settlements: &[Settlement],
) -> QueryResult<Vec<Settled>> {
    // By id and claim: an older claim of the same job, lost since, may be in the same group.
    let lease = |one: &Settlement| (*one.job.id.as_uuid(), one.job.claim);
    let leases: Vec<_> = settlements.iter().map(lease).collect();
    let held = take_leases::<E>(conn, worker, &leases)?;
    // As a rule all are, and nobody need be looked for among them.
    let are_all_held = held.len() == leases.len();
    let is_held = |one: &Settlement| are_all_held || held.contains(&lease(one));
    let ours: Vec<&Settlement> = settlements.iter().filter(|one| is_held(one)).collect();
    write_beside::<E>(conn, worker, &ours)?;
    let put = put_back::<E>(conn, &ours)? + remove_ended::<E>(conn, &ours)?;
    balance("settle", ours.len(), put)?;
    let refused = insert_replacements::<E>(conn, &ours)?;
    Ok(answers(settlements, is_held, &refused))
}

/// What runs bring beside their ends: rows of the exception log, replies, rows of the history.
pub(crate) fn write_beside<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    worker: &Uuid,
    ours: &[&Settlement],
) -> QueryResult<()> {
    write_exceptions::<E>(conn, worker, ours)?;
    write_replies::<E>(conn, ours)?;
    write_status::<E>(conn, ours)
}

/// Stores the jobs that take the place of others; returns those that are refused, because live jobs hold their
/// unique keys. Last, so that a replacement may take the key of the job it replaces.
pub(crate) fn insert_replacements<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    ours: &[&Settlement],
) -> QueryResult<HashSet<JobId>> {
    let replacements: Vec<JobRecord> = ours
        .iter()
        .filter_map(|one| one.extras.as_ref())
        .flat_map(|extras| extras.replacements.iter().cloned())
        .collect();
    if replacements.is_empty() {
        return Ok(HashSet::new());
    }
    let inserted = insert_within::<E>(conn, &replacements)?;
    let both = inserted.into_iter().zip(&replacements);
    let refused: HashSet<_> =
        both.filter(|(one, _)| *one != Inserted::New).map(|(_, job)| job.id).collect();
    let successor = |one: &&Settlement| {
        let by = one.extras.as_ref()?.successor(|id| !refused.contains(&id))?;
        Some((one.job.id, by))
    };
    write_successors::<E>(conn, &ours.iter().filter_map(successor).collect::<Vec<_>>())?;
    Ok(refused)
}

/// What became of each run.
pub(crate) fn answers(
    settlements: &[Settlement],
    is_held: impl Fn(&Settlement) -> bool,
    refused: &HashSet<JobId>,
) -> Vec<Settled> {
    let answer = |one: &Settlement| {
        if !is_held(one) {
            return Settled::LeaseLost;
        }
        let new = one.extras.iter().flat_map(|extras| &extras.replacements).map(|job| job.id);
        Settled::done_without(new.filter(|id| refused.contains(id)).collect())
    };
    settlements.iter().map(answer).collect()
}

fn write_exceptions<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    worker: &Uuid,
    ours: &[&Settlement],
) -> QueryResult<()> {
    let rows: Vec<_> = ours
        .iter()
        .filter_map(|one| {
            let record = one.extras.as_ref()?.exception.as_ref()?;
            let (job, last) = (&one.job, one.verdict == Verdict::Discard);
            Some(NewException {
                id: record.id.as_uuid(),
                job: job.id.as_uuid(),
                ability: &job.facts.ability,
                queue: &job.facts.queue,
                worker,
                worker_name: record.worker_name.as_deref(),
                version: record.version.as_deref(),
                attempt: job.attempt,
                kind: record.kind.as_str(),
                class: record.class.as_deref(),
                message: &record.message,
                discarded: last,
                uniqkey: job.facts.uniqkey.as_deref(),
                priority: job.facts.priority,
                codec: last.then_some(&*job.facts.codec),
                arg: last.then_some(&job.facts.arg[..]),
                meta: job.facts.meta.as_deref(),
            })
        })
        .collect();
    log_exceptions::<E>(conn, &rows)
}

/// In how many microseconds the job runs again, and how many attempts that gives back; `None` when it is gone.
pub(crate) fn again(verdict: Verdict) -> Option<(i64, i32)> {
    match verdict {
        Verdict::Complete | Verdict::Discard => None,
        Verdict::Retry(delay) => Some((micros(delay), 0)),
        Verdict::Snooze(delay) => Some((micros(delay), 1)),
        Verdict::GiveBack => Some((0, 1)),
    }
}

/// Whether the job is gone with this run.
pub(crate) fn is_gone(one: &Settlement) -> bool {
    again(one.verdict).is_none()
}

/// The unique keys of those jobs that are gone.
pub(crate) fn ended_keys<'a>(ours: &[&'a Settlement]) -> Vec<HeldKey<'a>> {
    let keys = ours.iter().copied().filter(|one| is_gone(one)).filter_map(|one| {
        let facts = &one.job.facts;
        let (ability, uniqkey) = (&*facts.ability, facts.uniqkey.as_deref()?);
        Some(HeldKey { ability, uniqkey, id: one.job.id.as_uuid() })
    });
    keys.collect()
}

/// Jobs that run again: ready at once or scheduled. Their facts are not touched. Returns how many
/// rows it put.
pub(crate) fn put_back<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    ours: &[&Settlement],
) -> QueryResult<usize> {
    let (mut ready, mut scheduled) = (Vec::new(), Vec::new());
    for one in ours {
        let Some((after, spared)) = again(one.verdict) else { continue };
        let job = &one.job;
        let place = Place {
            id: job.id.as_uuid(),
            queue: &job.facts.queue,
            claim_rank: -job.facts.priority,
            ability: &job.facts.ability,
            attempt: job.attempt - spared,
            crashes: job.crashes,
            flags: job.flags,
            since: Since::Now,
        };
        if after == 0 {
            ready.push(place);
        } else {
            scheduled.push((place, RunAfter::after(after)));
        }
    }
    Ok(put_ready::<E>(conn, &ready)? + put_scheduled::<E>(conn, &scheduled)?)
}

/// Jobs that are gone: their facts and their unique keys. Returns how many they are.
fn remove_ended<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    ours: &[&Settlement],
) -> QueryResult<usize> {
    let ended = ours.iter().filter(|one| is_gone(one));
    let mut ids: Vec<_> = ended.map(|one| *one.job.id.as_uuid()).collect();
    ids.sort_unstable();
    remove_facts::<E>(conn, &ids)?;
    free_keys::<E>(conn, ended_keys(ours))?;
    Ok(ids.len())
}
