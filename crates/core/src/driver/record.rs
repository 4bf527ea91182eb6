use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use qudo_hooks::{Due, FailureKind, JobId};
use serde::{Deserialize, Serialize};

use super::{ExceptionId, Flags, JobFacts, Name, WorkerId};
use crate::tools::time::Instant;

/// What a heartbeat tells of a worker process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Its identity.
    pub id: WorkerId,
    /// A name for people: host and process id.
    pub name: Arc<str>,
    /// The version of its program, if the program says.
    pub version: Option<Arc<str>>,
    /// The abilities that it has, in their order.
    pub abilities: Arc<[Name]>,
    /// The queues that it claims from, in their order.
    pub queues: Arc<[Name]>,
    /// How long it may be silent before others may take its jobs: its own promise, which counts
    /// whatever the other processes are set to.
    pub dead_after: Duration,
}

impl WorkerInfo {
    /// A process of which only the name and the promised silence are known.
    pub fn new(name: impl Into<Arc<str>>, dead_after: Duration) -> Self {
        Self {
            id: WorkerId::new(),
            name: name.into(),
            version: None,
            abilities: Arc::default(),
            queues: Arc::default(),
            dead_after,
        }
    }

    /// An attempt that failed in this process.
    pub fn failed(&self, kind: FailureKind, message: impl Into<String>) -> ExceptionRecord {
        ExceptionRecord {
            worker_name: Some(Arc::clone(&self.name)),
            version: self.version.clone(),
            ..ExceptionRecord::new(kind, message)
        }
    }
}

/// A worker process as its row in the database tells.
#[derive(Debug, Clone)]
pub struct WorkerSeen {
    /// What its last heartbeat told.
    pub info: WorkerInfo,
    /// When that was, by the database's clock.
    pub seen_at: DateTime<Utc>,
    /// How long ago that was.
    pub silent: Duration,
}

impl WorkerSeen {
    /// Whether it was not silent for longer than it promised.
    pub fn is_live(&self) -> bool {
        self.silent <= self.info.dead_after
    }
}

/// A worker process that was found dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadWorker {
    /// Its identity.
    pub id: WorkerId,
    /// The heartbeat after which it was silent: after a later heartbeat it lives, and keeps its
    /// jobs.
    pub seen_at: DateTime<Utc>,
}

/// Until when a write may be carried out.
///
/// The caller leaves at this instant, and may store the job in another database. A statement that
/// the server executes only afterwards, because the server was stopped, must store nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// No limit: for callers who wait for as long as it takes.
    pub const NONE: Self = Self(None);

    /// At this instant.
    pub const fn at(instant: Instant) -> Self {
        Self(Some(instant))
    }

    /// This long from now.
    pub fn within(limit: Duration) -> Self {
        Self(Instant::now().checked_add(limit))
    }

    /// The instant; `None` without a limit.
    pub const fn instant(self) -> Option<Instant> {
        self.0
    }

    /// Whether it is over.
    pub fn is_over(self) -> bool {
        self.0.is_some_and(|at| Instant::now() > at)
    }
}

/// A job to be stored.
#[derive(Clone)]
pub struct JobRecord {
    /// Its id, made by the client.
    pub id: JobId,
    /// What it is.
    pub facts: JobFacts,
    /// When it may run.
    pub due: Due,
}

/// What became of a job to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It is stored.
    New,
    /// This live job holds its unique key; nothing was stored.
    Existing(JobId),
}

/// An ability that the claiming worker has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbilityLease {
    /// Its name.
    pub name: Name,
    /// How long its lease lasts at most.
    pub grab_for: Duration,
}

/// A claim of one queue.
#[derive(Debug, Clone, Copy)]
pub struct ClaimRequest<'a> {
    /// Who claims.
    pub worker: WorkerId,
    /// The number of this claim, never used before by this worker.
    pub claim: i64,
    /// The queue.
    pub queue: &'a Name,
    /// What the worker can do; other jobs are left where they are.
    pub abilities: &'a [AbilityLease],
    /// How many jobs at most.
    pub limit: u32,
    /// After this instant nothing may be leased any more.
    pub deadline: Deadline,
    /// Whether an answer without jobs has to mean that none was ready. A driver that does not look at the whole
    /// queue for each claim, because that would be slow, looks at the whole queue before it answers a thorough
    /// claim with no jobs; other claims are repeated soon.
    pub thorough: bool,
}

/// A claim of one job by its id.
#[derive(Debug, Clone, Copy)]
pub struct JobClaim {
    /// Who claims.
    pub worker: WorkerId,
    /// The number of this claim, never used before by this worker.
    pub claim: i64,
    /// The job.
    pub job: JobId,
    /// How long its lease lasts at most.
    pub grab_for: Duration,
    /// After this instant nothing may be leased any more.
    pub deadline: Deadline,
}

/// A leased job with its facts.
#[derive(Clone)]
pub struct ClaimedJob {
    /// Its id.
    pub id: JobId,
    /// The number of the claim that leased it.
    pub claim: i64,
    /// Its number among the jobs of its claim in the order of their ids, from 0: between two jobs with
    /// successive numbers lies no other of that claim. For the driver that claimed it; another may say 0.
    pub ordinal: u32,
    /// Which run this is; 1 on the first.
    pub attempt: i32,
    /// How many of the earlier runs ended with the worker's death or a lease that ran out.
    pub crashes: i32,
    /// What lies beside it.
    pub flags: Flags,
    /// What it is.
    pub facts: JobFacts,
    /// When it was enqueued, by the database's clock.
    pub enqueued_at: DateTime<Utc>,
    /// Since when it was ready, by this process's clock: how long it had waited then is told by the database's. A job that was
    /// put back, for whatever reason, is ready since then.
    pub ready_since: Instant,
}

/// What a promotion did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promotion {
    /// How many jobs became ready.
    pub moved: u32,
    /// How long until the next one is due; `None` when nothing is scheduled.
    pub next: Option<Duration>,
}

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Done: the job is removed.
    Complete,
    /// Runs again after this delay; the attempt is spent.
    Retry(Duration),
    /// Runs again after this delay; the attempt is not spent.
    Snooze(Duration),
    /// Never runs again: the job is removed, its facts go to the exception log.
    Discard,
    /// Was not started: ready again, the attempt is not spent.
    GiveBack,
}

/// A claimed job with the end of its run.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The job as it was claimed.
    pub job: Box<ClaimedJob>,
    /// How the run ended.
    pub verdict: Verdict,
    /// What else is written in the same transaction; `None` on the common path.
    pub extras: Option<Box<Extras>>,
}

/// Rows written together with a settlement.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// A row of the exception log.
    pub exception: Option<ExceptionRecord>,
    /// The replies, in order.
    pub replies: Vec<ReplyRecord>,
    /// A row of the job status.
    pub status: Option<StatusRecord>,
    /// Jobs enqueued in the place of this one.
    pub replacements: Vec<JobRecord>,
}

impl Extras {
    /// The job that clients follow in the place of this one: it left no reply of its own, and was replaced by one job alone, which is
    /// stored.
    pub fn successor(&self, is_stored: impl Fn(JobId) -> bool) -> Option<JobId> {
        match &self.replacements[..] {
            [one] if self.replies.is_empty() && is_stored(one.id) => Some(one.id),
            _ => None,
        }
    }
}

/// A failed attempt to be logged.
#[derive(Debug, Clone)]
pub struct ExceptionRecord {
    /// The id of the row.
    pub id: ExceptionId,
    /// Why it failed.
    pub kind: FailureKind,
    /// The class of the error, by which failures are grouped: the name of its type where that is known, else the first line of its
    /// message with numbers, ids and quoted values replaced. None of a crash.
    pub class: Option<Cow<'static, str>>,
    /// The error with its causes.
    pub message: String,
    /// The name of the worker process in whose hands it failed.
    pub worker_name: Option<Arc<str>>,
    /// The version of that process's program, if it says.
    pub version: Option<Arc<str>>,
}

impl ExceptionRecord {
    /// A failed attempt that belongs to no worker process.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let (id, message) = (ExceptionId::new(), message.into());
        Self { id, kind, class: None, message, worker_name: None, version: None }
    }
}

/// A reply to be stored.
#[derive(Clone)]
pub struct ReplyRecord {
    /// The name of the codec of `body`.
    pub codec: Cow<'static, str>,
    /// The encoded reply.
    pub body: Vec<u8>,
}

/// A history row to be stored.
#[derive(Debug, Clone)]
pub struct StatusRecord {
    /// How the run ended.
    pub status: &'static str,
    /// How long it took.
    pub took: Duration,
    /// The error, if it failed.
    pub message: Option<String>,
}

/// What became of a settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// It is durable.
    Done,
    /// The same, but these replacements are not stored: live jobs hold their unique keys.
    DoneWithout(Box<[JobId]>),
    /// The lease was no longer held; nothing changed.
    LeaseLost,
}

impl Settled {
    /// Whether it is durable.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done | Self::DoneWithout(_))
    }

    /// The replacements that are not stored.
    pub fn without(&self) -> &[JobId] {
        match self {
            Self::DoneWithout(ids) => ids,
            Self::Done | Self::LeaseLost => &[],
        }
    }

    /// Done, but for these.
    pub fn done_without(ids: Vec<JobId>) -> Self {
        if ids.is_empty() { Self::Done } else { Self::DoneWithout(ids.into()) }
    }
}

/// A job taken back from a dead worker or a lease past its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rescued {
    /// The job.
    pub id: JobId,
    /// Who held it.
    pub worker: WorkerId,
    /// Why it was taken back.
    pub kind: FailureKind,
}

/// Without the bytes, which may hold secrets.
impl fmt::Debug for JobRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobRecord")
            .field("id", &self.id)
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

/// Without the bytes, which may hold secrets.
impl fmt::Debug for ClaimedJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimedJob")
            .field("id", &self.id)
            .field("facts", &self.facts)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// Without the bytes, which may hold secrets.
impl fmt::Debug for ReplyRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyRecord").field("codec", &self.codec).finish_non_exhaustive()
    }
}
