//! Accounts that may do just what they are for, by the SQL in docs/grants.

#![cfg(all(feature = "postgres", feature = "mysql"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use qudo::admin::{ExceptionFilter, JobFilter, Paging};
use qudo::driver::{About, Driver, Due, ErrorKind, Flags, JobFacts, JobRecord, MovingJob};
use qudo::{Enqueued, Job, JobError, JobId, Manager, ManagerBuilder, NewJob, driver};
use qudo_test_servers::{FreshDatabase, run_sql};

macro_rules! grants {
    ($engine:literal) => {
        Grants {
            enqueue: include_str!(concat!("../docs/grants/", $engine, "/enqueue.sql")),
            spool: include_str!(concat!("../docs/grants/", $engine, "/spool.sql")),
            tickets: include_str!(concat!("../docs/grants/", $engine, "/tickets.sql")),
            worker: include_str!(concat!("../docs/grants/", $engine, "/worker.sql")),
            operator: include_str!(concat!("../docs/grants/", $engine, "/operator.sql")),
            migrator: include_str!(concat!("../docs/grants/", $engine, "/migrator.sql")),
        }
    };
}

struct Grants {
    enqueue: &'static str,
    spool: &'static str,
    tickets: &'static str,
    worker: &'static str,
    operator: &'static str,
    migrator: &'static str,
}

/// A database and the account that is tried on it.
struct Bed {
    fresh: FreshDatabase,
    engine: &'static str,
    grants: Grants,
    account: String,
    owner: String,
}

impl Bed {
    fn new(engine: &'static str) -> Option<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let fresh = FreshDatabase::on(engine, "account")?;
        let grants = if engine == "postgres" { grants!("postgres") } else { grants!("mysql") };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let account = format!("clerk_{}_{number}", std::process::id());
        let owner = fresh.url().to_owned();
        let bed = Self { fresh, engine, grants, account, owner };
        if engine == "postgres" {
            bed.administer(&format!("CREATE ROLE {} LOGIN", bed.account));
            // For a server that writes its messages in another language.
            bed.administer(&format!("ALTER ROLE {} SET lc_messages = 'C'", bed.account));
            // As PostgreSQL 15 and newer have it by themselves.
            bed.administer("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
        } else {
            bed.administer(&format!("CREATE USER '{}'@'%' IDENTIFIED BY 'secret'", bed.account));
        }
        Some(bed)
    }

    /// With tables that somebody else made.
    fn migrated(engine: &'static str) -> Option<Self> {
        let bed = Self::new(engine)?;
        manager(&bed.owner).build().expect("valid").migrate().expect("migrates");
        Some(bed)
    }

    fn administer(&self, sql: &str) {
        run_sql(&self.owner, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    fn sql(&self, text: &str) -> String {
        text.replace("qudo_account", &self.account).replace("qudo_database", self.fresh.name())
    }

    fn grant(&self, text: &str) {
        let text = self.sql(text);
        let lines =
            text.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join(" ");
        for statement in lines.split(';').map(str::trim).filter(|one| !one.is_empty()) {
            self.administer(statement);
        }
    }

    /// Takes a right on a table away again.
    fn revoke(&self, right: &str, table: &str) {
        let who = if self.engine == "postgres" {
            self.account.clone()
        } else {
            format!("'{}'@'%'", self.account)
        };
        self.administer(&format!("REVOKE {right} ON {table} FROM {who}"));
    }

    /// The data source name of the account.
    fn dsn(&self) -> String {
        let mut url = url::Url::parse(&self.owner).expect("a URL");
        url.set_username(&self.account).expect("has a host");
        url.into()
    }

    fn driver(&self) -> Arc<dyn Driver> {
        driver::DriverRegistration::open_linked(&self.dsn()).expect("valid").driver
    }

    fn manager(&self) -> ManagerBuilder {
        manager(&self.dsn())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let drop_it = if self.engine == "postgres" {
            format!("DROP OWNED BY {0} CASCADE; DROP ROLE {0}", self.account)
        } else {
            format!("DROP USER '{}'@'%'", self.account)
        };
        if let Err(error) = run_sql(&self.owner, &drop_it) {
            eprintln!("{} is left behind: {error}", self.account);
        }
    }
}

fn manager(dsn: &str) -> ManagerBuilder {
    Manager::builder().linked(false).database_as("jobs", dsn).delay(Duration::from_millis(100))
}

/// A snooze spends no attempt, so this has to be told in another way.
static SNOOZED: AtomicBool = AtomicBool::new(false);

#[qudo::ability(max_retries = 1, retry_delay = "0s", job_status = true)]
fn act(job: &Job, what: String) -> qudo::JobResult<String> {
    match what.as_str() {
        "fail" => Err(JobError::fail("as asked")),
        "replace" => {
            job.replace(NewJob::named("act", "done".into()));
            Ok(what)
        }
        "snooze" if !SNOOZED.swap(true, Ordering::Relaxed) => Err(qudo::snooze(Duration::ZERO)),
        _ => {
            job.reply(&"first")?;
            Ok(what)
        }
    }
}

fn arg(text: &str) -> NewJob {
    NewJob::named("act", text.into())
}

fn may_migrate(engine: &'static str) {
    let Some(bed) = Bed::new(engine) else { return };
    let refused =
        bed.manager().build().expect("valid").migrate().expect_err("no right").to_string();
    assert!(refused.to_lowercase().contains("denied"), "{refused}");
    bed.grant(bed.grants.migrator);
    let manager = bed.manager().build().expect("valid");
    let applied = manager.migrate().expect("migrates");
    assert!(!applied[0].answer.as_ref().expect("answers").is_empty());
    assert!(manager.migrate().expect("again")[0].answer.as_ref().expect("answers").is_empty());
    let driver = bed.driver();
    assert!(!driver.revert().expect("reverts").is_empty());
    driver.migrate(false).expect("and back");
}

fn may_enqueue(engine: &'static str) {
    let Some(bed) = Bed::migrated(engine) else { return };
    bed.grant(bed.grants.enqueue);
    let manager = bed.manager().build().expect("valid");
    assert!(
        manager.migrate().expect("nothing to do")[0].answer.as_ref().expect("answers").is_empty()
    );
    manager.enqueue(arg("one")).expect("stored");
    manager.enqueue(arg("later").delay(Duration::from_secs(60))).expect("stored");
    manager.enqueue(arg("with a key").uniqkey("k")).expect("stored");
    let again = manager.enqueue(arg("with a key").uniqkey("k"));
    assert!(matches!(again.expect("answers"), Enqueued::Existing(_)));
    let many = (0..600)
        .map(|n| if n % 2 == 0 { arg("x") } else { arg("y").delay(Duration::from_secs(9)) });
    assert_eq!(manager.enqueue_many(many).expect("stored").len(), 600);
    // And from SQL.
    let call = |key: &str| match engine {
        "postgres" => {
            format!("SELECT qudo_enqueue('act', '\"x\"', uniqkey => {key}, meta => '{{\"a\":1}}')")
        }
        _ => format!(
            "START TRANSACTION; CALL qudo_enqueue('act', '\"x\"', NULL, NULL, NULL, {key}, '{{\"a\":1}}', NULL, @i, @n); COMMIT"
        ),
    };
    for key in ["NULL", "'sql'", "'sql'"] {
        run_sql(&bed.dsn(), &call(key)).expect("stored");
    }
    // After an outage it finds its way back by itself.
    let driver = bed.driver();
    driver.probe().expect("the server takes writes");
    if engine == "postgres" {
        bed.administer(&format!(
            "ALTER ROLE {} SET default_transaction_read_only = on",
            bed.account
        ));
        let error = bed.driver().probe().expect_err("it takes none");
        assert!(error.is_down(), "{error}");
        bed.administer(&format!("ALTER ROLE {} RESET default_transaction_read_only", bed.account));
    }
    // Nothing else.
    let sql = "SELECT arg FROM qudo_job";
    run_sql(&bed.dsn(), sql).expect_err("arguments are others' business");
    for refused in [
        driver.heartbeat(&worker()).map(drop),
        driver.set_control(&driver::Order::Paused, true, driver::Deadline::NONE),
        driver.remains(qudo::JobId::new()).map(drop),
    ] {
        let error = refused.expect_err("not its business");
        assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    }
    // And with tickets it follows its jobs.
    bed.grant(bed.grants.tickets);
    let ticket = manager.enqueue(arg("followed")).expect("stored").ticket().expect("new").clone();
    assert!(matches!(ticket.check().expect("answers"), qudo::Standing::Waiting(_)));
}

/// What was stored while the database took nothing is forwarded by an account that stores jobs alone.
fn may_empty_its_spool(engine: &'static str) {
    let Some(bed) = Bed::migrated(engine) else { return };
    bed.grant(bed.grants.enqueue);
    bed.grant(bed.grants.spool);
    let owner = manager(&bed.owner).build().expect("valid");
    let spool = tempfile::tempdir().expect("makes");
    let file = format!("sqlite:{}", spool.path().join("spool.db").display());
    let web = bed.manager().spool(&file, 100).build().expect("valid");
    owner.drain("jobs").expect("drains");
    let keyed = || NewJob::named("act", "spooled".into()).uniqkey("k");
    let later = || {
        let at = chrono::Utc::now() + chrono::TimeDelta::hours(1);
        NewJob::named("act", "later".into()).run_after(at)
    };
    let waiting = || web.spool().expect("answers").map_or(0, |spool| spool.waiting);
    let begun = Instant::now();
    while waiting() < 2 {
        // Until the order is known here the database takes them.
        for job in [keyed(), later()] {
            drop(web.enqueue(job).expect("stored"));
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "it is never spooled");
    }
    // What a mover that was overtaken left: a copy of which the spool knows nothing.
    let open = |dsn: &str| driver::DriverRegistration::open_linked(dsn).expect("valid").driver;
    let (here, there) = (bed.driver(), open(&file));
    let late = JobRecord {
        id: JobId::new(),
        facts: JobFacts::new("act", "default", "json", b"1".to_vec()),
        due: Due::Now,
    };
    let ghost = MovingJob {
        record: late.clone(),
        attempt: 0,
        crashes: 0,
        flags: Flags::NONE,
        enqueued_at: chrono::Utc::now(),
        departure: uuid::Uuid::now_v7(),
    };
    let from = there.identity().expect("answers").to_string();
    here.move_in(&from, &[ghost]).expect("is brought");
    owner.undrain("jobs").expect("undrains");
    let begun = Instant::now();
    while waiting() > 0 || owner.lookup(late.id).expect("answers").is_some() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it stays in the spool");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn worker() -> driver::WorkerInfo {
    driver::WorkerInfo::new("somebody", Duration::from_secs(20))
}

/// Every end that a run can have, with a service that starts and stops.
fn works(manager: &Manager) {
    let before = Instant::now();
    let handle = manager.start().expect("starts");
    let mut tickets = Vec::new();
    for job in [
        arg("plain"),
        arg("with a key").uniqkey("key"),
        arg("replace"),
        arg("snooze"),
        arg("later").delay(Duration::from_millis(20)),
    ] {
        tickets.push(manager.enqueue(job).expect("stored").ticket().expect("new").clone());
    }
    for (at, ticket) in tickets.iter().enumerate() {
        let replied = ticket.wait_as::<String>(Duration::from_secs(30));
        assert!(replied.is_ok(), "job {at}: {replied:?}, {:?}", ticket.check());
    }
    let failed = manager.enqueue(arg("fail")).expect("stored");
    failed.wait_as::<String>(Duration::from_secs(30)).expect_err("fails");
    handle.stop();
    assert!(before.elapsed() < Duration::from_secs(60));
    assert!(
        manager
            .job_status(tickets[0].id())
            .expect("answers")
            .iter()
            .any(|row| row.status == "completed")
    );
}

fn may_work(engine: &'static str) {
    let Some(bed) = Bed::migrated(engine) else { return };
    bed.grant(bed.grants.worker);
    let changes = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&changes);
    let manager = bed
        .manager()
        .ability::<act>()
        .on_database_change(move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
        })
        .build()
        .expect("valid");
    manager.migrate().expect("nothing to do");
    works(&manager);
    let driver = bed.driver();
    assert!(driver.workers().expect("answers").is_empty(), "its row is removed");
    let numbers = driver.stats(&driver::StatScan::ever()).expect("answers");
    assert!(numbers.iter().any(|row| row.stats.completed > 0), "its runs are counted: {numbers:?}");
    // What the janitor does now and then.
    driver
        .purge(
            &driver::Keep { discarded: Some(Duration::ZERO), ..driver::Keep::all(Duration::ZERO) },
            100,
        )
        .expect("purges");
    driver.heartbeat(&worker()).expect("beats");
    let dead = driver.workers().expect("answers");
    let dead: Vec<_> = dead
        .iter()
        .map(|one| driver::DeadWorker { id: one.info.id, seen_at: one.seen_at })
        .collect();
    driver.rescue(&dead, true, 10).expect("rescues");
    // A job that was ordered to end ends, here where it waits.
    let waits = manager.enqueue(arg("waits").delay(Duration::from_secs(60))).expect("stored");
    assert!(driver.cancels(driver::WorkerId::new()).expect("answers").is_empty());
    assert!(driver.open_cancels(10).expect("answers").is_empty());
    let cancel = driver::Act::Cancel { reason: "enough".to_owned(), by_force: false };
    let ended = driver.act(&cancel, &[waits.id().expect("new")], None).expect("cancels");
    assert_eq!(ended, Some(vec![driver::Acted::Done]));
    assert_eq!(changes.load(Ordering::Relaxed), 0, "nothing went down");
    for refused in [
        driver.set_control(&driver::Order::Paused, true, driver::Deadline::NONE),
        driver.revert().map(drop),
    ] {
        let error = refused.expect_err("not its business");
        assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    }
}

fn may_operate(engine: &'static str) {
    let (Some(bed), Some(other)) = (Bed::migrated(engine), Bed::migrated(engine)) else { return };
    bed.grant(bed.grants.operator);
    other.grant(other.grants.operator);
    let owner = manager(&bed.owner).ability::<act>().build().expect("valid");
    owner.enqueue(arg("fail")).expect("stored");
    while owner.work_once().expect("works").is_some() {}
    let waiting = owner.enqueue(arg("later").delay(Duration::from_secs(60))).expect("stored");
    for _ in 0..20 {
        owner.enqueue(arg("moves")).expect("stored");
    }
    owner.enqueue(arg("moves").uniqkey("k")).expect("stored");
    assert_eq!(bed.driver().forget_stats("gone").expect("may"), 0);

    let operator = Manager::builder()
        .linked(false)
        .database_as("one", bed.dsn())
        .database_as("two", other.dsn())
        .build()
        .expect("valid");
    let listed = operator.jobs(&JobFilter::all(), &Paging::default());
    assert_eq!((listed.rows().count(), listed.errors().count()), (22, 0));
    for on in operator.checkup() {
        let remarks = on.answer.expect("answers");
        assert!(remarks.iter().all(|one| one.about == About::Durability), "{remarks:?}");
    }
    operator.job_count().into_iter().for_each(|on| drop(on.answer.expect("answers")));
    operator.workers().into_iter().for_each(|on| drop(on.answer.expect("answers")));
    assert!(operator.database_reports().iter().all(|one| one.depth.is_some()));
    let id = waiting.id().expect("stored");
    assert!(operator.reschedule(id, Due::Now).expect("changes"));
    assert!(operator.dequeue(id).expect("removes"));
    let failed = operator.exceptions(&ExceptionFilter::discarded(), &Paging::default());
    assert_eq!(failed.errors().count(), 0);
    let (_, row) = failed.rows().next().expect("one failed");
    operator.redrive(row.id).expect("redrives");
    let driver = bed.driver();
    let operation = driver::OperationRecord {
        id: driver::OperationId::new(),
        verb: "prioritize 3".to_owned(),
        filter: String::new(),
        operator: "it".to_owned(),
        reason: String::new(),
        at_most: None,
        asked_at: chrono::Utc::now(),
    };
    driver.begin_operation(&operation).expect("stores");
    let step = driver::Step { operation: operation.id, from: "", to: "end", ends: true };
    let one = owner.enqueue(arg("cancelled")).expect("stored").id().expect("new");
    for act in [driver::Act::Prioritize(3), driver::Act::Requeue("elsewhere".into())] {
        let step = matches!(act, driver::Act::Prioritize(_)).then_some(&step);
        let done = driver.act(&act, &[one], step).expect("changes");
        assert_eq!(done, Some(vec![driver::Acted::Done]));
    }
    assert_eq!(driver.operations(None, 10).expect("lists").len(), 1);
    assert_eq!(operator.cancel(one, "enough").expect("cancels"), driver::Acted::Done);
    operator.pause("one").expect("pauses");
    operator.resume("one").expect("resumes");
    operator.drain("one").expect("drains");
    assert_eq!(operator.move_jobs("one", "two").expect("moves").moved, 22);
    let report = operator.audit(qudo::admin::AuditOptions::default().repair(true));
    assert!(report.is_clean(), "{report:?}");
    for table in ["qudo_jobs", "qudo_exceptions"] {
        run_sql(&bed.dsn(), &format!("SELECT count(*) FROM {table}")).expect("reads");
    }
}

/// A right that is missing is named, and the database stays in use for all else.
fn a_missing_right_is_named(engine: &'static str) {
    for (right, table) in [
        ("DELETE", "qudo_ready"),
        ("INSERT", "qudo_lease"),
        ("DELETE", "qudo_lease"),
        ("DELETE", "qudo_job"),
        ("INSERT", "qudo_worker"),
        ("INSERT", "qudo_reply"),
    ] {
        let Some(bed) = Bed::migrated(engine) else { return };
        bed.grant(bed.grants.worker);
        bed.revoke(right, table);
        let changes = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&changes);
        let manager = bed
            .manager()
            .ability::<act>()
            .on_database_change(move |_| {
                seen.fetch_add(1, Ordering::Relaxed);
            })
            .build()
            .expect("valid");
        manager.enqueue(arg("plain")).expect("stored");
        let told = match manager.work_once() {
            Err(error) => error.to_string(),
            Ok(outcome) => format!("{outcome:?}"),
        };
        assert!(
            told.contains(table) && told.contains(right),
            "{engine}, without {right} on {table}: {told}"
        );
        manager.enqueue(arg("plain")).expect("stored");
        assert_eq!(changes.load(Ordering::Relaxed), 0, "without {right} on {table} it went down");
    }
}

macro_rules! accounts {
    ($($name:ident),*) => {
        $(mod $name {
            #[test]
            fn postgres() {
                super::super::$name("postgres");
            }
            #[test]
            fn mariadb() {
                super::super::$name("mariadb");
            }
            #[test]
            fn mysql() {
                super::super::$name("mysql");
            }
        })*
    };
}

mod on {
    accounts!(
        may_migrate,
        may_enqueue,
        may_empty_its_spool,
        may_work,
        may_operate,
        a_missing_right_is_named
    );
}
