//! Which commits wait for the disk, and what `durability=relaxed` changes.
//!
//! A PostgreSQL server that is told to wait for a standby that does not exist answers no commit that
//! waits, and every commit that does not: so it shows which are which.

#![cfg(all(feature = "postgres", feature = "sqlite"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use qudo::driver::{
    AbilityLease, ClaimRequest, ClaimedJob, Deadline, Driver, DriverRegistration, ExceptionRecord,
    Extras, JobRecord, ManagerInside, Settled, Settlement, Verdict, WorkerId, WorkerInfo,
};
use qudo::hook::FailureKind;
use qudo::{Manager, NewJob};
use qudo_test_servers::{Engine, Options, Postgres, PostgresServer, Server, can_start};
#[cfg(feature = "mysql")]
use qudo_test_servers::{Mariadb, Mysql};

const SOON: Duration = Duration::from_secs(30);

fn open(dsn: &str) -> Arc<dyn Driver> {
    DriverRegistration::open_linked(dsn).expect("valid").driver
}

fn claim(driver: &dyn Driver, worker: WorkerId, number: i64) -> ClaimedJob {
    let abilities = [AbilityLease { name: "anything".into(), grab_for: Duration::from_secs(600) }];
    let (queue, abilities) = (&"default".into(), &abilities[..]);
    let request = ClaimRequest {
        worker,
        claim: number,
        queue,
        abilities,
        limit: 1,
        deadline: Deadline::NONE,
        thorough: true,
    };
    driver.claim(&request).expect("claims").remove(0)
}

fn complete(job: ClaimedJob) -> Settlement {
    Settlement { job: Box::new(job), verdict: Verdict::Complete, extras: None }
}

/// A run that failed and is tried again: the long way of a settle.
fn retry(job: ClaimedJob) -> Settlement {
    let exception = ExceptionRecord::new(FailureKind::Error, "oh no");
    let extras = Extras { exception: Some(exception), ..Extras::default() };
    let verdict = Verdict::Retry(Duration::from_secs(600));
    Settlement { job: Box::new(job), verdict, extras: Some(Box::new(extras)) }
}

/// Runs on a thread; the answer comes over the channel.
fn ask<T: Send + 'static>(
    driver: &Arc<dyn Driver>,
    act: impl FnOnce(&dyn Driver) -> T + Send + 'static,
) -> mpsc::Receiver<T> {
    let (sender, answer) = mpsc::channel();
    let driver = Arc::clone(driver);
    std::thread::spawn(move || sender.send(act(&*driver)));
    answer
}

#[test]
fn claims_and_relaxed_settles_do_not_wait_for_the_disk_and_all_else_does() {
    let server = PostgresServer::start(Options { durable: true, ..Options::default() });
    let server = server.expect("starts");
    let manager = Manager::builder().linked(false).database(server.url()).build().expect("valid");
    manager.migrate().expect("migrates").remove(0).answer.expect("migrates");
    let job = |n: i32| NewJob::named("anything", serde_json::json!(n));
    let stored = manager.enqueue_many((0..3).map(job)).expect("stored");
    assert!(stored.iter().all(qudo::Enqueued::is_new));
    let late: JobRecord = manager.prepare_record(job(3)).expect("valid").expect("not suppressed");
    let full = open(&server.url());
    let relaxed = open(&format!("{}?durability=relaxed", server.url()));
    let stand_by = |names: &str| {
        server.query(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"))
    };
    let waiting = || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        server.query(sql).expect("counts").trim().parse::<i32>().expect("a number")
    };
    let until = |waiters: i32| {
        let deadline = Instant::now() + SOON;
        while waiting() != waiters {
            assert!(Instant::now() < deadline, "{} wait, not {waiters}", waiting());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    };
    let worker = WorkerId::new();
    let third = claim(&*full, worker, 3);
    stand_by("nobody").expect("set");
    server.query("SELECT pg_reload_conf()").expect("reloads");

    // The server follows when its processes have read the setting: commits pass until one waits, for ever.
    let commit = || ask(&full, |driver| driver.heartbeat(&WorkerInfo::new("it", SOON)));
    let deadline = Instant::now() + SOON;
    let mut first_to_wait = commit();
    while waiting() == 0 {
        assert!(Instant::now() < deadline, "no commit waits");
        if first_to_wait.recv_timeout(Duration::from_millis(5)).is_ok() {
            first_to_wait = commit();
        }
    }
    // From now on each commit that waits for the disk does, as this one shows.
    let settled = ask(&full, move |driver| driver.settle(worker, &[complete(third)]));
    until(2);
    let (first, second) = (claim(&*full, worker, 1), claim(&*full, worker, 2));
    for settlement in [complete(first), retry(second)] {
        let answer = ask(&relaxed, move |driver| driver.settle(worker, &[settlement]));
        let answer = answer.recv_timeout(SOON).expect("does not wait").expect("settles");
        assert_eq!(answer, [Settled::Done]);
    }
    assert_eq!(waiting(), 2, "the trap is still set");
    let inserted = ask(&relaxed, move |driver| driver.insert(&[late], Deadline::NONE));
    until(3);

    stand_by("").expect("set");
    server.query("SELECT pg_reload_conf()").expect("reloads");
    first_to_wait.recv_timeout(SOON).expect("goes on").expect("beats");
    settled.recv_timeout(SOON).expect("goes on").expect("settles");
    inserted.recv_timeout(SOON).expect("goes on").expect("inserts");
}

#[test]
fn a_parameter_that_a_database_does_not_know_is_refused_by_name() {
    let refused = |dsn: &str| {
        let built = Manager::builder().linked(false).database(dsn).build();
        built.expect_err("refused").to_string()
    };
    let wrong = refused("sqlite:jobs.db?durability=never");
    assert!(wrong.contains("full or relaxed"), "{wrong}");
    let unknown = refused("sqlite:jobs.db?mode=ro");
    assert!(unknown.contains("mode=ro"), "{unknown}");
    let elsewhere = refused("sqlite:jobs.db?pooler=transaction");
    assert!(elsewhere.contains("PostgreSQL only"), "{elsewhere}");
    #[cfg(feature = "mysql")]
    {
        let mysql = refused("mysql://app:tiger@db/jobs?durability=relaxed");
        assert!(mysql.contains("innodb_flush_log_at_trx_commit"), "{mysql}");
        assert!(!mysql.contains("tiger"), "{mysql}");
    }
}

/// What a checkup says of a server's durability.
fn weaknesses<E: Engine>(durable: bool) -> Option<Vec<String>> {
    if !can_start(E::SHORT) {
        return None;
    }
    let server = Server::<E>::start(Options { durable, ..Options::default() }).expect("starts");
    let manager = Manager::builder().linked(false).database(server.url()).build().expect("valid");
    manager.migrate().expect("migrates").remove(0).answer.expect("migrates");
    let remarks = manager.checkup().remove(0).answer.expect("answers");
    Some(remarks.iter().map(ToString::to_string).collect())
}

#[test]
fn a_checkup_names_the_settings_with_which_postgres_may_lose_commits() {
    let weak = weaknesses::<Postgres>(false).expect("always there");
    assert!(weak.iter().any(|one| one.starts_with("durability: fsync is off")), "{weak:?}");
    assert_eq!(weaknesses::<Postgres>(true), Some(Vec::new()));
}

#[cfg(feature = "mysql")]
#[test]
fn a_checkup_names_the_settings_with_which_mariadb_and_mysql_may_lose_commits() {
    for weak in [weaknesses::<Mariadb>(false), weaknesses::<Mysql>(false)].into_iter().flatten() {
        let flush = "durability: innodb_flush_log_at_trx_commit is ";
        assert!(weak.iter().any(|one| one.starts_with(flush)), "{weak:?}");
    }
    for sound in [weaknesses::<Mariadb>(true), weaknesses::<Mysql>(true)].into_iter().flatten() {
        assert_eq!(sound, Vec::<String>::new());
    }
}
