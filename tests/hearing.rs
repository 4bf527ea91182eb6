//! Those who wait for a job and read what it tells, while its server is stopped: they wait on, miss nothing, and their limits
//! hold; and how they hear of it from processes that run jobs.

#![cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql", feature = "tokio"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use qudo::admin::AuditOptions;
use qudo::{Error, Job, JobResult, Manager, Ticket, Update};
use qudo_test_servers::{
    Engine, FreshDatabase, Mariadb, Mysql, Options, Postgres, Server, can_start, eventually,
};

const DEADLINE: Duration = Duration::from_secs(60);

/// Goes on when the test says so.
#[derive(Clone, Default)]
struct Gate(Arc<AtomicU32>);

impl Gate {
    fn open(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Sends a value, and another for each time that the gate is opened, twice.
#[qudo::ability(max_retries = 20, retry_delay = "100ms")]
fn told(job: &Job, _nothing: ()) -> JobResult<u32> {
    let gate = &job.plugin::<Gate>()?.0;
    for step in 0..2 {
        job.send(&step)?;
        while gate.load(Ordering::SeqCst) <= step {
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
    Ok(7)
}

fn managers(url: &str, gate: &Gate) -> (Manager, Manager) {
    let builder = || {
        let builder = Manager::builder().linked(false).database(url);
        builder.call_limit(Duration::from_secs(1)).retry_seconds(1)
    };
    let worker = builder().ability::<told>().plugin(gate.clone()).build().expect("valid");
    worker.migrate().expect("migrates");
    (worker, builder().build().expect("another process"))
}

fn stopped<E: Engine>(name: &str) {
    if !can_start(E::SHORT) {
        return;
    }
    let server = Server::<E>::start(Options::default()).expect("starts");
    let url = server.create_database(name).expect("creates");
    let gate = Gate::default();
    let (worker, reader) = managers(&url, &gate);
    let working = worker.start().expect("starts");
    let sent = worker.enqueue(told::job(())).expect("stored");
    let ticket: Ticket<u32> = reader.ticket(sent.id().expect("new")).typed();

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("starts");
    // Each has read the first value before the server stops.
    let ready = Arc::new(AtomicU32::new(0));
    let (awaited, streamed, blocking) = (ticket.clone(), ticket.clone(), ticket.clone());
    let (by_stream, by_thread) = (Arc::clone(&ready), Arc::clone(&ready));
    let awaiting = runtime.spawn(async move { awaited.wait_async(DEADLINE).await });
    let streaming = runtime.spawn(async move {
        let mut stream = streamed.updates::<u32>().within(DEADLINE).into_stream();
        let mut values = Vec::new();
        while let Some(update) = stream.next().await {
            if let Update::Sent(one) = update.expect("waits on") {
                values.push(one.value);
                by_stream.fetch_add(1, Ordering::SeqCst);
            }
        }
        values
    });
    let reading = std::thread::spawn(move || {
        let mut values = Vec::new();
        for update in blocking.updates::<u32>().within(DEADLINE) {
            if let Update::Sent(one) = update.expect("waits on") {
                values.push(one.value);
                by_thread.fetch_add(1, Ordering::SeqCst);
            }
        }
        values
    });
    eventually(DEADLINE, "both read the first", || ready.load(Ordering::SeqCst) == 2);

    server.pause().expect("is stopped");
    let begun = Instant::now();
    let limited = ticket.clone();
    let timed_out = runtime.block_on(limited.wait_async(Duration::from_secs(3)));
    assert!(matches!(timed_out, Err(Error::WaitTimeout { .. })), "{timed_out:?}");
    // The runtime's one thread is free meanwhile, and limits hold.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    gate.open();
    gate.open();
    server.resume().expect("goes on");

    let of_attempts = |values: Vec<u32>| {
        // A run that could not send while its server was stopped failed and was made again.
        assert!(values.ends_with(&[0, 1]), "{values:?}");
    };
    of_attempts(runtime.block_on(streaming).expect("no panic"));
    of_attempts(reading.join().expect("no panic"));
    assert_eq!(runtime.block_on(awaiting).expect("no panic").expect("replied"), 7);
    working.stop();
}

#[test]
fn waits_and_readers_outlast_a_stopped_postgres() {
    stopped::<Postgres>("hearing");
}

#[test]
fn waits_and_readers_outlast_a_stopped_mariadb() {
    stopped::<Mariadb>("hearing");
}

#[test]
fn waits_and_readers_outlast_a_stopped_mysql() {
    stopped::<Mysql>("hearing");
}

/// How many connections listen on the server for news.
fn listeners(url: &str) -> i64 {
    let mut client = postgres::Client::connect(url, postgres::NoTls).expect("connects");
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'qudo listener' \
               AND datname = current_database()";
    client.query_one(sql, &[]).expect("answers").get(0)
}

#[test]
fn any_number_of_tickets_listens_on_one_connection() {
    let Some(fresh) = FreshDatabase::on("postgres", "hearing") else { return };
    let gate = Gate::default();
    let (worker, reader) = managers(fresh.url(), &gate);
    let working = worker.start().expect("starts");
    let sent: Vec<_> = (0..20)
        .map(|_| worker.enqueue(told::job(())).expect("stored").id().expect("new"))
        .collect();
    let threads: Vec<_> = sent
        .iter()
        .map(|job| {
            let ticket: Ticket<u32> = reader.ticket(*job).typed();
            std::thread::spawn(move || ticket.wait(DEADLINE))
        })
        .collect();
    // The worker's own, and one for all who wait.
    eventually(DEADLINE, "both listen", || listeners(fresh.url()) == 2);
    gate.open();
    gate.open();
    for thread in threads {
        assert_eq!(thread.join().expect("no panic").expect("replied"), 7);
    }
    assert_eq!(listeners(fresh.url()), 2);
    working.stop();
    drop((worker, reader));
    eventually(DEADLINE, "nobody listens", || listeners(fresh.url()) == 0);
}

/// A worker that is killed while it sends; by itself a test that has nothing to do.
#[test]
fn doomed_worker() {
    let Ok(url) = std::env::var("QUDO_DOOMED_WORKER") else { return };
    // Nobody opens this gate.
    let builder = Manager::builder().linked(false).database(&*url).ability::<told>();
    let builder = builder.plugin(Gate::default()).heartbeat(BEAT, DEAD_AFTER);
    builder.build().expect("valid").work().expect("is killed before");
}

const BEAT: Duration = Duration::from_millis(100);
const DEAD_AFTER: Duration = Duration::from_secs(1);

fn killed(url: &str) {
    let gate = Gate::default();
    let builder = Manager::builder().linked(false).database(url).ability::<told>();
    let builder = builder.plugin(gate.clone()).heartbeat(BEAT, DEAD_AFTER);
    let manager = builder.build().expect("valid");
    manager.migrate().expect("migrates");
    let sent = manager.enqueue(told::job(())).expect("stored");
    let ticket = sent.ticket().expect("new");
    let mut doomed = Command::new(std::env::current_exe().expect("a test has a path"))
        .args(["--exact", "doomed_worker", "--nocapture"])
        .env("QUDO_DOOMED_WORKER", url)
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    let mut updates = ticket.updates::<u32>().all_attempts().within(DEADLINE);
    let mut next = || match updates.next()?.expect("answers") {
        Update::Sent(one) => Some((one.attempt, one.number, one.value)),
        other => panic!("{other:?}"),
    };
    assert_eq!(next(), Some((1, 0, 0)));
    doomed.kill().expect("is killed");
    doomed.wait().expect("is gone");
    gate.open();
    gate.open();
    let working = manager.start().expect("starts");
    assert_eq!((next(), next(), next()), (Some((2, 1, 0)), Some((2, 2, 1)), None));
    assert_eq!(ticket.wait(DEADLINE).expect("replied"), 7);
    working.stop();
    let report = manager.audit(AuditOptions::default());
    assert!(report.is_clean(), "{report}");
}

#[test]
fn what_a_killed_worker_sent_is_read_before_what_the_next_attempt_sends() {
    for engine in ["postgres", "mariadb", "mysql"] {
        if let Some(fresh) = FreshDatabase::on(engine, "killed") {
            killed(fresh.url());
        }
    }
    let place = tempfile::tempdir().expect("a temporary directory");
    killed(&format!("sqlite:{}", place.path().join("jobs.db").display()));
}
