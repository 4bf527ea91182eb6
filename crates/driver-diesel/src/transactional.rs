//! Enqueuing inside a transaction of the caller's own.

use qudo_core::driver::{Inserted, JobRecord};
use qudo_core::{Error, Manager, NewJob};
use qudo_hooks::JobId;

use crate::classify::to_driver_error;
use crate::engine::Engine;
use crate::statements::insert::insert_within;

mod sealed {
    pub trait Sealed {}
}

/// A diesel connection on which jobs can be enqueued: the caller's own, plain or pooled by r2d2.
pub trait Transactional: sealed::Sealed {
    /// Stores a job inside whatever transaction is open, and wakes workers at its commit.
    #[doc(hidden)]
    fn insert_job(&mut self, job: &JobRecord) -> diesel::QueryResult<Inserted>;
}

macro_rules! transactional {
    ($conn:ty, $engine:ty) => {
        impl sealed::Sealed for $conn {}

        impl Transactional for $conn {
            fn insert_job(&mut self, job: &JobRecord) -> diesel::QueryResult<Inserted> {
                let inserted = insert_within::<$engine>(self, std::slice::from_ref(job))?;
                <$engine>::notify_at_commit(self, &job.queue)?;
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
    fn insert_job(&mut self, job: &JobRecord) -> diesel::QueryResult<Inserted> {
        (**self).insert_job(job)
    }
}

/// Enqueue inside the caller's own diesel transaction.
pub trait EnqueueIn {
    /// Stores a job on the caller's connection: a commit makes it visible and wakes a worker, a
    /// rollback leaves nothing. The connection must be to a database that has qudo's tables;
    /// which one is the caller's business, so neither routing nor failover take part, and a
    /// unique key is unique in that database alone.
    ///
    /// Returns the id of the stored job, or of the live job that holds its unique key; `None` when
    /// a hook suppressed it. The `post_enqueue` hooks are not called, because the commit is yet to
    /// come.
    ///
    /// # Errors
    ///
    /// As [`Manager::enqueue`] before the insert, and whatever the connection answers.
    fn enqueue_in<C: Transactional>(
        &self,
        conn: &mut C,
        job: NewJob,
    ) -> Result<Option<JobId>, Error>;
}

impl EnqueueIn for Manager {
    fn enqueue_in<C: Transactional>(
        &self,
        conn: &mut C,
        job: NewJob,
    ) -> Result<Option<JobId>, Error> {
        let Some(record) = self.prepare_record(job)? else {
            return Ok(None);
        };
        let inserted = conn.insert_job(&record).map_err(|error| Error::Database {
            database: "of the caller's connection".to_owned(),
            action: "store a job in the caller's transaction",
            source: to_driver_error(error, false),
        })?;
        Ok(Some(match inserted {
            Inserted::New => record.id,
            Inserted::Existing(holder) => holder,
        }))
    }
}
