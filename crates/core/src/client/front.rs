//! Threads that block for those who await.
//!
//! Drivers block, and a future must not. So what an async caller asks for is done by one of a few threads of the manager's, which
//! share commits as all threads that enqueue do; that a thousand tasks await takes none more. It needs no runtime: the
//! answer wakes the task, whoever polls it.

use std::any::Any;
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::tools::sync::{Condvar, Mutex};
use crate::tools::threads::spawn;

/// More tasks at once wait in line. Each call under way has a thread of its database's besides, so that 10,000 tasks
/// that await cost a process some ten threads.
const MOST: usize = 4;

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
            let answer = match catch_unwind(AssertUnwindSafe(task)) {
                Ok(answer) => Slot::Answered(answer),
                Err(panic) => Slot::Panicked(panic),
            };
            let mut slot = answered.lock();
            if matches!(*slot, Slot::Left) {
                return;
            }
            if let Slot::Waiting(Some(waker)) = std::mem::replace(&mut *slot, answer) {
                drop(slot);
                waker.wake();
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
        if inner.threads >= MOST {
            return;
        }
        inner.threads += 1;
        drop(inner);
        let front = Arc::clone(self);
        if let Err(error) = spawn("qudo front", move || front.work()) {
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

    fn work(&self) {
        let mut inner = self.inner.lock();
        loop {
            if let Some(task) = inner.tasks.pop_front() {
                drop(inner);
                task();
                inner = self.inner.lock();
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
            Slot::Waiting(_) => {
                *slot = Slot::Waiting(Some(context.waker().clone()));
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
        assert_eq!(front.inner.lock().threads, MOST);
        barrier.wait();
        for one in all {
            block_on(one);
        }
        assert_eq!(more.into_iter().map(block_on).sum::<i32>(), 499_500);
        assert_eq!(front.inner.lock().threads, MOST);
    }

    #[test]
    fn what_nobody_awaits_any_more_does_not_begin() {
        let front = Arc::<Front>::default();
        let barrier = Arc::new(Barrier::new(MOST + 1));
        let busy: Vec<_> = (0..MOST)
            .map(|_| {
                let barrier = Arc::clone(&barrier);
                front.run(move || barrier.wait())
            })
            .collect();
        let begun = Arc::<AtomicUsize>::default();
        let count = |by: usize| {
            let begun = Arc::clone(&begun);
            front.run(move || begun.fetch_add(by, Ordering::SeqCst))
        };
        let (dropped, kept) = (count(100), count(1));
        drop(dropped);
        barrier.wait();
        block_on(kept);
        for one in busy {
            block_on(one);
        }
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
