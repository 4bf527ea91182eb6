//! Jobs on their way between databases; the protocol is that of
//! [`Moves`](qudo_core::driver::Moves). Every function runs inside a transaction.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{
    Arrival, Departure, Due, Flags, JobFacts, JobRecord, Leg, MovingJob, Trail,
};
use qudo_hooks::JobId;
use uuid::Uuid;

use super::facts::{self, FACTS};
use super::keys::{free_keys, take_keys};
use super::ledger::balance;
use super::lookup::instant;
use super::waiting::{Waiting, columns_of_ready, columns_of_waiting, take, waiting_each};
use super::{Place, RunAfter, STAND, Stand, place, put_ready, put_scheduled};
use crate::bulk::{Keyed, insert_rows};
use crate::engine::Engine;
use crate::held_key::HeldKey;
use crate::sql::{Bind, Columns, FromRow, Sql};

const SELECT: &str = "SELECT m.attempt, m.crashes, m.flags, m.run_after, m.departure, j.id, j.enqueued_at, j.ability, \
    j.queue, j.codec, j.arg, j.uniqkey, j.priority, j.meta FROM qudo_moving m JOIN qudo_job j ON j.id = m.id";

struct Moving(MovingJob);

impl FromRow for Moving {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let (attempt, crashes) = (columns.int()?, columns.int()?);
        let flags = Flags::from_bits(columns.int()?);
        let due = due(columns.opt_big()?);
        let departure = columns.id()?;
        let Record { record, enqueued_at } = Record::from_row(columns)?;
        let record = JobRecord { due, ..record };
        Ok(Self(MovingJob { record, attempt, crashes, flags, enqueued_at, departure }))
    }
}

fn uuids(jobs: &[Departure]) -> Vec<Uuid> {
    jobs.iter().map(|one| *one.job.as_uuid()).collect()
}

/// A job that is to end stays where its order is.
const NOT_ORDERED: &str = "id NOT IN (SELECT id FROM qudo_cancel)";

/// Waiting rows from the start of both tables, locked. Rows that a claim holds are passed over.
fn first_waiting<E: Engine>(conn: &mut Sql<'_, E::Conn>, limit: u32) -> QueryResult<Vec<Waiting>> {
    let ready = format!(
        "SELECT {} FROM qudo_ready WHERE {NOT_ORDERED} \
         ORDER BY queue, claim_rank, id LIMIT ?{}",
        columns_of_ready::<E>(),
        E::SKIP_LOCKED
    );
    let mut rows: Vec<Waiting> = conn.rows(&ready, &[Bind::Big(limit.into())])?;
    if rows.len() < limit as usize {
        let scheduled = format!(
            "SELECT {} FROM qudo_scheduled WHERE {NOT_ORDERED} \
             ORDER BY run_after, id LIMIT ?{}",
            columns_of_waiting::<E>(),
            E::SKIP_LOCKED
        );
        let left = Bind::Big(i64::from(limit) - rows.len() as i64);
        rows.extend(conn.rows::<Waiting>(&scheduled, &[left])?);
    }
    Ok(rows)
}

/// Takes waiting jobs out of ready and scheduled, each by its primary key.
pub(crate) fn move_out<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    to: &str,
    departure: Uuid,
    only: Option<&[JobId]>,
    limit: u32,
) -> QueryResult<Vec<MovingJob>> {
    let mut rows = match only {
        None => first_waiting::<E>(conn, limit)?,
        Some(only) => {
            let mut ids: Vec<_> = only.iter().map(|id| *id.as_uuid()).collect();
            // In the order of their keys, as everywhere, so that two movers wait rather than deadlock.
            ids.sort_unstable();
            ids.dedup();
            let mut rows = waiting_each::<E>(conn, &ids[..ids.len().min(limit as usize)])?;
            // After the locks: an order is stored before its job can wait again.
            let found: Vec<_> = rows.iter().map(|row| row.stand.id).collect();
            let ordered = Keyed::table("qudo_cancel");
            let ordered: Vec<Uuid> = E::rows_by_id(conn, "id", &ordered, &found, "")?;
            rows.retain(|row| !ordered.contains(&row.stand.id));
            rows
        }
    };
    let found = rows.len();
    let mut jobs = with_facts::<E>(conn, departure, &mut rows)?;
    if rows.is_empty() && found > 0 {
        // To go on would look as if nothing were left behind them.
        let message = format!(
            "{found} jobs have no facts and cannot be moved; `qudo audit --repair` removes them"
        );
        return Err(diesel::result::Error::QueryBuilderError(message.into()));
    }
    let taken = take::<E>(conn, &rows)?;
    let moving: Vec<_> =
        rows.iter().map(|row| (Place::from(&row.stand), row.run_after, departure)).collect();
    balance("move out", taken, mark::<E>(conn, Leg::Leaving, to, &moving)?)?;
    jobs.sort_unstable_by_key(|job| job.record.id);
    Ok(jobs)
}

/// The facts of waiting rows. A row without facts is passed over, since nobody could run it elsewhere
/// either.
///
/// Locking: the facts by id, after their waiting rows; on MySQL with a lock, so that a job is not left
/// behind because a view of the data does not show it yet.
fn with_facts<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    departure: Uuid,
    rows: &mut Vec<Waiting>,
) -> QueryResult<Vec<MovingJob>> {
    let ids: Vec<_> = rows.iter().map(|row| row.stand.id).collect();
    let columns = format!("id, enqueued_at, {FACTS}");
    let job = Keyed::table("qudo_job");
    let found: Vec<Record> = E::rows_by_id(conn, &columns, &job, &ids, E::CURRENT)?;
    let mut found: HashMap<_, _> =
        found.into_iter().map(|job| (*job.record.id.as_uuid(), job)).collect();
    let mut jobs = Vec::with_capacity(found.len());
    rows.retain(|Waiting { stand, run_after, .. }| {
        let Some(Record { record, enqueued_at }) = found.remove(&stand.id) else {
            log::error!(
                "job {} has no facts and stays where it is; `qudo audit --repair` removes it",
                stand.id
            );
            return false;
        };
        let record = JobRecord { due: due(*run_after), ..record };
        let Stand { attempt, crashes, flags, .. } = *stand;
        jobs.push(MovingJob { record, attempt, crashes, flags, enqueued_at, departure });
        true
    });
    Ok(jobs)
}

fn due(run_after: Option<i64>) -> Due {
    run_after.map_or(Due::Now, |at| Due::At(instant(at)))
}

/// The facts of a job.
pub(super) struct Record {
    pub(super) record: JobRecord,
    pub(super) enqueued_at: DateTime<Utc>,
}

impl FromRow for Record {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let id = JobId::from_uuid(columns.id()?);
        let enqueued_at = instant(columns.big()?);
        let facts = JobFacts::from_row(columns)?;
        Ok(Self { record: JobRecord { id, facts, due: Due::Now }, enqueued_at })
    }
}

/// Marks jobs, as far as they have no mark of this leg yet; returns how many it marked.
fn mark<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    leg: Leg,
    other: &str,
    jobs: &[(Place<'_>, Option<i64>, Uuid)],
) -> QueryResult<usize> {
    let rows: Vec<_> = jobs
        .iter()
        .map(|(place, run_after, departure)| {
            let mut binds = place.binds().to_vec();
            binds.extend([Bind::Text(leg.as_str()), Bind::Text(other), Bind::Id(departure)]);
            binds.push(Bind::OptBig(*run_after));
            binds
        })
        .collect();
    let (words, tail) = E::INSERT_IGNORE;
    let head = format!(
        "{words} INTO qudo_moving ({STAND}, leg, other, departure, run_after, moved_at) VALUES "
    );
    let row = format!("(?,?,?,?,?,?,?,?,?,?,?,{})", E::NOW);
    insert_rows(conn, &head, &row, &rows, tail)
}

/// Jobs that are leaving for a database, in the order of their ids.
pub(crate) fn moving_out<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    to: &str,
    after: &Uuid,
    limit: u32,
) -> QueryResult<Vec<MovingJob>> {
    let sql = format!(
        "{SELECT} WHERE m.leg = 'leaving' AND m.other = ? AND m.id > ? ORDER BY m.id LIMIT ?"
    );
    let binds = [Bind::Text(to), Bind::Id(after), Bind::Big(limit.into())];
    Ok(conn.rows::<Moving>(&sql, &binds)?.into_iter().map(|job| job.0).collect())
}

/// Stores arriving jobs. One that is here already stays as it is.
///
/// Locking: the mark first, each by its key and in the order of the ids. A job has one mark as arriving, so from then on nobody else brings a copy of
/// it or takes one back, until this commits; the answer that it is here makes the other database remove it. Only then it is looked
/// whether the job is leaving, and then whether there are facts: who has left before the one look has none at the other, so that "here and not
/// leaving" was true at one moment. Rejected: facts under a lock, for which an account that only empties its spool has no right; facts before the
/// mark of the arrival, which waited on MySQL for whoever brought another copy, and lost 30 jobs of 30.
pub(crate) fn move_in<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    from: &str,
    jobs: &[MovingJob],
) -> QueryResult<Vec<Arrival>> {
    let mut answers = vec![Arrival::Here; jobs.len()];
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_unstable_by_key(|at| jobs[*at].record.id);
    let (mut fresh, mut marked) = (Vec::new(), 0);
    for at in order {
        match mark_arriving::<E>(conn, from, &jobs[at])? {
            None => {
                marked += 1;
                fresh.push(at);
            }
            // Brought before: perhaps by another mover of the same departure.
            Some(other) if other == jobs[at].departure => {}
            Some(_) => answers[at] = Arrival::Busy,
        }
    }
    let ids: Vec<_> = fresh.iter().map(|at| *jobs[*at].record.id.as_uuid()).collect();
    let arrived = departures::<E>(conn, Leg::Arrived, &ids)?;
    let leaving = departures::<E>(conn, Leg::Leaving, &ids)?;
    let here: HashSet<Uuid> =
        E::rows_by_id::<Uuid>(conn, "id", &Keyed::table("qudo_job"), &ids, E::CURRENT)?
            .into_iter()
            .collect();
    let mut unused = Vec::new();
    fresh.retain(|at| {
        let one = jobs[*at].departed();
        let is_leaving = leaving.iter().any(|other| other.job == one.job);
        let is_here = arrived.contains(&one) || here.contains(one.job.as_uuid());
        if is_leaving {
            answers[*at] = Arrival::Busy;
        }
        if is_leaving || is_here {
            unused.push(*one.job.as_uuid());
        }
        !is_leaving && !is_here
    });
    let records: Vec<(usize, &JobRecord)> =
        fresh.iter().map(|at| (*at, &jobs[*at].record)).collect();
    let taken = take_keys::<E>(conn, &records)?;
    fresh.retain(|at| match taken.get(at) {
        Some(holder) => {
            answers[*at] = Arrival::KeyHeld(JobId::from_uuid(*holder));
            unused.push(*jobs[*at].record.id.as_uuid());
            false
        }
        None => true,
    });
    let mut stored = 0;
    for at in &fresh {
        // One by one: arguments may be large, and a move is not in a hurry.
        let record = &jobs[*at].record;
        let mut binds = vec![Bind::Id(record.id.as_uuid())];
        binds.extend(facts::binds(&record.facts));
        binds.push(Bind::Big(jobs[*at].enqueued_at.timestamp_micros()));
        let sql =
            format!("INSERT INTO qudo_job (id, {FACTS}, enqueued_at) VALUES (?,?,?,?,?,?,?,?,?)");
        stored += conn.run(&sql, &binds)?;
    }
    unused.sort_unstable();
    marked -= E::delete_by_id(conn, &at(Leg::Arriving), &unused)?;
    balance("move in", marked, stored)?;
    balance("move in", fresh.len(), stored)?;
    Ok(answers)
}

/// Marks a job as arriving, unless it is marked so already; tells by which departure then, under the lock of that mark.
fn mark_arriving<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    from: &str,
    job: &MovingJob,
) -> QueryResult<Option<Uuid>> {
    let run_after = match job.record.due {
        Due::At(at) => Some(at.timestamp_micros()),
        _ => None,
    };
    let (attempt, crashes) = (job.attempt, job.crashes);
    // Those of a driver that is not ours may not say what the facts do.
    let flags = job.flags.with(job.record.facts.flags());
    let place = Place { attempt, crashes, flags, ..place(&job.record) };
    let row = [(place, run_after, job.departure)];
    // A mark that is taken back between the insert and the look leaves room for ours.
    for _ in 0..2 {
        if mark::<E>(conn, Leg::Arriving, from, &row)? > 0 {
            return Ok(None);
        }
        let known = departures::<E>(conn, Leg::Arriving, &[*job.record.id.as_uuid()])?;
        if let Some(known) = known.first() {
            return Ok(Some(known.id));
        }
    }
    balance("move in", 1, 0).map(|()| None)
}

struct Key(String, Option<String>, Uuid);

impl FromRow for Key {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.text()?, columns.opt_text()?, columns.id()?))
    }
}

/// Removes facts and unique keys.
fn remove_facts<E: Engine>(conn: &mut Sql<'_, E::Conn>, ids: &[Uuid]) -> QueryResult<()> {
    let job = Keyed::table("qudo_job");
    let keys: Vec<Key> = E::rows_by_id(conn, "ability, uniqkey, id", &job, ids, "")?;
    let removed = E::delete_by_id(conn, &job, ids)?;
    if removed != ids.len() {
        // They were to go anyway.
        log::error!("{removed} of {} jobs that moved had facts", ids.len());
    }
    let held = keys.iter().filter_map(|Key(ability, uniqkey, id)| {
        Some(HeldKey { ability, uniqkey: uniqkey.as_deref()?, id })
    });
    free_keys::<E>(conn, held.collect())?;
    Ok(())
}

impl FromRow for Departure {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self { job: JobId::from_uuid(columns.id()?), id: columns.id()? })
    }
}

/// The departures of jobs on this leg, locked.
fn departures<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    leg: Leg,
    ids: &[Uuid],
) -> QueryResult<Vec<Departure>> {
    let mut ids = ids.to_vec();
    // In the order of their keys, as everywhere, so that two movers wait rather than deadlock.
    ids.sort_unstable();
    ids.dedup();
    E::rows_by_id(conn, "id, departure", &at(leg), &ids, E::FOR_UPDATE)
}

/// Those of these that are on this leg by their departure, locked.
fn marked<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    leg: Leg,
    jobs: &[Departure],
) -> QueryResult<Vec<Departure>> {
    let wanted: HashSet<_> = jobs.iter().collect();
    let mut marked = departures::<E>(conn, leg, &uuids(jobs))?;
    marked.retain(|one| wanted.contains(one));
    Ok(marked)
}

/// The rows of jobs on this leg.
pub(crate) const fn at(leg: Leg) -> Keyed<'static> {
    let only = match leg {
        Leg::Leaving => "leg = 'leaving'",
        Leg::Left => "leg = 'left'",
        Leg::Arriving => "leg = 'arriving'",
        Leg::Gone => "leg = 'gone'",
        Leg::Arrived => "leg = 'arrived'",
        Leg::Cancelled => "leg = 'cancelled'",
    };
    Keyed::table("qudo_moving").only(only, &[])
}

/// Changes the leg of rows that are locked; an older row of the new leg gives way.
fn change<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    from: Leg,
    to: Leg,
    ids: &[Uuid],
) -> QueryResult<()> {
    E::delete_by_id(conn, &at(to), ids)?;
    // A trail tells when the job went, however much later its move was ended.
    let when = if to == Leg::Gone { "moved_at" } else { E::NOW };
    let set = format!("leg = '{}', moved_at = {when}", to.as_str());
    balance("change the leg", ids.len(), E::update_by_id(conn, &set, &[], &at(from), ids)?)
}

/// Leaving → left, without facts. The row's lock decides between two movers, and its departure between one and another
/// who was overtaken.
pub(crate) fn moved_out<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    jobs: &[Departure],
) -> QueryResult<Vec<Departure>> {
    let leaving = uuids(&marked::<E>(conn, Leg::Leaving, jobs)?);
    change::<E>(conn, Leg::Leaving, Leg::Left, &leaving)?;
    remove_facts::<E>(conn, &leaving)?;
    marked::<E>(conn, Leg::Left, jobs)
}

/// Arriving or leaving → ready or scheduled. Returns those that were on this leg.
pub(crate) fn put_back<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    leg: Leg,
    jobs: &[Departure],
) -> QueryResult<Vec<Uuid>> {
    let found = uuids(&marked::<E>(conn, leg, jobs)?);
    let columns = columns_of_waiting::<E>();
    let rows: Vec<Waiting> = E::rows_by_id(conn, &columns, &at(leg), &found, E::FOR_UPDATE)?;
    if leg == Leg::Arriving {
        change::<E>(conn, Leg::Arriving, Leg::Arrived, &found)?;
    } else {
        balance("move back", found.len(), E::delete_by_id(conn, &at(Leg::Leaving), &found)?)?;
    }
    let (ready, scheduled): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.run_after.is_none());
    let ready: Vec<_> = ready.into_iter().map(|row| Place::from(&row.stand)).collect();
    let mut put = put_ready::<E>(conn, &ready)?;
    let scheduled: Vec<_> = scheduled
        .into_iter()
        .map(|row| (Place::from(&row.stand), RunAfter::at(row.run_after.unwrap_or_default())))
        .collect();
    put += put_scheduled::<E>(conn, &scheduled)?;
    balance("end a move", found.len(), put)?;
    Ok(found)
}

/// Left → gone.
pub(crate) fn leave_trail<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    jobs: &[Departure],
) -> QueryResult<()> {
    let left = uuids(&marked::<E>(conn, Leg::Left, jobs)?);
    change::<E>(conn, Leg::Left, Leg::Gone, &left)
}

struct Step {
    leg: String,
    other: String,
    age: i64,
}

impl FromRow for Step {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self { leg: columns.text()?, other: columns.text()?, age: columns.big()? })
    }
}

/// The last move of a job, from here or back to here. Of two at one time the one away from here counts: `left` and `gone`
/// sort behind `arrived`. A copy that was taken back says less than any of them, and nothing of the job's life.
pub(crate) fn trail<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    job: &Uuid,
) -> QueryResult<Option<Trail>> {
    let sql = format!(
        "SELECT leg, other, (SELECT {}) - moved_at FROM qudo_moving WHERE id = ? \
         AND leg IN ('left', 'gone', 'arrived', 'cancelled') \
         ORDER BY CASE WHEN leg = 'cancelled' THEN 1 ELSE 0 END, moved_at DESC, leg DESC LIMIT 1",
        E::NOW
    );
    let last = conn.row::<Step>(&sql, &[Bind::Id(job)])?;
    Ok(last.map(|Step { leg, other, age }| {
        let age = Duration::from_micros(u64::try_from(age).unwrap_or(0));
        let is_known = leg != Leg::Cancelled.as_str();
        let to = (leg != Leg::Arrived.as_str()).then_some(other);
        Trail { to, age: is_known.then_some(age) }
    }))
}

/// Which of these jobs are leaving or left, and by which departure.
pub(crate) fn legs<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    jobs: &[JobId],
) -> QueryResult<Vec<(Departure, Leg)>> {
    let ids: Vec<_> = jobs.iter().map(|id| *id.as_uuid()).collect();
    let mut legs = Vec::new();
    for leg in [Leg::Leaving, Leg::Left] {
        let marked: Vec<Departure> = E::rows_by_id(conn, "id, departure", &at(leg), &ids, "")?;
        legs.extend(marked.into_iter().map(|one| (one, leg)));
    }
    Ok(legs)
}

/// Jobs of one leg with their departures, in the order of their ids: a range of an index.
pub(crate) fn of_leg<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    leg: Leg,
    other: &str,
    after: &Uuid,
    limit: u32,
) -> QueryResult<Vec<Departure>> {
    let sql = format!(
        "SELECT id, departure FROM qudo_moving WHERE leg = '{}' AND other = ? AND id > ? ORDER BY id \
         LIMIT ?",
        leg.as_str()
    );
    conn.rows(&sql, &[Bind::Text(other), Bind::Id(after), Bind::Big(limit.into())])
}

/// Removes what was brought and nobody can claim yet. A trail leads back, so that a ticket that saw the copy finds the job; it is
/// dated now, so that it is kept for a whole `keep_replies`.
pub(crate) fn cancel<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    jobs: &[Departure],
) -> QueryResult<usize> {
    let ids = uuids(&marked::<E>(conn, Leg::Arriving, jobs)?);
    change::<E>(conn, Leg::Arriving, Leg::Cancelled, &ids)?;
    remove_facts::<E>(conn, &ids)?;
    Ok(ids.len())
}
