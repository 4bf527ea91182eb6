#![doc = include_str!("../README.md")]

use qudo::adapter::{Dialect, Outgoing};
use qudo::{Enqueued, Error, Manager, NewJob};
use rusqlite::{Connection, params};

/// Enqueue in a transaction of rusqlite's.
pub trait EnqueueIn {
    /// Stores a job on the caller's connection, which may be a `Transaction`: a commit makes it visible; a rollback leaves nothing. Hooks and codecs are
    /// applied as by [`Manager::enqueue`]; `post_enqueue` hooks are not called, because the commit is yet to come, those of
    /// `post_enqueue_in` are.
    ///
    /// The file has to have qudo's tables. Which one it is, is the caller's business: neither routing nor failover take part, and
    /// a unique key is unique in that file alone. Blocks while another connection writes, for as long as the
    /// connection's `busy_timeout` says.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] outside of a transaction, in which alone the answer is this job's for sure.
    ///
    /// As [`Manager::enqueue`] before the insert, [`Error::InvalidOption`] where it cannot be told whose tables are meant, and
    /// [`Error::Database`] with rusqlite's error as its source.
    fn enqueue_in<R>(&self, conn: &Connection, job: NewJob<R>) -> Result<Enqueued<R>, Error>;
}

impl EnqueueIn for Manager {
    fn enqueue_in<R>(&self, conn: &Connection, job: NewJob<R>) -> Result<Enqueued<R>, Error> {
        let Some(job) = Outgoing::prepare(self, Dialect::Sqlite, job)? else {
            return Ok(Enqueued::Suppressed);
        };
        if conn.is_autocommit() {
            return Err(job.failed("the connection is in no transaction: begin one"));
        }
        match store(conn, &job) {
            Ok((id, is_new)) => job.stored(&id, is_new),
            Err(error) => Err(job.failed(error)),
        }
    }
}

fn store<R>(conn: &Connection, job: &Outgoing<R>) -> rusqlite::Result<(String, i64)> {
    let values = job.values();
    conn.prepare_cached(&job.statement())?.execute(params![
        &values.id.as_bytes()[..],
        values.ability,
        values.queue,
        values.codec,
        values.arg,
        values.priority,
        values.run_at,
        values.after,
        values.uniqkey,
        values.meta,
    ])?;
    let question = job.question().unwrap_or_default();
    conn.prepare_cached(&question)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
}
