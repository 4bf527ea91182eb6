#![doc = include_str!("../README.md")]

use std::future::Future;

use qudo::adapter::{Dialect, Outgoing};
use qudo::{Enqueued, Error, Manager, NewJob};
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

/// Enqueue in a transaction of tokio-postgres's.
pub trait EnqueueIn {
    /// Stores a job on the caller's connection, a `Client` or a `Transaction`: a commit makes it visible and wakes a worker; a rollback leaves
    /// nothing. Hooks and codecs are applied as by [`Manager::enqueue`]; `post_enqueue` hooks are not called, because the
    /// commit is yet to come, those of `post_enqueue_in` are.
    ///
    /// The connection has to be to a database that has qudo's tables. Which one is the caller's business: neither routing nor failover
    /// take part, and a unique key is unique in that database alone.
    ///
    /// One round trip, without a prepared statement, so that a transaction pooler may stand between.
    ///
    /// # Errors
    ///
    /// As [`Manager::enqueue`] before the insert, [`Error::InvalidOption`] where it cannot be told whose tables are meant, and
    /// [`Error::Database`] with tokio-postgres's error as its source.
    fn enqueue_in<C: GenericClient + Sync, R>(
        &self,
        conn: &C,
        job: NewJob<R>,
    ) -> impl Future<Output = Result<Enqueued<R>, Error>> + Send;
}

impl EnqueueIn for Manager {
    fn enqueue_in<C: GenericClient + Sync, R>(
        &self,
        conn: &C,
        job: NewJob<R>,
    ) -> impl Future<Output = Result<Enqueued<R>, Error>> + Send {
        let prepared = Outgoing::prepare(self, Dialect::Postgres, job);
        async move {
            let Some(job) = prepared? else { return Ok(Enqueued::Suppressed) };
            match store(conn, &job).await {
                Ok((id, is_new)) => job.stored(&id, is_new),
                Err(error) => Err(job.failed(error)),
            }
        }
    }
}

async fn store<C: GenericClient + Sync, R>(
    conn: &C,
    job: &Outgoing<R>,
) -> Result<(String, i64), tokio_postgres::Error> {
    let values = job.values();
    let rows = conn
        .query_typed(
            &job.statement(),
            &[
                (&values.id.to_string(), Type::TEXT),
                (&values.ability, Type::TEXT),
                (&values.queue, Type::TEXT),
                (&values.codec, Type::TEXT),
                (&values.arg, Type::BYTEA),
                (&values.priority, Type::INT4),
                (&values.run_at, Type::INT8),
                (&values.after, Type::INT8),
                (&values.uniqkey, Type::TEXT),
                (&values.meta, Type::TEXT),
                (&values.notify, Type::BOOL),
            ],
        )
        .await?;
    // A function without a set returns one row.
    match rows.first() {
        Some(row) => Ok((row.try_get(0)?, row.try_get(1)?)),
        None => Ok((String::new(), 0)),
    }
}
