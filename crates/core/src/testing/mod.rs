//! Tests of abilities, hooks and the code that enqueues, without a database.
//!
//! A [`TestQueue`] is a manager in memory with a clock that stands still. By hand, jobs wait until
//! [`run_all`](TestQueue::run_all) runs them; [`inline`](TestQueueBuilder::inline), each job runs before
//! its enqueue returns.
//!
//! ```
//! use std::time::Duration;
//! use qudo_core::testing::TestQueue;
//! use qudo_core::{Ability, Job, JobError, JobResult, assert_enqueued};
//!
//! struct Welcome;
//! impl Ability for Welcome {
//!     const NAME: &'static str = "welcome";
//!     type Arg = String;
//!     type Reply = usize;
//!     fn options() -> qudo_core::AbilityOptions {
//!         qudo_core::AbilityOptions::default().max_retries(1).retry_delay(Duration::from_secs(60))
//!     }
//!     fn work(job: &Job, address: String) -> JobResult<usize> {
//!         if job.attempt() == 1 { return Err(JobError::fail("busy")) }
//!         Ok(address.len())
//!     }
//! }
//!
//! let queue = TestQueue::builder().ability::<Welcome>().build()?;
//! let sent = queue.manager().enqueue(Welcome::job("eve@example.org".to_owned()).priority(3))?;
//!
//! assert_enqueued!(queue, Welcome);
//! assert_enqueued!(queue, Welcome, |job, address| job.facts.priority == 3 && address.starts_with("eve"));
//!
//! assert_eq!(queue.run_all()?.len(), 1, "it failed once and waits for its retry");
//! queue.advance(Duration::from_secs(61));
//! assert!(queue.run_all()?[0].is_success());
//! assert_eq!(sent.wait(Duration::ZERO)?, 15);
//! # Ok::<(), qudo_core::Error>(())
//! ```

mod faulty;

pub use faulty::FaultyDriver;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, Utc};
use qudo_hooks::{Hook, JobView, Outcome};

use crate::ability::Ability;
use crate::admin::page::Paging;
use crate::builder::ManagerBuilder;
use crate::clock::{Clock, SettableClock};
use crate::driver::JobInfo;
use crate::error::Error;
use crate::filter::JobFilter;
use crate::manager::{Manager, WeakManager};
use crate::memory::MemoryDriver;

/// The short name of a test queue's only database.
const DATABASE: &str = "test";

/// More jobs than any test has.
const ALL: u32 = 1_000_000;

/// A manager in memory for tests.
#[derive(Debug)]
pub struct TestQueue {
    manager: Manager,
    clock: Arc<SettableClock>,
}

/// Describes a [`TestQueue`].
#[must_use = "a builder does nothing until build is called"]
pub struct TestQueueBuilder {
    builder: ManagerBuilder,
    clock: Arc<SettableClock>,
    #[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "there is no other clock"))]
    time: Arc<TestTime>,
    inline: bool,
}

/// The time of a test queue: that of its clock, which the test moves, and what has gone by on another since.
struct TestTime {
    settable: Arc<SettableClock>,
    follows: OnceLock<Box<Elapsed>>,
}

type Elapsed = dyn Fn() -> Duration + Send + Sync;

impl Clock for TestTime {
    fn now(&self) -> DateTime<Utc> {
        self.settable.now() + self.follows.get().map_or(Duration::ZERO, |elapsed| elapsed())
    }
}

impl fmt::Debug for TestQueueBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestQueueBuilder")
            .field("builder", &self.builder)
            .field("inline", &self.inline)
            .finish_non_exhaustive()
    }
}

impl TestQueue {
    /// Starts to describe a test queue. Nothing that registered itself at link time is in it unless
    /// [asked for](TestQueueBuilder::linked).
    pub fn builder() -> TestQueueBuilder {
        let clock = Arc::new(SettableClock::default());
        let time = Arc::new(TestTime { settable: Arc::clone(&clock), follows: OnceLock::new() });
        let driver = MemoryDriver::with_clock(Arc::clone(&time) as _);
        let builder = Manager::builder().linked(false).driver(DATABASE, Arc::new(driver));
        TestQueueBuilder { builder, clock, time, inline: false }
    }

    /// The manager to give to the code under test.
    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// Moves the clock: due times, retries and leases follow it. Nothing runs by this alone. With
    /// [`tokio_time`](TestQueueBuilder::tokio_time) it moves on top of tokio's.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Runs what is ready, one job after another on the calling thread, until nothing is; also the
    /// jobs that these enqueue. Returns the outcomes in order. Delayed jobs and retries wait for
    /// [`advance`](Self::advance).
    ///
    /// # Errors
    ///
    /// As [`Manager::work_once`].
    #[doc(alias = "drain")]
    pub fn run_all(&self) -> Result<Vec<Outcome>, Error> {
        let mut outcomes = Vec::new();
        while let Some(outcome) = self.manager.work_once()? {
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    /// As [`run_all`](Self::run_all), for an async test: another thread runs the jobs one after another, so that the
    /// runtime of the test goes on, which async abilities need. Where the runtime's time is paused it moves on meanwhile, to the next of
    /// its timers.
    ///
    /// # Errors
    ///
    /// As [`Manager::work_once`].
    pub async fn run_all_async(&self) -> Result<Vec<Outcome>, Error> {
        let mut outcomes = Vec::new();
        let front = Arc::clone(&self.manager.client().front);
        loop {
            let manager = self.manager.clone();
            match front.run(move || manager.work_once()).await? {
                Some(outcome) => outcomes.push(outcome),
                None => return Ok(outcomes),
            }
        }
    }

    /// The live jobs, in the order of their enqueue.
    pub fn jobs(&self) -> Vec<JobInfo> {
        let all = self.manager.jobs(&JobFilter::all(), &Paging::default().limit(ALL).search(ALL));
        let mut jobs: Vec<_> = all.rows().map(|(_, job)| job.clone()).collect();
        jobs.sort_unstable_by_key(|job| job.id);
        jobs
    }

    /// The live jobs of an ability with their arguments. Those whose argument does not decode are
    /// left out.
    pub fn jobs_of<A: Ability>(&self) -> Vec<(JobInfo, A::Arg)> {
        let codecs = &self.manager.program().codecs;
        let jobs = self.jobs().into_iter().filter(|job| job.facts.ability == A::NAME);
        jobs.filter_map(|job| {
            let (codec, _) = crate::ability::split_version(&job.facts.codec);
            let arg = codecs.decode(codec, &job.facts.arg).ok()?;
            Some((job, arg))
        })
        .collect()
    }
}

impl TestQueueBuilder {
    /// Adds an ability.
    #[track_caller]
    pub fn ability<A: Ability>(self) -> Self {
        self.with(ManagerBuilder::ability::<A>)
    }

    /// Adds a hook.
    #[track_caller]
    pub fn hook(self, hook: impl Hook + 'static) -> Self {
        self.with(|builder| builder.hook(hook))
    }

    /// Adds a plugin, such as a fake of the real one.
    pub fn plugin<P: Send + Sync + 'static>(self, plugin: P) -> Self {
        self.with(|builder| builder.plugin(plugin))
    }

    /// Uses what registered itself at link time too.
    pub fn linked(self) -> Self {
        self.with(|builder| builder.linked(true))
    }

    /// Sets anything else that a manager's builder can.
    pub fn with(mut self, more: impl FnOnce(ManagerBuilder) -> ManagerBuilder) -> Self {
        self.builder = more(self.builder);
        self
    }

    /// The queue's time goes on with tokio's, of the runtime in which this is called: where that is paused, as in
    /// `#[tokio::test(start_paused = true)]`, it stands still until the test advances it or sleeps, and then due times and retries follow.
    ///
    /// # Panics
    ///
    /// Outside of a runtime.
    #[cfg(feature = "tokio")]
    #[track_caller]
    pub fn tokio_time(self) -> Self {
        let (handle, begun) = (tokio::runtime::Handle::current(), tokio::time::Instant::now());
        let elapsed = move || {
            // Of this runtime, whichever thread asks.
            let _entered = handle.enter();
            begun.elapsed()
        };
        // A second call changes nothing: both follow the same time.
        drop(self.time.follows.set(Box::new(elapsed)));
        self
    }

    /// Runs each job on the enqueuing thread before its enqueue returns, and whatever it enqueues
    /// before that. Delayed jobs wait all the same.
    pub fn inline(mut self) -> Self {
        self.inline = true;
        self
    }

    /// Builds the queue.
    ///
    /// # Errors
    ///
    /// As [`ManagerBuilder::build`].
    #[track_caller]
    pub fn build(self) -> Result<TestQueue, Error> {
        let manager = self.builder.build()?;
        if self.inline {
            let hook = RunNow { manager: OnceLock::from(manager.downgrade()) };
            manager.register_hook(hook)?;
        }
        Ok(TestQueue { manager, clock: self.clock })
    }
}

/// Runs whatever is ready as soon as something was enqueued.
struct RunNow {
    manager: OnceLock<WeakManager>,
}

impl Hook for RunNow {
    fn name(&self) -> &'static str {
        "testing: run at once"
    }

    /// After the hooks under test.
    fn order(&self) -> i32 {
        i32::MAX
    }

    fn post_enqueue(&self, _job: &JobView<'_>) {
        let Some(manager) = self.manager.get().and_then(WeakManager::upgrade) else { return };
        // An error shows again when the test asks for the outcome.
        while let Ok(Some(_)) = manager.work_once() {}
    }
}

/// Asserts that a [`TestQueue`] holds a live job of an ability, or one for which a condition on the
/// job and its argument holds. The message of a failure lists the jobs there are.
///
/// `assert_enqueued!(queue, Ability)`, `assert_enqueued!(queue, Ability, |job, arg| ..)`.
#[macro_export]
macro_rules! assert_enqueued {
    ($queue:expr, $ability:ty) => {
        $crate::assert_enqueued!($queue, $ability, |_job, _arg| true)
    };
    ($queue:expr, $ability:ty, $condition:expr) => {{
        let queue: &$crate::testing::TestQueue = &$queue;
        let found = $crate::testing::any_job::<$ability>(queue, $condition);
        assert!(
            found,
            "no such job of {} is enqueued; there are: {:?}",
            <$ability as $crate::Ability>::NAME,
            queue.jobs()
        );
    }};
}

/// Asserts that a [`TestQueue`] holds no live job of an ability.
#[macro_export]
macro_rules! refute_enqueued {
    ($queue:expr, $ability:ty) => {{
        let queue: &$crate::testing::TestQueue = &$queue;
        let found = $crate::testing::any_job::<$ability>(queue, |_, _| true);
        assert!(!found, "a job of {} is enqueued", <$ability as $crate::Ability>::NAME);
    }};
}

/// For the macros.
#[doc(hidden)]
pub fn any_job<A: Ability>(
    queue: &TestQueue,
    condition: impl Fn(&JobInfo, &A::Arg) -> bool,
) -> bool {
    queue.jobs_of::<A>().iter().any(|(job, arg)| condition(job, arg))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::job::Job;

    struct Count;

    #[derive(Default)]
    struct Counter(AtomicU32);

    impl Ability for Count {
        const NAME: &'static str = "count";
        type Arg = u32;
        type Reply = u32;
        fn work(job: &Job, left: u32) -> crate::job_error::JobResult<u32> {
            job.plugin::<Counter>()?.0.fetch_add(1, Ordering::Relaxed);
            if left > 0 {
                job.manager().enqueue(Self::job(left - 1))?;
            }
            Ok(left)
        }
    }

    fn count(queue: &TestQueue) -> u32 {
        let plugin = queue.manager().program().plugins.get::<Counter>();
        plugin.expect("given").0.load(Ordering::Relaxed)
    }

    #[test]
    fn inline_jobs_run_before_the_enqueue_returns_with_all_they_enqueue() {
        let builder = TestQueue::builder().ability::<Count>().plugin(Counter::default());
        let queue = builder.inline().build().expect("valid");
        let sent = queue.manager().enqueue(Count::job(3)).expect("stored");
        assert_eq!(count(&queue), 4);
        assert_eq!(sent.wait_as::<u32>(Duration::ZERO).expect("ran"), 3);
        refute_enqueued!(queue, Count);
        queue.manager().enqueue(Count::job(0).delay(Duration::from_secs(60))).expect("stored");
        assert_eq!(count(&queue), 4, "it is not due");
        assert_enqueued!(queue, Count);
    }

    #[test]
    fn by_hand_jobs_wait_and_what_is_there_is_told() {
        let builder = TestQueue::builder().ability::<Count>().plugin(Counter::default());
        let queue = builder.build().expect("valid");
        queue.manager().enqueue(Count::job(1).uniqkey("k")).expect("stored");
        assert_eq!(count(&queue), 0);
        assert_enqueued!(queue, Count, |job, arg| *arg == 1
            && job.facts.uniqkey.as_deref() == Some("k"));
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            assert_enqueued!(queue, Count, |_, arg| *arg == 9);
        }));
        let message = *failed.expect_err("none").downcast::<String>().expect("a text");
        assert!(message.contains("count") && message.contains("JobInfo"), "{message}");
        assert_eq!(queue.run_all().expect("works").len(), 2);
    }
}
