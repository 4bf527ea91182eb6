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

use std::future::Future;

use tokio::runtime::Handle;

use crate::job::Job;
use crate::job_error::JobError;

/// Waits for a future on the runtime whose handle the manager has as a plugin. At the ability's
/// time limit the future is dropped, at its next `await`.
///
/// # Errors
///
/// When the manager has no handle, or the time limit is over.
pub fn block_on<F: Future>(job: &Job, future: F) -> Result<F::Output, JobError> {
    let handle = job.plugin::<Handle>()?;
    match job.time_left() {
        None => Ok(handle.block_on(future)),
        Some(left) => handle
            .block_on(async { tokio::time::timeout(left, future).await })
            .map_err(|_| JobError::fail("the time limit is over")),
    }
}
