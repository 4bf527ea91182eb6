use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Microseconds since 1970 by this machine's clock: the histories of several processes are
/// comparable when they run on one machine.
pub type Micros = u64;

/// An instant as [`Micros`].
pub fn micros(at: SystemTime) -> Micros {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// One line of a history file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When it was written.
    pub at: Micros,
    /// What happened.
    #[serde(flatten)]
    pub step: Step,
}

/// What happened to a job. Jobs and workers are named by the text of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// A client was told that the job is stored.
    Enqueued {
        /// The job.
        job: String,
        /// Where.
        database: String,
        /// Its queue.
        queue: String,
        /// Its ability.
        ability: String,
        /// Its unique key.
        key: Option<String>,
        /// Whether the key may live twice.
        #[serde(default)]
        key_may_double: bool,
        /// Its priority.
        priority: i32,
        /// Whether it waits for an instant first.
        delayed: bool,
        /// Databases that may hold it too.
        #[serde(default)]
        doubtful: Vec<String>,
        /// When the enqueue began.
        begun: Micros,
    },
    /// A client was told that nobody knows whether the job is stored.
    Uncertain {
        /// The job.
        job: String,
    },
    /// The job was removed without a run.
    Dropped {
        /// The job.
        job: String,
    },
    /// A worker claimed jobs.
    Claimed {
        /// Who.
        worker: String,
        /// From where.
        database: String,
        /// From which queue.
        queue: String,
        /// Ids and priorities, in order.
        jobs: Vec<(String, i32)>,
        /// When the claim began.
        begun: Micros,
    },
    /// A run began.
    Started {
        /// Whose.
        worker: String,
        /// Where the job is stored.
        database: String,
        /// The job.
        job: String,
        /// Which run.
        attempt: i32,
    },
    /// A run ended.
    Finished {
        /// Whose.
        worker: String,
        /// Where the job is or was stored.
        database: String,
        /// The job.
        job: String,
        /// Which run.
        attempt: i32,
        /// How, as in the job status.
        outcome: String,
    },
    /// The database answered to the end of a run.
    Settled {
        /// Whose.
        worker: String,
        /// Where the job is or was stored.
        database: String,
        /// The job.
        job: String,
        /// Which run.
        attempt: i32,
        /// Whether the job left the queue with it.
        last: bool,
        /// Whether it was given back unstarted.
        #[serde(default)]
        given_back: bool,
        /// The answer.
        answer: Answer,
    },
    /// A client read a reply that says which run wrote it.
    Replied {
        /// The job.
        job: String,
        /// The run that the reply names.
        attempt: i32,
    },
}

impl Step {
    /// Whether it is about this job, alone or among others.
    pub(crate) fn concerns(&self, id: &str) -> bool {
        match self {
            Self::Claimed { jobs, .. } => jobs.iter().any(|(job, _)| job == id),
            Self::Enqueued { job, .. }
            | Self::Uncertain { job }
            | Self::Dropped { job }
            | Self::Started { job, .. }
            | Self::Finished { job, .. }
            | Self::Settled { job, .. }
            | Self::Replied { job, .. } => job == id,
        }
    }
}

/// What the database answered to the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is stored.
    Done,
    /// The lease was lost; nothing changed.
    LeaseLost,
    /// An earlier answer was lost on its way, so nobody knows which of the two it was.
    Unknown,
}
