#![doc = include_str!("../README.md")]
#![allow(clippy::doc_markdown, reason = "the README is prose")]

pub use qudo_core::{
    Ability, AbilityOptions, AbilityRegistration, AbilityReturn, AbilitySet, AuditOptions,
    AuditReport, Backoff, Clock, DataSource, DatabaseReport, DatabaseState, DownReason, Driver,
    DriverError, Enqueued, Error, Event, Finding, Flaw, Job, JobCount, JobError, Linked,
    LoopReport, Manager, ManagerBuilder, MemoryDriver, Moved, NewJob, Observer, On, Placed,
    Progress, Result, RetryDelay, SettableClock, SpoolReport, SystemClock, Ticket, Undoable,
    UniqPolicy, WorkHandle, abort, register, snooze,
};
pub use qudo_core::{assert_enqueued, driver, refute_enqueued, testing};
pub use qudo_driver_diesel::{CompleteIn, EnqueueIn, JobConnection, Transactional};
#[cfg(feature = "history")]
pub use qudo_history as history;
#[cfg(feature = "zstd")]
pub use qudo_hooks::Compressed;
#[cfg(feature = "aead")]
pub use qudo_hooks::Encrypted;
#[cfg(feature = "msgpack")]
pub use qudo_hooks::MessagePack;
pub use qudo_hooks::{
    Arg, Codec, CodecError, CodecSet, Decision, Due, Failure, FailureKind, Hook, HookError,
    HookRegistration, HookSet, JobDraft, JobFields, JobId, JobView, Json, Outcome, Plugin,
    PluginError, PluginRegistration, PluginSet, Raw, SourceLocation, Veto, Visit, builtin, decode,
    register_hook, register_plugin,
};
/// # Examples
///
/// ```
/// use qudo::{Job, Manager, Result};
/// use serde::{Deserialize, Serialize};
///
/// #[qudo::ability(queue = "mail", max_retries = 3, retry_delay = exponential("1s", "1h"))]
/// fn postcard(job: &Job, address: String) -> Result<usize> {
///     Ok(address.len() + job.attempt() as usize)
/// }
///
/// #[derive(Serialize, Deserialize)]
/// struct Thumbnail {
///     path: String,
/// }
///
/// // The type is the argument, and its jobs are made with `into_job`.
/// #[qudo::ability(unique_by = |it| it.path.clone())]
/// impl Thumbnail {
///     fn work(self) -> std::io::Result<u64> {
///         Ok(self.path.len() as u64)
///     }
/// }
///
/// let manager = Manager::builder().database("memory:macros").build()?;
/// manager.enqueue(postcard::job("eve@example.org".to_owned()))?;
/// manager.enqueue(Thumbnail { path: "cat.jpg".to_owned() }.into_job())?;
/// # Ok::<(), qudo::Error>(())
/// ```
pub use qudo_macros::ability;

#[cfg(feature = "tokio")]
pub use qudo_core::asynchronous;
/// A JSON value, as `upgrade` functions of abilities see arguments.
pub use serde_json::Value as JsonValue;

#[doc(hidden)]
pub use inventory;
/// Naming the drivers keeps the linker from dropping their registration.
#[doc(hidden)]
pub use qudo_driver_diesel as drivers;
