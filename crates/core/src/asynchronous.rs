//! `async` abilities, on a runtime of the application's.
//!
//! The manager gets a tokio handle as a plugin. A worker thread waits for the future of its job, so
//! as many run at once as there are worker threads: give the manager as many as requests should be
//! under way. The future runs on the worker thread, its input and output on the runtime, which must
//! be a multi-threaded one, or be driven by somebody else: where nobody drives a runtime of one thread, jobs fail at once
//! instead of waiting for ever.
//!
//! From `async` code call [`enqueue_async`](crate::Manager::enqueue_async) and [`wait_async`](crate::Ticket::wait_async); the
//! manager's other methods block.
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
//! let sent = runtime.block_on(manager.enqueue_async(Fetch::job("http://x".to_owned())))?;
//! assert!(manager.work_once()?.is_some_and(|outcome| outcome.is_success()));
//! let reply = sent.ticket().expect("it is new").wait_async(std::time::Duration::from_secs(10));
//! assert_eq!(runtime.block_on(reply)?, 8);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::job::Job;
use crate::job_error::JobError;
use crate::tools::sync::mpsc;

/// Waits for a future on the runtime whose handle the manager has as a plugin. When the ability's
/// time limit is over, or the job [is cancelled](Job::is_cancelled), the future is dropped, at its next `await`.
///
/// # Errors
///
/// When the manager has no handle, the runtime is one of a single thread that nobody drives, the time limit is over, or the job
/// is cancelled.
pub fn block_on<F: Future>(job: &Job, future: F) -> Result<F::Output, JobError> {
    let handle = job.plugin::<Handle>()?;
    if handle.runtime_flavor() == RuntimeFlavor::CurrentThread && !is_driven(job, handle) {
        return Err(JobError::fail(
            "the tokio runtime is of one thread, and did not answer in 5 s: nobody drives it; take a multi-threaded one, or keep a thread in its block_on",
        ));
    }
    let future = unless_cancelled(job, future);
    match job.time_left() {
        None => handle.block_on(future),
        Some(left) => handle
            .block_on(async { tokio::time::timeout(left, future).await })
            .unwrap_or_else(|_| Err(JobError::fail("the time limit is over"))),
    }
}

/// How long whoever drives a runtime of one thread has to show it.
const DRIVEN_WITHIN: Duration = Duration::from_secs(5);

/// Whether somebody drives a runtime of one thread. A future that waits for its timers or sockets would wait for ever
/// otherwise. Asked for each job, because whoever drives it may leave.
fn is_driven(job: &Job, handle: &Handle) -> bool {
    let (tell, told) = mpsc::sync_channel(1);
    handle.spawn(async move {
        let _ = tell.send(());
    });
    let limit = job.time_left().map_or(DRIVEN_WITHIN, |left| left.min(DRIVEN_WITHIN));
    told.recv_timeout(limit).is_ok()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ability::Ability;
    use crate::fixture::{SOON, memory};
    use crate::job_error::JobResult;
    use crate::manager::Manager;

    struct Pauses;

    impl Ability for Pauses {
        const NAME: &'static str = "pauses";
        type Arg = u32;
        type Reply = u32;

        fn work(job: &Job, n: u32) -> JobResult<u32> {
            block_on(job, async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                n
            })
        }
    }

    #[test]
    fn a_runtime_of_one_thread_serves_only_while_somebody_drives_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("starts");
        let builder = Manager::builder().linked(false).ability::<Pauses>();
        let builder = builder.plugin(runtime.handle().clone()).driver("one", memory());
        let manager = builder.build().expect("valid");
        let send = || manager.enqueue(Pauses::job(7)).expect("stored");
        let lost = send();
        manager.work_once().expect("works");
        let error = lost.wait(SOON).expect_err("nobody drives it").to_string();
        assert!(error.contains("nobody drives it"), "{error}");
        let (stop, stopped) = (Arc::new(tokio::sync::Notify::new()), send());
        let until = Arc::clone(&stop);
        let drives = std::thread::spawn(move || runtime.block_on(until.notified()));
        manager.work_once().expect("works");
        assert_eq!(stopped.wait(SOON).expect("replies"), 7);
        stop.notify_one();
        drives.join().expect("no panic");
    }
}
