use std::time::Duration;

/// How long a database keeps what nothing needs any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Replies, and the trails of moved jobs.
    pub replies: Duration,
    /// The job status history.
    pub status: Duration,
    /// Exceptions after which a job ran again, and those of discarded jobs that were redriven.
    pub exceptions: Duration,
    /// Discarded jobs that were not redriven, with their arguments; `None` keeps them for ever.
    pub discarded: Option<Duration>,
}

impl Keep {
    /// The same age for all but discarded jobs, which are kept.
    pub const fn all(age: Duration) -> Self {
        Self { replies: age, status: age, exceptions: age, discarded: None }
    }
}

/// What a clean-up did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// How many rows it removed.
    pub removed: usize,
    /// Whether there are more rows to look at: the next call goes on with them.
    pub more: bool,
}
