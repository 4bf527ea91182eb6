//! What the jobs of the bench do. They are not registered at link time: a service that carries the
//! commands must not serve them.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use qudo::{Ability, AbilityOptions, Job, JobError, snooze};

/// How many jobs came to their end, and how long each run takes.
#[derive(Clone, Default)]
pub(super) struct Counter {
    done: Arc<AtomicU32>,
    pause: Duration,
    /// Jobs that were put off once, by their number.
    snoozed: Arc<[AtomicBool]>,
}

impl Counter {
    /// For runs of this length, of jobs with numbers below `jobs`.
    pub(super) fn new(pause: Duration, jobs: u32) -> Self {
        let snoozed = (0..jobs).map(|_| AtomicBool::default()).collect();
        Self { done: Arc::default(), pause, snoozed }
    }

    pub(super) fn get(&self) -> u32 {
        self.done.load(Ordering::Acquire)
    }

    fn run(&self) {
        if !self.pause.is_zero() {
            std::thread::sleep(self.pause);
        }
    }

    fn end(&self) {
        self.done.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether this job was not put off before, as far as this process knows.
    fn puts_off(&self, arg: &str) -> bool {
        let number = arg.get(..10).and_then(|digits| digits.parse::<usize>().ok());
        let seen = number.and_then(|number| self.snoozed.get(number));
        seen.is_some_and(|seen| !seen.swap(true, Ordering::AcqRel))
    }
}

/// Microseconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

/// Does nothing but take its time and be counted.
pub(super) struct Nothing;

impl Ability for Nothing {
    const NAME: &'static str = "qudo-bench-nothing";
    type Arg = String;
    type Reply = ();
    fn work(job: &Job, _: String) -> Result<(), JobError> {
        let counter = job.plugin::<Counter>()?;
        counter.run();
        counter.end();
        Ok(())
    }
}

/// The same, and leaves a row in the history.
pub(super) struct Status;

impl Ability for Status {
    const NAME: &'static str = "qudo-bench-status";
    type Arg = String;
    type Reply = ();
    fn work(job: &Job, arg: String) -> Result<(), JobError> {
        Nothing::work(job, arg)
    }
    fn options() -> AbilityOptions {
        AbilityOptions::default().job_status(true)
    }
}

/// Fails for good.
pub(super) struct Fail;

impl Ability for Fail {
    const NAME: &'static str = "qudo-bench-fail";
    type Arg = String;
    type Reply = ();
    fn work(job: &Job, arg: String) -> Result<(), JobError> {
        Nothing::work(job, arg)?;
        Err(JobError::fail("as it was asked to"))
    }
    fn options() -> AbilityOptions {
        AbilityOptions::default().max_retries(0)
    }
}

/// Fails the first time, and is tried again at once.
pub(super) struct Retry;

impl Ability for Retry {
    const NAME: &'static str = "qudo-bench-retry";
    type Arg = String;
    type Reply = ();
    fn work(job: &Job, arg: String) -> Result<(), JobError> {
        if job.attempt() > 1 {
            return Nothing::work(job, arg);
        }
        job.plugin::<Counter>()?.run();
        Err(JobError::fail("as it was asked to"))
    }
    fn options() -> AbilityOptions {
        AbilityOptions::default().max_retries(1).retry_delay(Duration::ZERO)
    }
}

/// Is put off once, for no time.
pub(super) struct Snooze;

impl Ability for Snooze {
    const NAME: &'static str = "qudo-bench-snooze";
    type Arg = String;
    type Reply = ();
    fn work(job: &Job, arg: String) -> Result<(), JobError> {
        let counter = job.plugin::<Counter>()?;
        if !counter.puts_off(&arg) {
            return Nothing::work(job, arg);
        }
        counter.run();
        Err(snooze(Duration::ZERO))
    }
}

/// Whether somebody reads the instants: the process that cleans up works left-over jobs too.
pub(super) struct Printing;

/// Prints the instant of its start.
pub(super) struct Stamp;

impl Ability for Stamp {
    const NAME: &'static str = "qudo-bench-stamp";
    type Arg = String;
    type Reply = ();
    fn work(job: &Job, _: String) -> Result<(), JobError> {
        let started = now();
        if job.plugin::<Printing>().is_err() {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{started}").and_then(|()| out.flush()).map_err(JobError::fail)
    }
}

/// Answers.
pub(super) struct Reply;

impl Ability for Reply {
    const NAME: &'static str = "qudo-bench-reply";
    type Arg = String;
    type Reply = u32;
    fn work(job: &Job, arg: String) -> Result<u32, JobError> {
        Nothing::work(job, arg)?;
        Ok(1)
    }
}
