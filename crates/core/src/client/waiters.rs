//! Threads that wait for the end of a job, woken by its id when this process settles it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use qudo_hooks::JobId;

use crate::tools::sync::{Condvar, Mutex};

/// Who waits for which job.
///
/// Noting an end costs one atomic load while nobody waits: settlers note every batch.
#[derive(Default)]
pub(crate) struct Waiters {
    count: AtomicUsize,
    jobs: Mutex<HashMap<JobId, (usize, Arc<Ended>)>>,
}

/// How often a job ended: once, but for one that is enqueued again under its id.
#[derive(Default)]
struct Ended {
    times: Mutex<u64>,
    told: Condvar,
}

impl Waiters {
    /// Announces interest; hold it over the look that precedes the wait, so that no end between the look
    /// and the wait is missed.
    pub(crate) fn watch(&self, job: JobId) -> Watch<'_> {
        // SeqCst, as is the load: of the look and the end one must see the other.
        self.count.fetch_add(1, Ordering::SeqCst);
        let mut jobs = self.jobs.lock();
        let (waiting, ended) = jobs.entry(job).or_default();
        *waiting += 1;
        let ended = Arc::clone(ended);
        let seen = *ended.times.lock();
        Watch { waiters: self, job, ended, seen }
    }

    /// How many threads wait.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Wakes those who wait for one of these jobs.
    pub(crate) fn note(&self, ended: impl IntoIterator<Item = JobId>) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let jobs = self.jobs.lock();
        for job in ended {
            if let Some((_, ended)) = jobs.get(&job) {
                *ended.times.lock() += 1;
                ended.told.notify_all();
            }
        }
    }
}

/// Interest in the end of a job.
pub(crate) struct Watch<'a> {
    waiters: &'a Waiters,
    job: JobId,
    ended: Arc<Ended>,
    seen: u64,
}

impl Watch<'_> {
    /// Waits until the job ended since the last wait, at most so long.
    pub(crate) fn wait(&mut self, pause: Duration) {
        let (mut times, seen) = (self.ended.times.lock(), self.seen);
        self.ended.told.wait_while_for(&mut times, |times| *times == seen, pause);
        self.seen = *times;
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
    use std::time::Instant;

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
