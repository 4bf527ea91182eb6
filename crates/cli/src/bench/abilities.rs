//! What the jobs of the bench do. They are not registered at link time: a service that carries the
//! commands must not serve them.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use qudo::{Ability, Job, JobError};

/// How many jobs ran, and how long each takes.
#[derive(Clone, Default)]
pub(super) struct Counter {
    done: Arc<AtomicU32>,
    pause: Duration,
}

impl Counter {
    pub(super) fn pausing(pause: Duration) -> Self {
        Self { done: Arc::default(), pause }
    }

    pub(super) fn get(&self) -> u32 {
        self.done.load(Ordering::Acquire)
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
        if !counter.pause.is_zero() {
            std::thread::sleep(counter.pause);
        }
        counter.done.fetch_add(1, Ordering::AcqRel);
        Ok(())
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
    fn work(_: &Job, _: String) -> Result<u32, JobError> {
        Ok(1)
    }
}
