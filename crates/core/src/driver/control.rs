use std::fmt;

use uuid::Uuid;

/// What an operator ordered for a database, and which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Control {
    /// New jobs go to other databases.
    pub draining: bool,
    /// Its jobs are not claimed.
    pub paused: bool,
    /// The id of the database itself; `None` before it has one.
    pub identity: Option<Uuid>,
}

/// One of the orders of a [`Control`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlFlag {
    /// [`Control::draining`].
    Draining,
    /// [`Control::paused`].
    Paused,
}

impl ControlFlag {
    /// The word under which it is stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Paused => "paused",
        }
    }
}

/// A number of rows, counted up to a bound, so that the count costs the same for any number of
/// rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounded {
    /// How many were counted.
    pub count: u64,
    /// Whether there are more.
    pub more: bool,
}

impl Bounded {
    /// A count of at most `bound + 1` rows as a number up to the bound.
    pub fn new(counted: u64, bound: u64) -> Self {
        Self { count: counted.min(bound), more: counted > bound }
    }
}

impl fmt::Display for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.count, if self.more { "+" } else { "" })
    }
}

/// How many live jobs a database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Depth {
    /// Waiting to be claimed.
    pub ready: Bounded,
    /// Waiting for an instant.
    pub scheduled: Bounded,
    /// Claimed.
    pub running: Bounded,
    /// On their way to another database or from one, and jobs that left but whose move is not over: while there
    /// are any, a mover must continue the move.
    pub moving: Bounded,
}

impl Depth {
    /// A depth from its four counts.
    pub fn new(ready: Bounded, scheduled: Bounded, running: Bounded, moving: Bounded) -> Self {
        Self { ready, scheduled, running, moving }
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        [self.ready, self.scheduled, self.running, self.moving].iter().all(|one| one.count == 0)
    }
}
