//! Waits for many tickets at once.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::ticket::Ticket;
use crate::error::Error;
use crate::tools::bell::Bell;
use crate::tools::polling::warn_if_polled;
use crate::tools::sync::Mutex;

/// Wakes the thread that blocks.
struct Ringer(Bell);

impl Wake for Ringer {
    fn wake(self: Arc<Self>) {
        self.0.ring();
    }
}

/// Blocks until the future is ready. What it waits for has a limit of its own.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let ringer = Arc::new(Ringer(Bell::default()));
    let waker = Waker::from(Arc::clone(&ringer));
    let (mut future, mut context) = (pin!(future), Context::from_waker(&waker));
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        ringer.0.wait(Duration::from_secs(1));
    }
}

type Answer<R> = Result<R, Error>;
type Waiting<'a, R> = Pin<Box<dyn Future<Output = Answer<R>> + Send + 'a>>;

/// Many waits, each polled only when it was woken: thousands of others are not looked at for one that ended.
struct Several<'a, R> {
    waits: Vec<Option<Waiting<'a, R>>>,
    wakers: Vec<Waker>,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken {
    all: Mutex<Vec<usize>>,
    /// Of the task that waits for all.
    task: Mutex<Option<Waker>>,
}

/// Wakes one of them.
struct One(usize, Arc<Woken>);

impl Wake for One {
    fn wake(self: Arc<Self>) {
        self.1.all.lock().push(self.0);
        let task = self.1.task.lock().take();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl<'a, R: DeserializeOwned + 'static> Several<'a, R> {
    fn of(tickets: &'a [Ticket<R>], limit: Duration) -> Self {
        let woken = Arc::<Woken>::default();
        *woken.all.lock() = (0..tickets.len()).collect();
        let wait =
            |ticket: &'a Ticket<R>| Some(Box::pin(ticket.wait_async(limit)) as Waiting<'a, R>);
        let waker = |at| Waker::from(Arc::new(One(at, Arc::clone(&woken))));
        let wakers = (0..tickets.len()).map(waker).collect();
        Self { waits: tickets.iter().map(wait).collect(), wakers, woken }
    }

    /// Answers of those that are ready, each once.
    fn poll(&mut self, context: &Context<'_>) -> Vec<(usize, Answer<R>)> {
        *self.woken.task.lock() = Some(context.waker().clone());
        let woken = std::mem::take(&mut *self.woken.all.lock());
        let mut ready = Vec::new();
        for at in woken {
            let Some(wait) = &mut self.waits[at] else { continue };
            if let Poll::Ready(answer) =
                wait.as_mut().poll(&mut Context::from_waker(&self.wakers[at]))
            {
                self.waits[at] = None;
                ready.push((at, answer));
            }
        }
        ready
    }
}

impl<R: DeserializeOwned + 'static> Ticket<R> {
    /// Waits until all these jobs completed, or the limit is over; returns an answer for each, in order, as [`wait`](Self::wait)
    /// does. One thread waits for any number of jobs, and databases are asked for many in one statement.
    pub fn wait_all(tickets: &[Self], limit: Duration) -> Vec<Result<R, Error>> {
        warn_if_polled("wait_all", "wait_all_async");
        block_on(Self::wait_all_async(tickets, limit))
    }

    /// Waits until the first of these jobs ended, or the limit is over; returns which, and its answer, as [`wait`](Self::wait)
    /// does. `None` without any ticket.
    pub fn wait_any(tickets: &[Self], limit: Duration) -> Option<(usize, Result<R, Error>)> {
        warn_if_polled("wait_any", "wait_any_async");
        block_on(Self::wait_any_async(tickets, limit))
    }

    /// As [`wait_all`](Self::wait_all), for a task of any runtime.
    pub async fn wait_all_async(tickets: &[Self], limit: Duration) -> Vec<Result<R, Error>> {
        let mut several = Several::of(tickets, limit);
        let mut answers: Vec<Option<Answer<R>>> = tickets.iter().map(|_| None).collect();
        let mut left = tickets.len();
        poll_fn(|context| {
            for (at, answer) in several.poll(context) {
                answers[at] = Some(answer);
                left -= 1;
            }
            if left == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        answers.into_iter().flatten().collect()
    }

    /// As [`wait_any`](Self::wait_any), for a task of any runtime.
    pub async fn wait_any_async(
        tickets: &[Self],
        limit: Duration,
    ) -> Option<(usize, Result<R, Error>)> {
        if tickets.is_empty() {
            return None;
        }
        let mut several = Several::of(tickets, limit);
        poll_fn(|context| match several.poll(context).into_iter().next() {
            Some(first) => Poll::Ready(Some(first)),
            None => Poll::Pending,
        })
        .await
    }
}
