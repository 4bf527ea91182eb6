#![doc = include_str!("../README.md")]

use std::future::Future;

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text};
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
use diesel_async::RunQueryDsl;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
use qudo::adapter::Values;
use qudo::adapter::{Dialect, Outgoing};
use qudo::{Enqueued, Error, Manager, NewJob};

mod sealed {
    pub trait Sealed {}
}

/// The answer of a statement.
#[derive(diesel::QueryableByName)]
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
struct Row {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = BigInt)]
    is_new: i64,
}

/// A connection of diesel-async's on which jobs can be stored: `AsyncPgConnection`, `AsyncMysqlConnection` and
/// `SyncConnectionWrapper<SqliteConnection>`, each with its feature.
pub trait JobConnection: sealed::Sealed + Send {
    /// The dialect of its statements.
    #[doc(hidden)]
    const DIALECT: Dialect;

    /// Stores a job; returns the row of the answer.
    #[doc(hidden)]
    fn store<R>(
        &mut self,
        job: &Outgoing<R>,
    ) -> impl Future<Output = diesel::QueryResult<(String, i64)>> + Send;
}

/// Enqueue in a transaction of diesel-async's.
pub trait EnqueueIn {
    /// Stores a job on the caller's connection: a commit makes it visible, and on PostgreSQL wakes a worker; a rollback leaves
    /// nothing. Hooks and codecs are applied as by [`Manager::enqueue`]; `post_enqueue` hooks are not called, because the
    /// commit is yet to come, those of `post_enqueue_in` are.
    ///
    /// The connection has to be to a database that has qudo's tables. Which one is the caller's business: neither routing nor failover
    /// take part, and a unique key is unique in that database alone. On MySQL and MariaDB it has to be in a transaction, on SQLite it
    /// should be: outside of one, another's enqueue may come in between, and then this is an error although the job is stored.
    ///
    /// # Errors
    ///
    /// As [`Manager::enqueue`] before the insert, [`Error::InvalidOption`] where it cannot be told whose tables are meant, and
    /// [`Error::Database`] with diesel's error as its source.
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

/// A query with the values, of which id and key differ in type.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
macro_rules! query {
    ($job:expr, $id:ty, $id_value:expr, $key:ty, $key_value:expr) => {{
        let values = $job.values();
        diesel::sql_query($job.statement())
            .bind::<$id, _>($id_value(&values))
            .bind::<Text, _>(values.ability.to_owned())
            .bind::<Text, _>(values.queue.to_owned())
            .bind::<Text, _>(values.codec.to_owned())
            .bind::<Binary, _>(values.arg.to_vec())
            .bind::<Integer, _>(values.priority)
            .bind::<Nullable<BigInt>, _>(values.run_at)
            .bind::<BigInt, _>(values.after)
            .bind::<Nullable<$key>, _>(values.uniqkey.map($key_value))
            .bind::<Nullable<Text>, _>(values.meta.map(str::to_owned))
    }};
}

#[cfg(feature = "postgres")]
impl sealed::Sealed for diesel_async::AsyncPgConnection {}

#[cfg(feature = "postgres")]
impl JobConnection for diesel_async::AsyncPgConnection {
    const DIALECT: Dialect = Dialect::Postgres;

    async fn store<R>(&mut self, job: &Outgoing<R>) -> diesel::QueryResult<(String, i64)> {
        let notify = job.values().notify;
        let query =
            query!(job, Text, |values: &Values<'_>| values.id.to_string(), Text, str::to_owned)
                .bind::<diesel::sql_types::Bool, _>(notify);
        let row: Row = query.get_result(self).await?;
        Ok((row.id, row.is_new))
    }
}

#[cfg(feature = "mysql")]
impl sealed::Sealed for diesel_async::AsyncMysqlConnection {}

#[cfg(feature = "mysql")]
impl JobConnection for diesel_async::AsyncMysqlConnection {
    const DIALECT: Dialect = Dialect::Mysql;

    async fn store<R>(&mut self, job: &Outgoing<R>) -> diesel::QueryResult<(String, i64)> {
        let query =
            query!(job, Text, |values: &Values<'_>| values.id.to_string(), Binary, |key| key
                .as_bytes()
                .to_vec());
        query.execute(self).await?;
        let question = diesel::sql_query(job.question().unwrap_or_default());
        let row: Row = question.get_result(self).await?;
        Ok((row.id, row.is_new))
    }
}

#[cfg(feature = "sqlite")]
type AsyncSqliteConnection =
    diesel_async::sync_connection_wrapper::SyncConnectionWrapper<diesel::SqliteConnection>;

#[cfg(feature = "sqlite")]
impl sealed::Sealed for AsyncSqliteConnection {}

#[cfg(feature = "sqlite")]
impl JobConnection for AsyncSqliteConnection {
    const DIALECT: Dialect = Dialect::Sqlite;

    async fn store<R>(&mut self, job: &Outgoing<R>) -> diesel::QueryResult<(String, i64)> {
        let query = query!(
            job,
            Binary,
            |values: &Values<'_>| values.id.as_bytes().to_vec(),
            Text,
            str::to_owned
        );
        query.execute(self).await?;
        let question = diesel::sql_query(job.question().unwrap_or_default());
        let row: Row = question.get_result(self).await?;
        Ok((row.id, row.is_new))
    }
}
