//! Rows that were deleted stay in the indexes of a server for as long as some transaction could still see
//! them: a dump of an hour, a forgotten session. Looks at queues that are empty must not step over all of
//! them again and again.

#![cfg(any(feature = "postgres", feature = "mysql"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::RunQueryDsl;
use qudo::driver::{
    AbilityLease, ClaimRequest, ClaimedJob, Deadline, Driver, DriverRegistration, Due, Name,
    WorkerId,
};
use qudo::{Manager, NewJob};
use qudo_test_servers::FreshDatabase;

/// A look that takes longer steps over too many.
const LOOK: Duration = Duration::from_millis(5);

/// What a worker asks.
struct Worker {
    driver: Arc<dyn Driver>,
    id: WorkerId,
    queue: Name,
    abilities: [AbilityLease; 1],
}

impl Worker {
    fn new(dsn: &str) -> Self {
        let driver = DriverRegistration::open_linked(dsn).expect("valid").driver;
        let abilities = [AbilityLease { name: "plan".into(), grab_for: Duration::from_secs(600) }];
        Self { driver, id: WorkerId::new(), queue: "default".into(), abilities }
    }

    fn claim(&self) -> Vec<ClaimedJob> {
        let request = ClaimRequest {
            worker: self.id,
            claim: 1,
            queue: &self.queue,
            abilities: &self.abilities,
            limit: 100,
            deadline: Deadline::at(Instant::now() + Duration::from_secs(30)),
            thorough: false,
        };
        self.driver.claim(&request).expect("claims")
    }

    /// A round of a worker that waits for something to do, and what its longest look took.
    fn round(&self) -> (usize, (Duration, &'static str)) {
        let mut longest = (Duration::ZERO, "");
        let mut timed = |begun: Instant, what| longest = longest.max((begun.elapsed(), what));
        let begun = Instant::now();
        self.driver.changed(&["default"], &self.abilities).expect("looks");
        timed(begun, "look for changes");
        let begun = Instant::now();
        self.driver.promote_due(1_000).expect("promotes");
        timed(begun, "promotion");
        let begun = Instant::now();
        let found = self.claim().len();
        timed(begun, "claim");
        (found, longest)
    }
}

fn manager(dsn: &str) -> Manager {
    Manager::builder().linked(false).database(dsn).build().expect("valid")
}

/// Dead rows of two priorities, and of jobs that were due in the last hour or are in the next ones, while `snapshot` can see them.
fn drained<C>(conn: &mut C, snapshot: &mut C, words: &Words)
where
    C: diesel::connection::SimpleConnection,
{
    conn.batch_execute(words.fill).expect("fills");
    snapshot.batch_execute(words.snapshot).expect("begins");
    conn.batch_execute("DELETE FROM qudo_ready").expect("deletes");
    conn.batch_execute("DELETE FROM qudo_scheduled").expect("deletes");
}

struct Words {
    fill: &'static str,
    snapshot: &'static str,
}

/// The first looks find out that they are dear, and cut what they sweep until none is.
fn looks_become_cheap(worker: &Worker) {
    let deadline = Instant::now() + Duration::from_secs(300);
    let (mut calm, mut rounds) = (0, 0);
    while calm < 400 {
        let (found, longest) = worker.round();
        assert_eq!(found, 0);
        calm = if longest.0 <= LOOK { calm + 1 } else { 0 };
        rounds += 1;
        assert!(Instant::now() < deadline, "{rounds} rounds, the last took {longest:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// MariaDB reads on over dead rows to the next living one, so its looks are dear for good. They come rarely.
#[cfg(feature = "mysql")]
fn looks_are_rarely_dear(worker: &Worker) {
    let rounds: Vec<_> = (0..2_000).map(|_| worker.round().1).collect();
    let dear: Vec<_> = rounds.iter().filter(|(took, _)| *took > LOOK).collect();
    assert!(dear.len() <= 200, "{} of 2,000: {:?}", dear.len(), &dear[..20]);
}

/// New jobs at once, the others by the sweep. MariaDB's looks are dear for good, and each of a second makes the next
/// ones wait for twenty.
fn every_kind_of_job_is_found(worker: &Worker, manager: &Manager, rarest: Duration) {
    let soon = |what: &str, at_most: Duration| {
        let begun = Instant::now();
        while worker.round().0 == 0 {
            assert!(begun.elapsed() < at_most, "{what} is not found");
        }
    };
    let enqueue = |job: NewJob| drop(manager.enqueue(job).expect("stored"));
    enqueue(NewJob::named("plan", 1.into()));
    soon("a new job", Duration::from_secs(1));
    enqueue(NewJob::named("plan", 2.into()).priority(3));
    soon("one of a priority that dead rows have", rarest);
    enqueue(NewJob::named("plan", 3.into()).priority(77));
    soon("one of another priority", Duration::from_secs(30));
    enqueue(NewJob::named("plan", 4.into()).delay(Duration::from_millis(50)));
    soon("one that becomes due", rarest);
    let later = NewJob::named("plan", 5.into()).delay(Duration::from_secs(3_600));
    let later = manager.enqueue(later).expect("stored").id().expect("stored");
    let old = Due::At(chrono::Utc::now() - chrono::TimeDelta::hours(2));
    assert!(manager.reschedule(later, old).expect("changes"));
    soon("one that was due long ago", Duration::from_secs(60));
}

/// What was claimed and given back has an old id: it is found by the sweep.
fn what_comes_back_is_found(worker: &Worker, manager: &Manager) {
    manager.enqueue(NewJob::named("plan", 6.into())).expect("stored");
    let deadline = Instant::now() + Duration::from_secs(60);
    while worker.claim().is_empty() {
        assert!(Instant::now() < deadline);
    }
    // Others pass it by.
    let newer = (0..10).map(|n| NewJob::named("plan", n.into()));
    manager.enqueue_many(newer).expect("stored");
    assert_eq!(worker.claim().len(), 10);
    std::thread::sleep(Duration::from_millis(10));
    assert!(worker.driver.release_claim(worker.id, 1).expect("gives back") >= 11);
    let mut left = 11;
    while left > 0 {
        left -= worker.round().0.min(left);
        assert!(Instant::now() < deadline, "{left} are not found");
    }
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_does_not_step_over_dead_rows_again_and_again() {
    use diesel::{Connection, PgConnection};
    let Some(fresh) = FreshDatabase::on("postgres", "dead") else { return };
    let dsn = fresh.url();
    let manager = manager(dsn);
    manager.migrate().expect("migrates");
    let mut conn = PgConnection::establish(dsn).expect("connects");
    // Statistics stay those of empty tables, and plans that are made now are kept.
    for table in ["qudo_ready", "qudo_scheduled"] {
        let off = format!("ALTER TABLE {table} SET (autovacuum_enabled = off)");
        diesel::sql_query(off).execute(&mut conn).expect("set");
    }
    let worker = Worker::new(dsn);
    for _ in 0..6 {
        worker.round();
    }
    let mut snapshot = PgConnection::establish(dsn).expect("connects");
    // Ids of the last hour, as they are made at 280 a second.
    let words = Words {
        fill: "INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes, flags) \
               SELECT 'default', CASE WHEN n % 4 = 0 THEN -3 ELSE 0 END, \
               (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - n * 3.6::int), 12, '0') \
               || '7' || lpad(to_hex(n % 4096), 3, '0') || '8' || lpad(to_hex(n), 15, '0'))::uuid, \
               'plan', 0, 0, 0 FROM generate_series(1, 1000000) n; \
               INSERT INTO qudo_scheduled (run_after, id, queue, claim_rank, ability, attempt, crashes, flags) \
               SELECT (extract(epoch FROM now()) * 1000000)::bigint \
               + CASE WHEN n % 2 = 0 THEN -n ELSE 1000000 + n END::bigint * 3600, (lpad(to_hex(n), 32, '0'))::uuid, \
               'default', 0, 'plan', 0, 0, 0 FROM generate_series(1, 1000000) n",
        snapshot: "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM qudo_worker",
    };
    drained(&mut conn, &mut snapshot, &words);
    looks_become_cheap(&worker);
    every_kind_of_job_is_found(&worker, &manager, Duration::from_secs(10));
    what_comes_back_is_found(&worker, &manager);
    drop(snapshot);
}

#[cfg(feature = "mysql")]
fn innodb_does_not_step_over_dead_rows_again_and_again(engine: &str) {
    use diesel::{Connection, MysqlConnection};
    let Some(fresh) = FreshDatabase::on(engine, "dead") else { return };
    let dsn = fresh.url();
    let manager = manager(dsn);
    manager.migrate().expect("migrates");
    let worker = Worker::new(dsn);
    worker.round();
    let mut conn = MysqlConnection::establish(dsn).expect("connects");
    let mut snapshot = MysqlConnection::establish(dsn).expect("connects");
    let words = Words {
        fill: "CREATE TABLE digits (d INT); \
               INSERT INTO digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9); \
               CREATE TABLE numbers AS SELECT a.d + 10 * b.d + 100 * c.d + 1000 * d.d + 10000 * e.d \
               + 100000 * f.d AS n FROM digits a, digits b, digits c, digits d, digits e, digits f; \
               INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes, flags) \
               SELECT 'default', CASE WHEN n % 4 = 0 THEN -3 ELSE 0 END, \
               UNHEX(CONCAT(LPAD(HEX(UNIX_TIMESTAMP() * 1000 - n * 3), 12, '0'), '7', \
               LPAD(HEX(n % 4096), 3, '0'), '8', LPAD(HEX(n), 15, '0'))), 'plan', 0, 0, 0 \
               FROM numbers ORDER BY n DESC; \
               INSERT INTO qudo_scheduled (run_after, id, queue, claim_rank, ability, attempt, crashes, flags) \
               SELECT UNIX_TIMESTAMP() * 1000000 + IF(n % 2 = 0, -n, 1000000 + n) * 3600, UNHEX(LEFT(SHA2(n, 256), 32)), \
               'default', 0, 'plan', 0, 0, 0 FROM numbers ORDER BY n DESC",
        snapshot: "START TRANSACTION WITH CONSISTENT SNAPSHOT",
    };
    drained(&mut conn, &mut snapshot, &words);
    let is_dear_for_good = engine == "mariadb";
    if is_dear_for_good {
        looks_are_rarely_dear(&worker);
    } else {
        looks_become_cheap(&worker);
    }
    let rarest = Duration::from_secs(if is_dear_for_good { 60 } else { 10 });
    every_kind_of_job_is_found(&worker, &manager, rarest);
    what_comes_back_is_found(&worker, &manager);
    drop(snapshot);
}

#[cfg(feature = "mysql")]
#[test]
fn mariadb_does_not_step_over_dead_rows_again_and_again() {
    innodb_does_not_step_over_dead_rows_again_and_again("mariadb");
}

#[cfg(feature = "mysql")]
#[test]
fn mysql_does_not_step_over_dead_rows_again_and_again() {
    innodb_does_not_step_over_dead_rows_again_and_again("mysql");
}
