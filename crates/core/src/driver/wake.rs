use std::time::Duration;

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
    /// Nothing happened for a while; a chance to stop.
    Tick,
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
}
