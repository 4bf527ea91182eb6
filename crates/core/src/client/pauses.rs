//! Pauses of tasks, on no runtime's clock: one thread wakes them all, and is there while somebody pauses.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::tools::bell::Bell;
use crate::tools::guard::say;
use crate::tools::sync::Mutex;
use crate::tools::threads::{sleep, spawn};
use crate::tools::time::Instant;

/// How long the thread stays for those who left before the end of their pause.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A machine that has no thread left may have one then.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Wakes tasks. What a waker does is not ours.
fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        say(|| waker.wake());
    }
}

/// Who pauses until when.
#[derive(Default)]
pub(crate) struct Pauses {
    inner: Mutex<Inner>,
    bell: Bell,
}

#[derive(Default)]
struct Inner {
    /// By the end of the pause and its number.
    wakers: BTreeMap<(Instant, u64), Waker>,
    next: u64,
    /// The thread is there.
    runs: bool,
}

/// A pause of one task; dropped, it is over.
pub(crate) struct Pause {
    pauses: Arc<Pauses>,
    key: (Instant, u64),
}

impl Pauses {
    /// A pause until then.
    pub(crate) fn until(self: &Arc<Self>, until: Instant) -> Pause {
        let mut inner = self.inner.lock();
        inner.next += 1;
        let key = (until, inner.next);
        drop(inner);
        Pause { pauses: Arc::clone(self), key }
    }

    /// Wakes whose pause is over, until nobody pauses.
    fn run(&self) {
        loop {
            let mut inner = self.inner.lock();
            let Some(first) = inner.wakers.keys().next().map(|(until, _)| *until) else {
                inner.runs = false;
                return;
            };
            drop(inner);
            let left = first.saturating_duration_since(Instant::now());
            // Not longer: whoever leaves before its end does not ring.
            self.bell.wait(left.min(LOOK_AGAIN_AFTER));
            let now = Instant::now();
            let mut over = Vec::new();
            let mut inner = self.inner.lock();
            while let Some(first) = inner.wakers.first_entry()
                && first.key().0 <= now
            {
                over.push(first.remove());
            }
            drop(inner);
            wake_all(over);
        }
    }
}

impl Future for Pause {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.key.0 {
            return Poll::Ready(());
        }
        let mut inner = self.pauses.inner.lock();
        let is_first = inner.wakers.keys().next().is_none_or(|first| self.key < *first);
        let former = inner.wakers.insert(self.key, context.waker().clone());
        let runs = std::mem::replace(&mut inner.runs, true);
        drop(inner);
        drop(former);
        if !runs {
            let pauses = Arc::clone(&self.pauses);
            if let Err(error) = spawn("qudo-pauses", move || pauses.run()) {
                log::error!("no thread can be started that ends the pauses of tasks: {error}");
                sleep(TRY_AGAIN_AFTER);
                let mut inner = self.pauses.inner.lock();
                inner.runs = false;
                // All of them: the others took it for granted that the thread is there.
                let wakers = std::mem::take(&mut inner.wakers);
                drop(inner);
                wake_all(wakers.into_values());
            }
        } else if is_first {
            self.pauses.bell.ring();
        }
        Poll::Pending
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        let former = self.pauses.inner.lock().wakers.remove(&self.key);
        drop(former);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{block_on, eventually};

    impl Pauses {
        fn pause(self: &Arc<Self>, length: Duration) -> Pause {
            self.until(Instant::now() + length)
        }
    }

    #[test]
    fn a_pause_lasts_as_long_as_was_asked_and_a_shorter_one_that_began_later_ends_before() {
        let pauses = Arc::<Pauses>::default();
        let begun = Instant::now();
        let long = pauses.pause(Duration::from_secs(600));
        let mut long = Box::pin(long);
        let polled = long.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        block_on(pauses.pause(Duration::from_millis(20)));
        assert!(begun.elapsed() >= Duration::from_millis(20));
        assert!(begun.elapsed() < Duration::from_secs(300));
        drop(long);
        assert!(pauses.inner.lock().wakers.is_empty());
        // Its thread sleeps for what is not awaited any more, and goes on for the next.
        block_on(pauses.pause(Duration::from_millis(1)));
        eventually("nobody pauses", || !pauses.inner.lock().runs);
        block_on(pauses.pause(Duration::from_millis(1)));
    }
}
