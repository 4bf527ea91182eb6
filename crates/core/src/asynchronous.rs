//! `async` abilities, on a runtime of the application's.
//!
//! The manager gets a tokio handle as a plugin. A worker thread waits for the future of its job, so
//! as many run at once as there are worker threads: give the manager as many as requests should be
//! under way. The future runs on the worker thread, its input and output on the runtime, which must
//! be a multi-threaded one, or be driven by somebody else.
//!
//! To enqueue from `async` code use the runtime's `spawn_blocking`: the manager's methods block.
//!
//! ```
//! use qudo_core::{Ability, Job, Manager, JobResult, asynchronous};
//!
//! struct Fetch;
//! impl Ability for Fetch {
//!     const NAME: &'static str = "fetch";
//!     type Arg = String;
//!     type Reply = usize;
//!     fn work(job: &Job, url: String) -> JobResult<usize> {
//!         // `#[qudo::ability] async fn` writes this.
//!         asynchronous::block_on(job, async { tokio::task::yield_now().await; url.len() })
//!     }
//! }
//!
//! let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
//! let manager = Manager::builder()
//!     .database("memory:async")
//!     .ability::<Fetch>()
//!     .plugin(runtime.handle().clone())
//!     .build()?;
//! // In an async handler:
//! let enqueuing = manager.clone();
//! runtime.block_on(async {
//!     tokio::task::spawn_blocking(move || enqueuing.enqueue(Fetch::job("http://x".to_owned()))).await
//! })??;
//! assert!(manager.work_once()?.is_some_and(|outcome| outcome.is_success()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;

use crate::job::Job;
use crate::job_error::JobError;

/// Waits for a future on the runtime whose handle the manager has as a plugin. When the ability's
/// time limit is over, or the job [is cancelled](Job::is_cancelled), the future is dropped, at its next `await`.
///
/// # Errors
///
/// When the manager has no handle, the time limit is over, or the job is cancelled.
pub fn block_on<F: Future>(job: &Job, future: F) -> Result<F::Output, JobError> {
    let handle = job.plugin::<Handle>()?;
    let future = unless_cancelled(job, future);
    match job.time_left() {
        None => handle.block_on(future),
        Some(left) => handle
            .block_on(async { tokio::time::timeout(left, future).await })
            .unwrap_or_else(|_| Err(JobError::fail("the time limit is over"))),
    }
}

/// The future's output, unless the job is cancelled while it waits.
async fn unless_cancelled<F: Future>(job: &Job, future: F) -> Result<F::Output, JobError> {
    let (mut future, mut cancelled) = (pin!(future), pin!(cancelled(job)));
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        let cancelled = cancelled.as_mut().poll(context);
        cancelled.map(|()| Err(JobError::fail("the job was cancelled")))
    })
    .await
}

/// Ends when an operator cancelled the job: for a `select!`, where something is to be put in order before the
/// run ends. A body that does nothing of the kind need not wait for it, since [`block_on`] does.
pub fn cancelled(job: &Job) -> impl Future<Output = ()> + '_ {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    Cancelled { job, number: NEXT.fetch_add(1, Ordering::Relaxed), waker: None }
}

struct Cancelled<'j> {
    job: &'j Job,
    number: u64,
    /// The one that will be woken.
    waker: Option<Waker>,
}

impl Cancelled<'_> {
    fn watch(&self, waker: Option<&Waker>) {
        self.job.post.tenure.watch_cancel(self.job.id(), self.number, waker);
    }
}

impl Future for Cancelled<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.waker.as_ref().is_none_or(|waker| !waker.will_wake(context.waker())) {
            self.watch(Some(context.waker()));
            self.waker = Some(context.waker().clone());
        }
        // After it will be woken, so that no order comes in between.
        if self.job.is_cancelled() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Cancelled<'_> {
    fn drop(&mut self) {
        if self.waker.is_some() {
            self.watch(None);
        }
    }
}
