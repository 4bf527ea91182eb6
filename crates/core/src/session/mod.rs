//! One run of [`Manager::work`](crate::Manager::work): a worker process with its threads.

mod aftermath;
#[cfg(test)]
mod bed;
pub(crate) mod by_hand;
mod cancels;
mod claimable;
mod claiming;
pub(crate) mod dispatch;
mod fetcher;
pub(crate) mod heart;
mod heartbeat;
mod janitor;
pub(crate) mod lane;
mod life;
mod listener;
mod loops;
pub(crate) mod once;
pub(crate) mod pulses;
mod rhythm;
mod run;
mod settle_queue;
mod settler;
mod settling;
mod shelf;
pub(crate) mod shutdown;
pub(crate) mod start;
pub(crate) mod stop;
mod stranded;
mod tally;
mod uncertain;
mod weight;
pub(crate) mod work;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use uuid::Uuid;

use crate::client::Client;
use crate::database::Database;
use crate::driver::Name;
use crate::driver::{AbilityLease, WorkerInfo, WorkerOrder};
use crate::job::Host;
use crate::tools::sync::{Mutex, RwLock};
use crate::tools::time::Instant;
use dispatch::Dispatch;
use lane::Lane;
use life::Life;
use pulses::LoopReport;
use stop::{Phase, Stop};
use uncertain::Uncertain;

/// At the start the first answer of each database is waited for so long, and its state looked at so often.
const MEETING: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// One run of [`Manager::work`](crate::Manager::work): a worker process with its threads.
///
/// Per database a [`Lane`]; shared: the worker threads.
pub(crate) struct Session {
    pub(crate) client: Arc<Client>,
    /// What jobs know of the manager.
    pub(crate) host: Arc<dyn Host>,
    pub(crate) worker: WorkerInfo,
    pub(crate) dispatch: Dispatch,
    pub(crate) abilities: Arc<[AbilityLease]>,
    pub(crate) queues: Vec<Name>,
    /// Abilities see it through `Job::is_stopping`.
    pub(crate) stop: Arc<Stop>,
    pub(crate) claims: AtomicI64,
    /// Claims of lanes that ended without knowing what they brought, by the identity of their database:
    /// for the next lane that works it.
    pub(crate) left_claims: Mutex<Vec<(Uuid, Uncertain)>>,
    /// Each at its index; where one has ended there is none until another takes its place.
    lanes: RwLock<Vec<Option<Arc<Lane>>>>,
    /// Of lanes that have ended.
    lost_leases: AtomicU64,
    /// Held by a lane from the question which database it works to its first heartbeat there, and by one
    /// that leaves while it looks for others at the same database and removes the worker's row: else the
    /// row of a lane whose database is not known yet would be removed with its leases.
    pub(crate) joining: Mutex<()>,
    /// An operator ordered that it claim nothing.
    quiet: AtomicBool,
    noting_orders: Mutex<()>,
    /// What stops with the work.
    pub(crate) life: Mutex<Option<Life>>,
}

impl Session {
    /// Somebody stored an order in this database.
    pub(crate) fn note_order(&self, database: &str) {
        for lane in self.lanes().iter().filter(|lane| *lane.database.name == *database) {
            lane.note_order();
        }
    }

    /// Whether nothing is to be claimed, from any database.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Acquire)
    }

    /// Notes what one database orders of this process.
    fn note_worker_order(&self, lane: &Lane, order: Option<WorkerOrder>) {
        lane.quieted.store(order.is_some(), Ordering::SeqCst);
        let lanes = self.lanes();
        // Of two heartbeats the later one sees what both learned.
        let _one_at_a_time = self.noting_orders.lock();
        // A database that is away cannot take its order back.
        let says =
            |lane: &Arc<Lane>| lane.database.is_trusted() && lane.quieted.load(Ordering::SeqCst);
        let quiet = lanes.iter().any(says);
        let was_quiet = self.quiet.swap(quiet, Ordering::AcqRel);
        if quiet && !was_quiet {
            // What is not begun goes back to others.
            for lane in &lanes {
                for job in self.dispatch.take_back(lane.index) {
                    lane.give_back(job);
                }
            }
        }
        if quiet != was_quiet {
            let what = if quiet { "claims nothing any more" } else { "claims again" };
            log::info!("worker process {} {what}, as ordered", self.worker.name);
        }
        if was_quiet && !quiet {
            for lane in &lanes {
                lane.ring_all();
            }
        }
        if order == Some(WorkerOrder::Stop) && self.stop.phase() < Phase::Asked {
            log::info!("worker process {} is ordered to stop", self.worker.name);
            self.stop.ask(false);
        }
    }

    pub(crate) fn new(client: &Arc<Client>, host: Arc<dyn Host>) -> Self {
        let program = &client.program;
        let options = &program.options;
        Self {
            client: Arc::clone(client),
            host,
            worker: program.worker_info(),
            dispatch: Dispatch::new(options.workers, options.find_job_limit_size),
            abilities: program.leases(),
            queues: program.queues(),
            stop: Arc::default(),
            claims: AtomicI64::new(1),
            left_claims: Mutex::default(),
            lanes: RwLock::default(),
            lost_leases: AtomicU64::new(0),
            joining: Mutex::default(),
            quiet: AtomicBool::new(false),
            noting_orders: Mutex::default(),
            life: Mutex::default(),
        }
    }

    /// Makes a place for a database among the others.
    pub(crate) fn make_lane(&self, database: &Arc<Database>) -> Arc<Lane> {
        let mut lanes = self.lanes.write();
        let dead_after = self.client.program.options.dead_after;
        let free = lanes.iter().position(Option::is_none);
        let index = free.unwrap_or(lanes.len());
        let (database, stop) = (Arc::clone(database), Arc::clone(&self.stop));
        let lane = Arc::new(Lane::new(index, database, dead_after, stop, &self.dispatch.shelves));
        self.dispatch.add(&lane);
        match free {
            Some(free) => lanes[free] = Some(Arc::clone(&lane)),
            None => lanes.push(Some(Arc::clone(&lane))),
        }
        lane
    }

    /// Lets go of a lane whose database was removed, once the last of its threads ends.
    pub(crate) fn end_lane(&self, ended: &Arc<Lane>) {
        self.lost_leases.fetch_add(ended.lost_leases.load(Ordering::Relaxed), Ordering::Relaxed);
        let mut lanes = self.lanes.write();
        if let Some(place) = lanes.get_mut(ended.index)
            && place.as_ref().is_some_and(|lane| Arc::ptr_eq(lane, ended))
        {
            *place = None;
            self.dispatch.remove(ended);
        }
    }

    /// The lanes that have not ended.
    pub(crate) fn lanes(&self) -> Vec<Arc<Lane>> {
        self.lanes.read().iter().flatten().cloned().collect()
    }

    /// How its loops fare, for each database.
    pub(crate) fn loops(&self) -> Vec<LoopReport> {
        self.lanes().iter().flat_map(|lane| lane.reports().collect::<Vec<_>>()).collect()
    }

    /// How many settlements came too late because the lease was lost.
    pub(crate) fn lost_leases(&self) -> u64 {
        let lanes = self.lanes();
        let now: u64 = lanes.iter().map(|lane| lane.lost_leases.load(Ordering::Relaxed)).sum();
        now + self.lost_leases.load(Ordering::Relaxed)
    }

    /// Whether another lane works the same database: under a second name, or because it was removed and
    /// added again. The worker's row and leases are those of both.
    pub(crate) fn works_elsewhere(&self, ours: &Lane) -> bool {
        let Some(identity) = ours.database.orders.known().identity else { return false };
        self.lanes().iter().any(|lane| {
            let goes_on =
                lane.is_fetching() && !lane.is_leaving() && !lane.database.is_second_name();
            lane.index != ours.index
                && lane.database.orders.known().identity == Some(identity)
                && (goes_on || lane.has_leases())
        })
    }

    /// Waits until every database that is up has told which it is, so that none is worked under two
    /// names; one that does not answer is not waited for.
    pub(crate) fn meet(&self, ours: &Lane) {
        let deadline = Instant::now() + MEETING;
        let met = |lane: &Arc<Lane>| lane.heart.has_beaten() || !lane.database.is_trusted();
        let done = || ours.is_stopping() || self.lanes().iter().all(met);
        let goes_on = || Instant::now() < deadline && !self.stop.is_hard();
        while goes_on() && !self.stop.wait_for(Instant::now() + LOOK_AGAIN, done) {}
    }

    /// Ends the lanes when the last job ended after the time of the stop; each when nothing more can come.
    pub(crate) fn end_if_overdue(&self) {
        if self.stop.is_overdue() {
            let lanes = self.lanes();
            let ended = lanes.iter().filter(|lane| !lane.is_fetching());
            ended.for_each(|lane| lane.settle.close());
        }
    }
}
