//! A server's clock as seen from here, for writes that carry a deadline by it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use qudo_core::driver::{Deadline, DriverError};

/// What was read of a server's clock is used for 30 s: two clocks drift apart by less than 100 µs a
/// second, so by 3 ms.
const FRESH_FOR: Duration = Duration::from_secs(30);

/// How far a server's clock may be set back, in microseconds, without being read anew.
const SLACK: i64 = 1_000_000;

/// How often one write is tried in all, each time after the first with a clock that was read anew.
const MAX_TRIES: u32 = 3;

/// The pause before such a repetition.
const PAUSE: Duration = Duration::from_millis(5);

/// When a write may be carried out, by the server's clock and by ours.
///
/// A server that was stopped with a statement in its socket executes it when it goes on. Whoever sent
/// it has left by then and stored the job elsewhere, so the statement has to find out by itself that
/// it comes too late. The lower bound finds a clock that was set back meanwhile, by which the
/// deadline would lie in the future again.
///
/// It does not find everything. A clock that is set back by about as long as the server stood still,
/// to within the limit of a call and a second, lets the late write in; so does a virtual machine whose
/// clock stands still with it and is not set right before it goes on. Then the job may run twice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Microseconds since 1970, UTC, by the server's clock.
    pub(crate) from: i64,
    pub(crate) until: i64,
    deadline: Deadline,
}

impl Window {
    /// No limit.
    pub(crate) const OPEN: Self =
        Self { from: i64::MIN, until: i64::MAX, deadline: Deadline::NONE };

    /// Without the server's clock: for an engine that runs in this process.
    pub(crate) const fn local(deadline: Deadline) -> Self {
        Self { deadline, ..Self::OPEN }
    }

    /// Whether there is no limit.
    #[cfg(any(feature = "mysql", feature = "postgres"))]
    pub(crate) fn is_open(&self) -> bool {
        self.deadline == Deadline::NONE
    }

    /// Fails once the deadline is over by our clock.
    pub(crate) fn check(&self) -> diesel::QueryResult<()> {
        if self.deadline.is_over() { Err(TooLate::error()) } else { Ok(()) }
    }
}

/// What our SQL on the servers says when it is called outside of its window.
#[cfg(any(feature = "mysql", feature = "postgres"))]
pub(crate) const LATE: &str = "qudo: too late";

/// A write that was not carried out, because it came too late or because the clock jumped.
#[derive(Debug, thiserror::Error)]
#[error("the write came after its deadline")]
pub(crate) struct TooLate;

impl TooLate {
    pub(crate) fn error() -> diesel::result::Error {
        diesel::result::Error::QueryBuilderError(Box::new(Self))
    }
}

/// The clock of one server.
#[derive(Debug, Default)]
pub(crate) struct ServerClock {
    read: Mutex<Option<(i64, Instant)>>,
    round_trip: Mutex<Option<Duration>>,
}

impl ServerClock {
    /// Calls `write` with the window for this deadline. If the write says that it was outside of it
    /// while there is time left, the clock has jumped: it is read anew, and the write repeated.
    pub(crate) fn within<T>(
        &self,
        deadline: Deadline,
        read: impl Fn() -> Result<i64, DriverError>,
        mut write: impl FnMut(&Window) -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        let Some(at) = deadline.instant() else { return write(&Window::OPEN) };
        let mut tries = 1;
        loop {
            let window = self.window(at, &read)?;
            match write(&window) {
                Err(error)
                    if error.is_too_late() && tries < MAX_TRIES && Instant::now() + PAUSE < at =>
                {
                    tries += 1;
                    std::thread::sleep(PAUSE);
                    self.forget();
                }
                other => return other,
            }
        }
    }

    /// About what it shows, in microseconds since 1970; ours while it was not read.
    pub(crate) fn now(&self) -> i64 {
        let known = *self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        known.map_or_else(
            || micros(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
            |(then, at)| then.saturating_add(micros(at.elapsed())),
        )
    }

    /// The server's clock stood at `read` at the latest when its answer was here. So what is added
    /// for the time until the deadline leads to an instant at which we have not left yet.
    fn window(
        &self,
        deadline: Instant,
        read: impl Fn() -> Result<i64, DriverError>,
    ) -> Result<Window, DriverError> {
        let known = *self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let (then, at) = if let Some(known) = known.filter(|(_, at)| at.elapsed() < FRESH_FOR) {
            known
        } else {
            let begun = Instant::now();
            let fresh = (read()?, Instant::now());
            self.note_round_trip(begun.elapsed());
            *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
            fresh
        };
        let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX / 4);
        let now = then.saturating_add(micros(at.elapsed()));
        let left = micros(deadline.saturating_duration_since(Instant::now()));
        Ok(Window {
            from: now.saturating_sub(SLACK),
            until: now.saturating_add(left),
            deadline: Deadline::at(deadline),
        })
    }

    /// How long the server takes to answer the plainest question: about the shortest of late.
    pub(crate) fn round_trip(&self) -> Duration {
        let known = *self.round_trip.lock().unwrap_or_else(PoisonError::into_inner);
        known.unwrap_or_default()
    }

    fn note_round_trip(&self, took: Duration) {
        let mut known = self.round_trip.lock().unwrap_or_else(PoisonError::into_inner);
        // A busy moment, or the making of a connection, must not count for long.
        let shortest = known.map_or(took, |known| took.min(known + took.saturating_sub(known) / 8));
        *known = Some(shortest);
    }

    fn forget(&self) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::classify::to_driver_error;

    const SOON: Duration = Duration::from_secs(10);

    /// A server whose clock a test can set; what it stores, and when it refuses.
    fn store(clock: &Cell<i64>, window: &Window) -> Result<i64, DriverError> {
        let now = clock.get();
        if (window.from..=window.until).contains(&now) {
            return Ok(now);
        }
        Err(to_driver_error(TooLate::error(), true))
    }

    #[test]
    fn the_window_closes_no_later_than_the_deadline_and_is_open_now() {
        let (server, clock) = (Cell::new(5_000_000_i64), ServerClock::default());
        let deadline = Deadline::within(SOON);
        let stored = clock.within(
            deadline,
            || Ok(server.get()),
            |window| {
                assert!(window.until <= server.get() + 10_000_000);
                store(&server, window)
            },
        );
        assert_eq!(stored.expect("in time"), 5_000_000);
    }

    #[test]
    fn a_clock_that_jumps_either_way_is_read_anew() {
        let (server, clock) = (Cell::new(5_000_000_000_i64), ServerClock::default());
        let write = || {
            let read = || Ok(server.get());
            clock.within(Deadline::within(SOON), read, |window| store(&server, window))
        };
        write().expect("in time");
        for jump in [3_600_000_000, -7_200_000_000] {
            server.set(server.get() + jump);
            assert_eq!(write().expect("read anew"), server.get());
        }
    }

    /// By such a clock the deadline lies in the future again.
    #[test]
    fn what_comes_after_the_deadline_is_refused_by_a_clock_that_was_set_back_meanwhile() {
        let (server, clock) = (Cell::new(7_200_000_000_i64), ServerClock::default());
        let deadline = Deadline::within(Duration::from_millis(1));
        let late = clock.within(
            deadline,
            || Ok(server.get()),
            |window| {
                server.set(server.get() - 3_600_000_000);
                while !deadline.is_over() {}
                store(&server, window)
            },
        );
        assert!(late.expect_err("too late").is_too_late());
    }

    #[test]
    fn what_comes_after_the_deadline_is_refused() {
        let (server, clock) = (Cell::new(5_000_000_i64), ServerClock::default());
        let deadline = Deadline::within(Duration::from_millis(1));
        let late = clock.within(
            deadline,
            || Ok(server.get()),
            |window| {
                // The server was stopped with the statement in its socket.
                server.set(server.get() + 2_000);
                while !deadline.is_over() {}
                store(&server, window)
            },
        );
        assert!(late.expect_err("too late").is_too_late());
    }

    #[test]
    fn without_a_deadline_the_clock_is_not_asked() {
        let read = || panic!("asked");
        let stored = ServerClock::default().within(Deadline::NONE, read, |_| Ok(1));
        assert_eq!(stored.expect("stored"), 1);
    }
}
