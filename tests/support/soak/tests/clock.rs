//! A worker whose clock jumps, and one that is stopped for longer than it promised to be silent at most,
//! lose nothing, and nothing runs twice but what was rescued meanwhile.
//!
//! Not on SQLite for the first of them: a file has no clock but that of the processes that use it.

#![allow(missing_docs, reason = "a test is read, not called")]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use qudo::admin::AuditOptions;
use qudo::admin::{ExceptionFilter, Paging};
use qudo::history::History;
use qudo::hook::FailureKind;
use qudo::{JobId, Manager, NewJob};
use qudo_soak::{Crew, Effort, Options, World, builder, effort};

/// The program whose `worker` the tests start.
const PROGRAM: &str = env!("CARGO_BIN_EXE_qudo-soak");

/// Every wait for a condition ends here.
const DEADLINE: Duration = Duration::from_secs(180);

#[track_caller]
fn eventually(what: &str, condition: impl FnMut() -> bool) {
    qudo_test_servers::eventually(DEADLINE, what, condition);
}

/// Jobs that live, by state.
fn count(manager: &Manager, state: Option<&str>) -> u64 {
    let counts = manager.job_count();
    let rows = counts.into_iter().flat_map(|on| on.answer.expect("answers"));
    rows.filter(|row| state.is_none_or(|state| row.state == state)).map(|row| row.count).sum()
}

/// Jobs that were taken from a worker.
fn taken(manager: &Manager) -> HashSet<JobId> {
    let paging = Paging::default().limit(10_000);
    let answers = manager.exceptions(&ExceptionFilter::all(), &paging);
    let rows = answers.into_iter().flat_map(|on| on.answer.expect("answers"));
    let is_taken =
        |kind: &FailureKind| matches!(kind, FailureKind::Crash | FailureKind::LeaseExpired);
    rows.filter(|row| is_taken(&row.kind)).map(|row| row.job).collect()
}

fn jobs(count: usize, millis: u64) -> impl Iterator<Item = NewJob<u32>> {
    (0..count).map(move |_| effort::job(Effort { millis, fails: 0, panics: false }))
}

fn worked_off(manager: &Manager) {
    eventually("all is worked off", || count(manager, None) == 0);
    let report = manager.audit(AuditOptions::default());
    assert!(report.is_clean(), "{report}");
}

#[test]
fn a_worker_whose_clock_jumps_by_a_day_loses_and_doubles_nothing() {
    let Some(library) = qudo_test_servers::faketime_library() else {
        assert!(std::env::var("CI").is_err(), "libfaketime is not installed");
        eprintln!("left out: libfaketime is not installed");
        return;
    };
    let world = World::start().expect("starts");
    let mut databases = world.databases();
    databases.retain(|(_, dsn)| !dsn.starts_with("sqlite"));
    // Its own clock is left alone, by which it measures how long something takes.
    let place = tempfile::tempdir().expect("a temporary directory");
    let (time, script) = (place.path().join("time"), place.path().join("worker.sh"));
    let set = |shift: &str| std::fs::write(&time, format!("{shift}\n")).expect("sets the clock");
    set("+0");
    let text = format!(
        "#!/bin/sh\nexport FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 DONT_FAKE_MONOTONIC=1\n\
         LD_PRELOAD={} exec {PROGRAM} \"$@\"\n",
        time.display(),
        library.display()
    );
    std::fs::write(&script, text).expect("writes");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("may run");
    let options = Options { databases: databases.clone(), threads: 4, ..Options::of(&world) };
    let jumpy = Crew::start(&script, options.clone(), 1).expect("starts");
    let steady = Crew::start(PROGRAM, options, 1).expect("starts");
    let manager = builder(&databases).build().expect("valid");
    let enqueued = 4 * 150 + 12;
    manager.enqueue_many(jobs(12, 8_000)).expect("stored");
    for shift in ["+1d", "-1d", "+400d", "+0"] {
        manager.enqueue_many(jobs(150, 20)).expect("stored");
        set(shift);
        eventually("jobs go on", || count(&manager, Some("ready")) == 0);
    }
    worked_off(&manager);
    assert_eq!(taken(&manager), HashSet::new(), "none was taken from a worker");
    jumpy.stop().expect("ends");
    steady.stop().expect("ends");
    let history = History::read(world.history()).expect("reads");
    assert_eq!((history.runs(), history.torn()), (enqueued, 0), "each ran once");
}

#[test]
fn a_worker_that_is_stopped_for_longer_than_it_may_be_silent_doubles_only_what_was_rescued() {
    let world = World::start().expect("starts");
    let options = Options::of(&world);
    let silent = Duration::from_millis(options.dead_after) + Duration::from_secs(4);
    let stopped = Crew::start(PROGRAM, options.clone(), 1).expect("starts");
    let manager = builder(&options.databases).build().expect("valid");
    // More than it has threads, so that some are claimed and not started.
    manager.enqueue_many(jobs(40, 300)).expect("stored");
    eventually("it works", || count(&manager, Some("running")) > 0);
    stopped.pause(0).expect("stops");
    let other = Crew::start(PROGRAM, options, 1).expect("starts");
    let until = Instant::now() + silent;
    eventually("others take over", || Instant::now() >= until && !taken(&manager).is_empty());
    stopped.resume(0).expect("goes on");
    manager.enqueue_many(jobs(100, 20)).expect("stored");
    worked_off(&manager);
    stopped.stop().expect("ends");
    other.stop().expect("ends");
    let history = History::read(world.history()).expect("reads");
    let rescued: HashSet<String> = taken(&manager).iter().map(ToString::to_string).collect();
    for job in history.jobs() {
        let runs = history.starts(job).len();
        let most = if rescued.contains(job) { 2 } else { 1 };
        assert!((1..=most).contains(&runs), "job {job} ran {runs} times");
    }
}
