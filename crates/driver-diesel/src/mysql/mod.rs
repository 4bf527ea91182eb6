//! MySQL and MariaDB: READ COMMITTED, claims by primary key with SKIP LOCKED, multi-row statements.

mod checkup;
mod claim;
mod complete;
mod conn;
mod connect;
mod greeting;
mod insert;
mod list;
mod looks;
mod procedures;
mod settle;

use std::sync::Arc;

use diesel::MysqlConnection;
use diesel::result::{Error, QueryResult};
use qudo_core::driver::{
    AbilityLease, ClaimRequest, ClaimedJob, DriverError, DriverRegistration, ErrorKind, Inserted,
    JobRecord, NamedDriver, Password, Remark, Settled, Settlement, WakeSource,
};
use uuid::Uuid;

use crate::bulk::Keyed;
use crate::classify::to_driver_error;
use crate::clock::{ServerClock, Window};
use crate::cursor::Cursors;
use crate::driver::DieselDriver;
use crate::engine::{Engine, has_work, probe_writes};
use crate::held_key::HeldKey;
use crate::pool::Pool;
use crate::sql::{Bind, FromRow, Sql};
use crate::statements::ledger::balance;
use crate::step::{Step, step};
use crate::tables::Tables;

/// Microseconds since 1970, UTC. Not `UNIX_TIMESTAMP(NOW())`, which goes through the session's time zone
/// twice.
pub(crate) const NOW: &str = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))";

/// No server that is let in takes less; up to here a round trip is saved.
const SURELY_FITS: usize = 512 * 1024;

/// What a statement has beside its largest value, amply.
const PACKET_OVERHEAD: usize = 64 * 1024;

/// 1 where an account without special rights may write.
const WRITABLE: &str =
    "SELECT CAST(@@GLOBAL.read_only = 0 AND @@GLOBAL.innodb_read_only = 0 AS SIGNED)";

/// The engine of one MySQL or MariaDB database.
pub(crate) struct Mysql {
    source: Arc<connect::Source>,
    pool: Pool<MysqlConnection>,
    cursors: Cursors,
    procedure: insert::Procedure,
    clock: ServerClock,
    server: Arc<connect::Server>,
    looks: looks::Looks,
}

inventory::submit! {
    DriverRegistration { schemes: &["mysql", "mariadb"], open: DieselDriver::<Mysql>::open }
}

impl DieselDriver<Mysql> {
    /// Opens `mysql://user:password@host/database`. Does not connect.
    pub(crate) fn open(dsn: &str, password: Option<Password>) -> Result<NamedDriver, String> {
        let source = Arc::new(connect::Source::parse(dsn, password)?);
        let (name, to) = (source.name.clone(), Arc::clone(&source));
        // A deadlock that strikes while rows are read leaves the prepared statement of
        // libmariadb waiting for rows that never come: the next use would hang for ever.
        let server = Arc::<connect::Server>::default();
        let told = Arc::clone(&server);
        let pool = Pool::new(connect::IDLE_LIMIT, move || connect::connect(&to, &told));
        let pool = pool.drop_after_retry();
        let (cursors, procedure) = (Cursors::default(), insert::Procedure::default());
        let (clock, from) = (ServerClock::default(), Arc::clone(&source));
        let looks =
            looks::Looks::new(move || match greeting::look(&from.server, greeting::End::Refused) {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            });
        let engine = Mysql { source, pool, cursors, procedure, clock, server, looks };
        Ok(NamedDriver { name, driver: Arc::new(Self::new(engine)) })
    }
}

/// Ids that are in none of these tables.
fn missing(
    conn: &mut Sql<'_, MysqlConnection>,
    tables: &[Keyed<'_>],
    ids: &[Uuid],
) -> QueryResult<Vec<Uuid>> {
    let mut missing = ids.to_vec();
    for table in tables {
        let found: Vec<Uuid> = list::rows_by_id(conn, "id", table, &missing, "")?;
        missing.retain(|id| !found.contains(id));
    }
    Ok(missing)
}

impl Mysql {
    /// Runs `act` on a connection; see [`Pool::with`].
    fn with<T>(
        &self,
        writes: bool,
        mut act: impl FnMut(&mut Sql<'_, MysqlConnection>) -> QueryResult<T>,
    ) -> Result<T, DriverError> {
        self.pool.with(writes, |raw| act(&mut Sql::new(raw, self.tables())))
    }
}

/// A table of others that is called as one of ours will be. The migration makes what is not there yet, because it
/// may have been broken off after any statement; then that it began is in the table of migrations.
const STRANGERS: &str = "SELECT CAST(MIN(table_name) AS CHAR) FROM information_schema.tables \
     WHERE table_schema = DATABASE() AND table_name IN ('qudo_job', 'qudo_ready', 'qudo_scheduled', \
     'qudo_lease', 'qudo_unique', 'qudo_exception_log', 'qudo_job_status', 'qudo_reply', \
     'qudo_worker', 'qudo_moving', 'qudo_control', 'qudo_cancel', 'qudo_operation', 'qudo_stat', \
     'qudo_stat_report', 'qudo_sent', 'qudo_progress', 'qudo_jobs', 'qudo_exceptions') \
     AND NOT EXISTS (SELECT 1 FROM information_schema.tables \
     WHERE table_schema = DATABASE() AND table_name = 'qudo_schema_migrations') \
     HAVING COUNT(*) > 0";

/// Refuses a table of others that is called as one that a migration will make which did not begin yet.
fn refuse_strangers(conn: &mut Sql<'_, MysqlConnection>) -> QueryResult<()> {
    let there = "SELECT CAST(COUNT(*) AS SIGNED) FROM information_schema.tables \
                 WHERE table_schema = DATABASE() AND table_name = ";
    let is_there = |conn: &mut Sql<'_, MysqlConnection>, name: &str| -> QueryResult<bool> {
        Ok(conn.row::<i64>(&format!("{there}'{name}'"), &[])?.unwrap_or_default() > 0)
    };
    if !is_there(conn, "qudo_schema_migrations")? {
        return Ok(());
    }
    let begun: Vec<String> = conn.rows("SELECT version FROM qudo_schema_migrations", &[])?;
    for step in Mysql::migrations().iter().filter(|step| !begun.contains(&step.version())) {
        for table in tables_of(step.up) {
            if is_there(conn, table)? {
                let name = conn.tables.render(table).into_owned();
                let why = format!(
                    "there is a table {name}, which the migration {step} is to make, and no record that it began: either the table is not qudo's, and is to be named \
                     otherwise, or not all tables were restored"
                );
                return Err(diesel::result::Error::QueryBuilderError(why.into()));
            }
        }
    }
    Ok(())
}

/// The tables that a migration makes.
fn tables_of(sql: &str) -> impl Iterator<Item = &str> {
    let made = sql.lines().filter_map(|line| line.strip_prefix("CREATE TABLE IF NOT EXISTS "));
    made.filter_map(|rest| rest.strip_suffix(" ("))
}

impl Engine for Mysql {
    type Conn = MysqlConnection;

    const NAME: &'static str = "mysql";

    fn checkup(conn: &mut Sql<'_, MysqlConnection>) -> QueryResult<Vec<Remark>> {
        checkup::checkup(conn)
    }

    const NOW: &'static str = NOW;
    const BIG: &'static str = "SIGNED";
    const FOR_UPDATE: &'static str = " FOR UPDATE";
    // The insert that met the duplicate key left a shared lock on the row anyway. With an exclusive lock, two
    // transactions that met the same key would deadlock.
    const CURRENT: &'static str = " LOCK IN SHARE MODE";
    const SKIP_LOCKED: &'static str = " FOR UPDATE SKIP LOCKED";
    const LOCKS_INDEXES: bool = true;
    const BY_KEY: &'static str = " FORCE INDEX (PRIMARY)";
    const BY_DISCARDED: &'static str = " FORCE INDEX (ix_qudo_exception_log_discarded)";
    // The words that MySQL prefers now are not known to MariaDB.
    const UPSERT: (&'static str, &'static str, &'static str) =
        ("", " ON DUPLICATE KEY UPDATE ", "VALUES({})");
    const CAPPED_SUM: &'static str = "CAST(LEAST(SUM({}), 9223372036854775807) AS SIGNED)";
    const INSERT_IGNORE: (&'static str, &'static str) = ("INSERT IGNORE", "");

    fn rows_by_id<T: FromRow>(
        conn: &mut Sql<'_, MysqlConnection>,
        columns: &str,
        keyed: &Keyed<'_>,
        ids: &[Uuid],
        lock: &str,
    ) -> QueryResult<Vec<T>> {
        list::rows_by_id(conn, columns, keyed, ids, lock)
    }

    fn delete_by_id(
        conn: &mut Sql<'_, MysqlConnection>,
        keyed: &Keyed<'_>,
        ids: &[Uuid],
    ) -> QueryResult<usize> {
        list::delete_by_id(conn, keyed, ids)
    }

    fn update_by_id(
        conn: &mut Sql<'_, MysqlConnection>,
        set: &str,
        set_binds: &[Bind<'_>],
        keyed: &Keyed<'_>,
        ids: &[Uuid],
    ) -> QueryResult<usize> {
        list::update_by_id(conn, set, set_binds, keyed, ids)
    }

    fn free_keys(conn: &mut Sql<'_, MysqlConnection>, keys: &[HeldKey<'_>]) -> QueryResult<usize> {
        list::free_keys(conn, keys)
    }

    fn prepare(conn: &mut Sql<'_, MysqlConnection>) -> QueryResult<()> {
        match conn.row::<String>(STRANGERS, &[])? {
            None => refuse_strangers(conn),
            Some(name) => Err(diesel::result::Error::QueryBuilderError(
                format!(
                    "there is a table {name}, but no {}schema_migrations: either it is not qudo's, \
                     and another table_prefix is to be taken, or not all tables were restored",
                    conn.tables.prefix()
                )
                .into(),
            )),
        }
    }

    /// A node of a Galera cluster was seen to answer a commit with success whose transaction that of
    /// another node had made it give up: of 6,000 jobs that three nodes claimed, some 20 were given to
    /// two workers. Then nothing of it is there, and it is repeated.
    fn may_undo(&self) -> bool {
        self.server.is_in_cluster()
    }

    fn confirm(
        &self,
        conn: &mut Sql<'_, MysqlConnection>,
        tables: &[Keyed<'_>],
        ids: &[Uuid],
    ) -> QueryResult<()> {
        if !self.may_undo() {
            return Ok(());
        }
        let missing = missing(conn, tables, ids)?.len();
        balance("commit in a cluster", ids.len(), ids.len() - missing)
    }

    /// Seen to stand still for each commit that was undone, of 11, and to go on for those that were not.
    fn last_commit(&self, conn: &mut Sql<'_, MysqlConnection>) -> QueryResult<Option<String>> {
        if !self.may_undo() {
            return Ok(None);
        }
        conn.row("SELECT WSREP_LAST_WRITTEN_GTID()", &[])
    }

    fn check_size(&self, bytes: usize) -> Result<(), DriverError> {
        if bytes < SURELY_FITS {
            return Ok(());
        }
        let most =
            self.read(|conn| conn.row::<i64>("SELECT CAST(@@max_allowed_packet AS SIGNED)", &[]))?;
        let most = usize::try_from(most.unwrap_or_default()).unwrap_or(usize::MAX);
        if bytes.saturating_add(PACKET_OVERHEAD) <= most {
            return Ok(());
        }
        Err(DriverError::new(
            ErrorKind::Other,
            format!(
                "a value of {bytes} bytes is larger than the server takes: its max_allowed_packet \
                 is {most}"
            ),
        ))
    }

    fn migrations() -> &'static [Step] {
        const CREATE: Step = step!("mysql", "2026-11-30-000002_create_tables", oldest: 1);
        const OPERATE: Step = step!("mysql", "2026-11-30-000003_add_operations", oldest: 1);
        const NUMBERS: Step = step!("mysql", "2026-11-30-000004_add_numbers", oldest: 1);
        const ENQUEUE: Step = step!("mysql", "2026-11-30-000005_add_sql_enqueue", oldest: 1);
        const SENT: Step = step!("mysql", "2026-11-30-000006_add_sent", oldest: 1);
        #[cfg(not(qudo_upgrade_test))]
        const ALL: &[Step] = &[CREATE, OPERATE, NUMBERS, ENQUEUE, SENT];
        #[cfg(qudo_upgrade_test)]
        const ALL: &[Step] = &[
            CREATE,
            OPERATE,
            NUMBERS,
            ENQUEUE,
            SENT,
            crate::step::ADD_A_COLUMN,
            crate::step::BREAK,
        ];
        crate::step::carried(ALL)
    }

    fn tables(&self) -> &Tables {
        &self.source.options.tables
    }

    fn write<T>(
        &self,
        act: impl FnMut(&mut Sql<'_, MysqlConnection>) -> QueryResult<T>,
    ) -> Result<T, DriverError> {
        self.with(true, act)
    }

    fn read<T>(
        &self,
        act: impl FnMut(&mut Sql<'_, MysqlConnection>) -> QueryResult<T>,
    ) -> Result<T, DriverError> {
        self.with(false, act)
    }

    fn reset(&self) {
        self.pool.reset();
    }

    fn probe(&self) -> Result<(), DriverError> {
        self.looks.may_try(&self.pool.logins)?;
        let mut conn = self.pool.connect_alone()?;
        probe_writes(&mut Sql::new(&mut conn, self.tables()), WRITABLE)
            .map_err(|error| to_driver_error(error, false))
    }

    /// MySQL commits each DDL statement by itself, so a named lock of the session keeps others out.
    fn migrate_alone<T>(
        &self,
        mut act: impl FnMut(&mut Sql<'_, MysqlConnection>) -> QueryResult<T>,
    ) -> Result<T, DriverError> {
        self.with(true, |conn| {
            // To change a table waits for everybody who reads it, and takes as long as it takes. What
            // stands in such a comment only MariaDB reads.
            conn.run("SET SESSION lock_wait_timeout = 60 /*M! , max_statement_time = 0 */", &[])?;
            // At most 64 characters; MD5 is not in every server any more.
            let name = "CONCAT('qudo ', LEFT(SHA2(CONCAT(DATABASE(), '#qudo_'), 256), 40))";
            let locked = format!("SELECT CAST(GET_LOCK({name}, 60) AS SIGNED)");
            let is_ours = conn.row::<i64>(&locked, &[]).map(|locked| locked == Some(1));
            let is_locked = matches!(is_ours, Ok(true));
            let done = match is_ours {
                Ok(true) => act(conn),
                Ok(false) => {
                    Err(Error::QueryBuilderError("another migration takes too long".into()))
                }
                // In its strict mode Percona's cluster forbids locks by name, which are not those of the
                // whole cluster anyway.
                Err(error) if error.to_string().contains("pxc_strict_mode") => {
                    log::warn!(
                        "the server forbids locks by name: nothing keeps another program from migrating \
                         at the same time"
                    );
                    act(conn)
                }
                Err(error) => Err(error),
            };
            conn.run("SET SESSION lock_wait_timeout = 5 /*M! , max_statement_time = 60 */", &[])?;
            if is_locked {
                conn.row::<i64>(&format!("SELECT CAST(RELEASE_LOCK({name}) AS SIGNED)"), &[])?;
            }
            done
        })
    }

    fn furnish(conn: &mut Sql<'_, MysqlConnection>) -> QueryResult<()> {
        procedures::make(conn)
    }

    fn strip(conn: &mut Sql<'_, MysqlConnection>) -> QueryResult<()> {
        procedures::remove(conn)
    }

    fn describe(&self) -> String {
        self.source.described.clone()
    }

    /// Two connections may lead to two nodes of a cluster, which do not see each other's locks: one of the claims
    /// loses at its commit.
    fn claims_side_by_side(&self) -> bool {
        !self.server.is_in_cluster()
    }

    fn wake_source(&self) -> WakeSource {
        WakeSource::Poll { at_most: None }
    }

    fn transaction_within<T>(
        conn: &mut Sql<'_, MysqlConnection>,
        window: &Window,
        act: impl FnOnce(&mut Sql<'_, MysqlConnection>) -> QueryResult<T>,
    ) -> QueryResult<T> {
        crate::sql::told(|| conn::transaction_within(conn, window, act))
    }

    fn clock(&self) -> Option<&ServerClock> {
        Some(&self.clock)
    }

    fn insert_new(
        conn: &mut Sql<'_, MysqlConnection>,
        jobs: &[&JobRecord],
        _: &Window,
    ) -> QueryResult<()> {
        insert::insert_new(conn, jobs)
    }

    fn insert_commit(
        &self,
        jobs: &[JobRecord],
        window: &Window,
    ) -> Result<(Vec<Inserted>, bool), DriverError> {
        insert::insert_commit(self, jobs, window)
    }

    fn claim(
        &self,
        request: &ClaimRequest<'_>,
        window: &Window,
        without: &[Uuid],
    ) -> Result<Vec<ClaimedJob>, DriverError> {
        claim::claim(self, request, window, without)
    }

    fn settle_held(
        &self,
        worker: &Uuid,
        settlements: &[Settlement],
    ) -> Result<Option<Vec<Settled>>, DriverError> {
        settle::settle_held(self, worker, settlements)
    }

    fn complete(
        &self,
        worker: &Uuid,
        ids: &[Uuid],
        claims: &[i64],
    ) -> Result<Vec<Uuid>, DriverError> {
        complete::complete(self, worker, ids, claims)
    }

    /// MariaDB compares rows with the end of a range when they are visible, and so reads on over dead ones.
    fn ends_looks(&self) -> bool {
        !self.server.is_mariadb()
    }

    fn is_dear(&self, queues: &[&str]) -> bool {
        self.cursors.are_dear(queues)
    }

    fn changed(&self, queues: &[&str], abilities: &[AbilityLease]) -> Result<bool, DriverError> {
        self.with(false, |conn| has_work::<Self>(conn, queues, abilities))
    }
}
