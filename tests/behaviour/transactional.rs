use std::time::Duration;

#[cfg(feature = "postgres")]
use diesel::connection::CacheSize;
use diesel::connection::SimpleConnection;
use diesel::r2d2::ConnectionManager;
use diesel::{Connection, RunQueryDsl, SqliteConnection};
use qudo::driver::{JobInside, JobState, SchemaState};
use qudo::{CompleteIn, EnqueueIn, Error, Job, JobError, JobResult, Manager, Outcome};

use qudo_driver_tests::abilities::echo;
use qudo_driver_tests::work::Stored;
use qudo_driver_tests::{Bed, DEADLINE, Log, eventually, run_all};

pub fn a_database_without_tables_is_refused_with_the_remedy(bed: &Bed) {
    let engine = bed.first().trim_end_matches(char::is_numeric).to_owned();
    if engine == "memory" {
        return; // It has no tables.
    }
    let bed = Bed::unmigrated(crate::engines::databases(&engine));
    let manager = bed.builder().ability::<echo>().plugin(Log::default()).build().expect("valid");
    let errors = [
        manager.enqueue(echo::job("x".to_owned())).expect_err("no tables"),
        manager.work_once().expect_err("no tables"),
        manager.start().expect_err("no tables"),
    ];
    for error in errors {
        let text = error.to_string();
        assert!(matches!(error, Error::Schema { .. }), "{text}");
        assert!(text.contains("qudo migrate") && text.contains(bed.first()), "{text}");
    }
    manager.migrate().expect("migrates");
    assert!(manager.enqueue(echo::job("x".to_owned())).expect("stored").is_new());
}

pub fn migrating_twice_is_harmless_and_reverting_removes_everything(bed: &Bed) {
    let manager = bed.builder().build().expect("valid");
    for on in manager.migrate().expect("again") {
        assert!(on.answer.expect("up").is_empty(), "{} was migrated", on.database);
    }
    let driver = bed.driver();
    assert_eq!(driver.schema().expect("answers"), SchemaState::Current);
    if driver.engine() == "memory" {
        return; // It has no tables.
    }
    let reverted = driver.revert().expect("reverts");
    assert!(!reverted.is_empty());
    let SchemaState::Behind(missing) = driver.schema().expect("answers") else {
        panic!("reverted")
    };
    assert_eq!(missing.len(), reverted.len());
    // Several at once wait for each other, and each finds the schema complete.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| bed.driver().migrate(false).expect("migrates or waits"));
        }
    });
    assert_eq!(driver.schema().expect("answers"), SchemaState::Current);
}

/// A diesel connection of the application's own to the first database of a bed.
pub enum Conn {
    Sqlite(diesel::r2d2::Pool<ConnectionManager<SqliteConnection>>),
    #[cfg(feature = "postgres")]
    Postgres(diesel::PgConnection),
    #[cfg(feature = "mysql")]
    Mysql(diesel::MysqlConnection),
}

impl Conn {
    /// `None` in memory, where there is no connection.
    pub fn open(bed: &Bed) -> Option<Self> {
        let dsn = &bed.databases[0].1;
        // The parameters are qudo's own.
        let plain = dsn.split('?').next().expect("the part before");
        let (scheme, rest) = plain.split_once(':').expect("a scheme");
        Some(match scheme {
            "sqlite" => {
                let manager = ConnectionManager::<SqliteConnection>::new(rest);
                let pool = diesel::r2d2::Pool::builder().max_size(1).build(manager);
                let pool = pool.expect("connects");
                let mut conn = pool.get().expect("connects");
                // A manager may write at the same moment.
                conn.batch_execute("PRAGMA busy_timeout = 10000").expect("runs");
                drop(conn);
                Self::Sqlite(pool)
            }
            #[cfg(feature = "postgres")]
            "postgres" => {
                let mut conn = diesel::PgConnection::establish(plain).expect("connects");
                if dsn.contains("pooler=transaction") {
                    conn.set_prepared_statement_cache_size(CacheSize::Disabled);
                }
                Self::Postgres(conn)
            }
            #[cfg(feature = "mysql")]
            "mysql" => Self::Mysql(diesel::MysqlConnection::establish(plain).expect("connects")),
            _ => return None,
        })
    }
}

/// Runs the same lines on whatever connection it is.
macro_rules! on_conn {
    ($conn:expr, $name:ident => $body:expr) => {
        match $conn {
            // Pooled, as applications hold it.
            Conn::Sqlite(pool) => {
                let $name = &mut pool.get().expect("connects");
                $body
            }
            #[cfg(feature = "postgres")]
            Conn::Postgres($name) => $body,
            #[cfg(feature = "mysql")]
            Conn::Mysql($name) => $body,
        }
    };
}

/// As applications begin a transaction that will write; see the documentation of `enqueue_in`.
trait Begin: Connection {
    fn begin<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, Box<dyn std::error::Error>>,
    ) -> Result<T, Box<dyn std::error::Error>>;
}

impl Begin for SqliteConnection {
    fn begin<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, Box<dyn std::error::Error>>,
    ) -> Result<T, Box<dyn std::error::Error>> {
        self.batch_execute("PRAGMA busy_timeout = 5000")?;
        self.immediate_transaction(act)
    }
}

#[cfg(feature = "postgres")]
impl Begin for diesel::PgConnection {
    fn begin<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, Box<dyn std::error::Error>>,
    ) -> Result<T, Box<dyn std::error::Error>> {
        self.transaction(act)
    }
}

#[cfg(feature = "mysql")]
impl Begin for diesel::MysqlConnection {
    fn begin<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, Box<dyn std::error::Error>>,
    ) -> Result<T, Box<dyn std::error::Error>> {
        self.transaction(act)
    }
}

pub fn sql(conn: &mut Conn, text: &str) {
    on_conn!(conn, conn => conn.batch_execute(text).expect("runs"));
}

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

fn count_effects(conn: &mut Conn) -> i64 {
    let query = diesel::sql_query("SELECT COUNT(*) AS n FROM effects");
    on_conn!(conn, conn => query.get_result::<Number>(conn).expect("counts").n)
}

pub fn a_job_of_a_committed_transaction_runs_and_wakes_a_worker(bed: &Bed) {
    let Some(mut conn) = Conn::open(bed) else { return };
    let (manager, log) =
        bed.with(|builder| builder.ability::<echo>().delay(Duration::from_secs(3600)));
    let working = manager.start().expect("starts");
    let sent = on_conn!(&mut conn, conn => conn.begin(|conn| {
        let sent = manager.enqueue_in(conn, echo::job("committed".to_owned()))?;
        // Another connection does not see it before the commit.
        let id = sent.id().expect("not suppressed");
        assert!(sent.is_new() && manager.lookup(id).expect("answers").is_none());
        Ok::<_, Box<dyn std::error::Error>>(sent)
    }).expect("commits"));
    assert_eq!(sent.wait_as::<String>(DEADLINE).expect("woken up"), "committed");
    assert_eq!(log.lines(), ["committed"]);
    working.stop();
}

pub fn the_notification_of_a_callers_transaction_can_be_switched_off(bed: &Bed) {
    let Some(mut conn) = Conn::open(bed) else { return };
    let (manager, log) = bed.with(|builder| {
        builder.ability::<echo>().delay(Duration::from_millis(300)).notify_in_transactions(false)
    });
    let working = manager.start().expect("starts");
    on_conn!(&mut conn, conn => conn.begin(|conn| {
        manager.enqueue_in(conn, echo::job("found".to_owned()))?;
        Ok::<_, Box<dyn std::error::Error>>(())
    }).expect("commits"));
    eventually("the next look finds it", || log.lines() == ["found"]);
    working.stop();
}

pub fn a_job_of_a_rolled_back_transaction_never_was(bed: &Bed) {
    let Some(mut conn) = Conn::open(bed) else { return };
    let (manager, log) = bed.manager::<echo>();
    let result = on_conn!(&mut conn, conn => conn.begin(|conn| {
        manager.enqueue_in(conn, echo::job("ghost".to_owned()).uniqkey("k"))?;
        manager.enqueue_in(conn, echo::job("later".to_owned()).delay(Duration::from_secs(9)))?;
        Err::<(), Box<dyn std::error::Error>>("changed my mind".into())
    }));
    assert!(result.is_err());
    assert_eq!(run_all(&manager), 0);
    assert!(log.lines().is_empty());
    assert!(manager.holder("echo", "k").expect("answers").is_none(), "the key is free");
    let counts = manager.job_count();
    assert!(counts.into_iter().all(|on| on.answer.expect("up").is_empty()));
}

pub fn a_key_is_unique_inside_the_callers_transaction_too(bed: &Bed) {
    let Some(mut conn) = Conn::open(bed) else { return };
    let (manager, _) = bed.manager::<echo>();
    let held = echo::job("held".to_owned()).uniqkey("k").database(bed.first());
    let held = manager.enqueue(held).expect("stored").id();
    on_conn!(&mut conn, conn => conn.begin(|conn| {
        let job = || echo::job("x".to_owned());
        let met = manager.enqueue_in(conn, job().uniqkey("k"))?;
        assert_eq!((met.is_new(), met.id()), (false, held));
        // The transaction is not broken by it.
        let own = manager.enqueue_in(conn, job().uniqkey("own"))?;
        assert!(own.is_new() && own.id() != held);
        assert_eq!(manager.enqueue_in(conn, job().uniqkey("own"))?.id(), own.id());
        Ok::<_, Box<dyn std::error::Error>>(())
    }).expect("commits"));
    assert_eq!(run_all(&manager), 2);
}

/// Writes a row and completes in one transaction; what else it does, its argument says.
#[qudo::ability(max_retries = 1, retry_delay = "0s")]
fn effect(job: &Job, how: String) -> JobResult<u32> {
    // In a transaction inside ours, as an application's own functions may begin one.
    fn write(conn: &mut impl Connection) -> JobResult {
        let insert = "INSERT INTO effects VALUES (1)";
        Ok(conn.transaction::<_, diesel::result::Error, _>(|conn| conn.batch_execute(insert))?)
    }
    let after = |job: &Job| match (how.as_str(), job.attempt()) {
        ("fails once", 1) => Err(JobError::fail("after the effect, before the commit")),
        ("panics once", 1) => panic!("after the effect, before the commit"),
        _ => Ok(7),
    };
    job.reply(&1)?;
    match job.engine() {
        "sqlite" => job.complete_in(|conn: &mut SqliteConnection| {
            write(conn)?;
            after(job)
        }),
        #[cfg(feature = "postgres")]
        "postgres" => job.complete_in(|conn: &mut diesel::PgConnection| {
            write(conn)?;
            after(job)
        }),
        #[cfg(feature = "mysql")]
        "mysql" => job.complete_in(|conn: &mut diesel::MysqlConnection| {
            write(conn)?;
            after(job)
        }),
        other => Err(qudo::abort(format!("no connection to {other}"))),
    }
}

fn effects(bed: &Bed) -> Option<(Conn, Manager)> {
    let mut conn = Conn::open(bed)?;
    sql(&mut conn, "CREATE TABLE effects (n INTEGER)");
    let (manager, _) = bed.manager::<effect>();
    Some((conn, manager))
}

pub fn a_job_completes_in_the_transaction_of_its_effect(bed: &Bed) {
    let Some((mut conn, manager)) = effects(bed) else { return };
    let job = effect::job("works".to_owned()).database(bed.first()).uniqkey("k");
    let sent = manager.enqueue(job).expect("stored");
    assert!(matches!(manager.work_once(), Ok(Some(Outcome::Completed))));
    assert_eq!(count_effects(&mut conn), 1);
    let replies: Vec<u32> = sent.ticket().expect("new").replies(DEADLINE).expect("replies");
    assert_eq!(replies, [1, 7]);
    assert!(manager.holder("effect", "k").expect("answers").is_none());
    // And by the threads of a service.
    let working = manager.start().expect("starts");
    let job = effect::job("works".to_owned()).database(bed.first());
    let sent = manager.enqueue(job).expect("stored");
    assert_eq!(sent.wait_as::<u32>(DEADLINE).expect("replies"), 7);
    working.stop();
    assert_eq!(count_effects(&mut conn), 2);
}

/// Completes a job in a transaction without an effect, whatever its engine is.
fn complete(job: &Job) -> JobResult {
    match job.engine() {
        "sqlite" => job.complete_in(|_: &mut SqliteConnection| Ok(())),
        #[cfg(feature = "postgres")]
        "postgres" => job.complete_in(|_: &mut diesel::PgConnection| Ok(())),
        #[cfg(feature = "mysql")]
        "mysql" => job.complete_in(|_: &mut diesel::MysqlConnection| Ok(())),
        other => Err(qudo::abort(format!("no connection to {other}"))),
    }
}

#[qudo::ability(job_status = true)]
fn relay(job: &Job) -> JobResult {
    job.replace(echo::job("next".to_owned()));
    complete(job)
}

/// Goes on as if nothing were wrong when its replacement is refused.
#[qudo::ability(job_status = true)]
fn careless(job: &Job) -> JobResult {
    job.replace(echo::job("never".to_owned()).meta("tags", 1));
    drop(complete(job).expect_err("metadata cannot be called tags"));
    Ok(())
}

pub fn a_job_does_not_complete_without_a_replacement_that_its_transaction_refused(bed: &Bed) {
    if Conn::open(bed).is_none() {
        return;
    }
    let (manager, _) = bed.with(|builder| builder.ability::<careless>().ability::<echo>());
    let sent = manager.enqueue(careless::job().database(bed.first())).expect("stored");
    let outcome = manager.work_once().expect("works").expect("one");
    assert!(matches!(outcome, Outcome::Discarded(_)), "{outcome:?}");
    let error = sent.wait(DEADLINE).expect_err("it failed").to_string();
    assert!(error.contains("cannot be replaced") && error.contains("tags"), "{error}");
}

pub fn what_replaces_a_job_in_its_transaction_starts_at_once(bed: &Bed) {
    if Conn::open(bed).is_none() {
        return;
    }
    let builder = || bed.builder().delay(Duration::from_secs(3600)).workers(1);
    let log = Log::default();
    // Also in another process, which hears of it from the database.
    let echoes = builder().ability::<echo>().plugin(log.clone()).build().expect("valid");
    let relays = builder().ability::<relay>().build().expect("valid");
    let (echoing, relaying) = (echoes.start().expect("starts"), relays.start().expect("starts"));
    assert!(relays.enqueue(relay::job().database(bed.first())).expect("stored").is_new());
    eventually("the next runs", || log.lines() == ["next"]);
    echoing.stop();
    relaying.stop();
}

/// Notes what it is told of stored jobs and of ends.
struct Heard(Log);

impl qudo::hook::Hook for Heard {
    fn name(&self) -> &'static str {
        "heard"
    }
    fn post_enqueue(&self, job: &qudo::hook::JobView<'_>) {
        self.0.add(format!("enqueued {}", job.ability()));
    }
    fn post_settle(&self, job: &qudo::hook::JobView<'_>, outcome: &Outcome) {
        self.0.add(format!("settled {} {}", job.ability(), outcome.as_str()));
    }
}

pub fn an_end_in_a_transaction_is_told_and_kept_as_any_other(bed: &Bed) {
    if Conn::open(bed).is_none() {
        return;
    }
    let (stored, heard) = (Stored::default(), Log::default());
    let (manager, _) = bed.with(|builder| {
        let builder = builder.ability::<relay>().ability::<echo>().observer(stored.clone());
        builder.hook(Heard(heard.clone()))
    });
    let sent = manager.enqueue(relay::job().database(bed.first())).expect("stored");
    let outcome = manager.work_once().expect("works").expect("one");
    assert!(matches!(outcome, Outcome::Replaced(1)), "{outcome:?}");
    let told = stored.0.lock().expect("no panic").clone();
    assert_eq!((told.len(), Some(told[0])), (2, sent.id()), "the next one is told");
    let rows = manager.job_status(sent.id().expect("new")).expect("answers");
    let rows: Vec<_> = rows.iter().map(|row| row.status.as_str()).collect();
    assert_eq!(rows, ["replaced"]);
    let told = ["enqueued relay", "enqueued echo", "settled relay replaced"];
    assert_eq!(heard.lines(), told, "hooks are told after the commit");
    assert_eq!(run_all(&manager), 1);
}

pub fn an_effect_that_fails_leaves_neither_itself_nor_the_end_of_the_job(bed: &Bed) {
    let Some((mut conn, manager)) = effects(bed) else { return };
    let sent = manager
        .enqueue(effect::job("fails once".to_owned()).database(bed.first()))
        .expect("stored");
    assert!(matches!(manager.work_once(), Ok(Some(Outcome::Retried(..)))));
    assert_eq!(count_effects(&mut conn), 0, "rolled back");
    assert!(matches!(manager.work_once(), Ok(Some(Outcome::Completed))));
    assert_eq!(count_effects(&mut conn), 1, "once");
    assert_eq!(sent.wait_as::<u32>(DEADLINE).expect("replies"), 7);
}

pub fn a_panic_in_the_transaction_leaves_nothing_and_the_database_works_on(bed: &Bed) {
    let Some((mut conn, manager)) = effects(bed) else { return };
    let job = effect::job("panics once".to_owned()).database(bed.first());
    let sent = manager.enqueue(job).expect("stored");
    assert!(matches!(manager.work_once(), Ok(Some(Outcome::Retried(..)))));
    assert_eq!(count_effects(&mut conn), 0, "rolled back");
    // Another process is not held up by a lock that nobody gives back.
    let (other, _) = bed.manager::<effect>();
    let second = effect::job("works".to_owned()).database(bed.first());
    let second = other.enqueue(second).expect("stored");
    assert_eq!(run_all(&manager), 2);
    assert_eq!(sent.wait_as::<u32>(DEADLINE).expect("replies"), 7);
    assert_eq!(second.wait_as::<u32>(DEADLINE).expect("replies"), 7);
    assert_eq!(count_effects(&mut conn), 2);
}

pub fn a_lost_lease_rolls_the_effect_back(bed: &Bed) {
    let Some((mut conn, manager)) = effects(bed) else { return };
    let (manager_with_short_lease, _) =
        bed.with(|builder| builder.ability::<lose>().grab_for(Duration::from_millis(1)));
    drop(manager);
    let job = lose::job().database(bed.first());
    let sent = manager_with_short_lease.enqueue(job).expect("stored").id().expect("new");
    manager_with_short_lease.work_once().expect("works");
    assert_eq!(count_effects(&mut conn), 0, "another may run it now");
    let job = manager_with_short_lease.lookup(sent).expect("answers").expect("lives").1;
    assert_eq!((job.state, job.attempt), (JobState::Ready, 1));
}

/// Is rescued by another while it runs, then tries to complete.
#[qudo::ability]
fn lose(job: &Job) -> JobResult {
    fn write(conn: &mut impl SimpleConnection) -> JobResult {
        Ok(conn.batch_execute("INSERT INTO effects VALUES (1)")?)
    }
    qudo_driver_tests::eventually("the lease ends and the job is rescued", || {
        !qudo_driver_tests::rescue_silent(job.driver(), Duration::from_secs(3600)).is_empty()
    });
    match job.engine() {
        "sqlite" => job.complete_in(write as fn(&mut SqliteConnection) -> JobResult),
        #[cfg(feature = "postgres")]
        "postgres" => job.complete_in(write as fn(&mut diesel::PgConnection) -> JobResult),
        #[cfg(feature = "mysql")]
        "mysql" => job.complete_in(write as fn(&mut diesel::MysqlConnection) -> JobResult),
        other => Err(qudo::abort(format!("no connection to {other}"))),
    }
}
