//! Which of the jobs that this process has leased at one database are to end.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use qudo_hooks::JobId;

use crate::driver::CancelOrder;
use crate::tools::sync::Mutex;

/// The orders that the last look found. Without one, asking costs a look at a flag.
#[derive(Default)]
pub(crate) struct Cancels {
    any: AtomicBool,
    inner: Mutex<Inner>,
    /// A look failed, and that was said.
    said: AtomicBool,
    /// Orders could not be carried out, and that was said.
    said_undone: AtomicBool,
}

#[derive(Default)]
struct Inner {
    /// By the job, under which claim, and why.
    orders: HashMap<JobId, (i64, Arc<str>)>,
    /// Futures of jobs that run, each with a number of its own: a job may wait in several.
    wakers: BTreeMap<(JobId, u64), Waker>,
}

impl Cancels {
    /// Notes all orders that there are.
    pub(crate) fn note(&self, orders: Vec<CancelOrder>) {
        self.said.store(false, Ordering::Relaxed);
        if orders.is_empty() && !self.any.load(Ordering::Acquire) {
            return;
        }
        let mut inner = self.inner.lock();
        inner.orders = orders
            .into_iter()
            .map(|order| (order.job, (order.claim, order.reason.into())))
            .collect();
        self.any.store(!inner.orders.is_empty(), Ordering::Release);
        let Inner { orders, wakers } = &*inner;
        let of = |job: &JobId| wakers.range((*job, 0)..=(*job, u64::MAX)).map(|(key, _)| *key);
        let keys: Vec<_> = orders.keys().flat_map(of).collect();
        let woken: Vec<_> = keys.iter().filter_map(|key| wakers.get(key).cloned()).collect();
        drop(inner);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Notes a look that failed; tells whether that is news.
    pub(crate) fn note_failure(&self) -> bool {
        !self.said.swap(true, Ordering::Relaxed)
    }

    /// Notes whether orders could be carried out; tells whether a failure is news.
    pub(crate) fn note_undone(&self, failed: bool) -> bool {
        !self.said_undone.swap(failed, Ordering::Relaxed) && failed
    }

    /// Why this run is to end; `None` when it may go on.
    pub(crate) fn reason(&self, job: JobId, claim: i64) -> Option<Arc<str>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let inner = self.inner.lock();
        let (of, reason) = inner.orders.get(&job)?;
        (*of == claim).then(|| Arc::clone(reason))
    }

    /// Wakes the future of this number at an order for the job; `None` when it does not wait any more.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "only futures are woken"))]
    pub(crate) fn watch(&self, job: JobId, number: u64, waker: Option<&Waker>) {
        let new = waker.cloned();
        let mut inner = self.inner.lock();
        let old = match new {
            Some(waker) => inner.wakers.insert((job, number), waker),
            None => inner.wakers.remove(&(job, number)),
        };
        // A waker may be the last that holds a task, whose end comes here again.
        drop(inner);
        drop(old);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn order(job: JobId, claim: i64) -> CancelOrder {
        CancelOrder { job, claim, reason: "closed".to_owned() }
    }

    #[test]
    fn an_order_is_that_of_one_claim_until_it_is_gone() {
        let (cancels, job) = (Cancels::default(), JobId::new());
        assert_eq!(cancels.reason(job, 1), None);
        cancels.note(vec![order(job, 1)]);
        assert_eq!(cancels.reason(job, 1).as_deref(), Some("closed"));
        assert_eq!(cancels.reason(job, 2), None, "a later run of it");
        assert_eq!(cancels.reason(JobId::new(), 1), None);
        cancels.note(Vec::new());
        assert_eq!(cancels.reason(job, 1), None);
    }

    #[test]
    fn the_future_of_a_job_that_is_to_end_is_woken_and_no_other() {
        let (cancels, counted) = (Cancels::default(), Arc::new(Counted::default()));
        let waker = Waker::from(Arc::clone(&counted));
        let (one, other, third) = (JobId::new(), JobId::new(), JobId::new());
        for job in [one, other, third] {
            cancels.watch(job, 7, Some(&waker));
            cancels.watch(job, 8, Some(&waker));
        }
        cancels.watch(third, 7, None);
        cancels.watch(third, 8, None);
        cancels.note(vec![order(one, 1), order(third, 1)]);
        assert_eq!(counted.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_look_that_fails_again_is_no_news() {
        let cancels = Cancels::default();
        assert!(cancels.note_failure() && !cancels.note_failure());
        cancels.note(Vec::new());
        assert!(cancels.note_failure());
    }
}
