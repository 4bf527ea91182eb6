//! A step whose rows do not add up is rolled back and says so. Triggers stand for a server that loses
//! rows.

#![cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::sync::Arc;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use qudo::admin::AuditOptions;
use qudo::driver::{
    AbilityLease, Act, ClaimRequest, ClaimedJob, DeadWorker, Deadline, Driver, DriverRegistration,
    Due, ErrorKind, MovingJob, OperationId, OperationRecord, Settlement, Step, Verdict, WorkerId,
    WorkerInfo,
};
use qudo::{Manager, NewJob};
use qudo_test_servers::{FreshDatabase, run_sql};

struct Fresh(FreshDatabase);

impl Fresh {
    fn on(engine: &str) -> Option<Self> {
        let fresh = Self(FreshDatabase::on(engine, "counted")?);
        fresh.manager().migrate().expect("migrates");
        Some(fresh)
    }

    fn manager(&self) -> Manager {
        Manager::builder().linked(false).database_as("it", self.0.url()).build().expect("valid")
    }

    fn driver(&self) -> Arc<dyn Driver> {
        DriverRegistration::open_linked(self.0.url()).expect("valid").driver
    }

    fn sql(&self, sql: &str) {
        if let Some(file) = self.0.path() {
            let mut conn = SqliteConnection::establish(&file.to_string_lossy()).expect("opens");
            conn.batch_execute("PRAGMA busy_timeout = 30000").expect("set");
            conn.batch_execute(sql).expect("runs");
        } else {
            run_sql(self.0.url(), sql).expect("runs");
        }
    }
}

/// A worker whose row is there.
fn worker(driver: &dyn Driver) -> WorkerId {
    let (id, dead_after) = (WorkerId::new(), Duration::from_secs(60));
    let worker = WorkerInfo { id, ..WorkerInfo::new("it", dead_after) };
    driver.heartbeat(&worker).expect("beats");
    id
}

fn claim(driver: &dyn Driver, number: i64) -> Result<Vec<ClaimedJob>, qudo::driver::DriverError> {
    claim_as(driver, worker(driver), number)
}

fn claim_as(
    driver: &dyn Driver,
    worker: WorkerId,
    claim: i64,
) -> Result<Vec<ClaimedJob>, qudo::driver::DriverError> {
    let grab_for = Duration::from_secs(60);
    driver.claim(&ClaimRequest {
        worker,
        claim,
        queue: &"default".into(),
        abilities: &[AbilityLease { name: "counted".into(), grab_for }],
        limit: 10,
        deadline: Deadline::NONE,
        thorough: false,
    })
}

/// A lease that is not there after it was inserted; on MySQL, where a trigger cannot swallow a row, a
/// ready row that is gone before it is deleted.
fn spoil_claims(engine: &str) -> (&'static str, &'static str) {
    match engine {
        "sqlite" => (
            "CREATE TRIGGER spoil BEFORE INSERT ON qudo_lease WHEN NEW.claim_rank = -7 \
             BEGIN SELECT RAISE(IGNORE); END",
            "DROP TRIGGER spoil",
        ),
        "postgres" => (
            "CREATE OR REPLACE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN IF NEW.claim_rank = -7 THEN RETURN NULL; END IF; RETURN NEW; END $$; \
             CREATE TRIGGER spoil BEFORE INSERT ON qudo_lease FOR EACH ROW EXECUTE FUNCTION spoil()",
            "DROP TRIGGER spoil ON qudo_lease",
        ),
        _ => (
            "CREATE TRIGGER spoil AFTER INSERT ON qudo_lease FOR EACH ROW \
             DELETE FROM qudo_ready WHERE queue = NEW.queue AND claim_rank = NEW.claim_rank \
             AND NEW.claim_rank = -7 AND id = NEW.id",
            "DROP TRIGGER spoil",
        ),
    }
}

fn a_claim_that_does_not_add_up_is_rolled_back(engine: &str) {
    let Some(fresh) = Fresh::on(engine) else { return };
    let manager = fresh.manager();
    let jobs = [0, 7, 0].map(|priority| NewJob::named("counted", 1.into()).priority(priority));
    manager.enqueue_many(jobs).expect("stored");
    let (spoil, mend) = spoil_claims(engine);
    fresh.sql(spoil);
    let driver = fresh.driver();
    let error = claim(&*driver, 1).expect_err("a row is missing");
    assert!(error.to_string().contains("do not add up"), "{error}");
    assert!(!error.is_ambiguous() && !error.is_down(), "{error}");
    let depth = driver.depth(10).expect("answers");
    assert_eq!((depth.ready.count, depth.running.count), (3, 0), "nothing of it is left");
    assert!(manager.audit(AuditOptions::default()).is_clean());
    fresh.sql(mend);
    assert_eq!(claim(&*driver, 2).expect("claims").len(), 3);
}

fn a_promotion_that_does_not_add_up_is_rolled_back(engine: &str) {
    let Some(fresh) = Fresh::on(engine) else { return };
    let manager = fresh.manager();
    let job = NewJob::named("counted", 1.into()).priority(7).delay(Duration::from_millis(1));
    manager.enqueue(job).expect("stored");
    let (spoil, mend) = spoil_claims(engine);
    fresh.sql(&spoil.replace("qudo_lease", "qudo_ready"));
    let driver = fresh.driver();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let error = loop {
        match driver.promote_due(10) {
            Err(error) => break error,
            Ok(promotion) => assert_eq!(promotion.moved, 0),
        }
        assert!(std::time::Instant::now() < deadline, "it never became due");
    };
    assert_eq!(error.kind(), ErrorKind::Contention);
    assert!(
        error.to_string().contains("\"promote\" do not add up: 1 taken, 0 put")
            || error.to_string().contains("do not add up"),
        "{error}"
    );
    assert_eq!(driver.depth(10).expect("answers").scheduled.count, 1);
    fresh.sql(&mend.replace("qudo_lease", "qudo_ready"));
    assert_eq!(driver.promote_due(10).expect("promotes").moved, 1);
}

#[test]
fn a_claim_that_does_not_add_up_is_rolled_back_on_sqlite() {
    a_claim_that_does_not_add_up_is_rolled_back("sqlite");
}

#[test]
fn a_claim_that_does_not_add_up_is_rolled_back_on_postgres() {
    a_claim_that_does_not_add_up_is_rolled_back("postgres");
}

#[test]
fn a_claim_that_does_not_add_up_is_rolled_back_on_mariadb() {
    a_claim_that_does_not_add_up_is_rolled_back("mariadb");
}

#[test]
fn a_claim_that_does_not_add_up_is_rolled_back_on_mysql() {
    a_claim_that_does_not_add_up_is_rolled_back("mysql");
}

#[test]
fn a_promotion_that_does_not_add_up_is_rolled_back_on_sqlite() {
    a_promotion_that_does_not_add_up_is_rolled_back("sqlite");
}

#[test]
fn a_promotion_that_does_not_add_up_is_rolled_back_on_postgres() {
    a_promotion_that_does_not_add_up_is_rolled_back("postgres");
}

/// An insert of which a row is missing leaves nothing, also where its statement is its own commit.
fn an_insert_that_does_not_add_up_is_rolled_back(engine: &str) {
    let Some(fresh) = Fresh::on(engine) else { return };
    let manager = fresh.manager();
    let (spoil, mend) = spoil_claims(engine);
    let job = |priority| NewJob::named("counted", 1.into()).priority(priority);
    let later = |priority| job(priority).delay(Duration::from_secs(3_600));
    let several = || Vec::from([0, 7, 0].map(job));
    // Stored by another statement: they differ in nothing but their arguments.
    let alike = || (0..40).map(|_| job(7)).collect::<Vec<_>>();
    for table in ["qudo_ready", "qudo_scheduled"] {
        fresh.sql(&spoil.replace("qudo_lease", table));
        let jobs = match table {
            "qudo_ready" => vec![vec![job(7)], several(), alike()],
            _ => vec![vec![later(7)], Vec::from([0, 7, 0].map(later))],
        };
        for jobs in jobs {
            let error = manager.enqueue_many(jobs).expect_err("a row is missing");
            let cause = std::error::Error::source(&error).expect("has a cause").to_string();
            assert!(cause.contains("do not add up"), "{cause}");
            let depth = fresh.driver().depth(10).expect("answers");
            assert_eq!((depth.ready.count, depth.scheduled.count), (0, 0), "nothing is left");
        }
        fresh.sql(&mend.replace("qudo_lease", table));
    }
    assert_eq!(manager.audit(AuditOptions::default()).jobs, 0);
    manager.enqueue_many(several()).expect("stored");
    assert_eq!(claim(&*fresh.driver(), 1).expect("claims").len(), 3);
}

#[test]
fn an_insert_that_does_not_add_up_is_rolled_back_on_sqlite() {
    an_insert_that_does_not_add_up_is_rolled_back("sqlite");
}

#[test]
fn an_insert_that_does_not_add_up_is_rolled_back_on_postgres() {
    an_insert_that_does_not_add_up_is_rolled_back("postgres");
}

/// A lone insert is counted only where something may keep its rows out, and what was seen of that may be
/// ten seconds old. In between it must not be called stored either.
#[test]
fn a_lone_insert_that_a_new_trigger_spoils_is_refused_on_postgres() {
    let Some(fresh) = Fresh::on("postgres") else { return };
    let manager = fresh.manager();
    let (spoil, mend) = spoil_claims("postgres");
    let job = |priority| NewJob::named("counted", 1.into()).priority(priority);
    manager.enqueue(job(0)).expect("stored, and no trigger seen");
    fresh.sql(&spoil.replace("qudo_lease", "qudo_ready"));
    let error = manager.enqueue(job(7)).expect_err("its place is kept out");
    let cause = std::error::Error::source(&error).expect("has a cause").to_string();
    assert!(cause.contains("do not add up"), "{cause}");
    assert_eq!(places(&*fresh.driver()), [1, 0, 0, 0]);
    assert!(manager.audit(AuditOptions::default()).is_clean(), "nothing of it is left");
    fresh.sql(&mend.replace("qudo_lease", "qudo_ready"));

    // In another database: the catalog remembers a trigger that was dropped.
    let Some(fresh) = Fresh::on("postgres") else { return };
    let manager = fresh.manager();
    manager.enqueue(job(0)).expect("stored, and no trigger seen");
    let spoil = spoil.replace("qudo_lease", "qudo_job");
    fresh.sql(&spoil.replace("NEW.claim_rank = -7", "NEW.priority = 7"));
    let id = qudo::JobId::new();
    for _ in 0..3 {
        manager.enqueue(job(7).with_id(id)).expect_err("its facts are kept out");
    }
    fresh.sql(&mend.replace("qudo_lease", "qudo_job"));
    let report = manager.audit(AuditOptions::default());
    assert_eq!((report.jobs, report.findings.len()), (1, 1), "a place without facts: {report}");
}

/// What is waiting, scheduled, leased and on its way.
fn places(driver: &dyn Driver) -> [u64; 4] {
    let depth = driver.depth(10).expect("answers");
    [depth.ready.count, depth.scheduled.count, depth.running.count, depth.moving.count]
}

/// Every step that puts rows elsewhere: with one of them swallowed it fails, and all is as before.
fn a_step_that_puts_less_than_it_took_is_rolled_back(engine: &str) {
    let Some(fresh) = Fresh::on(engine) else { return };
    let (manager, driver) = (fresh.manager(), fresh.driver());
    let (spoil, mend) = spoil_claims(engine);
    let worker = worker(&*driver);
    let jobs = [7, 0].map(|priority| NewJob::named("counted", 1.into()).priority(priority));
    manager.enqueue_many(jobs).expect("stored");
    let refused =
        |table: &str, step: &str, act: &dyn Fn() -> Result<(), qudo::driver::DriverError>| {
            let before = places(&*driver);
            fresh.sql(&spoil.replace("qudo_lease", table));
            let error = act().expect_err(step);
            fresh.sql(&mend.replace("qudo_lease", table));
            assert!(error.to_string().contains("do not add up"), "{step}: {error}");
            assert_eq!(places(&*driver), before, "{step}");
            assert!(manager.audit(AuditOptions::default()).is_clean(), "{step}");
        };
    let claimed = claim_as(&*driver, worker, 1).expect("claims");
    let end = |verdict: Verdict| -> Vec<Settlement> {
        let one =
            |job: &ClaimedJob| Settlement { job: Box::new(job.clone()), verdict, extras: None };
        claimed.iter().map(one).collect()
    };
    for (table, verdict) in [
        ("qudo_ready", Verdict::Retry(Duration::ZERO)),
        ("qudo_scheduled", Verdict::Retry(Duration::from_secs(60))),
        ("qudo_scheduled", Verdict::Snooze(Duration::from_secs(60))),
        ("qudo_ready", Verdict::GiveBack),
    ] {
        let step = format!("{verdict:?}");
        refused(table, &step, &|| driver.settle(worker, &end(verdict)).map(drop));
    }
    refused("qudo_ready", "release", &|| driver.release_claim(worker, 1).map(drop));
    refused("qudo_ready", "remove a worker", &|| driver.remove_worker(worker).map(drop));
    let seen = driver.workers().expect("lists").remove(0);
    let dead = [DeadWorker { id: seen.info.id, seen_at: seen.seen_at }];
    refused("qudo_ready", "rescue", &|| driver.rescue(&dead, false, 10).map(drop));
    assert_eq!(driver.release_claim(worker, 1).expect("releases"), 2);
    let first = claimed[0].id;
    let later = Due::In(Duration::from_secs(60));
    refused("qudo_scheduled", "reschedule", &|| driver.reschedule(first, later).map(drop));
    let operation = OperationRecord {
        id: OperationId::new(),
        verb: "requeue other".to_owned(),
        filter: String::new(),
        operator: "it".to_owned(),
        reason: String::new(),
        at_most: None,
        asked_at: chrono::Utc::now(),
    };
    let begun = driver.begin_operation(&operation).expect("stored");
    let step = Step { operation: operation.id, from: "", to: "end", ends: true };
    let requeue = Act::Requeue("other".into());
    refused("qudo_ready", "requeue", &|| driver.act(&requeue, &[first], Some(&step)).map(drop));
    assert_eq!(driver.operation(operation.id).expect("answers"), Some(begun), "nothing is done");
    let departure = uuid::Uuid::now_v7();
    let move_out = || driver.move_out("there", departure, None, 10);
    refused("qudo_moving", "move out", &|| move_out().map(drop));
    let moving = move_out().expect("moves");
    let ids: Vec<_> = moving.iter().map(MovingJob::departed).collect();
    refused("qudo_ready", "move back", &|| driver.move_back(&ids).map(drop));
    let Some(other) = Fresh::on(engine) else { return };
    let there = other.driver();
    for (table, step) in [("qudo_job", "facts"), ("qudo_moving", "places")] {
        let spoil = spoil.replace("qudo_lease", table);
        let by_rank = "NEW.claim_rank = -7";
        other.sql(&if table == "qudo_job" {
            spoil.replace(by_rank, "NEW.priority = 7")
        } else {
            spoil
        });
        let error = there.move_in("here", &moving).expect_err(step);
        other.sql(&mend.replace("qudo_lease", table));
        assert!(error.to_string().contains("do not add up"), "{step}: {error}");
        assert_eq!(places(&*there), [0; 4], "{step}");
    }
    there.move_in("here", &moving).expect("arrives");
    other.sql(&spoil.replace("qudo_lease", "qudo_ready"));
    let error = there.moved_in(&ids).expect_err("a row is missing");
    other.sql(&mend.replace("qudo_lease", "qudo_ready"));
    assert!(error.to_string().contains("do not add up"), "{error}");
    assert_eq!(there.moved_in(&ids).expect("ends"), 2);
    assert_eq!(places(&*there), [2, 0, 0, 0]);
}

#[test]
fn a_step_that_puts_less_than_it_took_is_rolled_back_on_sqlite() {
    a_step_that_puts_less_than_it_took_is_rolled_back("sqlite");
}

#[test]
fn a_step_that_puts_less_than_it_took_is_rolled_back_on_postgres() {
    a_step_that_puts_less_than_it_took_is_rolled_back("postgres");
}
