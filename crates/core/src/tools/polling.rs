//! Whether a call blocks a thread on which futures are polled.

#[cfg(feature = "tokio")]
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(feature = "tokio")]
use std::task::{Context, Waker};

#[cfg(feature = "tokio")]
use tokio::runtime::Handle;
#[cfg(feature = "tokio")]
use tokio::task::coop::poll_proceed;

#[cfg(feature = "tokio")]
use super::threads::is_ours;

/// Warns, once in the life of the process, when a method that blocks is called in a future on a tokio runtime.
#[cfg(feature = "tokio")]
pub(crate) fn warn_if_polled(method: &str, instead: &str) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.load(Ordering::Relaxed) && is_polled() && !WARNED.swap(true, Ordering::Relaxed) {
        log::warn!(
            "{method} blocks, and was called in a future, so that a thread of the tokio runtime stands still; await {instead}, \
             or use spawn_blocking (said once)"
        );
    }
}

#[cfg(not(feature = "tokio"))]
pub(crate) fn warn_if_polled(_: &str, _: &str) {}

/// More than tokio gives to a task before it has to yield.
#[cfg(feature = "tokio")]
const MORE_THAN_ANY_BUDGET: usize = 256;

/// Whether this thread polls a future of a runtime. Only there a budget is counted: a thread of `spawn_blocking` belongs to a runtime
/// too, and may block. All of the budget is taken, which shows whether it has an end, and given back.
#[cfg(feature = "tokio")]
fn is_polled() -> bool {
    // Bodies of async abilities are polled on the workers' own threads, which nobody else needs.
    if Handle::try_current().is_err() || is_ours() {
        return false;
    }
    let mut context = Context::from_waker(Waker::noop());
    let mut taken = Vec::with_capacity(MORE_THAN_ANY_BUDGET);
    let mut has_end = false;
    while taken.len() < MORE_THAN_ANY_BUDGET && !has_end {
        match poll_proceed(&mut context) {
            std::task::Poll::Ready(one) => taken.push(one),
            std::task::Poll::Pending => has_end = true,
        }
    }
    // Each gives back what was left before it, so the first comes last.
    while let Some(one) = taken.pop() {
        drop(one);
    }
    has_end
}
