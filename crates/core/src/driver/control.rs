use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use uuid::Uuid;

use super::WorkerId;
use crate::tools::pattern;

/// What an operator ordered for a database, and which database it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Control {
    /// New jobs go to other databases.
    pub draining: bool,
    /// Its jobs are not claimed.
    pub paused: bool,
    /// Queues and abilities whose jobs are not claimed; `None` without one, so that a copy costs nothing.
    pub pauses: Option<Arc<[Pause]>>,
    /// Orders for worker processes; `None` without one.
    pub workers: Option<Arc<[(WorkerId, WorkerOrder)]>>,
    /// The id of the database itself; `None` before it has one.
    pub identity: Option<Uuid>,
}

impl Control {
    /// What is ordered of this worker process: to stop, if both are.
    pub fn order_of(&self, worker: WorkerId) -> Option<WorkerOrder> {
        let all = self.workers.as_deref().unwrap_or_default();
        all.iter().filter(|(id, _)| *id == worker).map(|(_, order)| *order).max()
    }

    /// The order because of which jobs of this queue and ability are not claimed, though the database is not paused.
    pub fn pause_of(&self, queue: &str, ability: &str) -> Option<&Pause> {
        Pause::among(self.pauses.as_deref().unwrap_or_default(), queue, ability)
    }
}

/// What a worker process is ordered to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum WorkerOrder {
    /// Claim no more jobs, of any database, until the order is taken back. Jobs that run may end.
    Quiet,
    /// The same, and end the work softly, as after SIGTERM: [`Manager::work`](crate::Manager::work) returns.
    Stop,
}

impl WorkerOrder {
    /// The word for listings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Stop => "stop",
        }
    }
}

/// What can be paused within a database, by its name; `*` in it stands for any characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Part {
    /// A queue.
    Queue(String),
    /// An ability.
    Ability(String),
}

impl Part {
    /// The word for listings.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Queue(_) => "queue",
            Self::Ability(_) => "ability",
        }
    }

    /// Its name, in which `*` may be.
    pub fn name(&self) -> &str {
        match self {
            Self::Queue(name) | Self::Ability(name) => name,
        }
    }

    /// Whether a queue or an ability of this name is meant.
    pub fn is(&self, name: &str) -> bool {
        pattern::matches(self.name(), name)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind(), self.name())
    }
}

/// An order not to claim the jobs of a queue or an ability.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pause {
    /// Of which one.
    pub part: Part,
    /// Why, as the operator says; may be empty.
    pub reason: String,
    /// When it was ordered, by the database's clock.
    pub since: DateTime<Utc>,
}

impl Pause {
    /// Which of these is why jobs of this queue and ability are not claimed.
    pub fn among<'p>(all: &'p [Self], queue: &str, ability: &str) -> Option<&'p Self> {
        all.iter().find(|pause| match &pause.part {
            Part::Queue(_) => pause.part.is(queue),
            Part::Ability(_) => pause.part.is(ability),
        })
    }

    /// An order of this time.
    pub fn new(part: Part, reason: impl Into<String>, since: DateTime<Utc>) -> Self {
        Self { part, reason: reason.into(), since }
    }
}

/// An order of an operator's for a database; see [`Control`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// [`Control::draining`].
    Draining,
    /// [`Control::paused`].
    Paused,
    /// [`Control::pauses`]: what is paused, and why. What is paused already has this reason then.
    PausedPart(Part, String),
    /// [`Control::workers`].
    Worker(WorkerId, WorkerOrder),
}

impl Order {
    /// The words under which it is stored.
    pub fn name(&self) -> String {
        match self {
            Self::Draining => "draining".to_owned(),
            Self::Paused => "paused".to_owned(),
            Self::PausedPart(part, _) => format!("paused {} {}", part.kind(), part.name()),
            Self::Worker(worker, order) => format!("{} worker {worker}", order.as_str()),
        }
    }

    /// The worker process whose order is stored under these words.
    pub fn worker_of(name: &str) -> Option<(WorkerId, WorkerOrder)> {
        let (order, id) = name.split_once(" worker ")?;
        let order = [WorkerOrder::Quiet, WorkerOrder::Stop]
            .into_iter()
            .find(|one| one.as_str() == order)?;
        Some((id.parse().ok()?, order))
    }

    /// The part of a database whose pause is stored under these words.
    pub fn part_of(name: &str) -> Option<Part> {
        let part = name.strip_prefix("paused ")?;
        match part.split_once(' ')? {
            ("queue", name) => Some(Part::Queue(name.to_owned())),
            ("ability", name) => Some(Part::Ability(name.to_owned())),
            _ => None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::time::utc_now;

    #[test]
    fn an_order_is_read_from_the_words_that_it_is_stored_under() {
        for part in [Part::Queue("gl.* x".to_owned()), Part::Ability("mail".to_owned())] {
            let order = Order::PausedPart(part.clone(), "why".to_owned());
            assert_eq!(Order::part_of(&order.name()), Some(part));
        }
        for order in [WorkerOrder::Quiet, WorkerOrder::Stop] {
            let worker = WorkerId::new();
            let name = Order::Worker(worker, order).name();
            assert_eq!(
                (Order::worker_of(&name), Order::part_of(&name)),
                (Some((worker, order)), None)
            );
            assert!(name.len() <= 200, "as long as every engine can store it");
        }
        assert_eq!(Order::worker_of("quiet worker host:1"), None);
        for name in ["paused", "draining", "paused schedule x", "identity", "paused queue"] {
            assert_eq!(Order::part_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_pause_is_of_the_queues_or_abilities_that_its_name_stands_for() {
        let pause = |part| Pause::new(part, "", utc_now());
        let all = [pause(Part::Queue("gl.*".to_owned())), pause(Part::Ability("mail".to_owned()))];
        let control = Control { pauses: Some(all.clone().into()), ..Control::default() };
        assert_eq!(control.pause_of("gl.tax", "sums"), Some(&all[0]));
        assert_eq!(control.pause_of("post", "mail"), Some(&all[1]));
        assert_eq!(control.pause_of("mail", "gl.tax"), None, "a queue is no ability");
        assert_eq!(Control::default().pause_of("gl.tax", "mail"), None);
    }
}
