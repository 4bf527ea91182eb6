use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::{Hook, JSON, PluginNeed, SourceLocation};

use crate::backoff::RetryDelay;

/// The queue of abilities that name none.
pub(crate) const DEFAULT_QUEUE: &str = "default";

/// How an ability's jobs are queued, retried and leased.
#[derive(Debug, Clone)]
pub struct AbilityOptions {
    pub(crate) queue: Cow<'static, str>,
    pub(crate) codec: Cow<'static, str>,
    pub(crate) priority: i32,
    pub(crate) max_retries: u32,
    pub(crate) max_crashes: u32,
    pub(crate) retry_delay: RetryDelay,
    pub(crate) grab_for: Option<Duration>,
    pub(crate) job_status: bool,
    pub(crate) time_limit: Option<Duration>,
    pub(crate) aliases: Vec<Cow<'static, str>>,
    pub(crate) hooks: Vec<OwnHook>,
    pub(crate) needs: Vec<PluginNeed>,
}

/// A hook that an ability brings along.
#[derive(Clone)]
pub(crate) struct OwnHook(pub(crate) Arc<dyn Hook>, pub(crate) SourceLocation);

impl fmt::Debug for OwnHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl Default for AbilityOptions {
    /// Queue `default`, codec `json`, priority 0, no retries, five crashes, the manager's `grab_for`,
    /// no job status.
    fn default() -> Self {
        Self {
            queue: Cow::Borrowed(DEFAULT_QUEUE),
            codec: Cow::Borrowed(JSON),
            priority: 0,
            max_retries: 0,
            max_crashes: 5,
            retry_delay: RetryDelay::default(),
            grab_for: None,
            job_status: false,
            time_limit: None,
            aliases: Vec::new(),
            hooks: Vec::new(),
            needs: Vec::new(),
        }
    }
}

impl AbilityOptions {
    /// The queue of new jobs. Default: `default`.
    #[must_use]
    pub fn queue(mut self, queue: impl Into<Cow<'static, str>>) -> Self {
        self.queue = queue.into();
        self
    }

    /// The codec of new jobs. Default: `json`.
    #[must_use]
    pub fn codec(mut self, codec: impl Into<Cow<'static, str>>) -> Self {
        self.codec = codec.into();
        self
    }

    /// The priority of new jobs; higher runs first. Default: 0.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// How many times a failed job is tried again. Default: 0. Between the attempts is
    /// [`retry_delay`](Self::retry_delay).
    #[must_use]
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = retries;
        self
    }

    /// How many times the worker process may die while it runs the job, or a run may last longer
    /// than its lease, before the job goes to the exception log. Counted separately from failures.
    /// Default: 5.
    #[must_use]
    pub fn max_crashes(mut self, crashes: u32) -> Self {
        self.max_crashes = crashes;
        self
    }

    /// How long a failed job waits: a constant, a [`Backoff`](crate::Backoff), or a function of
    /// the job. Default: [`Backoff::default`](crate::Backoff), 1 s, 2 s, 4 s … at most an hour, with jitter.
    #[must_use]
    pub fn retry_delay(mut self, delay: impl Into<RetryDelay>) -> Self {
        self.retry_delay = delay.into();
        self
    }

    /// How long a lease lasts: the longest that a run may take. Default: the manager's.
    #[must_use]
    pub fn grab_for(mut self, lease: Duration) -> Self {
        self.grab_for = Some(lease);
        self
    }

    /// How long a run should take at most; at most `grab_for`, after which other workers take the job. Default: no
    /// limit.
    ///
    /// A thread cannot be stopped from outside. After the limit `Job::is_stopping` returns `true`. A run that then
    /// returns an error fails with `FailureKind::Timeout`; a run that still succeeds counts as a success. An `async`
    /// ability is ended at the limit.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// Another name, usually a former one, under which jobs are still claimed and run. Their unique
    /// keys are those of the name they were enqueued under.
    #[must_use]
    pub fn alias(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.aliases.push(name.into());
        self
    }

    /// A hook for the jobs of this ability alone. Programs that enqueue without linking the ability
    /// do not run it. It is registered as `ABILITY/NAME`.
    #[must_use]
    #[track_caller]
    pub fn hook(mut self, hook: impl Hook + 'static) -> Self {
        self.hooks.push(OwnHook(Arc::new(hook), SourceLocation::caller()));
        self
    }

    /// A plugin without which the ability cannot run: a manager that has none of this type refuses to work, so that
    /// its jobs do not fail one after the other. Default: none.
    ///
    /// ```
    /// use qudo_core::AbilityOptions;
    ///
    /// struct Mailer;
    ///
    /// let options = AbilityOptions::default().needs::<Mailer>();
    /// ```
    #[must_use]
    pub fn needs<P: Send + Sync + 'static>(mut self) -> Self {
        self.needs.push(PluginNeed::of::<P>());
        self
    }

    /// Keeps a history row for each run. Default: off.
    #[must_use]
    #[doc(alias = "set_job_status")]
    pub fn job_status(mut self, on: bool) -> Self {
        self.job_status = on;
        self
    }
}
