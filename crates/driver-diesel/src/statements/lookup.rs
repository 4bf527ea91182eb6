use chrono::{DateTime, Utc};
use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{CountRow, JobFacts, JobInfo, JobState, WorkerId};
use qudo_hooks::JobId;
use uuid::Uuid;

use super::facts::FACTS_OF_J;
use crate::bulk::rows_in;
use crate::engine::Engine;
use crate::sql::{Bind, Columns, FromRow, Sql};

/// A stored time: microseconds since 1970, UTC.
pub(crate) fn instant(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Where a job stands: the three narrow tables, joined by their keys. One statement, so that a
/// job on its way from one to the next is seen in exactly one of them.
const PLACES: &str = "FROM qudo_job j \
    LEFT JOIN qudo_ready r ON r.queue = j.queue AND r.claim_rank = -j.priority AND r.id = j.id \
    LEFT JOIN qudo_scheduled s ON s.id = j.id \
    LEFT JOIN qudo_lease l ON l.id = j.id \
    LEFT JOIN qudo_moving m ON m.id = j.id AND m.leg IN ('leaving', 'arriving')";

const STATE: &str =
    "r.attempt, s.run_after, s.attempt, l.worker, l.leased_until, l.attempt, m.attempt";

struct State(JobState, i32);

impl FromRow for State {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        // Every column may be NULL; they are read in order all the same.
        let ready = columns.opt_big()?;
        let (run_after, scheduled) = (columns.opt_big()?, columns.opt_big()?);
        let worker = columns.opt_id()?;
        let (until, running) = (columns.opt_big()?, columns.opt_big()?);
        let moving = columns.opt_big()?;
        let attempt = |count: Option<i64>| count.unwrap_or_default() as i32;
        Ok(match (run_after, worker) {
            (_, Some(worker)) => Self(
                JobState::Running {
                    worker: WorkerId::from_uuid(worker),
                    until: instant(until.unwrap_or_default()),
                },
                attempt(running),
            ),
            (Some(at), None) => {
                Self(JobState::Scheduled { run_after: instant(at) }, attempt(scheduled))
            }
            (None, None) if moving.is_some() => Self(JobState::Moving, attempt(moving)),
            (None, None) => Self(JobState::Ready, attempt(ready)),
        })
    }
}

/// Attempts are 32 bits wide in the tables but read as 64: the joins make them nullable, and one
/// reader for nullable integers is enough.
fn state_columns() -> String {
    STATE
        .replace("r.attempt", "CAST(r.attempt AS {big})")
        .replace("s.attempt", "CAST(s.attempt AS {big})")
        .replace("l.attempt", "CAST(l.attempt AS {big})")
        .replace("m.attempt", "CAST(m.attempt AS {big})")
}

/// Where a live job stands.
pub(crate) fn state<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    id: &Uuid,
) -> QueryResult<Option<JobState>> {
    let columns = state_columns().replace("{big}", E::BIG);
    let sql = format!("SELECT {columns} {PLACES} WHERE j.id = ?");
    Ok(conn.row::<State>(&sql, &[Bind::Id(id)])?.map(|state| state.0))
}

struct Info(JobInfo);

impl FromRow for Info {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let id = JobId::from_uuid(columns.id()?);
        let enqueued_at = instant(columns.big()?);
        let facts = JobFacts::from_row(columns)?;
        let State(state, attempt) = State::from_row(columns)?;
        Ok(Self(JobInfo::new(id, facts, attempt.unsigned_abs(), enqueued_at, state)))
    }
}

fn info_sql<E: Engine>() -> String {
    let state = state_columns().replace("{big}", E::BIG);
    format!("SELECT j.id, j.enqueued_at, {FACTS_OF_J}, {state} {PLACES}")
}

/// A live job.
pub(crate) fn lookup<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    id: &Uuid,
) -> QueryResult<Option<JobInfo>> {
    let sql = format!("{} WHERE j.id = ?", info_sql::<E>());
    Ok(conn.row::<Info>(&sql, &[Bind::Id(id)])?.map(|info| info.0))
}

/// Those of these jobs that live; without their arguments if they are not wanted.
pub(crate) fn jobs<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    ids: &[Uuid],
    args: bool,
) -> QueryResult<Vec<JobInfo>> {
    let select = info_sql::<E>();
    // Of the type of the column, and not read.
    let select =
        if args { select } else { select.replace("j.arg", "CASE WHEN 1 = 0 THEN j.arg END") };
    let rows: Vec<Info> = rows_in(conn, &format!("{select} WHERE j.id IN"), &[], ids, "")?;
    Ok(rows.into_iter().map(|info| info.0).collect())
}

struct Count(String, String, i64);

impl FromRow for Count {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.text()?, columns.text()?, columns.big()?))
    }
}

/// Counts live jobs in the narrow tables; the wide one is not read.
pub(crate) fn count<E: Engine>(conn: &mut Sql<'_, E::Conn>) -> QueryResult<Vec<CountRow>> {
    let mut counts = Vec::new();
    for (table, state) in [
        ("qudo_ready", "ready"),
        ("qudo_scheduled", "scheduled"),
        ("qudo_lease", "running"),
        ("qudo_moving WHERE leg IN ('leaving', 'arriving')", "moving"),
    ] {
        let sql = format!(
            "SELECT queue, ability, COUNT(*) FROM {table} GROUP BY queue, ability \
             ORDER BY queue, ability"
        );
        let rows: Vec<Count> = conn.rows(&sql, &[])?;
        counts.extend(rows.into_iter().map(|Count(queue, ability, count)| {
            CountRow::new(queue, ability, state, count.unsigned_abs())
        }));
    }
    Ok(counts)
}

/// The live job that holds a unique key.
pub(crate) fn holder<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    ability: &str,
    uniqkey: &str,
) -> QueryResult<Option<Uuid>> {
    conn.row(
        "SELECT id FROM qudo_unique WHERE ability = ? AND uniqkey = ?",
        &[Bind::Text(ability), Bind::Text(uniqkey)],
    )
}

/// Jobs that are ready and leased at once. Reads the leases through, which are few.
pub(crate) fn leased_and_ready<E: Engine>(conn: &mut Sql<'_, E::Conn>) -> QueryResult<Vec<Uuid>> {
    let sql = "SELECT l.id FROM qudo_lease l JOIN qudo_ready r ON r.queue = l.queue \
               AND r.claim_rank = l.claim_rank AND r.id = l.id LIMIT 2000";
    conn.rows(sql, &[])
}
