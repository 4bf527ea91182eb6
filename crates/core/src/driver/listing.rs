use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use qudo_hooks::{FailureKind, JobId};
use serde::{Deserialize, Serialize};

use super::{ExceptionId, JobFacts, StatusId, WorkerId};

/// Where a live job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobState {
    /// Waits for an instant: delayed, snoozed, or to be retried.
    Scheduled {
        /// The instant.
        run_after: DateTime<Utc>,
    },
    /// Waits for a free worker.
    Ready,
    /// Claimed by a worker.
    Running {
        /// The worker process.
        worker: WorkerId,
        /// When the lease ends.
        until: DateTime<Utc>,
    },
    /// On its way to another database or from one; see
    /// [`Manager::move_jobs`](crate::Manager::move_jobs).
    Moving,
}

impl JobState {
    /// The word for listings and counts.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Scheduled { .. } => "scheduled",
            Self::Ready => "ready",
            Self::Running { .. } => "running",
            Self::Moving => "moving",
        }
    }
}

/// A live job as listings show it.
#[derive(Clone)]
#[non_exhaustive]
pub struct JobInfo {
    /// Its id.
    pub id: JobId,
    /// What it is.
    pub facts: JobFacts,
    /// How many runs were started.
    pub attempt: u32,
    /// When it was enqueued, by the database's clock.
    pub enqueued_at: DateTime<Utc>,
    /// Where it stands.
    pub state: JobState,
}

impl JobInfo {
    /// A job in this state, with this number of started runs.
    pub fn new(
        id: JobId,
        facts: JobFacts,
        attempt: u32,
        enqueued_at: DateTime<Utc>,
        state: JobState,
    ) -> Self {
        Self { id, facts, attempt, enqueued_at, state }
    }
}

/// A count of live jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CountRow {
    /// The queue.
    pub queue: String,
    /// The kind of work.
    pub ability: String,
    /// `ready`, `scheduled`, `running` or `moving`.
    pub state: &'static str,
    /// How many.
    pub count: u64,
}

impl CountRow {
    /// This number of jobs of this queue and ability in this state.
    pub fn new(
        queue: impl Into<String>,
        ability: impl Into<String>,
        state: &'static str,
        count: u64,
    ) -> Self {
        Self { queue: queue.into(), ability: ability.into(), state, count }
    }
}

/// A row of the exception log.
#[derive(Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Exception {
    /// Its id.
    pub id: ExceptionId,
    /// The job that failed.
    pub job: JobId,
    /// What the job is. The argument is that of the enqueue, byte for byte, where the job was discarded; it and
    /// the codec's name are empty otherwise, because the live job has them.
    pub facts: JobFacts,
    /// Which run failed.
    pub attempt: u32,
    /// Why.
    pub kind: FailureKind,
    /// The class of the error, by which failures are grouped: the name of its type where that is known, else the first line of its
    /// message with numbers, ids and quoted values replaced. None of a crash.
    pub class: Option<String>,
    /// The error with its causes.
    pub message: String,
    /// When, by the database's clock.
    pub failed_at: DateTime<Utc>,
    /// The worker process that held the job when it failed.
    pub worker: WorkerId,
    /// The name of that process, if it is known.
    pub worker_name: Option<String>,
    /// The version of its program, if the program sets one.
    pub version: Option<String>,
    /// Whether the job left the queue with this failure; only these can be redriven.
    pub discarded: bool,
    /// The id under which the job was enqueued again.
    pub redriven_as: Option<JobId>,
}

impl Exception {
    /// The failure of a run of this worker, after which the job runs again; for drivers, which then set the other
    /// fields that they know.
    pub fn new(
        id: ExceptionId,
        job: JobId,
        facts: JobFacts,
        kind: FailureKind,
        message: impl Into<String>,
        worker: WorkerId,
        failed_at: DateTime<Utc>,
    ) -> Self {
        let (class, worker_name, version, redriven_as) = (None, None, None, None);
        let (message, attempt, discarded) = (message.into(), 1, false);
        Self {
            id,
            job,
            facts,
            attempt,
            kind,
            class,
            message,
            failed_at,
            worker,
            worker_name,
            version,
            discarded,
            redriven_as,
        }
    }
}

/// What became of a redrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redrive {
    /// The job is enqueued again under this id.
    Enqueued(JobId),
    /// It was redriven before, as this job.
    Already(JobId),
    /// This live job holds its unique key; nothing changed.
    Conflict(JobId),
    /// The failure was not the job's last: it was retried.
    NotDiscarded,
    /// No such row.
    NotFound,
}

/// A row of a job's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StatusRow {
    /// Its id.
    pub id: StatusId,
    /// The job.
    pub job: JobId,
    /// The kind of work.
    pub ability: String,
    /// How the run ended: `completed`, `replaced`, `retried`, `failed`, `snoozed` or `cancelled`.
    pub status: String,
    /// Which run it was.
    pub attempt: u32,
    /// The unique key.
    pub uniqkey: Option<String>,
    /// When the job was enqueued.
    pub enqueued_at: DateTime<Utc>,
    /// When the run began.
    pub started_at: DateTime<Utc>,
    /// When the run was settled.
    pub finished_at: DateTime<Utc>,
    /// The error, if it failed.
    pub message: Option<String>,
}

impl StatusRow {
    /// A run that ended with this status, without a key or a message; for drivers, which then set the
    /// other fields that they know.
    #[expect(clippy::too_many_arguments, reason = "a row with what each of them has")]
    pub fn new(
        id: StatusId,
        job: JobId,
        ability: impl Into<String>,
        status: impl Into<String>,
        attempt: u32,
        enqueued_at: DateTime<Utc>,
        started_at: DateTime<Utc>,
        finished_at: DateTime<Utc>,
    ) -> Self {
        Self {
            id,
            job,
            ability: ability.into(),
            status: status.into(),
            attempt,
            uniqkey: None,
            enqueued_at,
            started_at,
            finished_at,
            message: None,
        }
    }
}

impl StatusRow {
    /// How long the run took.
    pub fn took(&self) -> Duration {
        (self.finished_at - self.started_at).to_std().unwrap_or_default()
    }
}

/// Jobs of one ability that wait at the head of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Head {
    /// The queue.
    pub queue: String,
    /// The ability.
    pub ability: String,
    /// How many of the first rows of the queue they are.
    pub count: u64,
}

impl Head {
    /// This number of the first rows of this queue.
    pub fn new(queue: impl Into<String>, ability: impl Into<String>, count: u64) -> Self {
        Self { queue: queue.into(), ability: ability.into(), count }
    }
}

/// How long the work of a database has waited, by the database's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Ages {
    /// How long the oldest ready job has been ready: since it was enqueued, was due or was put back. Only the first jobs of each queue and priority
    /// are looked at.
    pub ready: Option<Duration>,
    /// How long ago the first of the leases ended whose jobs nobody has taken back.
    pub overdue: Option<Duration>,
}

impl Ages {
    /// Makes the ages from the two times.
    pub fn new(ready: Option<Duration>, overdue: Option<Duration>) -> Self {
        Self { ready, overdue }
    }
}

/// How a job ended that was not run to its end: the content of its tombstone, a row that is kept as long as
/// replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ending {
    /// It was removed while it waited.
    Removed,
    /// It waited in the spool, and another job held its unique key when it was to leave the spool.
    Superseded,
}

impl Ending {
    /// The word that is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Removed => "removed",
            Self::Superseded => "superseded",
        }
    }

    /// Reads the word that is stored; a word of a later version is a [`Removed`](Self::Removed).
    pub fn from_stored(word: &str) -> Self {
        match word {
            "superseded" => Self::Superseded,
            _ => Self::Removed,
        }
    }
}

/// What a job left for clients that wait for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Remains {
    /// Its replies, in order.
    pub replies: Vec<ReplyRow>,
    /// How it ended, if it was not run to its end.
    pub ending: Option<Ending>,
    /// The job that took its place, if it was one alone and this one left no reply.
    pub replaced_by: Option<JobId>,
}

impl Remains {
    /// Of a job that completed with these replies.
    pub fn replies(replies: Vec<ReplyRow>) -> Self {
        Self { replies, ..Self::default() }
    }

    /// Of a job that ended in this way.
    pub fn ending(ending: Ending) -> Self {
        Self { ending: Some(ending), ..Self::default() }
    }

    /// Of a job that completed without a reply, and in whose place this one was stored.
    pub fn replaced_by(job: JobId) -> Self {
        Self { replaced_by: Some(job), ..Self::default() }
    }
}

/// A stored reply.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyRow {
    /// The name of the codec of `body`.
    pub codec: String,
    /// The encoded reply.
    pub body: Vec<u8>,
}

/// Without the bytes, which may hold secrets.
impl fmt::Debug for JobInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobInfo")
            .field("id", &self.id)
            .field("facts", &self.facts)
            .field("state", &self.state)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// Without the bytes, which may hold secrets.
impl fmt::Debug for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exception")
            .field("id", &self.id)
            .field("job", &self.job)
            .field("facts", &self.facts)
            .field("attempt", &self.attempt)
            .field("kind", &self.kind)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

/// Without the bytes, which may hold secrets.
impl fmt::Debug for ReplyRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyRow").field("codec", &self.codec).finish_non_exhaustive()
    }
}
