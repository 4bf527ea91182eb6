//! Databases for one test each, and what tests share.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use qudo::driver::{DeadWorker, Driver, DriverRegistration, Rescued};
use qudo::{Ability, Manager, ManagerBuilder};

/// Every wait for a condition ends here.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The databases of one test: fresh, migrated, removed at the end.
pub struct Bed {
    pub databases: Vec<(String, String)>,
    /// Whatever removes the databases when dropped.
    pub guards: Vec<Box<dyn std::any::Any + Send + Sync>>,
}

/// What abilities write down for their test.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub fn add(&self, line: impl Into<String>) {
        self.0.lock().expect("no panic while logging").push(line.into());
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no panic while logging").clone()
    }
}

/// Runs a behaviour on an engine, unless the developer asked for others only.
pub fn run(engine: &str, behaviour: fn(&Bed)) {
    let chosen = std::env::var("QUDO_TEST_ENGINES").unwrap_or_default();
    let (granted, engine) = (engine, engine.strip_prefix("granted_").unwrap_or(engine));
    if !chosen.is_empty() && !chosen.split(',').any(|one| one == engine) {
        eprintln!("left out: {engine} is not in QUDO_TEST_ENGINES={chosen}");
        return;
    }
    crate::statements::install();
    if is_left_out(engine) {
        return;
    }
    behaviour(&Bed::new(granted));
    crate::statements::assert_sound();
}

impl Bed {
    pub fn new(engine: &str) -> Self {
        let bed = Self::unmigrated(engine);
        bed.builder().build().expect("valid").migrate().expect("migrates");
        bed
    }

    pub fn unmigrated(engine: &str) -> Self {
        let engines: &[&str] = match engine {
            "mixed" => MIXED,
            "memory" => &["memory"],
            "sqlite" => &["sqlite"],
            "postgres" => &["postgres"],
            "pooled" => &["pooled"],
            "mariadb" => &["mariadb"],
            "mysql" => &["mysql"],
            "granted_postgres" => return Self::granted("postgres"),
            "granted_mariadb" => return Self::granted("mariadb"),
            "granted_mysql" => return Self::granted("mysql"),
            other => panic!("unknown engine {other}"),
        };
        let mut bed = Self { databases: Vec::new(), guards: Vec::new() };
        for (number, engine) in engines.iter().filter(|one| !is_left_out(one)).enumerate() {
            let (dsn, guard) = fresh(engine);
            bed.databases.push((format!("{engine}{number}"), dsn));
            bed.guards.push(guard);
        }
        bed
    }

    /// A server's database that somebody else made the tables of, for an account with the rights of a
    /// client, a worker and an operator, and no others.
    fn granted(engine: &str) -> Self {
        let (owner, guard) = fresh(engine);
        let manager = Manager::builder().linked(false).database(&*owner).build().expect("valid");
        manager.migrate().expect("migrates");
        // MySQL takes 32 characters.
        let account = uuid::Uuid::now_v7().simple().to_string();
        let account = format!("g{}", &account[8..]);
        let (make, drop_it, grants) = if engine == "postgres" {
            (
                // The second for a server that writes its messages in another language.
                format!("CREATE ROLE {account} LOGIN; ALTER ROLE {account} SET lc_messages = 'C'"),
                format!("DROP OWNED BY {account} CASCADE; DROP ROLE {account}"),
                [
                    include_str!("../../docs/grants/postgres/enqueue.sql"),
                    include_str!("../../docs/grants/postgres/tickets.sql"),
                    include_str!("../../docs/grants/postgres/worker.sql"),
                    include_str!("../../docs/grants/postgres/operator.sql"),
                ],
            )
        } else {
            (
                format!("CREATE USER '{account}'@'%' IDENTIFIED BY 'secret'"),
                format!("DROP USER '{account}'@'%'"),
                [
                    include_str!("../../docs/grants/mysql/enqueue.sql"),
                    include_str!("../../docs/grants/mysql/tickets.sql"),
                    include_str!("../../docs/grants/mysql/worker.sql"),
                    include_str!("../../docs/grants/mysql/operator.sql"),
                ],
            )
        };
        let run = |sql: &str| {
            qudo_test_servers::run_sql(&owner, sql)
                .unwrap_or_else(|error| panic!("{sql}: {error}"));
        };
        run(&make);
        for text in grants {
            let lines = text.lines().filter(|line| !line.starts_with("--")).collect::<String>();
            run(&lines.replace("qudo_account", &account));
        }
        let mut url = url::Url::parse(&owner).expect("a URL");
        url.set_username(&account).expect("has a host");
        let account = DroppedAccount { beside: owner, sql: drop_it };
        Self {
            databases: vec![(format!("{engine}0"), url.into())],
            // The account goes before its database.
            guards: vec![Box::new(account), guard],
        }
    }

    /// A manager's builder over the databases, without linked abilities, with short pauses.
    pub fn builder(&self) -> ManagerBuilder {
        let builder = Manager::builder().linked(false).delay(Duration::from_millis(200)).workers(3);
        self.databases.iter().fold(builder, |builder, (name, dsn)| builder.database_as(name, dsn))
    }

    pub fn manager<A: Ability>(&self) -> (Manager, Log) {
        self.with(ManagerBuilder::ability::<A>)
    }

    pub fn with(&self, more: impl FnOnce(ManagerBuilder) -> ManagerBuilder) -> (Manager, Log) {
        let log = Log::default();
        let manager = more(self.builder()).plugin(log.clone()).build().expect("valid");
        (manager, log)
    }

    /// The name of the first database: where order within one database matters.
    pub fn first(&self) -> &str {
        &self.databases[0].0
    }

    /// The storage port of the first database.
    pub fn driver(&self) -> Arc<dyn Driver> {
        DriverRegistration::open_linked(&self.databases[0].1).expect("opened before").driver
    }
}

#[cfg(not(any(feature = "postgres", feature = "mysql")))]
const MIXED: &[&str] = &["sqlite", "memory", "sqlite"];
#[cfg(all(feature = "postgres", not(feature = "mysql")))]
const MIXED: &[&str] = &["sqlite", "postgres"];
#[cfg(all(feature = "mysql", not(feature = "postgres")))]
const MIXED: &[&str] = &["sqlite", "mariadb", "mysql"];
#[cfg(all(feature = "mysql", feature = "postgres"))]
const MIXED: &[&str] = &["sqlite", "postgres", "mariadb", "mysql"];

/// Whether this machine cannot have the engine today; see [`qudo_test_servers::given`].
fn is_left_out(engine: &str) -> bool {
    let server = ["postgres", "mariadb", "mysql"].contains(&engine);
    server && qudo_test_servers::given(engine).is_none()
}

fn fresh(engine: &str) -> (String, Box<dyn std::any::Any + Send + Sync>) {
    let unique = uuid::Uuid::now_v7().simple().to_string();
    match engine {
        "memory" => (format!("memory:{unique}"), Box::new(())),
        "sqlite" => {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let dsn = format!("sqlite:{}/jobs.db", directory.path().display());
            (dsn, Box::new(directory))
        }
        server => {
            let database = ServerDatabase::new(server, &format!("qudo_{unique}"));
            (database.dsn.clone(), Box::new(database))
        }
    }
}

struct DroppedAccount {
    beside: String,
    sql: String,
}

impl Drop for DroppedAccount {
    fn drop(&mut self) {
        if let Err(error) = qudo_test_servers::run_sql(&self.beside, &self.sql) {
            eprintln!("an account is left behind: {error}");
        }
    }
}

/// A database on a test server, dropped at the end.
struct ServerDatabase {
    server: String,
    name: String,
    dsn: String,
}

impl ServerDatabase {
    fn new(engine: &str, name: &str) -> Self {
        let given = |engine| qudo_test_servers::given(engine).expect("was looked at before");
        let server = given(if engine == "pooled" { "postgres" } else { engine });
        let mut dsn = qudo_test_servers::create_database(&server, name).expect("a fresh database");
        if engine == "pooled" {
            // Made beside the pooler, reached through it.
            let mut pooled = url::Url::parse(&given("pooler")).expect("a URL");
            pooled.set_path(name);
            // Also for a pooler that the developer named without it.
            pooled.set_query(Some("pooler=transaction"));
            dsn = pooled.into();
        }
        Self { server, name: name.to_owned(), dsn }
    }
}

impl Drop for ServerDatabase {
    fn drop(&mut self) {
        if let Err(error) = qudo_test_servers::drop_database(&self.server, &self.name) {
            eprintln!("{} is left behind: {error}", self.name);
        }
    }
}

/// Waits for a condition, with a deadline.
#[track_caller]
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Takes jobs back as a process does that saw these workers silent for long enough: all that were
/// silent for so long themselves, and leases past their end.
pub fn rescue_silent(driver: &dyn Driver, for_longer_than: Duration) -> Vec<Rescued> {
    let seen = driver.workers().expect("answers").into_iter();
    let silent = seen.filter(|one| one.silent > for_longer_than);
    let dead: Vec<_> =
        silent.map(|one| DeadWorker { id: one.info.id, seen_at: one.seen_at }).collect();
    driver.rescue(&dead, true, 10).expect("answers")
}

/// Works on the calling thread until nothing is ready.
pub fn drain(manager: &Manager) -> usize {
    let mut worked = 0;
    while manager.work_once().expect("works").is_some() {
        worked += 1;
    }
    worked
}
