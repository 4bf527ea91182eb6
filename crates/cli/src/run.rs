use std::process::ExitCode;

use qudo::{Error, JobId, Manager, Outcome};
use serde_json::{Value, json};

use crate::one_job::OneJob;
use crate::output::say;

/// Runs a job here and now; 0 when it is done or put off, 1 when it failed, was cancelled, or its end changed nothing.
///
/// # Errors
///
/// When the job does not wait, or this program has no such ability.
pub(crate) fn run(manager: &Manager, arguments: &OneJob) -> Result<ExitCode, Error> {
    let outcome = match manager.run_job(arguments.job) {
        // It ran, unlike one that cannot be run.
        Err(error @ Error::LeaseLost { .. }) => {
            eprintln!("qudo: {error}");
            return Ok(ExitCode::FAILURE);
        }
        outcome => outcome?,
    };
    let text = if arguments.json {
        as_json(arguments.job, &outcome).to_string()
    } else {
        as_text(arguments.job, &outcome)
    };
    say(&text);
    Ok(ExitCode::from(u8::from(has_failed(&outcome))))
}

fn has_failed(outcome: &Outcome) -> bool {
    outcome.failure().is_some() || matches!(outcome, Outcome::Cancelled(_))
}

fn again_after(outcome: &Outcome) -> Option<std::time::Duration> {
    match outcome {
        Outcome::Retried(_, delay) | Outcome::Snoozed(delay) => Some(*delay),
        _ => None,
    }
}

fn as_json(job: JobId, outcome: &Outcome) -> Value {
    json!({
        "job": job,
        "outcome": outcome.as_str(),
        "message": outcome.message(),
        "again_after_seconds": again_after(outcome).map(|delay| delay.as_secs_f64()),
    })
}

fn as_text(job: JobId, outcome: &Outcome) -> String {
    let why = outcome.message().map_or_else(String::new, |message| format!(": {message}"));
    let again = again_after(outcome).map(|delay| format!("; it runs again after {delay:?}"));
    format!("job {job} {}{why}{}", outcome.as_str(), again.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use qudo::hook::{Failure, FailureKind};

    use super::*;

    #[test]
    fn an_outcome_is_told_with_its_reason_and_what_follows() {
        let id = JobId::new();
        let failure = Failure::new(FailureKind::Error, "no such user");
        let second = Duration::from_secs(1);
        for (outcome, failed, text) in [
            (Outcome::Completed, false, "completed"),
            (Outcome::Snoozed(second), false, "snoozed; it runs again after 1s"),
            (
                Outcome::Retried(failure.clone(), second),
                true,
                "retried: no such user; it runs again after 1s",
            ),
            (Outcome::Discarded(failure), true, "failed: no such user"),
            (Outcome::Cancelled("enough".to_owned()), true, "cancelled: enough"),
        ] {
            assert_eq!(has_failed(&outcome), failed, "{text}");
            assert_eq!(as_text(id, &outcome), format!("job {id} {text}"));
            let object = as_json(id, &outcome);
            let keys: Vec<_> = object.as_object().expect("an object").keys().collect();
            // As docs/json.md says.
            assert_eq!(keys, ["again_after_seconds", "job", "message", "outcome"]);
        }
    }
}
