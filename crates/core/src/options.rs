//! The settings of a manager.

use std::sync::Arc;
use std::time::Duration;

use crate::backoff::MAX_DELAY;
use crate::driver::{Keep, Name};
use crate::error::Error;
use crate::names::check_name;
use crate::tools::threads::processors;

/// Settings of a manager, checked.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) find_job_limit_size: Option<u32>,
    pub(crate) retry_seconds: Duration,
    pub(crate) delay: Duration,
    pub(crate) workers: usize,
    pub(crate) queues: Option<Vec<Name>>,
    pub(crate) grab_for: Duration,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) heartbeat_every: Duration,
    pub(crate) dead_after: Duration,
    pub(crate) max_arg_size: usize,
    pub(crate) keep: Keep,
    pub(crate) call_limit: Duration,
    pub(crate) notify_in_transactions: bool,
    pub(crate) version: Option<Arc<str>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            find_job_limit_size: None,
            retry_seconds: Duration::from_secs(30),
            delay: Duration::from_secs(5),
            workers: processors(),
            queues: None,
            grab_for: Duration::from_secs(3600),
            // Orchestrators kill after 30 s.
            shutdown_timeout: Duration::from_secs(25),
            heartbeat_every: Duration::from_secs(5),
            dead_after: Duration::from_secs(20),
            max_arg_size: 8 * 1024 * 1024,
            keep: Keep {
                replies: 7 * DAY,
                status: 90 * DAY,
                exceptions: 90 * DAY,
                exceptions_at_most: None,
                discarded: None,
                stats: 14 * DAY,
            },
            call_limit: Duration::from_secs(10),
            notify_in_transactions: true,
            version: None,
        }
    }
}

/// Longer than any table lives; dates can be reckoned with it.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(100 * 366 * 24 * 3_600);

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Shorter, and a mover that was overtaken could bring a job again that ended meanwhile.
const MIN_TRAIL: Duration = Duration::from_secs(3_600);

/// Shorter, and a process would be taken for dead that waited for a disk or a processor.
const MIN_PROMISE: Duration = Duration::from_millis(200);

impl Options {
    /// Refuses absurd ones by name.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let out_of_range =
            |option, reason: &str| Err(Error::InvalidOption { option, reason: reason.to_owned() });
        let options = self;
        if let Some(0 | 10_001..) = options.find_job_limit_size {
            return out_of_range("find_job_limit_size", "expected 1 to 10000");
        }
        if !(1..=4096).contains(&options.workers) {
            return out_of_range("workers", "expected 1 to 4096 threads");
        }
        if options.retry_seconds.is_zero() || options.retry_seconds > MAX_DELAY {
            return out_of_range("retry_seconds", "expected 1 second to a year");
        }
        for (option, value) in [
            ("delay", options.delay),
            ("grab_for", options.grab_for),
            ("heartbeat", options.heartbeat_every),
            ("call_limit", options.call_limit),
        ] {
            check_span(option, value)?;
        }
        if options.keep.replies < MIN_TRAIL {
            return out_of_range("keep_replies", "expected an hour at least");
        }
        // Tickets answer from them that a job failed, and from their absence that it did not.
        let keep = &options.keep;
        for (option, age) in
            [("keep_exceptions", Some(keep.exceptions)), ("keep_discarded", keep.discarded)]
        {
            if age.is_some_and(|age| age < keep.replies) {
                return out_of_range(option, "expected keep_replies (7 days by default) at least");
            }
        }
        if options.shutdown_timeout > MAX_DELAY {
            return out_of_range("shutdown_timeout", "expected at most a year");
        }
        if options.dead_after > MAX_DELAY {
            return out_of_range("heartbeat", "dead_after must be at most a year");
        }
        if options.dead_after < MIN_PROMISE {
            return out_of_range("heartbeat", "dead_after must be at least 200 ms");
        }
        if options.dead_after < options.heartbeat_every * 2 {
            return out_of_range("heartbeat", "dead_after must be at least twice the interval");
        }
        if options.queues.as_ref().is_some_and(Vec::is_empty) {
            return out_of_range(
                "queues",
                "expected at least one; leave it out for those of the abilities",
            );
        }
        for queue in options.queues.iter().flatten() {
            check_name("queue", queue)?;
        }
        if let Some(version) = &options.version {
            check_name("version", version)?;
        }
        Ok(())
    }
}

/// Refuses a length of time that nobody means.
pub(crate) fn check_span(option: &'static str, value: Duration) -> Result<(), Error> {
    if (Duration::from_millis(1)..=MAX_DELAY).contains(&value) {
        return Ok(());
    }
    let reason = "expected 1 millisecond to a year".to_owned();
    Err(Error::InvalidOption { option, reason })
}
