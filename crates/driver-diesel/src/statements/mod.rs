//! The statements that all engines share, one function each, named after its effect.
//!
//! They are plain SQL that the three engines read alike; what differs (the clock, the locking
//! words) comes from [`Engine`](crate::engine::Engine). Lock order, everywhere: lease before ready
//! or scheduled before job before unique, and an operation before all of them; rows of one table in the order of their keys.

pub(crate) mod act;
pub(crate) mod audit;
pub(crate) mod cancel;
pub(crate) mod control;
pub(crate) mod exception;
pub(crate) mod facts;
pub(crate) mod heads;
pub(crate) mod insert;
pub(crate) mod interim;
pub(crate) mod keys;
pub(crate) mod ledger;
pub(crate) mod lookup;
pub(crate) mod mend;
pub(crate) mod moving;
pub(crate) mod operation;
pub(crate) mod scan;
pub(crate) mod schedule;
pub(crate) mod settle;
pub(crate) mod single;
pub(crate) mod stat;
pub(crate) mod trace;
mod waiting;
pub(crate) mod worker;

use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{Due, Flags};
use uuid::Uuid;

pub(crate) use insert::place;

use crate::bulk::insert_rows;
use crate::engine::{Engine, micros};
use crate::sql::{Bind, Columns, FromRow, Sql};

/// A job's row in one of the narrow tables: where it is in the order of the claim, and its runs.
#[derive(Debug, Clone)]
pub(crate) struct Stand {
    pub(crate) id: Uuid,
    pub(crate) queue: String,
    pub(crate) claim_rank: i32,
    pub(crate) ability: String,
    pub(crate) attempt: i32,
    pub(crate) crashes: i32,
    pub(crate) flags: Flags,
}

/// The columns of a [`Stand`], in the order in which it is read.
pub(crate) const STAND: &str = "id, queue, claim_rank, ability, attempt, crashes, flags";

impl FromRow for Stand {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self {
            id: columns.id()?,
            queue: columns.text()?,
            claim_rank: columns.int()?,
            ability: columns.text()?,
            attempt: columns.int()?,
            crashes: columns.int()?,
            flags: Flags::from_bits(columns.int()?),
        })
    }
}

/// One row to be put into ready or scheduled.
pub(crate) struct Place<'a> {
    pub(crate) id: &'a Uuid,
    pub(crate) queue: &'a str,
    pub(crate) claim_rank: i32,
    pub(crate) ability: &'a str,
    pub(crate) attempt: i32,
    pub(crate) crashes: i32,
    pub(crate) flags: Flags,
    pub(crate) since: Since,
}

/// The column `ready_at` as it is written: since when a job is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// Since it was enqueued, which its facts say. Written as NULL, so that new jobs cost nothing more.
    Enqueue,
    /// From now on: it runs again, or was put back.
    Now,
    /// This time, in microseconds since 1970.
    At(i64),
}

impl Since {
    /// As it was read.
    pub(crate) fn stored(ready_at: Option<i64>) -> Self {
        ready_at.map_or(Self::Enqueue, Self::At)
    }

    /// A time, and how long after the server's now, for `COALESCE(?, now + ?)`.
    fn binds<'b>(self) -> [Bind<'b>; 2] {
        match self {
            Self::Enqueue => [Bind::OptBig(None), Bind::OptBig(None)],
            Self::Now => [Bind::OptBig(None), Bind::OptBig(Some(0))],
            Self::At(micros) => [Bind::OptBig(Some(micros)), Bind::OptBig(None)],
        }
    }
}

/// A job that was somewhere else before.
impl<'a> From<&'a Stand> for Place<'a> {
    fn from(stand: &'a Stand) -> Self {
        Self {
            id: &stand.id,
            queue: &stand.queue,
            claim_rank: stand.claim_rank,
            ability: &stand.ability,
            attempt: stand.attempt,
            crashes: stand.crashes,
            flags: stand.flags,
            since: Since::Now,
        }
    }
}

impl<'a> Place<'a> {
    fn is_new_and_plain(&self) -> bool {
        self.is_new() && self.flags.is_empty()
    }

    fn is_new(&self) -> bool {
        self.attempt == 0 && self.crashes == 0 && self.since == Since::Enqueue
    }

    fn binds(&self) -> [Bind<'a>; 7] {
        [
            Bind::Id(self.id),
            Bind::Text(self.queue),
            Bind::Int(self.claim_rank),
            Bind::Text(self.ability),
            Bind::Int(self.attempt),
            Bind::Int(self.crashes),
            Bind::Int(self.flags.bits()),
        ]
    }
}

/// Makes jobs ready. The ids are in no narrow table, so nothing is waited for.
///
/// Returns how many rows it put, which the caller compares with what it took.
pub(crate) fn put_ready<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    places: &[Place<'_>],
) -> QueryResult<usize> {
    let head = format!("INSERT INTO qudo_ready ({STAND}) VALUES ");
    // Most jobs that become ready are new and have no flags: numbers in the text are cheaper than binds.
    if places.iter().all(Place::is_new_and_plain) {
        let rows = places.iter().map(|place| {
            let [id, queue, claim_rank, ability, ..] = place.binds();
            [id, queue, claim_rank, ability]
        });
        let rows: Vec<_> = rows.collect();
        return insert_rows(conn, &head, "(?,?,?,?,0,0,0)", &rows, "");
    }
    if places.iter().all(Place::is_new) {
        let rows: Vec<_> = places.iter().map(Place::binds).collect();
        return insert_rows(conn, &head, "(?,?,?,?,?,?,?)", &rows, "");
    }
    let rows: Vec<_> = places
        .iter()
        .map(|place| {
            let [id, queue, claim_rank, ability, attempt, crashes, flags] = place.binds();
            let [at, after] = place.since.binds();
            [id, queue, claim_rank, ability, attempt, crashes, flags, at, after]
        })
        .collect();
    let head = format!("INSERT INTO qudo_ready ({STAND}, ready_at) VALUES ");
    let row = format!("(?,?,?,?,?,?,?,COALESCE(?, {} + ?))", E::NOW);
    insert_rows(conn, &head, &row, &rows, "")
}

/// The column `run_after` as it is written: this time, or so long after the server's now; both in microseconds.
#[derive(Clone, Copy)]
pub(crate) struct RunAfter {
    at: Option<i64>,
    after: i64,
}

impl RunAfter {
    /// This time, in microseconds since 1970.
    pub(crate) const fn at(micros: i64) -> Self {
        Self { at: Some(micros), after: 0 }
    }

    /// So many microseconds after the server's now.
    pub(crate) const fn after(micros: i64) -> Self {
        Self { at: None, after: micros }
    }
}

impl From<Due> for RunAfter {
    fn from(due: Due) -> Self {
        match due {
            Due::Now => Self::after(0),
            Due::At(at) => Self::at(at.timestamp_micros()),
            Due::In(span) => Self::after(micros(span)),
        }
    }
}

/// Schedules jobs. The ids are in no narrow table, so nothing is waited for. Returns how many rows it
/// put.
pub(crate) fn put_scheduled<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    places: &[(Place<'_>, RunAfter)],
) -> QueryResult<usize> {
    let rows: Vec<_> = places
        .iter()
        .map(|(place, RunAfter { at, after })| {
            let [id, queue, claim_rank, ability, attempt, crashes, flags] = place.binds();
            let (at, after) = (Bind::OptBig(*at), Bind::Big(*after));
            [id, queue, claim_rank, ability, attempt, crashes, flags, at, after]
        })
        .collect();
    let head = format!("INSERT INTO qudo_scheduled ({STAND}, run_after) VALUES ");
    let row = format!("(?,?,?,?,?,?,?,COALESCE(?, {} + ?))", E::NOW);
    insert_rows(conn, &head, &row, &rows, "")
}
