//! Puts right what lies under one id.

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{Ending, Flags};
use qudo_hooks::{FailureKind, JobId};
use uuid::Uuid;

use super::audit::{Trace, assemble, trace_rows};
use super::exception::{NewException, log_exceptions};
use super::keys::{free_keys, take_key};
use super::ledger::balance;
use super::moving::trail;
use super::trace::write_tombstones;
use super::{Place, RunAfter, STAND, Since, Stand, put_ready, put_scheduled};
use crate::bulk::Keyed;
use crate::engine::Engine;
use crate::held_key::HeldKey;
use crate::sql::{Bind, Columns, FromRow, Sql};

struct Facts {
    queue: String,
    ability: String,
    rank: i32,
    uniqkey: Option<String>,
}

impl FromRow for Facts {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let (queue, ability, rank) = (columns.text()?, columns.text()?, -columns.int()?);
        Ok(Self { queue, ability, rank, uniqkey: columns.opt_text()? })
    }
}

impl Facts {
    fn flags(&self) -> Flags {
        if self.uniqkey.is_some() { Flags::KEYED } else { Flags::NONE }
    }

    /// Where such a job is filed that these rows were found of: what was counted anywhere is not forgotten, nor a
    /// flag that this program does not know.
    fn place<'a>(&'a self, id: &'a Uuid, rows: &[Row], attempt: i32) -> Place<'a> {
        let (queue, ability) = (&*self.queue, &*self.ability);
        let crashes = rows.iter().map(|row| row.stand.crashes).max().unwrap_or_default();
        let flags = rows.iter().fold(self.flags(), |all, row| all.with(row.stand.flags));
        let (claim_rank, since) = (self.rank, Since::Now);
        Place { id, queue, claim_rank, ability, attempt, crashes, flags, since }
    }
}

/// In which narrow table a row lies, in the order in which one of several is kept: that of a job at work
/// or on its way stays, because somebody has it in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    Leased,
    Leaving,
    Ready,
    Scheduled,
    /// After those that can be run: a move that is begun anew removes what it did not bring.
    Arriving,
    /// A lease whose worker has no row.
    Ownerless,
}

/// A row of a narrow table, locked.
struct Row {
    at: At,
    stand: Stand,
    run_after: Option<i64>,
}

impl Row {
    fn is_filed_as(&self, facts: &Facts) -> bool {
        let Stand { queue, claim_rank, ability, flags, .. } = &self.stand;
        (queue, *claim_rank, ability) == (&facts.queue, facts.rank, &facts.ability)
            && flags.contains(facts.flags())
    }
}

/// A narrow row with a time, where its table has one.
struct Timed(Stand, Option<i64>);

impl FromRow for Timed {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(Stand::from_row(columns)?, columns.opt_big()?))
    }
}

/// Puts right what lies under an id. Inside a transaction.
///
/// Locking: lease, scheduled and moving by id, then the facts, in the order of all others. Whoever else
/// moves this job holds one of these rows, and is waited for; what is acted upon is read under their
/// locks, not what an audit saw before. Ready rows come last, since their keys are only found by
/// reading the table: a claim that holds one is waited for too, and if it waits for us meanwhile the
/// server ends one of the two. If the view of the data shows other rows than the locks do, this is
/// rolled back and repeated.
pub(crate) fn mend<E: Engine>(conn: &mut Sql<'_, E::Conn>, id: JobId) -> QueryResult<bool> {
    let uuid = *id.as_uuid();
    let mut places = by_id::<E>(conn, &uuid)?;
    let facts = format!(
        "SELECT queue, ability, priority, uniqkey FROM qudo_job WHERE id = ?{}",
        E::FOR_UPDATE
    );
    let facts: Option<Facts> = conn.row(&facts, &[Bind::Id(&uuid)])?;
    let seen = trace_rows::<E>(conn, &[uuid])?;
    let narrow = |row: &&Trace| (2..=6).contains(&row.what);
    balance("mend what is locked", places.len(), seen.iter().filter(narrow).count())?;
    let has_facts = seen.iter().filter(|row| row.what == 0).count();
    balance("mend facts", usize::from(facts.is_some()), has_facts)?;
    // The view shows whether the lease's worker has a row.
    if seen.iter().any(|row| row.what == 3) {
        let leases = places.iter_mut().filter(|row| row.at == At::Ownerless);
        leases.for_each(|row| row.at = At::Leased);
    }
    for row in seen.iter().filter(|row| row.what == 1) {
        places.push(ready::<E>(conn, row)?);
    }
    let keys = mend_keys::<E>(conn, &uuid, &seen, facts.as_ref())?;
    let moved = match &facts {
        Some(facts) => mend_places::<E>(conn, &uuid, facts, places)?,
        None => remove_all::<E>(conn, &uuid, &places)?,
    };
    Ok(keys || moved)
}

/// The rows of the narrow tables that are found by id, locked.
fn by_id<E: Engine>(conn: &mut Sql<'_, E::Conn>, id: &Uuid) -> QueryResult<Vec<Row>> {
    let none = format!("{STAND}, CAST(NULL AS {})", E::BIG);
    let timed = format!("{STAND}, run_after");
    let moving = |leg| Keyed::table("qudo_moving").only(leg, &[]);
    let mut rows = Vec::new();
    for (at, columns, keyed) in [
        (At::Ownerless, &none, Keyed::table("qudo_lease")),
        (At::Scheduled, &timed, Keyed::table("qudo_scheduled")),
        (At::Leaving, &timed, moving("leg = 'leaving'")),
        (At::Arriving, &timed, moving("leg = 'arriving'")),
    ] {
        let ids = std::slice::from_ref(id);
        let found: Vec<Timed> = E::rows_by_id(conn, columns, &keyed, ids, E::FOR_UPDATE)?;
        rows.extend(found.into_iter().map(|Timed(stand, run_after)| Row { at, stand, run_after }));
    }
    Ok(rows)
}

/// A ready row that a view of the data shows, locked by its key.
fn ready<E: Engine>(conn: &mut Sql<'_, E::Conn>, row: &Trace) -> QueryResult<Row> {
    let sql = format!(
        "SELECT {STAND} FROM qudo_ready WHERE queue = ? AND claim_rank = ? AND id = ?{}",
        E::FOR_UPDATE
    );
    let key = [Bind::Text(&row.queue), Bind::Int(row.rank as i32), Bind::Id(&row.id)];
    let stand = conn.row::<Stand>(&sql, &key)?;
    balance("mend what is ready", usize::from(stand.is_some()), 1)?;
    let stand = stand.ok_or(diesel::result::Error::NotFound)?;
    Ok(Row { at: At::Ready, stand, run_after: None })
}

fn mend_keys<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    id: &Uuid,
    seen: &[Trace],
    facts: Option<&Facts>,
) -> QueryResult<bool> {
    let traces = assemble(JobId::from_uuid(*id), seen);
    let mut changed = false;
    for (ability, key) in &traces.keys {
        let own = facts
            .is_some_and(|facts| facts.ability == *ability && facts.uniqkey.as_ref() == Some(key));
        if !own {
            changed |= free_keys::<E>(conn, vec![HeldKey { ability, uniqkey: key, id }])? > 0;
        }
    }
    if let Some(Facts { ability, uniqkey: Some(key), .. }) = facts
        && traces.holder.is_none()
    {
        changed |= take_key::<E>(conn, ability, key, id)?;
    }
    Ok(changed)
}

/// Removes what belongs to no facts.
fn remove_all<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    id: &Uuid,
    places: &[Row],
) -> QueryResult<bool> {
    let Some(first) = places.first() else { return Ok(false) };
    for row in places {
        remove::<E>(conn, row)?;
    }
    let message = "its facts are missing; an audit removed what was left of it";
    note::<E>(conn, &Place { id, ..Place::from(&first.stand) }, message)?;
    // A job that went to another database lives there; a job that came here by a move does not.
    if trail::<E>(conn, id)?.is_none_or(|trail| trail.to.is_none()) {
        write_tombstones::<E>(conn, std::slice::from_ref(id), Ending::Removed)?;
    }
    Ok(true)
}

/// Leaves a job in one place, filed as its facts say.
fn mend_places<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    id: &Uuid,
    facts: &Facts,
    mut places: Vec<Row>,
) -> QueryResult<bool> {
    places.sort_by_key(|row| (row.at, !row.is_filed_as(facts)));
    let is_sound = |row: &Row| row.at != At::Ownerless && row.is_filed_as(facts);
    if matches!(&places[..], [one] if is_sound(one)) {
        return Ok(false);
    }
    let attempt = places.iter().map(|row| row.stand.attempt).max();
    let attempt = attempt.map_or_else(|| attempts::<E>(conn, id), Ok)?;
    let place = facts.place(id, &places, attempt);
    for row in places.iter().skip(1) {
        remove::<E>(conn, row)?;
    }
    let message = match places.first() {
        None => {
            balance("mend", 1, put_ready::<E>(conn, &[place])?)?;
            "it was in no table that it could be run from; an audit made it ready"
        }
        Some(kept) => {
            if !is_sound(kept) || kept.stand.flags != place.flags {
                refile::<E>(conn, kept, facts.place(id, &places, attempt))?;
            }
            if places.len() > 1 {
                "it was in several tables at once; an audit left it in one"
            } else if kept.at == At::Ownerless {
                "it was leased by a worker that is not there; an audit made it ready"
            } else {
                "it was filed otherwise than its facts say; an audit put that right"
            }
        }
    };
    note::<E>(conn, &facts.place(id, &places, attempt), message)?;
    Ok(true)
}

/// Files a row as the facts say. What somebody has in hand is changed where it is.
fn refile<E: Engine>(conn: &mut Sql<'_, E::Conn>, row: &Row, place: Place<'_>) -> QueryResult<()> {
    let table = match row.at {
        At::Leased => "qudo_lease",
        At::Leaving | At::Arriving => "qudo_moving",
        At::Ready | At::Scheduled | At::Ownerless => {
            remove::<E>(conn, row)?;
            let put = match (row.at, row.run_after) {
                (At::Scheduled, Some(at)) => {
                    put_scheduled::<E>(conn, &[(place, RunAfter::at(at))])?
                }
                (At::Ownerless, _) => {
                    let crashes = place.crashes + 1;
                    put_ready::<E>(conn, &[Place { crashes, ..place }])?
                }
                _ => put_ready::<E>(conn, &[place])?,
            };
            return balance("mend a row", 1, put);
        }
    };
    let leg = match row.at {
        At::Leaving => " AND leg = 'leaving'",
        At::Arriving => " AND leg = 'arriving'",
        _ => "",
    };
    let sql = format!(
        "UPDATE {table} SET queue = ?, claim_rank = ?, ability = ?, flags = ? WHERE id = ?{leg}"
    );
    let (queue, ability) = (Bind::Text(place.queue), Bind::Text(place.ability));
    let (rank, flags) = (Bind::Int(place.claim_rank), Bind::Int(place.flags.bits()));
    let binds = [queue, rank, ability, flags, Bind::Id(place.id)];
    balance("mend in place", 1, conn.run(&sql, &binds)?)
}

/// Removes a row that is locked.
fn remove<E: Engine>(conn: &mut Sql<'_, E::Conn>, row: &Row) -> QueryResult<()> {
    let Stand { id, queue, claim_rank, .. } = &row.stand;
    let (rows, mut binds) = match row.at {
        At::Ready => (
            "qudo_ready WHERE queue = ? AND claim_rank = ? AND id = ?",
            vec![Bind::Text(queue), Bind::Int(*claim_rank)],
        ),
        At::Scheduled => ("qudo_scheduled WHERE id = ?", vec![]),
        At::Leased | At::Ownerless => ("qudo_lease WHERE id = ?", vec![]),
        At::Leaving => ("qudo_moving WHERE leg = 'leaving' AND id = ?", vec![]),
        At::Arriving => ("qudo_moving WHERE leg = 'arriving' AND id = ?", vec![]),
    };
    binds.push(Bind::Id(id));
    balance("mend by removing", 1, conn.run(&format!("DELETE FROM {rows}"), &binds)?)
}

struct Attempt(i32);

impl FromRow for Attempt {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.int()?))
    }
}

/// How often the job ran, as far as its failures tell.
fn attempts<E: Engine>(conn: &mut Sql<'_, E::Conn>, id: &Uuid) -> QueryResult<i32> {
    let sql = "SELECT attempt FROM qudo_exception_log WHERE job_id = ? ORDER BY id DESC LIMIT 1";
    Ok(conn.row::<Attempt>(sql, &[Bind::Id(id)])?.map_or(0, |attempt| attempt.0))
}

fn note<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    place: &Place<'_>,
    message: &str,
) -> QueryResult<()> {
    let exception = NewException {
        id: &Uuid::now_v7(),
        job: place.id,
        ability: place.ability,
        queue: place.queue,
        worker: &Uuid::nil(),
        worker_name: None,
        version: None,
        attempt: place.attempt,
        kind: FailureKind::Crash.as_str(),
        class: None,
        message,
        discarded: false,
        uniqkey: None,
        priority: -place.claim_rank,
        codec: None,
        arg: None,
        meta: None,
    };
    log_exceptions::<E>(conn, &[exception])
}
