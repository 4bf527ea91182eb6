use chrono::{DateTime, Utc};
use qudo_hooks::JobId;
use serde::{Deserialize, Serialize};

use super::{ExceptionId, JobState, Name, Place, StatusId};

/// A row of a narrow table by its key, which is the order in which the table is scanned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobCursor {
    /// By id.
    Leased(JobId),
    /// In the order of the claim: queue, minus the priority, id.
    Ready(String, i32, JobId),
    /// When it is due, id.
    Scheduled(DateTime<Utc>, JobId),
    /// The other database's id, id.
    Leaving(String, JobId),
    /// The other database's id, id.
    Arriving(String, JobId),
}

impl JobCursor {
    /// The table.
    pub const fn place(&self) -> Place {
        match self {
            Self::Leased(_) => Place::Leased,
            Self::Ready(..) => Place::Ready,
            Self::Scheduled(..) => Place::Scheduled,
            Self::Leaving(..) => Place::Leaving,
            Self::Arriving(..) => Place::Arriving,
        }
    }

    /// The job.
    pub const fn id(&self) -> JobId {
        match self {
            Self::Leased(id)
            | Self::Ready(_, _, id)
            | Self::Scheduled(_, id)
            | Self::Leaving(_, id)
            | Self::Arriving(_, id) => *id,
        }
    }
}

/// Which rows of a narrow table are read.
#[derive(Debug, Clone, Copy)]
pub struct JobScan<'a> {
    /// The table.
    pub place: Place,
    /// Only this queue; of [`Place::Ready`] only, where it is a range of the key.
    pub queue: Option<&'a str>,
    /// Only behind this row of the same table.
    pub after: Option<&'a JobCursor>,
    /// How many rows at most.
    pub limit: u32,
}

/// A row of a narrow table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedJob {
    /// Where it lies; its id too.
    pub at: JobCursor,
    /// The queue.
    pub queue: Name,
    /// The kind of work.
    pub ability: Name,
    /// Higher runs first.
    pub priority: i32,
    /// How many runs were started.
    pub attempt: u32,
    /// Where it stands.
    pub state: JobState,
}

/// Which rows of the exception log are read, newest first.
#[derive(Debug, Clone, Copy)]
pub struct ExceptionScan {
    /// Only of this job.
    pub job: Option<JobId>,
    /// Only this row.
    pub id: Option<ExceptionId>,
    /// Only failures with which a job left the queue.
    pub discarded_only: bool,
    /// Only rows with a smaller id.
    pub before: Option<ExceptionId>,
    /// Whether arguments are read; without them they are empty.
    pub arguments: bool,
    /// How many rows at most.
    pub limit: u32,
}

impl ExceptionScan {
    /// All rows with their arguments, up to this number of them.
    pub const fn all(limit: u32) -> Self {
        Self { job: None, id: None, discarded_only: false, before: None, arguments: true, limit }
    }

    /// The last failure of a job, if there is one.
    pub const fn last_of(job: JobId) -> Self {
        Self { job: Some(job), ..Self::all(1) }
    }

    /// Only failures with which a job left the queue.
    #[must_use]
    pub const fn discarded(self) -> Self {
        Self { discarded_only: true, ..self }
    }
}

/// Which rows of the job status are read, newest first.
#[derive(Debug, Clone, Copy)]
pub struct StatusScan {
    /// Only of this job.
    pub job: Option<JobId>,
    /// Only rows with a smaller id.
    pub before: Option<StatusId>,
    /// How many rows at most.
    pub limit: u32,
}

/// A table of what has been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// The exception log.
    Exceptions,
    /// The job status.
    Status,
}
