//! The in-memory driver: the behaviour of a database without one.

mod audit;
mod moves;
mod operate;
mod scan;
mod store;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use qudo_hooks::JobId;
use uuid::Uuid;

use crate::clock::{Clock, SystemClock};
use crate::driver::{
    AbilityLease, Admin, Ages, Bounded, ClaimRequest, ClaimedJob, Control, CountRow, DeadWorker,
    Deadline, Depth, Driver, DriverError, DriverRegistration, Exception, ExceptionScan, Inserted,
    Inspect, Interim, JobClaim, JobInfo, JobRecord, JobScan, JobState, Keep, LeaseKey, NamedDriver,
    News, Order, Password, Past, Pause, PlacedJob, ProgressRecord, ProgressRow, Promotion, Purged,
    Remains, Rescued, SchemaState, Sending, SentRecord, SentRow, Settled, Settlement, StatRow,
    StatScan, StatusRow, StatusScan, WakeSource, Wakes, Work, WorkerId, WorkerInfo, WorkerSeen,
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

    fn claim_job(&self, claim: &JobClaim) -> Result<Option<ClaimedJob>, DriverError> {
        if claim.deadline.is_over() {
            return Err(DriverError::too_late());
        }
        Ok(self.with(|store| store.claim_job(claim)))
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

    fn add_stats(&self, reporter: Uuid, number: i64, rows: &[StatRow]) -> Result<(), DriverError> {
        self.with(|store| store.stats.add(store.now, reporter, number, rows));
        Ok(())
    }

    fn forget_stats(&self, queue: &str) -> Result<usize, DriverError> {
        Ok(self.with(|store| store.stats.forget(queue)))
    }

    fn purge(&self, keep: &Keep, _: u32) -> Result<Purged, DriverError> {
        Ok(Purged { removed: self.with(|store| store.purge(keep)), more: false })
    }
}

impl Interim for MemoryDriver {
    fn send(&self, lease: &LeaseKey, sent: &SentRecord) -> Result<Sending, DriverError> {
        Ok(self.with(|store| store.send(lease, sent)))
    }

    fn note_progress(
        &self,
        worker: WorkerId,
        records: &[ProgressRecord],
    ) -> Result<(), DriverError> {
        self.with(|store| store.note_progress(worker, records));
        Ok(())
    }

    fn sent(&self, job: JobId, from: i32, limit: u32) -> Result<Vec<SentRow>, DriverError> {
        Ok(self.with(|store| store.interim.sent(job, from, limit)))
    }

    fn progress(&self, job: JobId) -> Result<Option<ProgressRow>, DriverError> {
        Ok(self.with(|store| store.interim.progress(job)))
    }

    fn news(&self, jobs: &[JobId]) -> Result<Vec<News>, DriverError> {
        Ok(self.with(|store| store.interim.news(jobs)))
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

    fn jobs(&self, ids: &[JobId], args: bool) -> Result<Vec<JobInfo>, DriverError> {
        Ok(self.with(|store| store.jobs(ids, args)))
    }

    fn scan_jobs(&self, scan: &JobScan<'_>) -> Result<Vec<PlacedJob>, DriverError> {
        Ok(self.with(|store| store.scan_jobs(scan)))
    }

    fn count(&self) -> Result<Vec<CountRow>, DriverError> {
        Ok(self.with(|store| store.count()))
    }

    fn ages(&self, pauses: &[Pause]) -> Result<Ages, DriverError> {
        Ok(self.with(|store| store.ages(pauses)))
    }

    fn stats(&self, scan: &StatScan) -> Result<Vec<StatRow>, DriverError> {
        Ok(self.with(|store| store.stats.read(store.now, scan)))
    }

    fn depth(&self, bound: u64) -> Result<Depth, DriverError> {
        Ok(self.with(|store| store.depth(bound)))
    }

    fn scan_exceptions(&self, scan: &ExceptionScan) -> Result<Vec<Exception>, DriverError> {
        Ok(self.with(|store| store.scan_exceptions(scan)))
    }

    fn scan_status(&self, scan: &StatusScan) -> Result<Vec<StatusRow>, DriverError> {
        Ok(self.with(|store| store.scan_status(scan)))
    }

    fn count_past(&self, of: Past, bound: u64) -> Result<Bounded, DriverError> {
        Ok(self.with(|store| store.count_past(of, bound)))
    }

    fn status(&self, job: JobId) -> Result<Vec<StatusRow>, DriverError> {
        Ok(self.with(|store| store.status(job)))
    }

    fn remains(&self, job: JobId) -> Result<Remains, DriverError> {
        Ok(self.with(|store| store.remains(job)))
    }
}

impl Admin for MemoryDriver {
    fn schema(&self) -> Result<SchemaState, DriverError> {
        Ok(SchemaState::Current)
    }

    fn migrate(&self, _force: bool) -> Result<Vec<String>, DriverError> {
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
        Ok(self.with(|store| Control { identity: store.identity, ..store.control.clone() }))
    }

    fn set_control(&self, order: &Order, on: bool, deadline: Deadline) -> Result<(), DriverError> {
        if deadline.is_over() {
            return Err(DriverError::too_late());
        }
        self.with(|store| match order {
            Order::Draining => store.control.draining = on,
            Order::Paused => store.control.paused = on,
            Order::PausedPart(part, reason) => {
                let others = store.control.pauses.iter().flat_map(|all| all.iter());
                let mut all: Vec<_> = others.filter(|one| one.part != *part).cloned().collect();
                if on {
                    all.push(Pause::new(part.clone(), &**reason, store.now));
                }
                store.control.pauses = (!all.is_empty()).then(|| all.into());
            }
            Order::Worker(worker, order) => {
                let new = (*worker, *order);
                let others = store.control.workers.iter().flat_map(|all| all.iter());
                let mut all: Vec<_> = others.filter(|one| **one != new).copied().collect();
                all.extend(on.then_some(new));
                store.control.workers = (!all.is_empty()).then(|| all.into());
            }
        });
        Ok(())
    }
}

impl Wakes for MemoryDriver {
    fn wake_source(&self) -> WakeSource {
        // Managers of one process may share a store, and only their own enqueues ring a bell.
        WakeSource::Poll { at_most: Some(Duration::from_millis(5)) }
    }

    fn changed(&self, queues: &[&str], abilities: &[AbilityLease]) -> Result<bool, DriverError> {
        Ok(self.with(|store| store.has_ready(queues, abilities)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::admin::audit::flaws;
    use crate::clock::SettableClock;
    use crate::driver::{
        Audit, Due, ExceptionRecord, Extras, Leg, Moves, MovingJob, Operate, Redrive, Verdict,
    };
    use crate::fixture::{record, worker};

    /// What may happen to a database, by numbers that choose among what is there.
    #[derive(Debug, Clone)]
    enum Step {
        Insert { key: Option<u8>, due: u8 },
        Claim { worker: usize, limit: u32 },
        Settle { nth: usize, verdict: u8 },
        Release { worker: usize },
        Promote,
        Beat { worker: usize },
        RemoveWorker { worker: usize },
        Rescue { worker: usize },
        Dequeue { nth: usize },
        Reschedule { nth: usize, due: u8 },
        Redrive { nth: usize },
        MoveOut { nth: usize },
        MoveBack,
        Arrive,
        Pass { seconds: u16 },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let nth = 0_usize..40;
        let worker = 0_usize..3;
        let one = prop_oneof![
            4 => (prop::option::of(0_u8..4), 0_u8..4).prop_map(|(key, due)| Step::Insert { key, due }),
            4 => (worker.clone(), 1_u32..6).prop_map(|(worker, limit)| Step::Claim { worker, limit }),
            4 => (nth.clone(), 0_u8..5).prop_map(|(nth, verdict)| Step::Settle { nth, verdict }),
            1 => worker.clone().prop_map(|worker| Step::Release { worker }),
            2 => Just(Step::Promote),
            2 => worker.clone().prop_map(|worker| Step::Beat { worker }),
            1 => worker.clone().prop_map(|worker| Step::RemoveWorker { worker }),
            1 => worker.prop_map(|worker| Step::Rescue { worker }),
            1 => nth.clone().prop_map(|nth| Step::Dequeue { nth }),
            1 => (nth.clone(), 0_u8..4).prop_map(|(nth, due)| Step::Reschedule { nth, due }),
            1 => nth.clone().prop_map(|nth| Step::Redrive { nth }),
            1 => nth.prop_map(|nth| Step::MoveOut { nth }),
            1 => Just(Step::MoveBack),
            1 => Just(Step::Arrive),
            1 => (0_u16..4_000).prop_map(|seconds| Step::Pass { seconds }),
        ];
        prop::collection::vec(one, 1..120)
    }

    /// A database, and what its users know of it.
    struct World {
        driver: MemoryDriver,
        clock: Arc<SettableClock>,
        workers: [WorkerInfo; 3],
        claims: i64,
        /// Runs that have not ended, with their workers.
        runs: Vec<(usize, ClaimedJob)>,
        /// Jobs that were stored and not ended by anybody, as far as was answered.
        live: Vec<JobId>,
    }

    impl World {
        fn new() -> Self {
            let clock = Arc::new(SettableClock::default());
            Self {
                driver: MemoryDriver::with_clock(Arc::clone(&clock) as _),
                clock,
                workers: [worker(), worker(), worker()],
                claims: 0,
                runs: Vec::new(),
                live: Vec::new(),
            }
        }

        fn due(due: u8) -> Due {
            match due {
                0 => Due::Now,
                n => Due::In(Duration::from_secs(u64::from(n) * 600)),
            }
        }

        fn pick<T: Clone>(list: &[T], nth: usize) -> Option<T> {
            (!list.is_empty()).then(|| list[nth % list.len()].clone())
        }

        fn end(&mut self, id: JobId) {
            self.live.retain(|one| *one != id);
        }

        fn settle(&mut self, nth: usize, verdict: u8) {
            if self.runs.is_empty() {
                return;
            }
            let (worker, job) = self.runs.swap_remove(nth % self.runs.len());
            let (id, later) = (job.id, Duration::from_secs(60));
            let verdict = [
                Verdict::Complete,
                Verdict::Discard,
                Verdict::Retry(later),
                Verdict::Snooze(Duration::ZERO),
                Verdict::GiveBack,
            ][usize::from(verdict)];
            let failed = matches!(verdict, Verdict::Discard | Verdict::Retry(_));
            let extras = failed.then(|| {
                let kind = qudo_hooks::FailureKind::Error;
                let exception = ExceptionRecord::new(kind, "no");
                Box::new(Extras { exception: Some(exception), ..Extras::default() })
            });
            let settlement = Settlement { job: Box::new(job), verdict, extras };
            let worker = self.workers[worker].id;
            let answers = self.driver.settle(worker, &[settlement]).expect("answers");
            if answers[0].is_done() && matches!(verdict, Verdict::Complete | Verdict::Discard) {
                self.end(id);
            }
        }

        fn redrive(&mut self, nth: usize) {
            let log = self.driver.scan_exceptions(&ExceptionScan::all(30)).expect("answers");
            let Some(row) = Self::pick(&log, nth) else { return };
            let new = JobId::new();
            if let Redrive::Enqueued(id) = self.driver.redrive(row.id, new).expect("answers") {
                self.live.push(id);
            }
        }

        fn take(&mut self, step: &Step) {
            let driver = &self.driver;
            match *step {
                Step::Insert { key, due } => {
                    let uniqkey = key.map(|key| key.to_string());
                    let mut job = JobRecord { due: Self::due(due), ..record() };
                    job.facts.uniqkey = uniqkey;
                    let id = job.id;
                    let answer = driver.insert(&[job], Deadline::NONE).expect("answers")[0];
                    match answer {
                        Inserted::New => self.live.push(id),
                        Inserted::Existing(holder) => {
                            assert!(self.live.contains(&holder), "a dead job holds a key");
                        }
                    }
                }
                Step::Claim { worker, limit } => {
                    self.claims += 1;
                    let abilities =
                        [AbilityLease { name: "mail".into(), grab_for: Duration::from_secs(900) }];
                    let request = ClaimRequest {
                        worker: self.workers[worker].id,
                        claim: self.claims,
                        queue: &"default".into(),
                        abilities: &abilities,
                        limit,
                        deadline: Deadline::NONE,
                        thorough: true,
                    };
                    driver.heartbeat(&self.workers[worker]).expect("answers");
                    let jobs = driver.claim(&request).expect("answers");
                    assert!(jobs.len() <= limit as usize);
                    for job in jobs {
                        assert!(self.live.contains(&job.id), "a job runs that had ended");
                        self.runs.push((worker, job));
                    }
                }
                Step::Settle { nth, verdict } => self.settle(nth, verdict),
                Step::Release { worker } => {
                    let id = self.workers[worker].id;
                    driver.release_claim(id, self.claims).expect("answers");
                }
                Step::Promote => drop(driver.promote_due(3).expect("answers")),
                Step::Beat { worker } => {
                    driver.heartbeat(&self.workers[worker]).expect("answers");
                }
                Step::RemoveWorker { worker } => {
                    driver.remove_worker(self.workers[worker].id).expect("answers");
                }
                Step::Rescue { worker } => {
                    let id = self.workers[worker].id;
                    let rows = driver.workers().expect("answers").into_iter();
                    let dead: Vec<_> = rows
                        .filter(|row| row.info.id == id)
                        .map(|row| DeadWorker { id, seen_at: row.seen_at })
                        .collect();
                    driver.rescue(&dead, true, 4).expect("answers");
                }
                Step::Dequeue { nth } => {
                    if let Some(id) = Self::pick(&self.live, nth)
                        && driver.dequeue(id, None).expect("answers")
                    {
                        self.end(id);
                    }
                }
                Step::Reschedule { nth, due } => {
                    if let Some(id) = Self::pick(&self.live, nth) {
                        driver.reschedule(id, Self::due(due)).expect("answers");
                    }
                }
                Step::Redrive { nth } => self.redrive(nth),
                Step::MoveOut { nth } => {
                    if let Some(id) = Self::pick(&self.live, nth) {
                        driver.move_out("elsewhere", new_id(), Some(&[id]), 5).expect("answers");
                    }
                }
                Step::MoveBack => {
                    let live = driver.legs(&self.live).expect("answers").into_iter();
                    let leaving = live.filter(|(_, leg)| *leg == Leg::Leaving);
                    let leaving: Vec<_> = leaving.map(|(one, _)| one).collect();
                    driver.move_back(&leaving).expect("answers");
                }
                Step::Arrive => {
                    let nobody = JobId::from_uuid(Uuid::nil());
                    let out = driver.moving_out("elsewhere", nobody, 5).expect("answers");
                    let leaving: Vec<_> = out.iter().map(MovingJob::departed).collect();
                    let gone = driver.moved_out(&leaving).expect("answers");
                    driver.leave_trail(&gone).expect("answers");
                    for one in gone {
                        self.end(one.job);
                    }
                }
                Step::Pass { seconds } => self.clock.advance(Duration::from_secs(seconds.into())),
            }
        }

        /// Every job that was accepted and has not ended is in exactly one place, and no other is in any.
        fn check(&self) {
            let nobody = JobId::from_uuid(Uuid::nil());
            let traces = self.driver.traces(nobody, 10_000).expect("answers");
            for trace in &traces {
                assert!(flaws(trace).is_empty(), "{trace:?}: {:?}", flaws(trace));
            }
            let mut there: Vec<_> =
                traces.iter().filter(|trace| trace.is_live()).map(|trace| trace.id).collect();
            let mut live = self.live.clone();
            there.sort_unstable();
            live.sort_unstable();
            assert_eq!(there, live);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

        /// Whatever happens in whatever order, no job is lost, doubled, or run after its end.
        #[test]
        fn every_job_is_in_exactly_one_place_until_it_ends(steps in steps()) {
            let mut world = World::new();
            for step in &steps {
                world.take(step);
                world.check();
            }
        }
    }
}
