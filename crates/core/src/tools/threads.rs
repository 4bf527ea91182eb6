//! Threads. None is joined: one that hangs must not keep the process from ending.

use std::time::Duration;
use std::{io, thread};

pub(crate) use std::thread::scope;

/// Lets whoever else waits for this processor have it.
pub(crate) fn give_way() {
    std::thread::yield_now();
}

/// Starts a thread.
pub(crate) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}

/// Sleeps; nobody can wake the thread. Where somebody may have to, a [bell](super::bell) serves.
pub(crate) fn sleep(pause: Duration) {
    thread::sleep(pause);
}

/// How many threads can run at once.
pub(crate) fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Whether this thread was started here.
#[cfg(feature = "tokio")]
pub(crate) fn is_ours() -> bool {
    std::thread::current().name().is_some_and(|name| name.starts_with("qudo"))
}
