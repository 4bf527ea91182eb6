use std::time::Duration;

use std::fmt;

use chrono::{DateTime, Utc};
use qudo_hooks::JobId;
use uuid::Uuid;

use super::{DriverError, Flags, JobRecord};

/// A waiting job on its way from one database to another.
#[derive(Clone)]
pub struct MovingJob {
    /// Its facts. The due time is an instant, or now.
    pub record: JobRecord,
    /// How often it ran.
    pub attempt: i32,
    /// How many of these runs ended with the worker's death or a lease that ran out.
    pub crashes: i32,
    /// What lies beside it.
    pub flags: Flags,
    /// When it was enqueued, by its first database's clock.
    pub enqueued_at: DateTime<Utc>,
    /// The id of its [`Departure`].
    pub departure: Uuid,
}

impl MovingJob {
    /// The job and the id of its departure.
    pub fn departed(&self) -> Departure {
        Departure { job: self.record.id, id: self.departure }
    }
}

/// A job that leaves a database. Each time it leaves it has another id, so that a mover that was overtaken cannot go on
/// with a departure of somebody else, or with one that came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Departure {
    /// The job.
    pub job: JobId,
    /// Which of its departures it is.
    pub id: Uuid,
}

/// What became of a job that was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is here, out of reach of claims or not.
    Here,
    /// This job holds its unique key; nothing was stored.
    KeyHeld(JobId),
    /// A copy of it from another departure lies here, whose mover has not taken it back yet, or it is leaving this
    /// database itself; nothing was stored.
    Busy,
}

/// Without the argument, which may hold secrets.
impl fmt::Debug for MovingJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MovingJob")
            .field("record", &self.record)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// How far a job is on its way, as a database remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leg {
    /// In the database that it leaves: it cannot be claimed here, and may have arrived in the other
    /// database.
    Leaving,
    /// In the database that it left: it has certainly arrived in the other database, but perhaps
    /// cannot be claimed there yet.
    Left,
    /// In the database it comes to: it cannot be claimed here yet.
    Arriving,
    /// In the database it left: the move is over; the trail tells tickets where to look.
    Gone,
    /// In the database it came to: it can be claimed, or was; another mover of the same departure must not bring it again.
    Arrived,
    /// In a database where a copy of it came to, that was [taken back](Moves::cancel_move_in): it is where the copy came from.
    Cancelled,
}

impl Leg {
    /// The word under which it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leaving => "leaving",
            Self::Left => "left",
            Self::Arriving => "arriving",
            Self::Gone => "gone",
            Self::Arrived => "arrived",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What a database tells of a job that was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trail {
    /// The identity of the database where the job went; `None` for a job that came back here.
    pub to: Option<String>,
    /// How long ago that was, by the database's clock: then the job was alive. `None` where that is not known: for a
    /// copy that a mover brought here and that was [taken back](Moves::cancel_move_in).
    pub age: Option<Duration>,
}

/// The steps by which waiting jobs go from one database to another.
///
/// There is no transaction over two databases, so each step is one transaction of one of them, and
/// their order makes every prefix of it safe: a job can never be claimed in both databases, nor
/// remain for ever without a database in which it can be claimed, and the rows that a killed move
/// leaves show how far it came.
///
/// | step | where | effect | killed afterwards |
/// |---|---|---|---|
/// | [`move_out`](Self::move_out) | from | waiting → leaving | repeat from here |
/// | [`move_in`](Self::move_in) | to | arriving, with its facts | repeat: nothing is stored twice |
/// | [`moved_out`](Self::moved_out) | from | leaving → left, facts removed | go on with the next |
/// | [`moved_in`](Self::moved_in) | to | arriving → ready or scheduled, marked arrived | harmless to repeat |
/// | [`leave_trail`](Self::leave_trail) | from | left → gone, which tickets follow | done |
///
/// Every step but the first names the [`Departure`] and does nothing to a job whose mark is of another one. So a mover that was
/// overtaken, with a job that went back and perhaps left again, changes nothing: its departure never comes to life again.
///
/// The mark `left` outlives the job's arrival: a job that arrives without a mark of its departure comes from the late
/// write of a mover that was overtaken, and its arrival is [cancelled](Self::cancel_move_in). The mark
/// `arrived` keeps such a mover from bringing the job a second time, because the job may have ended by
/// then. Databases are told apart by their [identity](super::Admin::identity).
pub trait Moves {
    /// Takes at most `limit` waiting jobs out of reach of claims, for a move to `to`: `only` these,
    /// or any. The departure is one that was never used before.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn move_out(
        &self,
        to: &str,
        departure: Uuid,
        only: Option<&[JobId]>,
        limit: u32,
    ) -> Result<Vec<MovingJob>, DriverError>;

    /// Jobs that an earlier move to `to` left [`Leg::Leaving`], after this id, in order.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn moving_out(&self, to: &str, after: JobId, limit: u32)
    -> Result<Vec<MovingJob>, DriverError>;

    /// Stores jobs that come from `from`, out of reach of claims; returns one answer for each job,
    /// in order. A job that is here already stays as it is, and that it is here must be certain: the other database is about
    /// to remove it.
    ///
    /// # Errors
    ///
    /// When nothing was stored, or it is not known whether the jobs are stored.
    fn move_in(&self, from: &str, jobs: &[MovingJob]) -> Result<Vec<Arrival>, DriverError>;

    /// Removes jobs that are leaving, all but their mark; returns those that left by this departure, now or before.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn moved_out(&self, jobs: &[Departure]) -> Result<Vec<Departure>, DriverError>;

    /// Lets arrived jobs be claimed.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn moved_in(&self, jobs: &[Departure]) -> Result<usize, DriverError>;

    /// Ends the move of jobs that left. Where they went is kept as long as replies are.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn leave_trail(&self, jobs: &[Departure]) -> Result<(), DriverError>;

    /// The last move of a job from here or back to here; `None` if none is kept.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn trail(&self, job: JobId) -> Result<Option<Trail>, DriverError>;

    /// Lets jobs that were leaving be claimed again: their departure comes to nothing.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn move_back(&self, jobs: &[Departure]) -> Result<usize, DriverError>;

    /// Which of these jobs are marked here as [`Leg::Leaving`] or [`Leg::Left`], and by which departure.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn legs(&self, jobs: &[JobId]) -> Result<Vec<(Departure, Leg)>, DriverError>;

    /// Jobs marked [`Leg::Left`] for `to`, after this id, in order.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn left_for(&self, to: &str, after: JobId, limit: u32) -> Result<Vec<Departure>, DriverError>;

    /// Jobs that come from `from` and cannot be claimed yet, after this id, in order.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn moving_in(
        &self,
        from: &str,
        after: JobId,
        limit: u32,
    ) -> Result<Vec<Departure>, DriverError>;

    /// Removes jobs that were brought by these departures and that cannot be claimed yet.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    fn cancel_move_in(&self, jobs: &[Departure]) -> Result<usize, DriverError>;
}
