//! One fault at a time, with real servers: what is alive goes on, what was down comes back, no job
//! is lost, and none runs twice without a lost lease.
//!
//! Each test prints what enqueues met before, during and after its fault.

#![allow(missing_docs, reason = "a test is read, not called")]

use std::collections::HashSet;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use qudo::admin::{AuditOptions, DatabaseState};
use qudo::admin::{ExceptionFilter, JobFilter, Paging};
use qudo::driver::{Driver, DriverRegistration};
use qudo::history::{History, Recorder, Remains, Rules, micros};
use qudo::hook::FailureKind;
use qudo::{Error, Manager};
use qudo_soak::{Crew, Effort, Load, Options, Phase, World, client, effort, judge};

/// The program whose `worker` the tests start.
const PROGRAM: &str = env!("CARGO_BIN_EXE_qudo-soak");

/// Every wait for a condition ends here.
const DEADLINE: Duration = Duration::from_secs(60);

/// How soon a database must be in use again: the world's `retry_seconds`, and one second.
const BACK_WITHIN: Duration = Duration::from_secs(3);

/// Servers under load need the machine for themselves.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[track_caller]
fn eventually(what: &str, condition: impl FnMut() -> bool) {
    qudo_test_servers::eventually(DEADLINE, what, condition);
}

/// Nothing lies where it must not, and nothing in two databases.
#[track_caller]
fn assert_sound(manager: &Manager) {
    let report = manager.audit(AuditOptions::default());
    assert!(report.is_clean(), "{report}");
}

fn state(manager: &Manager, name: &str) -> DatabaseState {
    let reports = manager.database_reports();
    reports.iter().find(|one| one.name == name).expect("known").state
}

/// Waits until these databases are in use. Says how long it took and what they went through.
fn until_up(manager: &Manager, names: &[&str]) -> (Duration, Vec<String>) {
    let begun = Instant::now();
    let mut seen: Vec<String> = Vec::new();
    let mut last = Vec::new();
    eventually("they are in use again", || {
        let mut reports = manager.database_reports();
        reports.retain(|one| names.contains(&&*one.name));
        let up = reports.iter().all(|one| one.state == DatabaseState::Up);
        let now: Vec<_> =
            reports.into_iter().map(|one| (one.name, one.state, one.reason)).collect();
        if now != last {
            seen.push(format!("after {:.1?}: {now:?}", begun.elapsed()));
            last = now;
        }
        up
    });
    (begun.elapsed(), seen)
}

/// What a fault must have done when it has lasted.
#[derive(Clone, Copy)]
enum Effect {
    /// The databases are out of use.
    Down,
    /// It is over, or slows them only.
    Passing,
}

/// A world under load.
struct Scene {
    world: World,
    crew: Crew,
    load: Load,
    rules: Rules,
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    fn new(workers: usize) -> Self {
        let alone = alone();
        Self::of(World::start().expect("starts"), workers, alone)
    }

    /// A world with MySQL, where this machine has it.
    fn with_mysql(workers: usize) -> Option<Self> {
        let alone = alone();
        let world = World::with_mysql().expect("starts");
        world.mysql.is_some().then(|| Self::of(world, workers, alone))
    }

    fn of(world: World, workers: usize, alone: MutexGuard<'static, ()>) -> Self {
        let crew = Crew::start(PROGRAM, Options::of(&world), workers).expect("starts");
        let load = Load::start(&world, 2, Duration::from_millis(10)).expect("starts");
        let scene = Self { world, crew, load, rules: Rules::default(), _alone: alone };
        scene.enqueue_some(100);
        scene
    }

    /// Lets the load go on until it has stored so many more.
    fn enqueue_some(&self, more: usize) {
        let goal = self.load.count() + more;
        eventually("clients go on", || self.load.count() >= goal);
    }

    /// Does a fault to databases and lets it last, while clients and workers must go on with what
    /// lives; whether it takes the databases out of use is checked. Then heals it, and waits until
    /// they are in use again.
    fn suffer(
        &mut self,
        databases: &[&str],
        effect: Effect,
        last: Duration,
        fault: impl FnOnce(&World, &mut Crew),
        heal: impl FnOnce(&World, &mut Crew),
    ) {
        let from = SystemTime::now();
        self.load.phase(Phase::During);
        fault(&self.world, &mut self.crew);
        let until = Instant::now() + last;
        self.enqueue_some(50);
        while Instant::now() < until {
            std::thread::park_timeout(until - Instant::now());
        }
        let runs = self.finished(from);
        let asked = self.load.manager().database_reports();
        for name in databases {
            let report = asked.iter().find(|one| one.name == *name).expect("known");
            println!(
                "{name}: {} {}",
                report.state.as_str(),
                report.reason.as_deref().unwrap_or("")
            );
            if matches!(effect, Effect::Down) {
                assert_ne!(report.state, DatabaseState::Up, "the fault had no effect on {name}");
            }
        }
        assert!(runs > 50, "workers went on with what lives: {runs} runs");
        heal(&self.world, &mut self.crew);
        let (back, seen) = until_up(self.load.manager(), databases);
        println!("{databases:?} in use again {back:.1?} after it was healed");
        assert!(back < BACK_WITHIN, "{back:?}: {seen:#?}");
        let until = SystemTime::now() + Duration::from_secs(10);
        self.rules = self.rules.clone().with_disturbance(micros(from), micros(until));
        self.load.phase(Phase::After);
        self.enqueue_some(50);
    }

    /// Runs that ended since then, at any worker.
    fn finished(&self, since: SystemTime) -> usize {
        let history = History::read(self.world.history()).expect("reads");
        history.finished_since(micros(since))
    }

    /// Ends the load, works off, and judges.
    fn end(self) {
        self.end_but(|| {});
    }

    /// As [`end`](Self::end), with a last look at the world.
    fn end_but(self, look: impl FnOnce()) {
        let (manager, phases) = self.load.stop().expect("ends");
        for (phase, tally) in &phases {
            println!("{phase:?}: {tally}");
            assert_eq!(tally.failed, Vec::<String>::new(), "a live database takes every free job");
        }
        let verdict = judge(&self.world, &manager, &self.rules, DEADLINE).expect("worked off");
        println!("{verdict}");
        look();
        assert_eq!(verdict.faults, []);
        assert_eq!(verdict.audit, None);
        let slowest = self.crew.stop().expect("workers end when they are asked to");
        assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    }
}

#[test]
fn postgres_is_killed_under_load_and_comes_back() {
    let mut scene = Scene::new(3);
    scene.suffer(
        &["postgres"],
        Effect::Down,
        Duration::from_secs(3),
        |world, _| world.postgres.kill().expect("kills"),
        |world, _| world.postgres.restart().expect("restarts"),
    );
    scene.end();
}

#[test]
fn mariadb_is_killed_under_load_and_comes_back() {
    let mut scene = Scene::new(3);
    scene.suffer(
        &["mariadb"],
        Effect::Down,
        Duration::from_secs(3),
        |world, _| world.mariadb.kill().expect("kills"),
        |world, _| world.mariadb.restart().expect("restarts"),
    );
    scene.end();
}

#[test]
fn mysql_is_killed_under_load_and_comes_back() {
    let Some(mut scene) = Scene::with_mysql(3) else { return };
    let server = |world: &World| world.mysql.as_ref().map(|(server, _)| server.restart());
    scene.suffer(
        &["mysql"],
        Effect::Down,
        Duration::from_secs(3),
        |world, _| {
            let (server, _) = world.mysql.as_ref().expect("it is there");
            server.kill().expect("kills");
        },
        |world, _| server(world).expect("it is there").expect("restarts"),
    );
    scene.suffer(
        &["mysql"],
        Effect::Down,
        Duration::from_secs(8),
        |world, _| {
            let (server, _) = world.mysql.as_ref().expect("it is there");
            server.pause().expect("pauses");
        },
        |world, _| {
            let (server, _) = world.mysql.as_ref().expect("it is there");
            server.resume().expect("resumes");
        },
    );
    scene.end();
}

#[test]
fn two_servers_that_answer_nothing_for_30_seconds_hold_up_nobody() {
    let mut scene = Scene::new(3);
    scene.suffer(
        &["postgres", "mariadb"],
        Effect::Down,
        Duration::from_secs(30),
        |world, crew| {
            world.postgres.pause().expect("pauses");
            world.mariadb.pause().expect("pauses");
            // A worker that is told to end while its databases hang ends in time.
            let took = crew.replace(0).expect("ends within its shutdown timeout");
            println!("a worker with two hanging databases stopped in {took:.1?}");
        },
        |world, _| {
            world.postgres.resume().expect("resumes");
            world.mariadb.resume().expect("resumes");
        },
    );
    scene.end();
}

#[test]
fn while_it_is_found_out_if_a_server_hangs_only_the_probe_asks_it() {
    let _alone = alone();
    let world = World::start().expect("starts");
    let mut databases = world.databases();
    databases.retain(|(name, _)| name == "postgres");
    let down = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&down);
    let manager = qudo_soak::builder(&databases)
        // A beat does not wait, and is not what this is about.
        .heartbeat(Duration::from_secs(600), Duration::from_secs(3_600))
        .on_database_change(move |report| {
            let up = report.state == DatabaseState::Up;
            told.fetch_add(usize::from(!up), Ordering::AcqRel);
        })
        .build()
        .expect("valid");
    manager.migrate().expect("migrates");
    let working = manager.start().expect("starts");
    let job = effort::job(Effort { millis: 0, fails: 0, panics: false });
    manager.enqueue(job).expect("stored");
    eventually("it is worked", || {
        manager.database_reports()[0]
            .depth
            .as_ref()
            .is_some_and(|depth| depth.running.count == 0 && depth.ready.count == 0)
    });
    world.postgres_proxy.drop_packets();
    // The next claim comes within `delay`; after `call_limit`, which is longer, it is given up.
    let claimed = Instant::now() + Duration::from_millis(1_200);
    eventually("a claim hangs", || Instant::now() > claimed && world.postgres_proxy.held_up() > 0);
    let hang = world.postgres_proxy.held_up();
    assert_eq!(down.load(Ordering::Acquire), 0, "the limit is not over");
    // What was looked at before the last look counts: at that moment the connections of the pool are
    // closed, and their farewells do not arrive either.
    let mut looks = vec![hang];
    eventually("it is out of use", || {
        looks.push(world.postgres_proxy.held_up());
        down.load(Ordering::Acquire) > 0
    });
    let asked = looks[looks.len().saturating_sub(3)] - hang;
    world.postgres_proxy.pass();
    assert_eq!(asked, 1, "the probe, and nothing else");
    eventually("it is in use again", || state(&manager, "postgres") == DatabaseState::Up);
    working.stop();
    assert_sound(&manager);
}

#[test]
fn packets_are_lost_delayed_reset_and_half_open() {
    let mut scene = Scene::new(2);
    let both = ["postgres", "mariadb"];
    let seconds = Duration::from_secs;
    let pass = |world: &World, _: &mut Crew| {
        world.postgres_proxy.pass();
        world.mariadb_proxy.pass();
    };
    scene.suffer(
        &both,
        Effect::Down,
        seconds(6),
        |world, _| {
            world.postgres_proxy.drop_packets();
            world.mariadb_proxy.drop_packets();
        },
        pass,
    );
    scene.suffer(
        &both,
        Effect::Down,
        seconds(2),
        |world, _| {
            world.postgres_proxy.refuse();
            world.mariadb_proxy.refuse();
        },
        pass,
    );
    scene.suffer(
        &both,
        Effect::Passing,
        seconds(2),
        |world, _| world.postgres_proxy.delay(Duration::from_millis(200)),
        pass,
    );
    scene.suffer(
        &both,
        Effect::Passing,
        seconds(4),
        |world, _| {
            world.postgres_proxy.half_open();
            world.mariadb_proxy.half_open();
        },
        pass,
    );
    scene.end();
}

#[test]
fn a_server_that_turns_read_only_is_left_alone_until_it_takes_writes() {
    let mut scene = Scene::new(2);
    scene.suffer(
        &["postgres"],
        Effect::Down,
        Duration::from_secs(3),
        |world, _| world.set_postgres_read_only(true).expect("refuses writes"),
        |world, _| world.set_postgres_read_only(false).expect("takes writes"),
    );
    scene.end();
}

#[test]
fn a_server_without_a_free_connection_is_left_alone() {
    let mut scene = Scene::new(2);
    let taken = Mutex::new(Vec::new());
    let url = scene.world.postgres.url();
    scene.suffer(
        &["postgres"],
        Effect::Down,
        Duration::from_secs(3),
        |world, _| {
            // Those that the pools hold are cut off first, so that all need new ones.
            world.postgres_proxy.refuse();
            let mut held = Vec::new();
            while let Ok(one) = hold_connection(&url) {
                held.push(one);
            }
            println!("{} connections taken", held.len());
            assert!(held.len() > 50, "the server took {} only", held.len());
            world.postgres_proxy.pass();
            *taken.lock().expect("no panic") = held;
        },
        |_, _| taken.lock().expect("no panic").clear(),
    );
    scene.end();
}

/// A connection that does nothing but be there.
fn hold_connection(url: &str) -> Result<impl Sized + use<>, diesel::ConnectionError> {
    use diesel::Connection;
    diesel::PgConnection::establish(url)
}

#[test]
fn the_lock_of_a_sqlite_file_that_somebody_holds_holds_up_nobody() {
    let mut scene = Scene::new(2);
    scene.suffer(
        &["sqlite"],
        Effect::Passing,
        Duration::ZERO,
        |world, _| world.lock_sqlite(Duration::from_secs(5)).expect("locks"),
        |_, _| {},
    );
    scene.end();
}

#[test]
fn a_full_disk_is_a_database_that_is_down_until_there_is_room() {
    let _alone = alone();
    let disk = SmallDisk::mount();
    let small = format!("sqlite:{}/jobs.db", disk.path().display());
    let large = tempfile::tempdir().expect("a temporary directory");
    let files = tempfile::tempdir().expect("a temporary directory");
    let recorder = Recorder::create(files.path().join("all.jsonl")).expect("creates");
    let manager = Manager::builder()
        .linked(false)
        .ability::<effort>()
        .observer(recorder)
        .retry_seconds(1)
        .database_as("small", small)
        .database_as("large", format!("sqlite:{}/jobs.db", large.path().display()))
        .build()
        .expect("valid");
    manager.migrate().expect("migrates");
    let job = || effort::job(Effort { millis: 0, fails: 0, panics: false });
    for _ in 0..20 {
        manager.enqueue(job().database("small")).expect("there is room");
    }
    disk.fill();
    let mut stored = 20;
    let full = loop {
        match manager.enqueue(job().database("small")) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(full.is_down() && full.to_string().contains("full"), "{full}");
    for _ in 0..50 {
        let sent = manager.enqueue(job()).expect("the other has room");
        assert_eq!(sent.ticket().expect("stored").database(), Some("large"));
    }
    disk.clear();
    let begun = Instant::now();
    eventually("there is room again", || state(&manager, "small") == DatabaseState::Up);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let working = manager.start().expect("starts");
    eventually("all are worked", || {
        let jobs = manager.jobs(&JobFilter::all(), &Paging::default());
        jobs.errors().next().is_none() && jobs.rows().next().is_none()
    });
    working.stop();
    let remains = Remains::of(&manager).expect("both answer");
    let history = History::read(files.path()).expect("reads");
    assert_eq!(Rules::default().check(&history, &remains), []);
    assert_eq!((history.len(), history.runs()), (stored + 50, stored + 50));
    assert_sound(&manager);
    println!("{stored} jobs stored until the disk was full");
}

/// A file system of two megabytes.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let place = tempfile::tempdir().expect("a temporary directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(place.path())
            .status()
            .expect("mount is there");
        assert!(mounted.success(), "this test mounts a small file system, which takes root");
        Self(place)
    }

    fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    fn fill(&self) {
        let filler = std::fs::File::create(self.path().join("filler")).expect("creates");
        let mut chunk = 65_536;
        while chunk > 0 {
            use std::io::Write;
            if (&filler).write_all(&vec![0; chunk]).is_err() {
                chunk /= 2;
            }
        }
    }

    fn clear(&self) {
        std::fs::remove_file(self.path().join("filler")).expect("removes");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because a connection may still be open.
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}

#[test]
fn a_manager_that_starts_with_every_database_down_takes_them_up_when_they_come() {
    let _alone = alone();
    let world = World::start().expect("starts");
    let spool = tempfile::tempdir().expect("a temporary directory");
    world.postgres.stop().expect("stops");
    world.mariadb.pause().expect("pauses");
    let databases = world.databases();
    let servers = || {
        databases[1..].iter().fold(
            Manager::builder()
                .linked(false)
                .ability::<effort>()
                .retry_seconds(2)
                .call_limit(Duration::from_secs(2)),
            |builder, (name, dsn)| builder.database_as(name, dsn),
        )
    };
    let manager = servers().build().expect("a dead database does not fail the build");
    let begun = Instant::now();
    let working = manager.start().expect("nor the start");
    let job = || effort::job(Effort { millis: 0, fails: 0, panics: false });
    let error = manager.enqueue(job()).expect_err("all are down");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let Error::AllDatabasesDown(reasons) = &error else { panic!("{error}") };
    assert_eq!(reasons.len(), 2, "{error}");
    println!("start and enqueue with all databases down took {:.1?}: {error}", begun.elapsed());
    // With a spool the web handler does not even notice.
    let dsn = format!("sqlite:{}/spool.db", spool.path().display());
    let spooling = servers().spool(dsn, 1_000).build().expect("valid");
    let sent: Vec<_> =
        (0..20).map(|_| spooling.enqueue(job()).expect("the spool takes it")).collect();
    assert_eq!(spooling.spool().expect("answers").expect("set").waiting, 20);
    world.postgres.restart().expect("restarts");
    let healed = Instant::now();
    eventually("postgres is in use", || state(&manager, "postgres") == DatabaseState::Up);
    assert!(healed.elapsed() < BACK_WITHIN, "{:?}", healed.elapsed());
    for one in &sent {
        let ticket = one.ticket().expect("stored");
        assert_eq!(ticket.wait_as::<u32>(DEADLINE).expect("forwarded and worked"), 1);
    }
    manager.enqueue(job()).expect("stored").wait_as::<u32>(DEADLINE).expect("worked");
    // It ends in time although MariaDB still hangs.
    let begun = Instant::now();
    working.stop();
    println!("stopped in {:.1?} with a hanging database", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    world.mariadb.resume().expect("resumes");
    for one in [&manager, &spooling] {
        eventually("mariadb is in use", || state(one, "mariadb") == DatabaseState::Up);
    }
    assert_sound(&spooling);
}

fn quick(world: &World, names: &[&str]) -> qudo::ManagerBuilder {
    let builder = Manager::builder()
        .linked(false)
        .ability::<effort>()
        .retry_seconds(2)
        .call_limit(Duration::from_secs(2));
    let wanted = world.databases().into_iter().filter(|(name, _)| names.contains(&&**name));
    wanted.fold(builder, |builder, (name, dsn)| builder.database_as(name, dsn))
}

#[test]
fn an_enqueue_that_meets_servers_as_they_stop_answering_takes_one_call_limit_in_all() {
    let _alone = alone();
    let world = World::start().expect("starts");
    let manager = quick(&world, &["postgres", "mariadb"]).build().expect("valid");
    let job = || effort::job(Effort { millis: 0, fails: 0, panics: false });
    for name in ["postgres", "mariadb"] {
        manager.enqueue(job().database(name)).expect("stored");
    }
    let three = quick(&world, &["postgres", "mariadb", "sqlite"]).build().expect("valid");
    for name in ["postgres", "mariadb", "sqlite"] {
        three.enqueue(job().database(name)).expect("stored");
    }
    world.postgres.pause().expect("pauses");
    world.mariadb.pause().expect("pauses");
    // Many jobs take their time, and still leave enough of it for the one that lives.
    for _ in 0..4 {
        let many = three.enqueue_many((0..5_000).map(|_| job())).expect("one database lives");
        assert!(many.iter().all(|one| one.ticket().and_then(|at| at.database()) == Some("sqlite")));
    }
    let begun = Instant::now();
    let error = manager.enqueue(job()).expect_err("neither answers");
    let took = begun.elapsed();
    println!("{took:.1?}: {error}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    let Error::AllDatabasesDown(reasons) = &error else { panic!("{error}") };
    assert_eq!(reasons.len(), 2, "{error}");
    // A probe finds out what the calls could not know.
    for name in ["postgres", "mariadb"] {
        eventually("it is taken out of use", || state(&manager, name) != DatabaseState::Up);
    }
    world.postgres.resume().expect("resumes");
    world.mariadb.resume().expect("resumes");
    for name in ["postgres", "mariadb"] {
        eventually("it is in use again", || state(&manager, name) == DatabaseState::Up);
        manager.enqueue(job().database(name)).expect("stored");
    }
    // What lay in their sockets is executed by now: no job is in the file and in one of them.
    let all_up = || three.database_reports().iter().all(|one| one.state == DatabaseState::Up);
    eventually("all are in use again", all_up);
    assert_sound(&three);
}

#[test]
fn a_database_that_is_slow_for_one_statement_stays_in_use() {
    use diesel::Connection;
    use diesel::connection::SimpleConnection;
    let _alone = alone();
    let world = World::start().expect("starts");
    let changes = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&changes);
    let manager = quick(&world, &["postgres"])
        .on_database_change(move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
        })
        .build()
        .expect("valid");
    let job = || effort::job(Effort { millis: 0, fails: 0, panics: false });
    manager.enqueue(job()).expect("stored");
    let mut other = diesel::PgConnection::establish(&world.postgres.url()).expect("connects");
    other.batch_execute("BEGIN; LOCK TABLE qudo_job").expect("locks");
    let error = manager.enqueue(job()).expect_err("it waits for the lock, and gives up");
    assert!(error.to_string().contains("no answer"), "{error}");
    other.batch_execute("ROLLBACK").expect("lets go");
    eventually("it is asked again", || manager.enqueue(job()).is_ok());
    assert_eq!(changes.load(Ordering::Relaxed), 0, "the server was well all the time");
    assert_sound(&manager);
}

#[test]
fn three_full_databases_get_their_share_and_a_slow_one_slows_only_itself() {
    let _alone = alone();
    let world = World::start().expect("starts");
    let (manager, recorder) = client(&world, "client").expect("valid");
    let worker = || {
        world
            .builder()
            .workers(2)
            .observer(Arc::clone(&recorder))
            .build()
            .expect("valid")
            .start()
            .expect("starts")
    };
    let fill = |jobs: usize| {
        for (name, _) in world.databases() {
            let job =
                |_| effort::job(Effort { millis: 1, fails: 0, panics: false }).database(&name);
            manager.enqueue_many((0..jobs).map(job)).expect("stored");
        }
    };
    // Asked directly, not through the proxies.
    let direct: Vec<_> =
        [world.databases()[0].1.clone(), world.postgres.url(), world.mariadb.url()]
            .iter()
            .map(|dsn| DriverRegistration::open_linked(dsn).expect("opens").driver)
            .collect();
    let counts = || -> Vec<usize> {
        let left =
            |driver: &Arc<dyn Driver>| driver.depth(10_000).expect("answers").ready.count as usize;
        direct.iter().map(left).collect()
    };
    fill(3_000);
    let working = worker();
    let begun = Instant::now();
    eventually("half of it is done", || counts().iter().sum::<usize>() <= 4_500);
    let left = counts();
    let took = begun.elapsed();
    println!(
        "of 3,000 each, left {left:?} after {took:.1?}: {:.0} jobs/s",
        4_500.0 / took.as_secs_f64()
    );
    for one in &left {
        assert!((1_000..2_000).contains(one), "each gets its share: {left:?}");
    }
    working.stop();
    judge_rest(&manager, &worker);
    // PostgreSQL is 40 ms away.
    fill(3_000);
    world.postgres_proxy.delay(Duration::from_millis(20));
    let begun = Instant::now();
    let working = worker();
    eventually("the fast two are done", || counts()[0] == 0 && counts()[2] == 0);
    let took = begun.elapsed();
    println!("beside a slow one, the other two did 6,000 in {took:.1?}; left {:?}", counts());
    world.postgres_proxy.pass();
    working.stop();
    judge_rest(&manager, &worker);
}

/// Works off what is left.
fn judge_rest(manager: &Manager, worker: &dyn Fn() -> qudo::WorkHandle) {
    let working = worker();
    eventually("all is worked off", || {
        let counts = manager.job_count();
        counts.into_iter().all(|on| on.answer.is_ok_and(|rows| rows.is_empty()))
    });
    working.stop();
    assert_sound(manager);
}

#[test]
fn fifty_workers_are_killed_and_every_job_is_done() {
    let mut scene = Scene::new(8);
    let from = SystemTime::now();
    for _ in 0..50 {
        let which = fastrand::usize(0..scene.crew.len());
        scene.enqueue_some(10);
        scene.crew.kill(which).expect("kills");
    }
    let until = SystemTime::now() + Duration::from_secs(10);
    scene.rules = scene.rules.with_disturbance(micros(from), micros(until));
    let (killed, files) = (scene.crew.killed.clone(), scene.world.history());
    let kept = tempfile::tempdir().expect("a temporary directory");
    scene.end_but(|| copy(&files, kept.path()));
    let history = History::read(kept.path()).expect("reads");
    let mut rescues: Vec<_> = killed
        .iter()
        .flat_map(|(pid, died)| history.rescues_of_file(&format!("worker-{pid}"), *died))
        .collect();
    rescues.sort_unstable();
    assert!(!rescues.is_empty(), "some jobs ran when their process died");
    let at = |share: usize| Duration::from_micros(rescues[(rescues.len() - 1) * share / 100]);
    println!(
        "{} jobs of {} killed processes ran again after {:.1?} (median), {:.1?} at most",
        rescues.len(),
        killed.len(),
        at(50),
        at(100)
    );
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for file in std::fs::read_dir(from).expect("reads") {
        let file = file.expect("reads");
        std::fs::copy(file.path(), to.join(file.file_name())).expect("copies");
    }
}

#[test]
fn jobs_of_a_killed_process_run_again_within_25_seconds_by_default() {
    let _alone = alone();
    let world = World::start().expect("starts");
    let options = Options { heartbeat: 5_000, dead_after: 20_000, ..Options::of(&world) };
    let mut crew = Crew::start(PROGRAM, options, 2).expect("starts");
    let (manager, _) = client(&world, "client").expect("valid");
    // Long enough that some of them run when their process dies.
    let long = |_| effort::job(Effort { millis: 1_500, fails: 0, panics: false });
    let jobs: Vec<_> = (0..24).map(long).collect();
    manager.enqueue_many(jobs).expect("stored");
    let running = || {
        let counts = manager.job_count();
        let rows = counts.into_iter().flat_map(|on| on.answer.expect("answers"));
        rows.filter(|row| row.state == "running").map(|row| row.count).sum::<u64>()
    };
    eventually("both work", || running() >= 8);
    let pids: Vec<_> = crew.pids();
    crew.kill(0).expect("kills");
    let (pid, died) = crew.killed[0];
    assert_eq!(pid, pids[0]);
    let verdict = judge(&world, &manager, &Rules::default(), DEADLINE).expect("worked off");
    assert_eq!((verdict.faults, verdict.audit), (vec![], None));
    let history = History::read(world.history()).expect("reads");
    let rescues = history.rescues_of_file(&format!("worker-{pid}"), died);
    assert!(!rescues.is_empty(), "some jobs ran when it died");
    let slowest = Duration::from_micros(*rescues.iter().max().expect("not empty"));
    println!("{} jobs ran again at most {slowest:.1?} after the kill", rescues.len());
    assert!(slowest < Duration::from_secs(25), "{slowest:?}");
    crew.stop().expect("ends");
}

#[test]
fn a_rolling_restart_costs_no_attempt_and_runs_nothing_twice() {
    let mut scene = Scene::new(4);
    for round in 0..2 {
        for which in 0..scene.crew.len() {
            scene.enqueue_some(40);
            let took = scene.crew.replace(which).expect("ends softly");
            println!("round {round}, worker {which}: stopped in {took:.1?}");
        }
    }
    let manager = scene.load.manager().clone();
    let history = scene.world.history();
    scene.load.phase(Phase::After);
    let (client, phases) = scene.load.stop().expect("ends");
    let verdict = judge(&scene.world, &client, &scene.rules, DEADLINE).expect("worked off");
    assert_eq!((verdict.faults, verdict.audit), (vec![], None));
    assert!(phases.values().all(|tally| tally.failed.is_empty()), "{phases:?}");
    for on in manager.exceptions(&ExceptionFilter::all(), &Paging::default().limit(100_000)) {
        for row in on.answer.expect("answers") {
            let lost = matches!(row.kind, FailureKind::Crash | FailureKind::LeaseExpired);
            assert!(!lost, "{row:?}");
        }
    }
    let history = History::read(history).expect("reads");
    let torn: Vec<_> = history.jobs().filter(|job| history.lost_runs(job) > 0).collect();
    assert_eq!(torn, Vec::<&str>::new(), "runs that nobody settled");
    scene.crew.stop().expect("ends");
}

#[test]
fn a_mover_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let _alone = alone();
    let world = World::start().expect("starts");
    let (manager, _) = client(&world, "client").expect("valid");
    let job = |_| effort::job(Effort { millis: 0, fails: 0, panics: false }).database("postgres");
    let mut jobs = HashSet::new();
    for one in manager.enqueue_many((0..4_000).map(job)).expect("stored") {
        jobs.insert(one.id().expect("new").to_string());
    }
    let mut kills = 0;
    loop {
        let mut mover = Command::new(PROGRAM);
        mover.args(["move", "--from=postgres", "--to=mariadb"]);
        for (name, dsn) in world.databases() {
            mover.arg(format!("--database={name}={dsn}"));
        }
        let mut mover = mover.spawn().expect("starts");
        let limit = Instant::now() + Duration::from_millis(fastrand::u64(60..400));
        let ended = loop {
            if let Some(status) = mover.try_wait().expect("asked") {
                break Some(status);
            }
            if Instant::now() > limit {
                break None;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        };
        if let Some(status) = ended {
            assert!(status.success(), "{status}");
            break;
        }
        mover.kill().expect("kills");
        mover.wait().expect("is gone");
        kills += 1;
    }
    println!("moved after {kills} kills");
    assert!(kills > 0, "it was never interrupted");
    for on in manager.jobs(&JobFilter::all(), &Paging::default().limit(10_000)) {
        let found = on.answer.expect("answers").rows;
        let expected = if on.database == "mariadb" { jobs.len() } else { 0 };
        assert_eq!(found.len(), expected, "{}", on.database);
        assert!(found.iter().all(|job| jobs.contains(&job.id.to_string())));
    }
    let crew = Crew::start(PROGRAM, Options::of(&world), 1).expect("starts");
    let verdict = judge(&world, &manager, &Rules::default(), DEADLINE).expect("worked off");
    assert_eq!((verdict.faults, verdict.runs, verdict.audit), (vec![], 4_000, None));
    crew.stop().expect("ends");
}
