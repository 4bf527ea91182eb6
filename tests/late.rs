//! A write that a server gets to only after its caller has left stores nothing: servers are stopped
//! with statements in their sockets, and go on.

#![cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{Connection, MysqlConnection, SqliteConnection};
use qudo::admin::DatabaseState;
use qudo::driver::{
    AbilityLease, ClaimRequest, Deadline, Driver, DriverRegistration, Due, JobFacts, JobRecord,
    WorkerInfo,
};
use qudo::{JobId, Manager, NewJob};
use qudo_test_servers::{
    Engine, FreshDatabase, Mariadb, Mysql, Options, Postgres, Server, run_sql,
};

const LIMIT: Duration = Duration::from_secs(1);

fn server<E: Engine>() -> Option<Server<E>> {
    let options = Options { durable: true, ..Options::default() };
    qudo_test_servers::can_start(E::SHORT).then(|| Server::start(options).expect("starts"))
}

fn open(dsn: &str) -> Arc<dyn Driver> {
    DriverRegistration::open_linked(dsn).expect("valid").driver
}

fn record(uniqkey: Option<&str>, due: Due) -> JobRecord {
    let mut facts = JobFacts::new("late", "default", "json", b"1".to_vec());
    facts.uniqkey = uniqkey.map(str::to_owned);
    JobRecord { id: JobId::new(), facts, due }
}

fn jobs(dsn: &str) -> String {
    run_sql(dsn, "SELECT count(*) FROM qudo_job").expect("counts")
}

/// Sends a write to a stopped server, lets its time pass, and lets the server go on.
fn too_late<E: Engine, T: Send + 'static>(
    server: &Server<E>,
    write: impl FnOnce(Deadline) -> Result<T, qudo::driver::DriverError> + Send + 'static,
) {
    server.pause().expect("pauses");
    let deadline = Deadline::within(LIMIT);
    let writing = std::thread::spawn(move || write(deadline));
    while !deadline.is_over() {
        std::thread::park_timeout(LIMIT / 100);
    }
    assert!(!writing.is_finished(), "the server is stopped");
    server.resume().expect("resumes");
    let error = writing.join().expect("no panic").err().expect("it came too late");
    assert!(error.is_too_late() && !error.is_ambiguous(), "{error}");
}

fn what_comes_after_its_deadline_is_not_stored<E: Engine>() {
    let Some(server) = server::<E>() else { return };
    let dsn = server.url();
    let driver = open(&dsn);
    driver.migrate(false).expect("migrates");
    // The connection and the server's clock are known.
    let first = record(None, Due::Now);
    driver.insert(std::slice::from_ref(&first), Deadline::within(20 * LIMIT)).expect("in time");
    for late in [
        vec![record(None, Due::Now)],
        vec![record(Some("k"), Due::Now)],
        vec![record(None, Due::In(LIMIT))],
        (0..40).map(|_| record(None, Due::Now)).collect(),
    ] {
        let driver = Arc::clone(&driver);
        too_late(&server, move |deadline| driver.insert(&late, deadline));
        assert_eq!(jobs(&dsn), "1", "the one that was in time");
        assert_eq!(run_sql(&dsn, "SELECT count(*) FROM qudo_unique").expect("counts"), "0");
    }
    let worker = WorkerInfo::new("it", Duration::from_secs(60));
    driver.heartbeat(&worker).expect("beats");
    let claim = |driver: &dyn Driver, number, deadline| {
        driver.claim(&ClaimRequest {
            worker: worker.id,
            claim: number,
            queue: &"default".into(),
            abilities: &[AbilityLease { name: "late".into(), grab_for: 60 * LIMIT }],
            limit: 10,
            deadline,
            thorough: true,
        })
    };
    let own = Arc::clone(&driver);
    let asked = worker.clone();
    too_late(&server, move |deadline| {
        own.claim(&ClaimRequest {
            worker: asked.id,
            claim: 1,
            queue: &"default".into(),
            abilities: &[AbilityLease { name: "late".into(), grab_for: 60 * LIMIT }],
            limit: 10,
            deadline,
            thorough: true,
        })
    });
    assert_eq!(run_sql(&dsn, "SELECT count(*) FROM qudo_lease").expect("counts"), "0");
    let claimed = claim(&*driver, 2, Deadline::within(10 * LIMIT)).expect("claims");
    assert_eq!(claimed[0].id, first.id);
}

#[test]
fn what_comes_after_its_deadline_is_not_stored_on_postgres() {
    what_comes_after_its_deadline_is_not_stored::<Postgres>();
}

#[test]
fn what_comes_after_its_deadline_is_not_stored_on_mariadb() {
    what_comes_after_its_deadline_is_not_stored::<Mariadb>();
}

#[test]
fn what_comes_after_its_deadline_is_not_stored_on_mysql() {
    what_comes_after_its_deadline_is_not_stored::<Mysql>();
}

/// A lock of a whole table holds an insert up in the middle of its transaction.
fn what_waited_for_a_table_until_its_time_was_over_is_not_stored(engine: &str) {
    let Some(fresh) = FreshDatabase::on(engine, "late") else { return };
    let driver = open(fresh.url());
    driver.migrate(false).expect("migrates");
    let first = record(None, Due::Now);
    driver.insert(&[first], Deadline::within(20 * LIMIT)).expect("in time");
    for (number, table) in ["qudo_job", "qudo_ready"].into_iter().enumerate() {
        let mut other = MysqlConnection::establish(fresh.url()).expect("connects");
        other.batch_execute(&format!("LOCK TABLES {table} READ")).expect("locks");
        let own = Arc::clone(&driver);
        let deadline = Deadline::within(3 * LIMIT);
        let late = std::thread::spawn(move || own.insert(&[record(None, Due::Now)], deadline));
        let waits = "SELECT count(*) FROM information_schema.processlist \
                     WHERE db = DATABASE() AND state LIKE 'Waiting for table%'";
        while run_sql(fresh.url(), waits).expect("reads") == "0" {
            assert!(!late.is_finished(), "{engine}: {table} does not hold it up");
        }
        while !deadline.is_over() {
            std::thread::park_timeout(LIMIT / 100);
        }
        other.batch_execute("UNLOCK TABLES").expect("unlocks");
        let error = late.join().expect("no panic").expect_err("it came too late");
        assert!(error.is_too_late(), "{engine}, {number}: {error}");
        assert_eq!(jobs(fresh.url()), "1", "{engine}: {table}");
    }
}

#[test]
fn what_waited_for_a_table_until_its_time_was_over_is_not_stored_on_mariadb() {
    what_waited_for_a_table_until_its_time_was_over_is_not_stored("mariadb");
}

#[test]
fn what_waited_for_a_table_until_its_time_was_over_is_not_stored_on_mysql() {
    what_waited_for_a_table_until_its_time_was_over_is_not_stored("mysql");
}

#[test]
fn what_waited_for_a_file_until_its_time_was_over_is_not_stored() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("jobs.db");
    let driver = open(&format!("sqlite:{}", path.display()));
    driver.migrate(false).expect("migrates");
    for late in [vec![record(None, Due::Now)], vec![record(Some("k"), Due::In(LIMIT))]] {
        let mut other = SqliteConnection::establish(path.to_str().expect("UTF-8")).expect("opens");
        other.batch_execute("BEGIN IMMEDIATE").expect("locks");
        let own = Arc::clone(&driver);
        let deadline = Deadline::within(LIMIT / 4);
        let insert = std::thread::spawn(move || own.insert(&late, deadline));
        while !deadline.is_over() {
            std::thread::park_timeout(LIMIT / 100);
        }
        assert!(!insert.is_finished(), "it waits for the lock");
        other.batch_execute("ROLLBACK").expect("unlocks");
        let error = insert.join().expect("no panic").expect_err("it came too late");
        assert!(error.is_too_late(), "{error}");
    }
    assert!(driver.depth(9).expect("counts").is_empty());
}

#[test]
fn a_job_whose_time_is_over_is_not_stored_in_memory() {
    let driver = open("memory:late");
    driver.migrate(false).expect("migrates");
    let error = driver
        .insert(&[record(None, Due::Now)], Deadline::within(Duration::ZERO))
        .expect_err("too late");
    assert!(error.is_too_late(), "{error}");
    assert!(driver.depth(9).expect("counts").is_empty());
}

/// Enqueues that a stopped server swallowed are stored elsewhere, and only there.
fn a_job_that_was_stored_elsewhere_is_not_stored_here_too<E: Engine>() {
    let Some(server) = server::<E>() else { return };
    let place = tempfile::tempdir().expect("a temporary directory");
    let manager = Manager::builder()
        .linked(false)
        .database_as("stopped", server.url())
        .database_as("file", format!("sqlite:{}/jobs.db", place.path().display()))
        // A fifth of it is left for the file when the server was given up.
        .call_limit(5 * LIMIT)
        .retry_seconds(1)
        .build()
        .expect("valid");
    manager.migrate().expect("migrates");
    let job = || NewJob::named("late", 1.into());
    for name in ["stopped", "file"] {
        manager.enqueue(job().database(name)).expect("stored");
    }
    server.pause().expect("pauses");
    // Those that ask the stopped server first leave it when their time is over.
    let stored: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..16).map(|_| scope.spawn(|| manager.enqueue(job()).expect("stored"))).collect();
        clients.into_iter().map(|client| client.join().expect("no panic")).collect()
    });
    server.resume().expect("resumes");
    let deadline = Instant::now() + Duration::from_secs(30);
    let up = || {
        let reports = manager.database_reports();
        reports.iter().find(|one| one.name == "stopped").expect("known").state == DatabaseState::Up
    };
    while !up() {
        assert!(Instant::now() < deadline, "it is back");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    // Whatever lay in its sockets has been executed by then: statements of one connection are.
    let counted = || run_sql(&server.url(), "SELECT count(*) FROM qudo_job").expect("counts");
    let settled = Instant::now() + LIMIT;
    while Instant::now() < settled {
        assert_eq!(counted(), "1", "what went to the file is not here too");
    }
    for one in stored {
        let id = one.id().expect("new");
        assert_eq!(manager.lookup(id).expect("answers").expect("lives").0, "file");
    }
}

#[test]
fn a_job_that_was_stored_elsewhere_is_not_stored_here_too_on_postgres() {
    a_job_that_was_stored_elsewhere_is_not_stored_here_too::<Postgres>();
}

#[test]
fn a_job_that_was_stored_elsewhere_is_not_stored_here_too_on_mariadb() {
    a_job_that_was_stored_elsewhere_is_not_stored_here_too::<Mariadb>();
}

#[test]
fn a_job_that_was_stored_elsewhere_is_not_stored_here_too_on_mysql() {
    a_job_that_was_stored_elsewhere_is_not_stored_here_too::<Mysql>();
}

/// The clock of the server is the function `qudo_now` there, so a test can set it.
#[test]
fn writes_go_on_when_the_clock_of_a_server_jumps() {
    let Some(fresh) = FreshDatabase::on("postgres", "late") else { return };
    let driver = open(fresh.url());
    driver.migrate(false).expect("migrates");
    let store = || {
        let record = record(None, Due::Now);
        driver.insert(&[record], Deadline::within(10 * LIMIT)).expect("stored");
    };
    store();
    for hours in [1, -2, 0] {
        let sql = format!(
            "CREATE OR REPLACE FUNCTION qudo_now() RETURNS BIGINT LANGUAGE sql VOLATILE \
             PARALLEL SAFE AS $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT \
             + {hours} * 3600000000 $$"
        );
        run_sql(fresh.url(), &sql).expect("sets the clock");
        store();
    }
    assert_eq!(jobs(fresh.url()), "4");
}
