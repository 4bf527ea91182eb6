use super::{
    ClaimRequest, ClaimedJob, DeadWorker, Deadline, DriverError, Inserted, JobRecord, Keep,
    Promotion, Purged, Rescued, Settled, Settlement, WorkerId, WorkerInfo, WorkerSeen,
};

/// The life of a job from its insert to its end, and of the processes that work.
///
/// # Errors
///
/// When the database does not answer or refuses: nothing was done, unless the error
/// [is ambiguous](DriverError::is_ambiguous).
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Work {
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

    /// Whether two claims of one process at a time bring more jobs than one after the other. Then a second
    /// claim is made beside the first while there is a backlog, if jobs are shorter than a claim takes.
    fn claims_side_by_side(&self) -> bool {
        false
    }

    /// Leases at most `limit` ready jobs of one queue, in the order (priority descending, id).
    ///
    /// Rows locked by another claim are skipped, not waited for. No job is given to two workers. A claim may
    /// find fewer jobs than are ready, and none only if it is not [thorough](ClaimRequest::thorough).
    /// A claim that the database forgets in a crash harms nobody, so it need not be durable.
    /// After the deadline nothing is leased. A row whose facts are missing is passed over, and
    /// told as an error in the log: nobody could run it.
    ///
    /// # Errors
    ///
    /// After an ambiguous error the caller calls [`release_claim`](Self::release_claim).
    fn claim(&self, request: &ClaimRequest<'_>) -> Result<Vec<ClaimedJob>, DriverError>;

    /// Returns to ready whatever this worker leased under this claim number, attempt unspent. Wakes listeners of
    /// other processes after the commit, as whatever gives a job back does.
    fn release_claim(&self, worker: WorkerId, claim: i64) -> Result<usize, DriverError>;

    /// Moves about `limit` due jobs from scheduled to ready, and tells when the next is due.
    fn promote_due(&self, limit: u32) -> Result<Promotion, DriverError>;

    /// Ends runs: completes, retries, snoozes, discards, gives back; answers one for one. What is to run again
    /// after no time at all is ready at once, without a promotion.
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
    fn heartbeat(&self, worker: &WorkerInfo) -> Result<bool, DriverError>;

    /// Takes leases back: those of these workers, unless they were heard of since; those whose
    /// worker has no row; and, if `expired`, those past their end. The jobs are ready again, the
    /// attempt spent, with a row in the exception log. At most `limit` jobs a call. The row of a
    /// dead worker goes with its last lease.
    ///
    /// Who is dead is the manager's decision: a silence may be the database's own.
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

    /// Removes what is older than it is kept, about `limit` rows of each kind a call. Rows that another
    /// removes at the same time are passed over.
    fn purge(&self, keep: &Keep, limit: u32) -> Result<Purged, DriverError>;
}
