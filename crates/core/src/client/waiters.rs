//! Threads that wait for the end of a job, woken by its id when this process settles it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use qudo_hooks::JobId;

use crate::driver::News;

use crate::tools::guard::say;
use crate::tools::sync::{Condvar, Mutex};
use crate::tools::time::Instant;

/// Who waits for which job.
///
/// Noting an end costs one atomic load while nobody waits: settlers note every batch.
#[derive(Default)]
pub(crate) struct Waiters {
    count: AtomicUsize,
    jobs: Mutex<HashMap<JobId, (usize, Arc<Ended>)>>,
}

/// What the threads that wait for one job are told.
#[derive(Default)]
pub(super) struct Ended {
    told: Mutex<Told>,
    changed: Condvar,
    /// Of the tasks that await it, by their numbers.
    wakers: Mutex<HashMap<u64, Waker>>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
struct Told {
    /// How often the job ended: once, but for one that is enqueued again under its id.
    times: u64,
    /// How often they were called to look for the ends of all.
    calls: u64,
    /// How often it told something while it ran.
    news: u64,
}

/// Why a thread woke.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Woken {
    Ended,
    Called,
    TimeIsUp,
}

impl Ended {
    fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told.lock());
        self.changed.notify_all();
        // Taken out first: a waker may do anything.
        let wakers = std::mem::take(&mut *self.wakers.lock());
        for waker in wakers.into_values() {
            say(|| waker.wake());
        }
    }

    /// The task of this number is woken by the next thing that is told; or no more.
    pub(super) fn set_waker(&self, number: u64, waker: Option<&Waker>) {
        let mut wakers = self.wakers.lock();
        let former = match waker {
            Some(waker) => wakers.insert(number, waker.clone()),
            None => wakers.remove(&number),
        };
        drop(wakers);
        drop(former);
    }

    /// Calls those who wait to look for all.
    pub(super) fn call(&self) {
        self.tell(|told| told.calls += 1);
    }
}

impl Waiters {
    /// Announces interest; hold it over the look that precedes the wait, so that no end between the look
    /// and the wait is missed.
    pub(crate) fn watch(&self, job: JobId) -> Watch<'_> {
        self.count.fetch_add(1, Ordering::SeqCst);
        let mut jobs = self.jobs.lock();
        let (waiting, ended) = jobs.entry(job).or_default();
        *waiting += 1;
        let ended = Arc::clone(ended);
        let seen = *ended.told.lock();
        Watch { waiters: self, job, ended, seen, pause: None, hears: None }
    }

    /// How many threads wait.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Wakes those who wait for these jobs.
    pub(crate) fn note(&self, ended: impl IntoIterator<Item = JobId>) {
        self.tell(ended, |told| told.times += 1);
    }

    /// Wakes those who read what these jobs tell while they run.
    pub(crate) fn note_news(&self, jobs: impl IntoIterator<Item = JobId>) {
        self.tell(jobs, |told| told.news += 1);
    }

    fn tell(&self, jobs: impl IntoIterator<Item = JobId>, change: impl Fn(&mut Told)) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let all = self.jobs.lock();
        let told: Vec<_> =
            jobs.into_iter().filter_map(|job| Some(Arc::clone(&all.get(&job)?.1))).collect();
        drop(all);
        // Without the lock: a waker may drop the task, which takes it.
        for ended in told {
            ended.tell(&change);
        }
    }
}

/// Interest in the end of one job.
pub(crate) struct Watch<'a> {
    waiters: &'a Waiters,
    job: JobId,
    ended: Arc<Ended>,
    seen: Told,
    /// How long after the last look for it in the database the next one comes, if there was one.
    pub(super) pause: Option<Duration>,
    /// What is known of what it told while it runs, by those whom that wakes too.
    pub(super) hears: Option<News>,
}

impl Watch<'_> {
    pub(super) fn job(&self) -> JobId {
        self.job
    }

    pub(super) fn ended(&self) -> Arc<Ended> {
        Arc::clone(&self.ended)
    }

    /// Waits for the end of the job for so long.
    #[cfg(test)]
    pub(crate) fn wait(&mut self, pause: Duration) {
        self.wait_until(Instant::now() + pause);
    }

    /// Whether the job ended, or told something that is heard, since this was asked last; without waiting.
    pub(super) fn has_ended(&mut self) -> bool {
        let told = *self.ended.told.lock();
        let ended = self.is_for_us(&told);
        self.seen = told;
        ended
    }

    fn is_for_us(&self, told: &Told) -> bool {
        told.times != self.seen.times || (self.hears.is_some() && told.news != self.seen.news)
    }

    /// Waits for the end of the job, for what it tells if that is heard, or for a call, until then.
    pub(super) fn wait_until(&mut self, until: Instant) -> Woken {
        let ended = Arc::clone(&self.ended);
        let mut told = ended.told.lock();
        loop {
            let (is_over, called) = (self.is_for_us(&told), told.calls != self.seen.calls);
            self.seen = *told;
            if is_over {
                return Woken::Ended;
            }
            if called {
                return Woken::Called;
            }
            if ended.changed.wait_until(&mut told, until).timed_out() && *told == self.seen {
                return Woken::TimeIsUp;
            }
        }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut jobs = self.waiters.jobs.lock();
        if let Some((waiting, _)) = jobs.get_mut(&self.job) {
            *waiting -= 1;
            if *waiting == 0 {
                jobs.remove(&self.job);
            }
        }
        drop(jobs);
        self.waiters.count.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_wait_for_the_job_are_woken() {
        let waiters = Waiters::default();
        let (ours, other) = (JobId::new(), JobId::new());
        let mut watch = waiters.watch(ours);
        waiters.note([other]);
        let begun = Instant::now();
        watch.wait(Duration::from_millis(20));
        assert!(begun.elapsed() >= Duration::from_millis(20), "another job");
        // Before the wait, and of two who wait for one job both.
        let mut second = waiters.watch(ours);
        waiters.note([other, ours]);
        let begun = Instant::now();
        watch.wait(Duration::from_secs(60));
        second.wait(Duration::from_secs(60));
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert_eq!(waiters.count(), 2);
        drop((watch, second));
        assert_eq!((waiters.count(), waiters.jobs.lock().len()), (0, 0));
    }
}
