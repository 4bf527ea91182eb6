use std::time::Duration;

use chrono::{DateTime, Utc};
use qudo_hooks::{Due, JobId};
use serde::{Deserialize, Serialize};

use crate::tools::time::utc_now;

use super::{DriverError, Ending, ExceptionId, Name, OperationId, Redrive, WorkerId};

/// What is done to live jobs from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Removes jobs that wait. Clients that wait for one of them learn of this ending from a row that is kept as long as
    /// replies; with `None` no row is left, for a job that lives in another database.
    Remove(Option<Ending>),
    /// Changes when jobs that wait run.
    Reschedule(Due),
    /// Changes the priority of jobs that wait.
    Prioritize(i32),
    /// Puts jobs that wait into another queue.
    Requeue(Name),
    /// Ends jobs that wait, with a row of the exception log of the kind
    /// [`Cancelled`](qudo_hooks::FailureKind::Cancelled) that has all that a redrive needs. Of jobs that run it stores an
    /// order, which [`Operate::cancels`] tells their workers.
    Cancel {
        /// Why: the message of that row.
        reason: String,
        /// Whether jobs that run end as well: their leases are taken from their workers, whose settlements change nothing
        /// then.
        by_force: bool,
    },
}

/// What became of one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Acted {
    /// It is done.
    Done,
    /// The worker that runs the job is told.
    Asked,
    /// It was told before: nothing changed.
    AskedBefore,
    /// Nothing changed: the job runs.
    Running,
    /// Nothing changed: the job is on its way to another database or from one.
    Moving,
    /// Nothing changed: another job holds its unique key where it is to go, or it may not go there because the key's home is elsewhere.
    KeyHeld,
    /// No such job lives here.
    Gone,
}

impl Acted {
    /// The word for listings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Asked => "asked",
            Self::AskedBefore => "asked_before",
            Self::Running => "running",
            Self::Moving => "moving",
            Self::KeyHeld => "key_held",
            Self::Gone => "gone",
        }
    }

    /// Whether what was asked for is done, or under way.
    pub const fn is_done(self) -> bool {
        matches!(self, Self::Done | Self::Asked | Self::AskedBefore)
    }
}

/// An order to end a job that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelOrder {
    /// The job.
    pub job: JobId,
    /// The claim under which it is leased.
    pub claim: i64,
    /// Why.
    pub reason: String,
}

/// How many jobs a verb over a filter met, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Counts {
    /// Done, or asked of the worker that runs the job.
    pub done: u64,
    /// Left as they were, because of what they are at this moment: the job runs, or moves, or another job holds its key.
    pub conflicts: u64,
    /// Gone when their turn came.
    pub gone: u64,
}

impl Counts {
    /// These numbers.
    pub const fn new(done: u64, conflicts: u64, gone: u64) -> Self {
        Self { done, conflicts, gone }
    }

    /// The counts of jobs to which something was done.
    pub fn of<'a>(answers: impl IntoIterator<Item = &'a Acted>) -> Self {
        let mut counts = Self::default();
        for acted in answers {
            counts.note(*acted);
        }
        counts
    }

    /// The counts of redrives.
    pub fn of_redrives<'a>(answers: impl IntoIterator<Item = &'a Redrive>) -> Self {
        let mut counts = Self::default();
        for redrive in answers {
            counts.note_redrive(redrive);
        }
        counts
    }

    const fn note(&mut self, acted: Acted) {
        match acted {
            Acted::Done | Acted::Asked => self.done += 1,
            // Counted when it was told.
            Acted::AskedBefore => {}
            Acted::Running | Acted::Moving | Acted::KeyHeld => self.conflicts += 1,
            Acted::Gone => self.gone += 1,
        }
    }

    const fn note_redrive(&mut self, redrive: &Redrive) {
        match redrive {
            Redrive::Enqueued(_) => self.done += 1,
            Redrive::Conflict(_) => self.conflicts += 1,
            Redrive::Already(_) | Redrive::NotDiscarded | Redrive::NotFound => self.gone += 1,
        }
    }

    /// How many jobs.
    pub const fn sum(&self) -> u64 {
        self.done + self.conflicts + self.gone
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.done += other.done;
        self.conflicts += other.conflicts;
        self.gone += other.gone;
    }
}

/// A verb over a filter, as it is begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRecord {
    /// Its id, the same in each database.
    pub id: OperationId,
    /// The verb with what it takes, as a text.
    pub verb: String,
    /// The text of the filter.
    pub filter: String,
    /// Who.
    pub operator: String,
    /// Why; may be empty.
    pub reason: String,
    /// How many jobs of all databases at most.
    pub at_most: Option<u64>,
    /// When, by the operator's clock: what spans of time in the filter count from.
    pub asked_at: DateTime<Utc>,
}

/// A verb over a filter, as far as one database has come with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OperationRow {
    /// What it is.
    pub record: OperationRecord,
    /// When it was asked for, by the database's clock, also where the database heard of it later: what was stored after that is not meant.
    pub started_at: DateTime<Utc>,
    /// When the last slice was done.
    pub changed_at: DateTime<Utc>,
    /// When it came to its end.
    pub finished_at: Option<DateTime<Utc>>,
    /// How far it has come, as [`Step::to`] says; empty before the first slice.
    pub place: String,
    /// What became of the jobs so far.
    pub counts: Counts,
}

impl OperationRecord {
    /// How long ago it was asked for, by this machine's clock.
    pub fn age(&self) -> Duration {
        (utc_now() - self.asked_at).to_std().unwrap_or_default()
    }
}

impl OperationRow {
    /// One of which the database hears now, by its clock.
    pub fn new(record: OperationRecord, now: DateTime<Utc>) -> Self {
        let started_at = now - record.age();
        Self {
            record,
            started_at,
            changed_at: now,
            finished_at: None,
            place: String::new(),
            counts: Counts::new(0, 0, 0),
        }
    }
}

/// A slice of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'a> {
    /// The operation.
    pub operation: OperationId,
    /// From which place: the slice is done only if the operation stands there and has not ended.
    pub from: &'a str,
    /// To which place; another one than `from`.
    pub to: &'a str,
    /// Whether the operation ends with it.
    pub ends: bool,
}

/// What operators do to jobs.
///
/// # Errors
///
/// When the database does not answer or refuses: nothing was done, unless the error
/// [is ambiguous](DriverError::is_ambiguous).
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Operate {
    /// Does this to each of these jobs; returns one answer for each job, in order.
    ///
    /// With a step, the operation's place and counts change in the same transaction; `None`, and nothing done, where the
    /// operation does not stand where the step begins: another process did that slice, or it did.
    fn act(
        &self,
        act: &Act,
        jobs: &[JobId],
        step: Option<&Step<'_>>,
    ) -> Result<Option<Vec<Acted>>, DriverError>;

    /// Enqueues discarded jobs again from the exception log, each under its new id and once; returns one answer for each,
    /// in order. The step is as in [`act`](Self::act).
    fn redrive_each(
        &self,
        rows: &[(ExceptionId, JobId)],
        step: Option<&Step<'_>>,
    ) -> Result<Option<Vec<Redrive>>, DriverError>;

    /// Notes a slice of which these are the counts, and that was done in other ways; whether the operation stood where
    /// the step begins.
    fn note_step(&self, step: &Step<'_>, counts: Counts) -> Result<bool, DriverError>;

    /// Stores an operation, unless it is known; returns it as it stands.
    fn begin_operation(&self, record: &OperationRecord) -> Result<OperationRow, DriverError>;

    /// An operation as it stands.
    fn operation(&self, id: OperationId) -> Result<Option<OperationRow>, DriverError>;

    /// Operations, the last that was begun first; only those with a smaller id.
    fn operations(
        &self,
        before: Option<OperationId>,
        limit: u32,
    ) -> Result<Vec<OperationRow>, DriverError>;

    /// The orders to end jobs that this worker has leased.
    fn cancels(&self, worker: WorkerId) -> Result<Vec<CancelOrder>, DriverError>;

    /// Orders to end jobs that nobody has leased, with their reasons, at most this number: the jobs are to be cancelled now. An
    /// order goes when [`Act::Cancel`] ends its job or does not find it.
    fn open_cancels(&self, limit: u32) -> Result<Vec<(JobId, String)>, DriverError>;

    /// Removes a live job that is not running; tells whether it did. See [`Act::Remove`].
    fn dequeue(&self, id: JobId, leaves: Option<Ending>) -> Result<bool, DriverError> {
        Ok(only(self.act(&Act::Remove(leaves), &[id], None)?))
    }

    /// Changes when a waiting job runs; tells whether it did (running jobs are left alone).
    fn reschedule(&self, id: JobId, due: Due) -> Result<bool, DriverError> {
        Ok(only(self.act(&Act::Reschedule(due), &[id], None)?))
    }

    /// Enqueues a discarded job again from the exception log, under the new id, once.
    fn redrive(&self, exception: ExceptionId, new: JobId) -> Result<Redrive, DriverError> {
        let answers = self.redrive_each(&[(exception, new)], None)?;
        Ok(answers.and_then(|mut all| all.pop()).unwrap_or(Redrive::NotFound))
    }
}

fn only(answers: Option<Vec<Acted>>) -> bool {
    answers.is_some_and(|all| all.iter().any(|one| one.is_done()))
}
