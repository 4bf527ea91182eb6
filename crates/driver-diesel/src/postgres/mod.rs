//! PostgreSQL: one statement for the claim, one for the settle, arrays for bulk, LISTEN for wake-ups.

mod checkup;
mod claim;
mod conn;
mod connect;
mod insert;
mod list;
mod listen;
mod news;
mod notify;
mod rights;
mod runs;
mod session;
mod settle;
mod triggers;

use std::sync::Arc;
use std::time::Duration;

use diesel::PgConnection;
use diesel::connection::SimpleConnection as _;
use diesel::result::QueryResult;
use qudo_core::driver::{
    AbilityLease, ClaimRequest, ClaimedJob, DriverError, DriverRegistration, Heard, Inserted,
    JobRecord, NamedDriver, Password, Remark, Settled, Settlement, Tidings, Wake, WakeSource,
};
use uuid::Uuid;

use crate::bulk::Keyed;
use crate::classify::to_driver_error;
use crate::clock::{ServerClock, Window};
use crate::cursor::Cursors;
use crate::driver::DieselDriver;
use crate::engine::{Engine, has_work, probe_writes};
use crate::held_key::HeldKey;
use crate::reach;
use crate::sql::{Bind, FromRow, Sql};
use crate::statements::settle::complete_held;
use crate::step::{Step, step};
use crate::tables::Tables;

/// Whether names without a schema are looked up in this one, or would be if it were there.
const ON_THE_PATH: &str = "SELECT CAST(? = ANY(current_schemas(false)) OR EXISTS (SELECT 1 FROM \
     unnest(string_to_array(current_setting('search_path'), ',')) AS named (name) \
     WHERE trim(BOTH ' \"' FROM name) = ? OR (trim(BOTH ' \"' FROM name) = '$user' \
     AND current_user = ?)) AS INTEGER)::BIGINT";

/// What our first function that claims says of its tables: it is there since the first migration, and as it was made, whoever asks and
/// whatever the schema is called by now.
const AS_MADE: &str =
    "SELECT prosrc FROM pg_catalog.pg_proc WHERE oid = CAST(to_regproc('qudo_claim') AS oid)";

/// The schema in which a function's text names this table; empty where it names none.
fn schema_in<'t>(text: &'t str, table: &str) -> Option<&'t str> {
    let at = text.find(table)?;
    let before = &text[..at];
    let Some(quoted) = before.strip_suffix("\".") else { return Some("") };
    quoted.rsplit('"').next()
}

/// Two numbers that no other program is likely to lock: "qudo" in ASCII, and one of the installation's own.
const MIGRATION_LOCK: &str = "SELECT 1::BIGINT FROM pg_advisory_xact_lock(1903518831, hashtext(?))";

/// 1 where this session may write: neither on a standby nor with a read-only default.
const WRITABLE: &str = "SELECT CASE WHEN pg_is_in_recovery() OR \
     current_setting('transaction_read_only') = 'on' THEN 0 ELSE 1 END::BIGINT";

/// The engine of one PostgreSQL database.
pub(crate) struct Postgres {
    source: Arc<connect::Source>,
    sessions: Arc<session::Sessions>,
    cursors: Cursors,
    notifier: notify::Notifier,
    clock: ServerClock,
    triggers: triggers::Triggers,
}

inventory::submit! {
    DriverRegistration {
        schemes: &["postgres", "postgresql"],
        open: DieselDriver::<Postgres>::open,
    }
}

impl DieselDriver<Postgres> {
    /// Opens `postgres://user:password@host/database?…`. Does not connect.
    pub(crate) fn open(dsn: &str, password: Option<Password>) -> Result<NamedDriver, String> {
        let source = Arc::new(connect::Source::parse(dsn, password)?);
        let name = source.name.clone();
        let sessions = Arc::new(session::Sessions::new(&source));
        let notifier = notify::Notifier::new(Arc::clone(&sessions));
        let (cursors, clock) = (Cursors::default(), ServerClock::default());
        let triggers = triggers::Triggers::default();
        let engine = Postgres { source, sessions, cursors, notifier, clock, triggers };
        Ok(NamedDriver { name, driver: Arc::new(Self::new(engine)) })
    }
}

impl Engine for Postgres {
    type Conn = PgConnection;

    const NAME: &'static str = "postgres";
    const NOW: &'static str = "qudo_now()";
    const BIG: &'static str = "BIGINT";
    const FOR_UPDATE: &'static str = " FOR UPDATE";
    // Without a lock: in a transaction that looks at an older state the insert before it fails with a
    // serialization error when the row is one that this state does not show.
    const CURRENT: &'static str = "";
    const SKIP_LOCKED: &'static str = " FOR UPDATE SKIP LOCKED";
    const CAPPED_SUM: &'static str = "CAST(LEAST(SUM({}), 9223372036854775807) AS BIGINT)";
    const INSERT_IGNORE: (&'static str, &'static str) = ("INSERT", " ON CONFLICT DO NOTHING");

    fn rows_by_id<T: FromRow>(
        conn: &mut Sql<'_, PgConnection>,
        columns: &str,
        keyed: &Keyed<'_>,
        ids: &[Uuid],
        lock: &str,
    ) -> QueryResult<Vec<T>> {
        list::rows_by_id(conn, columns, keyed, ids, lock)
    }

    fn delete_by_id(
        conn: &mut Sql<'_, PgConnection>,
        keyed: &Keyed<'_>,
        ids: &[Uuid],
    ) -> QueryResult<usize> {
        list::delete_by_id(conn, keyed, ids)
    }

    fn update_by_id(
        conn: &mut Sql<'_, PgConnection>,
        set: &str,
        set_binds: &[Bind<'_>],
        keyed: &Keyed<'_>,
        ids: &[Uuid],
    ) -> QueryResult<usize> {
        list::update_by_id(conn, set, set_binds, keyed, ids)
    }

    fn free_keys(conn: &mut Sql<'_, PgConnection>, keys: &[HeldKey<'_>]) -> QueryResult<usize> {
        list::free_keys(conn, keys)
    }

    fn hold_plans(conn: &mut Sql<'_, PgConnection>, hold: bool) -> QueryResult<()> {
        let settings = connect::HELD_PLANS.map(|(name, held)| {
            format!("SET LOCAL {name} TO {}", if hold { held } else { "DEFAULT" })
        });
        conn.batch(&settings.join("; "))
    }

    fn migrations() -> &'static [Step] {
        const CREATE: Step = step!("postgres", "2026-11-30-000002_create_tables", oldest: 1);
        const OPERATE: Step = step!("postgres", "2026-11-30-000003_add_operations", oldest: 1);
        const NUMBERS: Step = step!("postgres", "2026-11-30-000004_add_numbers", oldest: 1);
        const ENQUEUE: Step = step!("postgres", "2026-11-30-000005_add_sql_enqueue", oldest: 1);
        const SENT: Step = step!("postgres", "2026-11-30-000006_add_sent", oldest: 1);
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

    fn check_names(conn: &mut Sql<'_, PgConnection>) -> QueryResult<Option<String>> {
        let ready = format!("{}ready", conn.tables.prefix());
        let Some(text) = conn.row::<String>(AS_MADE, &[])? else { return Ok(None) };
        let (named, made) = (conn.tables.schema().unwrap_or_default(), schema_in(&text, &ready));
        Ok(match made {
            None => Some("the function that claims is not qudo's".to_owned()),
            Some(made) if made == named => None,
            Some("") => Some(format!(
                "the tables in schema {named} were made without the parameter schema: leave it out, or \
                 the programs do not hear of each other"
            )),
            Some(made) if named.is_empty() => Some(format!(
                "the tables were made with schema={made}: say so, or the programs do not hear of each \
                 other"
            )),
            Some(made) => Some(format!(
                "the functions in schema {named} are about the tables in schema {made}: it was renamed \
                 after `qudo migrate` made it, and has to get that name again"
            )),
        })
    }

    fn prepare(conn: &mut Sql<'_, PgConnection>) -> QueryResult<()> {
        let Some(schema) = conn.tables.schema() else { return Ok(()) };
        let there = "SELECT nspname::TEXT FROM pg_catalog.pg_namespace WHERE nspname = ?";
        let is_new = "SELECT (to_regclass('qudo_schema_migrations') IS NULL)::INTEGER::BIGINT";
        let on_the_path = [Bind::Text(schema), Bind::Text(schema), Bind::Text(schema)];
        // Where an account looks may change any day; later that is no reason against what was made.
        if conn.row::<i64>(is_new, &[])? == Some(1)
            && conn.row::<i64>(ON_THE_PATH, &on_the_path)? == Some(1)
        {
            // Whoever names no schema would find these tables from now on, instead of its own or of none.
            let reason = format!(
                "schema={schema} is where this account's names without a schema are looked up \
                 (search_path): leave the parameter out, or name another schema"
            );
            return Err(diesel::result::Error::QueryBuilderError(reason.into()));
        }
        // To ask for it, even if it is there, takes a right to make schemas.
        if conn.row::<String>(there, &[Bind::Text(schema)])?.is_some() {
            return Ok(());
        }
        // Another installation of the same schema holds another lock, and two that make it at once fail. This
        // one is always the second that is taken.
        conn.row::<i64>(MIGRATION_LOCK, &[Bind::Text(schema)])?;
        // IF NOT EXISTS looks into a cache, which a wait for this lock does not renew.
        if conn.row::<String>(there, &[Bind::Text(schema)])?.is_some() {
            return Ok(());
        }
        // Not through the rendering, in which a schema that is called qudo_jobs would get a schema of its own.
        conn.raw.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\""))
    }

    fn write<T>(
        &self,
        act: impl FnMut(&mut Sql<'_, PgConnection>) -> QueryResult<T>,
    ) -> Result<T, DriverError> {
        self.sessions.with(true, act)
    }

    fn read<T>(
        &self,
        act: impl FnMut(&mut Sql<'_, PgConnection>) -> QueryResult<T>,
    ) -> Result<T, DriverError> {
        self.sessions.with(false, act)
    }

    fn settle<T>(
        &self,
        mut act: impl FnMut(&mut Sql<'_, PgConnection>) -> QueryResult<T>,
    ) -> Result<T, DriverError> {
        self.sessions.with(true, |conn| {
            conn.transaction(|conn| {
                if self.source.options.relaxed {
                    conn.batch("SET LOCAL synchronous_commit = off")?;
                }
                act(conn)
            })
        })
    }

    fn reset(&self) {
        self.sessions.reset();
    }

    fn probe(&self) -> Result<(), DriverError> {
        self.source.server.answers(reach::POSTGRES_HELLO)?;
        let probed = self.sessions.alone(|conn| probe_writes(conn, WRITABLE))?;
        probed.map_err(|error| to_driver_error(error, false))
    }

    fn migrate_alone<T>(
        &self,
        mut act: impl FnMut(&mut Sql<'_, PgConnection>) -> QueryResult<T>,
    ) -> Result<T, DriverError> {
        self.sessions.with(true, |conn| {
            conn.transaction(|conn| {
                // A migration takes as long as it takes, and so does that of another program; a lock of
                // a table that is in use it waits for shortly, because whoever comes later waits behind it.
                conn.batch("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")?;
                conn.row::<i64>(MIGRATION_LOCK, &[Bind::Text(&conn.tables.channel())])?;
                conn.batch("SET LOCAL lock_timeout = '5s'")?;
                act(conn)
            })
        })
    }

    fn describe(&self) -> String {
        self.source.described.clone()
    }

    fn claims_side_by_side(&self) -> bool {
        true
    }

    fn wake_source(&self) -> WakeSource {
        if self.source.listens() { WakeSource::Listen } else { WakeSource::Poll { at_most: None } }
    }

    fn transaction_within<T>(
        conn: &mut Sql<'_, PgConnection>,
        window: &Window,
        act: impl FnOnce(&mut Sql<'_, PgConnection>) -> QueryResult<T>,
    ) -> QueryResult<T> {
        session::transaction_within(conn, window, act)
    }

    fn clock(&self) -> Option<&ServerClock> {
        Some(&self.clock)
    }

    fn insert_new(
        conn: &mut Sql<'_, PgConnection>,
        jobs: &[&JobRecord],
        window: &Window,
    ) -> QueryResult<()> {
        insert::insert_new(conn, jobs, window)
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

    /// After [`settle_held`](Self::settle_held) found that a lease is not held: finds out which.
    fn complete(
        &self,
        worker: &Uuid,
        ids: &[Uuid],
        claims: &[i64],
    ) -> Result<Vec<Uuid>, DriverError> {
        let leases: Vec<_> = ids.iter().copied().zip(claims.iter().copied()).collect();
        Engine::settle(self, |conn| complete_held::<Self>(conn, worker, &leases))
    }

    fn settle_held(
        &self,
        worker: &Uuid,
        settlements: &[Settlement],
    ) -> Result<Option<Vec<Settled>>, DriverError> {
        settle::settle_held(self, worker, settlements)
    }

    fn notify(&self, queues: &mut dyn Iterator<Item = &str>) {
        self.notifier.notify(queues);
    }

    fn notify_at_commit(conn: &mut Sql<'_, PgConnection>, queue: &str) -> QueryResult<()> {
        let channel = conn.tables.channel();
        conn.rows::<notify::Nothing>(notify::NOTIFY, &[Bind::Text(&channel), Bind::Text(queue)])
            .map(drop)
    }

    fn checkup(conn: &mut Sql<'_, PgConnection>) -> QueryResult<Vec<Remark>> {
        checkup::checkup(conn)
    }

    fn notify_orders(&self) {
        self.notifier.notify(&mut [notify::ORDERS].into_iter());
    }

    fn hears_news(&self) -> bool {
        self.source.listens() && self.tables().news_channel().is_some()
    }

    fn listen_for_news(&self, on_news: &mut dyn FnMut(Heard) -> bool) -> Result<(), DriverError> {
        match self.tables().news_channel() {
            Some(channel) if self.source.listens() => {
                listen::listen_for_news(&self.source.plain_url_now(), &channel, on_news)
            }
            _ => Ok(()),
        }
    }

    fn ask_for_news(&self) {
        self.notifier.notify(&mut [notify::ASKED].into_iter());
    }

    fn say_last(&self, limit: Duration) {
        self.notifier.say_last(limit);
    }

    fn tell_news(&self, tidings: Tidings<'_>) {
        self.notifier.tell(tidings);
    }

    fn is_dear(&self, queues: &[&str]) -> bool {
        self.cursors.are_dear(queues)
    }

    fn changed(&self, queues: &[&str], abilities: &[AbilityLease]) -> Result<bool, DriverError> {
        self.sessions.with(false, |conn| has_work::<Self>(conn, queues, abilities))
    }

    fn listen(&self, on_wake: &mut dyn FnMut(Wake) -> bool) -> Result<(), DriverError> {
        if self.source.listens() {
            listen::listen(&self.source.plain_url_now(), &self.tables().channel(), on_wake)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::schema_in;

    #[test]
    fn the_schema_of_a_function_s_tables_stands_in_its_text() {
        assert_eq!(schema_in("FROM qudo_ready r", "qudo_ready"), Some(""));
        assert_eq!(schema_in("FROM \"Jobs\".qudo_ready r", "qudo_ready"), Some("Jobs"));
        assert_eq!(schema_in("FROM x", "qudo_ready"), None);
    }
}
