use std::collections::HashSet;
use std::time::Duration;

use diesel::result::QueryResult;
use qudo_core::driver::{
    AbilityLease, ClaimRequest, ClaimedJob, Deadline, DriverError, Heard, JobRecord, Remark,
    Settled, Settlement, Tidings, Wake, WakeSource,
};
use uuid::Uuid;

use crate::bulk::{self, Keyed};
use crate::clock::{ServerClock, Window};
use crate::held_key::{self, HeldKey};
use crate::sql::{Bind, FromRow, Sql, SqlConn};
use crate::statements::ledger::balance;
use crate::step::Step;
use crate::tables::Tables;

/// What one engine adds to the statements that all share.
///
/// Everything here differs between engines for a reason: the clock, the locking words, and the
/// statements on the hot path, which each engine does best in its own way.
pub(crate) trait Engine: Send + Sync + Sized + 'static {
    /// diesel's connection.
    type Conn: SqlConn + Send + 'static;

    /// How the tables are named.
    fn tables(&self) -> &Tables;

    /// For logs and reports.
    const NAME: &'static str;

    /// SQL for the server's clock in microseconds since 1970, UTC.
    const NOW: &'static str;

    /// The name of a 64-bit integer in a `CAST`.
    const BIG: &'static str;

    /// What makes a `SELECT` lock its rows; empty where the transaction already holds the lock.
    const FOR_UPDATE: &'static str;

    /// Holds the plans of our statements, or lets the server choose for those of the user. Inside a
    /// transaction, until its end.
    fn hold_plans(conn: &mut Sql<'_, Self::Conn>, hold: bool) -> QueryResult<()> {
        let _ = (conn, hold);
        Ok(())
    }

    /// Whether the server may answer a commit that it gave up as if it had carried it out.
    fn may_undo(&self) -> bool {
        false
    }

    /// Checks after a commit that what it stored under these ids is in one of these tables, where a
    /// server may answer a commit that it gave up as if it had carried it out.
    fn confirm(
        &self,
        conn: &mut Sql<'_, Self::Conn>,
        tables: &[Keyed<'_>],
        ids: &[Uuid],
    ) -> QueryResult<()> {
        let _ = (conn, tables, ids);
        Ok(())
    }

    /// Where a server may answer a commit that it gave up as if it had carried it out: which commit of
    /// this connection was its last.
    fn last_commit(&self, conn: &mut Sql<'_, Self::Conn>) -> QueryResult<Option<String>> {
        let _ = conn;
        Ok(None)
    }

    /// Refuses a commit that a server gave up: the connection's last one is still the one before.
    fn stands(&self, conn: &mut Sql<'_, Self::Conn>, before: Option<&String>) -> QueryResult<()> {
        let Some(before) = before else { return Ok(()) };
        let is_undone = self.last_commit(conn)?.as_ref() == Some(before);
        balance("commit in a cluster", 1, usize::from(!is_undone))
    }

    /// Checks that a value of so many bytes can be stored. Called for the largest of a call before
    /// anything of it is sent, because a server may answer with closing the connection.
    fn check_size(&self, bytes: usize) -> Result<(), DriverError> {
        let _ = bytes;
        Ok(())
    }

    /// Makes a read see what is committed now, also in a transaction that looks at an older state.
    const CURRENT: &'static str;

    /// The same, passing over rows that another transaction locks.
    const SKIP_LOCKED: &'static str;

    /// Whether a row has a lock in each index that it is found by, so that all have to find a row that they
    /// lock by the same one.
    const LOCKS_INDEXES: bool = false;

    /// It is reached without a network.
    const IS_LOCAL: bool = false;

    /// Words behind a table that make it be read by its primary key, where they are needed.
    const BY_KEY: &'static str = "";

    /// By how many microseconds [`NOW`](Self::NOW) may lie behind the clock, because it counts in larger steps.
    const NOW_STEP: i64 = 0;

    /// The same for the index of discarded rows, behind the exception log. MariaDB reads it from its end to where the
    /// next page begins, 84 ms in the middle of 100,000 rows, unless it is told to use it.
    const BY_DISCARDED: &'static str = "";

    /// The sum of a column, without NULLs, as a 64-bit integer; the greatest one if it is more.
    const CAPPED_SUM: &'static str;

    /// `INSERT` words that change a row with a taken key: behind the table, before the changes, where `{}` stands for the columns
    /// of the key, and how the value of a column is named that was to be inserted.
    const UPSERT: (&'static str, &'static str, &'static str) =
        (" AS s", " ON CONFLICT ({}) DO UPDATE SET ", "excluded.{}");

    /// `INSERT` words that leave a row with a taken key alone: before and after the values.
    const INSERT_IGNORE: (&'static str, &'static str);

    /// Reads rows by id, in any order; `lock` is [`FOR_UPDATE`](Self::FOR_UPDATE) or empty.
    ///
    /// A statement that locks must look each id up: one that reads the table on its way to them
    /// waits for what others lock. So how rows are found by id is the engine's.
    fn rows_by_id<T: FromRow>(
        conn: &mut Sql<'_, Self::Conn>,
        columns: &str,
        keyed: &Keyed<'_>,
        ids: &[Uuid],
        lock: &str,
    ) -> QueryResult<Vec<T>> {
        bulk::rows_by_id(conn, columns, keyed, ids, lock)
    }

    /// Deletes rows by id; returns how many there were.
    fn delete_by_id(
        conn: &mut Sql<'_, Self::Conn>,
        keyed: &Keyed<'_>,
        ids: &[Uuid],
    ) -> QueryResult<usize> {
        bulk::delete_by_id(conn, keyed, ids)
    }

    /// Changes rows by id; `set_binds` are the binds of `set`.
    fn update_by_id(
        conn: &mut Sql<'_, Self::Conn>,
        set: &str,
        set_binds: &[Bind<'_>],
        keyed: &Keyed<'_>,
        ids: &[Uuid],
    ) -> QueryResult<usize> {
        bulk::update_by_id(conn, set, set_binds, keyed, ids)
    }

    /// Removes the rows of these keys, if these jobs hold them.
    fn free_keys(conn: &mut Sql<'_, Self::Conn>, keys: &[HeldKey<'_>]) -> QueryResult<usize> {
        held_key::free_each(conn, keys)
    }

    /// Removes the leases that this worker still holds under these claims; returns them. Inside a transaction.
    /// `None` where the engine has no way of its own.
    fn take_leases(
        conn: &mut Sql<'_, Self::Conn>,
        worker: &Uuid,
        leases: &[(Uuid, i64)],
    ) -> QueryResult<Option<HashSet<(Uuid, i64)>>> {
        let _ = (conn, worker, leases);
        Ok(None)
    }

    /// Removes the facts of jobs that are gone; their ids are in order. Returns how many there were.
    fn remove_facts(conn: &mut Sql<'_, Self::Conn>, ids: &[Uuid]) -> QueryResult<usize> {
        Self::delete_by_id(conn, &Keyed::table("qudo_job"), ids)
    }

    /// Settles a group of runs of every kind in one statement, if all of their leases are held; `None` when
    /// they are not or there is no such statement, and then nothing is changed.
    fn settle_held(
        &self,
        worker: &Uuid,
        settlements: &[Settlement],
    ) -> Result<Option<Vec<Settled>>, DriverError> {
        let _ = (worker, settlements);
        Ok(None)
    }

    /// The migrations that this engine carries, in order.
    fn migrations() -> &'static [Step];

    /// Why the tables must not be named so, because they were made otherwise. Reads only.
    fn check_names(conn: &mut Sql<'_, Self::Conn>) -> QueryResult<Option<String>> {
        let _ = conn;
        Ok(None)
    }

    /// Makes what the tables need around them, before the first of them is made.
    fn prepare(conn: &mut Sql<'_, Self::Conn>) -> QueryResult<()> {
        let _ = conn;
        Ok(())
    }

    /// Runs `act` on a connection that may write.
    fn write<T>(
        &self,
        act: impl FnMut(&mut Sql<'_, Self::Conn>) -> QueryResult<T>,
    ) -> Result<T, DriverError>;

    /// Runs `act` on a connection that reads.
    fn read<T>(
        &self,
        act: impl FnMut(&mut Sql<'_, Self::Conn>) -> QueryResult<T>,
    ) -> Result<T, DriverError>;

    /// Runs `act` in a transaction that ends runs. With `durability=relaxed` its commit does not
    /// wait for the disk: a server that crashes may forget it, and the runs' leases stand again.
    fn settle<T>(
        &self,
        mut act: impl FnMut(&mut Sql<'_, Self::Conn>) -> QueryResult<T>,
    ) -> Result<T, DriverError> {
        self.write(|conn| conn.transaction(&mut act))
    }

    /// Gives up the connections in use; those of calls that hang never come back.
    fn reset(&self) {}

    /// Connects anew, outside the pool, and checks that the database takes writes.
    fn probe(&self) -> Result<(), DriverError>;

    /// Runs `act` while no other migrator runs, in a transaction where the engine's DDL takes part.
    fn migrate_alone<T>(
        &self,
        act: impl FnMut(&mut Sql<'_, Self::Conn>) -> QueryResult<T>,
    ) -> Result<T, DriverError>;

    /// Makes optional objects after migrating, such as the enqueue procedure on MySQL.
    fn furnish(conn: &mut Sql<'_, Self::Conn>) -> QueryResult<()> {
        let _ = conn;
        Ok(())
    }

    /// Removes that again.
    fn strip(conn: &mut Sql<'_, Self::Conn>) -> QueryResult<()> {
        let _ = conn;
        Ok(())
    }

    /// The data source without a password.
    fn describe(&self) -> String;

    /// What an operator should know of its settings and functions.
    fn checkup(conn: &mut Sql<'_, Self::Conn>) -> QueryResult<Vec<Remark>> {
        let _ = conn;
        Ok(Vec::new())
    }

    /// Where the data lies, if that shows without asking a server.
    fn place(&self) -> Option<String> {
        None
    }

    /// As [`Work::claims_side_by_side`](qudo_core::driver::Work::claims_side_by_side).
    fn claims_side_by_side(&self) -> bool {
        false
    }

    /// Whether the database itself is there, where that shows without asking a server.
    fn is_made(&self) -> bool {
        true
    }

    /// Makes the database itself before its first migration, where that is no more than a file.
    fn make_database(&self) -> Result<(), String> {
        Ok(())
    }

    /// How work of other processes is noticed.
    fn wake_source(&self) -> WakeSource;

    /// Runs `act` in a transaction that commits in this window or not at all.
    ///
    /// This one looks at our own clock before the commit; the statements of `act` look at the
    /// server's, where it has one.
    fn transaction_within<T>(
        conn: &mut Sql<'_, Self::Conn>,
        window: &Window,
        act: impl FnOnce(&mut Sql<'_, Self::Conn>) -> QueryResult<T>,
    ) -> QueryResult<T> {
        conn.transaction(|conn| {
            let value = act(conn)?;
            window.check()?;
            Ok(value)
        })
    }

    /// The clock of the server. An engine that runs in this process has none but ours.
    fn clock(&self) -> Option<&ServerClock> {
        None
    }

    /// Calls `write` with the window for this deadline by the clock of the server.
    fn within<T>(
        &self,
        deadline: Deadline,
        mut write: impl FnMut(&Window) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        let Some(clock) = self.clock() else { return write(&Window::local(deadline)) };
        let sql = format!("SELECT {}", Self::NOW);
        let read = || self.read(|conn| conn.row::<i64>(&sql, &[]));
        clock.within(deadline, || Ok(read()?.unwrap_or_default()), write)
    }

    /// Stores new jobs that are known to collide with nothing.
    fn insert_new(
        conn: &mut Sql<'_, Self::Conn>,
        jobs: &[&JobRecord],
        window: &Window,
    ) -> QueryResult<()>;

    /// Stores jobs in a transaction of its own; tells whether its commit woke the other processes.
    fn insert_commit(
        &self,
        jobs: &[JobRecord],
        window: &Window,
    ) -> Result<(Vec<qudo_core::driver::Inserted>, bool), DriverError>;

    /// Leases ready jobs of one queue, but for some that have no facts.
    fn claim(
        &self,
        request: &ClaimRequest<'_>,
        window: &Window,
        without: &[Uuid],
    ) -> Result<Vec<ClaimedJob>, DriverError>;

    /// Ends runs that completed and wrote nothing: removes lease and job. Returns the ids whose
    /// lease was held.
    fn complete(
        &self,
        worker: &Uuid,
        ids: &[Uuid],
        claims: &[i64],
    ) -> Result<Vec<Uuid>, DriverError>;

    /// Tells other processes that these queues have work; after the commit.
    fn notify(&self, queues: &mut dyn Iterator<Item = &str>) {
        let _ = queues;
    }

    /// Tells other processes the same when the open transaction of `conn` commits.
    fn notify_at_commit(conn: &mut Sql<'_, Self::Conn>, queue: &str) -> QueryResult<()> {
        let _ = (conn, queue);
        Ok(())
    }

    /// Tells other processes that orders were stored, where the engine can.
    fn notify_orders(&self) {}

    /// See [`Wakes::hears_news`](qudo_core::driver::Wakes::hears_news).
    fn hears_news(&self) -> bool {
        false
    }

    /// See [`Wakes::listen_for_news`](qudo_core::driver::Wakes::listen_for_news).
    fn listen_for_news(&self, _: &mut dyn FnMut(Heard) -> bool) -> Result<(), DriverError> {
        Ok(())
    }

    /// See [`Wakes::ask_for_news`](qudo_core::driver::Wakes::ask_for_news).
    fn ask_for_news(&self) {}

    /// See [`Wakes::say_last`](qudo_core::driver::Wakes::say_last).
    fn say_last(&self, _: Duration) {}

    /// See [`Wakes::tell_news`](qudo_core::driver::Wakes::tell_news).
    fn tell_news(&self, _: Tidings<'_>) {}

    /// Whether the queues may have work since the last call.
    fn changed(&self, queues: &[&str], abilities: &[AbilityLease]) -> Result<bool, DriverError>;

    /// Whether a look at a part of an index ends where the part does, or only at the next row that is not
    /// dead.
    fn ends_looks(&self) -> bool {
        true
    }

    /// Whether a look at the start of one of these queues is dear.
    fn is_dear(&self, queues: &[&str]) -> bool {
        let _ = queues;
        false
    }

    /// Blocks and reports wake-ups.
    fn listen(&self, on_wake: &mut dyn FnMut(Wake) -> bool) -> Result<(), DriverError> {
        let _ = on_wake;
        Ok(())
    }
}

/// SQL that is true for the rows `r` that a claim may take, with its binds: by ability, and but for
/// some ids.
pub(crate) fn claim_filter<'a>(
    abilities: &'a [AbilityLease],
    without: &'a [Uuid],
) -> (String, Vec<Bind<'a>>) {
    let marks = |count| ["?"].repeat(count).join(",");
    let mut sql = format!("r.ability IN ({})", marks(abilities.len()));
    let mut binds: Vec<_> = abilities.iter().map(|one| Bind::Text(&one.name)).collect();
    if let Some(last) = without.last() {
        // The last one again, up to a power of four: each length is a statement of its own, and a
        // connection keeps all that it has prepared.
        let length = without.len().next_power_of_two();
        let length = if length.ilog2().is_multiple_of(2) { length } else { length * 2 };
        sql.push_str(&format!(" AND r.id NOT IN ({})", marks(length)));
        binds.extend(without.iter().chain(std::iter::repeat(last)).take(length).map(Bind::Id));
    }
    (sql, binds)
}

/// SQL for how many microseconds a lease lasts: one bind when all abilities agree, else a `CASE`.
pub(crate) fn lease_length<'a>(
    column: &str,
    abilities: &'a [AbilityLease],
) -> (String, Vec<Bind<'a>>) {
    let micros = |lease: &AbilityLease| Bind::Big(micros(lease.grab_for));
    let first = &abilities[0];
    if abilities.iter().all(|one| one.grab_for == first.grab_for) {
        return ("?".to_owned(), vec![micros(first)]);
    }
    let whens = ["WHEN ? THEN ?"].repeat(abilities.len()).join(" ");
    let binds = abilities.iter().flat_map(|one| [Bind::Text(&one.name), micros(one)]).collect();
    (format!("CASE {column} {whens} END"), binds)
}

/// Microseconds of a span; a year fits many times.
pub(crate) fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX / 4)
}

/// SQL that finds out, without writing, whether the database takes writes: a standby, a read-only
/// server or a read-only default refuse it before they look for rows.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) const PROBE: &str = "UPDATE qudo_worker SET seen_at = seen_at WHERE id IS NULL";

/// Finds out whether the database takes writes. An account that may not change the row of a worker asks
/// instead whether the server lets anybody write: `writable` answers one number, 1 for yes. A missing table
/// shows that the server is there, and says so later.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn probe_writes<C: SqlConn>(conn: &mut Sql<'_, C>, writable: &str) -> QueryResult<()> {
    use crate::classify::{Class, classify};
    // In a transaction of its own, which behind a pooler is a part of another.
    let probed = conn.nestable(|conn| conn.run(PROBE, &[]));
    let Err(error) = probed else { return Ok(()) };
    match classify(&error) {
        Class::Schema => Ok(()),
        Class::Permission if conn.row::<i64>(writable, &[])? == Some(1) => Ok(()),
        Class::Permission => Err(read_only()),
        _ => Err(error),
    }
}

/// The error of a server that takes no writes, as it would give it.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn read_only() -> diesel::result::Error {
    let message = "the server is read-only".to_owned();
    let kind = diesel::result::DatabaseErrorKind::ReadOnlyTransaction;
    diesel::result::Error::DatabaseError(kind, Box::new(message))
}

/// Whether a queue has ready rows of these abilities or something is overdue: one cheap statement for
/// pollers.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn has_work<E: Engine>(
    conn: &mut Sql<'_, E::Conn>,
    queues: &[&str],
    abilities: &[AbilityLease],
) -> QueryResult<bool> {
    if queues.is_empty() || abilities.is_empty() {
        return Ok(false);
    }
    let marks = ["?"].repeat(queues.len()).join(",");
    let (filter, names) = claim_filter(abilities, &[]);
    let sql = format!(
        "(SELECT r.id FROM qudo_ready r WHERE r.queue IN ({marks}) AND {filter} LIMIT 1) UNION ALL \
         (SELECT id FROM qudo_scheduled WHERE run_after <= (SELECT {}) LIMIT 1)",
        E::NOW
    );
    let mut binds: Vec<_> = queues.iter().map(|queue| Bind::Text(queue)).collect();
    binds.extend(names);
    Ok(conn.row::<Uuid>(&sql, &binds)?.is_some())
}

/// Whether the parts of a data source name are what they seem. A password with a character that ends
/// it early would go on as host or database, and one with half an escape would be quoted in the
/// messages of client libraries.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn is_plain_url(url: &url::Url) -> bool {
    let rest = [url.path(), url.query().unwrap_or_default(), url.fragment().unwrap_or_default()];
    if url.fragment().is_some() || rest.iter().any(|part| part.contains('@')) {
        return false;
    }
    // A database has one name. Whatever else is there was cut off from something.
    if url.path().trim_start_matches('/').contains(['/', '\\', ':']) {
        return false;
    }
    let secrets = [url.username(), url.password().unwrap_or_default()];
    secrets.iter().all(|part| {
        part.split('%').skip(1).all(|after| {
            let escape = after.as_bytes().get(..2);
            escape.is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
        })
    })
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
const ESCAPE: &str = "a character in it has to be escaped, as in a password % as %25, / as %2F, @ as %40, ? as \
                      %3F and # as %23";

/// Parses a server's data source name, if it has the shape of one: without the slashes, or with a colon that
/// no port follows, what is a password would be taken for the name of a database.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn parse_url(dsn: &str) -> Result<url::Url, String> {
    let Some((scheme, rest)) = dsn.split_once("://") else {
        let scheme = dsn.split(':').next().unwrap_or_default();
        return Err(format!("expected something like {scheme}://user@host/jobs"));
    };
    if scheme.contains(':') {
        return Err(ESCAPE.to_owned());
    }
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    if authority.ends_with(':') {
        return Err(ESCAPE.to_owned());
    }
    url::Url::parse(dsn).map_err(|error| error.to_string())
}

/// The short name of a server's database and its description without a password.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) fn names(url: &url::Url) -> Result<(String, String), String> {
    if !is_plain_url(url) {
        return Err(ESCAPE.to_owned());
    }
    let database = url.path().trim_start_matches('/');
    if database.is_empty() {
        return Err(format!(
            "it names no database; expected something like {}://user@host/jobs",
            url.scheme()
        ));
    }
    let host = url.host_str().filter(|host| !host.is_empty()).unwrap_or("localhost");
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let user = match url.username() {
        "" => String::new(),
        user => format!("{user}@"),
    };
    let described = format!("{}://{user}{host}{port}/{database}", url.scheme());
    Ok((format!("{database}@{host}{port}"), described))
}

#[cfg(all(test, any(feature = "postgres", feature = "mysql")))]
mod tests {
    use std::collections::HashSet;

    use uuid::Uuid;

    use super::{claim_filter, names};

    /// Each text is prepared and kept by a connection.
    #[test]
    fn a_claim_has_six_texts_for_whatever_number_of_rows_it_passes_over() {
        let ids: Vec<_> = (0..1_000).map(Uuid::from_u128).collect();
        let mut texts = HashSet::new();
        for count in 1..=ids.len() {
            let (sql, binds) = claim_filter(&[], &ids[..count]);
            assert_eq!(sql.matches('?').count(), binds.len());
            texts.insert(sql);
        }
        assert_eq!(texts.len(), 6);
    }

    #[test]
    fn a_password_with_a_character_that_would_cut_it_short_is_refused_without_being_told() {
        for bad in [
            "postgres://app:100%sure@db/jobs",
            "postgres://app:ends%2@db/jobs",
            "postgres://app:2024/sure@db/jobs",
            "postgres://app:2024?sure@db/jobs",
            "postgres://app:2024#sure@db/jobs",
            "mysql://ap%p:x@db/jobs",
        ] {
            let url = url::Url::parse(bad).expect("a URL, though another than meant");
            let refused = names(&url).expect_err(bad);
            assert!(refused.contains("escaped") && !refused.contains("sure"), "{refused}");
        }
        let url = url::Url::parse("postgres://app:100%25@db/jobs").expect("a URL");
        let (_, described) = names(&url).expect("escaped well");
        assert_eq!(described, "postgres://app@db/jobs");
    }
}
