use std::process::ExitCode;

use qudo::Manager;
use qudo::admin::{Exception, ExceptionFilter, JobInfo, Paging, StatusFilter, StatusRow};
use serde_json::{Value, json};

use crate::one_job::OneJob;
use crate::output::say;
use crate::shapes::{exception_as_json, job_as_json, meta_as_json, run_as_json, time};
use crate::{Failure, wait, why, with_causes};

/// The greatest number of failures, and of runs, that are shown: the newest.
const MOST: u32 = 1_000;

/// All that the databases know of a job; 0 when a database knows it, 1 when none does, 2 when one did not answer.
pub(crate) fn run(manager: &Manager, arguments: &OneJob) -> Result<ExitCode, Failure> {
    let explanation = manager.why(arguments.job)?;
    let paging = Paging::default().limit(MOST);
    let failures = manager.exceptions(&ExceptionFilter::job(arguments.job), &paging);
    let runs = manager.job_statuses(&StatusFilter::job(arguments.job), &paging);
    let info = explanation.info.as_ref();
    // A job that was moved may have failed in several databases.
    let mut failed: Vec<&Exception> = failures.rows().map(|(_, row)| row).collect();
    failed.sort_by_key(|row| std::cmp::Reverse((row.failed_at, row.id)));
    let mut ran: Vec<&StatusRow> = runs.rows().map(|(_, row)| row).collect();
    ran.sort_by_key(|row| std::cmp::Reverse((row.finished_at, row.id)));
    let last = failed.first().copied();
    let facts = info
        .map(|job| &job.facts)
        .or_else(|| last.filter(|row| row.discarded).map(|row| &row.facts));
    // Not that of the job that it was enqueued again as. A job whose database is away is told of below.
    let goes_on = last.is_some_and(|row| row.redriven_as.is_some());
    let is_its_own = info.is_some() || (last.is_some() && !goes_on);
    let progress = is_its_own.then(|| manager.ticket(arguments.job).progress());
    let progress = progress.and_then(Result::ok).flatten();
    let argument = facts.and_then(|facts| manager.readable_argument(facts));
    if arguments.json {
        let object = json!({
            "why": why::as_json(&explanation),
            "job": info.map(job_as_json),
            "argument": argument,
            "progress": progress.as_ref().map(wait::progress_as_json),
            "more": failures.next.is_some() || runs.next.is_some(),
            "failures": failed.iter().map(|row| exception_as_json(row)).collect::<Vec<_>>(),
            "runs": ran.iter().map(|row| run_as_json(row)).collect::<Vec<_>>(),
        });
        say(&object.to_string());
    } else {
        say(&why::as_text(&explanation));
        for line in
            lines(info, facts.map(|facts| (&*facts.codec, facts.arg.len())), argument.as_ref())
        {
            say(&line);
        }
        if let Some(progress) = &progress {
            say(&format!("progress: {}, said {}", wait::text_of(progress), time(progress.at)));
        }
        for row in &failed {
            say(&format!(
                "failed {}, attempt {}, {}: {}",
                time(row.failed_at),
                row.attempt,
                row.kind,
                row.message
            ));
        }
        for row in &ran {
            say(&format!(
                "{} {}, attempt {}, took {:.1?}",
                row.status,
                time(row.finished_at),
                row.attempt,
                row.took()
            ));
        }
    }
    if !arguments.json && (failures.next.is_some() || runs.next.is_some()) {
        eprintln!("of its failures and runs the newest {MOST} of each database are shown");
    }
    let mut complete = true;
    for (_, error) in failures.errors().chain(runs.errors()) {
        complete = false;
        eprintln!("qudo: {}", with_causes(error));
    }
    Ok(match (complete, explanation.database.is_some()) {
        (false, _) => ExitCode::from(2),
        (true, known) => ExitCode::from(u8::from(!known)),
    })
}

/// What is beside a job, and its argument.
fn lines(
    info: Option<&JobInfo>,
    stored: Option<(&str, usize)>,
    argument: Option<&Value>,
) -> Vec<String> {
    let meta =
        info.map(|job| meta_as_json(job.facts.meta.as_deref())).filter(|meta| !meta.is_null());
    let meta = meta.map(|meta| format!("metadata: {meta}"));
    let argument = match (argument, stored) {
        (Some(argument), _) => Some(format!("argument: {argument}")),
        (None, Some((codec, bytes))) => {
            Some(format!("argument: {bytes} bytes of the codec {codec:?}, which are not shown"))
        }
        (None, None) => None,
    };
    meta.into_iter().chain(argument).collect()
}
