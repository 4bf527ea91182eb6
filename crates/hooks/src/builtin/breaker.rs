use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Hook, HookError, JobView, Outcome};

/// Stops running an ability whose jobs fail one after another, and tries again after a while.
///
/// After so many failures in a row the ability's jobs are put off for the pause, no attempt spent.
/// Then one job is let through: if it succeeds the others follow, if it fails the pause begins anew.
/// Each worker process counts for itself.
///
/// ```
/// use std::time::Duration;
/// use qudo_hooks::builtin::CircuitBreaker;
/// use qudo_hooks::{Failure, FailureKind, Hook, JobId, JobView, Outcome};
///
/// let breaker = CircuitBreaker::new(2, Duration::from_secs(60));
/// let job = JobView::new(JobId::new(), "call_partner", "default");
/// for _ in 0..2 {
///     breaker.pre_work(&job)?;
///     let failure = Failure::new(FailureKind::Error, "503");
///     breaker.post_work(&job, &Outcome::Retried(failure, Duration::ZERO));
/// }
/// assert!(breaker.pre_work(&job).is_err(), "open: the partner is left alone");
/// # Ok::<(), qudo_hooks::HookError>(())
/// ```
#[derive(Debug)]
pub struct CircuitBreaker {
    failures: u32,
    pause: Duration,
    abilities: Mutex<HashMap<String, State>>,
}

#[derive(Debug, Default)]
struct State {
    failed: u32,
    /// Nothing runs before this; then one job does.
    open_until: Option<Instant>,
}

impl CircuitBreaker {
    /// Opens after so many failures in a row, for so long.
    pub fn new(failures: u32, pause: Duration) -> Self {
        Self { failures: failures.max(1), pause, abilities: Mutex::default() }
    }

    fn with<T>(&self, ability: &str, act: impl FnOnce(&mut State) -> T) -> T {
        let mut abilities = self.abilities.lock().unwrap_or_else(PoisonError::into_inner);
        match abilities.get_mut(ability) {
            Some(state) => act(state),
            None => act(abilities.entry(ability.to_owned()).or_default()),
        }
    }
}

impl Hook for CircuitBreaker {
    fn name(&self) -> &'static str {
        "circuit-breaker"
    }

    fn pre_work(&self, job: &JobView<'_>) -> Result<(), HookError> {
        let now = Instant::now();
        let left = self.with(job.ability(), |state| {
            let until = state.open_until?;
            if until > now {
                return Some(until - now);
            }
            // This job is the trial; the others wait for what becomes of it.
            state.open_until = Some(now + self.pause);
            None
        });
        match left {
            None => Ok(()),
            Some(left) => Err(HookError::snooze(left, "too many failures in a row")),
        }
    }

    fn post_work(&self, job: &JobView<'_>, outcome: &Outcome) {
        self.with(job.ability(), |state| match outcome {
            Outcome::Retried(..) | Outcome::Discarded(_) => {
                state.failed = state.failed.saturating_add(1);
                if state.failed >= self.failures {
                    state.open_until = Some(Instant::now() + self.pause);
                }
            }
            // A job that was put off says nothing about the ability.
            Outcome::Snoozed(_) => {}
            _ => *state = State::default(),
        });
    }
}
