//! The storage port: what the manager asks of a database.
//!
//! A driver stores jobs and answers questions about them; every decision is the
//! manager's. All methods take `&self` and may be called from many threads at
//! once; they block. The driver limits every connect and checkout; how long a
//! call may take as a whole is the manager's affair, which leaves one that hangs.

mod audit;
mod control;
mod error;
mod keep;
mod listing;
mod moving;
mod password;
mod record;
mod registration;

pub use audit::{Audit, KeyRow, Place, StrayCursor, Strays, Traces};
pub use control::{Bounded, Control, ControlFlag, Depth};
pub use error::{DriverError, ErrorKind};
pub use keep::{Keep, Purged};
pub use listing::{
    CountRow, Exception, ExceptionFilter, JobFilter, JobInfo, JobState, Redrive, ReplyRow,
    StatusRow,
};
pub use moving::{Leg, Moves, MovingJob};
pub use password::{Password, PasswordError};
pub use qudo_hooks::Due;
pub use record::{
    AbilityLease, ClaimRequest, ClaimedJob, DeadWorker, Deadline, ExceptionRecord, Extras,
    Inserted, JobRecord, Promotion, ReplyRecord, Rescued, Settled, Settlement, StatusRecord,
    Verdict, WorkerId, WorkerInfo, WorkerSeen,
};
pub use registration::{DriverRegistration, NamedDriver};

use std::time::Duration;

use qudo_hooks::JobId;

/// A schema compared with what this driver knows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemaState {
    /// Every migration is applied.
    Current,
    /// These migrations are not applied yet; all of them when the schema is missing.
    Behind(Vec<String>),
    /// The database has migrations that this driver does not know: it is newer.
    Ahead(Vec<String>),
}

/// How a driver learns of work that another process enqueued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WakeSource {
    /// [`Driver::listen`] blocks until the database says so.
    Listen,
    /// [`Driver::changed`] is asked, seldom when idle for long, never slower than this.
    Poll {
        /// The longest pause between two questions; `None` leaves it to the manager's `delay`.
        at_most: Option<Duration>,
    },
}

/// What [`Driver::listen`] reports.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wake {
    /// The connection is up: whatever came before it must be looked for.
    Connected,
    /// Something was enqueued to this queue.
    Queue(String),
    /// Nothing happened for a while; a chance to stop.
    Tick,
}

/// One database that stores jobs.
///
/// # Contract
///
/// * Every method is atomic: after an error nothing of it is stored, unless the error
///   [is ambiguous](DriverError::is_ambiguous), when all or nothing is.
/// * Deadlocks, lock waits, busy and serialization errors are retried inside the driver.
/// * "Now" is the database's clock.
/// * An id is in exactly one of: ready, scheduled, leased, moving.
pub trait Driver: Moves + Audit + std::any::Any + Send + Sync + 'static {
    /// The engine's name for logs and reports: `sqlite`, `postgres`, `mysql`, `memory`.
    fn engine(&self) -> &'static str;

    /// The data source for logs and reports, without a password.
    fn describe(&self) -> String;

    /// How work of other processes is noticed.
    fn wake_source(&self) -> WakeSource;

    /// Where the data lies, if that can be told without asking anybody: two drivers of one place are
    /// one database.
    fn place(&self) -> Option<String> {
        None
    }

    /// Whether a call may have to wait for something outside the process. Such calls are made on
    /// threads that can be given up.
    fn may_block(&self) -> bool {
        true
    }

    /// Gives up the connections in use: calls under way may never return. Later calls connect anew.
    fn reset(&self) {}

    /// Connects on a connection of its own and checks that the database takes writes.
    ///
    /// # Errors
    ///
    /// The reason why the database is not usable now.
    fn probe(&self) -> Result<(), DriverError>;

    /// Compares the schema with the migrations that the driver carries. Reads only.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn schema(&self) -> Result<SchemaState, DriverError>;

    /// Applies the missing migrations; returns their names. Concurrent migrators wait for each other.
    ///
    /// # Errors
    ///
    /// When the database does not answer, is newer, or a migration fails.
    fn migrate(&self) -> Result<Vec<String>, DriverError>;

    /// Reverts every migration, newest first; returns their names. All jobs are lost.
    ///
    /// # Errors
    ///
    /// When the database does not answer or a migration fails.
    fn revert(&self) -> Result<Vec<String>, DriverError>;

    /// Stores jobs durably, all or none; answers one for one.
    ///
    /// Idempotent by job id: repeating an insert whose answer was lost stores nothing twice.
    /// A job whose (ability, uniqkey) is held by another live job is not stored.
    /// Wakes listeners of other processes after the commit.
    ///
    /// After the deadline nothing is stored, also by a statement that was sent before and is executed
    /// only then.
    ///
    /// # Errors
    ///
    /// When nothing was stored, or nobody knows ([ambiguous](DriverError::is_ambiguous)).
    fn insert(&self, jobs: &[JobRecord], deadline: Deadline) -> Result<Vec<Inserted>, DriverError>;

    /// Leases at most `limit` ready jobs of one queue, in the order (priority descending, id).
    ///
    /// Rows locked by another claim are skipped, not waited for. No job is given to two workers.
    /// A claim that the database forgets in a crash harms nobody, so it need not be durable.
    /// After the deadline nothing is leased. A row whose facts are missing is passed over, and
    /// told as an error in the log: nobody could run it.
    ///
    /// # Errors
    ///
    /// After an ambiguous error the caller calls [`release_claim`](Self::release_claim).
    fn claim(&self, request: &ClaimRequest<'_>) -> Result<Vec<ClaimedJob>, DriverError>;

    /// Returns to ready whatever this worker leased under this claim number, attempt unspent.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn release_claim(&self, worker: WorkerId, claim: i64) -> Result<usize, DriverError>;

    /// Moves at most `limit` due jobs from scheduled to ready, and tells when the next is due.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn promote_due(&self, limit: u32) -> Result<Promotion, DriverError>;

    /// Ends runs: completes, retries, snoozes, discards, gives back; answers one for one.
    ///
    /// Every settlement is guarded by (id, worker, claim): where the lease is no longer held
    /// nothing changes and the answer is [`Settled::LeaseLost`]. Therefore repeating is harmless.
    ///
    /// # Errors
    ///
    /// When nothing was settled, or nobody knows.
    fn settle(
        &self,
        worker: WorkerId,
        settlements: &[Settlement],
    ) -> Result<Vec<Settled>, DriverError>;

    /// Says that the worker process lives. Returns whether its row was there; `false` on the
    /// first call, and after the process was declared dead and lost its leases.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn heartbeat(&self, worker: &WorkerInfo) -> Result<bool, DriverError>;

    /// Takes leases back: those of these workers, unless they were heard of since; those whose
    /// worker has no row; and, if `expired`, those past their end. The jobs are ready again, the
    /// attempt spent, with a row in the exception log. At most `limit` jobs a call. The row of a
    /// dead worker goes with its last lease.
    ///
    /// Who is dead is the manager's decision: a silence may be the database's own.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn rescue(
        &self,
        dead: &[DeadWorker],
        expired: bool,
        limit: u32,
    ) -> Result<Vec<Rescued>, DriverError>;

    /// Removes a worker process that stops, and returns its remaining leases to ready, unspent.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn remove_worker(&self, worker: WorkerId) -> Result<usize, DriverError>;

    /// The worker processes that have a row.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn workers(&self) -> Result<Vec<WorkerSeen>, DriverError>;

    /// A live job by id.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn lookup(&self, id: JobId) -> Result<Option<JobInfo>, DriverError>;

    /// Where a live job stands; `None` when it is not live. Reads no facts.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn state(&self, id: JobId) -> Result<Option<JobState>, DriverError>;

    /// The live job that holds a unique key.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn holder(&self, ability: &str, uniqkey: &str) -> Result<Option<JobId>, DriverError>;

    /// Live jobs by filter, in the order of their ids.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn list(&self, filter: &JobFilter) -> Result<Vec<JobInfo>, DriverError>;

    /// Live jobs counted by queue, ability and state.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn count(&self) -> Result<Vec<CountRow>, DriverError>;

    /// How many live jobs there are, each number counted up to `bound`.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn depth(&self, bound: u64) -> Result<Depth, DriverError>;

    /// An id of the database itself, made at the first call and kept ever after.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn identity(&self) -> Result<uuid::Uuid, DriverError>;

    /// The orders that are stored here, with the database's identity.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn control(&self) -> Result<Control, DriverError>;

    /// Stores an order, or removes it; not after the deadline.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn set_control(
        &self,
        flag: ControlFlag,
        on: bool,
        deadline: Deadline,
    ) -> Result<(), DriverError>;

    /// Removes a live job that is not running; tells whether it did.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn dequeue(&self, id: JobId) -> Result<bool, DriverError>;

    /// Changes when a waiting job runs; tells whether it did (running jobs are left alone).
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn reschedule(&self, id: JobId, due: Due) -> Result<bool, DriverError>;

    /// The exception log, newest first.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn exceptions(&self, filter: &ExceptionFilter) -> Result<Vec<Exception>, DriverError>;

    /// Enqueues a discarded job again from the exception log, under the new id, once.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn redrive(&self, exception: uuid::Uuid, new: JobId) -> Result<Redrive, DriverError>;

    /// The history of a job whose ability asks for it, oldest first.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn status(&self, job: JobId) -> Result<Vec<StatusRow>, DriverError>;

    /// The replies of a finished job, in order.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn replies(&self, job: JobId) -> Result<Vec<ReplyRow>, DriverError>;

    /// Removes what is older than it is kept, about `limit` rows of each kind a call. Rows that another
    /// removes at the same time are passed over.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn purge(&self, keep: &Keep, limit: u32) -> Result<Purged, DriverError>;

    /// Whether these queues may have work for these abilities since the last call; cheap, for
    /// [`WakeSource::Poll`].
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn changed(&self, queues: &[&str], abilities: &[AbilityLease]) -> Result<bool, DriverError>;

    /// Blocks and reports wake-ups until `on_wake` returns `false` or the connection breaks,
    /// for [`WakeSource::Listen`]. Others return at once.
    ///
    /// # Errors
    ///
    /// When the connection cannot be made or breaks; the caller calls again.
    fn listen(&self, on_wake: &mut dyn FnMut(Wake) -> bool) -> Result<(), DriverError> {
        let _ = on_wake;
        Ok(())
    }
}
