//! The loops of a worker process do not die in silence: whatever panics in them, a logger say, they start
//! again, and tell when they last did what they are for.

#![allow(missing_docs, reason = "a test is read, not called")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use qudo::admin::{DatabaseState, LoopReport};
use qudo::driver::{Driver, MemoryDriver};
use qudo::driver::{DriverError, ErrorKind};
use qudo::testing::FaultyDriver;
use qudo::{Job, Manager, NewJob};

const DEADLINE: Duration = Duration::from_secs(60);

/// How many messages panic before the logger is well again.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// One test at a time: they share the logger.
static TURN: Mutex<()> = Mutex::new(());

struct Panicking;

impl log::Log for Panicking {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        let ours = std::thread::current().name().is_some_and(|name| name.starts_with("qudo-"));
        if ours && self.enabled(record.metadata()) {
            let left = PANICS
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            assert!(left.is_err(), "the logger cannot log: {}", record.args());
        }
    }

    fn flush(&self) {}
}

fn panicking_logger() {
    static INSTALLED: std::sync::Once = std::sync::Once::new();
    INSTALLED.call_once(|| {
        log::set_logger(&Panicking).expect("the only one");
        log::set_max_level(log::LevelFilter::Warn);
    });
}

static RUNS: AtomicUsize = AtomicUsize::new(0);

#[qudo::ability]
fn counted(_: &Job, _nothing: ()) -> qudo::JobResult {
    RUNS.fetch_add(1, Ordering::Relaxed);
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

/// A loop meets an error in this call and logs it, and the logger panics. Afterwards all goes on: jobs run
/// once, and the loop says that it panicked and how long ago it last succeeded.
fn survives(call: &'static str, kind: ErrorKind, of: &'static str) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    panicking_logger();
    let fails = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fails);
    let inner: Arc<dyn Driver> = Arc::new(MemoryDriver::default());
    let driver = FaultyDriver::new(inner).with_fault(move |name| {
        if name == call && failing.load(Ordering::Relaxed) {
            return Err(DriverError::new(kind, "as asked"));
        }
        Ok(())
    });
    let manager = Manager::builder()
        .linked(false)
        .ability::<counted>()
        .driver("one", Arc::new(driver))
        .delay(Duration::from_millis(20))
        .heartbeat(Duration::from_millis(100), Duration::from_secs(5))
        .workers(2)
        .build()
        .expect("valid");
    assert_eq!(manager.loops(), [], "it does not work yet");
    let working = manager.start().expect("starts");
    let before = RUNS.load(Ordering::Relaxed);
    let run = |jobs: usize| {
        let wanted = RUNS.load(Ordering::Relaxed) + jobs;
        let all = (0..jobs).map(|_| NewJob::named("counted", ().into()));
        manager.enqueue_many(all).expect("stored");
        wait_until("all run", || RUNS.load(Ordering::Relaxed) >= wanted);
    };
    let report = || -> LoopReport {
        manager.loops().into_iter().find(|one| one.name == of).expect("it is one of them")
    };
    run(100);
    fails.store(true, Ordering::Relaxed);
    PANICS.store(3, Ordering::Relaxed);
    // What the loop meets the fault in.
    manager.enqueue(NewJob::named("counted", ().into())).expect("stored");
    wait_until("it panics three times", || PANICS.load(Ordering::Relaxed) == 0);
    fails.store(false, Ordering::Relaxed);
    wait_until("it starts again", || report().panics > 0);
    wait_until("it succeeds", || {
        report().last_success.is_some_and(|ago| ago < Duration::from_millis(500))
    });
    run(100);
    let depth = || {
        let reports = manager.database_reports();
        reports[0].depth.expect("answers")
    };
    wait_until("every run is settled", || depth().is_empty());
    working.stop();
    assert_eq!(RUNS.load(Ordering::Relaxed), before + 201, "each once");
    assert_eq!(manager.loops(), []);
}

/// The words about a database that went down are no reason to leave it alone for ever.
#[test]
fn a_logger_that_panics_leaves_no_database_down() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    panicking_logger();
    let fails = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fails);
    let driver = FaultyDriver::new(Arc::new(MemoryDriver::default())).with_fault(move |_| {
        if failing.load(Ordering::Relaxed) {
            return Err(DriverError::new(ErrorKind::Down, "as asked"));
        }
        Ok(())
    });
    let states = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&states);
    let manager = Manager::builder()
        .linked(false)
        .driver("one", Arc::new(driver))
        .on_database_change(move |report| told.lock().expect("no panic").push(report.state))
        .build()
        .expect("valid");
    fails.store(true, Ordering::Relaxed);
    PANICS.store(1, Ordering::Relaxed);
    // The logger panics on threads of this name.
    let client = manager.clone();
    let enqueue = move || client.enqueue(NewJob::named("counted", ().into())).map(drop);
    let thread = std::thread::Builder::new().name("qudo-client".to_owned()).spawn(enqueue);
    let error = thread.expect("starts").join().expect("no panic").expect_err("it is down");
    assert!(error.is_down(), "{error}");
    assert_eq!(PANICS.load(Ordering::Relaxed), 0, "it panicked");
    fails.store(false, Ordering::Relaxed);
    wait_until("it is back", || manager.enqueue(NewJob::named("counted", ().into())).is_ok());
    let told = states.lock().expect("no panic").clone();
    assert_eq!(told, [DatabaseState::Down, DatabaseState::Up]);
}

#[test]
fn the_loop_that_claims_survives_a_panic() {
    survives("promote_due", ErrorKind::Other, "fetch");
}

#[test]
fn the_loop_that_settles_survives_a_panic_and_settles_what_it_had() {
    survives("settle", ErrorKind::Other, "settle");
}

#[test]
fn the_loop_that_beats_survives_a_panic() {
    survives("heartbeat", ErrorKind::Contention, "heartbeat");
}

#[test]
fn the_loop_that_rescues_survives_a_panic() {
    survives("workers", ErrorKind::Other, "janitor");
}
