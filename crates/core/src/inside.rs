//! What drivers need of a manager and of a job at work, apart from what users see of them.

use std::sync::Arc;

use qudo_hooks::{Encodable, JobId};

use crate::driver::{Driver, JobRecord, Settlement, WorkerId};
use crate::error::Error;
use crate::new_job::NewJob;

/// What drivers need of a [`Manager`](crate::Manager).
pub trait ManagerInside {
    /// Hooks and encoding for a job that is stored by other means than [`enqueue`](crate::Manager::enqueue):
    /// in the caller's own transaction, or in place of a running job. `None` when suppressed.
    ///
    /// # Errors
    ///
    /// As [`enqueue`](crate::Manager::enqueue), before the insert.
    fn prepare_record<R>(&self, job: NewJob<R>) -> Result<Option<JobRecord>, Error>;

    /// Tells the hooks that a job was stored in a transaction of the caller's, which is not committed yet; `database` is the name
    /// that the job gave.
    fn stored_in_transaction(&self, record: &JobRecord, database: Option<&str>);

    /// The drivers that a job may go to: that of the database of this name, or those of all databases; the spool is
    /// none of them.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownDatabase`].
    fn drivers(&self, database: Option<&str>) -> Result<Vec<Arc<dyn Driver>>, Error>;

    /// What [`notify_in_transactions`](crate::ManagerBuilder::notify_in_transactions) says.
    fn notifies_in_transactions(&self) -> bool;
}

/// What drivers need of a [`Job`](crate::Job) at work.
pub trait JobInside {
    /// The storage of the job's database, for extensions that work inside it.
    fn driver(&self) -> &dyn Driver;

    /// For drivers that complete the job inside a transaction of its own: who settles, and the
    /// settlement with all that was sent and replaced so far and one more reply.
    ///
    /// # Errors
    ///
    /// When the reply or a replacement cannot be encoded.
    fn completion(&self, reply: Option<Encodable<'_>>) -> Result<(WorkerId, Settlement), Error>;

    /// The transaction that completed the job is committed, but without these replacements,
    /// whose unique keys live jobs hold.
    fn mark_completed(&self, without: &[JobId]);
}
