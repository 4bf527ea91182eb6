use crate::tools::sync::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::database::Database;
use super::loops::{Kind, Pulses};
use super::session::Session;
use super::settle_queue::SettleQueue;
use super::{fetcher, heartbeat, janitor, listener, settler};
use crate::Error;
use crate::driver::{ClaimedJob, Settlement, Verdict, WakeSource};
use crate::tools::awake;
use crate::tools::bell::Bell;
use crate::tools::threads::spawn;

/// No heartbeat yet.
const NEVER: u64 = u64::MAX;

/// What a session holds per database: the state shared by its fetcher, settler, heartbeat and
/// listener.
pub(crate) struct Lane {
    pub(crate) index: usize,
    pub(crate) database: Arc<Database>,
    pub(crate) settle: SettleQueue,
    /// Wakes the heartbeat thread before its time, at shutdown.
    pub(crate) heartbeat_bell: Bell,
    /// The same for the janitor.
    pub(crate) janitor_bell: Bell,
    /// The same for the listener.
    pub(crate) listener_bell: Bell,
    /// In milliseconds, how often beats are needed to be sure that a silent worker is dead; 0 when
    /// there is none.
    beat_every: AtomicU64,
    /// Milliseconds since the lane's start at which the last heartbeat began that arrived;
    /// `NEVER` before the first.
    last_heartbeat: AtomicU64,
    /// The same for the last one that found this process declared dead.
    declared_dead: AtomicU64,
    /// Claimed and not yet settled.
    pub(crate) in_flight: AtomicUsize,
    pub(crate) lost_leases: AtomicU64,
    /// The fetcher may still deliver.
    pub(crate) fetching: AtomicBool,
    /// A claim is under way whose jobs are not among those in flight yet.
    pub(crate) claiming: AtomicBool,
    /// Threads of the lane that a stop waits for.
    pub(crate) threads: AtomicUsize,
    /// All of them, the listener included.
    alive: AtomicUsize,
    /// The database tells of new work at this moment, so it need not be asked.
    pub(crate) listening: AtomicBool,
    /// This database is being removed while the others go on.
    pub(crate) leaving: AtomicBool,
    /// It is counted among those that work the database.
    worked: AtomicBool,
    /// Nobody waits for the settlements that are left.
    pub(crate) given_up: AtomicBool,
    /// Whether the worker's row may still be written: once it is removed, a beat would bring it back.
    pub(crate) may_beat: Mutex<bool>,
    /// How its loops fare.
    pub(super) pulses: Pulses,
    /// By the clock that goes on while the machine sleeps.
    started: Duration,
    dead_after: Duration,
}

impl Lane {
    pub(super) fn new(index: usize, database: Arc<Database>, dead_after: Duration) -> Self {
        Self {
            index,
            database,
            settle: SettleQueue::default(),
            heartbeat_bell: Bell::default(),
            janitor_bell: Bell::default(),
            listener_bell: Bell::default(),
            beat_every: AtomicU64::new(0),
            last_heartbeat: AtomicU64::new(NEVER),
            declared_dead: AtomicU64::new(NEVER),
            in_flight: AtomicUsize::new(0),
            lost_leases: AtomicU64::new(0),
            fetching: AtomicBool::new(true),
            claiming: AtomicBool::new(false),
            threads: AtomicUsize::new(0),
            alive: AtomicUsize::new(0),
            listening: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            worked: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            may_beat: Mutex::new(true),
            pulses: Pulses::default(),
            started: awake::now(),
            dead_after,
        }
    }

    /// Milliseconds since the start, also those that the machine slept.
    fn millis(&self) -> u64 {
        awake::now().saturating_sub(self.started).as_millis() as u64
    }

    /// The same for a moment of that clock.
    fn millis_at(&self, begun: Duration) -> u64 {
        begun.saturating_sub(self.started).as_millis() as u64
    }

    /// Notes a beat that began then, by [`awake::now`].
    pub(crate) fn note_heartbeat(&self, begun: Duration) {
        let at = self.millis_at(begun);
        if self.last_heartbeat.swap(at, Ordering::AcqRel) == NEVER {
            // The fetcher waits for the first one: leases without a worker's row are swept.
            self.database.bell.ring();
        }
    }

    /// Asks for beats at least this often, or for the usual ones again.
    pub(crate) fn beat_at_least_every(&self, pause: Option<Duration>) {
        let millis = pause.map_or(0, |pause| pause.as_millis().max(1) as u64);
        if self.beat_every.swap(millis, Ordering::AcqRel) != millis {
            self.heartbeat_bell.ring();
        }
    }

    pub(crate) fn beat_every(&self) -> Option<Duration> {
        let millis = self.beat_every.load(Ordering::Acquire);
        (millis > 0).then(|| Duration::from_millis(millis))
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
        Duration::from_millis(self.millis().saturating_sub(last)) < self.dead_after.mul_f64(0.9)
    }

    /// Others took the leases that this process had.
    pub(crate) fn note_death(&self) {
        let at = self.millis();
        self.declared_dead.store(at, Ordering::Release);
    }

    /// When others took the leases, the last time: what was claimed before is not ours any more.
    pub(super) fn death(&self) -> u64 {
        self.declared_dead.load(Ordering::Acquire)
    }

    /// Whether the database tells of new work by itself.
    pub(super) fn listens(&self) -> bool {
        self.database.driver().wake_source() == WakeSource::Listen
    }

    /// Whether others may hold the lease of a run that began then, by [`awake::now`].
    pub(crate) fn may_have_lost(&self, begun: Duration) -> bool {
        let died = self.declared_dead.load(Ordering::Acquire);
        let begun = self.millis_at(begun);
        !self.holds_leases() || (died != NEVER && died >= begun)
    }

    /// Whether no more jobs are to be claimed here.
    pub(crate) fn is_stopping(&self, session: &Session) -> bool {
        session.is_stopping() || self.leaving.load(Ordering::Acquire)
    }

    /// Whether the last run of this lane is settled, so that its leases need no more heartbeat.
    pub(crate) fn is_done(&self, session: &Session) -> bool {
        if self.leaving.load(Ordering::Acquire) && self.is_empty() {
            return true;
        }
        // What ended and is not yet settled, perhaps because it waits for a lock, still has a lease.
        let settled = self.is_empty() || self.given_up.load(Ordering::Acquire);
        session.is_stopping() && session.workers_done() && settled
    }

    /// Whether it has leases, or may have in a moment.
    pub(crate) fn has_leases(&self) -> bool {
        self.claiming.load(Ordering::SeqCst) || self.in_flight.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.fetching.load(Ordering::Acquire) && self.in_flight.load(Ordering::Acquire) == 0
    }

    /// Notes runs that are settled, or were settled by their ability in a transaction of its own.
    pub(crate) fn note_settled(&self, session: &Session, runs: usize) {
        self.in_flight.fetch_sub(runs, Ordering::AcqRel);
        if self.leaving.load(Ordering::Acquire) {
            session.note_progress();
        }
    }

    /// Hands a claimed job back unstarted.
    pub(crate) fn give_back(&self, job: Box<ClaimedJob>) {
        self.settle.push(Settlement { job, verdict: Verdict::GiveBack, extras: None });
    }

    /// Starts the threads of the lane. Threads are never joined but counted, because one that
    /// hangs must not keep the process from ending.
    pub(super) fn start(self: &Arc<Self>, session: &Arc<Session>) -> Result<(), Error> {
        type Loop = fn(&Arc<Session>, &Arc<Lane>);
        let mut loops: Vec<(Kind, Loop)> = vec![
            (Kind::Fetch, fetcher::run as Loop),
            (Kind::Settle, settler::run),
            (Kind::Heartbeat, heartbeat::run),
            (Kind::Janitor, janitor::run),
        ];
        // Back before others can have counted our silence.
        self.database.begin_work(self.dead_after / 8, &session.queues);
        self.worked.store(true, Ordering::Release);
        if self.listens() {
            loops.push((Kind::Listen, listener::run));
        }
        // All are counted before the first can end.
        let threads: Vec<_> = loops
            .into_iter()
            .map(|(kind, run)| (LaneThread::new(session, self, kind), run))
            .collect();
        for (thread, run) in threads {
            let name = thread.kind.as_str();
            let started = spawn(&format!("qudo-{name}-{}", self.database.name), move || {
                run(&thread.session, &thread.lane);
            });
            if started.is_err() {
                // Before the others that are counted are dropped: the last of them lets go of the lane.
                self.leaving.store(true, Ordering::Release);
                self.settle.close();
                for bell in [&self.heartbeat_bell, &self.janitor_bell, &self.listener_bell] {
                    bell.ring();
                }
                self.database.bell.ring();
                return started.map_err(Error::no_thread);
            }
        }
        Ok(())
    }
}

/// Counts a thread of a lane for as long as it lives, also when it cannot be started.
struct LaneThread {
    session: Arc<Session>,
    lane: Arc<Lane>,
    kind: Kind,
}

impl LaneThread {
    fn new(session: &Arc<Session>, lane: &Arc<Lane>, kind: Kind) -> Self {
        let thread = Self { session: Arc::clone(session), lane: Arc::clone(lane), kind };
        lane.alive.fetch_add(1, Ordering::AcqRel);
        if thread.counts() {
            lane.threads.fetch_add(1, Ordering::AcqRel);
        }
        thread
    }

    /// The listener blocks on its socket and notices a stop only at its next tick; nothing is lost
    /// when the process ends without it.
    fn counts(&self) -> bool {
        self.kind != Kind::Listen
    }
}

impl Drop for LaneThread {
    fn drop(&mut self) {
        let lane = &self.lane;
        if self.kind == Kind::Fetch {
            lane.fetching.store(false, Ordering::Release);
            // A heartbeat may have waited for the last delivery, and the end of a stop too.
            lane.heartbeat_bell.ring();
            self.session.end_if_overdue();
        }
        if self.counts() {
            let was_last = lane.threads.fetch_sub(1, Ordering::AcqRel) == 1;
            if was_last && lane.worked.swap(false, Ordering::AcqRel) {
                lane.database.end_work();
            }
            self.session.note_progress();
        }
        if lane.alive.fetch_sub(1, Ordering::AcqRel) == 1 && lane.leaving.load(Ordering::Acquire) {
            self.session.end_lane(lane);
        }
    }
}
