use std::time::Duration;

use crate::{Decision, Failure, FailureKind, Hook, HookError, JobView};

/// Retries with a growing delay, whatever the abilities say.
///
/// The delay doubles with each attempt up to a cap; a job that was discarded because its retries
/// were used up stays discarded.
///
/// ```
/// use std::time::Duration;
/// use qudo_hooks::builtin::RetryGrowing;
/// use qudo_hooks::{Decision, Failure, FailureKind, Hook, JobId, JobView};
///
/// let hook = RetryGrowing::new(Duration::from_secs(1), Duration::from_secs(60));
/// let job = JobView::new(JobId::new(), "call", "default").with_attempt(4, 9);
/// let mut decision = Decision::Retry(Duration::ZERO);
/// hook.on_failure(&job, &Failure::new(FailureKind::Error, "503"), &mut decision)?;
/// assert_eq!(decision, Decision::Retry(Duration::from_secs(8)));
/// # Ok::<(), qudo_hooks::HookError>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RetryGrowing {
    base: Duration,
    cap: Duration,
}

impl RetryGrowing {
    /// The first delay and the longest.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap }
    }
}

impl Hook for RetryGrowing {
    fn name(&self) -> &'static str {
        "retry-growing"
    }

    fn on_failure(
        &self,
        job: &JobView<'_>,
        _failure: &Failure,
        decision: &mut Decision,
    ) -> Result<(), HookError> {
        if let Decision::Retry(delay) = decision {
            let doublings = job.attempt().saturating_sub(1).min(31);
            *delay = self.base.saturating_mul(1 << doublings).min(self.cap);
        }
        Ok(())
    }
}

/// Decides by the kind of failure: which kinds are never tried again, and which kinds are tried
/// again after which delay.
///
/// ```
/// use std::time::Duration;
/// use qudo_hooks::builtin::RetryByKind;
/// use qudo_hooks::{Decision, Failure, FailureKind, Hook, JobId, JobView};
///
/// let hook = RetryByKind::default()
///     .never(FailureKind::Panic)
///     .after(FailureKind::Timeout, Duration::from_secs(300));
/// let job = JobView::new(JobId::new(), "call", "default").with_attempt(1, 9);
/// let mut decision = Decision::Retry(Duration::ZERO);
/// hook.on_failure(&job, &Failure::new(FailureKind::Panic, "index out of bounds"), &mut decision)?;
/// assert_eq!(decision, Decision::Discard);
/// # Ok::<(), qudo_hooks::HookError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct RetryByKind {
    rules: Vec<(FailureKind, Option<Duration>)>,
}

impl RetryByKind {
    /// Failures of this kind send the job to the exception log immediately.
    #[must_use]
    pub fn never(mut self, kind: FailureKind) -> Self {
        self.rules.push((kind, None));
        self
    }

    /// Failures of this kind are tried again after this delay, while the ability allows a retry.
    #[must_use]
    pub fn after(mut self, kind: FailureKind, delay: Duration) -> Self {
        self.rules.push((kind, Some(delay)));
        self
    }
}

impl Hook for RetryByKind {
    fn name(&self) -> &'static str {
        "retry-by-kind"
    }

    /// After other retry hooks: what it says about a kind is meant.
    fn order(&self) -> i32 {
        100
    }

    fn on_failure(
        &self,
        _job: &JobView<'_>,
        failure: &Failure,
        decision: &mut Decision,
    ) -> Result<(), HookError> {
        let rule = self.rules.iter().rev().find(|(kind, _)| *kind == failure.kind());
        match (rule, &*decision) {
            (Some((_, None)), _) => *decision = Decision::Discard,
            (Some((_, Some(delay))), Decision::Retry(_)) => *decision = Decision::Retry(*delay),
            _ => {}
        }
        Ok(())
    }
}
