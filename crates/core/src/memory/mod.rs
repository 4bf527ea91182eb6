//! The in-memory driver: the behaviour of a database without one.

mod audit;
mod moves;
mod store;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use qudo_hooks::JobId;
use uuid::Uuid;

use crate::clock::{Clock, SystemClock};
use crate::driver::{
    AbilityLease, Admin, ClaimRequest, ClaimedJob, Control, ControlFlag, CountRow, DeadWorker,
    Deadline, Depth, Driver, DriverError, DriverRegistration, Due, Exception, ExceptionFilter,
    Inserted, Inspect, JobFilter, JobInfo, JobRecord, JobState, Keep, NamedDriver, Password,
    Promotion, Purged, Redrive, ReplyRow, Rescued, SchemaState, Settled, Settlement, StatusRow,
    WakeSource, Wakes, Work, WorkerId, WorkerInfo, WorkerSeen,
};
use crate::tools::random::new_id;
use crate::tools::sync::Mutex;
use store::Store;

/// Keeps jobs in memory: for tests and for trying things out. Nothing survives the process.
///
/// It passes the same behaviour suite as the databases. `memory:NAME` opens the store of that
/// name, shared by all managers of the process; `memory:` opens a store of its own.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use qudo_core::{Manager, MemoryDriver, NewJob, SettableClock};
///
/// let clock = Arc::new(SettableClock::default());
/// let driver = Arc::new(MemoryDriver::with_clock(clock.clone()));
/// let manager = Manager::builder().driver("test", driver).build()?;
/// manager.enqueue(NewJob::named("later", 1.into()).delay(Duration::from_secs(3600)))?;
/// clock.advance(Duration::from_secs(3601)); // no test has to sleep
/// # Ok::<(), qudo_core::Error>(())
/// ```
pub struct MemoryDriver {
    store: Mutex<Store>,
    clock: Arc<dyn Clock>,
}

impl Default for MemoryDriver {
    fn default() -> Self {
        Self::with_clock(Arc::new(SystemClock))
    }
}

impl fmt::Debug for MemoryDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryDriver")
    }
}

static NAMED: LazyLock<Mutex<HashMap<String, Arc<MemoryDriver>>>> = LazyLock::new(Mutex::default);

#[expect(clippy::unnecessary_wraps, reason = "it has the signature of a registration")]
fn open(dsn: &str, _: Option<Password>) -> Result<NamedDriver, String> {
    let name = dsn.strip_prefix("memory:").unwrap_or_default();
    if name.is_empty() {
        return Ok(NamedDriver {
            name: "memory".to_owned(),
            driver: Arc::new(MemoryDriver::default()),
        });
    }
    let mut named = NAMED.lock();
    let driver = Arc::clone(named.entry(name.to_owned()).or_default());
    Ok(NamedDriver { name: name.to_owned(), driver })
}

inventory::submit! { DriverRegistration { schemes: &["memory"], open } }

impl MemoryDriver {
    /// An empty store that asks this clock for the time.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { store: Mutex::default(), clock }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.store.lock();
        store.now = self.clock.now();
        act(&mut store)
    }
}

impl Driver for MemoryDriver {
    fn engine(&self) -> &'static str {
        "memory"
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn is_local(&self) -> bool {
        true
    }

    fn may_block(&self) -> bool {
        false
    }

    fn probe(&self) -> Result<(), DriverError> {
        Ok(())
    }
}

impl Work for MemoryDriver {
    fn insert(&self, jobs: &[JobRecord], deadline: Deadline) -> Result<Vec<Inserted>, DriverError> {
        if deadline.is_over() {
            return Err(DriverError::too_late());
        }
        Ok(self.with(|store| jobs.iter().map(|job| store.insert(job)).collect()))
    }

    fn claim(&self, request: &ClaimRequest<'_>) -> Result<Vec<ClaimedJob>, DriverError> {
        if request.deadline.is_over() {
            return Err(DriverError::too_late());
        }
        Ok(self.with(|store| store.claim(request)))
    }

    fn release_claim(&self, worker: WorkerId, claim: i64) -> Result<usize, DriverError> {
        Ok(self
            .with(|store| store.give_back(|lease| lease.worker == worker && lease.claim == claim)))
    }

    fn promote_due(&self, limit: u32) -> Result<Promotion, DriverError> {
        Ok(self.with(|store| store.promote_due(limit)))
    }

    fn settle(
        &self,
        worker: WorkerId,
        settlements: &[Settlement],
    ) -> Result<Vec<Settled>, DriverError> {
        Ok(self.with(|store| settlements.iter().map(|one| store.settle(worker, one)).collect()))
    }

    fn heartbeat(&self, worker: &WorkerInfo) -> Result<bool, DriverError> {
        Ok(self.with(|store| store.heartbeat(worker)))
    }

    fn rescue(
        &self,
        dead: &[DeadWorker],
        expired: bool,
        limit: u32,
    ) -> Result<Vec<Rescued>, DriverError> {
        Ok(self.with(|store| store.rescue(dead, expired, limit as usize)))
    }

    fn remove_worker(&self, worker: WorkerId) -> Result<usize, DriverError> {
        Ok(self.with(|store| store.remove_worker(worker)))
    }

    fn workers(&self) -> Result<Vec<WorkerSeen>, DriverError> {
        Ok(self.with(|store| store.workers()))
    }

    fn purge(&self, keep: &Keep, _: u32) -> Result<Purged, DriverError> {
        Ok(Purged { removed: self.with(|store| store.purge(keep)), more: false })
    }
}

impl Inspect for MemoryDriver {
    fn lookup(&self, id: JobId) -> Result<Option<JobInfo>, DriverError> {
        Ok(self.with(|store| store.lookup(id)))
    }

    fn state(&self, id: JobId) -> Result<Option<JobState>, DriverError> {
        Ok(self.with(|store| store.lookup(id)).map(|job| job.state))
    }

    fn holder(&self, ability: &str, uniqkey: &str) -> Result<Option<JobId>, DriverError> {
        Ok(self.with(|store| store.holder(ability, uniqkey)))
    }

    fn list(&self, filter: &JobFilter) -> Result<Vec<JobInfo>, DriverError> {
        Ok(self.with(|store| store.list(filter)))
    }

    fn count(&self) -> Result<Vec<CountRow>, DriverError> {
        Ok(self.with(|store| store.count()))
    }

    fn depth(&self, bound: u64) -> Result<Depth, DriverError> {
        Ok(self.with(|store| store.depth(bound)))
    }

    fn exceptions(&self, filter: &ExceptionFilter) -> Result<Vec<Exception>, DriverError> {
        Ok(self.with(|store| store.exceptions(filter)))
    }

    fn status(&self, job: JobId) -> Result<Vec<StatusRow>, DriverError> {
        Ok(self.with(|store| store.status(job)))
    }

    fn replies(&self, job: JobId) -> Result<Vec<ReplyRow>, DriverError> {
        Ok(self.with(|store| store.replies(job)))
    }
}

impl Admin for MemoryDriver {
    fn schema(&self) -> Result<SchemaState, DriverError> {
        Ok(SchemaState::Current)
    }

    fn migrate(&self) -> Result<Vec<String>, DriverError> {
        Ok(Vec::new())
    }

    fn revert(&self) -> Result<Vec<String>, DriverError> {
        self.with(|store| *store = Store::default());
        Ok(Vec::new())
    }

    fn identity(&self) -> Result<Uuid, DriverError> {
        Ok(self.with(|store| *store.identity.get_or_insert_with(new_id)))
    }

    fn control(&self) -> Result<Control, DriverError> {
        Ok(self.with(|store| Control { identity: store.identity, ..store.control }))
    }

    fn set_control(&self, flag: ControlFlag, on: bool, _: Deadline) -> Result<(), DriverError> {
        self.with(|store| match flag {
            ControlFlag::Draining => store.control.draining = on,
            ControlFlag::Paused => store.control.paused = on,
        });
        Ok(())
    }

    fn dequeue(&self, id: JobId) -> Result<bool, DriverError> {
        Ok(self.with(|store| store.dequeue(id)))
    }

    fn reschedule(&self, id: JobId, due: Due) -> Result<bool, DriverError> {
        Ok(self.with(|store| store.reschedule(id, due)))
    }

    fn redrive(&self, exception: Uuid, new: JobId) -> Result<Redrive, DriverError> {
        Ok(self.with(|store| store.redrive(exception, new)))
    }
}

impl Wakes for MemoryDriver {
    fn wake_source(&self) -> WakeSource {
        // Managers of one process may share a store, and only their own enqueues ring a bell.
        WakeSource::Poll { at_most: Some(Duration::from_millis(5)) }
    }

    fn changed(&self, queues: &[&str], _: &[AbilityLease]) -> Result<bool, DriverError> {
        Ok(self.with(|store| store.has_ready(queues)))
    }
}
