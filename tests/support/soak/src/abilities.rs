use std::time::Duration;

use qudo::{Job, JobError};
use serde::{Deserialize, Serialize};

/// What a job of the soak does.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Effort {
    /// How long it runs.
    pub millis: u64,
    /// How many attempts fail before one succeeds.
    pub fails: u32,
    /// Whether failing is a panic.
    pub panics: bool,
}

/// Runs for a while, fails as often as it is told, and answers with the number of its run.
///
/// # Errors
///
/// As told.
#[qudo::ability(queue = "soak", max_retries = 5, retry_delay = "50ms")]
pub fn effort(job: &Job, effort: Effort) -> qudo::JobResult<u32> {
    std::thread::sleep(Duration::from_millis(effort.millis));
    if job.attempt() <= effort.fails {
        assert!(!effort.panics, "as told");
        return Err(JobError::fail("as told"));
    }
    Ok(job.attempt())
}
