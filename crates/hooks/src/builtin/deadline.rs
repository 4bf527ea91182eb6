use std::time::Duration;

use chrono::Utc;

use crate::{Hook, HookError, JobView};

/// Sends jobs that start too late to the exception log instead of running them.
///
/// A reminder for this morning is worth nothing tomorrow. The age is counted from the enqueue by
/// the database's clock to the start by this machine's, so it should be longer than the clocks may
/// differ. For delayed jobs it includes the delay.
///
/// ```
/// use std::time::Duration;
/// use chrono::{TimeDelta, Utc};
/// use qudo_hooks::builtin::Deadline;
/// use qudo_hooks::{Hook, JobId, JobView};
///
/// let deadline = Deadline::of(Duration::from_secs(3600)).for_ability("remind");
/// let old = JobView::new(JobId::new(), "remind", "default")
///     .with_enqueued_at(Some(Utc::now() - TimeDelta::hours(2)));
/// assert!(deadline.pre_work(&old).is_err());
/// assert!(!deadline.applies_to("thumbnail"));
/// ```
#[derive(Debug, Clone)]
pub struct Deadline {
    age: Duration,
    abilities: Vec<String>,
}

impl Deadline {
    /// The longest time that may pass between the enqueue and the start of a run, for all
    /// abilities.
    pub fn of(age: Duration) -> Self {
        Self { age, abilities: Vec::new() }
    }

    /// For this ability only; several calls name several.
    #[must_use]
    pub fn for_ability(mut self, name: impl Into<String>) -> Self {
        self.abilities.push(name.into());
        self
    }
}

impl Hook for Deadline {
    fn name(&self) -> &'static str {
        "deadline"
    }

    fn applies_to(&self, ability: &str) -> bool {
        self.abilities.is_empty() || self.abilities.iter().any(|one| one == ability)
    }

    fn pre_work(&self, job: &JobView<'_>) -> Result<(), HookError> {
        let Some(enqueued_at) = job.enqueued_at() else { return Ok(()) };
        let age = (Utc::now() - enqueued_at).to_std().unwrap_or_default();
        if age <= self.age {
            return Ok(());
        }
        let (late, limit) = (age.as_secs(), self.age.as_secs());
        Err(HookError::abort(format!(
            "it would start {late} s after its enqueue, more than {limit}"
        )))
    }
}
