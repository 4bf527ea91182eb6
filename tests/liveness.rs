//! Nothing waits for what is none of its business, and nothing asks without an end: with drivers that hang,
//! refuse or count.

#![allow(missing_docs, reason = "a test is read, not called")]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use qudo::driver::{Driver, DriverError, ErrorKind, MemoryDriver};
use qudo::testing::FaultyDriver;
use qudo::{Error, Job, Manager, ManagerBuilder, NewJob};

const DEADLINE: Duration = Duration::from_secs(30);

#[qudo::ability]
fn plain(_: &Job, _nothing: ()) -> qudo::JobResult {
    Ok(())
}

fn builder() -> ManagerBuilder {
    Manager::builder().linked(false).ability::<plain>().workers(1)
}

fn memory() -> Arc<dyn Driver> {
    Arc::new(MemoryDriver::default())
}

#[track_caller]
fn wait_until(what: &str, done: impl Fn() -> bool) {
    let late = Instant::now() + DEADLINE;
    while !done() {
        assert!(Instant::now() < late, "{what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Holds whoever passes until the end of the test.
#[derive(Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A database that hangs in one call.
    fn hangs_in(&self, call: &'static str) -> Arc<dyn Driver> {
        let gate = Arc::clone(&self.0);
        Arc::new(FaultyDriver::new(memory()).that_may_block().with_fault(move |name| {
            if name == call {
                let open = gate.0.lock().expect("no panic");
                drop(gate.1.wait_while(open, |open| !*open).expect("no panic"));
            }
            Ok(())
        }))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }
}

#[test]
fn a_database_that_knows_answers_before_one_that_hangs() {
    let gate = Gate::default();
    let manager = builder()
        .driver("hangs", gate.hangs_in("lookup"))
        .driver("knows", memory())
        .build()
        .expect("valid");
    let job = NewJob::named("plain", ().into()).database("knows");
    let id = manager.enqueue(job).expect("stored").id().expect("new");
    let begun = Instant::now();
    let (name, _) = manager.lookup(id).expect("answers").expect("lives");
    assert_eq!(name, "knows");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn a_start_waits_for_all_that_hang_together() {
    let gate = Gate::default();
    let mut manager = builder().driver("well", memory());
    for name in ["one", "two", "three", "four", "five"] {
        manager = manager.driver(name, gate.hangs_in("schema"));
    }
    let manager = manager.shutdown_timeout(Duration::ZERO).build().expect("valid");
    let begun = Instant::now();
    let running = manager.start().expect("starts");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    running.stop();
}

#[test]
fn a_keyed_enqueue_takes_one_limit_whatever_hangs() {
    let limit = Duration::from_secs(2);
    for hanging in ["control", "holder", "insert"] {
        let gate = Gate::default();
        let manager = builder()
            .driver("one", gate.hangs_in(hanging))
            .driver("two", gate.hangs_in(hanging))
            .call_limit(limit)
            .build()
            .expect("valid");
        let begun = Instant::now();
        let job = NewJob::named("plain", ().into()).uniqkey("k");
        let ended = manager.enqueue(job);
        assert!(hanging == "holder" || ended.is_err(), "{hanging}: {ended:?}");
        assert!(begun.elapsed() < limit * 3 / 2, "{hanging}: {:?}", begun.elapsed());
    }
}

#[test]
fn jobs_of_other_queues_wake_no_claim() {
    let claims = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&claims);
    let driver = FaultyDriver::new(memory()).with_claim(move |driver, request| {
        counted.fetch_add(1, Ordering::AcqRel);
        driver.claim(request)
    });
    let manager = builder().driver("it", Arc::new(driver)).delay(DEADLINE).build().expect("valid");
    let running = manager.start().expect("starts");
    let ours = manager.enqueue(plain::job(())).expect("stored").id().expect("new");
    wait_until("ours is done", || manager.lookup(ours).expect("answers").is_none());
    let before = claims.load(Ordering::Acquire);
    for _ in 0..500 {
        manager.enqueue(plain::job(()).queue("elsewhere")).expect("stored");
        manager.enqueue(plain::job(()).delay(2 * DEADLINE)).expect("stored");
    }
    let last = manager.enqueue(plain::job(())).expect("stored").id().expect("new");
    wait_until("ours is done", || manager.lookup(last).expect("answers").is_none());
    let claims = claims.load(Ordering::Acquire) - before;
    assert!(claims < 20, "{claims} claims for one job");
    running.stop();
}

#[test]
fn a_right_that_claims_lack_takes_nothing_out_of_use() {
    let claims = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&claims);
    let driver = FaultyDriver::new(memory()).with_claim(move |_, _| {
        counted.fetch_add(1, Ordering::AcqRel);
        Err(DriverError::new(ErrorKind::Permission, "permission denied for qudo_claim"))
    });
    let changes = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&changes);
    let manager = builder()
        .driver("it", Arc::new(driver))
        .on_database_change(move |_| {
            told.fetch_add(1, Ordering::AcqRel);
        })
        .build()
        .expect("valid");
    let running = manager.start().expect("starts");
    wait_until("it claims", || claims.load(Ordering::Acquire) > 0);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        manager.enqueue(plain::job(())).expect("stored all the same");
    }
    assert_eq!(changes.load(Ordering::Acquire), 0, "it went down");
    assert!(claims.load(Ordering::Acquire) <= 2, "{claims:?} claims");
    running.stop();
}

#[test]
fn what_a_probe_does_not_see_makes_a_database_flap_ever_less() {
    let full = DriverError::new(ErrorKind::Down, "database or disk is full").to_string();
    let driver = FaultyDriver::new(memory()).with_fault(move |call| {
        if call == "insert" { Err(DriverError::new(ErrorKind::Down, full.clone())) } else { Ok(()) }
    });
    let changes = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&changes);
    let manager = builder()
        .driver("full", Arc::new(driver))
        .on_database_change(move |_| {
            told.fetch_add(1, Ordering::AcqRel);
        })
        .build()
        .expect("valid");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        manager.enqueue(plain::job(())).expect_err("full");
        std::thread::park_timeout(Duration::from_millis(1));
    }
    // Up and down at each probe: after 0.25, 0.5, 1 and 2 s instead of sixteen times.
    let changes = changes.load(Ordering::Acquire);
    assert!((3..12).contains(&changes), "{changes} changes");
}

#[test]
fn a_spool_that_stalls_holds_up_nobody_behind_another() {
    let limit = Duration::from_secs(1);
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("spool.db");
    let away = |_: &str| Err(DriverError::new(ErrorKind::Down, "it is away"));
    let manager = builder()
        .driver("away", Arc::new(FaultyDriver::new(memory()).with_fault(away)))
        .call_limit(limit)
        .spool(format!("sqlite:{}", file.display()), 100)
        .build()
        .expect("valid");
    manager.enqueue(plain::job(())).expect("spooled");
    // Somebody holds the file, as a disk that stalls would.
    let mut holder =
        <diesel::SqliteConnection as diesel::Connection>::establish(file.to_str().expect("text"))
            .expect("opens");
    diesel::connection::SimpleConnection::batch_execute(
        &mut holder,
        "PRAGMA busy_timeout = 30000; BEGIN IMMEDIATE",
    )
    .expect("locked");
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| manager.enqueue(plain::job(())).expect_err("it stalls"));
        }
    });
    assert!(begun.elapsed() < limit * 4, "{:?}", begun.elapsed());
}

#[test]
fn a_database_that_cannot_tell_its_orders_stops_no_forward_to_the_others() {
    let open = Arc::new(AtomicBool::new(false));
    let away = |open: &Arc<AtomicBool>| {
        let open = Arc::clone(open);
        FaultyDriver::new(memory()).with_fault(move |_| {
            if open.load(Ordering::Acquire) {
                Ok(())
            } else {
                Err(DriverError::new(ErrorKind::Down, "it is away"))
            }
        })
    };
    let broken = FaultyDriver::new(memory()).with_fault(|call| match call {
        "control" | "insert" => Err(DriverError::new(ErrorKind::Permission, "not for you")),
        _ => Ok(()),
    });
    let manager = builder()
        .driver("broken", Arc::new(broken))
        .driver("well", Arc::new(away(&open)))
        .retry_seconds(1)
        .spool(format!("memory:{}", uuid::Uuid::now_v7().simple()), 100)
        .build()
        .expect("valid");
    let jobs: Vec<_> = (0..20)
        .map(|_| manager.enqueue(plain::job(())).expect("spooled").id().expect("new"))
        .collect();
    open.store(true, Ordering::Release);
    for id in jobs {
        let there = || manager.lookup(id).is_ok_and(|found| found.is_some_and(|at| at.0 == "well"));
        wait_until("it is forwarded", there);
    }
}

/// Keys are bound to their home, so most of them stay; none is out of reach for longer than its batch.
#[test]
fn keyed_jobs_that_stay_are_within_reach_while_others_are_moved() {
    let (from, seen) = (memory(), Arc::new(AtomicUsize::new(0)));
    let (own, most) = (Arc::clone(&from), Arc::clone(&seen));
    let to = FaultyDriver::new(memory()).with_fault(move |call| {
        if call == "move_in" {
            let moving = own.depth(100_000).expect("answers").moving.count;
            most.fetch_max(usize::try_from(moving).expect("few"), Ordering::AcqRel);
        }
        Ok(())
    });
    let manager = builder()
        .driver("from", Arc::clone(&from))
        .driver("to", Arc::new(to))
        .driver("third", memory())
        .build()
        .expect("valid");
    let job = |key: usize| plain::job(()).uniqkey(key.to_string()).database("from");
    manager.enqueue_many((0..3_000).map(job)).expect("stored");
    manager.drain("from").expect("drained");
    let moved = manager.move_jobs("from", "to").expect("moves");
    assert!(moved.moved > 1_000 && moved.stayed > 1_000, "{moved:?}");
    assert_eq!(moved.moved + moved.stayed, 3_000);
    let most = seen.load(Ordering::Acquire);
    assert!((1..=250).contains(&most), "{most} out of reach at once");
    let waiting = from.depth(100_000).expect("answers");
    assert_eq!((waiting.ready.count, waiting.moving.count), (moved.stayed as u64, 0));
}

/// On a real server: an open transaction holds the row of a job that is due.
#[test]
#[cfg(feature = "postgres")]
fn a_due_job_that_somebody_locks_makes_no_fetcher_spin() {
    use diesel::Connection;
    use diesel::connection::SimpleConnection;
    use qudo::driver::DriverRegistration;
    use qudo_test_servers::FreshDatabase;

    let Some(fresh) = FreshDatabase::on("postgres", "liveness") else { return };
    let inner = DriverRegistration::open_linked(fresh.url()).expect("valid").driver;
    let promotions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&promotions);
    let driver = FaultyDriver::new(inner).with_fault(move |call| {
        if call == "promote_due" {
            counted.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    });
    let manager = builder().driver("it", Arc::new(driver)).build().expect("valid");
    manager.migrate().expect("migrates");
    let job = plain::job(()).delay(Duration::from_millis(1));
    let id = manager.enqueue(job).expect("stored").id().expect("new");
    let mut holder = diesel::PgConnection::establish(fresh.url()).expect("connects");
    holder.batch_execute("BEGIN; SELECT * FROM qudo_scheduled FOR UPDATE").expect("locked");
    let running = manager.start().expect("starts");
    wait_until("it looks", || promotions.load(Ordering::Acquire) > 2);
    let before = promotions.load(Ordering::Acquire);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let looks = promotions.load(Ordering::Acquire) - before;
    assert!(looks <= 30, "{looks} looks in two seconds");
    let (_, info) = manager.lookup(id).expect("answers").expect("lives");
    assert!(matches!(info.state, qudo::admin::JobState::Scheduled { .. }));
    holder.batch_execute("ROLLBACK").expect("let go");
    wait_until("it runs", || manager.lookup(id).expect("answers").is_none());
    running.stop();
}

#[test]
fn an_enqueue_says_why_the_spool_does_not_take_it() {
    let away = |_: &str| Err(DriverError::new(ErrorKind::Down, "it is away"));
    let manager = builder()
        .driver("away", Arc::new(FaultyDriver::new(memory()).with_fault(away)))
        .spool(format!("memory:{}", uuid::Uuid::now_v7().simple()), 1)
        .build()
        .expect("valid");
    manager.enqueue(plain::job(())).expect("spooled");
    let error = manager.enqueue(plain::job(())).expect_err("full");
    assert!(matches!(error, Error::SpoolFull { limit: 1 }), "{error}");
}

static ENDED: AtomicUsize = AtomicUsize::new(0);
static BEGUN: AtomicUsize = AtomicUsize::new(0);

/// Ends when it is told to.
#[qudo::ability]
fn patient(job: &Job) -> qudo::JobResult {
    BEGUN.fetch_add(1, Ordering::AcqRel);
    while !job.is_stopping() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    ENDED.fetch_add(1, Ordering::AcqRel);
    Err(qudo::snooze(Duration::from_secs(3_600)))
}

#[test]
fn a_job_is_told_that_its_database_is_removed() {
    let manager = builder()
        .ability::<patient>()
        .driver("goes", memory())
        .driver("stays", memory())
        .build()
        .expect("valid");
    let running = manager.start().expect("starts");
    manager.enqueue(patient::job().database("goes")).expect("stored");
    wait_until("it begins", || BEGUN.load(Ordering::Acquire) == 1);
    let begun = Instant::now();
    manager.remove_database("goes").expect("removed");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(ENDED.load(Ordering::Acquire), 1);
    running.stop();
}

static HELD: AtomicUsize = AtomicUsize::new(0);
static LOST: AtomicUsize = AtomicUsize::new(0);

#[qudo::ability]
fn careful(job: &Job) -> qudo::JobResult {
    if !job.is_lease_lost() {
        HELD.fetch_add(1, Ordering::AcqRel);
    }
    while !job.is_lease_lost() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    LOST.fetch_add(1, Ordering::AcqRel);
    Ok(())
}

#[test]
fn a_job_is_told_that_others_may_run_it() {
    let silent = Arc::new(AtomicBool::new(false));
    let is_silent = Arc::clone(&silent);
    let driver = FaultyDriver::new(memory()).with_fault(move |call| {
        if call == "heartbeat" && is_silent.load(Ordering::Acquire) {
            return Err(DriverError::new(ErrorKind::Contention, "somebody locks the row"));
        }
        Ok(())
    });
    let manager = builder()
        .ability::<careful>()
        .heartbeat(Duration::from_millis(100), Duration::from_secs(1))
        .driver("it", Arc::new(driver))
        .build()
        .expect("valid");
    let running = manager.start().expect("starts");
    manager.enqueue(careful::job()).expect("stored");
    wait_until("it begins", || HELD.load(Ordering::Acquire) == 1);
    assert_eq!(LOST.load(Ordering::Acquire), 0, "nobody has it as long as it beats");
    silent.store(true, Ordering::Release);
    wait_until("it hears of it", || LOST.load(Ordering::Acquire) == 1);
    silent.store(false, Ordering::Release);
    running.stop();
}

/// This process's threads.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

#[test]
fn databases_that_come_and_go_leave_neither_threads_nor_turns() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let manager = builder().driver("stays", memory()).delay(Duration::from_millis(20)).build();
    let manager = manager.expect("valid");
    let working = manager.start().expect("starts");
    let come_and_go = |number: usize| {
        let name = format!("tenant{number}");
        let dsn = format!("sqlite:{}/{name}.db", place.path().display());
        Manager::builder()
            .linked(false)
            .database(&*dsn)
            .build()
            .expect("valid")
            .migrate()
            .expect("migrates");
        manager.add_database_as(&name, &dsn).expect("added");
        let sent =
            manager.enqueue(NewJob::named("plain", ().into()).database(&*name)).expect("stored");
        sent.wait_as::<()>(DEADLINE).expect("runs");
        manager.remove_database(&name).expect("removed");
    };
    (0..3).for_each(come_and_go);
    wait_until("the first are gone", || threads() < 60);
    // Other tests of this process start and end threads meanwhile.
    let before = threads();
    (3..60).for_each(come_and_go);
    wait_until("what was removed leaves threads behind", || threads() < before + 40);
    let sent = manager.enqueue(NewJob::named("plain", ().into())).expect("stored");
    sent.wait_as::<()>(DEADLINE).expect("runs");
    working.stop();
}

#[test]
fn threads_that_wait_for_a_job_are_not_woken_by_the_ends_of_others() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let driver = FaultyDriver::new(memory()).that_may_block().with_fault(move |name| {
        counted.fetch_add(usize::from(name == "state"), Ordering::Relaxed);
        Ok(())
    });
    let manager = builder().driver("one", Arc::new(driver)).workers(2).build().expect("valid");
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let later = NewJob::named("plain", ().into()).delay(Duration::from_secs(3_600));
            manager.enqueue(later).expect("stored").ticket().expect("new").clone()
        })
        .collect();
    let working = manager.start().expect("starts");
    std::thread::scope(|scope| {
        for ticket in &waiting {
            scope
                .spawn(|| ticket.wait_as::<()>(Duration::from_secs(3)).expect_err("an hour later"));
        }
        wait_until("all wait", || asked.load(Ordering::Relaxed) >= 100);
        let before = asked.load(Ordering::Relaxed);
        let begun = Instant::now();
        let mut ended = 0;
        while begun.elapsed() < Duration::from_secs(2) {
            // One after the other, so that each is a settlement of its own.
            manager
                .enqueue(NewJob::named("plain", ().into()))
                .expect("stored")
                .wait_as::<()>(DEADLINE)
                .expect("runs");
            ended += 1;
        }
        let asked = asked.load(Ordering::Relaxed) - before;
        // 100 threads look once in 100 ms at the most, and each job that ended was waited for.
        assert!(ended > 20, "only {ended} jobs in 2 s");
        assert!(asked < 3_000 + 10 * ended, "{asked} looks while {ended} jobs ended");
    });
    working.stop();
}

#[test]
fn a_database_that_is_retired_keeps_no_job_although_others_still_store_some() {
    let (one, two) = (memory(), memory());
    let process = |limit: u64| {
        builder()
            .driver("one", Arc::clone(&one))
            .driver("two", Arc::clone(&two))
            .call_limit(Duration::from_millis(limit))
            .build()
            .expect("valid")
    };
    let (operator, client) = (process(500), process(500));
    let stored = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                client.enqueue(NewJob::named("plain", ().into())).expect("stored");
                stored.fetch_add(1, Ordering::Relaxed);
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
        wait_until("some are stored", || stored.load(Ordering::Relaxed) > 50);
        let error = operator.retire_database("one", Duration::ZERO).expect_err("no time");
        assert!(matches!(error, Error::NotEmpty { .. }), "{error}");
        let moved = operator.retire_database("one", Duration::from_secs(60)).expect("retired");
        assert_eq!(moved.stayed, 0);
        stop.store(true, Ordering::Relaxed);
    });
    assert!(one.depth(1_000_000).expect("counts").is_empty());
    let there = two.depth(1_000_000).expect("counts").ready.count;
    assert_eq!(there, stored.load(Ordering::Relaxed) as u64);
    let names: Vec<_> = operator.database_reports().into_iter().map(|one| one.name).collect();
    assert_eq!(names, ["two"]);
    assert!(matches!(operator.retire_database("two", DEADLINE), Err(Error::NoDatabase)));
}

/// Opens a driver whose schema is told only after somebody started to work meanwhile.
static ON_SCHEMA: Mutex<Option<Box<dyn FnOnce() + Send>>> = Mutex::new(None);

qudo::extend::inventory::submit! {
    qudo::driver::DriverRegistration {
        schemes: &["gate"],
        open: |_, _| {
            let driver = FaultyDriver::new(memory()).with_fault(|call| {
                let act = if call == "schema" { ON_SCHEMA.lock().expect("no panic").take() } else { None };
                if let Some(act) = act {
                    act();
                }
                Ok(())
            });
            let name = "gate".to_owned();
            Ok(qudo::driver::NamedDriver { name, driver: Arc::new(driver) })
        },
    }
}

#[test]
fn a_database_that_is_added_while_the_work_starts_is_worked() {
    let manager = builder().driver("one", memory()).build().expect("valid");
    let (starts, started) = mpsc::channel();
    let other = manager.clone();
    *ON_SCHEMA.lock().expect("no panic") =
        Some(Box::new(move || starts.send(other.start().expect("starts")).expect("waits")));
    manager.add_database("gate:").expect("answers");
    let work = started.try_recv().expect("started while the database was looked at");
    let sent = manager.enqueue(plain::job(()).database("gate")).expect("stored");
    let ticket = sent.ticket().expect("stored").clone();
    ticket.wait_as::<()>(Duration::from_secs(20)).expect("somebody works there");
    work.stop();
}
