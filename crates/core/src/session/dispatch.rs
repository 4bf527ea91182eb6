//! The local queue between claims and worker threads.
//!
//! Each database has its own lane; worker threads take from the lanes in turn, so a database full of work cannot
//! starve another, and a slow one only empties its own lane. A thread takes one job, or some that are over in a
//! moment, which then lie on its [shelf](super::shelf). How much a lane may hold ahead adapts to how long jobs take: nothing while jobs are long,
//! so that other processes can have them; full batches while they are short.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::driver::ClaimedJob;
use crate::session::lane::Lane;
use crate::session::shelf::{Shelf, Shelves};
use crate::tools::sync::{Condvar, Mutex};
use crate::tools::time::Instant;

/// Prefetched work should last about this long: a few claims' worth of round trips.
const HORIZON: Duration = Duration::from_millis(100);

/// The first claims ask for so many (Qudo's `find_job_limit_size`).
const FIRST_LIMIT: u32 = 30;

/// Larger claims gain nothing measurable and lengthen each statement.
const MAX_LIMIT: u32 = 1_000;

/// Arguments claimed ahead from all databases fill about so many bytes at most, whatever their number.
const MAX_BYTES: f64 = 16.0 * 1024.0 * 1024.0;

/// A reservation this old belongs to a database that hangs; its slots are not held for it. A lane that
/// was called to its turn and did not come within this time loses it.
pub(crate) const STALE_RESERVATION: Duration = Duration::from_millis(50);

/// A lane that was given fewer jobs than another comes first until it has had as many, but for eight jobs
/// or a second's work at most: a lane that had nothing to do for an hour must not keep the others waiting
/// for an hour.
const CATCH_UP: u64 = 8;

/// A thread takes so many jobs together at most: more gain nothing.
const MAX_TAKEN: usize = 16;

/// And no more than are over in about this time, so that an urgent job and another thread need not wait for them.
const TAKEN_FOR: Duration = Duration::from_micros(200);

pub(crate) struct Dispatch {
    inner: Mutex<Inner>,
    work: Condvar,
    workers: usize,
    fixed_limit: Option<u32>,
    /// What the worker threads have at hand, by their numbers.
    pub(crate) shelves: Shelves,
}

/// How long runs took.
#[derive(Debug, Default)]
pub(crate) struct Paces {
    runs: u32,
    total: Duration,
    longest: Duration,
}

impl Paces {
    pub(crate) fn note(&mut self, took: Duration) {
        self.runs += 1;
        self.total += took;
        self.longest = self.longest.max(took);
    }
}

struct Inner {
    slots: Vec<Slot>,
    next: usize,
    idle: usize,
    queued: usize,
    /// Moving average of how long a job runs, in seconds; `None` before the first.
    pace: Option<f64>,
    limit: u32,
    last_pop: Instant,
    closed: bool,
    /// The next ticket for a lane that waits for its turn.
    tickets: u64,
    /// Whose shelf was looked at last for jobs that are stuck there.
    look: usize,
}

struct Slot {
    /// `None` once its lane has ended, until another takes its place.
    lane: Option<Arc<Lane>>,
    queue: VecDeque<Box<ClaimedJob>>,
    reserved: Reserved,
    /// The last claim that asked for as many jobs as claims ever do brought them, and none since brought less than it
    /// asked for.
    has_backlog: bool,
    /// Its second fetcher waits until a claim beside the first one's is worth it.
    beside_waits: bool,
    waiting: Option<Waiting>,
    weight: Weight,
    /// How many jobs it was given; raised to so much less than the lane with the most has
    /// as [`CATCH_UP`] says.
    served: u64,
}

/// Which of a lane's fetchers claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claimer {
    First,
    Beside,
}

/// How many jobs the fetchers of a lane are claiming, and since when.
#[derive(Debug, Default)]
struct Reserved([Option<(usize, Instant)>; 2]);

impl Reserved {
    fn put(&mut self, claimer: Claimer, jobs: usize, now: Instant) {
        self.0[claimer as usize] = Some((jobs, now));
    }

    fn take(&mut self, claimer: Claimer) -> usize {
        self.0[claimer as usize].take().map_or(0, |(jobs, _)| jobs)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Those of claims that do not hang.
    fn fresh(&self, now: Instant) -> usize {
        let is_fresh = |since: Instant| now.saturating_duration_since(since) < STALE_RESERVATION;
        self.0.iter().flatten().filter(|(_, since)| is_fresh(*since)).map(|(jobs, _)| jobs).sum()
    }
}

/// A lane that found no worker thread free. Lanes get free threads in the order of their turns: a
/// race for each of them would leave one database's long jobs to what the others let fall.
#[derive(Clone, Copy)]
struct Waiting {
    turn: Turn,
    /// Since when its bell is ringing.
    called: Option<Instant>,
}

/// How many jobs the lane had, and its ticket among those that had as many. Tickets alone would take a
/// turn for good from a lane whose database is slow now and then.
type Turn = (u64, u64);

impl Slot {
    /// Rings once for a lane that waits.
    fn call(&mut self, now: Instant) {
        if let Some(waiting) = &mut self.waiting
            && waiting.called.is_none()
        {
            waiting.called = Some(now);
            if let Some(lane) = &self.lane {
                lane.database.bell.ring();
            }
        }
    }

    /// Whether it waits, and was not called in vain.
    fn may_come(&self, now: Instant) -> bool {
        self.waiting.is_some_and(|waiting| {
            waiting.called.is_none_or(|at| now.saturating_duration_since(at) < STALE_RESERVATION)
        })
    }

    /// Whether it waits for a turn before this one, and may still come.
    fn precedes(&self, turn: Turn, now: Instant) -> bool {
        self.may_come(now) && self.waiting.is_some_and(|waiting| waiting.turn < turn)
    }
}

/// Bytes of an argument: those of the last claim if they were larger, else a moving average.
#[derive(Default)]
struct Weight(f64);

impl Weight {
    /// How many jobs fill so many bytes.
    fn fit(&self, bytes: f64) -> usize {
        (bytes / self.0.max(1.0)).max(1.0) as usize
    }

    fn note(&mut self, jobs: usize, bytes: usize) {
        let weight = bytes as f64 / jobs as f64;
        self.0 = weight.max(self.0 + (weight - self.0) / 4.0);
    }
}

impl Inner {
    /// Threads that nothing is claimed for.
    fn free(&self, now: Instant) -> usize {
        let claimed: usize = self.slots.iter().map(|slot| slot.reserved.fresh(now)).sum();
        self.idle.saturating_sub(self.queued + claimed)
    }

    /// Calls as many lanes as there are free threads, in the order of their turns.
    fn call_waiting(&mut self, now: Instant) {
        let mut free = self.free(now);
        let mut waiting: Vec<_> = (0..self.slots.len())
            .filter_map(|at| Some((self.slots[at].waiting?.turn, at)))
            .collect();
        waiting.sort_unstable();
        for (_, at) in waiting {
            if free == 0 {
                break;
            }
            // One that was called and did not come has lost its turn to the next.
            if self.slots[at].may_come(now) {
                free -= 1;
                self.slots[at].call(now);
            }
        }
    }

    /// Calls all lanes that may claim ahead and have too little, not only the one that a job was just
    /// taken from: one that waits for a free thread since jobs were long would see none any more.
    fn call_low(&mut self, workers: usize, now: Instant) {
        let (target, bytes) = (self.prefetch(workers), self.bytes());
        if target == 0 {
            return;
        }
        for slot in self.slots.iter_mut().filter(|slot| slot.waiting.is_some()) {
            let target = target.min(slot.weight.fit(bytes));
            if slot.queue.len() + slot.reserved.fresh(now) <= target / 2 {
                slot.call(now);
            }
        }
    }

    /// How many jobs a second claim may bring while the first is under way.
    fn room_beside(&self, workers: usize, lane: usize, now: Instant) -> usize {
        let slot = &self.slots[lane];
        // One thread starts jobs in their order.
        if workers == 1 || !slot.has_backlog || slot.reserved.is_empty() {
            return 0;
        }
        // One claim more than a lane without a second may have ahead.
        let (limit, fit) = (self.limit as usize, slot.weight.fit(self.bytes()));
        let target = self.ahead(workers).min(3 * limit).min(fit);
        let have = slot.queue.len() + slot.reserved.fresh(now);
        if have <= target / 2 { (target - have).min(limit) } else { 0 }
    }

    /// Calls the second fetcher of a lane when it is worth it.
    fn call_beside(&mut self, workers: usize, lane: usize, now: Instant) {
        if self.slots[lane].beside_waits && self.room_beside(workers, lane, now) > 0 {
            let slot = &mut self.slots[lane];
            slot.beside_waits = false;
            if let Some(lane) = &slot.lane {
                lane.beside_bell.ring();
            }
        }
    }

    /// By how many jobs a lane may stay behind the one with the most.
    fn credit(&self) -> u64 {
        let jobs = self.pace.map_or(CATCH_UP, |pace| (1.0 / pace.max(1e-7)) as u64);
        jobs.clamp(1, CATCH_UP)
    }

    /// How much a lane may claim ahead: together with the others that have something as much as lasts for
    /// the horizon, for what lies in front of an urgent job is that of all.
    fn prefetch(&self, workers: usize) -> usize {
        self.ahead(workers).min(2 * self.limit as usize)
    }

    /// The same, however many jobs one claim brings.
    fn ahead(&self, workers: usize) -> usize {
        let Some(pace) = self.pace else { return 0 };
        let jobs = HORIZON.as_secs_f64() * workers as f64 / pace.max(1e-7);
        // Less than one job per worker within the horizon: jobs are long, hold none back.
        if jobs < workers as f64 {
            return 0;
        }
        (jobs / self.with_work() as f64).ceil() as usize
    }

    /// How many jobs a thread takes together: a fair share, of jobs that are over in a moment.
    fn together(&self, workers: usize) -> usize {
        let Some(pace) = self.pace else { return 1 };
        let short = (TAKEN_FOR.as_secs_f64() / pace.max(1e-7)) as usize;
        short.min(MAX_TAKEN).min(self.queued.div_ceil(workers)).max(1)
    }

    /// The lane whose settlements go into this queue.
    fn lane_of(&self, token: usize) -> Option<Arc<Lane>> {
        let mut lanes = self.slots.iter().filter_map(|slot| slot.lane.as_ref());
        lanes.find(|lane| lane.settle.token() == token).map(Arc::clone)
    }

    /// How many lanes have something, or are about to.
    fn with_work(&self) -> usize {
        let has = |slot: &&Slot| !slot.queue.is_empty() || !slot.reserved.is_empty();
        self.slots.iter().filter(has).count().max(1)
    }

    /// How many bytes of arguments a lane may claim ahead.
    fn bytes(&self) -> f64 {
        MAX_BYTES / self.with_work() as f64
    }
}

impl Dispatch {
    pub(crate) fn new(workers: usize, fixed_limit: Option<u32>) -> Self {
        let inner = Inner {
            slots: Vec::new(),
            next: 0,
            idle: 0,
            queued: 0,
            pace: None,
            limit: fixed_limit.unwrap_or(FIRST_LIMIT),
            last_pop: Instant::now(),
            closed: false,
            tickets: 0,
            look: 0,
        };
        let shelves = (0..workers).map(|_| Shelf::default()).collect();
        Self { inner: Mutex::new(inner), work: Condvar::new(), workers, fixed_limit, shelves }
    }

    /// Adds a lane at its index: behind the others, or where one has ended.
    pub(crate) fn add(&self, lane: &Arc<Lane>) {
        let slot = Slot {
            lane: Some(Arc::clone(lane)),
            queue: VecDeque::new(),
            reserved: Reserved::default(),
            has_backlog: false,
            beside_waits: false,
            waiting: None,
            weight: Weight::default(),
            served: 0,
        };
        let mut inner = self.inner.lock();
        match inner.slots.get_mut(lane.index) {
            Some(ended) => *ended = slot,
            None => inner.slots.push(slot),
        }
    }

    /// Lets go of a lane that has ended: nothing is left of it, and nothing comes any more.
    pub(crate) fn remove(&self, lane: &Lane) {
        let mut inner = self.inner.lock();
        let slot = &mut inner.slots[lane.index];
        if slot.lane.as_ref().is_some_and(|ours| std::ptr::eq(&raw const **ours, lane)) {
            slot.lane = None;
            (slot.waiting, slot.reserved) = (None, Reserved::default());
        }
    }

    /// How many jobs this lane's fetcher should claim now. 0 means: wait for the lane's bell,
    /// which rings when room appears or the lane's turn comes.
    pub(crate) fn reserve(&self, lane: usize) -> u32 {
        let mut inner = self.inner.lock();
        if inner.closed {
            return 0;
        }
        let now = Instant::now();
        let most = inner.slots.iter().map(|slot| slot.served).max().unwrap_or_default();
        let ticket = inner.tickets;
        let credit = inner.credit();
        let slot = &mut inner.slots[lane];
        slot.served = slot.served.max(most.saturating_sub(credit));
        let turn = slot.waiting.map_or((slot.served, ticket), |waiting| waiting.turn);
        let before = inner.slots.iter().filter(|slot| slot.precedes(turn, now)).count();
        let free = inner.free(now).saturating_sub(before);
        let target = inner.prefetch(self.workers);
        let (limit, bytes) = (inner.limit as usize, inner.bytes());
        let slot = &mut inner.slots[lane];
        let fit = slot.weight.fit(bytes);
        let (target, limit) = (target.min(fit), limit.min(fit));
        let have = slot.queue.len() + slot.reserved.fresh(now);
        let ahead = if have <= target / 2 { target - have } else { 0 };
        let want = free.max(ahead).min(limit);
        if want == 0 {
            slot.waiting = Some(Waiting { turn, called: None });
            inner.tickets += 1;
            inner.call_waiting(now);
        } else {
            slot.waiting = None;
            slot.reserved.put(Claimer::First, want, now);
            inner.call_beside(self.workers, lane, now);
        }
        want as u32
    }

    /// The same for its second fetcher: 0 unless there is a backlog, of which the first is bringing a part, and threads
    /// would be idle before the next part came. Then [`Lane::beside_bell`] rings.
    pub(crate) fn reserve_beside(&self, lane: usize) -> u32 {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        let room = if inner.closed { 0 } else { inner.room_beside(self.workers, lane, now) };
        let slot = &mut inner.slots[lane];
        slot.beside_waits = room == 0;
        if room > 0 {
            slot.reserved.put(Claimer::Beside, room, now);
        }
        room as u32
    }

    /// Gives up the turn of a lane that cannot claim now.
    pub(crate) fn withdraw(&self, lane: usize) {
        let mut inner = self.inner.lock();
        if inner.slots[lane].waiting.take().is_some() {
            inner.call_waiting(Instant::now());
        }
    }

    /// Ends a reservation with what was claimed.
    pub(crate) fn deliver(&self, lane: usize, claimer: Claimer, jobs: Vec<ClaimedJob>) {
        let got = jobs.len();
        let mut inner = self.inner.lock();
        let slot = &mut inner.slots[lane];
        let wanted = slot.reserved.take(claimer);
        // A smaller claim that was full says nothing new.
        if got < wanted || wanted >= MAX_LIMIT as usize {
            slot.has_backlog = got >= wanted && got > 0;
        }
        if got < wanted {
            // Threads that another lane went without are free again.
            inner.queued += got;
            inner.call_waiting(Instant::now());
            inner.queued -= got;
        }
        if got == 0 {
            return;
        }
        inner.slots[lane].served += got as u64;
        let bytes = jobs.iter().map(|job| job.facts.size()).sum();
        inner.slots[lane].weight.note(got, bytes);
        let full = got == wanted && got >= inner.limit as usize;
        if full && self.fixed_limit.is_none() && inner.prefetch(self.workers) > got {
            inner.limit = (inner.limit * 2).min(MAX_LIMIT);
        }
        inner.slots[lane].queue.extend(jobs.into_iter().map(Box::new));
        inner.queued += got;
        let idle = inner.idle;
        drop(inner);
        if got >= idle {
            self.work.notify_all();
        } else {
            for _ in 0..got {
                self.work.notify_one();
            }
        }
    }

    /// Whether a thread is idle for which no job lies here.
    pub(crate) fn has_idle(&self) -> bool {
        let inner = self.inner.lock();
        inner.idle > inner.queued
    }

    /// The next job for the worker thread with this number, with its lane; blocks. `None` when closed and empty.
    /// More of that lane may lie on the thread's shelf then. `paces` is how long its last jobs ran; `before_it_waits`
    /// is called before the thread does.
    pub(crate) fn pop(
        &self,
        thread: usize,
        paces: &Paces,
        mut before_it_waits: impl FnMut(),
    ) -> Option<(Arc<Lane>, Box<ClaimedJob>)> {
        let mut inner = self.inner.lock();
        self.note_paces(&mut inner, paces);
        loop {
            let now = Instant::now();
            if let Some(job) = self.rescue(&mut inner, thread, now) {
                return Some(job);
            }
            let count = inner.slots.len();
            let found = (0..count)
                .map(|step| (inner.next + step) % count)
                .find(|&lane| !inner.slots[lane].queue.is_empty());
            if let Some(lane) = found {
                inner.next = (lane + 1) % count;
                inner.last_pop = now;
                let together = inner.together(self.workers);
                let slot = &mut inner.slots[lane];
                let taken = together.min(slot.queue.len());
                let from = slot.lane.clone().expect("a lane with jobs has not ended");
                let mut jobs = slot.queue.drain(..taken);
                let job = jobs.next().expect("the lane was found not empty");
                self.shelves[thread].fill(from.settle.token(), jobs, now);
                inner.queued -= taken;
                inner.call_low(self.workers, now);
                inner.call_beside(self.workers, lane, now);
                return Some((from, job));
            }
            if let Some(job) = self.steal(&inner, thread, now) {
                return Some(job);
            }
            if inner.closed {
                return None;
            }
            before_it_waits();
            inner.idle += 1;
            inner.call_waiting(Instant::now());
            if inner.slots.iter().any(|slot| slot.waiting.is_some()) {
                // Whoever was called may not come, because its database hangs; then the next is.
                self.work.wait_for(&mut inner, STALE_RESERVATION);
            } else {
                self.work.wait(&mut inner);
            }
            inner.idle -= 1;
        }
    }

    /// Takes over what lies behind a job that turned out to be long. One other thread is looked at each time.
    fn rescue(
        &self,
        inner: &mut Inner,
        thread: usize,
        now: Instant,
    ) -> Option<(Arc<Lane>, Box<ClaimedJob>)> {
        inner.look = (inner.look + 1) % self.shelves.len();
        let other = inner.look;
        let (lane, jobs) = if other == thread { None } else { self.shelves[other].rescue(now) }?;
        self.take_over(inner, thread, lane, jobs, now)
    }

    /// Takes a part of what another thread has at hand, for one that has nothing to do.
    fn steal(
        &self,
        inner: &Inner,
        thread: usize,
        now: Instant,
    ) -> Option<(Arc<Lane>, Box<ClaimedJob>)> {
        let count = self.shelves.len();
        let mut others = (1..count).map(|step| (thread + step) % count);
        let (lane, jobs) = others.find_map(|other| self.shelves[other].steal())?;
        self.take_over(inner, thread, lane, jobs, now)
    }

    fn take_over(
        &self,
        inner: &Inner,
        thread: usize,
        lane: usize,
        mut jobs: VecDeque<Box<ClaimedJob>>,
        now: Instant,
    ) -> Option<(Arc<Lane>, Box<ClaimedJob>)> {
        let from = inner.lane_of(lane).expect("a lane with jobs has not ended");
        let job = jobs.pop_front()?;
        self.shelves[thread].fill(lane, jobs.into_iter(), now);
        Some((from, job))
    }

    /// Follows long jobs at once and short ones slowly, so that one long job stops the prefetch.
    fn note_paces(&self, inner: &mut Inner, paces: &Paces) {
        let Paces { mut runs, mut total, longest } = *paces;
        if runs == 0 {
            return;
        }
        let mut pace = inner.pace.unwrap_or((total / runs).as_secs_f64());
        if longest.as_secs_f64() > pace * 4.0 {
            pace += (longest.as_secs_f64() - pace) * 0.5;
            (runs, total) = (runs - 1, total.saturating_sub(longest));
        }
        if runs > 0 {
            let share = 1.0 - (15.0_f64 / 16.0).powf(runs.into());
            pace += ((total / runs).as_secs_f64() - pace) * share;
        }
        inner.pace = Some(pace);
        if self.fixed_limit.is_none() && inner.prefetch(self.workers) == 0 {
            inner.limit = FIRST_LIMIT;
        }
    }

    #[expect(clippy::vec_box, reason = "the boxes are those of the queue, handed on")]
    /// Takes back the jobs of a lane that no worker thread has started.
    pub(crate) fn take_back(&self, lane: usize) -> Vec<Box<ClaimedJob>> {
        let mut inner = self.inner.lock();
        let mut jobs: Vec<_> = inner.slots[lane].queue.drain(..).collect();
        inner.queued -= jobs.len();
        if let Some(lane) = &inner.slots[lane].lane {
            let token = lane.settle.token();
            jobs.extend(self.shelves.iter().flat_map(|shelf| shelf.take_back(token)));
        }
        jobs
    }

    #[expect(clippy::vec_box, reason = "the boxes are those of the queue, handed on")]
    /// As [`take_back`](Self::take_back), if no worker thread took a job for longer than `limit`: the threads are
    /// busy with long jobs, and another process may be free.
    pub(crate) fn take_back_stuck(&self, lane: usize, limit: Duration) -> Vec<Box<ClaimedJob>> {
        let inner = self.inner.lock();
        // While a thread is idle nothing is stuck: what was delivered a moment ago is about to be taken.
        let stuck = inner.idle == 0 && inner.last_pop.elapsed() > limit;
        drop(inner);
        if stuck { self.take_back(lane) } else { Vec::new() }
    }

    /// Ends the flow: fetchers get no more room, worker threads end when their lanes are empty.
    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.work.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inner(pace: f64, limit: u32) -> Inner {
        let dispatch = Dispatch::new(2, None);
        let mut inner = dispatch.inner.into_inner();
        inner.pace = Some(pace);
        inner.limit = limit;
        inner
    }

    #[test]
    fn long_jobs_are_not_fetched_ahead_and_short_ones_are_in_full_batches() {
        assert_eq!(inner(1.0, 30).prefetch(2), 0);
        assert_eq!(inner(0.2, 30).prefetch(2), 0);
        assert_eq!(inner(0.01, 30).prefetch(2), 20);
        assert_eq!(inner(1e-6, 1000).prefetch(2), 2000);
    }

    #[test]
    fn a_lane_catches_up_by_a_second_of_work_and_by_one_job_if_that_is_longer() {
        let credits = [1e-6, 0.2, 0.5, 600.0].map(|pace| inner(pace, 30).credit());
        assert_eq!(credits, [8, 5, 2, 1]);
    }

    #[test]
    fn large_arguments_are_fetched_ahead_by_their_bytes() {
        let mut weight = Weight::default();
        weight.note(10, 5_000_000);
        assert_eq!(weight.fit(MAX_BYTES), 33);
        weight.note(10, 500);
        assert_eq!(weight.fit(MAX_BYTES), 44, "one light claim does not make it forget");
        weight.note(1, 1_000_000_000);
        assert_eq!(weight.fit(MAX_BYTES), 1, "one at least");
    }

    /// A dispatch with lanes over memory databases and one idle thread.
    fn lanes(count: usize) -> Dispatch {
        lanes_for(1, count)
    }

    fn lanes_for(workers: usize, count: usize) -> Dispatch {
        let dispatch = Dispatch::new(workers, None);
        for index in 0..count {
            let settings = crate::database::Settings {
                retry: HORIZON,
                limit: HORIZON,
                on_change: None,
                identities: Arc::default(),
            };
            let driver: Arc<dyn crate::driver::Driver> =
                Arc::new(crate::memory::MemoryDriver::default());
            let name = Arc::from(format!("lane {index}"));
            let database = crate::database::Database::new(name, driver, settings);
            let (database, stop) = (Arc::new(database), Arc::default());
            dispatch.add(&Arc::new(Lane::new(index, database, HORIZON, stop, &dispatch.shelves)));
        }
        dispatch.inner.lock().idle = 1;
        dispatch
    }

    fn rings(dispatch: &Dispatch, lane: usize) -> bool {
        let lane = dispatch.inner.lock().slots[lane].lane.clone().expect("it has not ended");
        lane.database.bell.wait(Duration::ZERO)
    }

    #[test]
    fn a_free_thread_goes_to_the_lane_that_waits_longest() {
        let dispatch = lanes(3);
        assert_eq!(dispatch.reserve(0), 1);
        assert_eq!((dispatch.reserve(2), dispatch.reserve(1)), (0, 0), "it is taken");
        // The first lane found nothing and is back before the others.
        dispatch.deliver(0, Claimer::First, Vec::new());
        assert!(rings(&dispatch, 2) && !rings(&dispatch, 1), "the turn is the third lane's");
        assert_eq!(dispatch.reserve(0), 0);
        assert_eq!(dispatch.reserve(1), 0);
        assert_eq!(dispatch.reserve(2), 1);
        dispatch.deliver(2, Claimer::First, Vec::new());
        assert!(rings(&dispatch, 1));
        assert_eq!((dispatch.reserve(2), dispatch.reserve(1)), (0, 1));
    }

    #[test]
    fn what_was_delivered_to_an_idle_thread_is_not_stuck() {
        let dispatch = lanes(1);
        let long_ago = Instant::now().checked_sub(10 * HORIZON).expect("a running machine");
        dispatch.inner.lock().last_pop = long_ago;
        dispatch.deliver(0, Claimer::First, vec![job()]);
        assert!(dispatch.take_back_stuck(0, HORIZON).is_empty(), "the thread is about to take it");
        dispatch.inner.lock().idle = 0;
        assert_eq!(dispatch.take_back_stuck(0, HORIZON).len(), 1, "all threads are busy");
    }

    fn job() -> ClaimedJob {
        use crate::driver::{Flags, JobFacts};

        ClaimedJob {
            id: qudo_hooks::JobId::new(),
            facts: JobFacts::new("it", "default", "json", Vec::new()),
            attempt: 1,
            crashes: 0,
            flags: Flags::NONE,
            claim: 1,
            ordinal: 0,
            ready_since: Instant::now(),
            enqueued_at: crate::tools::time::utc_now(),
        }
    }

    /// The number of jobs that this thread has at hand, which it has none of then.
    fn at_hand(dispatch: &Dispatch, thread: usize) -> usize {
        let next = || dispatch.shelves[thread].exchange(None, Instant::now()).next;
        std::iter::from_fn(next).count()
    }

    fn pop(dispatch: &Dispatch, thread: usize) {
        dispatch.pop(thread, &Paces::default(), || {}).expect("there is one");
    }

    #[test]
    fn short_jobs_are_taken_together_in_fair_shares_and_long_ones_one_by_one() {
        let dispatch = lanes_for(2, 1);
        let deliver = |count: usize, pace: Option<f64>| {
            dispatch.inner.lock().pace = pace;
            dispatch.deliver(0, Claimer::First, std::iter::repeat_with(job).take(count).collect());
            pop(&dispatch, 0);
            let taken = 1 + at_hand(&dispatch, 0);
            dispatch.take_back(0);
            taken
        };
        assert_eq!(deliver(100, None), 1, "nobody knows yet how long they take");
        assert_eq!(deliver(100, Some(1e-6)), MAX_TAKEN);
        assert_eq!(deliver(6, Some(1e-6)), 3, "the other thread is to have its half");
        assert_eq!(deliver(100, Some(50e-6)), 4, "they are over in a moment");
        assert_eq!(deliver(100, Some(0.01)), 1);
    }

    #[test]
    fn a_thread_with_nothing_to_do_takes_half_of_what_another_has_at_hand() {
        let dispatch = lanes_for(2, 1);
        dispatch.inner.lock().pace = Some(1e-6);
        dispatch.deliver(0, Claimer::First, std::iter::repeat_with(job).take(10).collect());
        pop(&dispatch, 0);
        dispatch.inner.lock().slots[0].queue.clear();
        pop(&dispatch, 1);
        assert_eq!((at_hand(&dispatch, 1), at_hand(&dispatch, 0)), (1, 2), "of four");
    }

    #[test]
    fn what_lies_behind_a_long_job_is_taken_by_a_thread_that_has_enough_to_do() {
        let dispatch = lanes_for(2, 1);
        dispatch.inner.lock().pace = Some(1e-6);
        dispatch.deliver(0, Claimer::First, std::iter::repeat_with(job).take(100).collect());
        pop(&dispatch, 0);
        let long_ago = Instant::now().checked_sub(HORIZON).expect("a running machine");
        let lane = dispatch.inner.lock().slots[0].lane.clone().expect("it has not ended");
        let jobs = dispatch.shelves[0].take_back(lane.settle.token());
        dispatch.shelves[0].fill(lane.settle.token(), jobs.into_iter(), long_ago);
        for _ in 0..2 {
            // One of the two looks at the other's shelf.
            pop(&dispatch, 1);
            at_hand(&dispatch, 1);
        }
        assert_eq!(at_hand(&dispatch, 0), 0);
    }

    #[test]
    fn what_threads_have_at_hand_is_given_back_with_the_rest() {
        let dispatch = lanes_for(2, 2);
        dispatch.inner.lock().pace = Some(1e-6);
        dispatch.deliver(0, Claimer::First, std::iter::repeat_with(job).take(40).collect());
        pop(&dispatch, 0);
        assert!(dispatch.take_back(1).is_empty(), "it is another lane's");
        assert_eq!(dispatch.take_back(0).len(), 39);
    }

    #[test]
    fn a_lane_that_lost_its_turn_has_it_later() {
        let dispatch = lanes(2);
        for _ in 0..3 {
            assert_eq!(dispatch.reserve(0), 1, "the other does not come");
            dispatch.deliver(0, Claimer::First, vec![job()]);
            dispatch.pop(0, &Paces::default(), || {}).expect("delivered");
        }
        dispatch.inner.lock().idle = 0;
        assert_eq!((dispatch.reserve(0), dispatch.reserve(1)), (0, 0));
        dispatch.inner.lock().idle = 1;
        dispatch.inner.lock().call_waiting(Instant::now());
        assert!(rings(&dispatch, 1) && !rings(&dispatch, 0), "it had three less");
        assert_eq!((dispatch.reserve(0), dispatch.reserve(1)), (0, 1));
    }

    #[test]
    fn a_second_claim_is_made_only_beside_one_that_brings_a_part_of_a_backlog() {
        let dispatch = lanes_for(2, 1);
        dispatch.inner.lock().pace = Some(1e-6);
        dispatch.inner.lock().limit = MAX_LIMIT;
        let bell = dispatch.inner.lock().slots[0].lane.clone().expect("it has not ended");
        let rings = || bell.beside_bell.wait(Duration::ZERO);
        assert_eq!(dispatch.reserve_beside(0), 0, "nothing is known of a backlog");
        let deliver = |count: usize| {
            dispatch.deliver(0, Claimer::First, std::iter::repeat_with(job).take(count).collect());
        };
        assert_eq!(dispatch.reserve(0), 1_000);
        assert!(!rings(), "nor is it now");
        deliver(1_000);
        assert_eq!(dispatch.reserve_beside(0), 0, "no other claim is under way");
        assert_eq!(dispatch.reserve(0), 1_000);
        assert_eq!(dispatch.reserve_beside(0), 0, "what lies here lasts until it is back");
        while dispatch.inner.lock().queued > 500 {
            assert!(!rings());
            pop(&dispatch, 0);
            at_hand(&dispatch, 0);
        }
        assert!(rings());
        assert!((900..=1_000).contains(&dispatch.reserve_beside(0)));
        assert_eq!(dispatch.reserve_beside(0), 0, "it is the second");
        deliver(999);
        assert!(!rings(), "the end of the backlog");
    }

    #[test]
    fn one_thread_and_large_arguments_need_no_second_claim() {
        for (workers, size, calls) in [(2, 50, true), (1, 50, false), (2, 100_000, false)] {
            let dispatch = lanes_for(workers, 1);
            let mut inner = dispatch.inner.lock();
            (inner.pace, inner.limit, inner.idle) = (Some(1e-6), MAX_LIMIT, 0);
            let slot = &mut inner.slots[0];
            slot.has_backlog = true;
            slot.weight.note(1, size);
            slot.reserved.put(Claimer::First, 1_000, Instant::now());
            drop(inner);
            assert_eq!(dispatch.reserve_beside(0) > 0, calls, "{workers} threads, {size} bytes");
        }
    }

    #[test]
    fn a_second_claim_that_hangs_leaves_the_first_all_the_room() {
        let dispatch = lanes_for(2, 1);
        let mut inner = dispatch.inner.lock();
        (inner.pace, inner.limit, inner.idle) = (Some(0.000_5), MAX_LIMIT, 0);
        let long_ago = Instant::now().checked_sub(10 * HORIZON).expect("a running machine");
        inner.slots[0].reserved.put(Claimer::Beside, 1_000, long_ago);
        drop(inner);
        assert_eq!(dispatch.reserve(0), 400, "as much as lasts for the horizon");
    }

    #[test]
    fn a_lane_that_had_nothing_to_do_is_let_catch_up_by_a_few_jobs_only() {
        let dispatch = lanes(2);
        dispatch.inner.lock().slots[0].served = 1_000;
        dispatch.inner.lock().idle = 0;
        assert_eq!(dispatch.reserve(1), 0);
        assert_eq!(dispatch.inner.lock().slots[1].served, 1_000 - CATCH_UP);
    }

    #[test]
    fn a_lane_that_waits_since_jobs_were_long_is_called_when_they_are_short() {
        let dispatch = lanes(2);
        assert_eq!(dispatch.reserve(0), 1);
        dispatch.deliver(0, Claimer::First, vec![job()]);
        dispatch.inner.lock().idle = 0;
        assert_eq!((dispatch.reserve(0), dispatch.reserve(1)), (0, 0), "the one thread is busy");
        dispatch.inner.lock().idle = 1;
        dispatch.inner.lock().pace = Some(0.02);
        dispatch.inner.lock().slots[0].waiting = None;
        dispatch.pop(0, &Paces::default(), || {}).expect("delivered");
        assert!(rings(&dispatch, 1), "no thread is ever free for it again");
        dispatch.inner.lock().idle = 0;
        assert!(dispatch.reserve(1) > 0);
    }

    #[test]
    fn a_thread_that_waits_calls_the_next_lane_when_the_first_does_not_come() {
        let dispatch = lanes(2);
        dispatch.inner.lock().idle = 0;
        assert_eq!((dispatch.reserve(0), dispatch.reserve(1)), (0, 0));
        std::thread::scope(|scope| {
            scope.spawn(|| dispatch.pop(0, &Paces::default(), || {}));
            let bell = |lane: usize| dispatch.inner.lock().slots[lane].lane.clone().expect("works");
            let rings = |lane: usize| bell(lane).database.bell.wait(Duration::from_secs(10));
            let rung = [rings(0), rings(1)];
            // Else the thread would wait for ever when a lane was not called.
            dispatch.close();
            assert!(rung[0], "it waits longest");
            assert!(rung[1], "the first hangs");
        });
    }

    #[test]
    fn a_lane_that_does_not_come_loses_its_turn() {
        let dispatch = lanes(2);
        assert_eq!((dispatch.reserve(0), dispatch.reserve(1)), (1, 0));
        dispatch.deliver(0, Claimer::First, Vec::new());
        assert_eq!(dispatch.reserve(0), 0, "the other is called");
        let long_ago = Instant::now().checked_sub(2 * STALE_RESERVATION);
        if let Some(waiting) = &mut dispatch.inner.lock().slots[1].waiting {
            waiting.called = long_ago;
        }
        assert_eq!(dispatch.reserve(0), 1);
    }

    #[test]
    fn the_turn_of_a_lane_that_does_not_come_or_cannot_goes_to_the_next() {
        let dispatch = lanes(3);
        assert_eq!((dispatch.reserve(0), dispatch.reserve(1), dispatch.reserve(2)), (1, 0, 0));
        dispatch.deliver(0, Claimer::First, Vec::new());
        assert!(rings(&dispatch, 1) && !rings(&dispatch, 2));
        let long_ago = Instant::now().checked_sub(2 * STALE_RESERVATION);
        if let Some(waiting) = &mut dispatch.inner.lock().slots[1].waiting {
            waiting.called = long_ago;
        }
        assert_eq!(dispatch.reserve(0), 0, "the third lane's turn comes first");
        assert!(rings(&dispatch, 2));
        dispatch.withdraw(2);
        assert!(rings(&dispatch, 0), "its database is down");
        assert_eq!(dispatch.reserve(0), 1);
    }

    #[test]
    fn one_long_job_among_short_ones_stops_the_prefetch_at_once() {
        let dispatch = Dispatch::new(2, None);
        let mut inner = inner(1e-6, 1000);
        let mut paces = Paces::default();
        paces.note(Duration::from_micros(1));
        paces.note(Duration::from_secs(10));
        dispatch.note_paces(&mut inner, &paces);
        assert_eq!(inner.prefetch(2), 0);
        assert_eq!(inner.limit, FIRST_LIMIT);
    }
}
