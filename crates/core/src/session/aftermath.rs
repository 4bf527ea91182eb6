//! What hooks are told once the end of a run is committed.

use qudo_hooks::{Failure, FailureKind, HookSet, JobId, JobView, Outcome};

use crate::client::draft::{call_post_cancel, call_post_enqueue, hooks_of};
use crate::driver::{Extras, JobRecord, Settlement, Verdict};
use crate::job::view_of;
use crate::program::Program;
use crate::tools::guard::guard;

/// A settlement is committed, without these replacements, whose unique keys live jobs hold.
pub(super) fn settled(
    program: &Program,
    hooks: &HookSet,
    settlement: &Settlement,
    without: &[JobId],
    database: &str,
) {
    if let Some(extras) = &settlement.extras {
        enqueued(program, hooks, &extras.replacements, without, database);
    }
    let Some(outcome) = outcome_of(settlement) else { return };
    let job = &settlement.job;
    let max_retries = program.max_retries(&job.facts.ability);
    let view = view_of(job, max_retries, database, &program.plugins);
    ended(program, hooks, view, &outcome);
}

/// The `post_enqueue` hooks of jobs that took the place of another.
pub(super) fn enqueued(
    program: &Program,
    hooks: &HookSet,
    replacements: &[JobRecord],
    without: &[JobId],
    database: &str,
) {
    for job in replacements.iter().filter(|job| !without.contains(&job.id)) {
        call_post_enqueue(program, hooks, job, database);
    }
}

/// The `post_settle` hooks of a run whose outcome is committed.
pub(super) fn ended(program: &Program, hooks: &HookSet, view: JobView<'_>, outcome: &Outcome) {
    let id = view.id();
    // Some settlements keep the argument and others do not: hooks see none of them.
    let codec = view.codec();
    let view = view.with_arg(codec, &[]);
    let ours = hooks_of(program, view.ability(), hooks).unwrap_or_else(|(hook, panic)| {
        log::error!("the hook {hook:?}, applies_to, after job {id} was settled: {panic}");
        Vec::new()
    });
    for hook in ours {
        if let Err(panic) = guard(|| hook.post_settle(&view, outcome)) {
            log::error!("the hook {:?} after job {id} was settled: {panic}", hook.name());
        }
    }
    if let Outcome::Cancelled(reason) = outcome {
        call_post_cancel(program, hooks, &view, reason);
    }
}

/// What a settlement says of how the run ended; `None` of a job that was not run. The outcome itself is not kept
/// until then: it would make each settlement that waits larger, for hooks that most programs do not have.
fn outcome_of(settlement: &Settlement) -> Option<Outcome> {
    let extras = settlement.extras.as_deref();
    Some(match settlement.verdict {
        Verdict::Complete => match extras.map_or(0, |extras| extras.replacements.len()) {
            0 => Outcome::Completed,
            count => Outcome::Replaced(count),
        },
        Verdict::Retry(delay) => Outcome::Retried(failure_of(extras), delay),
        Verdict::Snooze(delay) => Outcome::Snoozed(delay),
        Verdict::Discard => {
            let failure = failure_of(extras);
            match failure.kind() {
                FailureKind::Cancelled => Outcome::Cancelled(failure.message().to_owned()),
                _ => Outcome::Discarded(failure),
            }
        }
        Verdict::GiveBack => return None,
    })
}

fn failure_of(extras: Option<&Extras>) -> Failure {
    let Some(exception) = extras.and_then(|extras| extras.exception.as_ref()) else {
        return Failure::new(FailureKind::Error, "");
    };
    let failure = Failure::new(exception.kind, exception.message.clone());
    match &exception.class {
        Some(class) => failure.with_class(class.clone()),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use qudo_hooks::{Hook, HookSet, SourceLocation};

    use super::*;
    use crate::ability::AbilitySet;
    use crate::driver::{Deadline, ExceptionRecord};
    use crate::fixture::{self, records};
    use crate::options::Options;

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<String>>>);

    impl Heard {
        fn note(&self, line: String) {
            self.0.lock().expect("no panic").push(line);
        }
    }

    impl Hook for Heard {
        fn name(&self) -> &'static str {
            "heard"
        }

        fn post_enqueue(&self, job: &JobView<'_>) {
            self.note(format!("enqueued {} at {}", job.id(), job.database()));
        }

        fn post_settle(&self, job: &JobView<'_>, outcome: &Outcome) {
            let failure = outcome.failure().map(|one| (one.class(), one.message()));
            let arg = job.arg().len();
            self.note(format!("{} {} {failure:?} {arg}", outcome.as_str(), job.attempt()));
        }
    }

    fn settlement(verdict: Verdict, extras: Option<Extras>) -> Settlement {
        let driver = fixture::memory();
        driver.insert(&[fixture::record()], Deadline::NONE).expect("stored");
        let mut job = fixture::claim(&*driver, &fixture::worker(), 1).pop().expect("is there");
        job.attempt = 3;
        Settlement { job: Box::new(job), verdict, extras: extras.map(Box::new) }
    }

    fn heard(settlements: &[Settlement], without: &[JobId]) -> Vec<String> {
        let (heard, mut hooks) = (Heard::default(), HookSet::default());
        hooks.insert(Arc::new(heard.clone()), SourceLocation::new("here", 1)).expect("is new");
        let program = fixture::program_with(AbilitySet::default(), hooks, Options::default());
        for one in settlements {
            settled(&program, &program.hooks(), one, without, "one");
        }
        let lines = heard.0.lock().expect("no panic");
        lines.clone()
    }

    #[test]
    fn each_end_is_told_with_what_is_kept_of_it() {
        let exception = ExceptionRecord {
            class: Some("Timeout".into()),
            ..ExceptionRecord::new(FailureKind::Error, "too late")
        };
        let failed = || Extras { exception: Some(exception.clone()), ..Extras::default() };
        let told = heard(
            &[
                settlement(Verdict::Complete, None),
                settlement(Verdict::Retry(Duration::from_secs(1)), Some(failed())),
                settlement(Verdict::Snooze(Duration::from_secs(1)), None),
                settlement(Verdict::Discard, Some(failed())),
                settlement(Verdict::GiveBack, None),
            ],
            &[],
        );
        let why = "Some((Some(\"Timeout\"), \"too late\"))";
        assert_eq!(
            told,
            [
                "completed 3 None 0".to_owned(),
                format!("retried 3 {why} 0"),
                "snoozed 3 None 0".to_owned(),
                format!("failed 3 {why} 0"),
            ]
        );
    }

    #[test]
    fn jobs_that_took_the_place_of_another_are_enqueued_unless_their_key_was_taken() {
        let new = records(2);
        let extras = Extras { replacements: new.to_vec(), ..Extras::default() };
        let told = heard(&[settlement(Verdict::Complete, Some(extras))], &[new[0].id]);
        assert_eq!(told, [format!("enqueued {} at one", new[1].id), "replaced 3 None 0".into()]);
    }
}
