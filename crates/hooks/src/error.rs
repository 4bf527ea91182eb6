use std::time::Duration;

/// What a veto of [`pre_work`](crate::Hook::pre_work) does with the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Veto {
    /// The job never runs: it goes to the exception log with the hook's message.
    Abort,
    /// The job runs later; no attempt is spent.
    Snooze(Duration),
}

/// What a hook returns when it refuses or fails.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct HookError {
    message: String,
    veto: Option<Veto>,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl HookError {
    /// A failure: at enqueue the caller gets it as an error, at work the attempt fails.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), veto: None, source: None }
    }

    /// A veto at work that sends the job to the exception log.
    pub fn abort(message: impl Into<String>) -> Self {
        Self { message: message.into(), veto: Some(Veto::Abort), source: None }
    }

    /// A veto at work that puts the job off without spending an attempt.
    pub fn snooze(delay: Duration, message: impl Into<String>) -> Self {
        Self { message: message.into(), veto: Some(Veto::Snooze(delay)), source: None }
    }

    /// Keeps the cause, for [`source`](std::error::Error::source).
    #[must_use]
    pub fn with_source(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The veto, if this is one rather than a failure.
    pub fn veto(&self) -> Option<Veto> {
        self.veto
    }
}

/// A hook that lacks a plugin fails.
impl From<crate::PluginError> for HookError {
    fn from(error: crate::PluginError) -> Self {
        Self::new(error.to_string()).with_source(error)
    }
}
