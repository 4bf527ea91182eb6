use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Manager;
use super::bell::{Bell, lock};
use super::database::Database;
use super::dispatch::Dispatch;
use super::settler::SettleQueue;
use super::{fetcher, heartbeat, listener, settler, worker};
use crate::Error;
use crate::driver::{AbilityLease, Settlement, Verdict, WakeSource, WorkerId, WorkerInfo};

/// One run of [`Manager::work`]: a worker process with its threads.
///
/// Per database: a fetcher, a settler, a heartbeat and, where the engine can, a listener.
/// Shared: the worker threads. Threads are never joined but counted, because one that hangs in a
/// dead database must not keep the process from ending.
pub(crate) struct Session {
    pub(crate) manager: Manager,
    pub(crate) worker: WorkerInfo,
    pub(crate) lanes: Vec<Arc<Lane>>,
    pub(crate) dispatch: Dispatch,
    pub(crate) abilities: Vec<AbilityLease>,
    pub(crate) queues: Vec<Arc<str>>,
    /// Seen by abilities through `Job::is_stopping`.
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) claims: AtomicI64,
    workers_alive: AtomicUsize,
    lanes_alive: AtomicUsize,
    progress: Condvar,
    progress_lock: Mutex<()>,
    request: Mutex<Request>,
    requested: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Request {
    None,
    Soft,
    Hard,
}

/// No heartbeat yet.
const NEVER: u64 = u64::MAX;

/// What a session holds per database.
pub(crate) struct Lane {
    pub(crate) index: usize,
    pub(crate) database: Arc<Database>,
    pub(crate) settle: SettleQueue,
    /// Wakes the heartbeat thread before its time, at shutdown.
    pub(crate) heartbeat_bell: Bell,
    /// Milliseconds since the session's start at which the last heartbeat began that arrived;
    /// `NEVER` before the first.
    pub(crate) last_heartbeat: AtomicU64,
    /// Claimed and not yet settled.
    pub(crate) in_flight: AtomicUsize,
    pub(crate) lost_leases: AtomicU64,
    /// The fetcher may still deliver.
    pub(crate) fetching: AtomicBool,
    /// The database tells of new work at this moment, so it need not be asked.
    pub(crate) listening: AtomicBool,
    started: Instant,
    dead_after: Duration,
}

impl Lane {
    fn new(index: usize, database: Arc<Database>, dead_after: Duration) -> Self {
        Self {
            index,
            database,
            settle: SettleQueue::default(),
            heartbeat_bell: Bell::default(),
            last_heartbeat: AtomicU64::new(NEVER),
            in_flight: AtomicUsize::new(0),
            lost_leases: AtomicU64::new(0),
            fetching: AtomicBool::new(true),
            listening: AtomicBool::new(false),
            started: Instant::now(),
            dead_after,
        }
    }

    pub(crate) fn note_heartbeat(&self, begun: Instant) {
        let at = begun.saturating_duration_since(self.started).as_millis() as u64;
        if self.last_heartbeat.swap(at, Ordering::AcqRel) == NEVER {
            // The fetcher waits for the first one: leases without a worker's row are swept.
            self.database.bell.ring();
        }
    }

    pub(crate) fn has_beaten(&self) -> bool {
        self.last_heartbeat.load(Ordering::Acquire) != NEVER
    }

    /// Whether the last heartbeat is young enough that nobody can have rescued our jobs. A process
    /// that slept, or whose database was away, must not start jobs that others may hold by now.
    pub(crate) fn holds_leases(&self) -> bool {
        let last = self.last_heartbeat.load(Ordering::Acquire);
        if last == NEVER {
            return false;
        }
        let last = Duration::from_millis(last);
        self.started.elapsed().saturating_sub(last) < self.dead_after.mul_f64(0.9)
    }

    /// Notes a job that its ability settled in a transaction of its own.
    pub(crate) fn note_settled(&self, session: &Session) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        session.manager.inner.settled.advance();
    }

    /// Hands a claimed job back unstarted.
    pub(crate) fn give_back(&self, job: Box<crate::driver::ClaimedJob>) {
        self.settle.push(Settlement { job, verdict: Verdict::GiveBack, extras: None });
    }
}

impl Session {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub(crate) fn workers_done(&self) -> bool {
        self.workers_alive.load(Ordering::Acquire) == 0
    }

    fn request(&self, request: Request) {
        let mut now = lock(&self.request);
        *now = request.max(*now);
        drop(now);
        self.requested.notify_all();
        let _guard = lock(&self.progress_lock);
        self.progress.notify_all();
    }

    fn note_progress(&self, counter: &AtomicUsize) {
        counter.fetch_sub(1, Ordering::AcqRel);
        let _guard = lock(&self.progress_lock);
        self.progress.notify_all();
    }

    /// Waits until `done`, the deadline, or a hard stop; tells whether it is done.
    fn wait_for(&self, deadline: Instant, done: impl Fn() -> bool) -> bool {
        let mut guard = lock(&self.progress_lock);
        loop {
            if done() {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || *lock(&self.request) == Request::Hard {
                return false;
            }
            guard =
                self.progress.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Stop claiming → give back unstarted → wait for the running → settle → remove the worker.
    fn shut_down(&self) {
        let deadline = Instant::now() + self.manager.options().shutdown_timeout;
        log::info!("worker process {} stops", self.worker.name);
        self.stopping.store(true, Ordering::Release);
        self.dispatch.close();
        for lane in &self.lanes {
            self.dispatch.drain(lane.index).into_iter().for_each(|job| lane.give_back(job));
            lane.database.bell.ring();
            lane.heartbeat_bell.ring();
        }
        let idle = self.wait_for(deadline, || self.workers_done());
        // A settler ends when nothing more can come: no job runs and its fetcher has ended, so that
        // what a last claim brought is given back too. A fetcher that hangs holds up only its own.
        self.wait_for(deadline, || {
            let ended = |lane: &&Arc<Lane>| !lane.fetching.load(Ordering::Acquire);
            self.lanes.iter().filter(ended).for_each(|lane| lane.settle.close());
            self.lanes.iter().all(|lane| ended(&lane))
        });
        for lane in &self.lanes {
            lane.settle.close();
        }
        if !idle {
            log::warn!(
                "{} jobs were still running after the shutdown timeout; they will be rescued \
                 and run again",
                self.workers_alive.load(Ordering::Acquire)
            );
        }
        let all = || self.lanes_alive.load(Ordering::Acquire) == 0;
        // A database that answers gets a moment to settle even when a job used up the time.
        let grace = deadline.max(Instant::now() + Duration::from_millis(500));
        if !self.wait_for(grace, all) {
            log::warn!(
                "a database did not answer before the shutdown timeout; its jobs will be rescued"
            );
        }
    }
}

/// A manager at work in the background; made by [`Manager::start`].
///
/// Dropping it stops the work softly and waits.
#[must_use = "dropping the handle stops the work"]
pub struct WorkHandle {
    session: Arc<Session>,
    stopped: bool,
}

impl std::fmt::Debug for WorkHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkHandle").field("worker", &self.session.worker).finish_non_exhaustive()
    }
}

impl WorkHandle {
    /// The identity of this worker process, as the databases know it.
    pub fn worker(&self) -> WorkerId {
        self.session.worker.id
    }

    /// How many settlements came too late because the lease was lost.
    pub fn lost_leases(&self) -> u64 {
        self.session.lanes.iter().map(|lane| lane.lost_leases.load(Ordering::Relaxed)).sum()
    }

    /// Stops softly: running jobs may finish within the shutdown timeout.
    pub fn stop(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        if !std::mem::replace(&mut self.stopped, true) {
            self.session.shut_down();
            self.session.manager.inner.working.store(false, Ordering::Release);
        }
    }
}

impl Drop for WorkHandle {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Manager {
    /// Works for ever on the calling thread and the worker threads, until SIGTERM or SIGINT.
    ///
    /// The first signal stops softly: no more claims, unstarted jobs given back, running ones may
    /// finish within `shutdown_timeout`. A second signal returns at once; what was running is
    /// rescued by another process. Databases that are down, now or later, are taken up when they
    /// are back. The signals' default action is not restored afterwards.
    ///
    /// # Errors
    ///
    /// When no ability is there, a reachable database has the wrong schema, the manager already
    /// works, or the system refuses threads or signal handlers.
    pub fn work(&self) -> Result<(), Error> {
        let handle = self.start()?;
        let session = Arc::clone(&handle.session);
        let mut signals = Signals::new([SIGTERM, SIGINT])
            .map_err(|source| Error::System { action: "handle signals", source })?;
        let control = signals.handle();
        let listener = Arc::clone(&session);
        spawn("qudo-signals", move || {
            for (count, _) in signals.forever().enumerate() {
                listener.request(if count == 0 { Request::Soft } else { Request::Hard });
            }
        })?;
        let mut request = lock(&session.request);
        while *request == Request::None {
            request = session.requested.wait(request).unwrap_or_else(PoisonError::into_inner);
        }
        drop(request);
        handle.stop();
        control.close();
        Ok(())
    }

    /// Works in the background until the handle is dropped or stopped; handles no signals.
    ///
    /// # Errors
    ///
    /// As [`work`](Self::work).
    pub fn start(&self) -> Result<WorkHandle, Error> {
        if self.inner.abilities.is_empty() {
            return Err(Error::NoAbilities);
        }
        self.check_schemas()?;
        if self.inner.working.swap(true, Ordering::AcqRel) {
            return Err(Error::AlreadyWorking);
        }
        let session = Arc::new(self.new_session());
        let handle = WorkHandle { session: Arc::clone(&session), stopped: false };
        for entry in self.inner.abilities.iter() {
            log::debug!("can do {:?} ({})", entry.name, entry.location);
        }
        log::info!(
            "worker process {} starts: {} abilities, {} threads, databases {:?}",
            session.worker.name,
            session.abilities.len(),
            self.options().workers,
            self.all()
        );
        for lane in &session.lanes {
            spawn_lane(&session, lane)?;
        }
        for number in 0..self.options().workers {
            let session = Arc::clone(&session);
            session.workers_alive.fetch_add(1, Ordering::AcqRel);
            spawn(&format!("qudo-worker-{number}"), move || {
                worker::run(&session);
                session.note_progress(&session.workers_alive);
                if session.workers_done() {
                    // The heartbeats waited for the last job.
                    session.lanes.iter().for_each(|lane| lane.heartbeat_bell.ring());
                }
            })?;
        }
        Ok(handle)
    }

    fn check_schemas(&self) -> Result<(), Error> {
        for database in self.all() {
            match Self::check_schema(database) {
                Err(Error::Database { source, .. }) if source.is_down() => {
                    database.mark_down(&source);
                }
                Err(Error::DatabaseDown { .. }) | Ok(()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn new_session(&self) -> Session {
        let options = self.options();
        let lanes: Vec<_> = self
            .all()
            .iter()
            .enumerate()
            .map(|(index, database)| {
                Arc::new(Lane::new(index, Arc::clone(database), options.dead_after))
            })
            .collect();
        Session {
            manager: self.clone(),
            worker: Self::worker_info(),
            dispatch: Dispatch::new(lanes.len(), options.workers, options.find_job_limit_size),
            lanes,
            abilities: self.leases(),
            queues: self.queues(),
            stopping: Arc::default(),
            claims: AtomicI64::new(1),
            workers_alive: AtomicUsize::new(0),
            lanes_alive: AtomicUsize::new(0),
            progress: Condvar::new(),
            progress_lock: Mutex::new(()),
            request: Mutex::new(Request::None),
            requested: Condvar::new(),
        }
    }

    pub(super) fn worker_info() -> WorkerInfo {
        let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
        let host = match host.trim() {
            "" => "host",
            name => name,
        };
        WorkerInfo { id: WorkerId::new(), name: format!("{host}:{}", std::process::id()) }
    }

    pub(super) fn leases(&self) -> Vec<AbilityLease> {
        let default = self.options().grab_for;
        self.inner
            .abilities
            .iter()
            .map(|entry| AbilityLease {
                name: Arc::clone(&entry.name),
                grab_for: entry.options.grab_for.unwrap_or(default),
            })
            .collect()
    }

    pub(super) fn queues(&self) -> Vec<Arc<str>> {
        self.options().queues.clone().unwrap_or_else(|| self.inner.abilities.queues())
    }
}

fn spawn_lane(session: &Arc<Session>, lane: &Arc<Lane>) -> Result<(), Error> {
    type Loop = fn(&Session, &Lane);
    let mut loops: Vec<(&str, Loop)> = vec![
        ("fetch", fetcher::run as Loop),
        ("settle", settler::run),
        ("heartbeat", heartbeat::run),
    ];
    if lane.database.driver().wake_source() == WakeSource::Listen {
        loops.push(("listen", listener::run));
    }
    for (name, run) in loops {
        let (session, lane) = (Arc::clone(session), Arc::clone(lane));
        // The listener blocks on its socket and notices a stop only at its next tick; nothing is
        // lost when the process ends without it.
        let counts = name != "listen";
        if counts {
            session.lanes_alive.fetch_add(1, Ordering::AcqRel);
        }
        spawn(&format!("qudo-{name}-{}", lane.database.name), move || {
            run(&session, &lane);
            if name == "fetch" {
                lane.fetching.store(false, Ordering::Release);
            }
            if counts {
                session.note_progress(&session.lanes_alive);
            }
        })?;
    }
    Ok(())
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map(drop)
        .map_err(|source| Error::System { action: "start a thread", source })
}
