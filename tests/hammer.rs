//! Many processes on one database: claims, inserts, retries and unique keys at once. No error may
//! reach a user, and every job is done once.
//!
//! `QUDO_HAMMER_PROCESSES` (4) and `QUDO_HAMMER_SECONDS` (4) make it longer.

#![allow(missing_docs, reason = "a test is read, not called")]

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use qudo::{Job, JobError, JobResult, Manager};

/// How long the processes may take to work off what they enqueued.
const DEADLINE: Duration = Duration::from_secs(120);

struct Notes(Mutex<File>);

impl Notes {
    fn add(&self, line: &str) {
        let mut file = self.0.lock().expect("no panic while writing");
        file.write_all(line.as_bytes()).expect("writes");
    }
}

/// Every fifth fails at its first attempt.
#[qudo::ability(max_retries = 1, retry_delay = "0s", queue = "hammer")]
fn hammered(job: &Job, n: u32) -> JobResult {
    if n.is_multiple_of(5) && job.attempt() == 1 {
        return Err(JobError::fail("the first attempt"));
    }
    job.plugin::<Notes>()?.add(&format!("done {}\n", job.id()));
    Ok(())
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// What each process does; by itself a test that has nothing to do.
#[test]
fn child() {
    let Ok(dsn) = std::env::var("QUDO_HAMMER_DSN") else { return };
    let notes = std::env::var("QUDO_HAMMER_NOTES").expect("set by the parent");
    let notes = File::create(format!("{notes}/{}", std::process::id())).expect("creates");
    let manager = Manager::builder()
        .database_as("hammered", dsn)
        .linked(false)
        .ability::<hammered>()
        .plugin(Notes(Mutex::new(notes.try_clone().expect("another handle"))))
        .workers(4)
        .build()
        .expect("valid");
    let own = Notes(Mutex::new(notes));
    let working = manager.start().expect("starts");
    let until = Instant::now() + Duration::from_secs(number("QUDO_HAMMER_SECONDS", 4));
    let mut n = 0;
    while Instant::now() < until {
        let single = manager.enqueue(hammered::job(n)).expect("no error reaches a user");
        own.add(&format!("new {}\n", single.id().expect("new")));
        // Keys that all processes fight for.
        let keyed = hammered::job(n + 1).uniqkey(format!("key {}", n % 50));
        let keyed = manager.enqueue(keyed).expect("no error reaches a user");
        if keyed.is_new() {
            own.add(&format!("new {}\n", keyed.id().expect("new")));
        }
        let bulk = manager.enqueue_many((0..20).map(hammered::job)).expect("no error");
        for one in bulk {
            own.add(&format!("new {}\n", one.id().expect("new")));
        }
        n += 2;
    }
    let deadline = Instant::now() + DEADLINE;
    while manager.job_count().into_iter().any(|on| !on.answer.expect("no error").is_empty()) {
        assert!(Instant::now() < deadline, "the jobs are not worked off");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    assert_eq!(working.lost_leases(), 0);
    working.stop();
}

fn hammer(dsn: &str) {
    let manager = Manager::builder().linked(false).database(dsn).build().expect("valid");
    manager.migrate().expect("migrates");
    let notes = tempfile::tempdir().expect("a temporary directory");
    let children: Vec<_> = (0..number("QUDO_HAMMER_PROCESSES", 4))
        .map(|_| {
            Command::new(std::env::current_exe().expect("a test has a path"))
                .args(["--exact", "child"])
                .stdout(std::process::Stdio::null())
                .env("QUDO_HAMMER_DSN", dsn)
                .env("QUDO_HAMMER_NOTES", notes.path())
                .spawn()
                .expect("starts")
        })
        .collect();
    for mut child in children {
        assert!(child.wait().expect("ends").success());
    }
    check(notes.path());
    let audit = manager.audit(qudo::admin::AuditOptions::default());
    assert!(audit.is_clean() && audit.jobs == 0, "{audit}");
}

fn check(notes: &Path) {
    let mut jobs: HashMap<String, (u32, u32)> = HashMap::new();
    for file in std::fs::read_dir(notes).expect("reads") {
        let text = std::fs::read_to_string(file.expect("reads").path()).expect("reads");
        for line in text.lines() {
            let (what, id) = line.split_once(' ').expect("two words");
            let seen = jobs.entry(id.to_owned()).or_default();
            *(if what == "new" { &mut seen.0 } else { &mut seen.1 }) += 1;
        }
    }
    assert!(jobs.len() > 100, "only {} jobs", jobs.len());
    let wrong: Vec<_> = jobs.iter().filter(|(_, seen)| **seen != (1, 1)).take(5).collect();
    assert!(wrong.is_empty(), "(stored, done) is not (1, 1) for {wrong:?} of {}", jobs.len());
    eprintln!("{} jobs, each stored and done once", jobs.len());
}

#[test]
fn sqlite_under_many_processes_does_every_job_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    hammer(&format!("sqlite:{}/jobs.db", directory.path().display()));
}

#[cfg(any(feature = "postgres", feature = "mysql"))]
fn hammer_server(engine: &str) {
    let Some(fresh) = qudo_test_servers::FreshDatabase::on(engine, "hammer") else { return };
    hammer(fresh.url());
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_under_many_processes_does_every_job_once() {
    hammer_server("postgres");
}

#[cfg(feature = "mysql")]
#[test]
fn mariadb_under_many_processes_does_every_job_once() {
    hammer_server("mariadb");
}

#[cfg(feature = "mysql")]
#[test]
fn mysql_under_many_processes_does_every_job_once() {
    hammer_server("mysql");
}
