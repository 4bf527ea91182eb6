use std::collections::HashMap;
use std::time::Instant;

use diesel::MysqlConnection;
use diesel::deserialize;
use diesel::result::QueryResult;
use qudo_core::driver::{ClaimRequest, ClaimedJob, DriverError};
use uuid::Uuid;

use super::list::{NUMBERED, numbered_json};
use super::{Mysql, NOW};
use crate::bulk::Keyed;
use crate::claimed::{FACTS, FactsRow, READY, ReadyRow, claimed};
use crate::classify::{Class, classify};
use crate::clock::Window;
use crate::engine::{Engine, claim_filter, micros};
use crate::plan::{Found, Look, Patience, Place, Plan, Span};
use crate::sql::{Bind, Columns, FromRow, Sql};
use crate::statements::ledger::{Orphans, balance};
use crate::statements::worker::give_back;

/// Leases ready jobs of a queue in one transaction: select, insert and delete by key, read facts.
///
/// Locking: rows of ready are locked in key order with SKIP LOCKED, under READ COMMITTED, so no
/// gaps are locked and nothing is waited for; the rest goes by primary keys that nobody else
/// touches. What goes into lease is what the locking read answered: a second read would look at a
/// view of the data that may not show a row which was locked a moment before. Deadlocks, which
/// MariaDB raises all the same, and claims that a cluster refuses at their commit are repeated by
/// the pool.
pub(super) fn claim(
    engine: &Mysql,
    request: &ClaimRequest<'_>,
    window: &Window,
    without: &[Uuid],
) -> Result<Vec<ClaimedJob>, DriverError> {
    let plan = engine.cursors.plan(request.queue, request.thorough);
    let noted_now = || Noted { now: engine.clock.now(), ..Noted::default() };
    let (mut noted, mut tries, mut committed) = (noted_now(), 0, false);
    let jobs = engine.write(|conn| {
        tries += 1;
        let in_cluster = engine.server.is_in_cluster();
        if committed {
            // The commit before may stand although the look at it failed: nobody would run its jobs.
            conn.transaction(|conn| {
                give_back::<Mysql>(conn, request.worker.as_uuid(), Some(request.claim))
            })?;
            committed = false;
        }
        // Where the start is dear it is not looked at.
        let meets_others = in_cluster && tries > 1 && !engine.cursors.are_dear(&[request.queue]);
        let place = if meets_others { elsewhere(conn, request, tries)? } else { None };
        // The fewer rows, the less likely is it that another node wants one of them at the same time.
        let limit = if in_cluster { request.limit >> (tries / 2).min(31) } else { request.limit };
        let request = &ClaimRequest { limit: limit.max(1), ..*request };
        let jobs = Mysql::transaction_within(conn, window, |conn| {
            noted = noted_now();
            let (filter, abilities) = claim_filter(request.abilities, without);
            if let Some(place) = place {
                let rows = lock_behind(conn, request, place, &filter, &abilities)?;
                if !rows.is_empty() {
                    return lease(engine, conn, request, rows, in_cluster);
                }
            }
            let rows = lock_ready(conn, request, &plan, (&filter, &abilities), &mut noted)?;
            lease(engine, conn, request, rows, in_cluster)
        })?;
        committed = true;
        confirm(engine, conn, request, &jobs)?;
        Ok(jobs)
    });
    // The commit of the last try may stand too; an ambiguous claim is released by the caller.
    let jobs = jobs.map_err(|error| if committed { error.ambiguous(true) } else { error });
    let failed = jobs.is_err();
    // Also when it failed, as it does when the looks took too long: the next one is to look elsewhere.
    if failed || !noted.looks.is_empty() {
        let found = Found {
            plan: &plan,
            looks: &noted.looks,
            rows: &noted.places,
            full: noted.full,
            failed,
            now: noted.now,
            round_trip: engine.clock.round_trip(),
            ends_looks: engine.ends_looks(),
        };
        engine.cursors.note(request.queue, &found);
    }
    jobs
}

/// A place somewhere near the start of the queue. Nodes of a cluster do not see each other's locks, so
/// claims of two nodes meet at the same rows, and one of them loses at its commit; when it is
/// repeated it leaves the start to the other.
fn elsewhere(
    conn: &mut Sql<'_, MysqlConnection>,
    request: &ClaimRequest<'_>,
    tries: u32,
) -> QueryResult<Option<Place>> {
    let spread = i64::from(request.limit).saturating_mul(2 << tries.min(6)).min(2_000);
    // Of a short queue all is near: beyond its end nothing would be found, and the claim be back at the
    // start.
    let sql = "SELECT CAST(COUNT(*) AS SIGNED) FROM (SELECT 1 FROM qudo_ready FORCE INDEX (PRIMARY) \
               WHERE queue = ? LIMIT ?) near";
    let near = conn.row::<i64>(sql, &[Bind::Text(request.queue), Bind::Big(spread)])?;
    let Some(near) = near.filter(|near| *near > 0) else { return Ok(None) };
    let sql = "SELECT claim_rank, id FROM qudo_ready FORCE INDEX (PRIMARY) WHERE queue = ? \
               ORDER BY claim_rank, id LIMIT 1 OFFSET ?";
    let binds = [Bind::Text(request.queue), Bind::Big(fastrand::i64(0..near))];
    Ok(conn.row::<Start>(sql, &binds)?.map(|start| start.0))
}

struct Start(Place);

impl FromRow for Start {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self((columns.int()?, columns.id()?)))
    }
}

/// Checks after the commit that the leases are ours; a claim of which nothing is there is repeated.
fn confirm(
    engine: &Mysql,
    conn: &mut Sql<'_, MysqlConnection>,
    request: &ClaimRequest<'_>,
    jobs: &[ClaimedJob],
) -> QueryResult<()> {
    let binds = [Bind::Id(request.worker.as_uuid()), Bind::Big(request.claim)];
    let ours = Keyed::table("qudo_lease").only("worker = ? AND claim = ?", &binds);
    let ids: Vec<_> = jobs.iter().map(|job| *job.id.as_uuid()).collect();
    engine.confirm(conn, &[ours], &ids)
}

/// What the cursor learns.
#[derive(Default)]
struct Noted {
    looks: Vec<Look>,
    places: Vec<Place>,
    full: bool,
    /// The server's clock before the looks.
    now: i64,
}

/// The statement whose plan the tests check; `position` narrows it behind the cursor. The index is
/// forced, because a table that the statistics still take for empty is read through and
/// sorted. The order leaves out the queue: to MariaDB a column is no constant when the value compared
/// has another collation, and ordering by it costs a sort of the whole queue.
pub(crate) fn ready_sql(position: &str, filter: &str) -> String {
    format!(
        "SELECT {READY} FROM qudo_ready r FORCE INDEX (PRIMARY) \
         WHERE r.queue = ? {position} AND {filter} \
         ORDER BY r.claim_rank, r.id LIMIT ?{}",
        Mysql::SKIP_LOCKED
    )
}

/// Rows behind a place at its own rank, which is a range of the key. (A comparison of pairs would not
/// be a range to MySQL.)
fn lock_behind(
    conn: &mut Sql<'_, MysqlConnection>,
    request: &ClaimRequest<'_>,
    (rank, id): Place,
    filter: &str,
    abilities: &[Bind<'_>],
) -> QueryResult<Vec<ReadyRow>> {
    let mut binds = vec![Bind::Text(request.queue), Bind::Int(rank), Bind::Id(&id)];
    binds.extend(abilities);
    binds.push(Bind::Big(request.limit.into()));
    conn.rows(&ready_sql("AND r.claim_rank = ? AND r.id > ?", filter), &binds)
}

/// Rows in the parts of the plan, until there are enough.
fn lock_ready(
    conn: &mut Sql<'_, MysqlConnection>,
    request: &ClaimRequest<'_>,
    plan: &Plan,
    (filter, abilities): (&str, &[Bind<'_>]),
    noted: &mut Noted,
) -> QueryResult<Vec<ReadyRow>> {
    let limit = request.limit as usize;
    let (mut rows, mut locked) = (Vec::<ReadyRow>::new(), None);
    let patience = Patience::of(request);
    while let Some(span) = plan.next(noted.looks.len(), !rows.is_empty()) {
        let missing = limit - rows.len();
        if missing == 0 || !patience.lasts(noted.looks.len(), !rows.is_empty()) {
            break;
        }
        let begun = Instant::now();
        let (position, ends) = position(&span, locked.as_ref());
        let mut binds = vec![Bind::Text(request.queue)];
        binds.extend(ends);
        binds.extend(abilities);
        binds.push(Bind::Big(missing as i64));
        let found = conn.rows::<ReadyRow>(&ready_sql(position, filter), &binds);
        // Arguments are read by another statement.
        let count = found.as_ref().map_or(0, Vec::len);
        noted.looks.push(Look { took: begun.elapsed(), rows: count, bytes: 0 });
        rows.extend(found?);
        if let Span::Behind(place) = span {
            locked = Some(place);
        }
    }
    noted.places = rows.iter().map(|row| (row.claim_rank, row.id)).collect();
    noted.full = rows.len() >= limit;
    Ok(rows)
}

/// A part of the queue as a condition that is a range of the key, and its binds. (A comparison of pairs
/// would not be a range to MySQL.) What lies behind the cursor is locked by us already, and would be
/// returned again.
fn position<'a>(span: &'a Span, locked: Option<&'a Place>) -> (&'static str, Vec<Bind<'a>>) {
    match (span, locked) {
        (Span::Whole, None) => ("", Vec::new()),
        (Span::Whole, Some((rank, id))) => {
            ("AND NOT (r.claim_rank = ? AND r.id > ?)", vec![Bind::Int(*rank), Bind::Id(id)])
        }
        (Span::Behind((rank, id)), _) => {
            ("AND r.claim_rank = ? AND r.id > ?", vec![Bind::Int(*rank), Bind::Id(id)])
        }
        (Span::Within { rank, after, until }, _) => (
            "AND r.claim_rank = ? AND r.id > ? AND r.id <= ?",
            vec![Bind::Int(*rank), Bind::Id(after), Bind::Id(until)],
        ),
        (Span::Ranks { from, to }, _) => {
            ("AND r.claim_rank >= ? AND r.claim_rank <= ?", vec![Bind::Int(*from), Bind::Int(*to)])
        }
    }
}

/// Rows of ready that are locked, joined from the list of their ranks and ids. Each is found by its
/// whole primary key, see [`super::list`].
const LOCKED: &str = "STRAIGHT_JOIN qudo_ready r FORCE INDEX (PRIMARY) \
     ON r.queue = ? AND r.claim_rank = v.number AND r.id = UNHEX(v.hex)";

/// Rows to be leased: each ready row as it was read, with the place of its ability in a list and how
/// long its lease lasts.
const LEASES: &str = "JSON_TABLE(?, '$[*]' COLUMNS (hex CHAR(32) PATH '$[0]', \
     claim_rank INT PATH '$[1]', attempt INT PATH '$[2]', crashes INT PATH '$[3]', \
     ability INT PATH '$[4]', lasts BIGINT PATH '$[5]', flags INT PATH '$[6]')) v";

fn leases_json(rows: &[ReadyRow], request: &ClaimRequest<'_>) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(rows.len() * 80 + 2);
    for row in rows {
        text.push(if text.is_empty() { '[' } else { ',' });
        // The filter of the claim lets none pass that is not in the list.
        let at = request.abilities.iter().position(|one| *one.name == *row.ability).unwrap_or(0);
        let lasts = micros(request.abilities[at].grab_for);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "[\"{}\",{},{},{},{},{lasts},{}]",
            row.id.simple(),
            row.claim_rank,
            row.attempt + 1,
            row.crashes,
            at + 1,
            row.flags.bits()
        );
    }
    text.push(']');
    text
}

/// Puts what was read into lease.
fn put_leases(
    conn: &mut Sql<'_, MysqlConnection>,
    request: &ClaimRequest<'_>,
    rows: &[ReadyRow],
) -> QueryResult<usize> {
    let names = ["?"].repeat(request.abilities.len()).join(",");
    let sql = format!(
        "INSERT INTO qudo_lease (id, worker, claim, leased_until, queue, claim_rank, ability, \
         attempt, crashes, flags) SELECT UNHEX(v.hex), ?, ?, {NOW} + v.lasts, ?, v.claim_rank, \
         ELT(v.ability, {names}), v.attempt, v.crashes, v.flags FROM {LEASES}"
    );
    let json = leases_json(rows, request);
    let mut binds = vec![
        Bind::Id(request.worker.as_uuid()),
        Bind::Big(request.claim),
        Bind::Text(request.queue),
    ];
    binds.extend(request.abilities.iter().map(|one| Bind::Text(&one.name)));
    binds.push(Bind::Text(&json));
    conn.run(&sql, &binds)
}

/// Deletes rows that are locked.
fn remove_ready(
    conn: &mut Sql<'_, MysqlConnection>,
    request: &ClaimRequest<'_>,
    list: &str,
) -> QueryResult<usize> {
    let sql = format!("DELETE r FROM {NUMBERED} {LOCKED}");
    conn.run(&sql, &[Bind::Text(list), Bind::Text(request.queue)])
}

fn ready_list(rows: &[ReadyRow]) -> String {
    numbered_json(rows.iter().map(|row| (i64::from(row.claim_rank), row.id)))
}

struct Facts(Uuid, FactsRow);

impl FromRow for Facts {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.id()?, FactsRow::from_row(columns)?))
    }
}

/// The facts of jobs. Those that a plain read does not show are read again with a lock, which
/// sees what is committed.
fn read_facts(
    conn: &mut Sql<'_, MysqlConnection>,
    rows: &[ReadyRow],
    list: &str,
) -> QueryResult<HashMap<Uuid, FactsRow>> {
    let sql = format!(
        "SELECT j.id, {FACTS} FROM {NUMBERED} STRAIGHT_JOIN qudo_job j ON j.id = UNHEX(v.hex)"
    );
    let found: Vec<Facts> = conn.rows(&sql, &[Bind::Text(list)])?;
    let mut facts: HashMap<_, _> = found.into_iter().map(|Facts(id, facts)| (id, facts)).collect();
    if facts.len() == rows.len() {
        return Ok(facts);
    }
    let mut missing: Vec<_> = rows.iter().map(|row| row.id).collect();
    missing.retain(|id| !facts.contains_key(id));
    let columns = format!("x.id, {}", FACTS.replace("j.", "x."));
    let job = Keyed::table("qudo_job");
    let found: Vec<Facts> = Mysql::rows_by_id(conn, &columns, &job, &missing, Mysql::CURRENT)?;
    facts.extend(found.into_iter().map(|Facts(id, facts)| (id, facts)));
    Ok(facts)
}

/// Moves the locked rows from ready to lease and reads their facts.
fn lease(
    engine: &Mysql,
    conn: &mut Sql<'_, MysqlConnection>,
    request: &ClaimRequest<'_>,
    rows: Vec<ReadyRow>,
    in_cluster: bool,
) -> QueryResult<Vec<ClaimedJob>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let list = ready_list(&rows);
    let put = match put_leases(conn, request, &rows) {
        // In a cluster a node may still show a ready row whose lease it has already, for a moment.
        Err(error) if in_cluster && classify(&error) == Class::Unique => 0,
        put => put?,
    };
    balance("claim what is locked", rows.len(), put)?;
    balance("claim", remove_ready(conn, request, &list)?, put)?;
    let mut facts = read_facts(conn, &rows, &list)?;
    let without = rows.iter().map(|row| row.id).filter(|id| !facts.contains_key(id)).collect();
    Orphans::refuse(without)?;
    let now = engine.clock.now();
    Ok(rows
        .into_iter()
        .filter_map(|row| facts.remove(&row.id).map(|facts| claimed(row, facts, request, now)))
        .collect())
}
