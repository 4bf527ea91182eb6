#![doc = include_str!("../README.md")]

use std::future::Future;

use qudo::adapter::{Dialect, Outgoing, Values};
use qudo::{Enqueued, Error, Manager, NewJob};
use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, QueryResult, Statement, Value,
};

/// Enqueue in a transaction of SeaORM's.
pub trait EnqueueIn {
    /// Stores a job in the caller's transaction: a commit makes it visible, and on PostgreSQL wakes a worker; a rollback leaves
    /// nothing. Hooks and codecs are applied as by [`Manager::enqueue`]; `post_enqueue` hooks are not called, because the
    /// commit is yet to come, those of `post_enqueue_in` are.
    ///
    /// The transaction has to be of a database that has qudo's tables. Which one is the caller's business: neither routing nor failover
    /// take part, and a unique key is unique in that database alone.
    ///
    /// Await one enqueue of a transaction after the other: on MySQL, MariaDB and SQLite an enqueue is two statements, and on SQLite another's between
    /// them is an error.
    ///
    /// # Errors
    ///
    /// As [`Manager::enqueue`] before the insert, [`Error::InvalidOption`] where it cannot be told whose tables are meant, and
    /// [`Error::Database`] with SeaORM's error as its source, also for a backend that qudo does not know.
    fn enqueue_in<R>(
        &self,
        transaction: &DatabaseTransaction,
        job: NewJob<R>,
    ) -> impl Future<Output = Result<Enqueued<R>, Error>> + Send;
}

impl EnqueueIn for Manager {
    fn enqueue_in<R>(
        &self,
        transaction: &DatabaseTransaction,
        job: NewJob<R>,
    ) -> impl Future<Output = Result<Enqueued<R>, Error>> + Send {
        let backend = transaction.get_database_backend();
        let dialect = match backend {
            DbBackend::MySql => Some(Dialect::Mysql),
            DbBackend::Postgres => Some(Dialect::Postgres),
            DbBackend::Sqlite => Some(Dialect::Sqlite),
            _ => None,
        };
        let prepared = match dialect {
            Some(dialect) => Outgoing::prepare(self, dialect, job),
            None => Err(Error::InvalidOption {
                option: "transaction",
                reason: format!("qudo has no tables on {backend:?}"),
            }),
        };
        async move {
            let Some(job) = prepared? else { return Ok(Enqueued::Suppressed) };
            match store(transaction, backend, &job).await {
                Ok((id, is_new)) => job.stored(&id, is_new),
                Err(error) => Err(job.failed(error)),
            }
        }
    }
}

async fn store<R>(
    transaction: &DatabaseTransaction,
    backend: DbBackend,
    job: &Outgoing<R>,
) -> Result<(String, i64), DbErr> {
    let values = values(backend, &job.values());
    let statement = Statement::from_sql_and_values(backend, job.statement(), values);
    let row = match job.question() {
        None => transaction.query_one_raw(statement).await?,
        Some(question) => {
            transaction.execute_raw(statement).await?;
            transaction.query_one_raw(Statement::from_string(backend, question)).await?
        }
    };
    answer(row.as_ref())
}

fn answer(row: Option<&QueryResult>) -> Result<(String, i64), DbErr> {
    let row = row.ok_or_else(|| DbErr::RecordNotFound("the answer".to_owned()))?;
    Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?))
}

fn values(backend: DbBackend, values: &Values<'_>) -> Vec<Value> {
    let text = |text: &str| Value::from(text.to_owned());
    let optional = |text: Option<&str>| Value::from(text.map(str::to_owned));
    let id = match backend {
        DbBackend::Sqlite => Value::from(values.id.as_bytes().to_vec()),
        _ => text(&values.id.to_string()),
    };
    let uniqkey = match backend {
        DbBackend::MySql => Value::from(values.uniqkey.map(|key| key.as_bytes().to_vec())),
        _ => optional(values.uniqkey),
    };
    let mut all = vec![
        id,
        text(values.ability),
        text(values.queue),
        text(values.codec),
        Value::from(values.arg.to_vec()),
        Value::from(values.priority),
        Value::from(values.run_at),
        Value::from(values.after),
        uniqkey,
        optional(values.meta),
    ];
    if backend == DbBackend::Postgres {
        all.push(Value::from(values.notify));
    }
    all
}
