//! For those who write an adapter to another library: a job on its way into a transaction of the caller's.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use qudo_core::driver::{Driver, DriverError, Due, ErrorKind, JobRecord};
use qudo_core::{Enqueued, Error, Manager, ManagerInside, NewJob};
use qudo_hooks::JobId;
use uuid::Uuid;

use crate::engine::micros;
use crate::tables::Tables;

/// The language of the connection that an adapter has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// PostgreSQL; placeholders are `$1` and so on.
    Postgres,
    /// MySQL and MariaDB; placeholders are `?`.
    Mysql,
    /// SQLite; placeholders are `?`.
    Sqlite,
}

/// The statement of PostgreSQL, which is its own question.
const ON_POSTGRES: &str = "SELECT CAST(s.id AS TEXT) AS id, CAST(CAST(s.is_new AS INTEGER) AS BIGINT) AS is_new \
    FROM qudo_store_1(CAST(CAST($1 AS TEXT) AS UUID), $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) s";

const ON_MYSQL: &str = "CALL qudo_store_1(UNHEX(REPLACE(?, '-', '')), ?, ?, ?, ?, ?, ?, ?, ?, ?, @job_of_qudo_#, @new_of_qudo_#)";

const QUESTION_ON_MYSQL: &str =
    "SELECT LOWER(HEX(@job_of_qudo_#)) AS id, CAST(@new_of_qudo_# AS SIGNED) AS is_new";

const ON_SQLITE: &str = "INSERT INTO qudo_store_1 \
    (id, ability, queue, codec, arg, priority, run_at, after, uniqkey, meta) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// Of this job: outside of a transaction another may have been stored since.
const QUESTION_ON_SQLITE: &str = "SELECT id, is_new FROM qudo_enqueued WHERE asked = x'";

/// A job that has passed the hooks and is encoded, and that an adapter stores on a connection of its caller's.
///
/// The adapter runs [`statement`](Self::statement) with the [`values`](Self::values); then it runs
/// [`question`](Self::question), if there is one, on the same connection, and nothing in between. One row comes back: the
/// id as text and whether the job is new as an integer of 64 bits, for [`stored`](Self::stored); no row is an error. On MySQL and MariaDB
/// the connection has to be in a transaction. On SQLite it should be: outside of one, another job may be stored between statement and question,
/// and then no row comes back although the job is stored.
///
/// ```no_run
/// use qudo_core::{Enqueued, Error, Manager, NewJob};
/// use qudo_driver_diesel::adapter::{Dialect, Outgoing, Values}; // `qudo::adapter`
/// # struct Theirs;
/// # impl Theirs { fn query_one(&self, sql: &str, values: &Values<'_>) -> std::io::Result<(String, i64)> { Err(std::io::Error::other("not connected")) } }
///
/// fn enqueue_on(conn: &Theirs, manager: &Manager, job: NewJob) -> Result<Enqueued, Error> {
///     let Some(job) = Outgoing::prepare(manager, Dialect::Postgres, job)? else {
///         return Ok(Enqueued::Suppressed);
///     };
///     let row = conn.query_one(&job.statement(), &job.values());
///     let (id, is_new) = row.map_err(|error| job.failed(error))?;
///     job.stored(&id, is_new)
/// }
/// ```
pub struct Outgoing<R = serde_json::Value> {
    manager: Manager,
    record: JobRecord,
    database: Option<String>,
    dialect: Dialect,
    tables: Tables,
    /// Which variables of a session of MySQL's have the answer: two calls may be under way in one transaction. Few, so that a
    /// session does not gather them.
    slot: u8,
    reply: PhantomData<fn() -> R>,
}

impl<R> fmt::Debug for Outgoing<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("id", &self.record.id)
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}

/// What the placeholders stand for, in the order of the fields; PostgreSQL has one more, `notify`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Values<'a> {
    /// The id; as text with dashes on PostgreSQL and MySQL, as 16 bytes on SQLite.
    pub id: Uuid,
    /// The ability's name.
    pub ability: &'a str,
    /// The queue.
    pub queue: &'a str,
    /// The codec.
    pub codec: &'a str,
    /// The argument as its codec wrote it.
    pub arg: &'a [u8],
    /// The priority.
    pub priority: i32,
    /// When the job is due, in microseconds since 1970.
    pub run_at: Option<i64>,
    /// After how many microseconds of the database's clock it is due, where `run_at` is `None`.
    pub after: i64,
    /// The unique key; as bytes on MySQL.
    pub uniqkey: Option<&'a str>,
    /// The metadata, a JSON object as text.
    pub meta: Option<&'a str>,
    /// Whether the commit wakes workers; for PostgreSQL alone.
    pub notify: bool,
}

impl fmt::Debug for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, ability, queue, .. } = self;
        f.debug_struct("Values")
            .field("id", id)
            .field("ability", ability)
            .field("queue", queue)
            .finish_non_exhaustive()
    }
}

impl<R> Outgoing<R> {
    /// Runs the `pre_enqueue` hooks and encodes the argument; `None` if the job is suppressed. Asks no database.
    ///
    /// # Errors
    ///
    /// As [`Manager::enqueue`] before the insert, and [`Error::InvalidOption`] where it cannot be told whose tables are meant:
    /// the manager has several databases of this dialect with different `schema` or `table_prefix`, and
    /// [`NewJob::database`] names none of them.
    pub fn prepare(
        manager: &Manager,
        dialect: Dialect,
        job: NewJob<R>,
    ) -> Result<Option<Self>, Error> {
        static SLOT: AtomicU8 = AtomicU8::new(0);
        let database = job.chosen_database().map(str::to_owned);
        let drivers = manager.drivers(database.as_deref())?;
        let tables = tables(dialect, &drivers, database.is_some())?;
        let record = manager.prepare_record(job)?;
        let manager = manager.clone();
        Ok(record.map(|record| Self {
            manager,
            record,
            database,
            dialect,
            tables,
            slot: SLOT.fetch_add(1, Ordering::Relaxed),
            reply: PhantomData,
        }))
    }

    /// The id that the job has if it is new.
    pub fn id(&self) -> JobId {
        self.record.id
    }

    /// The statement that stores the job; on PostgreSQL it returns the row.
    pub fn statement(&self) -> String {
        let sql = match self.dialect {
            Dialect::Postgres => ON_POSTGRES,
            Dialect::Mysql => ON_MYSQL,
            Dialect::Sqlite => ON_SQLITE,
        };
        self.numbered(sql)
    }

    /// With this installation's names, and variables that are those of this call alone.
    fn numbered(&self, sql: &str) -> String {
        self.tables.render(sql).replace('#', &self.slot.to_string())
    }

    /// The statement that returns the row, without placeholders; `None` on PostgreSQL.
    pub fn question(&self) -> Option<String> {
        let sql = match self.dialect {
            Dialect::Postgres => return None,
            Dialect::Mysql => QUESTION_ON_MYSQL,
            Dialect::Sqlite => {
                let asked = self.tables.render(QUESTION_ON_SQLITE);
                return Some(format!("{asked}{}'", self.record.id.as_uuid().simple()));
            }
        };
        Some(self.numbered(sql))
    }

    /// The values of the statement's placeholders.
    pub fn values(&self) -> Values<'_> {
        let facts = &self.record.facts;
        let (run_at, after) = match self.record.due {
            Due::Now => (None, 0),
            Due::At(at) => (Some(at.timestamp_micros()), 0),
            Due::In(after) => (None, micros(after)),
        };
        Values {
            id: *self.record.id.as_uuid(),
            ability: &facts.ability,
            queue: &facts.queue,
            codec: &facts.codec,
            arg: &facts.arg,
            priority: facts.priority,
            run_at,
            after,
            uniqkey: facts.uniqkey.as_deref(),
            meta: facts.meta.as_deref(),
            notify: self.manager.notifies_in_transactions(),
        }
    }

    /// What the row means. Runs the `post_enqueue_in` hooks for a job that is new.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] when the id is none, or is new and another job's: the row is of another statement.
    pub fn stored(self, id: &str, is_new: i64) -> Result<Enqueued<R>, Error> {
        let Ok(id) = Uuid::parse_str(id) else {
            return Err(self.failed(format!("the answer {id:?} is no id")));
        };
        if is_new != 0 && id != *self.record.id.as_uuid() {
            return Err(self.failed(format!("the answer is of another job, {id}")));
        }
        let ticket = self.manager.ticket(JobId::from_uuid(id)).typed();
        if is_new == 0 {
            return Ok(Enqueued::Existing(ticket));
        }
        self.manager.stored_in_transaction(&self.record, self.database.as_deref());
        Ok(Enqueued::New(ticket))
    }

    /// The error of the caller's connection as one of qudo's, with its cause.
    pub fn failed(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        let source = source.into();
        // Some libraries say no more than that there was an error, and leave the rest to its source.
        let mut text = source.to_string();
        let mut cause = source.source();
        while let Some(deeper) = cause {
            let words = deeper.to_string();
            if !text.contains(&words) {
                text.push_str(": ");
                text.push_str(&words);
            }
            cause = deeper.source();
        }
        Error::Database {
            database: "of the caller's connection".to_owned(),
            action: "store a job in the caller's transaction",
            source: DriverError::new(ErrorKind::Other, text).with_source(source),
        }
    }
}

/// How the tables are named on a connection of this dialect.
fn tables(dialect: Dialect, drivers: &[Arc<dyn Driver>], is_named: bool) -> Result<Tables, Error> {
    let wrong = |reason: &str| {
        let reason = reason.to_owned();
        Err(Error::InvalidOption { option: "database", reason })
    };
    let mut all = drivers.iter().filter_map(|driver| tables_of(dialect, &**driver));
    let Some(first) = all.next() else {
        if is_named {
            return wrong(
                "the database that NewJob::database names is not of the connection's kind",
            );
        }
        return Ok(Tables::DEFAULT.clone());
    };
    if all.all(|other| other == first) {
        return Ok(first.clone());
    }
    wrong(
        "the tables of this manager's databases are named differently; say with NewJob::database which of them the \
         connection is to",
    )
}

#[cfg_attr(
    not(any(feature = "sqlite", feature = "postgres", feature = "mysql")),
    expect(unused_variables, reason = "no engine is built in")
)]
fn tables_of(dialect: Dialect, driver: &dyn Driver) -> Option<&Tables> {
    #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
    use crate::transactional::tables_of_driver as of;
    match dialect {
        #[cfg(feature = "postgres")]
        Dialect::Postgres => of::<crate::postgres::Postgres>(driver),
        #[cfg(feature = "mysql")]
        Dialect::Mysql => of::<crate::mysql::Mysql>(driver),
        #[cfg(feature = "sqlite")]
        Dialect::Sqlite => of::<crate::sqlite::Sqlite>(driver),
        #[cfg(not(all(feature = "sqlite", feature = "postgres", feature = "mysql")))]
        _ => None,
    }
}
