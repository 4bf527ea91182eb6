//! What a session holds per database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use qudo_hooks::JobId;

use super::cancels::Cancels;
use super::heart::Heart;
use super::pulses::{Kind, LoopReport, Pulses};
use super::settle_queue::SettleQueue;
use super::shelf::Shelves;
use super::stop::{Phase, Progress, Stop};
use super::tally::Tally;
use crate::database::Database;
use crate::driver::{ClaimedJob, Settlement, Tidings, Verdict, WakeSource};
use crate::job::Tenure;
use crate::tools::awake;
use crate::tools::bell::Bell;
use crate::tools::sync::Mutex;

/// The state shared by the loops of one database: fetcher, settler, heartbeat, janitor, listener.
pub(crate) struct Lane {
    pub(crate) index: usize,
    pub(crate) database: Arc<Database>,
    pub(crate) settle: SettleQueue,
    pub(crate) heart: Heart,
    /// How its loops fare.
    pub(crate) pulses: Pulses,
    /// Wakes the second fetcher when a claim beside the first one's is worth it.
    pub(crate) beside_bell: Bell,
    /// The runs that the database was not told of yet.
    pub(crate) tally: Tally,
    /// Jobs that are to end.
    pub(crate) cancels: Cancels,
    /// This database has an order that the process be quiet, or stop.
    pub(super) quieted: AtomicBool,
    /// Somebody stored an order: the next heartbeat is due.
    ordered: AtomicBool,
    /// Wakes the heartbeat thread before its time, at shutdown.
    pub(crate) heartbeat_bell: Bell,
    /// The same for the janitor.
    pub(crate) janitor_bell: Bell,
    /// The same for the listener.
    pub(crate) listener_bell: Bell,
    /// Claimed and not yet settled.
    pub(crate) in_flight: AtomicUsize,
    /// Settlements that came too late because the lease was lost.
    pub(crate) lost_leases: AtomicU64,
    /// How many fetchers may still bring jobs.
    fetching: AtomicUsize,
    /// How many claims are under way, or what they brought is not counted yet.
    pub(crate) claiming: AtomicUsize,
    /// Threads of the lane whose end is waited for.
    waited_for: AtomicUsize,
    /// All threads of the lane.
    alive: AtomicUsize,
    /// The database tells of new work at this moment, so it need not be asked.
    pub(crate) listening: AtomicBool,
    /// How far jobs are is being stored.
    pub(super) is_storing: Arc<AtomicBool>,
    /// How far jobs are could not be stored, and that was said.
    pub(super) said_progress: AtomicBool,
    /// Until when others are told of the ends of jobs, and of what they tell, in milliseconds by [`awake::now`].
    told_until: AtomicU64,
    /// Whether the worker's row may still be written: once it is removed, a beat would bring it back.
    pub(crate) may_beat: Mutex<bool>,
    /// The end of the session.
    pub(crate) stop: Arc<Stop>,
    /// The end of this lane alone, because its database is being removed; or that nobody waits for what is left.
    progress: Progress,
}

impl Lane {
    pub(crate) fn new(
        index: usize,
        database: Arc<Database>,
        dead_after: Duration,
        stop: Arc<Stop>,
        shelves: &Shelves,
    ) -> Self {
        Self {
            index,
            database,
            settle: SettleQueue::over(shelves),
            heart: Heart::new(dead_after),
            pulses: Pulses::default(),
            beside_bell: Bell::default(),
            tally: Tally::default(),
            cancels: Cancels::default(),
            quieted: AtomicBool::new(false),
            ordered: AtomicBool::new(false),
            heartbeat_bell: Bell::default(),
            janitor_bell: Bell::default(),
            listener_bell: Bell::default(),
            in_flight: AtomicUsize::new(0),
            lost_leases: AtomicU64::new(0),
            fetching: AtomicUsize::new(1),
            claiming: AtomicUsize::new(0),
            waited_for: AtomicUsize::new(0),
            alive: AtomicUsize::new(0),
            listening: AtomicBool::new(false),
            is_storing: Arc::default(),
            said_progress: AtomicBool::new(false),
            told_until: AtomicU64::new(0),
            may_beat: Mutex::new(true),
            stop,
            progress: Progress::default(),
        }
    }

    /// Whether the database tells of new work by itself.
    pub(crate) fn listens(&self) -> bool {
        self.database.driver().wake_source() == WakeSource::Listen
    }

    /// Whether two claims at a time are faster than one after the other.
    pub(crate) fn claims_side_by_side(&self) -> bool {
        self.database.driver().claims_side_by_side()
    }

    pub(crate) fn reports(&self) -> impl Iterator<Item = LoopReport> {
        let (listens, two) = (self.listens(), self.claims_side_by_side());
        self.pulses.reports(&self.database.name, move |kind| match kind {
            Kind::FetchBeside => two,
            Kind::Listen => listens,
            _ => true,
        })
    }

    // Its end.

    /// Ends this lane while the others go on.
    pub(crate) fn leave(&self) {
        self.progress.advance(Phase::Stopping);
    }

    /// Nobody waits for the settlements that are left.
    pub(crate) fn give_up(&self) {
        self.progress.advance(Phase::GivenUp);
    }

    /// Whether its database is being removed, and somebody still looks.
    pub(crate) fn is_leaving(&self) -> bool {
        self.progress.phase() == Phase::Stopping
    }

    /// Whether no more jobs are to be claimed here.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_stopping() || self.is_leaving()
    }

    /// Whether what is left is abandoned. After `shutdown_timeout` settlements are tried only while no other process can
    /// have rescued the jobs.
    pub(crate) fn is_given_up(&self) -> bool {
        self.progress.phase() == Phase::GivenUp
            || (self.stop.is_overdue() && !self.heart.holds_leases())
    }

    /// Whether the last run of this lane is settled, so that its leases need no more heartbeat.
    pub(crate) fn is_done(&self) -> bool {
        if self.is_leaving() && self.is_empty() {
            return true;
        }
        // What ended and is not yet settled, perhaps because it waits for a lock, still has a lease.
        let settled = self.is_empty() || self.progress.phase() == Phase::GivenUp;
        self.stop.is_stopping() && self.stop.workers() == 0 && settled
    }

    /// Wakes all loops that sleep.
    pub(crate) fn ring_all(&self) {
        self.database.bell.ring();
        let (beside, heartbeat) = (&self.beside_bell, &self.heartbeat_bell);
        for bell in [beside, heartbeat, &self.janitor_bell, &self.listener_bell] {
            bell.ring();
        }
    }

    // Orders of operators.

    /// Somebody stored an order: it is read now, and not with the next regular heartbeat.
    pub(crate) fn note_order(&self) {
        self.ordered.store(true, Ordering::Release);
        self.heartbeat_bell.ring();
    }

    /// Whether an order was stored that was not read yet.
    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered.load(Ordering::Acquire)
    }

    /// From here on it is read.
    pub(crate) fn reads_orders(&self) {
        self.ordered.store(false, Ordering::Release);
    }

    // Those who wait for its jobs in other processes.

    /// Somebody asks for news: for a minute others are told.
    pub(crate) fn note_asked(&self) {
        self.told_until.store(millis(awake::now() + TOLD_FOR), Ordering::Release);
        // How far the jobs are is stored sooner from now on.
        self.heartbeat_bell.ring();
    }

    /// Whether somebody asked for news a short while ago.
    pub(crate) fn is_asked(&self) -> bool {
        let until = self.told_until.load(Ordering::Acquire);
        until != 0 && millis(awake::now()) < until
    }

    /// Tells other processes that these jobs ended, if any asked.
    pub(crate) fn tell_ends(&self, jobs: impl Iterator<Item = JobId>) {
        if self.is_asked() {
            let jobs: Vec<_> = jobs.collect();
            self.database.driver().tell_news(Tidings::Ended(&jobs));
        }
    }

    /// Tells other processes that these jobs told something, if any asked.
    pub(crate) fn tell_news_of(&self, jobs: &[JobId]) {
        if self.is_asked() {
            self.database.driver().tell_news(Tidings::Told(jobs));
        }
    }

    // What it has.

    /// Whether it has leases, or may have in a moment.
    pub(crate) fn has_leases(&self) -> bool {
        self.claiming.load(Ordering::SeqCst) > 0 || self.in_flight.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn is_fetching(&self) -> bool {
        self.fetching.load(Ordering::Acquire) > 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.is_fetching() && self.in_flight.load(Ordering::Acquire) == 0
    }

    /// Notes runs that are settled, or were settled by their ability in a transaction of its own.
    pub(crate) fn note_settled(&self, runs: usize) {
        self.in_flight.fetch_sub(runs, Ordering::AcqRel);
        if self.is_leaving() {
            self.stop.note();
        }
    }

    /// Hands a claimed job back unstarted.
    pub(crate) fn give_back(&self, job: Box<ClaimedJob>) {
        self.settle.push(Settlement { job, verdict: Verdict::GiveBack, extras: None });
    }

    // Its threads. None is joined: one that hangs must not keep the process from ending.

    /// Counts a thread, until [`end_thread`](Self::end_thread).
    pub(crate) fn begin_thread(&self, is_waited_for: bool) {
        self.alive.fetch_add(1, Ordering::AcqRel);
        self.waited_for.fetch_add(usize::from(is_waited_for), Ordering::AcqRel);
    }

    /// Tells whether it was the last of those that are waited for, and of all.
    pub(crate) fn end_thread(&self, was_waited_for: bool) -> (bool, bool) {
        let last_waited_for = was_waited_for && self.waited_for.fetch_sub(1, Ordering::AcqRel) == 1;
        (last_waited_for, self.alive.fetch_sub(1, Ordering::AcqRel) == 1)
    }

    /// A second fetcher brings jobs too.
    pub(crate) fn begin_fetching(&self) {
        self.fetching.fetch_add(1, Ordering::AcqRel);
    }

    /// A fetcher brings nothing any more.
    pub(crate) fn end_fetching(&self) {
        self.fetching.fetch_sub(1, Ordering::AcqRel);
        // A heartbeat may have waited for the last delivery.
        self.heartbeat_bell.ring();
    }

    /// Whether the threads whose end is waited for have ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.waited_for.load(Ordering::Acquire) == 0
    }
}

/// How long other processes are told of ends and news after one of them asked.
const TOLD_FOR: Duration = Duration::from_secs(60);

fn millis(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX)
}

impl Tenure for Lane {
    fn is_stopping(&self) -> bool {
        self.is_stopping()
    }

    fn may_have_lost(&self, begun: Duration) -> bool {
        self.heart.may_have_lost(begun)
    }

    fn cancelled(&self, job: JobId, claim: i64) -> Option<Arc<str>> {
        self.cancels.reason(job, claim)
    }

    fn tell_news(&self, job: JobId) {
        self.tell_news_of(&[job]);
    }

    fn watch_cancel(&self, job: JobId, number: u64, waker: Option<&Waker>) {
        self.cancels.watch(job, number, waker);
    }
}
