//! The audit of the tables: each thing that must not be there is made by hand, found, and put right
//! where it can be.

#![cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::{Connection, MysqlConnection, PgConnection, SqliteConnection};
use qudo::admin::{AuditOptions, Ending, Flaw, JobFilter, Operation, Paging, Verb};
use qudo::driver::ExceptionScan;
use qudo::driver::{
    AbilityLease, ClaimRequest, Deadline, Driver, DriverRegistration, Due, JobState, ManagerInside,
    Place, WorkerInfo,
};
use qudo::{JobId, Manager, NewJob};
use qudo_test_servers::FreshDatabase;

/// A migrated database with a connection for what nobody should do to it.
struct Fresh {
    database: FreshDatabase,
    conn: Conn,
}

enum Conn {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
    Mysql(MysqlConnection),
}

impl Fresh {
    fn on(engine: &str) -> Option<Self> {
        drop(env_logger::builder().is_test(true).try_init());
        let database = FreshDatabase::on(engine, "audit")?;
        let dsn = database.url();
        let manager = Manager::builder().linked(false).database(dsn).build().expect("valid");
        manager.migrate().expect("migrates");
        let conn = match engine {
            "sqlite" => {
                let mut conn = SqliteConnection::establish(&dsn["sqlite:".len()..]).expect("opens");
                conn.batch_execute("PRAGMA busy_timeout = 30000").expect("set");
                Conn::Sqlite(conn)
            }
            "postgres" => Conn::Postgres(PgConnection::establish(dsn).expect("connects")),
            _ => Conn::Mysql(MysqlConnection::establish(dsn).expect("connects")),
        };
        Some(Self { database, conn })
    }

    fn manager(&self) -> Manager {
        Manager::builder()
            .linked(false)
            .database_as("it", self.database.url())
            .build()
            .expect("valid")
    }

    fn driver(&self) -> Arc<dyn Driver> {
        DriverRegistration::open_linked(self.database.url()).expect("valid").driver
    }

    /// Runs SQL in which `{ID}` stands for a job.
    fn spoil(&mut self, id: JobId, sql: &str) {
        let hex = id.as_uuid().simple();
        let literal = match self.conn {
            Conn::Postgres(_) => format!("'{hex}'"),
            _ => format!("x'{hex}'"),
        };
        let sql = sql.replace("{ID}", &literal);
        match &mut self.conn {
            Conn::Sqlite(conn) => conn.batch_execute(&sql),
            Conn::Postgres(conn) => conn.batch_execute(&sql),
            Conn::Mysql(conn) => conn.batch_execute(&sql),
        }
        .expect("spoils");
    }
}

fn job() -> NewJob {
    NewJob::named("audited", 1.into())
}

fn store(manager: &Manager, job: NewJob) -> JobId {
    manager.enqueue(job).expect("stored").id().expect("new")
}

fn claim(driver: &dyn Driver, limit: u32) -> Vec<JobId> {
    let worker = WorkerInfo::new("it", Duration::from_secs(60));
    driver.heartbeat(&worker).expect("beats");
    let request = ClaimRequest {
        worker: worker.id,
        claim: 1,
        queue: &"default".into(),
        abilities: &[AbilityLease { name: "audited".into(), grab_for: Duration::from_secs(60) }],
        limit,
        deadline: Deadline::NONE,
        thorough: true,
    };
    driver.claim(&request).expect("claims").into_iter().map(|job| job.id).collect()
}

/// Each flaw: how it is made of a sound job, and what the audit calls it.
fn flaws() -> Vec<(&'static str, NewJob, Vec<&'static str>)> {
    let keyed = || job().uniqkey("k");
    let later = || job().delay(Duration::from_secs(3_600));
    vec![
        ("DELETE FROM qudo_ready WHERE id = {ID}", job(), vec!["no_place"]),
        ("DELETE FROM qudo_scheduled WHERE id = {ID}", later(), vec!["no_place"]),
        ("DELETE FROM qudo_job WHERE id = {ID}", job(), vec!["no_facts"]),
        ("DELETE FROM qudo_job WHERE id = {ID}", later(), vec!["no_facts"]),
        // That it came here by a move does not mean that it lives elsewhere.
        (
            "INSERT INTO qudo_moving (id, queue, claim_rank, ability, attempt, crashes, flags, leg, other, departure, \
             moved_at) SELECT id, queue, claim_rank, ability, attempt, crashes, flags, 'arrived', 'x', id, 1 \
             FROM qudo_ready WHERE id = {ID}; DELETE FROM qudo_job WHERE id = {ID}",
            job(),
            vec!["no_facts"],
        ),
        (
            "INSERT INTO qudo_scheduled (run_after, id, queue, claim_rank, ability, attempt, \
             crashes, flags) SELECT 9000000000000000, id, queue, claim_rank, ability, attempt, crashes, flags \
             FROM qudo_ready WHERE id = {ID}",
            job(),
            vec!["many_places"],
        ),
        ("UPDATE qudo_ready SET claim_rank = 77 WHERE id = {ID}", job(), vec!["misfiled"]),
        ("UPDATE qudo_ready SET queue = 'elsewhere' WHERE id = {ID}", job(), vec!["misfiled"]),
        ("UPDATE qudo_scheduled SET ability = 'other' WHERE id = {ID}", later(), vec!["misfiled"]),
        ("DELETE FROM qudo_unique WHERE id = {ID}", keyed(), vec!["job_without_key"]),
        (
            "UPDATE qudo_unique SET uniqkey = 'another' WHERE id = {ID}",
            keyed(),
            vec!["key_without_job", "job_without_key"],
        ),
        (
            "DELETE FROM qudo_job WHERE id = {ID}; DELETE FROM qudo_ready WHERE id = {ID}",
            keyed(),
            vec!["key_without_job"],
        ),
    ]
}

fn each_flaw_is_found_and_put_right(engine: &str) {
    for (sql, job, expected) in flaws() {
        let Some(mut fresh) = Fresh::on(engine) else { return };
        let manager = fresh.manager();
        let sound = store(&manager, self::job());
        let id = store(&manager, job);
        assert!(manager.audit(AuditOptions::default()).is_clean(), "before {sql}");
        fresh.spoil(id, sql);
        let report = manager.audit(AuditOptions::default());
        let found: Vec<_> =
            report.findings.iter().map(|one| (one.job, one.flaw.as_str())).collect();
        let expected: Vec<_> = expected.into_iter().map(|flaw| (id, flaw)).collect();
        assert_eq!(found, expected, "{sql}: {report}");
        assert!(!report.is_clean() && report.failures.is_empty());
        let repaired = manager.audit(AuditOptions::default().repair(true));
        assert!(repaired.is_clean(), "{sql}: {repaired}");
        assert_eq!(repaired.findings.len(), expected.len());
        let report = manager.audit(AuditOptions::default());
        assert!(report.findings.is_empty(), "{sql}: {report}");
        assert!(manager.lookup(sound).expect("answers").is_some(), "the other is left alone");
        // What is put back is told in the exception log, and runs.
        let driver = fresh.driver();
        let told = driver.scan_exceptions(&ExceptionScan::last_of(id)).expect("answers");
        match expected[0].1 {
            "no_place" => {
                assert!(told[0].message.contains("an audit made it ready"), "{}", told[0].message);
                assert!(claim(&*driver, 2).contains(&id), "{sql}: it can be claimed");
            }
            "misfiled" if sql.contains("scheduled") => {
                assert!(told[0].message.contains("filed otherwise"), "{}", told[0].message);
                let state = driver.state(id).expect("answers");
                let in_half_an_hour = chrono::Utc::now() + chrono::TimeDelta::minutes(30);
                let waits = |state| {
                    matches!(state, Some(JobState::Scheduled { run_after })
                    if run_after > in_half_an_hour)
                };
                assert!(waits(state), "{sql}: it still waits");
            }
            "misfiled" => {
                assert!(told[0].message.contains("filed otherwise"), "{}", told[0].message);
                assert!(claim(&*driver, 2).contains(&id), "{sql}: it can be claimed");
            }
            "no_facts" => {
                assert!(told[0].message.contains("facts are missing"), "{}", told[0].message);
                let remains = fresh.driver().remains(id).expect("answers");
                assert_eq!(
                    remains.ending,
                    Some(Ending::Removed),
                    "{sql}: its ticket must not say that it completed"
                );
                assert!(manager.lookup(id).expect("answers").is_none());
            }
            _ => {}
        }
    }
}

fn a_lease_without_a_worker_is_found(engine: &str) {
    let Some(mut fresh) = Fresh::on(engine) else { return };
    let manager = fresh.manager();
    let id = store(&manager, job());
    assert_eq!(claim(&*fresh.driver(), 1), [id]);
    assert!(manager.audit(AuditOptions::default()).is_clean());
    fresh.spoil(id, "DELETE FROM qudo_worker");
    let report = manager.audit(AuditOptions::default());
    assert_eq!(report.findings[0].flaw, Flaw::NoWorker, "{report}");
    // A job that is in two tables stays where it may be at work.
    fresh.spoil(
        id,
        "INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes, flags) \
         SELECT queue, claim_rank, id, ability, attempt, crashes, flags FROM qudo_lease WHERE id = {ID}",
    );
    let report = manager.audit(AuditOptions::default());
    let both = Flaw::ManyPlaces(vec![Place::Leased, Place::Ready]);
    assert!(report.findings.iter().any(|one| one.flaw == both), "{report}");
    let repaired = manager.audit(AuditOptions::default().repair(true));
    assert!(repaired.is_clean(), "{repaired}");
    assert!(manager.audit(AuditOptions::default()).findings.is_empty());
}

/// A repair takes no job from a worker that lives, whatever else is wrong with it.
fn a_job_at_work_stays_with_its_worker(engine: &str) {
    let Some(mut fresh) = Fresh::on(engine) else { return };
    let manager = fresh.manager();
    let id = store(&manager, job());
    let driver = fresh.driver();
    assert_eq!(claim(&*driver, 1), [id]);
    let running = driver.state(id).expect("answers");
    fresh.spoil(
        id,
        "INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes, flags) \
         SELECT queue, claim_rank, id, ability, attempt, crashes, flags FROM qudo_lease WHERE id = {ID}; \
         INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes, flags) \
         SELECT 'elsewhere', 3, id, ability, 7, crashes, flags FROM qudo_lease WHERE id = {ID}; \
         UPDATE qudo_lease SET claim_rank = 5 WHERE id = {ID}",
    );
    let repaired = manager.audit(AuditOptions::default().repair(true));
    assert!(!repaired.findings.is_empty() && repaired.is_clean(), "{repaired}");
    assert!(manager.audit(AuditOptions::default()).findings.is_empty());
    assert_eq!(driver.state(id).expect("answers"), running);
    let depth = driver.depth(10).expect("answers");
    assert_eq!((depth.ready.count, depth.running.count), (0, 1));
}

/// A claim that meets a ready row of a job at work leaves it and takes the others.
fn a_ready_row_that_is_leased_stops_nobody(engine: &str) {
    let Some(mut fresh) = Fresh::on(engine) else { return };
    let manager = fresh.manager();
    let ids: Vec<_> = (0..3).map(|_| store(&manager, job())).collect();
    assert_eq!(claim(&*fresh.driver(), 1), ids[..1]);
    fresh.spoil(
        ids[0],
        "INSERT INTO qudo_ready (queue, claim_rank, id, ability, attempt, crashes, flags) \
         SELECT queue, claim_rank, id, ability, attempt, crashes, flags FROM qudo_lease WHERE id = {ID}",
    );
    assert_eq!(claim(&*fresh.driver(), 10), ids[1..]);
}

/// A claim that meets a ready row without facts leaves it and takes the others.
fn a_ready_row_without_facts_stops_nobody(engine: &str) {
    let Some(mut fresh) = Fresh::on(engine) else { return };
    let manager = fresh.manager();
    let ids: Vec<_> = (0..5).map(|_| store(&manager, job())).collect();
    for orphan in [ids[0], ids[2]] {
        fresh.spoil(orphan, "DELETE FROM qudo_job WHERE id = {ID}");
    }
    let claimed = claim(&*fresh.driver(), 10);
    assert_eq!(claimed, [ids[1], ids[3], ids[4]]);
    let counted = manager.job_count().remove(0).answer.expect("counts");
    let leased = counted.iter().find(|row| row.state == "running").expect("runs");
    assert_eq!(leased.count, 3, "no lease is left that nobody runs");
}

/// A spoilt job may be met, not be done, and come back in the same place: that must not keep an operation there. One that
/// stands in two places is an error of the database when it is to go to the other.
fn operations_come_to_their_end_over_what_is_spoilt(engine: &str) {
    let Some(mut fresh) = Fresh::on(engine) else { return };
    let manager = fresh.manager();
    let once = |flaws: &[&str]| flaws != ["many_places"];
    for (n, (sql, job, _)) in flaws().into_iter().filter(|(_, _, flaws)| once(flaws)).enumerate() {
        let id = store(
            &manager,
            if sql.contains("qudo_unique") { job.uniqkey(format!("{n}")) } else { job },
        );
        fresh.spoil(id, sql);
        store(&manager, self::job());
    }
    let all = || JobFilter::all();
    let to = || Verb::MoveToQueue("other".to_owned());
    for (verb, limit) in [
        (Verb::Prioritize(3), None),
        (to(), Some(4)),
        (Verb::Reschedule(Due::In(Duration::from_secs(60))), None),
        (Verb::Retry, Some(4)),
        (Verb::Cancel, Some(4)),
        (Verb::CancelByForce, Some(4)),
        (Verb::Delete, Some(2)),
        (Verb::Delete, None),
    ] {
        let told = format!("{verb:?} {limit:?}");
        let operation = Operation::on(all(), verb).reason("to see").rate(None);
        let operation = if let Some(most) = limit { operation.limit(most) } else { operation };
        let mut slices = 0;
        let report = manager.operate(&operation, |_| {
            slices += 1;
            if slices < 100 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let report = report.expect("can be");
        assert!(report.is_done(), "{told}, after {slices} slices: {report:?}");
        assert!(limit.is_none_or(|most| report.counts().done <= most), "{told}: {report:?}");
    }
    let sound = manager.jobs(&all(), &Paging::default());
    let sound = sound.rows().filter(|(_, one)| one.facts.queue == "other").count();
    assert_eq!(sound, 0, "what is sound was deleted");
}

macro_rules! on_each_engine {
    ($($engine:ident),*) => {
        $(mod $engine {
            #[test]
            fn each_flaw_is_found_and_put_right() {
                super::each_flaw_is_found_and_put_right(stringify!($engine));
            }

            #[test]
            fn a_lease_without_a_worker_is_found() {
                super::a_lease_without_a_worker_is_found(stringify!($engine));
            }

            #[test]
            fn a_job_at_work_stays_with_its_worker() {
                super::a_job_at_work_stays_with_its_worker(stringify!($engine));
            }

            #[test]
            fn a_ready_row_that_is_leased_stops_nobody() {
                super::a_ready_row_that_is_leased_stops_nobody(stringify!($engine));
            }

            #[test]
            fn a_ready_row_without_facts_stops_nobody() {
                super::a_ready_row_without_facts_stops_nobody(stringify!($engine));
            }

            #[test]
            fn operations_come_to_their_end_over_what_is_spoilt() {
                super::operations_come_to_their_end_over_what_is_spoilt(stringify!($engine));
            }
        })*
    };
}

on_each_engine!(sqlite, postgres, mariadb, mysql);

/// Two databases, one of each kind; `None` in a run that is not about both.
fn pair() -> Option<(Vec<Fresh>, Manager)> {
    let databases: Option<Vec<_>> = ["sqlite", "postgres"].into_iter().map(Fresh::on).collect();
    let databases = databases?;
    let builder = Manager::builder().linked(false);
    let builder = builder.database_as("one", databases[0].database.url());
    let manager = builder.database_as("two", databases[1].database.url()).build().expect("valid");
    Some((databases, manager))
}

#[test]
fn a_job_in_two_databases_is_found_unless_it_is_on_its_way() {
    let Some((databases, manager)) = pair() else { return };
    let (one, two) = (databases[0].driver(), databases[1].driver());
    let ids: Vec<_> = (0..3).map(|_| store(&manager, job().database("one"))).collect();
    let there = two.identity().expect("answers").to_string();
    let moving = one.move_out(&there, uuid::Uuid::now_v7(), Some(&ids[..1]), 1).expect("moves out");
    let here = one.identity().expect("answers").to_string();
    two.move_in(&here, &moving).expect("moves in");
    let report = manager.audit(AuditOptions::default());
    assert!(report.is_clean(), "a leg of a move is legal: {report}");
    let record = manager.prepare_record(job().with_id(ids[2])).expect("valid").expect("kept");
    two.insert(&[record], Deadline::NONE).expect("stored a second time");
    let report = manager.audit(AuditOptions::default());
    assert_eq!(report.findings.len(), 1, "{report}");
    let finding = &report.findings[0];
    assert_eq!((finding.job, &finding.flaw), (ids[2], &Flaw::TwoDatabases));
    assert_eq!(finding.databases, ["one", "two"]);
    assert!(!manager.audit(AuditOptions::default().repair(true)).is_clean(), "for a person");
}

#[test]
fn a_key_in_two_databases_is_found_unless_it_is_allowed() {
    let Some((_databases, manager)) = pair() else { return };
    for name in ["one", "two"] {
        store(&manager, job().uniqkey("k").database(name));
        store(&manager, job().uniqkey(format!("own {name}")).database(name));
    }
    let report = manager.audit(AuditOptions::default());
    assert_eq!(report.findings.len(), 1, "{report}");
    assert!(
        matches!(&report.findings[0].flaw, Flaw::KeyInTwoDatabases { uniqkey, .. } if uniqkey == "k")
    );
    assert!(manager.audit(AuditOptions::default().keys_may_double(true)).is_clean());
}

#[test]
fn a_database_that_does_not_answer_is_told_and_the_others_are_looked_at() {
    let Some((databases, _)) = pair() else { return };
    let builder = Manager::builder().linked(false).database_as("one", databases[0].database.url());
    let manager =
        builder.database_as("gone", "postgres://nobody@127.0.0.1:1/x").build().expect("valid");
    store(&manager, job().database("one"));
    let report = manager.audit(AuditOptions::default());
    assert_eq!((report.jobs, report.findings.len()), (1, 0));
    assert_eq!(report.failures[0].0, "gone");
    assert!(!report.is_clean());
}

#[test]
fn more_jobs_than_one_look_takes_are_all_looked_at() {
    let Some(mut fresh) = Fresh::on("sqlite") else { return };
    let manager = fresh.manager();
    let many = (0..5_003).map(|n| job().priority(n % 5).queue(format!("queue {}", n % 3)));
    let stored = manager.enqueue_many(many).expect("stored");
    let last = stored[5_002].id().expect("new");
    fresh.spoil(last, "DELETE FROM qudo_ready WHERE id = {ID}");
    let report = manager.audit(AuditOptions::default());
    assert_eq!((report.jobs, report.findings.len()), (5_003, 1), "{report}");
    assert_eq!(report.findings[0].job, last);
}
