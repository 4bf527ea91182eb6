//! How often this process says that it lives.

use std::time::Duration;

use crate::options::Options;

/// How soon a beat that is overdue is looked at again while the database is down.
pub(crate) const MIN_WAIT: Duration = Duration::from_millis(50);

/// A database under load may take so long for a beat and is none the worse.
const MIN_LIMIT: Duration = Duration::from_secs(1);

/// When a process says that it lives, so that nobody can take a bad connection for its death.
pub(crate) struct Rhythm {
    /// Between two beats. Others rely on a quarter of what this process promises, see
    /// [`watch`](crate::database::watch).
    pub(crate) every: Duration,
    /// After one that failed.
    pub(crate) again: Duration,
    /// A beat is given up after so long and made on another connection: twice before the promise is
    /// over, where that is long enough.
    pub(crate) limit: Duration,
}

impl Rhythm {
    pub(crate) fn of(options: &Options) -> Self {
        let every = options.heartbeat_every.min(options.dead_after / 4);
        let limit = options.call_limit.min((options.dead_after / 3).max(MIN_LIMIT));
        Self { every, again: every.min(options.dead_after / 8), limit }
    }
}
