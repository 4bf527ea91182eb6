use std::fmt;
use std::time::Duration;

use qudo_hooks::{Failure, FailureKind};

use crate::tools::causes::with_causes;

/// What an ability returns: its reply, or what to do with the job instead.
pub type JobResult<T = ()> = Result<T, JobError>;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a run did not succeed, and what the ability wants done about it.
///
/// Any error converts with `?` into a failure, which is retried by the ability's rule.
/// Like other catch-all errors it does not itself implement [`std::error::Error`].
#[derive(Debug)]
pub struct JobError {
    pub(crate) wish: Wish,
    /// The name of the error's type, where it says something.
    class: Option<&'static str>,
    source: Source,
}

/// What is to happen to the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// By the ability's retry rule.
    Fail,
    /// Not again, unless a hook says so.
    Final,
    /// By the rule, but with this delay.
    RetryAfter(Duration),
    /// Never again.
    Abort,
    /// Later, no attempt spent.
    Snooze(Duration),
}

/// A run that did not complete: why, and what is to become of the job.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(crate) failure: Failure,
    pub(crate) wish: Wish,
}

impl Unfinished {
    /// An attempt that failed in this way.
    pub(crate) fn failed(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { failure: Failure::new(kind, message), wish: Wish::Fail }
    }

    /// One whose argument nobody can read: the next attempt would read the same bytes.
    pub(crate) fn unreadable(message: impl Into<String>) -> Self {
        Self { failure: Failure::new(FailureKind::Decode, message), wish: Wish::Final }
    }

    /// One that must not run again.
    pub(crate) fn aborted(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { failure: Failure::new(kind, message), wish: Wish::Abort }
    }

    /// One that an operator ended.
    pub(crate) fn cancelled(reason: &str) -> Self {
        Self::aborted(FailureKind::Cancelled, reason)
    }

    /// One that runs later, without an attempt spent.
    pub(crate) fn snoozed(delay: Duration) -> Self {
        JobError::snooze(delay).into()
    }
}

impl From<JobError> for Unfinished {
    fn from(error: JobError) -> Self {
        let kind = if error.wish == Wish::Abort { FailureKind::Abort } else { FailureKind::Error };
        let failure = Failure::new(kind, error.message());
        let failure = match error.class {
            Some(class) => failure.with_class(class),
            None => failure,
        };
        Self { failure: failure.with_error(error.source), wish: error.wish }
    }
}

impl JobError {
    /// A failed attempt: retried by the ability's rule.
    pub fn fail(message: impl Into<Source>) -> Self {
        Self::with(Wish::Fail, message.into())
    }

    /// A failed attempt that is retried after this delay, if the rule allows another.
    pub fn retry_after(delay: Duration, message: impl Into<Source>) -> Self {
        Self::with(Wish::RetryAfter(delay), message.into())
    }

    /// Never run again: the job goes to the exception log immediately.
    pub fn abort(message: impl Into<Source>) -> Self {
        Self::with(Wish::Abort, message.into())
    }

    /// Run later; no attempt is spent and nothing is logged as an exception.
    pub fn snooze(delay: Duration) -> Self {
        Self::with(Wish::Snooze(delay), "snoozed".into())
    }

    fn with(wish: Wish, source: Source) -> Self {
        Self { wish, class: None, source }
    }

    /// The error with its causes in one line.
    pub fn message(&self) -> String {
        with_causes(self.source.as_ref())
    }
}

/// Carries a [`JobError`] through the standard error type, where it may not go by itself.
#[derive(Debug)]
struct Carrier(JobError);

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Carrier {}

impl From<JobError> for Source {
    fn from(error: JobError) -> Self {
        Box::new(Carrier(error))
    }
}

impl JobError {
    /// What an ability returned as its error, of whatever type.
    pub(crate) fn from_any<E: Into<Source>>(error: E) -> Self {
        match error.into().downcast::<Carrier>() {
            Ok(carrier) => carrier.0,
            Err(source) => Self { wish: Wish::Fail, class: class_of::<E>(), source },
        }
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for JobError {
    fn from(error: E) -> Self {
        Self { class: class_of::<E>(), ..Self::fail(error) }
    }
}

/// The name of an error's type; `None` for those that hold an error of any type.
fn class_of<E>() -> Option<&'static str> {
    let name = std::any::type_name::<E>();
    let says_nothing = ["&", "alloc::", "anyhow::", "eyre::"];
    (!says_nothing.iter().any(|one| name.starts_with(one))).then_some(name)
}

/// Ends the run so that the job never runs again: `return Err(abort("no such user"))`.
pub fn abort(message: impl Into<Source>) -> JobError {
    JobError::abort(message)
}

/// Ends the run so that the job runs later without spending an attempt.
pub fn snooze(delay: Duration) -> JobError {
    JobError::snooze(delay)
}
