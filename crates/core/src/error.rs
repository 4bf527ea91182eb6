use std::time::Duration;

use qudo_hooks::{CodecError, HookError, HookSetError, JobId, PluginError, SourceLocation};

use crate::driver::{DriverError, Ending, ExceptionId, JobState, OperationId};
use crate::tools::causes::with_causes;

/// What can go wrong with a manager. Every message names the thing and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The builder got no database.
    #[error(
        "the manager has no database; give its builder at least one, such as .database(\"sqlite:jobs.db\")"
    )]
    NoDatabase,
    /// A data source name is malformed or its driver is not linked.
    #[error("cannot use the data source {dsn:?}: {reason}")]
    InvalidDsn {
        /// The name with its password hidden.
        dsn: String,
        /// What is wrong.
        reason: String,
    },
    /// Two databases have one short name.
    #[error("two databases are named {0:?}; give one another name with .database_as(name, dsn)")]
    DuplicateDatabase(String),
    /// Two short names lead to one database.
    #[error(
        "{first:?} and {second:?} are two names of one database ({reason}); remove one of them, or, if \
         one is a restored copy of the other, delete the row 'identity' from its own table of orders \
         (qudo_control by default)"
    )]
    SameDatabase {
        /// The name that stays.
        first: String,
        /// The name that has to go.
        second: String,
        /// What shows that they are the same.
        reason: String,
    },
    /// No database of this short name.
    #[error("no database is named {name:?}; the manager knows {known}")]
    UnknownDatabase {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A database that is to be taken away still has jobs.
    #[error(
        "database {database:?} is not empty: {moved} jobs were moved, others were not ({reason}); it stays, \
         draining"
    )]
    NotEmpty {
        /// Its short name.
        database: String,
        /// How many jobs left it.
        moved: usize,
        /// Why other jobs did not leave it.
        reason: String,
    },
    /// The manager was told to work but can do nothing.
    #[error(
        "no ability is linked, so there is nothing to work on; if your abilities live in another \
         crate, name it (`use my_jobs as _;`), because the linker drops crates nobody names, or \
         register them with the builder's .ability::<T>()"
    )]
    NoAbilities,
    /// No registration that is made at link time can be seen.
    #[error(
        "nothing that registers itself at link time is visible in this program, not even the \
         in-memory driver: the linker dropped it; check its flags, or register everything with the \
         builder and .linked(false)"
    )]
    EmptyRegistry,
    /// Two abilities have one name.
    #[error("two abilities are named {name:?}: one at {first}, one at {second}; rename one")]
    DuplicateAbility {
        /// The name.
        name: String,
        /// Where the first is registered.
        first: SourceLocation,
        /// Where the second is registered.
        second: SourceLocation,
    },
    /// Two hooks have one name.
    #[error(transparent)]
    DuplicateHook(#[from] HookSetError),
    /// Two plugins have one type, or an ability lacks a plugin.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// An option of the builder makes no sense.
    #[error("the option {option} is out of range: {reason}")]
    InvalidOption {
        /// Which one.
        option: &'static str,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// A job that was to take the place of this one could not be prepared, and the ability went on all the same: the
    /// run fails, so that the replacement is not lost.
    #[error("job {job} cannot be replaced: {reason}")]
    ReplacementRefused {
        /// The job that runs.
        job: JobId,
        /// Why not.
        reason: String,
    },
    /// A queue, an ability or a unique key that cannot be stored.
    #[error("the {what} {name:?} cannot be used: {reason}")]
    InvalidName {
        /// What it names.
        what: &'static str,
        /// The offending text, cut to a readable length.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// An encoded argument is larger than the manager allows.
    #[error(
        "the argument of a job for {ability:?} takes {size} bytes, more than the limit of {limit}; \
         store large data elsewhere and pass its place, or raise the builder's max_arg_size"
    )]
    ArgTooLarge {
        /// The ability.
        ability: String,
        /// Its encoded size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// An argument or a reply does not fit its codec.
    #[error("{what}: {}", with_causes(.source))]
    Codec {
        /// Which value.
        what: String,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// A `pre_enqueue` hook refused the job; nothing was stored.
    #[error("the hook {hook:?} refused a job for {ability:?}: {}", with_causes(.source))]
    Refused {
        /// The hook.
        hook: String,
        /// The ability.
        ability: String,
        /// Its reason.
        #[source]
        source: HookError,
    },
    /// A database answered with an error.
    #[error("database {database:?} could not {action}: {source}")]
    Database {
        /// Its short name.
        database: String,
        /// What was asked.
        action: &'static str,
        /// Its answer.
        #[source]
        source: DriverError,
    },
    /// The database is known to be down; it was not asked.
    #[error("database {database:?} is down: {reason}")]
    DatabaseDown {
        /// Its short name.
        database: String,
        /// Why.
        reason: String,
    },
    /// No database could take the job.
    #[error("no database can take the job: {}", list(.0))]
    AllDatabasesDown(Vec<DownReason>),
    /// No database could take the job, and the spool is full.
    #[error("no database can take the job, and the spool holds its limit of {limit} jobs already")]
    SpoolFull {
        /// How many it takes.
        limit: u64,
    },
    /// The answer to an insert was lost: the job may be stored or not.
    #[error(
        "database {database:?} broke off while storing the job {job} ({}): it may be stored or not; \
         enqueue it again with the same id, which is safe",
        with_causes(.source)
    )]
    Uncertain {
        /// Its short name.
        database: String,
        /// The job.
        job: JobId,
        /// What happened.
        #[source]
        source: DriverError,
    },
    /// A bulk enqueue over several databases stopped half way.
    #[error("{stored} of {total} jobs were stored before one database failed: {source}")]
    PartlyEnqueued {
        /// How many were stored by this call.
        stored: usize,
        /// How many were asked for.
        total: usize,
        /// What became of each job, in the order of the call; `None` for a job that this call did not
        /// store for certain. Such jobs may be enqueued again, with the same ids if `source` is
        /// [`Uncertain`](Self::Uncertain).
        answers: Vec<Option<Placed>>,
        /// Why the other jobs are not stored.
        #[source]
        source: Box<Error>,
    },
    /// The schema of the database is missing, behind or newer than this program.
    #[error("database {database:?}: {reason}")]
    Schema {
        /// Its short name.
        database: String,
        /// What is wrong and which command corrects it.
        reason: String,
    },
    /// The job did not end in time.
    #[error("job {job} did not end within {} s: {}", .after.as_secs_f32(), last_seen(.database.as_deref(), .state.as_ref()))]
    WaitTimeout {
        /// The job.
        job: JobId,
        /// How long the caller waited.
        after: Duration,
        /// The short name of the database where it is, if that is known.
        database: Option<String>,
        /// Where it stood at the last look that was answered; `None` when no look was answered.
        state: Option<JobState>,
    },
    /// The job failed for good.
    #[error("job {job} failed for good after attempt {attempt}: {message}")]
    JobFailed {
        /// The job.
        job: JobId,
        /// Its last attempt.
        attempt: u32,
        /// The error of that attempt.
        message: String,
    },
    /// The job completed without a reply, and the type asked for needs a reply.
    #[error("job {job} completed without a reply")]
    NoReply {
        /// The job.
        job: JobId,
    },
    /// The job completed longer ago than replies are kept. [`Ticket::wait_done`](crate::Ticket::wait_done) does not ask for any.
    #[error("job {job} completed, and its replies, if it left any, are not kept any more")]
    ReplyExpired {
        /// The job.
        job: JobId,
    },
    /// The job was removed before it completed.
    #[error("job {job} was {} and will never run", .ending.as_str())]
    JobRemoved {
        /// The job.
        job: JobId,
        /// How it ended.
        ending: Ending,
    },
    /// An operator cancelled the job.
    #[error("job {job} was cancelled: {reason}")]
    JobCancelled {
        /// The job.
        job: JobId,
        /// Why.
        reason: String,
    },
    /// The job cannot be run by hand.
    #[error("job {job} cannot be run: {reason}")]
    NotRunnable {
        /// The job.
        job: JobId,
        /// Why.
        reason: String,
    },
    /// A run that was made by hand changed nothing.
    #[error(
        "the run of job {job} changed nothing: its lease was lost while it ran; the job was ended meanwhile, or runs \
         elsewhere (`qudo why {job}`)"
    )]
    LeaseLost {
        /// The job.
        job: JobId,
    },
    /// An operation cannot be begun, or gone on with.
    #[error("operation {operation}: {reason}")]
    UnreadableOperation {
        /// The operation.
        operation: OperationId,
        /// Why.
        reason: String,
    },
    /// An operation was stopped before it came to its end in this database; it can be gone on with.
    #[error("database {database:?}: the operation was stopped before its end")]
    OperationStopped {
        /// The short name of the database.
        database: String,
    },
    /// The job is not alive, and nothing tells how it ended.
    #[error(
        "job {job} ended or was never stored: no database has it, and nothing is kept that tells how it \
         ended; a reply, a job status, or a ticket from its enqueue would"
    )]
    OutcomeUnknown {
        /// The job.
        job: JobId,
    },
    /// There is no job to wait for: a hook or the caller suppressed it.
    #[error("the job was suppressed: nothing was stored, so nothing can be waited for")]
    Suppressed,
    /// The exception was redriven before.
    #[error("exception {exception} was already enqueued again, as job {job}")]
    AlreadyRedriven {
        /// The row.
        exception: ExceptionId,
        /// The job.
        job: JobId,
    },
    /// The exception cannot be redriven.
    #[error("exception {exception} cannot be enqueued again: {reason}")]
    NotRedrivable {
        /// The row.
        exception: ExceptionId,
        /// Why.
        reason: String,
    },
    /// A hook did not start, or did not say which plugins it needs, so the work does not begin.
    #[error("the hook {hook:?} did not start: {}", with_causes(.source))]
    HookNotStarted {
        /// The hook.
        hook: String,
        /// Its reason.
        #[source]
        source: HookError,
    },
    /// The manager already works.
    #[error("this manager already works; build a second manager for a second set of workers")]
    AlreadyWorking,
    /// The system refused something: a thread or a signal handler.
    #[error("cannot {action}: {source}")]
    System {
        /// What.
        action: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Why one database is down.
#[derive(Debug, Clone)]
pub struct DownReason {
    /// Its short name.
    pub database: String,
    /// Why.
    pub reason: String,
}

fn last_seen(database: Option<&str>, state: Option<&JobState>) -> String {
    let place = database.map(|name| format!(" in database {name:?}")).unwrap_or_default();
    match state {
        Some(JobState::Running { .. }) => format!("it is running{place}"),
        Some(JobState::Ready) => format!("it waits{place} for a worker that is free"),
        Some(JobState::Scheduled { run_after }) => format!("it waits{place} until {run_after}"),
        Some(JobState::Moving) => format!("it is moved{place} to or from another"),
        None => format!("no look for it{place} was answered"),
    }
}

fn list(reasons: &[DownReason]) -> String {
    let parts: Vec<_> =
        reasons.iter().map(|one| format!("{:?} ({})", one.database, one.reason)).collect();
    parts.join(", ")
}

/// What became of one job of a bulk enqueue that stopped half way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It is stored.
    New(JobId),
    /// This live job holds its unique key.
    Existing(JobId),
    /// A hook or the caller suppressed it; nothing is stored.
    Suppressed,
}

impl Placed {
    /// Whether it was stored.
    pub fn is_new(&self) -> bool {
        matches!(self, Self::New(_))
    }

    /// The id of the new or the existing job; for its ticket see [`Manager::ticket`](crate::Manager::ticket).
    pub fn id(&self) -> Option<JobId> {
        match self {
            Self::New(id) | Self::Existing(id) => Some(*id),
            Self::Suppressed => None,
        }
    }
}

impl Error {
    /// Whether the only obstacle was that databases are down: a later call may succeed.
    pub fn is_down(&self) -> bool {
        match self {
            Self::AllDatabasesDown(_) | Self::DatabaseDown { .. } | Self::SpoolFull { .. } => true,
            Self::Database { source, .. } => source.is_down(),
            Self::PartlyEnqueued { source, .. } => source.is_down(),
            _ => false,
        }
    }

    /// Whether a wait ended before the job did.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::WaitTimeout { .. })
    }

    /// Whether it is not known if a job was stored. To enqueue it again under its id
    /// ([`NewJob::with_id`](crate::NewJob::with_id)) is safe.
    pub fn is_uncertain(&self) -> bool {
        match self {
            Self::Uncertain { .. } => true,
            Self::PartlyEnqueued { source, .. } => source.is_uncertain(),
            _ => false,
        }
    }

    /// Whether the job failed for good.
    pub fn is_job_failed(&self) -> bool {
        matches!(self, Self::JobFailed { .. })
    }

    /// Whether the caller passed something that is not possible: an option, a name, an argument or a data source.
    /// Another try with the same values fails again.
    pub fn is_invalid(&self) -> bool {
        matches!(
            self,
            Self::InvalidDsn { .. }
                | Self::InvalidOption { .. }
                | Self::InvalidName { .. }
                | Self::ArgTooLarge { .. }
                | Self::Codec { .. }
                | Self::UnknownDatabase { .. }
        )
    }

    /// The system has no thread for us.
    pub(crate) fn no_thread(source: std::io::Error) -> Self {
        Self::System { action: "start a thread", source }
    }

    pub(crate) fn database(database: &str, action: &'static str, source: DriverError) -> Self {
        if source.kind() == crate::driver::ErrorKind::Schema {
            return Self::Schema { database: database.to_owned(), reason: source.to_string() };
        }
        Self::Database { database: database.to_owned(), action, source }
    }
}
