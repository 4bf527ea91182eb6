//! PostgreSQL's queue of notifications belongs to the whole server, and somebody else may fill it.

#![cfg(feature = "postgres")]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use qudo::admin::{Acted, Part};
use qudo::{EnqueueIn, Error, Job, JobError, JobResult, Manager, NewJob};
use qudo_test_servers::{Options, PostgresServer, can_start};

/// Before this version the queue's length is 8 GiB, which no test fills.
const FIRST_WITH_A_LIMIT: u32 = 17;

/// 64 pages of 8 KiB are the least. Each notification takes a page.
const PAGES: usize = 64;

#[test]
fn a_full_queue_of_notifications_keeps_no_job_out() {
    if !can_start("postgres") {
        return;
    }
    let server = PostgresServer::start(Options::default()).expect("starts");
    let version = server.query("SHOW server_version_num").expect("answers");
    if version.parse::<u32>().expect("a number") / 10_000 < FIRST_WITH_A_LIMIT {
        println!("NOT RUN: the queue of {} has no limit that can be set", server.version());
        return;
    }
    let limit = format!("ALTER SYSTEM SET max_notify_queue_pages = {PAGES}");
    server.query(&limit).expect("sets");
    server.restart().expect("restarts");
    let manager =
        Manager::builder().linked(false).database_as("it", server.url()).build().expect("valid");
    manager.migrate().expect("migrates");

    // Somebody listens, and sits in a transaction.
    let connect = || PgConnection::establish(&server.url()).expect("connects");
    let (mut idle, mut other) = (connect(), connect());
    // Apart: a transaction that begins in the same message would hold the LISTEN too.
    idle.batch_execute("LISTEN other").expect("listens");
    idle.batch_execute("BEGIN; SELECT 1").expect("sits");
    let full = (0..2 * PAGES).find_map(|number| {
        let sql = format!("SELECT pg_notify('other', rpad('{number}', 7999, 'x'))");
        other.batch_execute(&sql).err()
    });
    let full = full.expect("it becomes full").to_string();
    assert!(full.contains("too many notifications"), "{full}");

    // The first takes its notification along, and later ones too after a quiet moment.
    manager.enqueue(NewJob::named("it", 1.into())).expect("stored without a notification");
    let many = (0..10).map(|number| NewJob::named("it", number.into()));
    for stored in manager.enqueue_many(many).expect("stored") {
        assert!(stored.is_new(), "{stored:?}");
    }
    assert_eq!(server.query("SELECT count(*) FROM qudo_ready").expect("counts"), "11");

    // A transaction that sends one by itself cannot be helped; it may do without.
    let job = || NewJob::named("it", 1.into());
    let sent = connect().transaction(|conn| {
        manager.enqueue_in(conn, job()).map(drop).map_err(|_| diesel::result::Error::NotFound)
    });
    let sent = sent.expect_err("fails at its commit").to_string();
    assert!(sent.contains("too many notifications"), "{sent}");
    let quiet = Manager::builder()
        .linked(false)
        .database_as("it", server.url())
        .notify_in_transactions(false)
        .build()
        .expect("valid");
    let stored = connect().transaction(|conn| {
        quiet.enqueue_in(conn, job()).map(drop).map_err(|_| diesel::result::Error::NotFound)
    });
    stored.expect("stored");
    assert_eq!(server.query("SELECT count(*) FROM qudo_ready").expect("counts"), "12");
}

/// Runs until it is cancelled.
#[qudo::ability]
fn endures(job: &Job) -> JobResult {
    while !job.is_cancelled() {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    Err(JobError::fail("gave up"))
}

#[test]
fn orders_reach_a_worker_long_before_its_next_heartbeat() {
    if !can_start("postgres") {
        return;
    }
    let server = PostgresServer::start(Options::default()).expect("starts");
    let (every, dead_after) = (Duration::from_secs(120), Duration::from_secs(600));
    let manager = || {
        let builder = Manager::builder().linked(false).database_as("it", server.url());
        builder.ability::<endures>().heartbeat(every, dead_after).build().expect("valid")
    };
    let (worker, operator) = (manager(), manager());
    worker.migrate().expect("migrates");
    let working = worker.start().expect("starts");
    let sent = operator.enqueue(endures::job()).expect("stored");
    let id = sent.id().expect("is new");
    let deadline = Instant::now() + every / 2;
    let runs = || {
        let job = operator.lookup(id).expect("answers").expect("it lives").1;
        matches!(job.state, qudo::admin::JobState::Running { .. })
    };
    while !runs() {
        assert!(Instant::now() < deadline, "it does not begin");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let asked = Instant::now();
    assert_eq!(operator.cancel(id, "enough").expect("answers"), Acted::Asked);
    let error = sent.wait_done(every / 2).expect_err("it never ends by itself");
    assert!(matches!(error, Error::JobCancelled { .. }), "{error}");
    println!("cancelled after {:?}", asked.elapsed());

    // A pause too: the next job is not begun, though an enqueue wakes the worker.
    operator
        .pause_part(&Part::Ability("endures".to_owned()), None, "closed")
        .expect("one database");
    let paused = || worker.pauses().remove(0).answer.expect("answers").len() == 1;
    assert!(paused());
    working.stop();
}
