use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::JobId;
use uuid::Uuid;

use crate::driver::{
    AbilityLease, Act, Acted, Admin, Ages, Arrival, Audit, Bounded, CancelOrder, ClaimRequest,
    ClaimedJob, Control, CountRow, Counts, DeadWorker, Deadline, Departure, Depth, Driver,
    DriverError, Exception, ExceptionId, ExceptionScan, Head, Heard, Inserted, Inspect, Interim,
    JobClaim, JobInfo, JobRecord, JobScan, JobState, Keep, KeyRow, LeaseKey, Leg, Moves, MovingJob,
    News, Operate, OperationId, OperationRecord, OperationRow, Order, Past, Pause, PlacedJob,
    ProgressRecord, ProgressRow, Promotion, Purged, Redrive, Remains, Remark, Rescued, SchemaState,
    Sending, SentRecord, SentRow, Settled, Settlement, StatRow, StatScan, StatusRow, StatusScan,
    Step, StrayCursor, Strays, Tidings, Traces, Trail, Wake, WakeSource, Wakes, Work, WorkerId,
    WorkerInfo, WorkerSeen,
};

/// What happens instead of a call of this name, or before it: an error is its answer.
type Hears = dyn Fn(&mut dyn FnMut(Heard) -> bool) -> Result<(), DriverError> + Send + Sync;
type Fault = Box<dyn Fn(&str) -> Result<(), DriverError> + Send + Sync>;

/// What a claim answers.
type Claim = Box<
    dyn Fn(&dyn Driver, &ClaimRequest<'_>) -> Result<Vec<ClaimedJob>, DriverError> + Send + Sync,
>;

/// A driver that a test can make fail, hang or lie, around one that works: what a program does while a database is
/// away, slow or full can be tried without one.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use qudo_core::driver::{DriverError, ErrorKind};
/// use qudo_core::testing::FaultyDriver;
/// use qudo_core::{Manager, MemoryDriver, NewJob};
///
/// let away = Arc::new(AtomicBool::new(true));
/// let is_away = Arc::clone(&away);
/// let driver = FaultyDriver::new(Arc::new(MemoryDriver::default())).with_fault(move |_call| {
///     if is_away.load(Ordering::Relaxed) {
///         return Err(DriverError::new(ErrorKind::Down, "connection refused"));
///     }
///     Ok(())
/// });
/// let manager = Manager::builder().linked(false).driver("jobs", Arc::new(driver)).build()?;
/// let error = manager.enqueue(NewJob::named("mail", 1.into())).expect_err("it is away");
/// assert!(error.is_down());
/// away.store(false, Ordering::Relaxed);
/// # Ok::<(), qudo_core::Error>(())
/// ```
pub struct FaultyDriver {
    inner: Arc<dyn Driver>,
    fault: Fault,
    claim: Claim,
    blocks: bool,
    claims_side_by_side: bool,
    /// What is heard in the place of the driver's news.
    hears: Option<Box<Hears>>,
}

impl fmt::Debug for FaultyDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyDriver({})", self.inner.describe())
    }
}

impl FaultyDriver {
    /// A driver that does what this one does.
    pub fn new(inner: Arc<dyn Driver>) -> Self {
        let claim = |driver: &dyn Driver, request: &ClaimRequest<'_>| driver.claim(request);
        let claims_side_by_side = inner.claims_side_by_side();
        let (fault, claim) = (Box::new(|_: &str| Ok(())), Box::new(claim));
        Self { inner, fault, claim, blocks: false, claims_side_by_side, hears: None }
    }

    /// Its calls may take long, so they are made on threads that can be given up, as those of servers are.
    #[must_use]
    pub fn that_may_block(mut self) -> Self {
        self.blocks = true;
        self
    }

    /// Two claims of one process are made at a time, as servers like them.
    #[must_use]
    pub fn that_claims_side_by_side(mut self) -> Self {
        self.claims_side_by_side = true;
        self
    }

    /// Before each call but a claim this is called with the name of the method, such as `insert`. An error that it
    /// returns is the call's answer; it may also wait, or panic.
    #[must_use]
    pub fn with_fault(
        mut self,
        fault: impl Fn(&str) -> Result<(), DriverError> + Send + Sync + 'static,
    ) -> Self {
        self.fault = Box::new(fault);
        self
    }

    /// News of jobs are those that this reports.
    #[cfg(test)]
    pub(crate) fn with_news(
        mut self,
        hears: impl Fn(&mut dyn FnMut(Heard) -> bool) -> Result<(), DriverError> + Send + Sync + 'static,
    ) -> Self {
        self.hears = Some(Box::new(hears));
        self
    }

    /// Claims are answered by this, which is given the driver inside.
    #[must_use]
    pub fn with_claim(
        mut self,
        claim: impl Fn(&dyn Driver, &ClaimRequest<'_>) -> Result<Vec<ClaimedJob>, DriverError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.claim = Box::new(claim);
        self
    }
}

macro_rules! calls {
    ($(fn $name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> Result<$answer, DriverError> {
            (self.fault)(stringify!($name))?;
            self.inner.$name($($arg),*)
        })*
    };
}

impl Driver for FaultyDriver {
    fn engine(&self) -> &'static str {
        self.inner.engine()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn place(&self) -> Option<String> {
        self.inner.place()
    }

    fn is_local(&self) -> bool {
        self.inner.is_local()
    }

    fn may_block(&self) -> bool {
        self.blocks || self.inner.may_block()
    }

    fn reset(&self) {
        self.inner.reset();
    }

    fn probe(&self) -> Result<(), DriverError> {
        (self.fault)("probe")?;
        self.inner.probe()
    }
}

impl Work for FaultyDriver {
    calls! {
        fn insert(jobs: &[JobRecord], deadline: Deadline) -> Vec<Inserted>;
        fn claim_job(claim: &JobClaim) -> Option<ClaimedJob>;
        fn release_claim(worker: WorkerId, claim: i64) -> usize;
        fn promote_due(limit: u32) -> Promotion;
        fn settle(worker: WorkerId, settlements: &[Settlement]) -> Vec<Settled>;
        fn heartbeat(worker: &WorkerInfo) -> bool;
        fn add_stats(reporter: Uuid, number: i64, rows: &[StatRow]) -> ();
        fn forget_stats(queue: &str) -> usize;
        fn rescue(dead: &[DeadWorker], expired: bool, limit: u32) -> Vec<Rescued>;
        fn remove_worker(worker: WorkerId) -> usize;
        fn workers() -> Vec<WorkerSeen>;
        fn purge(keep: &Keep, limit: u32) -> Purged;
    }

    fn claims_side_by_side(&self) -> bool {
        self.claims_side_by_side
    }

    fn claim(&self, request: &ClaimRequest<'_>) -> Result<Vec<ClaimedJob>, DriverError> {
        (self.claim)(&*self.inner, request)
    }
}

impl Interim for FaultyDriver {
    calls! {
        fn send(lease: &LeaseKey, sent: &SentRecord) -> Sending;
        fn note_progress(worker: WorkerId, records: &[ProgressRecord]) -> ();
        fn sent(job: JobId, from: i32, limit: u32) -> Vec<SentRow>;
        fn progress(job: JobId) -> Option<ProgressRow>;
        fn news(jobs: &[JobId]) -> Vec<News>;
    }
}

impl Inspect for FaultyDriver {
    calls! {
        fn lookup(id: JobId) -> Option<JobInfo>;
        fn state(id: JobId) -> Option<JobState>;
        fn live(ids: &[JobId]) -> Vec<JobId>;
        fn holder(ability: &str, uniqkey: &str) -> Option<JobId>;
        fn jobs(ids: &[JobId], args: bool) -> Vec<JobInfo>;
        fn scan_jobs(scan: &JobScan<'_>) -> Vec<PlacedJob>;
        fn count() -> Vec<CountRow>;
        fn depth(bound: u64) -> Depth;
        fn scan_exceptions(scan: &ExceptionScan) -> Vec<Exception>;
        fn scan_status(scan: &StatusScan) -> Vec<StatusRow>;
        fn count_past(of: Past, bound: u64) -> Bounded;
        fn status(job: JobId) -> Vec<StatusRow>;
        fn remains(job: JobId) -> Remains;
        fn heads(queues: u32, rows: u32) -> Vec<Head>;
        fn ahead(job: &JobInfo, bound: u64) -> Bounded;
        fn ages(pauses: &[Pause]) -> Ages;
        fn stats(scan: &StatScan) -> Vec<StatRow>;
    }
}

impl Admin for FaultyDriver {
    calls! {
        fn schema() -> SchemaState;
        fn migrate(force: bool) -> Vec<String>;
        fn missing_migrations() -> Vec<(String, String)>;
        fn checkup() -> Vec<Remark>;
        fn revert() -> Vec<String>;
        fn identity() -> Uuid;
        fn control() -> Control;
        fn set_control(order: &Order, on: bool, deadline: Deadline) -> ();
    }
}

impl Operate for FaultyDriver {
    calls! {
        fn act(act: &Act, jobs: &[JobId], step: Option<&Step<'_>>) -> Option<Vec<Acted>>;
        fn redrive_each(rows: &[(ExceptionId, JobId)], step: Option<&Step<'_>>) -> Option<Vec<Redrive>>;
        fn note_step(step: &Step<'_>, counts: Counts) -> bool;
        fn begin_operation(record: &OperationRecord) -> OperationRow;
        fn operation(id: OperationId) -> Option<OperationRow>;
        fn operations(before: Option<OperationId>, limit: u32) -> Vec<OperationRow>;
        fn cancels(worker: WorkerId) -> Vec<CancelOrder>;
        fn open_cancels(limit: u32) -> Vec<(JobId, String)>;
    }
}

impl Wakes for FaultyDriver {
    calls! {
        fn changed(queues: &[&str], abilities: &[AbilityLease]) -> bool;
    }

    fn wake_source(&self) -> WakeSource {
        self.inner.wake_source()
    }

    fn listen(&self, on_wake: &mut dyn FnMut(Wake) -> bool) -> Result<(), DriverError> {
        self.inner.listen(on_wake)
    }

    fn hears_news(&self) -> bool {
        self.hears.is_some() || self.inner.hears_news()
    }

    fn listen_for_news(&self, on_news: &mut dyn FnMut(Heard) -> bool) -> Result<(), DriverError> {
        (self.fault)("listen_for_news")?;
        match &self.hears {
            Some(hears) => hears(on_news),
            None => self.inner.listen_for_news(on_news),
        }
    }

    fn ask_for_news(&self) {
        // Nobody counts on an answer.
        drop((self.fault)("ask_for_news"));
        self.inner.ask_for_news();
    }

    fn say_last(&self, limit: Duration) {
        self.inner.say_last(limit);
    }

    fn tell_news(&self, tidings: Tidings<'_>) {
        self.inner.tell_news(tidings);
    }
}

impl Moves for FaultyDriver {
    calls! {
        fn move_out(to: &str, departure: Uuid, only: Option<&[JobId]>, limit: u32) -> Vec<MovingJob>;
        fn moving_out(to: &str, after: JobId, limit: u32) -> Vec<MovingJob>;
        fn move_in(from: &str, jobs: &[MovingJob]) -> Vec<Arrival>;
        fn moved_out(jobs: &[Departure]) -> Vec<Departure>;
        fn moved_in(jobs: &[Departure]) -> usize;
        fn leave_trail(jobs: &[Departure]) -> ();
        fn trail(job: JobId) -> Option<Trail>;
        fn move_back(jobs: &[Departure]) -> usize;
        fn legs(jobs: &[JobId]) -> Vec<(Departure, Leg)>;
        fn left_for(to: &str, after: JobId, limit: u32) -> Vec<Departure>;
        fn moving_in(from: &str, after: JobId, limit: u32) -> Vec<Departure>;
        fn cancel_move_in(jobs: &[Departure]) -> usize;
    }
}

impl Audit for FaultyDriver {
    calls! {
        fn traces(after: JobId, limit: u32) -> Vec<Traces>;
        fn strays(after: Option<&StrayCursor>, limit: u32) -> Strays;
        fn keys(after: Option<(&str, &str)>, limit: u32) -> Vec<KeyRow>;
        fn trace(ids: &[JobId]) -> Vec<Traces>;
        fn mend(id: JobId) -> bool;
    }
}
