//! The storage port: what the manager asks of a database.
//!
//! A driver stores jobs and answers questions about them; every decision is the
//! manager's. All methods take `&self` and may be called from many threads at
//! once; they block. The driver limits every connect and checkout; the manager limits how long a
//! whole call may take, and abandons a call that hangs.

mod admin;
mod audit;
mod checkup;
mod control;
mod error;
mod facts;
mod ids;
mod inspect;
mod interim;
mod interim_book;
mod keep;
mod listing;
mod moving;
mod name;
mod operate;
mod password;
mod record;
mod registration;
mod scan;
mod stat;
mod stat_book;
mod wake;
mod work;

pub use admin::{Admin, SchemaState};
pub use audit::{Audit, KeyRow, Place, StrayCursor, Strays, Traces};
pub use checkup::{About, Remark};
pub use control::{Bounded, Control, Depth, Order, Part, Pause, WorkerOrder};
pub use error::{DriverError, ErrorKind};
pub use facts::{Flags, JobFacts};
pub use ids::{ExceptionId, OperationId, StatusId, WorkerId};
pub use inspect::Inspect;
pub use interim::{
    Interim, LeaseKey, News, ProgressRecord, ProgressRow, Sending, SentLast, SentRecord, SentRow,
};
pub use interim_book::InterimBook;
pub use keep::{Keep, Purged};
pub use listing::{
    Ages, CountRow, Ending, Exception, Head, JobInfo, JobState, Redrive, Remains, ReplyRow,
    StatusRow,
};
pub use moving::{Arrival, Departure, Leg, Moves, MovingJob, Trail};
pub use name::Name;
pub use operate::{Act, Acted, CancelOrder, Counts, Operate, OperationRecord, OperationRow, Step};
pub use password::{Password, PasswordError};
pub use qudo_hooks::Due;
pub use record::{
    AbilityLease, ClaimRequest, ClaimedJob, DeadWorker, Deadline, ExceptionRecord, Extras,
    Inserted, JobClaim, JobRecord, Promotion, ReplyRecord, Rescued, Settled, Settlement,
    StatusRecord, Verdict, WorkerInfo, WorkerSeen,
};
pub use registration::{DriverRegistration, NamedDriver};
pub use scan::{ExceptionScan, JobCursor, JobScan, Past, PlacedJob, StatusScan};
pub use stat::{BUCKETS, Histogram, RunStats, StatRow, StatScan};
pub use stat_book::StatBook;
pub use wake::{Heard, Tidings, Wake, WakeSource, Wakes};
pub use work::Work;

/// One database that stores jobs.
///
/// # Contract
///
/// * Every method is atomic: after an error nothing is stored, unless the error
///   [is ambiguous](DriverError::is_ambiguous): then either all or nothing is stored.
/// * Deadlocks, lock waits, busy and serialization errors are retried inside the driver.
/// * "Now" is the database's clock.
/// * An id is in exactly one of: ready, scheduled, leased, moving.
pub trait Driver:
    Work
    + Interim
    + Inspect
    + Admin
    + Operate
    + Wakes
    + Moves
    + Audit
    + std::any::Any
    + Send
    + Sync
    + 'static
{
    /// The engine's name for logs and reports: `sqlite`, `postgres`, `mysql`, `memory`.
    fn engine(&self) -> &'static str;

    /// The data source for logs and reports, without a password.
    fn describe(&self) -> String;

    /// Where the data lies, if the driver knows it without asking the database: two drivers with the
    /// same place are one database.
    fn place(&self) -> Option<String> {
        None
    }

    /// Whether it is reached without a network, so that it can be used while servers are down: a spool must be
    /// such a database.
    fn is_local(&self) -> bool {
        false
    }

    /// Whether a call may have to wait for something outside the process. Such calls are made on
    /// threads that can be abandoned.
    fn may_block(&self) -> bool {
        true
    }

    /// Gives up the connections in use: calls under way may never return. Later calls connect anew.
    fn reset(&self) {}

    /// Connects on a connection of its own and checks that the database takes writes.
    ///
    /// # Errors
    ///
    /// The reason why the database is not usable now.
    fn probe(&self) -> Result<(), DriverError>;
}
