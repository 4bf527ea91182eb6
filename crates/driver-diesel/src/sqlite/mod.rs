//! SQLite: WAL, `synchronous=FULL` but for claims, one writing connection per process and file, readers beside it.

mod checkup;
mod claim;
mod complete;
mod conn;
mod connect;
mod insert;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use diesel::SqliteConnection;
use diesel::result::{Error, QueryResult};
use qudo_core::driver::{
    AbilityLease, ClaimRequest, ClaimedJob, DriverError, DriverRegistration, Inserted, JobRecord,
    Name, NamedDriver, Password, Remark, WakeSource,
};
use uuid::Uuid;

use crate::classify::{Class, classify, classify_text, connect_error, to_driver_error};
use crate::clock::Window;
use crate::driver::DieselDriver;
use crate::engine::Engine;
use crate::options::Options;
use crate::pool::{IDLE_LIMIT, Pool, pause};
use crate::sql::Sql;
use crate::statements::insert::insert;
use crate::step::{Step, step};
use crate::tables::Tables;

/// Another process may hold the write lock for [`TURN`] in each of so many tries before we give up.
const MAX_TRIES: u32 = 6;

/// How long a thread that has its turn in this process waits for the lock of the file before others have
/// theirs.
const TURN: Duration = Duration::from_secs(5);

/// How often it asks for the lock, in microseconds. SQLite's own wait sleeps for up to 100 ms between two
/// looks, and whoever has just committed wins the lock again meanwhile: beside eight busy processes a ninth
/// waited 138 ms for each of its writes, and for one of them 5 s.
const ASK_EVERY: std::ops::Range<u64> = 300..1_000;

/// The engine of one SQLite file.
pub(crate) struct Sqlite {
    path: PathBuf,
    options: Options,
    writer: Mutex<Option<SqliteConnection>>,
    readers: Pool<SqliteConnection>,
    watcher: Mutex<Option<SqliteConnection>>,
    seen_version: AtomicI64,
    /// Queues whose last claim found nothing.
    empty: Mutex<HashSet<Name>>,
}

impl std::fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sqlite:{}", self.path.display())
    }
}

inventory::submit! { DriverRegistration { schemes: &["sqlite"], open: DieselDriver::<Sqlite>::open } }

impl DieselDriver<Sqlite> {
    /// Opens `sqlite:FILE`; the file is made when first written. Does not connect.
    ///
    /// # Errors
    ///
    /// When the name is malformed.
    #[expect(clippy::needless_pass_by_value, reason = "it has the signature of a registration")]
    pub(crate) fn open(dsn: &str, password: Option<Password>) -> Result<NamedDriver, String> {
        let (path, options) = connect::parse(dsn)?;
        if password.is_some() || options.password.is_some() {
            return Err("a file of SQLite has no password".to_owned());
        }
        let name = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .ok_or("the file's name is not UTF-8; give the database a name with database_as")?
            .to_owned()
            + &options.tables.suffix();
        let engine = Sqlite::at(path, options);
        Ok(NamedDriver { name, driver: Arc::new(Self::new(engine)) })
    }
}

impl Sqlite {
    fn at(path: PathBuf, options: Options) -> Self {
        // A program that changes its directory goes on with the same file.
        let path = std::path::absolute(&path).unwrap_or(path);
        let reading = path.clone();
        Self {
            writer: Mutex::default(),
            readers: Pool::new(IDLE_LIMIT, move || connect::reader(&reading)),
            watcher: Mutex::default(),
            seen_version: AtomicI64::new(-1),
            empty: Mutex::default(),
            path,
            options,
        }
    }

    /// Runs `act` on the one writing connection. The thread's turn comes with the mutex, so writers
    /// of this process never meet SQLite's own lock; only other processes do.
    fn with_writer<T>(
        &self,
        mut act: impl FnMut(&mut Sql<'_, SqliteConnection>) -> QueryResult<T>,
    ) -> Result<T, DriverError> {
        let mut tries = 0;
        loop {
            let mut writer = lock(&self.writer);
            // Taken out: a panic in an ability's own transaction closes the connection on its way,
            // which rolls back; left in its place it would hold the file's lock for ever.
            let mut conn = match writer.take() {
                Some(conn) => conn,
                None => match connect::writer(&self.path).and_then(own_waits) {
                    Ok(conn) => conn,
                    // Two processes that make a file WAL at the same moment: SQLite refuses one of
                    // them at once, whatever the busy timeout.
                    Err(error) if is_busy(&error) && tries < MAX_TRIES => {
                        drop(writer);
                        pause(tries);
                        tries += 1;
                        continue;
                    }
                    Err(error) => return Err(connect_error(&error)),
                },
            };
            let mut done = act(&mut Sql::new(&mut conn, self.tables()));
            let turn = Instant::now();
            while done.as_ref().is_err_and(is_locked) && turn.elapsed() < TURN {
                std::thread::sleep(Duration::from_micros(fastrand::u64(ASK_EVERY)));
                done = act(&mut Sql::new(&mut conn, self.tables()));
            }
            let class = done.as_ref().err().map(classify);
            if class != Some(Class::Down) {
                *writer = Some(conn);
            }
            let (error, class) = match (done, class) {
                (Ok(value), _) => return Ok(value),
                (Err(error), class) => (error, class.unwrap_or(Class::Other)),
            };
            match class {
                Class::Retry if tries < MAX_TRIES => {
                    drop(writer);
                    pause(tries);
                    tries += 1;
                }
                Class::Down => {
                    // A full disk or a read-only file rolls back and says so; only an I/O error
                    // can leave open whether the commit reached the disk.
                    let unknown = error.to_string().to_lowercase().contains("i/o");
                    return Err(to_driver_error(error, unknown));
                }
                _ => return Err(to_driver_error(error, false)),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Once it is open, a connection waits for the file's lock in our own way.
fn own_waits(mut conn: SqliteConnection) -> Result<SqliteConnection, String> {
    Sql::plain(&mut conn).batch("PRAGMA busy_timeout = 0").map_err(|error| error.to_string())?;
    Ok(conn)
}

/// Whether another process holds the file.
fn is_locked(error: &Error) -> bool {
    error.to_string().contains("is locked")
}

fn is_busy(connect_error: &str) -> bool {
    classify_text(&connect_error.to_lowercase()) == Class::Retry
}

/// Runs `act` in a transaction whose commit does not wait for the disk. The log keeps the order of
/// commits, so the next one that waits brings this one along: a power cut takes the last few of
/// these or none, never one from the middle.
fn unsynced<T>(
    conn: &mut Sql<'_, SqliteConnection>,
    act: impl FnOnce(&mut Sql<'_, SqliteConnection>) -> QueryResult<T>,
) -> QueryResult<T> {
    // Such a pragma acts when it is compiled, so a prepared one would act once.
    conn.batch("PRAGMA synchronous = NORMAL")?;
    let done = conn.transaction(act);
    // Were this to fail, the promises of other commits would be broken: not on this connection.
    conn.batch("PRAGMA synchronous = FULL").map_err(|_| Error::BrokenTransactionManager)?;
    done
}

impl Engine for Sqlite {
    const IS_LOCAL: bool = true;
    type Conn = SqliteConnection;

    const NAME: &'static str = "sqlite";
    // Milliseconds are all that SQLite's clock has.
    const NOW_STEP: i64 = 999;
    const NOW: &'static str = "CAST(unixepoch('subsec') * 1000000 AS INTEGER)";
    const BIG: &'static str = "INTEGER";
    // Every write is in a `BEGIN IMMEDIATE`, which holds the whole file.
    const FOR_UPDATE: &'static str = "";
    const CURRENT: &'static str = "";
    const SKIP_LOCKED: &'static str = "";
    const CAPPED_SUM: &'static str = "CAST(TOTAL({}) AS INTEGER)";
    const INSERT_IGNORE: (&'static str, &'static str) = ("INSERT", " ON CONFLICT DO NOTHING");

    fn migrations() -> &'static [Step] {
        const CREATE: Step = step!("sqlite", "2026-11-30-000002_create_tables", oldest: 1);
        const OPERATE: Step = step!("sqlite", "2026-11-30-000003_add_operations", oldest: 1);
        const NUMBERS: Step = step!("sqlite", "2026-11-30-000004_add_numbers", oldest: 1);
        const ENQUEUE: Step = step!("sqlite", "2026-11-30-000005_add_sql_enqueue", oldest: 1);
        const SENT: Step = step!("sqlite", "2026-11-30-000006_add_sent", oldest: 1);
        #[cfg(not(qudo_upgrade_test))]
        const ALL: &[Step] = &[CREATE, OPERATE, NUMBERS, ENQUEUE, SENT];
        #[cfg(qudo_upgrade_test)]
        const ALL: &[Step] = &[
            CREATE,
            OPERATE,
            NUMBERS,
            ENQUEUE,
            SENT,
            crate::step::ADD_A_COLUMN,
            crate::step::BREAK,
        ];
        crate::step::carried(ALL)
    }

    fn tables(&self) -> &Tables {
        &self.options.tables
    }

    fn strip(conn: &mut Sql<'_, SqliteConnection>) -> QueryResult<()> {
        checkup::refuse_callers(conn)
    }

    fn checkup(conn: &mut Sql<'_, SqliteConnection>) -> QueryResult<Vec<Remark>> {
        checkup::checkup(conn)
    }

    fn write<T>(
        &self,
        act: impl FnMut(&mut Sql<'_, SqliteConnection>) -> QueryResult<T>,
    ) -> Result<T, DriverError> {
        self.with_writer(act)
    }

    fn settle<T>(
        &self,
        mut act: impl FnMut(&mut Sql<'_, SqliteConnection>) -> QueryResult<T>,
    ) -> Result<T, DriverError> {
        self.with_writer(|conn| {
            if self.options.relaxed { unsynced(conn, &mut act) } else { conn.transaction(&mut act) }
        })
    }

    fn read<T>(
        &self,
        mut act: impl FnMut(&mut Sql<'_, SqliteConnection>) -> QueryResult<T>,
    ) -> Result<T, DriverError> {
        self.readers.with(false, |raw| act(&mut Sql::new(raw, self.tables())))
    }

    fn probe(&self) -> Result<(), DriverError> {
        let mut conn = connect::writer(&self.path).map_err(|error| connect_error(&error))?;
        // Takes the write lock and writes nothing that lasts: a full disk or a read-only file
        // shows itself only in a write, and with more than a page of cache nothing is written.
        Sql::plain(&mut conn)
            .batch(
                "PRAGMA cache_size = 1; BEGIN IMMEDIATE; CREATE TABLE qudo_probe (filler BLOB); \
             INSERT INTO qudo_probe VALUES (zeroblob(16384)); ROLLBACK;",
            )
            .map_err(|error| to_driver_error(error, false))
    }

    fn migrate_alone<T>(
        &self,
        mut act: impl FnMut(&mut Sql<'_, SqliteConnection>) -> QueryResult<T>,
    ) -> Result<T, DriverError> {
        self.with_writer(|conn| conn.transaction(&mut act))
    }

    fn describe(&self) -> String {
        format!("sqlite:{}{}", self.path.display(), self.tables().suffix())
    }

    /// The file's true path; of one that is not there yet, that of its directory with its name.
    fn place(&self) -> Option<String> {
        let whole = self.path.canonicalize();
        let place = whole.or_else(|_| {
            let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(std::path::Path::new(".")).canonicalize()?;
            std::io::Result::Ok(parent.join(self.path.file_name().unwrap_or_default()))
        });
        Some(format!("sqlite:{}{}", place.ok()?.display(), self.tables().suffix()))
    }

    fn is_made(&self) -> bool {
        !connect::is_missing(&self.path)
    }

    fn make_database(&self) -> Result<(), String> {
        connect::make(&self.path)
    }

    fn wake_source(&self) -> WakeSource {
        // Asking costs a look into shared memory, so it is asked often. What counts is the thread's
        // wake: a look at the log file's time of change instead gained nothing.
        WakeSource::Poll { at_most: Some(Duration::from_millis(9)) }
    }

    fn insert_new(
        conn: &mut Sql<'_, SqliteConnection>,
        jobs: &[&JobRecord],
        _: &Window,
    ) -> QueryResult<()> {
        insert::insert_new(conn, jobs)
    }

    fn insert_commit(
        &self,
        jobs: &[JobRecord],
        window: &Window,
    ) -> Result<(Vec<Inserted>, bool), DriverError> {
        self.with_writer(|conn| Ok((insert::<Self>(conn, jobs, window)?, false)))
    }

    fn claim(
        &self,
        request: &ClaimRequest<'_>,
        window: &Window,
        without: &[Uuid],
    ) -> Result<Vec<ClaimedJob>, DriverError> {
        // To be in vain costs every process the file's lock at each enqueue of anybody. A queue that was
        // empty is looked at first.
        let was_empty = lock(&self.empty).contains(request.queue);
        if was_empty && !self.read(|conn| claim::has_ready(conn, request, without))? {
            return Ok(Vec::new());
        }
        // A claim that a power cut forgets harms nobody: the job is ready again.
        let jobs = self.with_writer(|conn| {
            unsynced(conn, |conn| {
                let jobs = claim::claim(conn, request, without)?;
                window.check()?;
                Ok(jobs)
            })
        })?;
        if jobs.is_empty() {
            lock(&self.empty).insert(request.queue.clone());
        } else if was_empty {
            lock(&self.empty).remove(request.queue);
        }
        Ok(jobs)
    }

    fn complete(
        &self,
        worker: &Uuid,
        ids: &[Uuid],
        claims: &[i64],
    ) -> Result<Vec<Uuid>, DriverError> {
        self.settle(|conn| complete::complete(conn, worker, ids, claims))
    }

    fn take_leases(
        conn: &mut Sql<'_, SqliteConnection>,
        worker: &Uuid,
        leases: &[(Uuid, i64)],
    ) -> QueryResult<Option<HashSet<(Uuid, i64)>>> {
        let held = complete::take_leases(conn, worker, leases)?;
        let pairs = |(claim, ids): (i64, Vec<Uuid>)| ids.into_iter().map(move |id| (id, claim));
        Ok(Some(held.into_iter().flat_map(pairs).collect()))
    }

    fn remove_facts(conn: &mut Sql<'_, SqliteConnection>, ids: &[Uuid]) -> QueryResult<usize> {
        complete::remove_facts(conn, ids)
    }

    /// `data_version` changes when any other connection committed, the ones of other processes
    /// included: no table is read.
    fn changed(&self, _: &[&str], _: &[AbilityLease]) -> Result<bool, DriverError> {
        let mut watcher = lock(&self.watcher);
        let conn = match &mut *watcher {
            Some(conn) => conn,
            none => {
                let conn = connect::reader(&self.path).map_err(|error| connect_error(&error))?;
                none.insert(conn)
            }
        };
        match Sql::plain(conn).row::<i64>("PRAGMA data_version", &[]) {
            Ok(version) => {
                let version = version.unwrap_or_default();
                Ok(self.seen_version.swap(version, Ordering::Relaxed) != version)
            }
            Err(error) => {
                *watcher = None;
                Err(to_driver_error(error, false))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use diesel::result::Error;

    use qudo_core::driver::{Admin as _, Driver as _, ErrorKind, SchemaState};

    use super::{Options, Sqlite, connect, unsynced};
    use crate::driver::DieselDriver;
    use crate::engine::Engine;
    use crate::sql::Sql;

    #[test]
    fn a_look_at_a_file_that_is_not_there_makes_none_and_a_migration_does() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let path = place.path().join("jobs.db");
        let driver = DieselDriver::new(Sqlite::at(path.clone(), Options::default()));
        assert!(matches!(driver.schema(), Ok(SchemaState::Behind(_))));
        let read = driver.control().expect_err("it is not there");
        let written = driver.identity().expect_err("it is not there");
        for error in [read, written] {
            assert_eq!(error.kind(), ErrorKind::Schema);
            assert!(error.to_string().contains("qudo migrate"), "{error}");
        }
        assert!(driver.probe().is_err() && !path.exists(), "nobody made it");
        driver.migrate(false).expect("migrates");
        assert!(matches!(driver.schema(), Ok(SchemaState::Current)) && path.exists());
    }

    #[test]
    fn a_file_stays_the_same_when_the_program_changes_its_directory() {
        let engine = Sqlite::at("jobs.db".into(), Options::default());
        assert_eq!(engine.path, std::env::current_dir().expect("there is one").join("jobs.db"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_migration_says_why_it_could_not_make_the_file() {
        let driver = DieselDriver::new(Sqlite::at("/sys/jobs.db".into(), Options::default()));
        let error = driver.migrate(false).expect_err("nobody makes files there");
        assert!(error.to_string().contains("cannot make the file /sys/jobs.db"), "{error}");
    }

    #[test]
    fn settles_wait_for_the_disk_unless_told_otherwise() {
        let place = tempfile::tempdir().expect("a temporary directory");
        for (relaxed, level) in [(false, 2), (true, 1)] {
            let options = Options { relaxed, ..Options::default() };
            let engine = Sqlite::at(place.path().join("jobs.db"), options);
            engine.make_database().expect("may be made");
            let within = engine.settle(|conn| conn.row::<i64>("PRAGMA synchronous", &[]));
            assert_eq!(within.expect("commits"), Some(level));
        }
    }

    #[test]
    fn a_commit_that_does_not_wait_leaves_the_next_ones_as_durable_as_before() {
        let place = tempfile::tempdir().expect("a temporary directory");
        let path = place.path().join("jobs.db");
        connect::make(&path).expect("may be made");
        let mut raw = connect::writer(&path).expect("opens");
        let conn = &mut Sql::plain(&mut raw);
        let level = "PRAGMA synchronous";
        for _ in 0..2 {
            let within = unsynced(conn, |conn| conn.row::<i64>(level, &[])).expect("commits");
            assert_eq!(within, Some(1), "NORMAL");
            assert_eq!(conn.row::<i64>(level, &[]).expect("reads"), Some(2), "FULL");
        }
        unsynced::<()>(conn, |_| Err(Error::RollbackTransaction)).expect_err("fails");
        assert_eq!(conn.row::<i64>(level, &[]).expect("reads"), Some(2), "FULL");
    }
}
