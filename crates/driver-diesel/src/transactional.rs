//! Enqueuing inside a transaction of the caller's own, and completing a job inside its effect's.

use std::fmt;
use std::sync::Arc;

use qudo_core::driver::{Driver, Inserted, JobRecord, Settled, Settlement, WorkerId};
use qudo_core::{Enqueued, Error, Job, JobError, JobInside, Manager, ManagerInside, NewJob};
use qudo_hooks::{Encodable, JobId};

use crate::classify::to_driver_error;
use crate::driver::DieselDriver;
use crate::engine::Engine;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
use crate::sql::Sql;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
use crate::statements::insert::insert_within;
use crate::statements::settle::settle;
use crate::tables::Tables;

mod sealed {
    pub trait Sealed {}
}

/// A diesel connection on which jobs can be enqueued: the caller's own, plain or pooled by r2d2.
pub trait Transactional: sealed::Sealed {
    /// Stores a job inside whatever transaction is open; with `notify` its commit wakes workers.
    #[doc(hidden)]
    fn insert_job(
        &mut self,
        job: &JobRecord,
        target: Target<'_>,
        notify: bool,
    ) -> Result<Inserted, NotInserted>;
}

/// Why a job is not stored on a caller's connection.
#[doc(hidden)]
#[derive(Debug)]
pub enum NotInserted {
    /// The connection's own error.
    Failed(diesel::result::Error),
    /// The databases of the connection's engine have tables of different names.
    Ambiguous,
    /// The database that was named is of another engine.
    OtherEngine,
}

impl From<diesel::result::Error> for NotInserted {
    fn from(error: diesel::result::Error) -> Self {
        Self::Failed(error)
    }
}

/// Where a job may go.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub enum Target<'a> {
    /// To the database of this driver, by its name.
    Named(&'a dyn Driver),
    /// To any of these.
    Any(&'a [Arc<dyn Driver>]),
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(driver) => f.debug_tuple("Named").field(&driver.describe()).finish(),
            Self::Any(drivers) => {
                let all: Vec<_> = drivers.iter().map(|driver| driver.describe()).collect();
                f.debug_tuple("Any").field(&all).finish()
            }
        }
    }
}

/// How the tables are named on a connection to such a database. If no database of the manager has the
/// connection's engine, they have the names of the default.
fn tables_of<E: Engine>(target: Target<'_>) -> Result<&Tables, NotInserted> {
    match target {
        Target::Named(driver) => tables_of_driver::<E>(driver).ok_or(NotInserted::OtherEngine),
        Target::Any(drivers) => {
            let mut all = drivers.iter().filter_map(|driver| tables_of_driver::<E>(&**driver));
            let Some(first) = all.next() else { return Ok(Tables::DEFAULT) };
            if all.all(|other| other == first) { Ok(first) } else { Err(NotInserted::Ambiguous) }
        }
    }
}

/// How the tables of a driver are named, if it is one of this engine.
pub(crate) fn tables_of_driver<E: Engine>(driver: &dyn Driver) -> Option<&Tables> {
    let any: &dyn std::any::Any = driver;
    any.downcast_ref::<DieselDriver<E>>().map(|driver| driver.engine.tables())
}

macro_rules! transactional {
    ($conn:ty, $engine:ty) => {
        impl sealed::Sealed for $conn {}

        impl Transactional for $conn {
            fn insert_job(
                &mut self,
                job: &JobRecord,
                target: Target<'_>,
                notify: bool,
            ) -> Result<Inserted, NotInserted> {
                let conn = &mut Sql::new(self, tables_of::<$engine>(target)?);
                let inserted = insert_within::<$engine>(conn, std::slice::from_ref(job))?;
                if notify {
                    <$engine>::notify_at_commit(conn, &job.facts.queue)?;
                }
                Ok(inserted[0])
            }
        }
    };
}

#[cfg(feature = "sqlite")]
transactional!(diesel::SqliteConnection, crate::sqlite::Sqlite);
#[cfg(feature = "postgres")]
transactional!(diesel::PgConnection, crate::postgres::Postgres);
#[cfg(feature = "mysql")]
transactional!(diesel::MysqlConnection, crate::mysql::Mysql);

impl<M> sealed::Sealed for r2d2::PooledConnection<M>
where
    M: r2d2::ManageConnection,
    M::Connection: Transactional,
{
}

impl<M> Transactional for r2d2::PooledConnection<M>
where
    M: r2d2::ManageConnection,
    M::Connection: Transactional,
{
    fn insert_job(
        &mut self,
        job: &JobRecord,
        target: Target<'_>,
        notify: bool,
    ) -> Result<Inserted, NotInserted> {
        (**self).insert_job(job, target, notify)
    }
}

/// Enqueue inside the caller's own diesel transaction.
pub trait EnqueueIn {
    /// Stores a job on the caller's connection: a commit makes it visible and wakes a worker, a
    /// rollback leaves nothing. The connection must be to a database that has qudo's tables;
    /// which one is the caller's business, so neither routing nor failover take part, and a
    /// unique key is unique in that database alone. Where the manager's databases of this engine differ in
    /// `schema` or `table_prefix`, [`NewJob::database`] says whose tables are meant; where it has no database of
    /// this engine, it is the default's.
    ///
    /// On SQLite begin with `immediate_transaction` and set a `busy_timeout` on the connection:
    /// a transaction that reads before it writes cannot wait for the file's lock.
    ///
    /// On PostgreSQL the commit sends a NOTIFY, which takes a lock of the whole server for a moment;
    /// with [`notify_in_transactions(false)`](qudo_core::ManagerBuilder::notify_in_transactions)
    /// workers find the job at their next look instead.
    ///
    /// Answers what [`Manager::enqueue`] answers. Before the commit nobody finds the job, so its ticket answers
    /// [`Standing::Unknown`](qudo_core::Standing::Unknown) until then, and ever after if the transaction is rolled back, or if the
    /// job is gone without a trace before the ticket looked. The
    /// `post_enqueue` hooks are not called, because the commit is yet to come; those of `post_enqueue_in` are.
    ///
    /// # Errors
    ///
    /// As [`Manager::enqueue`] before the insert, [`Error::InvalidOption`] where it cannot be told whose tables are
    /// meant, and whatever the connection answers.
    fn enqueue_in<C: Transactional, R>(
        &self,
        conn: &mut C,
        job: NewJob<R>,
    ) -> Result<Enqueued<R>, Error>;
}

impl EnqueueIn for Manager {
    fn enqueue_in<C: Transactional, R>(
        &self,
        conn: &mut C,
        job: NewJob<R>,
    ) -> Result<Enqueued<R>, Error> {
        let named = job.chosen_database().map(str::to_owned);
        let drivers = self.drivers(named.as_deref())?;
        let Some(record) = self.prepare_record(job)? else {
            return Ok(Enqueued::Suppressed);
        };
        let notify = self.notifies_in_transactions();
        let target = match &drivers[..] {
            [one] if named.is_some() => Target::Named(&**one),
            all => Target::Any(all),
        };
        let inserted = conn.insert_job(&record, target, notify).map_err(|error| match error {
            NotInserted::Failed(error) => Error::Database {
                database: "of the caller's connection".to_owned(),
                action: "store a job in the caller's transaction",
                source: to_driver_error(error, false),
            },
            NotInserted::Ambiguous => Error::InvalidOption {
                option: "database",
                reason: "the tables of this manager's databases are named differently; say with \
                         NewJob::database which of them the connection is to"
                    .to_owned(),
            },
            NotInserted::OtherEngine => Error::InvalidOption {
                option: "database",
                reason: "the database that NewJob::database names is not of the connection's kind"
                    .to_owned(),
            },
        })?;
        Ok(match inserted {
            Inserted::New => {
                self.stored_in_transaction(&record, named.as_deref());
                Enqueued::New(self.ticket(record.id).typed())
            }
            Inserted::Existing(holder) => Enqueued::Existing(self.ticket(holder).typed()),
        })
    }
}

/// A diesel connection that an ability can ask its job's database for.
pub trait JobConnection: Sized + sealed::Sealed {
    /// Runs `act` and the settlement in one transaction. Returns the replacements that are not stored.
    #[doc(hidden)]
    fn settle_with(
        driver: &dyn Driver,
        completion: &mut dyn FnMut() -> Result<(WorkerId, Settlement), Error>,
        act: &mut dyn FnMut(&mut Self) -> Result<(), JobError>,
    ) -> Result<Vec<JobId>, JobError>;
}

/// One transaction: the ability's effect, then the guarded end of the job. A lease that was lost
/// rolls the effect back, so that only the run that ends the job leaves a trace.
fn settle_with<E: Engine>(
    driver: &dyn Driver,
    completion: &mut dyn FnMut() -> Result<(WorkerId, Settlement), Error>,
    act: &mut dyn FnMut(&mut E::Conn) -> Result<(), JobError>,
) -> Result<Vec<JobId>, JobError> {
    let any: &dyn std::any::Any = driver;
    let Some(driver) = any.downcast_ref::<DieselDriver<E>>() else {
        let message = format!("the job's database is {}, not {}", driver.engine(), E::NAME);
        return Err(JobError::fail(message));
    };
    let (mut refused, mut queues, mut without) = (None, Vec::new(), Vec::new());
    let done = driver.engine.write(|conn| {
        conn.nestable(|conn| {
            E::hold_plans(conn, false)?;
            if let Err(error) = act(conn.raw) {
                refused = Some(error);
                return Err(diesel::result::Error::RollbackTransaction);
            }
            E::hold_plans(conn, true)?;
            let (worker, settlement) = match completion() {
                Ok(settlement) => settlement,
                Err(error) => {
                    refused = Some(error.into());
                    return Err(diesel::result::Error::RollbackTransaction);
                }
            };
            let replacements = settlement.extras.iter().flat_map(|extras| &extras.replacements);
            queues = replacements.map(|job| job.facts.queue.clone()).collect();
            let answers = settle::<E>(conn, worker.as_uuid(), &[settlement])?;
            without = answers.iter().flat_map(Settled::without).copied().collect();
            if !answers.iter().all(Settled::is_done) {
                refused =
                    Some(JobError::fail("the lease was lost; the transaction is rolled back"));
                return Err(diesel::result::Error::RollbackTransaction);
            }
            Ok(())
        })
    });
    match (done, refused) {
        (Ok(()), _) => {
            driver.engine.notify(&mut queues.iter().map(AsRef::as_ref));
            Ok(without)
        }
        (Err(_), Some(refused)) => Err(refused),
        (Err(error), None) => Err(error.into()),
    }
}

macro_rules! job_connection {
    ($conn:ty, $engine:ty) => {
        impl JobConnection for $conn {
            fn settle_with(
                driver: &dyn Driver,
                completion: &mut dyn FnMut() -> Result<(WorkerId, Settlement), Error>,
                act: &mut dyn FnMut(&mut Self) -> Result<(), JobError>,
            ) -> Result<Vec<JobId>, JobError> {
                settle_with::<$engine>(driver, completion, act)
            }
        }
    };
}

#[cfg(feature = "sqlite")]
job_connection!(diesel::SqliteConnection, crate::sqlite::Sqlite);
#[cfg(feature = "postgres")]
job_connection!(diesel::PgConnection, crate::postgres::Postgres);
#[cfg(feature = "mysql")]
job_connection!(diesel::MysqlConnection, crate::mysql::Mysql);

/// Exactly-once effects: complete the job in the transaction of its effect.
pub trait CompleteIn {
    /// Runs `act` on a connection to the job's own database and completes the job in the same
    /// transaction: a commit has both, a crash or an error before it has neither. The value is the
    /// reply, written there too; the ability returns it.
    ///
    /// `act` may be called again after a deadlock. It should be short: on SQLite it holds the one
    /// writing connection, and inside it jobs are enqueued with
    /// [`enqueue_in`](EnqueueIn::enqueue_in), not with `enqueue`. What the ability does after the
    /// commit is not undone if it fails.
    ///
    /// # Errors
    ///
    /// The error of `act`, or the database's; nothing is written then, and the ability's rule
    /// decides about a retry. When the job's database is of another engine than `C`.
    fn complete_in<C: JobConnection, R: serde::Serialize + 'static>(
        &self,
        act: impl FnMut(&mut C) -> Result<R, JobError>,
    ) -> Result<R, JobError>;
}

impl CompleteIn for Job {
    fn complete_in<C: JobConnection, R: serde::Serialize + 'static>(
        &self,
        mut act: impl FnMut(&mut C) -> Result<R, JobError>,
    ) -> Result<R, JobError> {
        let value = std::cell::RefCell::new(None);
        let silent = std::any::TypeId::of::<R>() == std::any::TypeId::of::<()>();
        let without = C::settle_with(
            self.driver(),
            &mut || {
                let value = value.borrow();
                let reply = value.as_ref().filter(|_| !silent);
                self.completion(reply.map(|value: &R| Encodable::new(value)))
            },
            &mut |conn| {
                *value.borrow_mut() = Some(act(conn)?);
                Ok(())
            },
        )?;
        self.mark_completed(&without);
        value.into_inner().ok_or_else(|| JobError::fail("the transaction left no value"))
    }
}
