//! Threads that block for those who await.
//!
//! Drivers block, and a future must not. So what an async caller asks for is done by one of a few threads of the manager's, which
//! share commits as all threads that enqueue do; that a thousand tasks await takes none more. It needs no runtime: the
//! answer wakes the task, whoever polls it.

use std::any::Any;
use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::guard::{catch, say};
use super::sync::{Condvar, Mutex};
use super::threads::{sleep, spawn};
use super::time::Instant;

/// More tasks at once wait in line, unless some have been under way for long: each call under way has a thread of its
/// database's besides, and 10,000 tasks that await are to cost a process few threads.
const MOST: usize = 4;

/// So many there are where tasks hang: a database that does not answer, or a key that somebody holds, must not stand in the
/// way of all others.
const MOST_WHERE_SOME_HANG: usize = 16;

/// A task that has been under way for so long hangs.
const HANGS_AFTER: Duration = Duration::from_millis(100);

/// A thread that had no task for this long ends.
const IDLE_FOR: Duration = Duration::from_secs(10);

type Task = Box<dyn FnOnce() + Send>;

/// The threads of one manager; none while nobody awaits.
#[derive(Default)]
pub(crate) struct Front {
    inner: Mutex<Inner>,
    work: Condvar,
}

#[derive(Default)]
struct Inner {
    tasks: VecDeque<Task>,
    threads: usize,
    idle: usize,
    /// Since when the tasks are under way.
    running: BTreeSet<(Instant, u64)>,
    next: u64,
    /// A thread stands by, for tasks that hang.
    has_reserve: bool,
}

impl Inner {
    /// Whether there may be one more thread.
    fn has_room(&self) -> bool {
        let hangs =
            || self.running.first().is_some_and(|(since, _)| since.elapsed() >= HANGS_AFTER);
        self.threads < MOST || (self.threads < MOST_WHERE_SOME_HANG && hangs())
    }
}

/// A task that somebody awaits. One that is dropped before it began never begins; one that has begun is done to its end.
pub(crate) struct Running<T> {
    slot: Arc<Mutex<Slot<T>>>,
}

enum Slot<T> {
    Waiting(Option<Waker>),
    Answered(T),
    Panicked(Box<dyn Any + Send>),
    /// Nobody awaits it any more, or the answer was taken.
    Left,
}

impl Front {
    /// Hands a task to one of the threads.
    pub(crate) fn run<T: Send + 'static>(
        self: &Arc<Self>,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> Running<T> {
        let slot = Arc::new(Mutex::new(Slot::Waiting(None)));
        let answered = Arc::clone(&slot);
        let task = Box::new(move || {
            if matches!(*answered.lock(), Slot::Left) {
                return;
            }
            let answer = match catch(task) {
                Ok(answer) => Slot::Answered(answer),
                Err(panic) => Slot::Panicked(panic),
            };
            let mut slot = answered.lock();
            if matches!(*slot, Slot::Left) {
                return;
            }
            if let Slot::Waiting(Some(waker)) = std::mem::replace(&mut *slot, answer) {
                drop(slot);
                say(|| waker.wake());
            }
        });
        self.begin(task);
        Running { slot }
    }

    fn begin(self: &Arc<Self>, task: Task) {
        let mut inner = self.inner.lock();
        inner.tasks.push_back(task);
        if inner.idle >= inner.tasks.len() {
            self.work.notify_one();
            return;
        }
        if inner.has_room() {
            inner.threads += 1;
            drop(inner);
            self.start();
        } else if !std::mem::replace(&mut inner.has_reserve, true) {
            drop(inner);
            let front = Arc::clone(self);
            if spawn("qudo-front", move || front.stand_by()).is_err() {
                self.inner.lock().has_reserve = false;
            }
        }
    }

    /// Looks whether tasks hang while others wait in line, and then does those. Nobody else would see it: the threads are busy,
    /// and no further task may come.
    fn stand_by(self: &Arc<Self>) {
        loop {
            sleep(HANGS_AFTER);
            let mut inner = self.inner.lock();
            if inner.tasks.is_empty() {
                inner.has_reserve = false;
                return;
            }
            if inner.has_room() {
                inner.has_reserve = false;
                inner.threads += 1;
                drop(inner);
                return self.work();
            }
        }
    }

    /// Starts a thread that is counted already.
    fn start(self: &Arc<Self>) {
        let front = Arc::clone(self);
        if let Err(error) = spawn("qudo-front", move || front.work()) {
            log::error!("no thread can be started for those who await: {error}");
            let mut inner = self.inner.lock();
            inner.threads -= 1;
            // Without any thread the caller's own has to do it, which blocks and loses nothing.
            let orphaned =
                if inner.threads == 0 { std::mem::take(&mut inner.tasks) } else { VecDeque::new() };
            drop(inner);
            for task in orphaned {
                task();
            }
        }
    }

    fn work(self: &Arc<Self>) {
        let mut inner = self.inner.lock();
        loop {
            if let Some(task) = inner.tasks.pop_front() {
                inner.next += 1;
                let under_way = (Instant::now(), inner.next);
                inner.running.insert(under_way);
                // Those behind may have come before anything hung.
                let one_more = !inner.tasks.is_empty() && inner.idle == 0 && inner.has_room();
                inner.threads += usize::from(one_more);
                drop(inner);
                if one_more {
                    self.start();
                }
                task();
                inner = self.inner.lock();
                inner.running.remove(&under_way);
                if inner.threads > MOST && inner.tasks.is_empty() {
                    inner.threads -= 1;
                    return;
                }
                continue;
            }
            inner.idle += 1;
            let is_over = self.work.wait_for(&mut inner, IDLE_FOR).timed_out();
            inner.idle -= 1;
            if is_over && inner.tasks.is_empty() {
                inner.threads -= 1;
                return;
            }
        }
    }
}

impl<T> Future for Running<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.slot.lock();
        match std::mem::replace(&mut *slot, Slot::Left) {
            Slot::Answered(answer) => Poll::Ready(answer),
            Slot::Panicked(panic) => {
                drop(slot);
                resume_unwind(panic)
            }
            Slot::Waiting(former) => {
                *slot = Slot::Waiting(Some(context.waker().clone()));
                drop(slot);
                drop(former);
                Poll::Pending
            }
            Slot::Left => unreachable!("it was polled after its answer"),
        }
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        let left = std::mem::replace(&mut *self.slot.lock(), Slot::Left);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, mpsc};

    use super::*;
    use crate::fixture::{block_on, eventually};

    #[test]
    fn an_answer_is_brought_however_late_it_is_asked_for() {
        let front = Arc::<Front>::default();
        assert_eq!(block_on(front.run(|| 7)), 7);
        let (tell, told) = mpsc::channel();
        let running = front.run(move || tell.send(()));
        told.recv().expect("it ran without being polled");
        assert!(block_on(running).is_ok());
    }

    #[test]
    fn no_more_threads_than_the_limit_serve_many() {
        let front = Arc::<Front>::default();
        let barrier = Arc::new(Barrier::new(MOST + 1));
        let all: Vec<_> = (0..MOST)
            .map(|_| {
                let barrier = Arc::clone(&barrier);
                front.run(move || barrier.wait())
            })
            .collect();
        let more: Vec<_> = (0..1_000).map(|number| front.run(move || number)).collect();
        assert!(front.inner.lock().threads <= MOST_WHERE_SOME_HANG);
        barrier.wait();
        for one in all {
            block_on(one);
        }
        assert_eq!(more.into_iter().map(block_on).sum::<i32>(), 499_500);
        assert!(front.inner.lock().threads <= MOST_WHERE_SOME_HANG);
    }

    #[test]
    fn tasks_that_hang_do_not_stand_in_the_way_of_others() {
        let front = Arc::<Front>::default();
        let barrier = Arc::new(Barrier::new(MOST + 1));
        let hang: Vec<_> = (0..MOST)
            .map(|_| {
                let barrier = Arc::clone(&barrier);
                front.run(move || barrier.wait())
            })
            .collect();
        eventually("all are under way", || front.inner.lock().running.len() == MOST);
        // Also where nothing comes after them.
        assert_eq!(block_on(front.run(|| 7)), 7);
        barrier.wait();
        for one in hang {
            block_on(one);
        }
    }

    #[test]
    fn what_nobody_awaits_any_more_does_not_begin() {
        let front = Arc::<Front>::default();
        let begun = Arc::<AtomicUsize>::default();
        let count = |by: usize| {
            let begun = Arc::clone(&begun);
            front.run(move || begun.fetch_add(by, Ordering::SeqCst))
        };
        // As if all threads were busy.
        front.inner.lock().threads = MOST_WHERE_SOME_HANG;
        let (dropped, kept) = (count(100), count(1));
        drop(dropped);
        front.inner.lock().threads = 0;
        block_on(front.run(|| ()));
        block_on(kept);
        assert_eq!(begun.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_panic_is_the_awaiting_task_s_and_costs_no_thread() {
        let front = Arc::<Front>::default();
        let running = front.run(|| panic!("on purpose"));
        let panicked = catch_unwind(AssertUnwindSafe(|| block_on(running)));
        assert!(panicked.is_err());
        assert_eq!(block_on(front.run(|| 1)), 1);
        eventually("no thread was lost", || {
            let inner = front.inner.lock();
            inner.threads > 0 && inner.idle == inner.threads
        });
    }
}
