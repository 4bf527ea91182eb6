#![doc = include_str!("../README.md")]
#![allow(clippy::doc_markdown, reason = "the README is prose")]

#[cfg(feature = "metrics")]
pub mod metrics;

/// The guides of the repository, whose examples are compiled and run here.
pub mod guide;

pub use qudo_core::{
    Ability, AbilityOptions, Backoff, DataSource, Enqueued, Error, Job, JobError, JobResult,
    Manager, ManagerBuilder, NewJob, Progress, RetryDelay, SavedTicket, Sent, Standing, Ticket,
    UniqPolicy, Update, UpdateStream, Updates, WorkHandle, abort, register, snooze,
};
pub use qudo_driver_diesel::{CompleteIn, EnqueueIn};
pub use qudo_hooks::{Due, JobId, Meta, Outcome};
/// # Examples
///
/// ```
/// use qudo::{Job, Manager, JobResult};
/// use serde::{Deserialize, Serialize};
///
/// #[qudo::ability(queue = "mail", max_retries = 3, retry_delay = exponential("1s", "1h"))]
/// fn postcard(job: &Job, address: String) -> JobResult<usize> {
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

/// A JSON value, as `upgrade` functions of abilities see arguments.
pub use serde_json::Value as JsonValue;

#[cfg(feature = "tokio")]
pub use qudo_core::asynchronous;
#[cfg(feature = "history")]
pub use qudo_history as history;

/// Hooks around the steps of a job, and the hooks that come with qudo.
pub mod hook {
    pub use qudo_hooks::{
        Decision, Failure, FailureKind, Hook, HookError, JobDraft, JobFields, JobView, Outcome,
        Veto, WorkerView, builtin, register_hook,
    };
}

/// How arguments and replies become bytes.
pub mod codec {
    #[cfg(feature = "zstd")]
    pub use qudo_hooks::Compressed;
    #[cfg(feature = "aead")]
    pub use qudo_hooks::Encrypted;
    #[cfg(feature = "msgpack")]
    pub use qudo_hooks::MessagePack;
    pub use qudo_hooks::{
        Arg, Codec, CodecError, Encodable, Json, Raw, TypedArg, Visit, decode, encode,
    };
}

/// Objects that abilities find by their type.
pub mod plugin {
    pub use qudo_hooks::{Plugin, PluginError, PluginNeed, register_plugin};
}

/// What operators ask for, and the answers: jobs, failures, workers, databases, audits.
pub mod admin {
    pub use qudo_core::driver::{
        About, Acted, Ages, Bounded, Counts, Depth, Ending, Exception, ExceptionId, Histogram,
        JobInfo, JobState, OperationId, OperationRow, Part, Pause, Remark, RunStats, StatRow,
        StatScan, StatusId, StatusRow, WorkerId, WorkerInfo, WorkerOrder, WorkerSeen,
    };
    pub use qudo_core::{
        AbilityInfo, Ailment, AuditOptions, AuditReport, Cursor, CursorError, DatabaseReport,
        DatabaseState, DownReason, ExceptionFilter, Explanation, FailureGroup, FailureGroups,
        Filter, FilterError, Filtered, Finding, Flaw, Gauge, HealthLimits, JobCount, JobFilter,
        Listing, LoopReport, MoveReport, Operation, OperationReport, Overview, Page, Paging,
        PartReport, PerDatabase, Placed, Preview, Reading, Reason, Slice, SpoolReport,
        StatusFilter, Treated, UnknownVerb, Unworkable, Verb, Watch, fields, read_due,
    };
}

/// Every step of every job, reported to an observer.
pub mod observe {
    pub use qudo_core::{Event, Observer};
}

/// Tests of programs that use qudo: a queue in memory whose clock is yours, and drivers that fail on purpose.
pub mod testing {
    pub use qudo_core::testing::*;
    pub use qudo_core::{Clock, SettableClock, SystemClock, assert_enqueued, refute_enqueued};
    pub use qudo_driver_diesel::testing::{
        TakeIn, TestConnection, jobs_in, jobs_of_in, migrate_in,
    };
    pub use qudo_driver_diesel::{assert_enqueued_in, refute_enqueued_in};
}

/// The storage port, for those who write a driver of their own.
pub mod driver {
    pub use qudo_core::driver::*;
    pub use qudo_core::{JobInside, ManagerInside, MemoryDriver};
}

/// Connections in whose transactions jobs are stored and completed.
pub mod transactional {
    pub use qudo_driver_diesel::{CompleteIn, EnqueueIn, JobConnection, Transactional};
}

/// For those who write an adapter to another library, in whose transactions jobs are to be stored.
pub mod adapter {
    pub use qudo_driver_diesel::adapter::{Dialect, Outgoing, Values};
}

#[cfg(feature = "tokio")]
#[doc(hidden)]
#[macro_export]
macro_rules! block_on_for_the_ability_macro {
    ($job:expr, $future:expr) => {
        $crate::asynchronous::block_on($job, $future)
    };
}

#[cfg(not(feature = "tokio"))]
#[doc(hidden)]
#[macro_export]
macro_rules! block_on_for_the_ability_macro {
    ($job:expr, $future:expr) => {
        ::core::compile_error!(
            "an async ability needs the feature `tokio` of the crate qudo: \
             `cargo add qudo --features tokio`"
        )
    };
}

/// For those who extend qudo by macros or drivers of their own: what stands behind registration.
pub mod extend {
    pub use qudo_core::{AbilityRegistration, AbilityReturn, AbilitySet};
    /// Naming the drivers keeps the linker from dropping their registration.
    #[doc(hidden)]
    pub use qudo_driver_diesel as drivers;
    pub use qudo_hooks::{
        CodecSet, HookRegistration, HookSet, LivePlugin, PluginRegistration, PluginSet,
        SourceLocation,
    };

    #[doc(hidden)]
    pub use inventory;

    #[doc(hidden)]
    pub use crate::block_on_for_the_ability_macro as block_on;
}
