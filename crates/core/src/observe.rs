//! What a manager tells an observer: every step of every job, with times. For histories that are
//! checked afterwards, and for anything that hooks, which belong to abilities, do not see.

use std::sync::Arc;

use qudo_hooks::JobId;

use crate::driver::{ClaimedJob, JobRecord, Settled, Verdict, WorkerId};
use crate::tools::time::SystemTime;

/// Gets the steps of all jobs that a manager enqueues and works.
///
/// It is called on the thread that does the step, so it should be quick; a panic is caught and
/// logged. Without an observer a step costs one comparison.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn observe(&self, event: &Event<'_>);
}

impl<O: Observer> Observer for Arc<O> {
    fn observe(&self, event: &Event<'_>) {
        O::observe(self, event);
    }
}

/// A step in the life of a job.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// An enqueue was answered: this job is stored.
    #[non_exhaustive]
    Enqueued {
        /// The job.
        job: &'a JobRecord,
        /// Where it is stored.
        database: &'a str,
        /// Databases that may have stored the job before, although their answer was lost: the job
        /// may run once more than it should.
        doubtful: &'a [&'a str],
        /// Whether two live jobs may have the key, as [`UniqPolicy::Available`](crate::UniqPolicy)
        /// allows.
        key_may_double: bool,
        /// When the enqueue began.
        begun: SystemTime,
    },
    /// An enqueue failed, and the job may be stored or not.
    #[non_exhaustive]
    Uncertain {
        /// The job.
        job: JobId,
        /// Where it may be stored.
        database: &'a str,
    },
    /// A waiting job was removed without a run: dequeued, or dropped by the spool.
    #[non_exhaustive]
    Dropped {
        /// The job.
        job: JobId,
    },
    /// A claim was answered.
    #[non_exhaustive]
    Claimed {
        /// Who claimed.
        worker: WorkerId,
        /// From where.
        database: &'a str,
        /// From which queue.
        queue: &'a str,
        /// What was claimed, in order.
        jobs: &'a [ClaimedJob],
        /// When the claim began.
        begun: SystemTime,
    },
    /// A run begins.
    #[non_exhaustive]
    Started {
        /// Who runs it.
        worker: WorkerId,
        /// Where the job is stored.
        database: &'a str,
        /// The job.
        job: &'a ClaimedJob,
    },
    /// A run ended; its outcome is not stored yet.
    #[non_exhaustive]
    Finished {
        /// Who ran it.
        worker: WorkerId,
        /// Where the job is stored.
        database: &'a str,
        /// The job.
        job: JobId,
        /// Which run it was.
        attempt: i32,
        /// The outcome's word, as in the job status.
        outcome: &'static str,
    },
    /// The database answered to a settlement.
    #[non_exhaustive]
    Settled {
        /// Who settled.
        worker: WorkerId,
        /// Where the job is or was stored.
        database: &'a str,
        /// The job.
        job: JobId,
        /// Which run it was.
        attempt: i32,
        /// What was to become of the job.
        verdict: Verdict,
        /// The answer; `None` when an earlier answer was lost and this one says nothing.
        answer: Option<Settled>,
    },
}
