//! What waits for whom: transactions of the application that stay open hold up no one who has nothing
//! to do with them, and no longer than they must.

#![cfg(any(feature = "postgres", feature = "mysql"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use diesel::connection::{AnsiTransactionManager, SimpleConnection, TransactionManager};
use diesel::{Connection, QueryableByName, RunQueryDsl};
use qudo::driver::{Driver, DriverRegistration};
use qudo::transactional::Transactional;
use qudo::{EnqueueIn, Job, Manager, NewJob};
use qudo_test_servers::FreshDatabase;

/// Every wait for a condition ends here.
const DEADLINE: Duration = Duration::from_secs(60);

/// A fresh, migrated database, dropped at the end.
struct Fresh(FreshDatabase);

impl Fresh {
    fn on(engine: &str) -> Option<Self> {
        drop(env_logger::builder().is_test(true).try_init());
        let fresh = Self(FreshDatabase::on(engine, "locks")?);
        fresh.manager(|builder| builder).migrate().expect("migrates");
        Some(fresh)
    }

    fn dsn(&self) -> &str {
        self.0.url()
    }

    fn manager(&self, more: fn(qudo::ManagerBuilder) -> qudo::ManagerBuilder) -> Manager {
        let builder = Manager::builder().linked(false).database_as("it", self.dsn());
        more(builder.delay(Duration::from_millis(200))).build().expect("valid")
    }

    fn driver(&self) -> Arc<dyn Driver> {
        DriverRegistration::open_linked(self.dsn()).expect("valid").driver
    }
}

fn keyed(key: &str) -> NewJob {
    NewJob::named("quick", serde_json::json!("x")).uniqkey(key)
}

#[qudo::ability]
fn quick(_text: String) {}

#[track_caller]
fn eventually(what: &str, condition: impl Fn() -> bool) {
    qudo_test_servers::eventually(DEADLINE, what, condition);
}

/// Two transactions that meet the same taken key; the first stays open.
fn two_that_meet_a_key<C>(engine: &str)
where
    C: Connection<TransactionManager = AnsiTransactionManager> + Transactional + Send,
{
    let Some(fresh) = Fresh::on(engine) else { return };
    let manager = fresh.manager(|builder| builder);
    let held = manager.enqueue(keyed("k")).expect("stored").id();
    let (told, hears) = mpsc::channel();
    let (go_on, waits) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let mut first = C::establish(fresh.dsn()).expect("connects");
        AnsiTransactionManager::begin_transaction(&mut first).expect("begins");
        assert_eq!(manager.enqueue_in(&mut first, keyed("k")).expect("answers").id(), held);
        let (manager, fresh) = (&manager, &fresh);
        scope.spawn(move || {
            let mut second = C::establish(fresh.dsn()).expect("connects");
            AnsiTransactionManager::begin_transaction(&mut second).expect("begins");
            let met = manager.enqueue_in(&mut second, keyed("k")).expect("answers").id();
            told.send(met).expect("the test listens");
            let _ = waits.recv();
            AnsiTransactionManager::rollback_transaction(&mut second).expect("ends");
        });
        let met = hears.recv_timeout(DEADLINE).expect("it does not wait for the first");
        assert_eq!(met, held);
        // Both at once go on, and neither is chosen to fail.
        assert!(manager.enqueue_in(&mut first, keyed("own")).expect("answers").is_new());
        go_on.send(()).expect("the second listens");
        AnsiTransactionManager::commit_transaction(&mut first).expect("commits");
    });
    assert!(manager.holder("quick", "own").expect("answers").is_some());
}

#[cfg(feature = "postgres")]
#[test]
fn two_transactions_that_meet_a_taken_key_do_not_wait_for_each_other_on_postgres() {
    two_that_meet_a_key::<diesel::PgConnection>("postgres");
}

#[cfg(feature = "mysql")]
#[test]
fn two_transactions_that_meet_a_taken_key_do_not_wait_for_each_other_on_mariadb() {
    two_that_meet_a_key::<diesel::MysqlConnection>("mariadb");
}

#[cfg(feature = "mysql")]
#[test]
fn two_transactions_that_meet_a_taken_key_do_not_wait_for_each_other_on_mysql() {
    two_that_meet_a_key::<diesel::MysqlConnection>("mysql");
}

/// On MySQL it must wait: the insert that met the key left a lock on it.
#[cfg(feature = "postgres")]
#[test]
fn the_end_of_a_job_does_not_wait_for_a_transaction_that_met_its_key() {
    let Some(fresh) = Fresh::on("postgres") else { return };
    let manager = fresh.manager(|builder| builder.ability::<quick>());
    let held = manager.enqueue(keyed("k")).expect("stored").id();
    let mut conn = diesel::PgConnection::establish(fresh.dsn()).expect("connects");
    AnsiTransactionManager::begin_transaction(&mut conn).expect("begins");
    assert_eq!(manager.enqueue_in(&mut conn, keyed("k")).expect("answers").id(), held);
    let begun = Instant::now();
    assert!(manager.work_once().expect("settles").is_some());
    let lock_timeout = Duration::from_secs(5);
    assert!(begun.elapsed() < lock_timeout, "it waited for the transaction");
    AnsiTransactionManager::rollback_transaction(&mut conn).expect("ends");
    assert!(manager.holder("quick", "k").expect("answers").is_none());
}

static RUNS: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());

#[qudo::ability]
fn noted(_job: &Job, text: String) -> qudo::JobResult {
    RUNS.lock().expect("no panic").push(text);
    Ok(())
}

/// Somebody holds the key's row of a job that has ended, for longer than a call may take.
fn an_end_behind_a_lock<C>(engine: &str)
where
    C: Connection<TransactionManager = AnsiTransactionManager> + SimpleConnection,
{
    let Some(fresh) = Fresh::on(engine) else { return };
    let manager = fresh.manager(|builder| {
        builder.ability::<noted>().workers(2).call_limit(Duration::from_secs(3))
    });
    let text = |what: &str| format!("{engine} {what}");
    let runs = |what: &str| {
        RUNS.lock().expect("no panic").iter().filter(|one| **one == text(what)).count()
    };
    let blocked = manager.enqueue(noted::job(text("blocked")).uniqkey("k")).expect("stored");
    let mut conn = C::establish(fresh.dsn()).expect("connects");
    AnsiTransactionManager::begin_transaction(&mut conn).expect("begins");
    conn.batch_execute("UPDATE qudo_unique SET uniqkey = uniqkey WHERE uniqkey = 'k'")
        .expect("locks");
    let working = manager.start().expect("starts");
    eventually("the first ran", || runs("blocked") == 1);
    for n in 0..20 {
        let what = format!("other {n}");
        let sent = manager.enqueue(noted::job(text(&what))).expect("stored");
        sent.wait_as::<()>(DEADLINE).expect("settled while the lock is held");
        assert_eq!(runs(&what), 1);
    }
    assert!(manager.lookup(blocked.id().expect("new")).expect("answers").is_some());
    AnsiTransactionManager::rollback_transaction(&mut conn).expect("ends");
    blocked.wait_as::<()>(DEADLINE).expect("settled at last");
    working.stop();
    assert_eq!(runs("blocked"), 1);
}

#[cfg(feature = "postgres")]
#[test]
fn an_end_that_waits_for_a_lock_holds_up_no_other_and_is_not_forgotten_on_postgres() {
    an_end_behind_a_lock::<diesel::PgConnection>("postgres");
}

#[cfg(feature = "mysql")]
#[test]
fn an_end_that_waits_for_a_lock_holds_up_no_other_and_is_not_forgotten_on_mariadb() {
    an_end_behind_a_lock::<diesel::MysqlConnection>("mariadb");
}

#[cfg(feature = "mysql")]
#[test]
fn an_end_that_waits_for_a_lock_holds_up_no_other_and_is_not_forgotten_on_mysql() {
    an_end_behind_a_lock::<diesel::MysqlConnection>("mysql");
}

/// Many enqueues wait for the transaction that holds their key.
fn heartbeats_beside_waiting_enqueues<C>(engine: &str)
where
    C: Connection<TransactionManager = AnsiTransactionManager> + Transactional,
{
    // Less than the five seconds for which the server lets a statement wait for a lock.
    const DEAD_AFTER: Duration = Duration::from_secs(4);
    let Some(fresh) = Fresh::on(engine) else { return };
    let manager = fresh.manager(|builder| {
        builder.ability::<quick>().heartbeat(Duration::from_millis(100), DEAD_AFTER)
    });
    let mut conn = C::establish(fresh.dsn()).expect("connects");
    AnsiTransactionManager::begin_transaction(&mut conn).expect("begins");
    assert!(manager.enqueue_in(&mut conn, keyed("k")).expect("answers").is_new());
    let working = manager.start().expect("starts");
    let driver = fresh.driver();
    eventually("it beats", || !driver.workers().expect("answers").is_empty());
    std::thread::scope(|scope| {
        for _ in 0..20 {
            // Whether they get their answer in time is not the question here.
            scope.spawn(|| drop(manager.enqueue(keyed("k"))));
        }
        let until = Instant::now() + DEAD_AFTER + DEAD_AFTER / 4;
        while Instant::now() < until {
            let workers = driver.workers().expect("answers");
            let silent = workers.iter().map(|one| one.silent).max().expect("the one");
            assert!(silent < DEAD_AFTER, "silent for {silent:?}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        AnsiTransactionManager::rollback_transaction(&mut conn).expect("ends");
    });
    working.stop();
}

#[cfg(feature = "postgres")]
#[test]
fn enqueues_that_wait_for_a_key_hold_up_no_heartbeat_on_postgres() {
    heartbeats_beside_waiting_enqueues::<diesel::PgConnection>("postgres");
}

#[cfg(feature = "mysql")]
#[test]
fn enqueues_that_wait_for_a_key_hold_up_no_heartbeat_on_mariadb() {
    heartbeats_beside_waiting_enqueues::<diesel::MysqlConnection>("mariadb");
}

#[cfg(feature = "mysql")]
#[test]
fn enqueues_that_wait_for_a_key_hold_up_no_heartbeat_on_mysql() {
    heartbeats_beside_waiting_enqueues::<diesel::MysqlConnection>("mysql");
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

#[cfg(feature = "postgres")]
fn number(conn: &mut diesel::PgConnection, sql: &str) -> i64 {
    diesel::sql_query(sql).get_result::<Number>(conn).expect("counts").n
}

#[cfg(feature = "postgres")]
#[test]
fn a_job_that_becomes_due_while_it_is_dequeued_is_dequeued() {
    let Some(fresh) = Fresh::on("postgres") else { return };
    let manager = fresh.manager(|builder| builder);
    let job = NewJob::named("quick", serde_json::json!("x")).delay(Duration::from_secs(3600));
    let id = manager.enqueue(job).expect("stored").id().expect("new");
    let mut conn = diesel::PgConnection::establish(fresh.dsn()).expect("connects");
    let mut watch = diesel::PgConnection::establish(fresh.dsn()).expect("connects");
    // What a promotion does, not yet committed.
    AnsiTransactionManager::begin_transaction(&mut conn).expect("begins");
    conn.batch_execute(
        "WITH due AS (DELETE FROM qudo_scheduled RETURNING *) INSERT INTO qudo_ready \
         (queue, claim_rank, id, ability, attempt, crashes, flags) \
         SELECT queue, claim_rank, id, ability, attempt, crashes, flags FROM due",
    )
    .expect("promotes");
    std::thread::scope(|scope| {
        let dequeuing = scope.spawn(|| manager.dequeue(id));
        let waits = "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                     AND datname = current_database()";
        let deadline = Instant::now() + DEADLINE;
        while number(&mut watch, waits) == 0 {
            assert!(Instant::now() < deadline, "it never waited for the row");
        }
        AnsiTransactionManager::commit_transaction(&mut conn).expect("commits");
        assert!(dequeuing.join().expect("no panic").expect("answers"), "it was there all along");
    });
    assert!(manager.lookup(id).expect("answers").is_none());
}

/// A stop that comes while an end waits for a lock: its lease is kept, and it is settled with the
/// lock's release.
#[cfg(feature = "postgres")]
#[test]
fn an_end_that_waits_for_a_lock_is_settled_before_a_stop_returns() {
    const DEAD_AFTER: Duration = Duration::from_secs(3);
    let Some(fresh) = Fresh::on("postgres") else { return };
    let manager = fresh.manager(|builder| {
        let builder = builder.ability::<noted>().call_limit(Duration::from_secs(2));
        builder.heartbeat(DEAD_AFTER / 10, DEAD_AFTER).shutdown_timeout(DEADLINE)
    });
    let sent = manager.enqueue(noted::job("stopped".to_owned()).uniqkey("k")).expect("stored");
    let mut conn = diesel::PgConnection::establish(fresh.dsn()).expect("connects");
    AnsiTransactionManager::begin_transaction(&mut conn).expect("begins");
    conn.batch_execute("UPDATE qudo_unique SET uniqkey = uniqkey").expect("locks");
    let working = manager.start().expect("starts");
    let runs = || RUNS.lock().expect("no panic").iter().filter(|one| **one == "stopped").count();
    eventually("it ran", || runs() == 1);
    let stopping = std::thread::spawn(move || working.stop());
    // Others would take the job after so long, did its process say no more that it lives.
    let driver = fresh.driver();
    let until = Instant::now() + 2 * DEAD_AFTER;
    while Instant::now() < until {
        let silent = driver.workers().expect("answers").into_iter().map(|one| one.silent).max();
        assert!(silent.expect("the one") < DEAD_AFTER);
        std::thread::park_timeout(Duration::from_millis(200));
    }
    AnsiTransactionManager::rollback_transaction(&mut conn).expect("ends");
    stopping.join().expect("no panic");
    assert!(manager.lookup(sent.id().expect("new")).expect("answers").is_none(), "settled");
    assert!(driver.workers().expect("answers").is_empty(), "its row is removed");
    assert!(manager.work_once().expect("works").is_none());
    assert_eq!(runs(), 1);
}

/// On a server of its own, whose count of deadlocks nobody else adds to: jobs that become due while they
/// are scheduled anew, again and again, by several at once.
#[cfg(feature = "mysql")]
fn due_jobs_and_changes_of_when_they_are_due_meet_without_a_deadlock<
    E: qudo_test_servers::Engine,
>(
    count: &str,
) {
    use qudo::driver::{Deadline, Due, JobFacts, JobRecord};

    if !qudo_test_servers::can_start(E::SHORT) {
        return;
    }
    let server = qudo_test_servers::Server::<E>::start(qudo_test_servers::Options::default())
        .expect("starts");
    let open = || DriverRegistration::open_linked(&server.url()).expect("valid").driver;
    let driver = open();
    driver.migrate(false).expect("migrates");
    let record = |_| JobRecord {
        id: qudo::JobId::new(),
        facts: JobFacts::new("quick", "default", "json", b"1".to_vec()),
        due: Due::In(Duration::from_millis(1)),
    };
    let jobs: Vec<JobRecord> = (0..200).map(record).collect();
    driver.insert(&jobs, Deadline::NONE).expect("stored");
    let deadlocks = || -> i64 {
        let told = server.query(count).expect("tells");
        told.split_whitespace().last().expect("a number").parse().expect("a number")
    };
    let before = deadlocks();
    let until = Instant::now() + Duration::from_secs(4);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let driver = open();
            scope.spawn(move || {
                while Instant::now() < until {
                    driver.promote_due(50).expect("promotes");
                }
            });
        }
        // Each its own jobs: two that change one job at the same moment may deadlock over what is left of
        // its row, and one of them is repeated.
        for jobs in jobs.chunks(50) {
            let driver = open();
            scope.spawn(move || {
                for job in jobs.iter().cycle().take_while(|_| Instant::now() < until) {
                    let due = Due::In(Duration::from_micros(1));
                    driver.reschedule(job.id, due).expect("answers");
                }
            });
        }
    });
    let met = deadlocks() - before;
    if met > 0 {
        println!("{}", server.query("SHOW ENGINE INNODB STATUS").expect("tells"));
    }
    assert_eq!(met, 0, "deadlocks in four seconds");
    let depth = driver.depth(1_000).expect("answers");
    assert_eq!(depth.ready.count + depth.scheduled.count, 200);
}

#[test]
#[cfg(feature = "mysql")]
fn due_jobs_and_changes_of_when_they_are_due_meet_without_a_deadlock_on_mariadb() {
    due_jobs_and_changes_of_when_they_are_due_meet_without_a_deadlock::<qudo_test_servers::Mariadb>(
        "SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'",
    );
}

#[test]
#[cfg(feature = "mysql")]
fn due_jobs_and_changes_of_when_they_are_due_meet_without_a_deadlock_on_mysql() {
    due_jobs_and_changes_of_when_they_are_due_meet_without_a_deadlock::<qudo_test_servers::Mysql>(
        "SELECT COUNT FROM information_schema.INNODB_METRICS WHERE NAME = 'lock_deadlocks'",
    );
}
