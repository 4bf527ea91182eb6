//! A server that dies behind a transaction pooler: the pooler still answers, with errors of its own.

#![cfg(feature = "postgres")]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::time::{Duration, Instant};

use qudo::{Error, Manager};
use qudo_test_servers::{Options, PgbouncerServer, PostgresServer};

#[qudo::ability]
fn double(n: u32) -> qudo::JobResult<u32> {
    Ok(2 * n)
}

#[test]
fn a_server_that_dies_behind_a_pooler_is_down_and_comes_back_with_its_jobs() {
    let server = PostgresServer::start(Options { durable: true, ..Options::default() });
    let server = server.expect("starts");
    let pooler = PgbouncerServer::before(&server.url()).expect("starts");
    let manager = Manager::builder()
        .linked(false)
        .ability::<double>()
        .database(pooler.url())
        .retry_seconds(1)
        .build()
        .expect("valid");
    manager.migrate().expect("migrates").remove(0).answer.expect("migrates");
    let job = double::job;
    let first = manager.enqueue(job(1)).expect("stored");
    server.kill().expect("killed");
    let refused = manager.enqueue(job(2)).expect_err("nobody can take it");
    assert!(matches!(refused, Error::AllDatabasesDown { .. }), "{refused}");
    server.restart().expect("starts again");
    let working = manager.start().expect("starts");
    // The pooler waits for a while before it asks the server again, and the manager after it.
    let deadline = Instant::now() + Duration::from_secs(60);
    let second = loop {
        match manager.enqueue(job(2)) {
            Ok(second) => break second,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::park_timeout(Duration::from_millis(50));
    };
    let wait = |sent: &qudo::Enqueued<u32>| sent.wait(Duration::from_secs(60)).expect("replies");
    assert_eq!((wait(&first), wait(&second)), (2, 4));
    working.stop();
}
