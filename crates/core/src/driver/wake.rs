use std::time::Duration;

use qudo_hooks::JobId;

use super::{AbilityLease, DriverError};

/// How a driver learns of work that another process enqueued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WakeSource {
    /// [`Wakes::listen`] blocks until the database sends a notification.
    Listen,
    /// [`Wakes::changed`] is polled: rarely after a long idle time, but never with a longer pause
    /// than this.
    Poll {
        /// The longest pause between two questions; `None` leaves it to the manager's `delay`.
        at_most: Option<Duration>,
    },
}

/// What [`Wakes::listen`] reports.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wake {
    /// The connection is up: jobs that were enqueued before must be looked for.
    Connected,
    /// Something was enqueued to this queue.
    Queue(String),
    /// An order was stored: to pause something, to cancel a job.
    Orders,
    /// Somebody [asks for news](Wakes::ask_for_news) of jobs.
    Asked,
    /// Nothing happened for a while; a chance to stop.
    Tick,
}

/// What [`Wakes::listen_for_news`] reports.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heard {
    /// The connection is up, and whoever runs jobs can be [asked](Wakes::ask_for_news).
    Connected,
    /// A process that runs jobs began to listen, and was not asked yet.
    Worker,
    /// These jobs may have ended.
    Ended(Vec<JobId>),
    /// These jobs told something while they run.
    Told(Vec<JobId>),
    /// Nothing happened for a while; a chance to stop.
    Tick,
}

/// News of jobs, of which a process tells others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tidings<'a> {
    /// This process begins to listen to those who ask.
    Worker,
    /// These jobs ended.
    Ended(&'a [JobId]),
    /// These jobs told something while they run.
    Told(&'a [JobId]),
}

/// How work of other processes is noticed.
///
/// # Errors
///
/// When the database does not answer.
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Wakes {
    /// How work of other processes is noticed.
    fn wake_source(&self) -> WakeSource;

    /// Whether these queues may have work for these abilities since the last call; cheap, for
    /// [`WakeSource::Poll`].
    fn changed(&self, queues: &[&str], abilities: &[AbilityLease]) -> Result<bool, DriverError>;

    /// Blocks and reports wake-ups until `on_wake` returns `false` or the connection breaks,
    /// for [`WakeSource::Listen`]. Other drivers return immediately.
    ///
    /// # Errors
    ///
    /// When the connection cannot be made or breaks; the caller calls again.
    fn listen(&self, on_wake: &mut dyn FnMut(Wake) -> bool) -> Result<(), DriverError> {
        let _ = on_wake;
        Ok(())
    }

    /// Whether news of jobs can be heard here: else whoever waits for a job asks for it now and then.
    fn hears_news(&self) -> bool {
        false
    }

    /// Blocks and reports news of jobs that other processes run, until `on_news` returns `false` or the connection breaks. Those
    /// processes tell of them only for a minute after they were [asked](Self::ask_for_news). News may be lost. By default it returns immediately.
    ///
    /// # Errors
    ///
    /// When the connection cannot be made or breaks; the caller calls again.
    fn listen_for_news(&self, on_news: &mut dyn FnMut(Heard) -> bool) -> Result<(), DriverError> {
        let _ = on_news;
        Ok(())
    }

    /// Asks all processes that run jobs of this database to [tell](Self::tell_news) of them for a minute. Does not wait for the database. By
    /// default nobody is asked.
    fn ask_for_news(&self) {}

    /// Waits, for this long at most, until what was told and asked is sent: the program may end. By default nothing is.
    fn say_last(&self, _: Duration) {}

    /// Tells those who listen. Does not wait for the database, and may be lost. By default nobody is told.
    fn tell_news(&self, tidings: Tidings<'_>) {
        let _ = tidings;
    }
}
