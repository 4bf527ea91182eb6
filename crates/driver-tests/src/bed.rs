//! Databases for one test each, and what tests share.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use qudo::driver::{DeadWorker, Departure, Driver, DriverRegistration, MovingJob, Rescued};
use qudo::{Ability, Manager, ManagerBuilder};

/// Every wait for a condition ends here.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// An empty database, for one test.
pub struct Fresh {
    /// The name by which the driver's registration opens it.
    pub dsn: String,
    /// What removes the database when it is dropped.
    pub guard: Box<dyn Any + Send + Sync>,
}

impl Fresh {
    /// A database that goes with its guard.
    pub fn new(dsn: impl Into<String>, guard: impl Any + Send + Sync) -> Self {
        Self { dsn: dsn.into(), guard: Box::new(guard) }
    }

    /// A store in memory.
    pub fn in_memory() -> Self {
        Self::new(format!("memory:{}", uuid::Uuid::now_v7()), ())
    }
}

impl fmt::Debug for Fresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fresh").field("dsn", &self.dsn).finish_non_exhaustive()
    }
}

/// The databases of one test: fresh, migrated, removed at the end.
pub struct Bed {
    /// Their names and data source names.
    pub databases: Vec<(String, String)>,
    local: fn() -> Fresh,
    guards: Vec<Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Bed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bed").field("databases", &self.databases).finish_non_exhaustive()
    }
}

impl Bed {
    /// A bed of one database of each of these, migrated; each is named by the word beside it.
    ///
    /// # Panics
    ///
    /// When one of them does not open or does not migrate.
    pub fn new(databases: impl IntoIterator<Item = (String, Fresh)>) -> Self {
        let bed = Self::unmigrated(databases);
        bed.builder().build().expect("valid").migrate().expect("migrates");
        bed
    }

    /// As [`new`](Self::new), without tables.
    pub fn unmigrated(databases: impl IntoIterator<Item = (String, Fresh)>) -> Self {
        let mut bed = Self { databases: Vec::new(), local: Fresh::in_memory, guards: Vec::new() };
        for (name, fresh) in databases {
            bed.databases.push((name, fresh.dsn));
            bed.guards.push(fresh.guard);
        }
        bed
    }

    /// Where tests get one more database that is [local](Driver::is_local), as a spool or to move jobs to;
    /// in memory if nobody says.
    #[must_use]
    pub fn with_local(self, local: fn() -> Fresh) -> Self {
        Self { local, ..self }
    }

    /// One more database of its own, that is local, without tables.
    pub(crate) fn spool(&self) -> Self {
        Self::unmigrated([("spool".to_owned(), (self.local)())])
    }

    /// One more database of its own, that is local, migrated.
    pub(crate) fn another(&self) -> Self {
        Self::new([("other".to_owned(), (self.local)())])
    }

    /// A manager's builder over the databases, without linked abilities, with short pauses.
    pub fn builder(&self) -> ManagerBuilder {
        let builder = Manager::builder().linked(false).delay(Duration::from_millis(200)).workers(3);
        self.databases.iter().fold(builder, |builder, (name, dsn)| builder.database_as(name, dsn))
    }

    /// A manager over them with one ability, and what it writes down.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with).
    pub fn manager<A: Ability>(&self) -> (Manager, Log) {
        self.with(ManagerBuilder::ability::<A>)
    }

    /// A manager over them with more, and what its abilities write down.
    ///
    /// # Panics
    ///
    /// When the builder refuses it.
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
    ///
    /// # Panics
    ///
    /// When no driver of its scheme is linked.
    pub fn driver(&self) -> Arc<dyn Driver> {
        DriverRegistration::open_linked(&self.databases[0].1).expect("opened before").driver
    }
}

/// What abilities write down for their test.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Adds a line.
    pub fn add(&self, line: impl Into<String>) {
        self.0.lock().expect("no panic while logging").push(line.into());
    }

    /// The lines, in order.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no panic while logging").clone()
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
pub fn run_all(manager: &Manager) -> usize {
    let mut worked = 0;
    while manager.work_once().expect("works").is_some() {
        worked += 1;
    }
    worked
}

/// The departures of jobs that were taken out.
pub fn departed(jobs: &[MovingJob]) -> Vec<Departure> {
    jobs.iter().map(MovingJob::departed).collect()
}
