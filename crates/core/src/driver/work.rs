use uuid::Uuid;

use super::{
    ClaimRequest, ClaimedJob, DeadWorker, Deadline, DriverError, Inserted, JobClaim, JobRecord,
    Keep, Promotion, Purged, Rescued, Settled, Settlement, StatRow, WorkerId, WorkerInfo,
    WorkerSeen,
};

/// The life of a job from its insert to its end, and of the processes that work.
///
/// # Errors
///
/// When the database does not answer or refuses: nothing was done, unless the error
/// [is ambiguous](DriverError::is_ambiguous).
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Work {
    /// Stores jobs durably, all or none; returns one answer for each job, in order.
    ///
    /// Idempotent by job id: repeating an insert whose answer was lost stores nothing twice.
    /// A job whose (ability, uniqkey) is held by another live job is not stored.
    /// Wakes listeners of other processes after the commit.
    ///
    /// After the deadline nothing is stored, not even by a statement that was sent before the
    /// deadline and is executed after it.
    ///
    /// # Errors
    ///
    /// When nothing was stored, or it is not known whether the jobs are stored
    /// ([ambiguous](DriverError::is_ambiguous)).
    fn insert(&self, jobs: &[JobRecord], deadline: Deadline) -> Result<Vec<Inserted>, DriverError>;

    /// Whether two claims of one process at the same time bring more jobs than one claim after the other.
    /// If so, a second claim is made beside the first while there is a backlog, if a job takes less time
    /// than a claim.
    fn claims_side_by_side(&self) -> bool {
        false
    }

    /// Leases at most `limit` ready jobs of one queue, in the order (priority descending, id).
    ///
    /// Rows locked by another claim are skipped, not waited for. No job is given to two workers. A claim may
    /// find fewer jobs than are ready, and none only if it is not [thorough](ClaimRequest::thorough).
    /// A claim that the database loses in a crash does no harm, so it need not be durable. After the
    /// deadline nothing is leased. A row whose facts are missing is passed over and logged as an error,
    /// because no worker could run it.
    ///
    /// # Errors
    ///
    /// After an ambiguous error the caller calls [`release_claim`](Self::release_claim).
    fn claim(&self, request: &ClaimRequest<'_>) -> Result<Vec<ClaimedJob>, DriverError>;

    /// Leases this job if it waits, ready or scheduled, whatever its queue and its ability: for somebody who runs it by hand.
    /// `None` if it does not wait, because it runs, moves, or is gone. Under the same number it may be asked again, and
    /// then answers with the lease that there is.
    ///
    /// # Errors
    ///
    /// After an ambiguous error the caller calls [`release_claim`](Self::release_claim).
    fn claim_job(&self, claim: &JobClaim) -> Result<Option<ClaimedJob>, DriverError>;

    /// Returns to ready whatever this worker leased under this claim number, attempt unspent. Wakes listeners of
    /// other processes after the commit, as whatever gives a job back does.
    fn release_claim(&self, worker: WorkerId, claim: i64) -> Result<usize, DriverError>;

    /// Moves about `limit` due jobs from scheduled to ready, and tells when the next is due.
    fn promote_due(&self, limit: u32) -> Result<Promotion, DriverError>;

    /// Ends runs: completes, retries, snoozes, discards, gives back; returns one answer for each run, in
    /// order. A job that is to run again after a delay of zero is ready immediately, without a promotion.
    ///
    /// Every settlement is guarded by (id, worker, claim): where the lease is no longer held
    /// nothing changes and the answer is [`Settled::LeaseLost`]. Therefore repeating is harmless.
    ///
    /// # Errors
    ///
    /// When nothing was settled, or it is not known whether the runs are settled.
    fn settle(
        &self,
        worker: WorkerId,
        settlements: &[Settlement],
    ) -> Result<Vec<Settled>, DriverError>;

    /// Says that the worker process lives. Returns whether its row was there; `false` on the
    /// first call, and after the process was declared dead and lost its leases.
    fn heartbeat(&self, worker: &WorkerInfo) -> Result<bool, DriverError>;

    /// Adds to the numbers of the minute that it is, and to those since there are any. What is reported under a number
    /// is counted once: a number that is not greater than the last of this reporter changes nothing. That is known for a day. A worker
    /// process is a reporter of its own at each database, with an id that says nothing else.
    ///
    /// [`StatRow::since`] is not looked at. By default nothing is counted.
    fn add_stats(&self, reporter: Uuid, number: i64, rows: &[StatRow]) -> Result<(), DriverError> {
        let _ = (reporter, number, rows);
        Ok(())
    }

    /// Removes all numbers of runs of a queue, those since there are any too; returns how many rows. For a queue that is gone: counters of it
    /// begin anew if it comes back. By default there are none.
    fn forget_stats(&self, queue: &str) -> Result<usize, DriverError> {
        let _ = queue;
        Ok(0)
    }

    /// Takes leases back: leases of these workers, unless the worker has sent a later heartbeat;
    /// leases whose worker has no row; and, if `expired`, leases past their end. The jobs are ready
    /// again, the attempt spent, with a row in the exception log. At most `limit` jobs per call.
    /// The row of a dead worker is removed with its last lease.
    ///
    /// The manager decides which worker is dead, because the database itself may be the cause of a
    /// silence.
    fn rescue(
        &self,
        dead: &[DeadWorker],
        expired: bool,
        limit: u32,
    ) -> Result<Vec<Rescued>, DriverError>;

    /// Removes a worker process that stops, and returns its remaining leases to ready, unspent.
    fn remove_worker(&self, worker: WorkerId) -> Result<usize, DriverError>;

    /// The worker processes that have a row.
    fn workers(&self) -> Result<Vec<WorkerSeen>, DriverError>;

    /// Removes the rows that are older than they are kept, about `limit` rows of each kind per call.
    /// Rows that another process removes at the same time are passed over.
    fn purge(&self, keep: &Keep, limit: u32) -> Result<Purged, DriverError>;
}
