//! What one database knows of one job.

use std::time::Duration;

use chrono::{DateTime, Utc};
use qudo_hooks::JobId;

use crate::driver::{
    Driver, DriverError, Ending, Exception, ExceptionScan, JobState, Remains, ReplyRow, StatusRow,
    Trail,
};
use crate::tools::time::utc_now;

/// An answer of one database.
pub(crate) enum Known {
    Lives(JobState),
    Replies(Vec<ReplyRow>),
    /// Its history says so.
    Completed,
    /// Its history says that it completed, longer ago than replies are surely kept.
    Expired,
    Failed(Box<Exception>),
    Removed(Ending),
    /// It completed without a reply, and this job took its place.
    Replaced(JobId),
    Moved(Trail),
}

/// Asks a database for a job. With the time for which replies are kept, the job's history is asked for too.
pub(crate) fn ask(
    driver: &dyn Driver,
    job: JobId,
    history: Option<Duration>,
) -> Result<Option<Known>, DriverError> {
    // A job that came here may have come since the look: it is looked for once more.
    for _ in 0..2 {
        if let Some(known) = here(driver, job)? {
            return Ok(Some(known));
        }
        match driver.trail(job)? {
            Some(trail) if trail.to.is_some() => return Ok(Some(Known::Moved(trail))),
            Some(_) => {}
            None => break,
        }
    }
    let Some(kept) = history else { return Ok(None) };
    Ok(driver.status(job)?.last().and_then(|last| told_by(last, utc_now(), kept)))
}

/// What a database has of the job itself.
///
/// The order matters: once the job is seen gone, everything that its end wrote is there, because
/// both happen in one transaction.
fn here(driver: &dyn Driver, job: JobId) -> Result<Option<Known>, DriverError> {
    if let Some(state) = driver.state(job)? {
        return Ok(Some(Known::Lives(state)));
    }
    let Remains { replies, ending, replaced_by } = driver.remains(job)?;
    if !replies.is_empty() {
        return Ok(Some(Known::Replies(replies)));
    }
    if let Some(by) = replaced_by {
        return Ok(Some(Known::Replaced(by)));
    }
    if let Some(ending) = ending {
        return Ok(Some(Known::Removed(ending)));
    }
    let failed = driver.scan_exceptions(&ExceptionScan::last_of(job).discarded())?.pop();
    Ok(failed.map(|exception| Known::Failed(Box::new(exception))))
}

/// What the last row of a job's history says of its end; replies are kept for the time `kept`.
fn told_by(last: &StatusRow, now: DateTime<Utc>, kept: Duration) -> Option<Known> {
    if !matches!(&*last.status, "completed" | "replaced") {
        return None;
    }
    let age = now.signed_duration_since(last.finished_at).to_std().unwrap_or_default();
    Some(if age < kept / 10 * 9 { Known::Completed } else { Known::Expired })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::StatusId;

    #[test]
    fn a_history_tells_that_a_reply_would_be_gone() {
        let (now, kept) = (utc_now(), Duration::from_secs(1_000));
        let told = |status: &str, ago: u64| {
            let at = now - Duration::from_secs(ago);
            told_by(
                &StatusRow::new(StatusId::new(), JobId::new(), "mail", status, 1, at, at, at),
                now,
                kept,
            )
        };
        assert!(matches!(told("completed", 899), Some(Known::Completed)));
        assert!(matches!(told("replaced", 900), Some(Known::Expired)));
        assert!(told("retried", 1).is_none() && told("failed", 1).is_none());
    }
}
