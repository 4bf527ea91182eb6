//! Several installations in one database, told apart by `schema` and `table_prefix`: they do not meet.

#![cfg(all(feature = "postgres", feature = "mysql"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::{Connection, MysqlConnection, PgConnection, RunQueryDsl, SqliteConnection};
use qudo::admin::AuditOptions;
use qudo::admin::{ExceptionFilter, Paging};
use qudo::driver::{DriverRegistration, SchemaState};
use qudo::{
    CompleteIn, EnqueueIn, Error, Job, JobError, JobId, JobResult, Manager, ManagerBuilder,
};
use qudo_driver_tests::{Bed, DEADLINE, Fresh, Log, eventually, run_all};
use qudo_test_servers::FreshDatabase;

/// How the tables of several installations of one database may be named.
const ON_POSTGRES: [&str; 7] = [
    "",
    "schema=jobs",
    // Another one: names in schemas keep their case.
    "schema=Jobs",
    "table_prefix=mail_",
    "schema=jobs&table_prefix=mail_",
    // Beginning as another does.
    "table_prefix=qudo_two_",
    // With what every name of the default begins with.
    "schema=qudo_jobs&table_prefix=qudo_two_",
];

const ELSEWHERE: [&str; 4] =
    ["", "table_prefix=mail_", "table_prefix=qudo_two_", "table_prefix=m_"];

/// One database with its installations.
struct House {
    engine: &'static str,
    plain: String,
    /// Their data source names.
    installations: Vec<String>,
    _database: FreshDatabase,
}

impl House {
    fn open(engine: &'static str) -> Option<Self> {
        let database = FreshDatabase::on(engine, "house")?;
        let plain = database.url().to_owned();
        let hows =
            if matches!(engine, "postgres" | "pooled") { &ON_POSTGRES[..] } else { &ELSEWHERE };
        let sign = if plain.contains('?') { '&' } else { '?' };
        let installations = hows.iter().map(|how| format!("{plain}{sign}{how}")).collect();
        Some(Self { engine, plain, installations, _database: database })
    }

    /// A bed of one installation; its name is its number.
    fn bed(&self, number: usize) -> Bed {
        let fresh = Fresh::new(&self.installations[number], ());
        Bed::unmigrated([(number.to_string(), fresh)])
    }

    fn beds(&self) -> Vec<Bed> {
        (0..self.installations.len()).map(|number| self.bed(number)).collect()
    }

    /// A manager over all of them.
    fn all(&self) -> ManagerBuilder {
        let builder = Manager::builder().linked(false).workers(1);
        let numbered = self.installations.iter().enumerate();
        numbered.fold(builder, |builder, (n, dsn)| builder.database_as(n.to_string(), dsn))
    }
}

macro_rules! in_one_database {
    ($($name:ident,)*) => {
        in_one_database!(@ sqlite $($name)*);
        in_one_database!(@ postgres $($name)*);
        in_one_database!(@ pooled $($name)*);
        in_one_database!(@ mariadb $($name)*);
        in_one_database!(@ mysql $($name)*);
    };
    (@ $engine:ident $($name:ident)*) => {
        mod $engine {
            $(#[test]
            fn $name() {
                if let Some(house) = super::House::open(stringify!($engine)) {
                    super::$name(&house);
                }
            })*
        }
    };
}

in_one_database! {
    they_are_made_at_once_and_one_goes_without_the_others,
    neither_jobs_nor_keys_nor_failures_nor_workers_meet,
    a_job_starts_at_once_where_it_was_enqueued,
    jobs_move_from_one_to_another,
    a_callers_transaction_reaches_the_one_it_means,
}

#[qudo::ability]
fn says(job: &Job, what: String) -> JobResult<String> {
    job.plugin::<Log>()?.add(what.clone());
    if what == "fails" { Err(JobError::abort("it was told to")) } else { Ok(what) }
}

fn they_are_made_at_once_and_one_goes_without_the_others(house: &House) {
    std::thread::scope(|scope| {
        for bed in house.beds() {
            scope.spawn(move || bed.builder().build().expect("valid").migrate().expect("migrates"));
        }
    });
    let beds = house.beds();
    for (number, bed) in beds.iter().enumerate() {
        let driver = bed.driver();
        assert_eq!(driver.schema().expect("answers"), SchemaState::Current);
        assert!(!driver.revert().expect("reverts").is_empty());
        let SchemaState::Behind(_) = driver.schema().expect("answers") else {
            panic!("{number} is reverted")
        };
        for other in &beds[number + 1..] {
            assert_eq!(other.driver().schema().expect("answers"), SchemaState::Current);
            let (manager, log) = other.manager::<says>();
            manager.enqueue(says::job(number.to_string())).expect("stored");
            assert_eq!(run_all(&manager), 1);
            assert_eq!(log.lines(), [number.to_string()]);
        }
    }
}

fn migrated(house: &House) -> Vec<Bed> {
    house.all().build().expect("valid").migrate().expect("migrates");
    house.beds()
}

fn neither_jobs_nor_keys_nor_failures_nor_workers_meet(house: &House) {
    let beds = migrated(house);
    let managers: Vec<_> = beds.iter().map(|bed| bed.manager::<says>()).collect();
    let id = JobId::new();
    for (number, (manager, _)) in managers.iter().enumerate() {
        // The same id and the same key in each.
        let job = says::job(number.to_string()).with_id(id).uniqkey("k");
        assert!(manager.enqueue(job).expect("stored").is_new());
        assert!(manager.enqueue(says::job("fails".to_owned())).expect("stored").is_new());
    }
    for (number, (manager, log)) in managers.iter().enumerate() {
        assert_eq!(manager.holder("says", "k").expect("answers").expect("held").1, id);
        assert_eq!(run_all(manager), 2);
        assert_eq!(log.lines(), [number.to_string(), "fails".to_owned()]);
        assert_eq!(manager.holder("says", "k").expect("answers"), None);
        let failed = manager.exceptions(&ExceptionFilter::all(), &Paging::default());
        assert_eq!((failed.rows().count(), failed.errors().count()), (1, 0));
        for (other, _) in &managers[number + 1..] {
            let failed = other.exceptions(&ExceptionFilter::all(), &Paging::default());
            assert_eq!((failed.rows().count(), failed.errors().count()), (0, 0));
            assert_eq!(other.holder("says", "k").expect("answers").expect("held").1, id);
        }
    }
    // Each has its own workers, orders and identity.
    let working = managers[1].0.start().expect("starts");
    let workers = |at: usize| managers[at].0.workers().remove(0).answer.expect("up").len();
    eventually("one knows its worker", || workers(1) == 1);
    assert_eq!(workers(0), 0);
    working.stop();
    managers[0].0.pause("0").expect("pauses");
    assert!(!beds[1].driver().control().expect("answers").paused);
    assert!(house.all().build().expect("valid").audit(AuditOptions::default()).is_clean());
}

fn a_job_starts_at_once_where_it_was_enqueued(house: &House) {
    if house.engine != "postgres" {
        return; // The others have no channel that could be shared.
    }
    let beds = migrated(house);
    let services: Vec<_> = beds
        .iter()
        .map(|bed| {
            bed.with(|one| one.ability::<says>().workers(1).delay(Duration::from_secs(3600)))
        })
        .collect();
    let working: Vec<_> =
        services.iter().map(|(manager, _)| manager.start().expect("starts")).collect();
    for bed in &beds {
        // As another process: alone, among others, and in a transaction of the caller's.
        let client = bed.builder().build().expect("valid");
        let sent = client.enqueue(says::job("alone".to_owned())).expect("stored");
        sent.wait_as::<String>(DEADLINE).expect("is woken");
        let both = client.enqueue_many(["a", "b"].map(|what| says::job(what.to_owned())));
        for sent in both.expect("stored") {
            sent.wait_as::<String>(DEADLINE).expect("is woken");
        }
        let mut conn = PgConnection::establish(&house.plain).expect("connects");
        let sent = conn.transaction(|conn| {
            let sent = client.enqueue_in(conn, says::job("in".to_owned()));
            Ok::<_, diesel::result::Error>(sent.expect("stored"))
        });
        sent.expect("commits").wait_as::<String>(DEADLINE).expect("is woken");
    }
    for one in working {
        one.stop();
    }
    for (_, log) in services {
        assert_eq!(log.lines().len(), 4);
    }
}

fn jobs_move_from_one_to_another(house: &House) {
    migrated(house);
    let log = Log::default();
    let manager = house.all().ability::<says>().plugin(log.clone()).build().expect("valid");
    for n in 0..20 {
        manager.enqueue(says::job(n.to_string()).database("1")).expect("stored");
    }
    manager.drain("1").expect("drains");
    let moved = manager.move_jobs("1", "2").expect("moves");
    assert_eq!((moved.moved, moved.stayed), (20, 0));
    manager.pause("1").expect("pauses");
    manager.pause("0").expect("pauses");
    assert_eq!(run_all(&manager), 20);
    assert!(manager.audit(AuditOptions::default()).is_clean());
}

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

/// Writes a row beside the end of its job.
#[qudo::ability]
fn effect(job: &Job) -> JobResult {
    const SQL: &str = "INSERT INTO effects VALUES (1)";
    match job.engine() {
        "sqlite" => job.complete_in(|conn: &mut SqliteConnection| Ok(conn.batch_execute(SQL)?)),
        "postgres" => job.complete_in(|conn: &mut PgConnection| Ok(conn.batch_execute(SQL)?)),
        _ => job.complete_in(|conn: &mut MysqlConnection| Ok(conn.batch_execute(SQL)?)),
    }
}

fn a_callers_transaction_reaches_the_one_it_means(house: &House) {
    let beds = migrated(house);
    let plain = house.plain.split('?').next().expect("the part before");
    match house.engine {
        "sqlite" => {
            let mut conn =
                SqliteConnection::establish(&plain["sqlite:".len()..]).expect("connects");
            conn.batch_execute("PRAGMA busy_timeout = 5000").expect("sets");
            in_transactions(house, &beds, &mut conn);
        }
        "postgres" | "pooled" => {
            let mut conn = PgConnection::establish(plain).expect("connects");
            if house.engine == "pooled" {
                conn.set_prepared_statement_cache_size(diesel::connection::CacheSize::Disabled);
            }
            in_transactions(house, &beds, &mut conn);
        }
        _ => {
            let mut conn = MysqlConnection::establish(plain).expect("connects");
            in_transactions(house, &beds, &mut conn);
        }
    }
}

fn in_transactions<C>(house: &House, beds: &[Bed], conn: &mut C)
where
    C: Connection
        + SimpleConnection
        + qudo::transactional::Transactional
        + diesel::connection::LoadConnection,
    diesel::query_builder::SqlQuery: diesel::query_builder::QueryFragment<C::Backend>,
    Number: diesel::QueryableByName<C::Backend>,
    diesel::query_builder::SqlQuery: for<'q> diesel::query_dsl::LoadQuery<'q, C, Number>,
{
    conn.batch_execute("CREATE TABLE effects (n INTEGER)").expect("makes");
    let all = house.all().ability::<effect>().build().expect("valid");
    // Which one is meant cannot be seen on the connection.
    let error = all.enqueue_in(conn, effect::job()).expect_err("ambiguous");
    assert!(matches!(error, Error::InvalidOption { option: "database", .. }), "{error}");
    for (number, bed) in beds.iter().enumerate() {
        let job = || effect::job().uniqkey("k").database(number.to_string());
        let id = all.enqueue_in(conn, job()).expect("stored").id().expect("not suppressed");
        assert_eq!(all.enqueue_in(conn, job()).expect("answers").id(), Some(id), "its own key");
        let alone = bed.builder().ability::<effect>().build().expect("valid");
        assert_eq!(alone.job_count().remove(0).answer.expect("up")[0].count, 1);
        // A manager of one installation needs not say which.
        assert_eq!(
            alone.enqueue_in(conn, effect::job().uniqkey("k")).expect("answers").id(),
            Some(id)
        );
        assert_eq!(run_all(&alone), 1);
        let effects = diesel::sql_query("SELECT COUNT(*) AS n FROM effects");
        let effects = effects.get_result::<Number>(conn).expect("counts").n;
        assert_eq!(effects, number as i64 + 1);
    }
}

fn refused(dsn: &str) -> String {
    let manager = Manager::builder().linked(false).ability::<says>().plugin(Log::default());
    let manager = manager.database(dsn).build().expect("valid");
    let error = manager.migrate().expect_err("refused");
    assert!(manager.start().is_err(), "nobody works it either");
    error.to_string()
}

/// It would be the default's under another name: with another channel, and another lock for migrations.
#[test]
fn a_schema_where_names_without_one_are_looked_up_is_refused() {
    for engine in ["postgres", "pooled"] {
        let Some(house) = House::open(engine) else { continue };
        let sign = if house.plain.contains('?') { '&' } else { '?' };
        let named = |schema: &str| format!("{}{sign}schema={schema}", house.plain);
        assert!(refused(&named("public")).contains("search_path"));
        // PostgreSQL looks into a schema that is called as the account before all others.
        let account = url::Url::parse(&house.plain).expect("a URL").username().to_owned();
        assert!(refused(&named(&account)).contains("search_path"));
        let there = "SELECT count(*) FROM pg_namespace WHERE nspname = current_user";
        let direct = house.plain.split('?').next().expect("the part before");
        assert_eq!(qudo_test_servers::run_sql(direct, there).expect("counts").trim(), "0");
    }
}

/// How the tables were made decides, and not where an account looks by itself, which may change any day.
#[test]
fn tables_are_named_as_they_were_made() {
    let Some(house) = House::open("postgres") else { return };
    let plain = &house.plain;
    let migrate = |dsn: &str| {
        let manager = Manager::builder().linked(false).database(dsn).build().expect("valid");
        manager.migrate().map(|_| manager)
    };
    migrate(plain).expect("the default");
    let error = refused(&format!("{plain}?schema=public"));
    assert!(error.contains("leave it out"), "{error}");
    let driver = DriverRegistration::open_linked(&format!("{plain}?schema=public"));
    assert!(driver.expect("opens").driver.revert().is_err(), "nor are they removed");
    migrate(&format!("{plain}?schema=jobs")).expect("another");
    // The account begins to look into it.
    let looks = format!("{plain}?options=-c%20search_path%3Djobs");
    let manager = migrate(&format!("{looks}&schema=jobs")).expect("it goes on as before");
    assert!(manager.enqueue(says::job("x".to_owned())).expect("stored").is_new());
    let error = refused(&looks);
    assert!(error.contains("schema=jobs"), "{error}");
    // One that is not there yet would be looked into as soon as it is.
    let soon = format!("{plain}?options=-c%20search_path%3Dsoon,public&schema=soon");
    assert!(refused(&soon).contains("search_path"));
}

/// The text of a function stays as it was, so a claim would take the jobs of whoever has the name now.
#[test]
fn a_schema_that_was_renamed_is_refused_until_it_has_its_name_again() {
    let Some(house) = House::open("postgres") else { return };
    let named = |schema: &str| format!("{}?schema={schema}", house.plain);
    let manager = Manager::builder().linked(false).database(named("jobs")).build().expect("valid");
    manager.migrate().expect("migrates");
    let rename = |from: &str, to: &str| {
        let sql = format!("ALTER SCHEMA {from} RENAME TO {to}");
        qudo_test_servers::run_sql(&house.plain, &sql).expect("renames");
    };
    rename("jobs", "old");
    assert!(refused(&named("old")).contains("renamed"));
    rename("old", "jobs");
    assert!(manager.migrate().expect("all is well")[0].answer.is_ok());
}

#[test]
fn tables_of_others_are_left_alone() {
    for engine in ["sqlite", "postgres", "mariadb", "mysql"] {
        let Some(house) = House::open(engine) else { continue };
        let sql = "CREATE TABLE shop_worker (n INTEGER)";
        match &house.plain.strip_prefix("sqlite:") {
            Some(file) => {
                let mut conn = SqliteConnection::establish(file).expect("opens");
                conn.batch_execute(sql).expect("makes");
            }
            None => drop(qudo_test_servers::run_sql(&house.plain, sql).expect("makes")),
        }
        let dsn = format!("{}?table_prefix=shop_", house.plain);
        let error = refused(&dsn);
        assert!(error.contains("shop_worker"), "{engine}: {error}");
        let driver = DriverRegistration::open_linked(&dsn).expect("opens").driver;
        assert!(matches!(driver.schema(), Ok(SchemaState::Behind(_))), "nothing was made");
    }
}

#[test]
fn a_table_of_others_is_left_alone_by_a_later_migration_too() {
    for engine in ["sqlite", "postgres", "mariadb", "mysql"] {
        let Some(house) = House::open(engine) else { continue };
        let dsn = format!("{}?table_prefix=shop_", house.plain);
        let driver = DriverRegistration::open_linked(&dsn).expect("opens").driver;
        driver.migrate(false).expect("migrates");
        // As a program made it that knew no more than the migrations before.
        let run = |sql: &str| match &house.plain.strip_prefix("sqlite:") {
            Some(file) => {
                let mut conn = SqliteConnection::establish(file).expect("opens");
                conn.batch_execute("PRAGMA busy_timeout = 30000").expect("sets");
                conn.batch_execute(sql).expect("changes");
            }
            None => drop(qudo_test_servers::run_sql(&house.plain, sql).expect("changes")),
        };
        run("DROP TABLE shop_stat");
        run("DROP TABLE shop_stat_report");
        run("ALTER TABLE shop_ready DROP COLUMN ready_at");
        if engine == "postgres" {
            run("DROP FUNCTION shop_claim_2");
        }
        run("DELETE FROM shop_schema_migrations WHERE version = '20261130000004'");
        run("CREATE TABLE shop_stat (n INTEGER)");
        let error = driver.migrate(false).expect_err("it is another's").to_string();
        assert!(error.contains("shop_stat"), "{engine}: {error}");
        assert!(matches!(driver.schema(), Ok(SchemaState::Behind(missing)) if missing.len() == 1));
        run("DROP TABLE shop_stat");
        assert_eq!(driver.migrate(false).expect("migrates").len(), 1, "{engine}");
        assert_eq!(driver.schema().expect("answers"), SchemaState::Current);
    }
}

#[test]
fn a_database_of_another_kind_than_the_connection_is_refused() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("jobs.db").display().to_string();
    let spool = format!("sqlite:{}/spool.db", place.path().display());
    let manager = Manager::builder()
        .linked(false)
        .ability::<says>()
        .database_as("file", format!("sqlite:{file}?table_prefix=mail_"))
        .database_as("other", "memory:of another kind")
        // It has other names, and no caller's transaction is to it.
        .spool(spool, 9)
        .build()
        .expect("valid");
    manager.migrate().expect("migrates");
    let mut conn = SqliteConnection::establish(&file).expect("opens");
    conn.batch_execute("PRAGMA busy_timeout = 30000").expect("sets");
    let job = || says::job("x".to_owned());
    assert!(manager.enqueue_in(&mut conn, job()).expect("stored").is_new());
    assert!(manager.enqueue_in(&mut conn, job().database("file")).expect("stored").is_new());
    let error = manager.enqueue_in(&mut conn, job().database("other")).expect_err("memory");
    assert!(matches!(error, Error::InvalidOption { option: "database", .. }), "{error}");
}

#[test]
fn a_name_that_cannot_be_is_refused_where_it_stands() {
    for (dsn, word) in [
        ("sqlite:x.db?schema=jobs", "PostgreSQL only"),
        ("mysql://u@h/d?schema=jobs", "PostgreSQL only"),
        ("postgres://u@h/d?schema=pg_x", "PostgreSQL's own"),
        ("postgres://u@h/d?table_prefix=A", "small letters"),
        ("sqlite:x.db?table_prefix=", "is empty"),
    ] {
        let error = Manager::builder().linked(false).database(dsn).build().expect_err("refused");
        assert!(error.to_string().contains(word), "{error}");
        assert!(DriverRegistration::open_linked(dsn).is_err());
    }
}

#[test]
fn a_database_is_told_by_its_installation_too() {
    let told =
        ["postgres://u:p@h/d", "postgres://u:p@h/d?schema=jobs&table_prefix=mail_"].map(|dsn| {
            let named = DriverRegistration::open_linked(dsn).expect("opens");
            (named.name, named.driver.describe())
        });
    assert_ne!(told[0].0, told[1].0);
    assert!(told[1].1.contains("jobs.mail_"), "{told:?}");
}
