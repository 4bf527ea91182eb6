//! Every question and every verb of an operator while one database refuses, one is stopped and one loses
//! its packets: the one that is well is served, the others are errors, and what they did not do is done later.

#![cfg(all(feature = "sqlite", feature = "postgres", feature = "mysql"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::ops::ControlFlow;
use std::time::Duration;

use qudo::admin::{
    AuditOptions, ExceptionFilter, HealthLimits, JobFilter, Operation, OperationId, Paging, Part,
    PerDatabase, StatScan, StatusFilter, Verb, Watch,
};
use qudo::driver::Due;
use qudo::{Job, JobError, JobId, JobResult, Manager, NewJob};
use qudo_test_servers::{
    Engine, Mariadb, Mysql, Options, Postgres, Proxy, Server, can_start, eventually,
};

const AWAY: [&str; 3] = ["refusing", "stopped", "losing"];
const WELL: &str = "well";

#[qudo::ability(max_retries = 0)]
fn breaks(_job: &Job, (): ()) -> JobResult<()> {
    Err(JobError::fail("broken"))
}

/// A server of any engine.
trait Stand {
    fn create(&self, name: &str) -> String;
    fn port(&self) -> u16;
    fn pause(&self);
    fn resume(&self);
}

impl<E: Engine> Stand for Server<E> {
    fn create(&self, name: &str) -> String {
        self.create_database(name).expect("creates")
    }

    fn port(&self) -> u16 {
        Self::port(self)
    }

    fn pause(&self) {
        Self::pause(self).expect("pauses");
    }

    fn resume(&self) {
        Self::resume(self).expect("resumes");
    }
}

fn start<E: Engine + 'static>() -> Option<Box<dyn Stand>> {
    let started = || Server::<E>::start(Options::default()).expect("starts");
    can_start(E::SHORT).then(|| Box::new(started()) as Box<dyn Stand>)
}

/// Three servers behind proxies, each to be away in its own way, and a file that is well.
struct Bed<'a> {
    servers: [&'a dyn Stand; 3],
    proxies: [Proxy; 3],
    manager: Manager,
    _place: tempfile::TempDir,
}

impl<'a> Bed<'a> {
    fn new(servers: [&'a dyn Stand; 3], name: &str) -> Self {
        let place = tempfile::tempdir().expect("a temporary directory");
        let proxies = servers.map(|server| Proxy::start(server.port()).expect("starts"));
        let mut builder = Manager::builder()
            .linked(false)
            .ability::<breaks>()
            .call_limit(Duration::from_secs(1))
            .retry_seconds(1)
            .database_as(WELL, format!("sqlite:{}", place.path().join("jobs.db").display()));
        for ((short, server), proxy) in AWAY.iter().zip(servers).zip(&proxies) {
            let mut dsn = url::Url::parse(&server.create(name)).expect("a URL");
            dsn.set_host(Some("127.0.0.1")).expect("a host");
            dsn.set_port(Some(proxy.port())).expect("a port");
            builder = builder.database_as(*short, String::from(dsn));
        }
        let manager = builder.build().expect("valid");
        for on in manager.migrate().expect("migrates") {
            on.answer.expect("applied");
        }
        Self { servers, proxies, manager, _place: place }
    }

    fn goes_away(&self) {
        self.proxies[0].refuse();
        self.servers[1].pause();
        self.proxies[2].drop_packets();
    }

    fn comes_back(&self) {
        self.proxies[0].pass();
        self.servers[1].resume();
        self.proxies[2].pass();
        eventually(Duration::from_secs(60), "all databases answer", || {
            self.manager.overview(Duration::from_secs(5)).iter().all(|on| on.answer.is_ok())
        });
    }
}

/// The one that is well has answered, and each of the others has an error that names it.
fn only_one_answers<T>(what: &str, answers: Vec<PerDatabase<T>>) {
    assert_eq!(answers.len(), 4, "{what}");
    for on in answers {
        match on.answer {
            Ok(_) => assert_eq!(on.database, WELL, "{what}"),
            Err(error) => {
                assert!(AWAY.contains(&&*on.database), "{what}: {error}");
                assert!(error.to_string().contains(&on.database), "{what}: {error}");
            }
        }
    }
}

fn questions(manager: &Manager, known: JobId) {
    let paging = Paging::default();
    let all = JobFilter::all();
    only_one_answers("overview", manager.overview(Duration::from_secs(1)));
    only_one_answers("stats", manager.stats(&StatScan::ever()));
    let mut watch = Watch::default();
    watch.within = Duration::from_secs(1);
    let readings = manager.readings(watch);
    let up: Vec<_> = readings.iter().filter(|one| one.up).map(|one| &*one.database).collect();
    assert_eq!(up, [WELL], "{readings:?}");
    assert_eq!(readings.iter().filter(|one| one.trouble.is_some()).count(), 3, "{readings:?}");
    only_one_answers("jobs", manager.jobs(&all, &paging).pages);
    only_one_answers("exceptions", manager.exceptions(&ExceptionFilter::all(), &paging).pages);
    only_one_answers("failures", manager.failures(&ExceptionFilter::all(), 1_000));
    only_one_answers("runs", manager.job_statuses(&StatusFilter::all(), &paging).pages);
    only_one_answers("count", manager.job_count());
    only_one_answers("workers", manager.workers());
    only_one_answers("orders", manager.worker_orders());
    only_one_answers("pauses", manager.pauses());
    only_one_answers("abilities", manager.check_abilities());
    only_one_answers("operations", manager.operations(None, 10));
    only_one_answers("checkup", manager.checkup());
    only_one_answers("migrations", manager.missing_migrations());
    let mut limits = HealthLimits::default();
    limits.workers = false;
    let ill = manager.health(&limits);
    let ill: Vec<_> = ill.iter().filter(|(_, ailments)| !ailments.is_empty()).collect();
    assert_eq!(ill.len(), 3, "{ill:?}");
    assert_eq!(manager.audit(AuditOptions::default()).failures.len(), 3);
    let (database, _) = manager.lookup(known).expect("is known").expect("is there");
    assert_eq!(database, WELL);
    // A job that nobody who answers knows may be in one that is away.
    manager.lookup(JobId::new()).expect_err("nobody can tell");
    manager.why(JobId::new()).expect_err("nobody can tell");
    manager.find_operation(OperationId::new()).expect_err("nobody can tell");
}

/// A verb for the jobs of each queue.
fn verbs() -> Vec<(&'static str, Verb)> {
    vec![
        ("reschedule", Verb::Reschedule(Due::In(Duration::from_secs(3_600)))),
        ("prioritize", Verb::Prioritize(7)),
        ("queue", Verb::MoveToQueue("other".to_owned())),
        ("database", Verb::MoveToDatabase(WELL.to_owned())),
        ("cancel", Verb::Cancel),
        ("force", Verb::CancelByForce),
        ("delete", Verb::Delete),
    ]
}

/// Begins an operation while three databases are away.
fn begun(manager: &Manager, operation: &Operation, of_well: u64) {
    let shown = manager.preview(operation, 1).expect("can be");
    assert_eq!(shown.iter().filter(|on| on.answer.is_err()).count(), 3);
    let report = manager.operate(operation, |_| ControlFlow::Continue(())).expect("can be");
    assert!(!report.is_done(), "{report:?}");
    assert_eq!(report.counts().done, of_well, "{report:?}");
    for part in &report.databases {
        assert_eq!(part.error.is_some(), part.database != WELL, "{report:?}");
    }
}

fn one_is_served_and_the_others_later(bed: &Bed<'_>) {
    let manager = &bed.manager;
    for short in AWAY.iter().chain(&[WELL]) {
        manager.enqueue(breaks::job(()).database(*short)).expect("stored");
    }
    while manager.work_once().expect("works").is_some() {}
    let mut known = None;
    for short in AWAY.iter().chain(&[WELL]) {
        for (queue, _) in verbs() {
            let job = NewJob::named("mail", 1.into()).queue(queue).database(*short);
            known = manager.enqueue(job).expect("stored").id();
        }
    }
    bed.goes_away();
    questions(manager, known.expect("stored"));
    let mut open = Vec::new();
    for (queue, verb) in verbs() {
        let filter = format!("queue:{queue}").parse().expect("a filter");
        let of_well = u64::from(queue != "database");
        let operation = Operation::on(filter, verb).reason("to see");
        begun(manager, &operation, of_well);
        open.push((operation, of_well));
    }
    let redrive = Operation::redrive(ExceptionFilter::all());
    begun(manager, &redrive, 1);
    open.push((redrive, 1));
    let part = Part::Queue("some".to_owned());
    only_one_answers("pause", manager.pause_part(&part, None, "to see").expect("a name"));
    only_one_answers("resume", manager.resume_part(&part, None).expect("a name"));
    for short in AWAY {
        manager.drain(short).expect_err("it is away");
    }
    bed.comes_back();
    for (begun, of_well) in open {
        let (found, all) = (manager.find_operation(begun.id()).expect("answers"), 3 + of_well);
        // Of one that is about the others only, nobody who answered has heard.
        assert_eq!(found.is_some(), of_well == 1, "{begun}");
        let operation = found.unwrap_or(begun);
        let report = manager.operate(&operation, |_| ControlFlow::Continue(())).expect("can be");
        assert!(report.is_done(), "{report:?}");
        assert_eq!(report.counts().done, all, "{report:?}");
    }
    let left = |filter: &str| {
        let listed = manager.jobs(&filter.parse().expect("a filter"), &Paging::default());
        assert_eq!(listed.errors().count(), 0);
        listed.rows().count()
    };
    assert_eq!(left("queue:reschedule state:scheduled"), 4);
    assert_eq!(left("queue:prioritize priority:7"), 4);
    assert_eq!((left("queue:queue"), left("queue:other")), (0, 4));
    assert_eq!((left("queue:database"), left("queue:database db:well")), (4, 4));
    assert_eq!(left("queue:cancel,force,delete"), 0);
    assert_eq!(left("ability:breaks"), 4);
    assert!(manager.audit(AuditOptions::default()).is_clean());
}

#[test]
fn an_operator_is_served_while_databases_refuse_are_stopped_or_lose_packets() {
    let (Some(postgres), Some(mariadb), Some(mysql)) =
        (start::<Postgres>(), start::<Mariadb>(), start::<Mysql>())
    else {
        return;
    };
    // Each engine is away in each way.
    let mut servers = [&*postgres, &*mariadb, &*mysql];
    for name in ["away_one", "away_two", "away_three"] {
        let bed = Bed::new(servers, name);
        one_is_served_and_the_others_later(&bed);
        servers.rotate_left(1);
    }
}
