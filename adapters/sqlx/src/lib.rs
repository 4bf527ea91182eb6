#![doc = include_str!("../README.md")]

use std::future::Future;

use qudo::adapter::{Dialect, Outgoing};
use qudo::{Enqueued, Error, Manager, NewJob};
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
use sqlx::{AssertSqlSafe, Row};

mod sealed {
    pub trait Sealed {}
}

/// A connection of sqlx's on which jobs can be stored: `PgConnection`, `MySqlConnection` and `SqliteConnection`, each
/// with its feature. A transaction and a pooled connection are borrowed as one with `&mut *tx`.
pub trait JobConnection: sealed::Sealed + Send {
    /// The dialect of its statements.
    #[doc(hidden)]
    const DIALECT: Dialect;

    /// Stores a job; returns the row of the answer.
    #[doc(hidden)]
    fn store<R>(
        &mut self,
        job: &Outgoing<R>,
    ) -> impl Future<Output = Result<(String, i64), sqlx::Error>> + Send;
}

/// Enqueue in a transaction of sqlx's.
pub trait EnqueueIn {
    /// Stores a job on the caller's connection: a commit makes it visible, and on PostgreSQL wakes a worker; a rollback leaves
    /// nothing. Hooks and codecs are applied as by [`Manager::enqueue`]; `post_enqueue` hooks are not called, because the
    /// commit is yet to come, those of `post_enqueue_in` are.
    ///
    /// The connection has to be to a database that has qudo's tables. Which one is the caller's business: neither routing nor failover
    /// take part, and a unique key is unique in that database alone. On MySQL and MariaDB it has to be in a transaction, on SQLite it
    /// should be: outside of one, another's enqueue may come in between, and then this is an error although the job is stored.
    ///
    /// Awaits the connection and nothing else; the manager's own connections take no part.
    ///
    /// # Errors
    ///
    /// As [`Manager::enqueue`] before the insert, [`Error::InvalidOption`] where it cannot be told whose tables are meant, and
    /// [`Error::Database`] with sqlx's error as its source.
    fn enqueue_in<C: JobConnection, R>(
        &self,
        conn: &mut C,
        job: NewJob<R>,
    ) -> impl Future<Output = Result<Enqueued<R>, Error>> + Send;
}

impl EnqueueIn for Manager {
    fn enqueue_in<C: JobConnection, R>(
        &self,
        conn: &mut C,
        job: NewJob<R>,
    ) -> impl Future<Output = Result<Enqueued<R>, Error>> + Send {
        let prepared = Outgoing::prepare(self, C::DIALECT, job);
        async move {
            let Some(job) = prepared? else { return Ok(Enqueued::Suppressed) };
            match conn.store(&job).await {
                Ok((id, is_new)) => job.stored(&id, is_new),
                Err(error) => Err(job.failed(error)),
            }
        }
    }
}

#[cfg(feature = "postgres")]
impl sealed::Sealed for sqlx::PgConnection {}

#[cfg(feature = "postgres")]
impl JobConnection for sqlx::PgConnection {
    const DIALECT: Dialect = Dialect::Postgres;

    async fn store<R>(&mut self, job: &Outgoing<R>) -> Result<(String, i64), sqlx::Error> {
        let values = job.values();
        let row = sqlx::query(AssertSqlSafe(job.statement()))
            .bind(values.id.to_string())
            .bind(values.ability)
            .bind(values.queue)
            .bind(values.codec)
            .bind(values.arg)
            .bind(values.priority)
            .bind(values.run_at)
            .bind(values.after)
            .bind(values.uniqkey)
            .bind(values.meta)
            .bind(values.notify)
            .fetch_one(self)
            .await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }
}

#[cfg(feature = "mysql")]
impl sealed::Sealed for sqlx::MySqlConnection {}

#[cfg(feature = "mysql")]
impl JobConnection for sqlx::MySqlConnection {
    const DIALECT: Dialect = Dialect::Mysql;

    async fn store<R>(&mut self, job: &Outgoing<R>) -> Result<(String, i64), sqlx::Error> {
        let values = job.values();
        sqlx::query(AssertSqlSafe(job.statement()))
            .bind(values.id.to_string())
            .bind(values.ability)
            .bind(values.queue)
            .bind(values.codec)
            .bind(values.arg)
            .bind(values.priority)
            .bind(values.run_at)
            .bind(values.after)
            .bind(values.uniqkey.map(str::as_bytes))
            .bind(values.meta)
            .execute(&mut *self)
            .await?;
        let question = job.question().unwrap_or_default();
        let row = sqlx::query(AssertSqlSafe(question)).fetch_one(self).await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }
}

#[cfg(feature = "sqlite")]
impl sealed::Sealed for sqlx::SqliteConnection {}

#[cfg(feature = "sqlite")]
impl JobConnection for sqlx::SqliteConnection {
    const DIALECT: Dialect = Dialect::Sqlite;

    async fn store<R>(&mut self, job: &Outgoing<R>) -> Result<(String, i64), sqlx::Error> {
        let values = job.values();
        sqlx::query(AssertSqlSafe(job.statement()))
            .bind(&values.id.as_bytes()[..])
            .bind(values.ability)
            .bind(values.queue)
            .bind(values.codec)
            .bind(values.arg)
            .bind(values.priority)
            .bind(values.run_at)
            .bind(values.after)
            .bind(values.uniqkey)
            .bind(values.meta)
            .execute(&mut *self)
            .await?;
        let question = job.question().unwrap_or_default();
        let row = sqlx::query(AssertSqlSafe(question)).fetch_one(self).await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }
}
