#![doc = include_str!("../README.md")]
#![allow(clippy::doc_markdown, reason = "the README is prose")]

pub use qudo_core::driver;
pub use qudo_core::{
    Ability, AbilityOptions, AbilityRegistration, AbilityReturn, AbilitySet, Backoff, Clock,
    DatabaseReport, DatabaseState, DownReason, Driver, DriverError, Enqueued, Error, Event, Job,
    JobCount, JobError, Linked, Manager, ManagerBuilder, MemoryDriver, Moved, NewJob, Observer, On,
    Progress, Result, RetryDelay, SettableClock, SpoolReport, SystemClock, Ticket, UniqPolicy,
    WorkHandle, abort, snooze,
};
pub use qudo_driver_diesel::{CompleteIn, EnqueueIn, JobConnection, Transactional};
#[cfg(feature = "history")]
pub use qudo_history as history;
pub use qudo_hooks::{
    Arg, Codec, CodecError, CodecSet, Decision, Failure, FailureKind, Hook, HookError,
    HookRegistration, HookSet, JobDraft, JobFields, JobId, JobView, Outcome, PluginSet, Schedule,
    SourceLocation, Veto, register_hook,
};
pub use qudo_macros::ability;

#[doc(hidden)]
pub use inventory;
/// Naming the drivers keeps the linker from dropping their registration.
#[doc(hidden)]
pub use qudo_driver_diesel as drivers;
