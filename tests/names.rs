//! One database under one name: two lanes would work it as one worker, and a move between the names
//! would delete what it moves.

#![cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use qudo::admin::{AuditOptions, DatabaseState};
use qudo::driver::{Driver, MemoryDriver};
use qudo::driver::{DriverError, DriverRegistration, ErrorKind, JobState};
use qudo::testing::FaultyDriver;
use qudo::{Error, Job, Manager, ManagerBuilder};
use qudo_test_servers::{FreshDatabase, Proxy};

const DEADLINE: Duration = Duration::from_secs(30);

static RUNS: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// Counts its runs.
#[qudo::ability]
fn counts(_: &Job, number: u64) -> qudo::JobResult {
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
    let driver = std::sync::Arc::new(qudo::driver::MemoryDriver::default());
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
    // The second name may be out of use by then.
    let error = manager.move_jobs("one", "two").expect_err("they are one").to_string();
    assert!(error.contains("\"one\"") && error.contains("\"two\""), "{error}");
    let base = 1_000_000 * (engine.len() as u64 + u64::from(engine.as_bytes()[1]));
    let jobs = (0..JOBS).map(|number| counts::job(base + number).database("one"));
    manager.enqueue_many(jobs).expect("stored");
    let report = manager.audit(AuditOptions::default());
    assert_eq!(report.jobs, JOBS, "none is counted twice: {report}");
    assert!(report.failures[0].1.to_string().contains("\"two\""), "{report}");
    let running = manager.start().expect("starts");
    let done = || {
        let runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
        runs.iter().filter(|run| (base..base + JOBS).contains(run)).count() as u64
    };
    let late = Instant::now() + DEADLINE;
    let is_down = || {
        let reports = manager.database_reports();
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

/// Runs that begin, wait until they are let go, and are counted.
static BEGUN: Mutex<Vec<u64>> = Mutex::new(Vec::new());
static LET_GO: Mutex<Vec<u64>> = Mutex::new(Vec::new());

fn begun(number: u64) -> usize {
    let begun = BEGUN.lock().unwrap_or_else(PoisonError::into_inner);
    begun.iter().filter(|one| **one == number).count()
}

fn let_go(number: u64) {
    LET_GO.lock().unwrap_or_else(PoisonError::into_inner).push(number);
}

#[qudo::ability]
fn held(_: &Job, number: u64) -> qudo::JobResult {
    BEGUN.lock().unwrap_or_else(PoisonError::into_inner).push(number);
    while !LET_GO.lock().unwrap_or_else(PoisonError::into_inner).contains(&number) {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    Ok(())
}

#[track_caller]
fn wait_until(what: &str, done: impl Fn() -> bool) {
    let late = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < late, "{what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn state(dsn: &str, job: qudo::JobId) -> Option<JobState> {
    let driver = DriverRegistration::open_linked(dsn).expect("valid").driver;
    driver.state(job).expect("answers")
}

/// Threads of this process by the beginning of their name, of which the system keeps 15 bytes.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("lists");
    let names = tasks.flatten().filter_map(|one| {
        // One may end meanwhile.
        std::fs::read_to_string(one.path().join("comm")).ok()
    });
    names.filter(|found| found.trim() == name).count()
}

/// Both lanes work for one worker: what ends the first must not give back the leases of the second.
#[test]
fn a_database_that_is_removed_and_added_again_keeps_its_running_jobs() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let dsn = sqlite(&place.path().join("jobs.db"));
    let manager = builder()
        .ability::<held>()
        .workers(2)
        .shutdown_timeout(Duration::from_millis(100))
        .database_as("old", &*dsn)
        .database_as("other", "memory:beside")
        .build()
        .expect("valid");
    manager.migrate().expect("migrates");
    let running = manager.start().expect("starts");
    let job = |number, name: &str| {
        let stored = manager.enqueue(held::job(number).database(name)).expect("stored");
        wait_until("it begins", || begun(number) == 1);
        stored.id().expect("new")
    };
    let first = job(101, "old");
    manager.remove_database("old").expect("known");
    manager.add_database_as("new", &dsn).expect("added");
    let second = job(102, "new");
    let_go(101);
    wait_until("its end is settled", || state(&dsn, first).is_none());
    wait_until("the old lane ends", || threads("qudo-settle-old") == 0);
    assert!(matches!(state(&dsn, second), Some(JobState::Running { .. })), "it was given back");
    let_go(102);
    wait_until("its end is settled", || state(&dsn, second).is_none());
    assert_eq!(begun(102), 1);
    running.stop();
}

/// The first name answers when the second already works.
#[test]
fn what_runs_under_a_second_name_when_that_shows_is_settled() {
    let Some(fresh) = FreshDatabase::on("postgres", "names") else { return };
    let mut through = url::Url::parse(fresh.url()).expect("a URL");
    let proxy = Proxy::start(through.port().expect("has a port")).expect("starts");
    proxy.refuse();
    through.set_port(Some(proxy.port())).expect("has a host");
    builder().database(fresh.url()).build().expect("valid").migrate().expect("migrates");
    let manager = builder()
        .ability::<held>()
        .workers(1)
        .retry_seconds(1)
        .heartbeat(Duration::from_millis(250), Duration::from_secs(1))
        .database_as("first", through)
        .database_as("second", fresh.url())
        .build()
        .expect("looks like two");
    let running = manager.start().expect("starts");
    let stored = manager.enqueue(held::job(103).database("second")).expect("stored");
    let job = stored.id().expect("new");
    wait_until("it begins", || begun(103) == 1);
    proxy.pass();
    let reason = || {
        let reports = manager.database_reports();
        let two = reports.into_iter().find(|one| one.name == "second").expect("known");
        two.reason.unwrap_or_default()
    };
    wait_until("the second name is out of use", || reason().contains("second name"));
    let_go(103);
    wait_until("its end is settled", || state(fresh.url(), job).is_none());
    assert_eq!(begun(103), 1);
    running.stop();
}

/// What it leased without knowing is released under the first name: the heartbeats of that one keep the
/// leases alive.
#[test]
fn what_a_second_name_claimed_without_an_answer_is_run_under_the_first() {
    let inner: Arc<dyn Driver> = Arc::new(MemoryDriver::default());
    let (open, lost) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let away = || DriverError::new(ErrorKind::Down, "it is away");
    let is_open = Arc::clone(&open);
    let first = FaultyDriver::new(Arc::clone(&inner))
        .with_fault(move |_| if is_open.load(Ordering::Acquire) { Ok(()) } else { Err(away()) });
    let is_lost = Arc::clone(&lost);
    let second = FaultyDriver::new(Arc::clone(&inner))
        .with_fault(move |call| if call == "release_claim" { Err(away()) } else { Ok(()) })
        .with_claim(move |driver, request| {
            let jobs = driver.claim(request)?;
            if jobs.is_empty() {
                return Ok(jobs);
            }
            is_lost.store(true, Ordering::Release);
            Err(away().ambiguous(true))
        });
    let manager = builder()
        .workers(1)
        .retry_seconds(1)
        .heartbeat(Duration::from_millis(250), Duration::from_secs(1))
        .driver("first", Arc::new(first))
        .driver("second", Arc::new(second))
        .build()
        .expect("looks like two");
    manager.enqueue(counts::job(104).database("second")).expect("stored");
    let running = manager.start().expect("starts");
    wait_until("it is leased", || lost.load(Ordering::Acquire));
    open.store(true, Ordering::Release);
    let runs = || {
        let runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
        runs.iter().filter(|one| **one == 104).count()
    };
    wait_until("it runs", || runs() == 1);
    running.stop();
    assert_eq!(runs(), 1);
}

#[test]
fn a_restored_copy_is_out_of_use_beside_its_original_and_nothing_moves_between_them() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let [original, copy] = ["jobs.db", "copy.db"].map(|name| place.path().join(name));
    let alone = |path: &Path| builder().database_as("it", sqlite(path)).build().expect("valid");
    alone(&original).migrate().expect("migrates");
    alone(&original).enqueue(counts::job(7_000_001)).expect("stored");
    // This makes its identity.
    assert_eq!(alone(&original).audit(AuditOptions::default()).jobs, 1);
    let backup = format!("PRAGMA busy_timeout = 30000; VACUUM INTO '{}'", copy.display());
    SqliteConnection::establish(original.to_str().expect("UTF-8"))
        .expect("opens")
        .batch_execute(&backup)
        .expect("copied");
    let two = || {
        let both = builder().database_as("original", sqlite(&original));
        both.database_as("copy", sqlite(&copy)).build().expect("two files")
    };
    let error = two().move_jobs("copy", "original").expect_err("the same jobs");
    assert!(error.to_string().contains("restored copy"), "{error}");
    let report = two().audit(AuditOptions::default());
    assert_eq!(report.failures[0].0, "copy");
    assert!(report.failures[0].1.to_string().contains("restored copy"), "{report}");
    let manager = two();
    let running = manager.start().expect("starts");
    let ran = || {
        let runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
        runs.iter().filter(|run| **run == 7_000_001).count()
    };
    let is_out = || {
        let reports = manager.database_reports();
        let two = reports.into_iter().find(|one| one.name == "copy").expect("known");
        two.reason.is_some_and(|reason| reason.contains("restored copy"))
    };
    wait_until("the original is worked and the copy is not", || ran() == 1 && is_out());
    running.stop();
    assert_eq!(alone(&copy).audit(AuditOptions::default()).jobs, 1, "it stays where it is");
    // A spool would forward what it holds.
    let spooled = builder()
        .database_as("original", sqlite(&original))
        .spool(sqlite(&copy), 10)
        .build()
        .expect("two files");
    let running = spooled.start().expect("starts");
    spooled.enqueue(counts::job(7_000_002)).expect("stored");
    let ran_next = || {
        let runs = RUNS.lock().unwrap_or_else(PoisonError::into_inner);
        runs.contains(&7_000_002)
    };
    wait_until("the original is worked", ran_next);
    let looked = Instant::now() + Duration::from_secs(2);
    while Instant::now() < looked {
        assert_eq!(alone(&copy).audit(AuditOptions::default()).jobs, 1, "it was forwarded");
    }
    running.stop();
    assert_eq!(ran(), 1);
}
