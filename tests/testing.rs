//! What users' tests are given: connections of their own, and tokio's time.

#![cfg(all(feature = "sqlite", feature = "tokio"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_query;
use qudo::driver::JobState;
use qudo::testing::{
    TakeIn, TestQueue, assert_enqueued, assert_enqueued_in, jobs_in, migrate_in, refute_enqueued,
    refute_enqueued_in,
};
use qudo::{EnqueueIn, JobResult, Manager};

#[qudo::ability]
fn pack(order: String) -> JobResult<usize> {
    Ok(order.len())
}

#[qudo::ability]
fn unpack(order: String) -> JobResult<usize> {
    Ok(order.len())
}

/// The code under test: an order and its job, together or not at all.
fn order<C>(manager: &Manager, conn: &mut C, item: &str, commits: bool) -> QueryResult<()>
where
    C: qudo::transactional::Transactional + Connection<Backend: diesel::backend::Backend>,
{
    conn.transaction(|conn| {
        manager.enqueue_in(conn, pack::job(item.to_owned()).priority(3)).expect("stored");
        if commits { Ok(()) } else { Err(diesel::result::Error::RollbackTransaction) }
    })
}

#[test]
fn a_queue_runs_what_was_enqueued_in_transactions_of_a_connection_in_memory() {
    let mut conn = SqliteConnection::establish(":memory:").expect("opens");
    assert_eq!(migrate_in(&mut conn).expect("makes tables").len(), 5);
    assert!(migrate_in(&mut conn).expect("they are there").is_empty());
    let queue = TestQueue::builder().ability::<pack>().build().expect("valid");

    order(queue.manager(), &mut conn, "tea", false).expect_err("rolled back");
    refute_enqueued_in!(&mut conn, pack);
    order(queue.manager(), &mut conn, "tea", true).expect("committed");
    assert_enqueued_in!(&mut conn, pack);
    assert_enqueued_in!(&mut conn, pack, |job, item| item == "tea" && job.facts.priority == 3);
    refute_enqueued_in!(&mut conn, unpack);
    let later = pack::job("later".to_owned()).delay(Duration::from_secs(3_600)).uniqkey("k");
    queue.manager().enqueue_in(&mut conn, later).expect("stored");
    let states: Vec<_> =
        jobs_in(&mut conn).expect("answers").into_iter().map(|job| job.state).collect();
    assert!(matches!(states[..], [JobState::Ready, JobState::Scheduled { .. }]), "{states:?}");

    refute_enqueued!(queue, pack);
    assert_eq!(queue.take_in(&mut conn).expect("takes"), 2);
    assert_enqueued!(queue, pack, |job, _| job.facts.uniqkey.as_deref() == Some("k"));
    refute_enqueued_in!(&mut conn, pack);
    assert_eq!(queue.take_in(&mut conn).expect("takes"), 0, "each once");
    assert_eq!(queue.run_all().expect("runs").len(), 1);
    queue.advance(Duration::from_secs(3_700));
    assert_eq!(queue.run_all().expect("runs").len(), 1);
    // The key went with the job.
    let again = pack::job("again".to_owned()).uniqkey("k");
    assert!(queue.manager().enqueue_in(&mut conn, again).expect("stored").ticket().is_some());
}

#[test]
#[should_panic(expected = "no such job of unpack is enqueued; there are: Ok([JobInfo")]
fn an_assertion_that_fails_lists_the_jobs_there_are() {
    let mut conn = SqliteConnection::establish(":memory:").expect("opens");
    migrate_in(&mut conn).expect("makes tables");
    let queue = TestQueue::builder().build().expect("valid");
    queue.manager().enqueue_in(&mut conn, pack::job("tea".to_owned())).expect("stored");
    assert_enqueued_in!(&mut conn, unpack);
}

#[cfg(all(feature = "postgres", feature = "mysql"))]
mod servers {
    use super::*;
    use qudo_test_servers::FreshDatabase;

    /// In a transaction that is never committed, as tests on a shared database are.
    fn within<C>(conn: &mut C, begin: impl FnOnce(&mut C), tables_first: bool)
    where
        C: qudo::testing::TestConnection + Connection<Backend: diesel::backend::Backend>,
    {
        if tables_first {
            migrate_in(conn).expect("makes tables");
        }
        begin(conn);
        if !tables_first {
            migrate_in(conn).expect("makes tables");
        }
        let queue = TestQueue::builder().ability::<pack>().build().expect("valid");
        order(queue.manager(), conn, "tea", true).expect("a savepoint");
        assert_enqueued_in!(&mut *conn, pack, |_, item| item == "tea");
        assert_eq!(queue.take_in(conn).expect("takes"), 1);
        assert!(queue.run_all().expect("runs")[0].is_success());
    }

    #[test]
    fn a_transaction_that_is_never_committed_is_enough() {
        if let Some(fresh) = FreshDatabase::on("postgres", "testing") {
            let mut conn = PgConnection::establish(fresh.url()).expect("connects");
            within(&mut conn, |conn| conn.begin_test_transaction().expect("begins"), false);
        }
        for engine in ["mariadb", "mysql"] {
            let Some(fresh) = FreshDatabase::on(engine, "testing") else { continue };
            let mut conn = MysqlConnection::establish(fresh.url()).expect("connects");
            // Making a table commits there.
            within(&mut conn, |conn| conn.begin_test_transaction().expect("begins"), true);
            sql_query("ROLLBACK").execute(&mut conn).expect("is undone");
        }
    }
}

#[qudo::ability(max_retries = 1, retry_delay = "10m")]
async fn patient(job: &qudo::Job) -> JobResult<u32> {
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    if job.attempt() == 1 { Err(qudo::JobError::fail("once")) } else { Ok(job.attempt()) }
}

#[tokio::test(start_paused = true)]
async fn due_times_and_sleeps_follow_the_paused_time_of_tokio() {
    let queue = TestQueue::builder()
        .ability::<patient>()
        .plugin(tokio::runtime::Handle::current())
        .tokio_time()
        .build()
        .expect("valid");
    let job = patient::job().delay(Duration::from_secs(60));
    let sent = queue.manager().enqueue_async(job).await.expect("stored");
    assert!(queue.run_all_async().await.expect("runs").is_empty(), "it is not due");
    tokio::time::advance(Duration::from_secs(61)).await;
    let outcomes = queue.run_all_async().await.expect("runs");
    assert_eq!(outcomes.len(), 1, "it slept for an hour, and failed");
    assert!(!outcomes[0].is_success());
    assert!(queue.run_all_async().await.expect("runs").is_empty(), "it waits for its retry");
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert!(queue.run_all_async().await.expect("runs")[0].is_success());
    let ticket = sent.ticket().expect("new");
    assert_eq!(ticket.wait_async(Duration::from_secs(1)).await.expect("replied"), 2);
}
