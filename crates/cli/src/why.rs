use std::process::ExitCode;

use qudo::admin::{Bounded, Ending, Exception, Explanation, JobInfo, Pause, Reason};
use qudo::{Error, Manager};
use serde_json::{Map, Value, json};

use crate::one_job::OneJob;
use crate::output::say;

/// Explains; 0 when a database knows the job, 1 when no database knows it.
///
/// # Errors
///
/// When no database knows the job and one did not answer.
pub(crate) fn run(manager: &Manager, arguments: &OneJob) -> Result<ExitCode, Error> {
    let explanation = manager.why(arguments.job)?;
    let text =
        if arguments.json { as_json(&explanation).to_string() } else { as_text(&explanation) };
    say(&text);
    Ok(ExitCode::from(u8::from(explanation.database.is_none())))
}

pub(crate) fn as_text(explanation: &Explanation) -> String {
    let mut lines = vec![match &explanation.database {
        Some(database) => format!("job {} in database {database:?}", explanation.job),
        None => format!("job {}", explanation.job),
    }];
    lines.extend(explanation.info.as_ref().map(said_of_job));
    lines.push(told(&explanation.reason));
    let cancelling =
        |why| format!("it is cancelled ({why}): its worker is told, and ends it if it listens");
    lines.extend(explanation.cancelling.as_ref().map(cancelling));
    lines.extend(explanation.failure.as_ref().map(said_of_failure));
    lines.join("\n")
}

fn said_of_job(job: &JobInfo) -> String {
    let facts = &job.facts;
    let key = facts.uniqkey.as_ref().map_or_else(String::new, |key| format!(", key {key:?}"));
    format!(
        "{}: ability {:?}, queue {:?}, priority {}{key}, {} started, enqueued {}",
        job.state.as_str(),
        &*facts.ability,
        &*facts.queue,
        facts.priority,
        counted(job.attempt.into(), "run"),
        job.enqueued_at
    )
}

fn said_of_failure(failure: &Exception) -> String {
    let by = failure.worker_name.as_ref().map_or_else(String::new, |name| format!(" in {name}"));
    let version =
        failure.version.as_ref().map_or_else(String::new, |version| format!(" ({version})"));
    let Exception { attempt, failed_at, message, .. } = failure;
    format!("last failure: attempt {attempt} at {failed_at}{by}{version}: {message}")
}

/// The reason in a sentence, and what ends it where the reader can do that.
fn told(reason: &Reason) -> String {
    let process = |name: &Option<String>, id: &dyn std::fmt::Display| match name {
        Some(name) => format!("worker process {name}"),
        None => format!("worker process {id}"),
    };
    match reason {
        Reason::Running { worker, name, until } => {
            format!("it runs: {} holds its lease until {until}", process(name, worker))
        }
        Reason::WorkerSilent { worker, name, silent, until } => {
            let silent = silent.map_or_else(
                || "has no row in this database".to_owned(),
                |silent| format!("is silent since {} s", silent.as_secs()),
            );
            let process = process(name, worker);
            format!(
                "{process} holds its lease until {until} and {silent}: another worker process takes the job back"
            )
        }
        Reason::NotDue { run_after } => format!("it is not due until {run_after}"),
        Reason::Retrying { run_after } => {
            format!("it failed, and its next attempt is not due until {run_after}")
        }
        Reason::Moving => "it is on its way to another database; `Manager::move_jobs` continues a move that was \
                           broken off"
            .to_owned(),
        Reason::Spooled => "it waits in the spool until a database takes it".to_owned(),
        Reason::DatabasePaused => "the database is paused".to_owned(),
        Reason::PartPaused(Pause { part, reason, since, .. }) => {
            let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("its {} is paused as {:?} since {since}{why}", part.kind(), part.name())
        }
        Reason::NoWorker => "no worker process works this database".to_owned(),
        Reason::NoWorkerHasAbility => "no running worker process has this ability".to_owned(),
        Reason::NoWorkerServesQueue => {
            "no running worker process that has this ability works this queue".to_owned()
        }
        Reason::Queued { ahead: Bounded { count: 0, more: false } } => {
            "it is the next of its queue".to_owned()
        }
        Reason::Queued { ahead } => format!("{ahead} jobs of its queue come first"),
        Reason::Completed { replies: 0 } => "it completed".to_owned(),
        Reason::Completed { replies } => {
            format!("it completed with {}", counted(*replies as u64, "reply"))
        }
        Reason::Failed { redriven_as: Some(job), .. } => {
            format!("it failed for good, and was enqueued again as job {job}")
        }
        Reason::Failed { key_held_by: Some(job), .. } => {
            format!("it failed for good; a redrive is refused while job {job} holds its unique key")
        }
        Reason::Failed { .. } => "it failed for good; `Manager::redrive` enqueues it again".to_owned(),
        Reason::Cancelled { reason, redriven_as: Some(job) } => {
            format!("it was cancelled ({reason}) and was enqueued again as job {job}")
        }
        Reason::Cancelled { reason, .. } => {
            format!("it was cancelled ({reason}); `Manager::redrive` enqueues it again")
        }
        Reason::Removed { ending: Ending::Superseded } => {
            "it waited in the spool, and another job held its unique key when it was to leave".to_owned()
        }
        Reason::Replaced { by } => format!("it completed, and job {by} took its place"),
        Reason::Removed { .. } => "it was removed while it waited".to_owned(),
        Reason::Moved { to } => {
            format!("it was moved to database {to:?}, which is not asked here or does not know it")
        }
        Reason::Unknown => "no database knows it: it completed without a reply, or was never stored, or is older than what is kept"
            .to_owned(),
        other => other.as_str().to_owned(),
    }
}

fn counted(count: u64, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        (_, None) => format!("{count} {noun}s"),
    }
}

/// `reason` is the word, beside it is what the reason carries, and `text` is the sentence for people.
pub(crate) fn as_json(explanation: &Explanation) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
    put("job", json!(explanation.job.to_string()));
    put("database", json!(explanation.database));
    put("reason", json!(explanation.reason.as_str()));
    put("text", json!(told(&explanation.reason)));
    for (name, value) in fields_of(&explanation.reason) {
        put(name, value);
    }
    if let Some(why) = &explanation.cancelling {
        put("cancelled_for", json!(why));
    }
    if let Some(job) = &explanation.info {
        put("state", json!(job.state.as_str()));
        put("ability", json!(&*job.facts.ability));
        put("queue", json!(&*job.facts.queue));
        put("priority", json!(job.facts.priority));
        put("uniqkey", json!(job.facts.uniqkey));
        put("attempt", json!(job.attempt));
        put("enqueued_at", json!(job.enqueued_at.to_rfc3339()));
    }
    if let Some(failure) = &explanation.failure {
        let value = json!({
            "id": failure.id.to_string(),
            "attempt": failure.attempt,
            "kind": failure.kind.as_str(),
            "class": failure.class,
            "message": failure.message,
            "failed_at": failure.failed_at.to_rfc3339(),
            "worker": failure.worker_name,
            "version": failure.version,
        });
        put("failure", value);
    }
    Value::Object(object)
}

fn fields_of(reason: &Reason) -> Vec<(&'static str, Value)> {
    match reason {
        Reason::Running { worker, name, until } => vec![
            ("worker", json!(worker.to_string())),
            ("worker_name", json!(name)),
            ("leased_until", json!(until.to_rfc3339())),
        ],
        Reason::WorkerSilent { worker, name, silent, until } => vec![
            ("worker", json!(worker.to_string())),
            ("worker_name", json!(name)),
            ("silent_seconds", json!(silent.map(|silent| silent.as_secs()))),
            ("leased_until", json!(until.to_rfc3339())),
        ],
        Reason::NotDue { run_after } | Reason::Retrying { run_after } => {
            vec![("run_after", json!(run_after.to_rfc3339()))]
        }
        Reason::PartPaused(Pause { part, reason, since, .. }) => vec![
            ("paused", json!(part.name())),
            ("paused_since", json!(since.to_rfc3339())),
            ("paused_because", json!(reason)),
        ],
        Reason::Queued { ahead } => {
            vec![("ahead", json!(ahead.count)), ("ahead_or_more", json!(ahead.more))]
        }
        Reason::Completed { replies } => vec![("replies", json!(replies))],
        Reason::Failed { redriven_as, key_held_by } => vec![
            ("redriven_as", json!(redriven_as.map(|job| job.to_string()))),
            ("key_held_by", json!(key_held_by.map(|job| job.to_string()))),
        ],
        Reason::Cancelled { reason, redriven_as } => vec![
            ("cancelled_for", json!(reason)),
            ("redriven_as", json!(redriven_as.map(|job| job.to_string()))),
        ],
        Reason::Replaced { by } => vec![("replaced_by", json!(by.to_string()))],
        Reason::Removed { ending } => vec![("ending", json!(ending.as_str()))],
        Reason::Moved { to } => vec![("to", json!(to))],
        _ => vec![],
    }
}
