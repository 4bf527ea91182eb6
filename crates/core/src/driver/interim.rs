//! What a run tells before it ends.

use chrono::{DateTime, Utc};
use qudo_hooks::JobId;
use serde::{Deserialize, Serialize};

use super::{DriverError, ReplyRecord, ReplyRow, WorkerId};

/// What guards a write of a run: nothing is written unless the lease is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseKey {
    /// Who claimed the job.
    pub worker: WorkerId,
    /// The job.
    pub job: JobId,
    /// The number of the claim.
    pub claim: i64,
}

/// A value that a run sends.
#[derive(Debug, Clone)]
pub struct SentRecord {
    /// Its number, not used before by this job.
    pub number: i32,
    /// The attempt that sends it.
    pub attempt: i32,
    /// The encoded value.
    pub value: ReplyRecord,
}

/// A value that a run sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentRow {
    /// Its number, which counts over all runs of its job.
    pub number: i32,
    /// The attempt that sent it.
    pub attempt: i32,
    /// When it was stored, by the database's clock.
    pub sent_at: DateTime<Utc>,
    /// The encoded value.
    pub value: ReplyRow,
}

/// What became of a value that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// It is stored, by this call or one before.
    Stored,
    /// The lease is not held any more; nothing is stored.
    LeaseLost,
    /// Another value has its number, of a run that lost its lease; nothing is stored.
    NumberTaken,
}

/// How far a run says that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressRecord {
    /// The job.
    pub job: JobId,
    /// The claim under which it runs.
    pub claim: i64,
    /// The attempt.
    pub attempt: i32,
    /// How much is done; at most [`i64::MAX`].
    pub done: u64,
    /// Of how much; at most [`i64::MAX`].
    pub total: Option<u64>,
    /// A word for people.
    pub note: Option<String>,
}

/// How far a run said that it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressRow {
    /// The attempt.
    pub attempt: i32,
    /// How much was done.
    pub done: u64,
    /// Of how much.
    pub total: Option<u64>,
    /// A word for people.
    pub note: Option<String>,
    /// When it was stored, by the database's clock.
    pub noted_at: DateTime<Utc>,
}

/// What is new of a job, for callers that look for many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News {
    /// The job.
    pub job: JobId,
    /// The last value that it sent.
    pub sent: Option<SentLast>,
    /// When it was last noted how far it is.
    pub noted_at: Option<DateTime<Utc>>,
}

impl News {
    /// Of a job that told nothing.
    pub const fn nothing(job: JobId) -> Self {
        Self { job, sent: None, noted_at: None }
    }
}

/// The last value that a job sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SentLast {
    /// The last attempt that sent any.
    pub attempt: i32,
    /// Its number.
    pub number: i32,
}

/// What a job tells while it runs, beside its end: values that are sent, and how far it is. Both stay when the job ends, until they are as old
/// as replies are kept; values of a live job are not removed, because its numbers go on.
///
/// # Errors
///
/// When the database does not answer or refuses.
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Interim {
    /// Stores a value that a run sends, durably, if the lease is held. Repeating it under the same number stores nothing twice.
    fn send(&self, lease: &LeaseKey, sent: &SentRecord) -> Result<Sending, DriverError>;

    /// Stores how far these runs of one worker are, in the place of what was stored of their jobs before; those whose leases are
    /// not held are passed over.
    fn note_progress(
        &self,
        worker: WorkerId,
        records: &[ProgressRecord],
    ) -> Result<(), DriverError>;

    /// What a job sent, from this number on, at most `limit` values, in the order of their numbers.
    fn sent(&self, job: JobId, from: i32, limit: u32) -> Result<Vec<SentRow>, DriverError>;

    /// How far the last run of a job said that it was.
    fn progress(&self, job: JobId) -> Result<Option<ProgressRow>, DriverError>;

    /// What is new of these jobs, in any order; those of which nothing is stored may be left out, and where more than one is asked for, those
    /// that do not live.
    fn news(&self, jobs: &[JobId]) -> Result<Vec<News>, DriverError>;
}
