use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Failure, FailureKind, Hook, HookError, JobId, JobView, Outcome};

/// Stops running an ability whose jobs fail one after another, and tries again after a while.
///
/// After a given number of failures in a row the ability's jobs are put off for the pause, no attempt
/// spent. Then one job is let through: if it succeeds the others follow, if it fails a new pause begins.
/// Only failures of the ability itself count: errors, panics and runs over the time limit. A job that
/// another hook refused, that does not decode or that aborts itself does not count, and the next job is
/// tried in its place. Each worker process counts for itself.
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
///     breaker.around_work(&job, &mut || { /* the ability fails */ });
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
    /// The job that was let through since.
    trial: Option<JobId>,
    /// Jobs under way whose ability was called.
    called: HashSet<JobId>,
}

impl CircuitBreaker {
    /// Opens after this number of failures in a row, for this pause.
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
            state.trial = Some(job.id());
            None
        });
        match left {
            None => Ok(()),
            Some(left) => Err(HookError::snooze(left, "too many failures in a row")),
        }
    }

    fn around_work(&self, job: &JobView<'_>, run: &mut dyn FnMut()) {
        self.with(job.ability(), |state| state.called.insert(job.id()));
        run();
    }

    fn post_work(&self, job: &JobView<'_>, outcome: &Outcome) {
        self.with(job.ability(), |state| {
            let called = state.called.remove(&job.id());
            let was_trial = state.trial == Some(job.id());
            match outcome {
                Outcome::Retried(failure, _) | Outcome::Discarded(failure)
                    if called && blames_the_ability(failure) =>
                {
                    state.failed = state.failed.saturating_add(1);
                    if state.failed >= self.failures {
                        state.open_until = Some(Instant::now() + self.pause);
                    }
                }
                Outcome::Retried(..)
                | Outcome::Discarded(_)
                | Outcome::Snoozed(_)
                | Outcome::Cancelled(_) => {
                    if was_trial && state.open_until.is_some() {
                        // It was not tried, so the next one is.
                        state.open_until = Some(Instant::now());
                    }
                }
                _ => (state.failed, state.open_until) = (0, None),
            }
            if was_trial {
                state.trial = None;
            }
        });
    }
}

fn blames_the_ability(failure: &Failure) -> bool {
    matches!(failure.kind(), FailureKind::Error | FailureKind::Panic | FailureKind::Timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(3_600);

    fn job(id: JobId) -> JobView<'static> {
        JobView::new(id, "call_partner", "default")
    }

    fn discarded(kind: FailureKind) -> Outcome {
        Outcome::Discarded(Failure::new(kind, "no"))
    }

    /// A run that the breaker lets through; tells whether it did.
    fn run(breaker: &CircuitBreaker, called: bool, outcome: &Outcome) -> bool {
        let job = job(JobId::new());
        let passed = breaker.pre_work(&job).is_ok();
        if passed && called {
            breaker.around_work(&job, &mut || {});
        }
        let snoozed = Outcome::Snoozed(PAUSE);
        breaker.post_work(&job, if passed { outcome } else { &snoozed });
        passed
    }

    #[test]
    fn what_says_nothing_of_the_ability_does_not_open_it() {
        let breaker = CircuitBreaker::new(2, PAUSE);
        for _ in 0..3 {
            assert!(run(&breaker, false, &discarded(FailureKind::Abort)), "another hook's veto");
            assert!(run(&breaker, true, &discarded(FailureKind::Abort)), "its own abort");
            assert!(run(&breaker, true, &discarded(FailureKind::Decode)));
            assert!(run(&breaker, false, &discarded(FailureKind::Crash)));
        }
        assert!(run(&breaker, true, &discarded(FailureKind::Error)));
        assert!(run(&breaker, true, &discarded(FailureKind::Panic)));
        assert!(!run(&breaker, true, &Outcome::Completed), "open");
    }

    #[test]
    fn a_trial_that_was_none_is_followed_by_another() {
        let breaker = CircuitBreaker::new(1, Duration::ZERO);
        assert!(run(&breaker, true, &discarded(FailureKind::Error)));
        let breaker = CircuitBreaker { pause: PAUSE, ..breaker };
        assert!(
            run(&breaker, false, &discarded(FailureKind::Abort)),
            "an expired job is let through"
        );
        assert!(run(&breaker, false, &discarded(FailureKind::Abort)), "and another");
        assert!(run(&breaker, true, &Outcome::Completed), "and a good one closes it");
        assert!(run(&breaker, true, &Outcome::Completed));
    }

    #[test]
    fn others_wait_for_the_trial() {
        let breaker = CircuitBreaker::new(1, Duration::ZERO);
        assert!(run(&breaker, true, &discarded(FailureKind::Error)));
        let breaker = CircuitBreaker { pause: PAUSE, ..breaker };
        let trial = job(JobId::new());
        assert!(breaker.pre_work(&trial).is_ok());
        assert!(!run(&breaker, true, &Outcome::Completed));
        breaker.around_work(&trial, &mut || {});
        breaker.post_work(&trial, &Outcome::Completed);
        assert!(run(&breaker, true, &Outcome::Completed));
    }
}
