//! An outage is not a crash: nobody is declared dead because the database was away, and whoever died
//! while it was is found out soon after.

#![allow(missing_docs, reason = "a test is read, not called")]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use qudo::admin::{ExceptionFilter, Paging};
use qudo::history::{History, Rules};
use qudo::{JobId, Manager};
use qudo_soak::{Crew, Effort, Options, World, builder, effort, judge};

/// The program whose `worker` the tests start.
const PROGRAM: &str = env!("CARGO_BIN_EXE_qudo-soak");

/// Every wait for a condition ends here.
const DEADLINE: Duration = Duration::from_secs(180);

/// Workers at default settings, and some that promise a beat more often.
const WORKERS: usize = 4;
const BRISK: usize = 2;

const THREADS: usize = 2;

#[track_caller]
fn eventually(what: &str, condition: impl FnMut() -> bool) -> Duration {
    qudo_test_servers::eventually(DEADLINE, what, condition)
}

fn running(manager: &Manager) -> u64 {
    let counts = manager.job_count();
    let rows = counts.into_iter().filter_map(|on| on.answer.ok()).flatten();
    rows.filter(|row| row.state == "running").map(|row| row.count).sum()
}

/// Jobs that crashed, as the exception log tells.
fn crashed(manager: &Manager) -> HashSet<JobId> {
    let paging = Paging::default().limit(1_000);
    let answers = manager.exceptions(&ExceptionFilter::all(), &paging);
    answers.into_iter().filter_map(|on| on.answer.ok()).flatten().map(|row| row.job).collect()
}

/// Workers with two jobs each, of two settings. The server is away for 36 s, longer than any of them may be
/// silent and than the probes' pause; one of each setting dies meanwhile.
#[test]
fn a_server_that_is_away_for_36_seconds_costs_the_living_nothing_and_the_dead_are_found() {
    let world = World::start().expect("starts");
    let mut databases = world.databases();
    databases.retain(|(name, _)| name == "postgres");
    let default = Options {
        databases: databases.clone(),
        heartbeat: 5_000,
        dead_after: 20_000,
        retry_seconds: 30,
        threads: THREADS,
        ..Options::of(&world)
    };
    let brisk = Options { heartbeat: 2_000, dead_after: 8_000, ..default.clone() };
    let mut crew = Crew::start(PROGRAM, default, WORKERS).expect("starts");
    let mut brisk = Crew::start(PROGRAM, brisk, BRISK).expect("starts");
    let manager = builder(&databases).build().expect("valid");
    let long = || effort::job(Effort { millis: 55_000, fails: 0, panics: false });
    let count = (WORKERS + BRISK) * THREADS;
    manager.enqueue_many((0..count).map(|_| long())).expect("stored");
    eventually("all run", || running(&manager) == count as u64);
    world.postgres.stop().expect("stops");
    let away = Instant::now() + Duration::from_secs(36);
    crew.kill(0).expect("kills");
    brisk.kill(0).expect("kills");
    let lost = 2 * THREADS;
    while Instant::now() < away {
        std::thread::park_timeout(away.saturating_duration_since(Instant::now()));
    }
    world.postgres.restart().expect("starts again");
    let back = eventually("the jobs of the dead are rescued", || crashed(&manager).len() >= lost);
    println!("the jobs of the dead were rescued {back:.1?} after the database was back");
    assert!(back < Duration::from_secs(45), "{back:?}");
    let verdict = judge(&world, &manager, &Rules::default(), DEADLINE).expect("worked off");
    println!("{verdict}");
    assert_eq!((verdict.faults, verdict.audit), (vec![], None));
    assert_eq!(crashed(&manager).len(), lost, "of the living none");
    assert_eq!(verdict.runs, count + lost, "only the jobs of the dead ran twice");
    let history = History::read(world.history()).expect("reads");
    assert_eq!(history.len(), count);
    crew.stop().expect("ends");
    brisk.stop().expect("ends");
}
