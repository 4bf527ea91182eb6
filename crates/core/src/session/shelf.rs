//! What a worker thread has at hand: jobs that it took together, and its runs that ended.
//!
//! Threads that took each job from the common queue, and put each end into another, would wait for each other on
//! many processors. Here a thread comes there once for some jobs. Its own lock is its alone, as a rule; it is there
//! because the first of them may turn out to be a long one, and then another thread takes the others, and the
//! settler what ended before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::weight::weight;
use crate::driver::{ClaimedJob, Settlement};
use crate::tools::sync::Mutex;
use crate::tools::time::Instant;

/// A run that ended with more bytes than this is not kept here.
const MAX_BYTES: usize = 64 * 1024;

/// A thread that is at one job for so long is not coming back for the next soon.
const STUCK: Duration = Duration::from_millis(2);

/// The shelves of all threads.
pub(crate) type Shelves = Arc<[Shelf]>;

/// One of a worker thread.
#[derive(Default)]
pub(crate) struct Shelf(Mutex<Held>);

#[derive(Default)]
struct Held {
    /// Whose all of it is, by [`SettleQueue::token`](super::settle_queue::SettleQueue::token).
    lane: usize,
    jobs: VecDeque<Box<ClaimedJob>>,
    /// Since when the thread is at the job that it took last.
    since: Option<Instant>,
    ended: Vec<Settlement>,
    /// The settler has nothing to do, so that the next end is handed over at once.
    settler_waits: bool,
}

/// What a thread gets when it comes back from a job.
pub(super) struct Exchanged {
    pub(super) next: Option<Box<ClaimedJob>>,
    /// Runs that are to be handed over.
    pub(super) ended: Vec<Settlement>,
}

impl Shelf {
    /// Puts a run that ended there, if one did, and takes the next job.
    pub(super) fn exchange(&self, ended: Option<Settlement>, now: Instant) -> Exchanged {
        let is_large = ended.as_ref().is_some_and(|one| weight(one) > MAX_BYTES);
        let mut held = self.0.lock();
        held.ended.extend(ended);
        let next = held.jobs.pop_front();
        held.since = Some(now);
        let hand_over = !held.ended.is_empty()
            && (next.is_none() || is_large || std::mem::take(&mut held.settler_waits));
        let ended = if hand_over { std::mem::take(&mut held.ended) } else { Vec::new() };
        Exchanged { next, ended }
    }

    /// Fills an empty one with jobs of this lane.
    pub(super) fn fill(
        &self,
        lane: usize,
        jobs: impl Iterator<Item = Box<ClaimedJob>>,
        now: Instant,
    ) {
        let mut held = self.0.lock();
        debug_assert!(held.jobs.is_empty() && held.ended.is_empty(), "it was handed over before");
        held.lane = lane;
        held.jobs.extend(jobs);
        held.since = Some(now);
        // It may have begun to wait before there was anything of its lane here.
        held.settler_waits = true;
    }

    /// Takes all of a thread's jobs, if it is stuck, and tells whose they are.
    pub(super) fn rescue(&self, now: Instant) -> Option<(usize, VecDeque<Box<ClaimedJob>>)> {
        let mut held = self.0.try_lock()?;
        let is_stuck = held.since.is_some_and(|since| now.saturating_duration_since(since) > STUCK);
        (is_stuck && !held.jobs.is_empty()).then(|| (held.lane, std::mem::take(&mut held.jobs)))
    }

    /// Takes half of a thread's jobs, the last of them, and tells whose they are.
    pub(super) fn steal(&self) -> Option<(usize, VecDeque<Box<ClaimedJob>>)> {
        let mut held = self.0.lock();
        let kept = held.jobs.len() / 2;
        (!held.jobs.is_empty()).then(|| (held.lane, held.jobs.split_off(kept)))
    }

    /// Takes the jobs of this lane that were not begun.
    pub(super) fn take_back(&self, lane: usize) -> VecDeque<Box<ClaimedJob>> {
        let mut held = self.0.lock();
        if held.lane == lane { std::mem::take(&mut held.jobs) } else { VecDeque::new() }
    }

    /// Takes the runs of this lane that ended. If there are none and the settler is about to wait, it is told of
    /// the next at once.
    pub(super) fn collect(&self, lane: usize, waits: bool) -> Vec<Settlement> {
        let mut held = self.0.lock();
        if held.lane != lane {
            return Vec::new();
        }
        held.settler_waits |= waits && held.ended.is_empty();
        std::mem::take(&mut held.ended)
    }

    /// Whether runs of this lane lie here.
    pub(super) fn has_ended(&self, lane: usize) -> bool {
        let held = self.0.lock();
        held.lane == lane && !held.ended.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Deadline, Verdict};
    use crate::fixture::{self, memory, worker};

    fn jobs(count: usize) -> VecDeque<Box<ClaimedJob>> {
        let (driver, worker) = (memory(), worker());
        driver.insert(&fixture::records(count), Deadline::NONE).expect("stored");
        fixture::claim(&*driver, &worker, 1).into_iter().map(Box::new).collect()
    }

    fn end(job: Box<ClaimedJob>) -> Settlement {
        Settlement { job, verdict: Verdict::Complete, extras: None }
    }

    #[test]
    fn ends_are_handed_over_together_but_the_first_and_whatever_the_settler_waits_for() {
        let (shelf, now) = (Shelf::default(), Instant::now());
        shelf.fill(7, jobs(4).into_iter(), now);
        let first = shelf.exchange(None, now);
        assert!(first.ended.is_empty());
        let second = shelf.exchange(first.next.map(end), now);
        assert_eq!(second.ended.len(), 1, "the settler may wait since before");
        let third = shelf.exchange(second.next.map(end), now);
        assert_eq!(third.ended.len(), 0);
        assert!(shelf.has_ended(7) && !shelf.has_ended(8));
        assert_eq!((shelf.collect(8, true).len(), shelf.collect(7, true).len()), (0, 1));
        assert!(shelf.collect(7, true).is_empty(), "it waits from now on");
        let fourth = shelf.exchange(third.next.map(end), now);
        assert_eq!(fourth.ended.len(), 1);
        let last = shelf.exchange(fourth.next.map(end), now);
        assert_eq!((last.next.is_none(), last.ended.len()), (true, 1), "nothing is left here");
    }

    #[test]
    fn a_large_end_is_handed_over_at_once() {
        let (shelf, now) = (Shelf::default(), Instant::now());
        shelf.fill(7, jobs(3).into_iter(), now);
        let first = shelf.exchange(None, now);
        let second = shelf.exchange(first.next.map(end), now);
        assert_eq!(second.ended.len(), 1);
        let mut large = second.next.map(end).expect("there are three");
        large.job.facts.arg = vec![0; MAX_BYTES + 1];
        assert_eq!(shelf.exchange(Some(large), now).ended.len(), 1);
    }

    #[test]
    fn what_lies_behind_a_long_job_is_taken_by_others() {
        let (shelf, now) = (Shelf::default(), Instant::now());
        assert!(shelf.steal().is_none() && shelf.rescue(now).is_none());
        shelf.fill(7, jobs(5).into_iter(), now);
        assert!(shelf.rescue(now + STUCK / 2).is_none(), "it may come back any moment");
        let (lane, stolen) = shelf.steal().expect("an idle thread need not wait");
        assert_eq!((lane, stolen.len()), (7, 3));
        let (_, rescued) = shelf.rescue(now + 2 * STUCK).expect("it is stuck");
        assert_eq!(rescued.len(), 2);
        assert!(shelf.exchange(None, now).next.is_none());
        shelf.fill(7, rescued.into_iter(), now);
        assert_eq!((shelf.take_back(8).len(), shelf.take_back(7).len()), (0, 2));
    }
}
