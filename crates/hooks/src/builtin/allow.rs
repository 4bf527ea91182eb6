use std::collections::BTreeMap;

use crate::{Hook, HookError, JobDraft};

/// Says which abilities this program may enqueue, and into which queues.
///
/// Everything that is not named is refused, at the caller.
///
/// ```
/// use qudo_hooks::builtin::AllowList;
/// use qudo_hooks::{Hook, JobDraft, JobFields};
///
/// let allowed = AllowList::default().ability("thumbnail").ability_in("mail", "outgoing");
/// let mut fields = JobFields::json("default", 1.into());
/// assert!(allowed.pre_enqueue(&mut JobDraft::new("thumbnail", &mut fields)).is_ok());
/// assert!(allowed.pre_enqueue(&mut JobDraft::new("mail", &mut fields)).is_err());
/// assert!(allowed.pre_enqueue(&mut JobDraft::new("drop_tables", &mut fields)).is_err());
/// ```
#[derive(Debug, Clone, Default)]
pub struct AllowList {
    /// Queues by ability; any when empty.
    abilities: BTreeMap<String, Vec<String>>,
}

impl AllowList {
    /// Allows an ability in any queue.
    #[must_use]
    pub fn ability(mut self, name: impl Into<String>) -> Self {
        self.abilities.entry(name.into()).or_default();
        self
    }

    /// Allows an ability in this queue; several calls allow several queues.
    #[must_use]
    pub fn ability_in(mut self, name: impl Into<String>, queue: impl Into<String>) -> Self {
        self.abilities.entry(name.into()).or_default().push(queue.into());
        self
    }
}

impl Hook for AllowList {
    fn name(&self) -> &'static str {
        "allow-list"
    }

    /// Late, so that it judges what the other hooks made of the draft.
    fn order(&self) -> i32 {
        1_000
    }

    fn pre_enqueue(&self, job: &mut JobDraft<'_>) -> Result<(), HookError> {
        match self.abilities.get(job.ability()) {
            None => Err(HookError::new("this program may not enqueue this ability")),
            Some(queues) if queues.is_empty() || queues.iter().any(|one| one == job.queue()) => {
                Ok(())
            }
            Some(_) => {
                let queue = job.queue();
                Err(HookError::new(format!(
                    "this program may not enqueue this ability into queue {queue:?}"
                )))
            }
        }
    }
}
