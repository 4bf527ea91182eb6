use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The ability returned an error.
    Error,
    /// The ability panicked.
    Panic,
    /// The stored argument did not decode, or its codec is not linked here.
    Decode,
    /// The worker process died or was silent for too long.
    Crash,
    /// The lease ran out while the worker was alive.
    LeaseExpired,
    /// A hook failed before the ability ran.
    Hook,
    /// The ability or a hook asked never to run the job again.
    Abort,
    /// The run failed after its ability's time limit was over.
    Timeout,
    /// An operator cancelled the job: no failure, but kept like one, so that it can be enqueued again.
    Cancelled,
}

impl FailureKind {
    /// The word stored in the exception log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Panic => "panic",
            Self::Decode => "decode",
            Self::Crash => "crash",
            Self::LeaseExpired => "lease_expired",
            Self::Hook => "hook",
            Self::Abort => "abort",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the word stored in the exception log; an unknown word is an [`Error`](Self::Error).
    pub fn from_stored(word: &str) -> Self {
        match word {
            "panic" => Self::Panic,
            "decode" => Self::Decode,
            "crash" => Self::Crash,
            "lease_expired" => Self::LeaseExpired,
            "hook" => Self::Hook,
            "abort" => Self::Abort,
            "timeout" => Self::Timeout,
            "cancelled" => Self::Cancelled,
            _ => Self::Error,
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failed attempt as hooks see it.
#[derive(Clone)]
pub struct Failure {
    kind: FailureKind,
    class: Option<Cow<'static, str>>,
    message: String,
    error: Option<Arc<dyn Error + Send + Sync>>,
}

/// Without the error itself, which may show what it is about.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("kind", &self.kind)
            .field("class", &self.class)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

impl Failure {
    /// Describes a failure; public so that hooks can be tested alone.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, class: None, message: message.into(), error: None }
    }

    /// Says of which kind the error is: the name of its type.
    #[must_use]
    pub fn with_class(mut self, class: impl Into<Cow<'static, str>>) -> Self {
        self.class = Some(class.into());
        self
    }

    /// Gives it the error itself; public so that hooks can be tested alone.
    #[must_use]
    pub fn with_error(mut self, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.error = Some(Arc::from(error.into()));
        self
    }

    /// The error that the ability returned, or one of its causes, if it is of this type. A panic, a veto of a hook and
    /// a failure that came from the manager have no such error.
    ///
    /// ```
    /// use qudo_hooks::{Failure, FailureKind};
    ///
    /// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    /// let failure = Failure::new(FailureKind::Error, refused.to_string()).with_error(refused);
    /// let error = failure.downcast_ref::<std::io::Error>().expect("is one");
    /// assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    /// ```
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        let mut error = self.error();
        while let Some(one) = error {
            if let Some(found) = one.downcast_ref() {
                return Some(found);
            }
            error = one.source();
        }
        None
    }

    /// The error that the ability returned.
    pub fn error(&self) -> Option<&(dyn Error + 'static)> {
        let error: &(dyn Error + Send + Sync) = self.error.as_deref()?;
        Some(error)
    }

    /// Why the attempt failed.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    /// The name of the error's type, such as `std::io::error::Error`; `None` for a text, a boxed error and
    /// other errors whose type is not known.
    pub fn class(&self) -> Option<&str> {
        self.class.as_deref()
    }

    /// The error with its causes, as it will stand in the exception log.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// What happens to a job whose attempt failed; `on_failure` hooks may change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// Runs again after this delay.
    Retry(Duration),
    /// Never runs again: the job leaves the queue and stays in the exception log.
    Discard,
}

/// How a run ended, as [`post_work`](crate::Hook::post_work) sees it.
///
/// The outcome is what the worker asked for. It is settled afterwards, and a
/// worker that lost its lease meanwhile changes nothing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Outcome {
    /// The ability returned `Ok`.
    Completed,
    /// The ability returned `Ok` and enqueued this many jobs in the same transaction.
    Replaced(usize),
    /// The attempt failed and the job runs again after the delay.
    Retried(Failure, Duration),
    /// The attempt failed and the job went to the exception log.
    Discarded(Failure),
    /// The job runs later; no attempt was spent.
    Snoozed(Duration),
    /// An operator cancelled the job, for this reason, and the ability did not do its work. The job is kept in the exception log, from which it
    /// can be enqueued again.
    Cancelled(String),
}

impl Outcome {
    /// Whether the ability did its work.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Completed | Self::Replaced(_))
    }

    /// The failure, if the attempt failed.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Retried(failure, _) | Self::Discarded(failure) => Some(failure),
            _ => None,
        }
    }

    /// What the job status keeps of it: the message of the failure, or the reason of the cancel.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Cancelled(reason) => Some(reason),
            _ => self.failure().map(Failure::message),
        }
    }

    /// The word that logs and the job status use.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Replaced(_) => "replaced",
            Self::Retried(..) => "retried",
            Self::Discarded(_) => "failed",
            Self::Snoozed(_) => "snoozed",
            Self::Cancelled(_) => "cancelled",
        }
    }
}
