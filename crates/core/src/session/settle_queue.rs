//! Runs that ended and wait for their settler.

use super::shelf::Shelves;
use super::weight::weight;
use crate::driver::Settlement;
use crate::tools::sync::{Condvar, Mutex};
use crate::tools::time::Instant;

/// One statement settles at most so many: enough for full effect, short enough not to block.
const MAX_GROUP: usize = 1_000;

/// What the runs of one statement bring has about so many bytes at most, unless one alone has more.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Runs that ended and wait to be settled.
///
/// Group commit without a timer: while one group is on its way, the next one gathers. Idle, a
/// single job is settled at once; busy, hundreds share a commit. Some of them still lie where the worker threads put
/// them, each on its own shelf.
#[derive(Default)]
pub(crate) struct SettleQueue {
    inner: Mutex<Pending>,
    filled: Condvar,
    shelves: Shelves,
}

/// What [`SettleQueue::take`] found.
pub(crate) enum Taken {
    /// Runs to settle.
    Group(Vec<Settlement>),
    /// None came in the time.
    Nothing,
    /// None is left, and none will come.
    Closed,
}

#[derive(Default)]
struct Pending {
    settlements: Vec<Settlement>,
    /// The bytes of all of them.
    bytes: usize,
    /// The bytes of what the settler has taken.
    taken: usize,
    /// The bytes of what it has put aside.
    parked: usize,
    settler_waits: bool,
    /// The settler has taken something and not come back since.
    settling: bool,
    closed: bool,
}

impl Pending {
    /// How many of those that wait go together.
    fn group(&self) -> usize {
        let most = self.settlements.len().min(MAX_GROUP);
        if self.bytes <= MAX_BYTES {
            return most;
        }
        let mut bytes = 0;
        let fits = self.settlements[..most].iter().take_while(|one| {
            bytes += weight(one);
            bytes <= MAX_BYTES
        });
        fits.count().max(1)
    }
}

impl SettleQueue {
    pub(crate) fn over(shelves: &Shelves) -> Self {
        Self { shelves: Shelves::clone(shelves), ..Self::default() }
    }

    /// Which of all queues this is, for as long as something of it lies on a shelf.
    pub(crate) fn token(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    pub(crate) fn push(&self, settlement: Settlement) {
        self.push_all(vec![settlement]);
    }

    pub(crate) fn push_all(&self, settlements: Vec<Settlement>) {
        let bytes: usize = settlements.iter().map(weight).sum();
        let mut pending = self.inner.lock();
        pending.bytes += bytes;
        pending.settlements.extend(settlements);
        // The settler is woken once per group, not once per job.
        if std::mem::take(&mut pending.settler_waits) {
            self.filled.notify_one();
        }
    }

    /// Says that nothing more will come.
    pub(crate) fn close(&self) {
        self.inner.lock().closed = true;
        self.filled.notify_one();
    }

    /// The bytes of what came and is not settled yet.
    pub(crate) fn bytes(&self) -> usize {
        let pending = self.inner.lock();
        pending.bytes + pending.taken + pending.parked
    }

    /// Counts bytes that the settler puts aside, or takes up again.
    pub(crate) fn note_parked(&self, bytes: isize) {
        let mut pending = self.inner.lock();
        pending.parked = pending.parked.saturating_add_signed(bytes);
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.inner.lock().settlements.is_empty()
    }

    /// Whether all that came is settled.
    pub(crate) fn is_idle(&self) -> bool {
        // The shelves first: what is handed over meanwhile is here by then.
        let (shelves, token) = (&self.shelves, self.token());
        let lies_there = shelves.iter().any(|shelf| shelf.has_ended(token));
        let pending = self.inner.lock();
        !lies_there && pending.settlements.is_empty() && !pending.settling
    }

    /// Fetches what lies on the shelves. If that is nothing and the settler is about to wait, it is told of the
    /// next at once.
    fn collect(&self, pending: &mut Pending, waits: bool) {
        for shelf in self.shelves.iter() {
            let ended = shelf.collect(self.token(), waits && pending.settlements.is_empty());
            pending.bytes += ended.iter().map(weight).sum::<usize>();
            pending.settlements.extend(ended);
        }
    }

    /// Blocks until there is something, or until then.
    pub(crate) fn take(&self, until: Option<Instant>) -> Taken {
        let mut pending = self.inner.lock();
        (pending.settling, pending.taken) = (false, 0);
        self.collect(&mut pending, false);
        loop {
            if !pending.settlements.is_empty() {
                pending.settling = true;
                let group = pending.group();
                pending.taken = pending.settlements[..group].iter().map(weight).sum();
                pending.bytes -= pending.taken;
                let tail = pending.settlements.split_off(group);
                return Taken::Group(std::mem::replace(&mut pending.settlements, tail));
            }
            if pending.closed {
                return Taken::Closed;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Taken::Nothing;
            }
            self.collect(&mut pending, true);
            if !pending.settlements.is_empty() {
                continue;
            }
            pending.settler_waits = true;
            match left {
                Some(left) => drop(self.filled.wait_for(&mut pending, left)),
                None => self.filled.wait(&mut pending),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::driver::{Deadline, Verdict};
    use crate::fixture::{self, SOON, memory, worker};

    fn runs(count: usize, bytes: usize) -> Vec<Settlement> {
        let (driver, worker) = (memory(), worker());
        let mut jobs = fixture::records(count).to_vec();
        for job in &mut jobs {
            job.facts.arg = vec![0; bytes];
        }
        driver.insert(&jobs, Deadline::NONE).expect("stored");
        let mut all = Vec::new();
        for number in 1.. {
            let claimed = fixture::claim(&*driver, &worker, number);
            if claimed.is_empty() {
                break;
            }
            all.extend(claimed.into_iter().map(|job| Settlement {
                job: Box::new(job),
                verdict: Verdict::Complete,
                extras: None,
            }));
        }
        all
    }

    fn push_all(queue: &SettleQueue, runs: Vec<Settlement>) {
        for one in runs {
            queue.push(one);
        }
    }

    fn group(queue: &SettleQueue) -> usize {
        match queue.take(Some(Instant::now())) {
            Taken::Group(group) => group.len(),
            _ => 0,
        }
    }

    #[test]
    fn what_gathers_while_a_group_is_settled_goes_together() {
        let queue = SettleQueue::default();
        let mut runs = runs(5, 1).into_iter();
        queue.push(runs.next().expect("there are five"));
        assert_eq!(group(&queue), 1);
        assert!(!queue.is_idle() && queue.is_empty());
        push_all(&queue, runs.collect());
        assert_eq!(group(&queue), 4);
        assert_eq!(group(&queue), 0);
        assert!(queue.is_idle());
    }

    #[test]
    fn a_group_has_no_more_bytes_than_one_statement_should_unless_one_alone_has() {
        let queue = SettleQueue::default();
        push_all(&queue, runs(5, MAX_BYTES / 2));
        assert_eq!(queue.bytes(), 5 * (MAX_BYTES / 2));
        assert_eq!((group(&queue), group(&queue), group(&queue)), (2, 2, 1));
        assert_eq!(group(&queue), 0);
        assert_eq!(queue.bytes(), 0);
        push_all(&queue, runs(2, MAX_BYTES + 1));
        assert_eq!((group(&queue), group(&queue)), (1, 1));
    }

    #[test]
    fn a_group_has_no_more_than_a_thousand_runs() {
        let queue = SettleQueue::default();
        push_all(&queue, runs(MAX_GROUP + 5, 0));
        assert_eq!((group(&queue), group(&queue)), (MAX_GROUP, 5));
    }

    #[test]
    fn what_is_put_aside_counts_until_it_is_taken_up_again() {
        let queue = SettleQueue::default();
        queue.note_parked(100);
        assert_eq!(queue.bytes(), 100);
        queue.note_parked(-100);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn a_settler_that_waits_is_woken_by_the_next_run_and_by_the_end() {
        let queue = Arc::new(SettleQueue::default());
        let settler = Arc::clone(&queue);
        let waits = std::thread::spawn(move || {
            let first = matches!(settler.take(None), Taken::Group(group) if group.len() == 1);
            (first, matches!(settler.take(Some(Instant::now() + SOON)), Taken::Closed))
        });
        queue.push(runs(1, 1).pop().expect("there is one"));
        // The second wait may have begun or not.
        std::thread::sleep(Duration::from_millis(5));
        queue.close();
        assert_eq!(waits.join().expect("no panic"), (true, true));
        queue.push(runs(1, 1).pop().expect("there is one"));
        assert_eq!(group(&queue), 1, "what comes after the end is settled too");
    }
}
