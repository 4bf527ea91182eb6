use log::{Level, log};

use crate::{Decision, Failure, Hook, HookError, JobView, Outcome};

/// Logs each enqueue, start and end of a job with key-values, for loggers that index them.
///
/// The keys are `job`, `ability`, `queue`, `database`, `attempt` and `outcome`. Arguments are never
/// logged. The manager itself logs failures; this hook is for those who want to see every job.
///
/// ```
/// use log::Level;
/// use qudo_hooks::builtin::Logging;
///
/// let quiet = Logging::at(Level::Debug);
/// # let _ = quiet;
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Logging {
    level: Level,
}

impl Default for Logging {
    /// At the level `info`.
    fn default() -> Self {
        Self::at(Level::Info)
    }
}

impl Logging {
    /// At another level; failures are never below `warn`.
    pub fn at(level: Level) -> Self {
        Self { level }
    }
}

impl Hook for Logging {
    fn name(&self) -> &'static str {
        "logging"
    }

    fn post_enqueue(&self, job: &JobView<'_>) {
        log!(
            target: "qudo", self.level,
            job:% = job.id(), ability = job.ability(), queue = job.queue(),
            database = job.database();
            "enqueued"
        );
    }

    fn pre_work(&self, job: &JobView<'_>) -> Result<(), HookError> {
        log!(
            target: "qudo", self.level,
            job:% = job.id(), ability = job.ability(), queue = job.queue(),
            database = job.database(), attempt = job.attempt();
            "started"
        );
        Ok(())
    }

    fn on_failure(
        &self,
        job: &JobView<'_>,
        failure: &Failure,
        _decision: &mut Decision,
    ) -> Result<(), HookError> {
        log!(
            target: "qudo", self.level.min(Level::Warn),
            job:% = job.id(), ability = job.ability(), attempt = job.attempt(),
            kind = failure.kind().as_str();
            "failed: {}", failure.message()
        );
        Ok(())
    }

    fn post_work(&self, job: &JobView<'_>, outcome: &Outcome) {
        log!(
            target: "qudo", self.level,
            job:% = job.id(), ability = job.ability(), attempt = job.attempt(),
            outcome = outcome.as_str();
            "ended"
        );
    }
}
