//! The manager of the `qudo` job queue, abilities, and the storage port.
//!
//! Core knows *what* happens to a job and *when*; a [`Driver`] knows *how* it
//! is stored. No database library is named here. Applications use the facade
//! crate `qudo`, which adds drivers and the `#[ability]` macro.
//!
//! ```
//! use std::time::Duration;
//! use qudo_core::{Ability, Job, Manager, JobResult};
//!
//! struct Double;
//!
//! impl Ability for Double {
//!     const NAME: &'static str = "double";
//!     type Arg = u64;
//!     type Reply = u64;
//!
//!     fn work(_job: &Job, n: u64) -> JobResult<u64> {
//!         Ok(n * 2)
//!     }
//! }
//!
//! let manager = Manager::builder().database("memory:docs").ability::<Double>().build()?;
//! let ticket = manager.enqueue(Double::job(21))?;
//! manager.work_once()?;
//! assert_eq!(ticket.wait_as::<u64>(Duration::from_secs(1))?, 42);
//! # Ok::<(), qudo_core::Error>(())
//! ```

mod ability;
mod ability_options;
mod admin;
#[cfg(feature = "tokio")]
pub mod asynchronous;
mod backoff;
mod builder;
mod client;
mod clock;
mod database;
pub mod driver;
mod error;
mod error_class;
mod filter;
#[cfg(test)]
mod fixture;
mod inside;
mod job;
mod job_error;
mod lack;
mod manager;
mod memory;
mod metadata;
mod names;
mod new_job;
mod observe;
mod options;
mod program;
mod progress;
mod session;
mod spans;
pub mod testing;
mod tools;

pub use ability::{Ability, AbilityInfo, AbilityRegistration, AbilityReturn, AbilitySet};
pub use ability_options::AbilityOptions;
pub use admin::audit;
pub use admin::audit::{AuditOptions, AuditReport, Finding, Flaw};
pub use admin::failures::{FailureGroup, FailureGroups};
pub use admin::gauge::Gauge;
pub use admin::health::{Ailment, HealthLimits};
pub use admin::listing::{JobCount, Unworkable};
pub use admin::monitor::{Reading, Watch};
pub use admin::operations::{
    Operation, OperationReport, PartReport, Preview, Slice, Treated, UnknownVerb, Verb,
};
pub use admin::overview::Overview;
pub use admin::page::{Cursor, CursorError, Listing, Page, Paging};
pub use admin::why::{Explanation, Reason};
pub use backoff::{Backoff, RetryDelay};
pub use builder::ManagerBuilder;
pub use client::enqueued::Enqueued;
pub use client::saved::SavedTicket;
pub use client::spool::SpoolReport;
pub use client::ticket::{Standing, Ticket};
pub use client::update_stream::UpdateStream;
pub use client::updates::{Sent, Update, Updates};
pub use clock::{Clock, SettableClock, SystemClock};
pub use database::DatabaseReport;
pub use database::data_source::DataSource;
pub use database::everywhere::PerDatabase;
pub use database::health::DatabaseState;
pub use database::transfer::MoveReport;
pub use driver::{Driver, DriverError, DriverRegistration};
pub use error::{DownReason, Error, Placed};
pub use filter::{
    ExceptionFilter, Filter, FilterError, Filtered, JobFilter, StatusFilter, fields, read_due,
};
pub use inside::{JobInside, ManagerInside};
pub use job::Job;
pub use job_error::{JobError, JobResult, abort, snooze};
pub use manager::Manager;
pub use memory::MemoryDriver;
pub use new_job::{NewJob, UniqPolicy};
pub use observe::{Event, Observer};
pub use progress::Progress;
pub use session::pulses::LoopReport;
pub use session::work::WorkHandle;

#[doc(hidden)]
pub use inventory;
#[doc(hidden)]
pub use qudo_hooks::SourceLocation;
