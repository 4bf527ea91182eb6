//! Rows of lists, as cells of a table and as JSON. Field names in JSON are those of the API.

use qudo::Meta;
use qudo::admin::{Exception, JobInfo, JobState, StatusRow};
use serde_json::{Map, Value, json};

use crate::list::Shape;

pub(crate) const JOBS: Shape<JobInfo> = Shape {
    head: &[
        "STATE",
        "ID",
        "ABILITY",
        "QUEUE",
        "PRIORITY",
        "ATTEMPT",
        "KEY",
        "ENQUEUED",
        "DUE OR LEASED UNTIL",
    ],
    cells: |job| {
        let until = match job.state {
            JobState::Scheduled { run_after: at } | JobState::Running { until: at, .. } => time(at),
            _ => String::new(),
        };
        let facts = &job.facts;
        vec![
            job.state.as_str().to_owned(),
            job.id.to_string(),
            facts.ability.to_string(),
            facts.queue.to_string(),
            facts.priority.to_string(),
            job.attempt.to_string(),
            facts.uniqkey.clone().unwrap_or_default(),
            time(job.enqueued_at),
            until,
        ]
    },
    json: job_as_json,
};

/// A job without its argument.
pub(crate) fn job_as_json(job: &JobInfo) -> Value {
    let facts = &job.facts;
    let mut object = json!({
        "id": job.id.to_string(),
        "state": job.state.as_str(),
        "ability": &*facts.ability,
        "queue": &*facts.queue,
        "priority": facts.priority,
        "uniqkey": facts.uniqkey,
        "codec": &*facts.codec,
        "attempt": job.attempt,
        "enqueued_at": job.enqueued_at.to_rfc3339(),
        "meta": meta_as_json(facts.meta.as_deref()),
    });
    let put = |object: &mut Value, name: &str, value: String| object[name] = json!(value);
    match &job.state {
        JobState::Scheduled { run_after } => put(&mut object, "run_after", run_after.to_rfc3339()),
        JobState::Running { worker, until } => {
            put(&mut object, "worker", worker.to_string());
            put(&mut object, "leased_until", until.to_rfc3339());
        }
        _ => {}
    }
    object
}

pub(crate) const EXCEPTIONS: Shape<Exception> = Shape {
    head: &[
        "FAILED",
        "EXCEPTION",
        "JOB",
        "ABILITY",
        "QUEUE",
        "ATTEMPT",
        "KIND",
        "END",
        "CLASS",
        "MESSAGE",
    ],
    cells: |row| {
        let end = match (row.discarded, row.redriven_as) {
            (_, Some(_)) => "redriven",
            (true, None) => "discarded",
            (false, None) => "retried",
        };
        vec![
            time(row.failed_at),
            row.id.to_string(),
            row.job.to_string(),
            row.facts.ability.to_string(),
            row.facts.queue.to_string(),
            row.attempt.to_string(),
            row.kind.as_str().to_owned(),
            end.to_owned(),
            row.class.clone().unwrap_or_default(),
            row.message.clone(),
        ]
    },
    json: exception_as_json,
};

/// A failure without the job's argument.
pub(crate) fn exception_as_json(row: &Exception) -> Value {
    json!({
        "id": row.id.to_string(),
        "job": row.job.to_string(),
        "ability": &*row.facts.ability,
        "queue": &*row.facts.queue,
        "uniqkey": row.facts.uniqkey,
        "priority": row.facts.priority,
        "attempt": row.attempt,
        "kind": row.kind.as_str(),
        "class": row.class,
        "message": row.message,
        "failed_at": row.failed_at.to_rfc3339(),
        "worker": row.worker.to_string(),
        "worker_name": row.worker_name,
        "version": row.version,
        "discarded": row.discarded,
        "redriven_as": row.redriven_as.map(|job| job.to_string()),
        "meta": meta_as_json(row.facts.meta.as_deref()),
    })
}

pub(crate) const RUNS: Shape<StatusRow> = Shape {
    head: &["FINISHED", "JOB", "ABILITY", "STATUS", "ATTEMPT", "WAITED", "TOOK", "MESSAGE"],
    cells: |row| {
        let waited = (row.started_at - row.enqueued_at).to_std().unwrap_or_default();
        vec![
            time(row.finished_at),
            row.job.to_string(),
            row.ability.clone(),
            row.status.clone(),
            row.attempt.to_string(),
            format!("{waited:.1?}"),
            format!("{:.1?}", row.took()),
            row.message.clone().unwrap_or_default(),
        ]
    },
    json: run_as_json,
};

pub(crate) fn run_as_json(row: &StatusRow) -> Value {
    json!({
        "id": row.id.to_string(),
        "job": row.job.to_string(),
        "ability": row.ability,
        "status": row.status,
        "attempt": row.attempt,
        "uniqkey": row.uniqkey,
        "enqueued_at": row.enqueued_at.to_rfc3339(),
        "started_at": row.started_at.to_rfc3339(),
        "finished_at": row.finished_at.to_rfc3339(),
        "message": row.message,
    })
}

/// The values with the tags beside them.
pub(crate) fn meta_as_json(meta: Option<&str>) -> Value {
    let meta = Meta::from_text(meta);
    if meta.is_empty() {
        return Value::Null;
    }
    let mut object: Map<_, _> =
        meta.values().map(|(name, value)| (name.to_owned(), value.clone())).collect();
    if meta.tags().next().is_some() {
        object.insert(Meta::reserved().to_owned(), meta.tags().collect());
    }
    Value::Object(object)
}

/// To the second, in UTC.
pub(crate) fn time(at: impl std::fmt::Display) -> String {
    // 2026-11-30 01:36:27.123456 UTC
    at.to_string().chars().take(19).collect()
}
