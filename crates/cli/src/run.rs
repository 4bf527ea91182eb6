use std::process::ExitCode;

use qudo::{Error, JobId, Manager, Outcome};
use serde_json::json;

use crate::output::say;
use crate::sources::Databases;

/// Which job is run.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The id of the job.
    job: JobId,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) databases: Databases,
}

/// Runs a job here and now; 0 when it is done or put off, 1 when it failed or was cancelled.
///
/// # Errors
///
/// When the job does not wait, or this program has no such ability.
pub(crate) fn run(manager: &Manager, arguments: &Arguments) -> Result<ExitCode, Error> {
    let outcome = manager.run_job(arguments.job)?;
    let retry_after = match &outcome {
        Outcome::Retried(_, delay) | Outcome::Snoozed(delay) => Some(*delay),
        _ => None,
    };
    if arguments.json {
        let object = json!({
            "job": arguments.job,
            "outcome": outcome.as_str(),
            "message": outcome.message(),
            "again_after_seconds": retry_after.map(|delay| delay.as_secs_f64()),
        });
        say(&object.to_string());
    } else {
        let why = outcome.message().map_or_else(String::new, |message| format!(": {message}"));
        let again =
            retry_after.map_or_else(String::new, |delay| format!(", again after {delay:?}"));
        say(&format!("{} {}{why}{again}", arguments.job, outcome.as_str()));
    }
    let failed = outcome.failure().is_some() || matches!(outcome, Outcome::Cancelled(_));
    Ok(ExitCode::from(u8::from(failed)))
}
