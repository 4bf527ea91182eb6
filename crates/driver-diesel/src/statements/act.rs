//! What operators do to live jobs. Every function runs inside a transaction.
//!
//! Locking: leases before ready and scheduled, before facts, before keys, each by id, as everywhere. A claim that locks
//! a job's row first wins, and then the job is found running.

use std::collections::HashMap;

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{Act, Acted, Ending, Name};
use qudo_hooks::JobId;
use uuid::Uuid;

use super::cancel;
use super::keys::free_keys;
use super::ledger::balance;
use super::trace::write_tombstones;
use super::waiting::{Waiting, take, waiting_each};
use super::{Place, RunAfter, put_ready, put_scheduled};
use crate::bulk::Keyed;
use crate::engine::Engine;
use crate::held_key::HeldKey;
use crate::sql::{Bind, Columns, FromRow, Sql};

/// What became of jobs.
#[derive(Default)]
pub(crate) struct Answers {
    pub(crate) of: HashMap<Uuid, Acted>,
    /// Queues in which a job is ready now that was not, or not there.
    pub(crate) queues: Vec<String>,
    /// Whether workers have an order to read.
    pub(crate) ordered: bool,
}

/// A job that moves from table to table is looked for so often.
const LOOKS: u32 = 2;

/// Does this to jobs, whose ids are in order.
pub(crate) fn act<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    act: &Act,
    ids: &[Uuid],
) -> QueryResult<Answers> {
    let mut answers = Answers::default();
    let (mut rest, mut ended) = (ids.to_vec(), Vec::new());
    for _ in 0..LOOKS {
        if let Act::Cancel { reason, by_force } = act {
            ended.extend(cancel::leased::<E>(conn, reason, *by_force, &rest, &mut answers)?);
            rest.retain(|id| !answers.of.contains_key(id));
        }
        let rows = waiting_each::<E>(conn, &rest)?;
        answers.of.extend(rows.iter().map(|row| (row.stand.id, Acted::Done)));
        if let Act::Cancel { .. } = act {
            take::<E>(conn, &rows)?;
            ended.extend(rows.into_iter().map(|row| cancel::Ended::waited(row.stand)));
        } else {
            on_waiting::<E>(conn, act, &rows, &mut answers)?;
        }
        rest.retain(|id| !answers.of.contains_key(id));
        if rest.is_empty() {
            break;
        }
        note_others::<E>(conn, act, &rest, &mut answers)?;
        rest.retain(|id| !answers.of.contains_key(id));
    }
    // Each look found it elsewhere: it is claimed, ends and is claimed.
    answers.of.extend(rest.into_iter().map(|id| (id, Acted::Running)));
    if let Act::Cancel { reason, .. } = act {
        // Facts and keys after all leases and waiting rows.
        cancel::end::<E>(conn, reason, ended)?;
        cancel::forget::<E>(conn, &answers.of)?;
    }
    Ok(answers)
}

/// Why nothing can be done to the jobs that do not wait. One that runs may be cancelled, so that it is looked for again.
fn note_others<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    act: &Act,
    ids: &[Uuid],
    answers: &mut Answers,
) -> QueryResult<()> {
    let of = &mut answers.of;
    let mut read = |table: &str, only: &str| -> QueryResult<Vec<Uuid>> {
        E::rows_by_id(conn, "id", &Keyed::table(table).only(only, &[]), ids, "")
    };
    if !matches!(act, Act::Cancel { .. }) {
        of.extend(read("qudo_lease", "")?.into_iter().map(|id| (id, Acted::Running)));
    }
    let moving = read("qudo_moving", "leg IN ('leaving', 'arriving')")?;
    of.extend(moving.into_iter().map(|id| (id, Acted::Moving)));
    // Last: a job that was nowhere and has facts is between two tables.
    let there = read("qudo_job", "")?;
    for id in ids.iter().filter(|id| !there.contains(id)) {
        of.entry(*id).or_insert(Acted::Gone);
    }
    Ok(())
}

/// Changes jobs whose rows are locked.
fn on_waiting<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    act: &Act,
    rows: &[Waiting],
    answers: &mut Answers,
) -> QueryResult<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let taken = take::<E>(conn, rows)?;
    let mut ids: Vec<_> = rows.iter().map(|row| row.stand.id).collect();
    ids.sort_unstable();
    let put = match act {
        Act::Remove(leaves) => {
            remove::<E>(conn, &ids, *leaves)?;
            taken
        }
        // Its jobs end together.
        Act::Cancel { .. } => taken,
        Act::Reschedule(due) => {
            let places: Vec<_> = rows.iter().map(|row| Place::from(&row.stand)).collect();
            match due {
                qudo_hooks::Due::Now => {
                    answers.queues.extend(rows.iter().map(|row| row.stand.queue.clone()));
                    put_ready::<E>(conn, &places)?
                }
                due => {
                    let rows = places.into_iter().map(|place| (place, RunAfter::from(*due)));
                    put_scheduled::<E>(conn, &rows.collect::<Vec<_>>())?
                }
            }
        }
        Act::Prioritize(priority) => {
            let binds = [Bind::Int((*priority).max(-i32::MAX))];
            E::update_by_id(conn, "priority = ?", &binds, &Keyed::table("qudo_job"), &ids)?;
            // The least number has no opposite.
            let claim_rank = 0_i32.saturating_sub(*priority);
            let place = |row| Place { claim_rank, ..place(row) };
            put_where_they_were::<E>(conn, rows, place, answers)?
        }
        Act::Requeue(queue) => {
            let binds = [Bind::Text(queue)];
            E::update_by_id(conn, "queue = ?", &binds, &Keyed::table("qudo_job"), &ids)?;
            let queue: &Name = queue;
            let place = |row| Place { queue, ..place(row) };
            put_where_they_were::<E>(conn, rows, place, answers)?
        }
    };
    balance("act on jobs", taken, put)
}

fn place(row: &Waiting) -> Place<'_> {
    Place { since: row.since, ..Place::from(&row.stand) }
}

/// Puts changed rows back into the tables from which they were taken.
fn put_where_they_were<'r, E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    rows: &'r [Waiting],
    place: impl Fn(&'r Waiting) -> Place<'r>,
    answers: &mut Answers,
) -> QueryResult<usize> {
    let (mut ready, mut scheduled) = (Vec::new(), Vec::new());
    for row in rows {
        let place = place(row);
        match row.run_after {
            None => {
                answers.queues.push(place.queue.to_owned());
                ready.push(place);
            }
            Some(at) => scheduled.push((place, RunAfter::at(at))),
        }
    }
    Ok(put_ready::<E>(conn, &ready)? + put_scheduled::<E>(conn, &scheduled)?)
}

/// A unique key with its job.
pub(super) struct KeyOf {
    id: Uuid,
    ability: String,
    uniqkey: Option<String>,
}

impl FromRow for KeyOf {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self { id: columns.id()?, ability: columns.text()?, uniqkey: columns.opt_text()? })
    }
}

/// Removes jobs with their facts and unique keys, and leaves tombstones.
fn remove<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    ids: &[Uuid],
    leaves: Option<Ending>,
) -> QueryResult<()> {
    let job = Keyed::table("qudo_job");
    let keys: Vec<KeyOf> = E::rows_by_id(conn, "id, ability, uniqkey", &job, ids, "")?;
    E::delete_by_id(conn, &job, ids)?;
    let held = keys.iter().filter_map(|key| {
        let uniqkey = key.uniqkey.as_deref()?;
        Some(HeldKey { ability: &key.ability, uniqkey, id: &key.id })
    });
    free_keys::<E>(conn, held.collect())?;
    match leaves {
        Some(ending) => write_tombstones::<E>(conn, ids, ending),
        None => Ok(()),
    }
}

/// The answers for these jobs, in their order.
pub(crate) fn in_order(answers: &HashMap<Uuid, Acted>, jobs: &[JobId]) -> Vec<Acted> {
    jobs.iter().map(|id| answers.get(id.as_uuid()).copied().unwrap_or(Acted::Gone)).collect()
}
