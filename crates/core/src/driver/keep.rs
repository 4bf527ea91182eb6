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
    /// How many rows the exception log has at most, but for discarded jobs that were not redriven, and for rows of discarded jobs that are younger than
    /// replies are kept; `None` counts none. The oldest go.
    pub exceptions_at_most: Option<u64>,
    /// Discarded jobs that were not redriven, with their arguments; `None` keeps them for ever.
    pub discarded: Option<Duration>,
    /// The numbers of each minute. Those since there are any are kept for ever.
    pub stats: Duration,
}

impl Keep {
    /// The same age for all but discarded jobs, which are kept.
    pub const fn all(age: Duration) -> Self {
        let (exceptions_at_most, discarded) = (None, None);
        Self {
            replies: age,
            status: age,
            exceptions: age,
            exceptions_at_most,
            discarded,
            stats: age,
        }
    }

    /// How long a row of the exception log is kept: of a job that ran again, of one that was redriven, or of one that was not. The row is
    /// one too many if there are as many as may be behind it. `None` for ever.
    pub fn exception(&self, discarded: bool, redriven: bool, too_many: bool) -> Option<Duration> {
        match (discarded, redriven) {
            (true, false) => self.discarded,
            // By it a ticket knows that its job failed.
            (true, true) if too_many => Some(self.replies.min(self.exceptions)),
            (false, _) if too_many => Some(Duration::ZERO),
            _ => Some(self.exceptions),
        }
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
