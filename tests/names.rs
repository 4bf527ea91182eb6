//! One database under one name: two lanes would work it as one worker, and a move between the names
//! would delete what it moves.

#![cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use qudo::{AuditOptions, DatabaseState, Error, Job, Manager, ManagerBuilder};
use qudo_test_servers::FreshDatabase;

const DEADLINE: Duration = Duration::from_secs(30);

static RUNS: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// Counts its runs.
#[qudo::ability]
fn counts(_: &Job, number: u64) -> qudo::Result {
    RUNS.lock().unwrap_or_else(PoisonError::into_inner).push(number);
    Ok(())
}

fn builder() -> ManagerBuilder {
    Manager::builder().linked(false).ability::<counts>()
}

fn names(error: &Error) -> (String, String) {
    match error {
        Error::SameDatabase { first, second, .. } => (first.clone(), second.clone()),
        other => panic!("another error: {other}"),
    }
}

fn sqlite(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

#[test]
fn a_file_under_two_names_is_refused_however_it_is_written() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let path = place.path().join("jobs.db");
    builder().database(sqlite(&path)).build().expect("valid").migrate().expect("migrates");
    let link = place.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).expect("linked");
    let detour = place.path().join(".").join("..").join(place.path().file_name().expect("named"));
    for other in [path.clone(), link, detour.join("jobs.db")] {
        let two = builder().database_as("one", sqlite(&path));
        let error = two.database_as("two", sqlite(&other)).build().expect_err("one file");
        assert_eq!(names(&error), ("one".to_owned(), "two".to_owned()), "{}", other.display());
    }
    let manager = builder().database_as("one", sqlite(&path)).build().expect("valid");
    let error = manager.add_database_as("two", &sqlite(&path)).expect_err("one file");
    assert_eq!(names(&error), ("one".to_owned(), "two".to_owned()));
    let spooled = builder().database_as("one", sqlite(&path)).spool(sqlite(&path), 10).build();
    assert_eq!(names(&spooled.expect_err("one file")).0, "one");
}

#[test]
fn a_memory_database_under_two_names_is_refused() {
    let driver = std::sync::Arc::new(qudo::MemoryDriver::default());
    let one = builder().driver("one", driver.clone());
    let error = one.driver("two", driver).build().expect_err("one database");
    assert_eq!(names(&error), ("one".to_owned(), "two".to_owned()));
}

/// A server's database shows only when it is asked: then the later name is out of use, and says why.
fn a_server_database_is_worked_under_its_first_name_only(engine: &str) {
    const JOBS: u64 = 300;
    let Some(fresh) = FreshDatabase::on(engine, "names") else { return };
    let two = builder().workers(2).database_as("one", fresh.url()).database_as("two", fresh.url());
    let manager = two.build().expect("looks like two");
    let applied = manager.migrate();
    assert!(applied.is_ok(), "{:?}", applied.err());
    let error = manager.move_jobs("one", "two").expect_err("they are one");
    assert_eq!(names(&error), ("one".to_owned(), "two".to_owned()));
    let base = 1_000_000 * (engine.len() as u64 + u64::from(engine.as_bytes()[1]));
    let jobs = (0..JOBS).map(|number| counts::job(base + number).database("one"));
    manager.enqueue_many(jobs).expect("stored");
    let report = manager.audit(AuditOptions::default());
    assert_eq!(report.jobs, JOBS, "none is counted twice: {report}");
    assert_eq!(names(&report.failures[0].1).1, "two");
    let running = manager.start().expect("starts");
    let done = || {
        let runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
        runs.iter().filter(|run| (base..base + JOBS).contains(run)).count() as u64
    };
    let late = Instant::now() + DEADLINE;
    let is_down = || {
        let reports = manager.databases();
        let two = reports.into_iter().find(|one| one.name == "two").expect("known");
        two.state != DatabaseState::Up
            && two.reason.is_some_and(|reason| reason.contains("second name"))
    };
    while done() < JOBS || !is_down() {
        assert!(Instant::now() < late, "{} of {JOBS} ran, down: {}", done(), is_down());
        std::thread::yield_now();
    }
    running.stop();
    let runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
    let ours: Vec<_> = runs.iter().filter(|run| (base..base + JOBS).contains(run)).collect();
    assert_eq!(ours.len(), ours.iter().collect::<HashSet<_>>().len(), "each ran once");
}

#[test]
fn a_postgres_database_is_worked_under_its_first_name_only() {
    a_server_database_is_worked_under_its_first_name_only("postgres");
}

#[test]
fn a_mariadb_database_is_worked_under_its_first_name_only() {
    a_server_database_is_worked_under_its_first_name_only("mariadb");
}

#[test]
fn a_mysql_database_is_worked_under_its_first_name_only() {
    a_server_database_is_worked_under_its_first_name_only("mysql");
}
