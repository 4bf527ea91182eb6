use crate::tools::sync::{Condvar, Mutex, RwLock};
use crate::tools::threads::spawn;
use crate::tools::time::Instant;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::Manager;
use super::database::Database;
use super::dispatch::Dispatch;
use super::fetcher::Uncertain;
use super::lane::Lane;
use super::worker;
use crate::Error;
use crate::driver::{AbilityLease, WorkerInfo};
use uuid::Uuid;

/// A database that answers gets so long to settle even when jobs used up the time of a stop.
const GRACE: Duration = Duration::from_millis(500);

/// At the start the first answer of each database is waited for so long, and its state looked at so often.
const MEETING: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// One run of [`Manager::work`]: a worker process with its threads.
///
/// Per database a [`Lane`]; shared: the worker threads.
pub(crate) struct Session {
    pub(crate) manager: Manager,
    pub(crate) worker: WorkerInfo,
    pub(crate) dispatch: Dispatch,
    pub(crate) abilities: Arc<[AbilityLease]>,
    pub(crate) queues: Vec<Arc<str>>,
    /// Seen by abilities through `Job::is_stopping`.
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) claims: AtomicI64,
    /// Claims of lanes that ended without knowing what they brought, by the identity of their database:
    /// for the next lane that works it.
    pub(super) left_claims: Mutex<Vec<(Uuid, Uncertain)>>,
    /// Each at its index; where one has ended there is none until another takes its place.
    lanes: RwLock<Vec<Option<Arc<Lane>>>>,
    /// Of lanes that have ended.
    pub(super) lost_leases: AtomicU64,
    /// Held by a lane from the question which database it works to its first heartbeat there, and by one
    /// that leaves while it looks for others at the same database and removes the worker's row: else the
    /// row of a lane whose database is not known yet would be removed with its leases.
    pub(super) joining: Mutex<()>,
    workers_alive: AtomicUsize,
    /// The stop's time is over and jobs still run: the last of them ends the lanes.
    overdue: AtomicBool,
    progress: Condvar,
    progress_lock: Mutex<()>,
    request: Mutex<Request>,
    requested: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Request {
    None,
    Soft,
    Hard,
}

impl Session {
    pub(super) fn new(manager: &Manager) -> Self {
        let options = manager.options();
        Self {
            manager: manager.clone(),
            worker: manager.worker_info(),
            dispatch: Dispatch::new(options.workers, options.find_job_limit_size),
            lanes: RwLock::default(),
            lost_leases: AtomicU64::new(0),
            joining: Mutex::default(),
            abilities: manager.leases(),
            queues: manager.queues(),
            stopping: Arc::default(),
            claims: AtomicI64::new(1),
            left_claims: Mutex::default(),
            workers_alive: AtomicUsize::new(0),
            overdue: AtomicBool::new(false),
            progress: Condvar::new(),
            progress_lock: Mutex::new(()),
            request: Mutex::new(Request::None),
            requested: Condvar::new(),
        }
    }

    pub(super) fn start_workers(self: &Arc<Self>) -> Result<(), Error> {
        for number in 0..self.manager.options().workers {
            let alive = WorkerAlive::new(self);
            spawn(&format!("qudo-worker-{number}"), move || worker::run(&alive.0))
                .map_err(Error::no_thread)?;
        }
        Ok(())
    }

    /// Takes a database up.
    pub(super) fn add_lane(self: &Arc<Self>, database: &Arc<Database>) -> Result<(), Error> {
        let mut lanes = self.lanes.write();
        let dead_after = self.manager.options().dead_after;
        let free = lanes.iter().position(Option::is_none);
        let index = free.unwrap_or(lanes.len());
        let lane = Arc::new(Lane::new(index, Arc::clone(database), dead_after));
        self.dispatch.add(&lane);
        match free {
            Some(free) => lanes[free] = Some(Arc::clone(&lane)),
            None => lanes.push(Some(Arc::clone(&lane))),
        }
        drop(lanes);
        let started = lane.start(self);
        if started.is_err() {
            lane.leaving.store(true, Ordering::Release);
        }
        if self.is_stopping() {
            // The shutdown may have looked at the lanes before this one was among them.
            lane.settle.close();
        }
        started
    }

    /// Ends the work for one database: as [`shut_down`](Self::shut_down), the others go on.
    pub(super) fn remove_lane(&self, database: &Arc<Database>) {
        let lanes = self.lanes();
        let mut ours = lanes.iter().filter(|lane| Arc::ptr_eq(&lane.database, database));
        let Some(lane) = ours.next_back() else { return };
        let deadline = Instant::now() + self.manager.options().shutdown_timeout;
        lane.leaving.store(true, Ordering::Release);
        self.dispatch.drain(lane.index).into_iter().for_each(|job| lane.give_back(job));
        lane.database.bell.ring();
        lane.janitor_bell.ring();
        lane.listener_bell.ring();
        if !self.wait_for(deadline, || lane.is_empty()) {
            // Its threads end by themselves with the last run: the result is still settled.
            log::warn!("database {:?} is removed; jobs of it still run", &*lane.database.name);
            return;
        }
        lane.heartbeat_bell.ring();
        self.wait_for(deadline, || lane.threads.load(Ordering::Acquire) == 0);
    }

    /// Whether another lane works the same database: under a second name, or because it was removed and
    /// added again. The worker's row and leases are those of both.
    pub(super) fn works_elsewhere(&self, ours: &Lane) -> bool {
        let Some(identity) = ours.database.controls.known().identity else { return false };
        self.lanes().iter().any(|lane| {
            let goes_on = lane.fetching.load(Ordering::Acquire)
                && !lane.leaving.load(Ordering::Acquire)
                && !lane.database.is_second_name();
            lane.index != ours.index
                && lane.database.controls.known().identity == Some(identity)
                && (goes_on || lane.has_leases())
        })
    }

    /// The lanes that have not ended.
    pub(crate) fn lanes(&self) -> Vec<Arc<Lane>> {
        let lanes = self.lanes.read();
        lanes.iter().flatten().cloned().collect()
    }

    /// Lets go of a lane whose database was removed, once the last of its threads ends.
    pub(super) fn end_lane(&self, ended: &Arc<Lane>) {
        self.lost_leases.fetch_add(ended.lost_leases.load(Ordering::Relaxed), Ordering::Relaxed);
        let mut lanes = self.lanes.write();
        if let Some(place) = lanes.get_mut(ended.index)
            && place.as_ref().is_some_and(|lane| Arc::ptr_eq(lane, ended))
        {
            *place = None;
            self.dispatch.remove(ended);
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn workers_done(&self) -> bool {
        self.workers_alive.load(Ordering::Acquire) == 0
    }

    /// Waits until every database that is up has told which it is, so that none is worked under two
    /// names; one that does not answer is not waited for.
    pub(super) fn meet(&self, ours: &Lane) {
        let deadline = Instant::now() + MEETING;
        let met = |lane: &Arc<Lane>| lane.has_beaten() || !lane.database.is_trusted();
        let done = || ours.is_stopping(self) || self.lanes().iter().all(met);
        let goes_on = || Instant::now() < deadline && *self.request.lock() != Request::Hard;
        while goes_on() && !self.wait_for(Instant::now() + LOOK_AGAIN, done) {}
    }

    pub(super) fn request(&self, request: Request) {
        let mut now = self.request.lock();
        *now = request.max(*now);
        drop(now);
        self.requested.notify_all();
        self.note_progress();
    }

    /// Blocks until somebody asks for the end.
    pub(super) fn wait_for_request(&self) {
        let mut request = self.request.lock();
        while *request == Request::None {
            self.requested.wait(&mut request);
        }
    }

    /// Wakes whoever waits for the state to change.
    pub(crate) fn note_progress(&self) {
        let _guard = self.progress_lock.lock();
        self.progress.notify_all();
    }

    /// Waits until `done`, the deadline, or a hard stop; tells whether it is done.
    fn wait_for(&self, deadline: Instant, done: impl Fn() -> bool) -> bool {
        let mut guard = self.progress_lock.lock();
        loop {
            if done() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || *self.request.lock() == Request::Hard {
                return false;
            }
            self.progress.wait_for(&mut guard, left);
        }
    }

    /// Stop claiming → give back unstarted → wait for the running → settle → remove the worker.
    pub(super) fn shut_down(&self) {
        let deadline = Instant::now() + self.manager.options().shutdown_timeout;
        log::info!("worker process {} stops", self.worker.name);
        self.stopping.store(true, Ordering::Release);
        self.dispatch.close();
        let lanes = self.lanes();
        for lane in &lanes {
            self.dispatch.drain(lane.index).into_iter().for_each(|job| lane.give_back(job));
            lane.database.bell.ring();
            lane.heartbeat_bell.ring();
            lane.janitor_bell.ring();
            lane.listener_bell.ring();
        }
        if !self.wait_for(deadline, || self.workers_done()) {
            log::warn!(
                "{} jobs still run after the shutdown timeout; if the process ends before they do, \
                 they are rescued and run again",
                self.workers_alive.load(Ordering::Acquire)
            );
            if *self.request.lock() != Request::Hard {
                return self.leave_running(deadline, &lanes);
            }
        }
        // A settler ends when nothing more can come: no job runs and its fetcher has ended, so that
        // what a last claim brought is given back too. A fetcher that hangs holds up only its own.
        self.wait_for(deadline, || {
            let ended = |lane: &&Arc<Lane>| !lane.fetching.load(Ordering::Acquire);
            lanes.iter().filter(ended).for_each(|lane| lane.settle.close());
            lanes.iter().all(|lane| ended(&lane))
        });
        for lane in &lanes {
            lane.settle.close();
        }
        self.wait_for_lanes(deadline, &lanes);
    }

    /// The process may live on, so what still runs is settled when it ends, and its lease is kept
    /// alive until then. What has ended gets a moment to be settled now.
    fn leave_running(&self, deadline: Instant, lanes: &[Arc<Lane>]) {
        self.overdue.store(true, Ordering::SeqCst);
        self.end_if_overdue();
        let grace = deadline.max(Instant::now() + GRACE);
        self.wait_for(grace, || {
            if self.workers_done() {
                return lanes.iter().all(|lane| lane.threads.load(Ordering::Acquire) == 0);
            }
            lanes.iter().all(|lane| lane.settle.is_idle())
        });
    }

    /// Whether the stop is over and the last job ended after it.
    pub(crate) fn is_overdue(&self) -> bool {
        // SeqCst, as are the writes: of the stop and the last worker one must see the other.
        self.overdue.load(Ordering::SeqCst) && self.workers_alive.load(Ordering::SeqCst) == 0
    }

    /// Ends the lanes when the last job ended after the stop did; each when nothing more can come.
    pub(crate) fn end_if_overdue(&self) {
        if self.is_overdue() {
            let lanes = self.lanes();
            let ended = lanes.iter().filter(|lane| !lane.fetching.load(Ordering::Acquire));
            ended.for_each(|lane| lane.settle.close());
        }
    }

    /// Waits until the lanes' threads ended, or gives them up.
    fn wait_for_lanes(&self, deadline: Instant, lanes: &[Arc<Lane>]) {
        let ended = || lanes.iter().all(|lane| lane.threads.load(Ordering::Acquire) == 0);
        let grace = deadline.max(Instant::now() + GRACE);
        if !self.wait_for(grace, ended) {
            log::warn!(
                "a database did not answer before the shutdown timeout; its jobs will be rescued"
            );
        }
        for lane in lanes {
            lane.given_up.store(true, Ordering::Release);
        }
    }
}

/// Counts a worker thread for as long as it lives, also when it cannot be started.
struct WorkerAlive(Arc<Session>);

impl WorkerAlive {
    fn new(session: &Arc<Session>) -> Self {
        session.workers_alive.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(session))
    }
}

impl Drop for WorkerAlive {
    fn drop(&mut self) {
        let session = &self.0;
        session.workers_alive.fetch_sub(1, Ordering::SeqCst);
        session.note_progress();
        session.end_if_overdue();
        if session.workers_done() {
            // The heartbeats waited for the last job.
            session.lanes().iter().for_each(|lane| lane.heartbeat_bell.ring());
        }
    }
}
