//! Pools of connections to a server, built lazily and with a hard limit on every wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use diesel::result::Error;
use qudo_core::driver::DriverError;

use crate::classify::{Class, classify, connect_error, is_mismatch, to_driver_error};
use crate::login::{Connect, Logins};

/// How long a checkout waits for a connection, a new one included.
pub(crate) const CHECKOUT_LIMIT: Duration = Duration::from_secs(5);

/// A pool waits in slices so that a refused connection is reported when it is refused.
const SLICE: Duration = Duration::from_millis(50);

/// The manager makes at most four long inserts, two listings and two looks for tickets at once, and its two
/// fetchers, its settler, its heartbeat, its janitor and the short inserts hold one connection each: a heartbeat must
/// not wait for one of the others. Not more, because many processes share a server's connections.
const MAX_CONNECTIONS: u32 = 14;

/// A connection that was not used for this long is closed, where the engine has no limit of its own.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) const IDLE_LIMIT: Duration = Duration::from_secs(300);

/// How often a call is tried again after transient errors; with doubling pauses that is about two seconds.
const MAX_TRIES: u32 = 9;

/// And no longer than this altogether: a lock wait alone may take five seconds, and by the limit of
/// a call its caller has left, so that the connection would only hold locks for nobody.
const RETRY_FOR: Duration = Duration::from_secs(8);

/// A pooled connection that knows whether its server went away.
///
/// diesel's own manager can only find out by asking the server at every checkout, a round trip
/// each; this one notes the error that told us.
pub(crate) struct Pooled<C> {
    pub(crate) conn: C,
    broken: bool,
    /// When it was made, or taken out of the pool for the last time.
    used: Instant,
    generation: u64,
}

/// Makes connections for r2d2.
pub(crate) struct Connector<C> {
    connect: Connect<C>,
    logins: Arc<Logins>,
    last_error: LastError,
    generation: Arc<AtomicU64>,
    given_up: Arc<AtomicBool>,
}

type LastError = Arc<Mutex<Option<(Instant, String)>>>;

#[derive(Debug)]
pub(crate) struct ConnectError(String);

impl std::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConnectError {}

impl<C: Send + 'static> r2d2::ManageConnection for Connector<C> {
    type Connection = Pooled<C>;
    type Error = ConnectError;

    fn connect(&self) -> Result<Pooled<C>, ConnectError> {
        // A pool lives as long as a call that hangs in one of its connections, and r2d2 goes on
        // trying to fill it. Against a server that was stopped that filled the queue of those who
        // wait to be accepted, and when it went on it heard nobody new for two seconds.
        if self.given_up.load(Ordering::Acquire) {
            return Err(ConnectError("the pool was given up".to_owned()));
        }
        let generation = self.generation.load(Ordering::Acquire);
        let pooled = |conn| Pooled { conn, broken: false, used: Instant::now(), generation };
        self.logins.connect(CHECKOUT_LIMIT, &self.connect).map(pooled).map_err(|error| {
            let error = error.into_message();
            let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some((Instant::now(), error.clone()));
            ConnectError(error)
        })
    }

    fn is_valid(&self, _: &mut Pooled<C>) -> Result<(), ConnectError> {
        Ok(())
    }

    fn has_broken(&self, pooled: &mut Pooled<C>) -> bool {
        // A panic may have left a transaction open.
        pooled.broken || std::thread::panicking()
    }
}

/// A pool of one server's connections.
pub(crate) struct Pool<C: Send + 'static> {
    inner: RwLock<Filled<C>>,
    connect: Connect<C>,
    pub(crate) logins: Arc<Logins>,
    /// Grows with each lost connection: those made before are not used again, because after a
    /// server's restart all of them are dead and each would fail one more call.
    generation: Arc<AtomicU64>,
    /// Whether a connection is given up after a transient error; see `MySQL`'s `open`.
    drop_after_retry: bool,
    /// A connection that was not used for this long is closed.
    idle_limit: Duration,
}

/// The connections until the next reset.
struct Filled<C: Send + 'static> {
    pool: r2d2::Pool<Connector<C>>,
    /// Why the last attempt to connect failed. A pool that was given up goes on failing for a
    /// while, which says nothing of its successor.
    last_error: LastError,
    given_up: Arc<AtomicBool>,
}

#[derive(Debug)]
struct LogConnects;

impl r2d2::HandleError<ConnectError> for LogConnects {
    fn handle_error(&self, error: ConnectError) {
        log::debug!("cannot connect: {error}");
    }
}

fn build<C: Send + 'static>(
    connect: &Connect<C>,
    logins: &Arc<Logins>,
    generation: &Arc<AtomicU64>,
    idle_limit: Duration,
) -> Filled<C> {
    let (last_error, given_up) = (LastError::default(), Arc::<AtomicBool>::default());
    let connector = Connector {
        given_up: Arc::clone(&given_up),
        connect: Arc::clone(connect),
        logins: Arc::clone(logins),
        last_error: Arc::clone(&last_error),
        generation: Arc::clone(generation),
    };
    let pool = r2d2::Pool::builder()
        .max_size(MAX_CONNECTIONS)
        .min_idle(Some(0))
        .test_on_check_out(false)
        .connection_timeout(CHECKOUT_LIMIT)
        .idle_timeout(Some(idle_limit))
        .error_handler(Box::new(LogConnects))
        .build_unchecked(connector);
    Filled { pool, last_error, given_up }
}

impl<C: Send + 'static> Pool<C> {
    /// A pool that connects when it must, and closes connections that were not used for this long.
    pub(crate) fn new(
        idle_limit: Duration,
        connect: impl Fn() -> Result<C, String> + Send + Sync + 'static,
    ) -> Self {
        let connect: Connect<C> = Arc::new(connect);
        let generation = Arc::<AtomicU64>::default();
        let logins = Arc::<Logins>::default();
        let inner = RwLock::new(build(&connect, &logins, &generation, idle_limit));
        Self { inner, connect, logins, generation, drop_after_retry: false, idle_limit }
    }

    /// Starts afresh: connections that hang in a call would count as used for ever.
    pub(crate) fn reset(&self) {
        let fresh = build(&self.connect, &self.logins, &self.generation, self.idle_limit);
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let hung = std::mem::replace(&mut *inner, fresh);
        drop(inner);
        hung.given_up.store(true, Ordering::Release);
        drop(hung);
    }

    /// Connects outside the pool.
    #[cfg(any(feature = "postgres", feature = "mysql"))]
    pub(crate) fn connect_alone(&self) -> Result<C, DriverError> {
        let connected = self.logins.connect(CHECKOUT_LIMIT, &self.connect);
        connected.map_err(|error| connect_error(&error.into_message()))
    }

    /// Gives up a connection after each transient error.
    #[cfg(feature = "mysql")]
    pub(crate) fn drop_after_retry(self) -> Self {
        Self { drop_after_retry: true, ..self }
    }

    /// Whether the server has not closed this connection, as far as this process can tell. r2d2 looks every 30 s for connections that are idle for too
    /// long, and a process that was stopped does not look at all.
    fn is_fresh(&self, pooled: &Pooled<C>) -> bool {
        pooled.generation == self.generation.load(Ordering::Acquire)
            && pooled.used.elapsed() < self.idle_limit
    }

    fn get(&self) -> Result<r2d2::PooledConnection<Connector<C>>, DriverError> {
        let begun = Instant::now();
        loop {
            // Anew each time: a pool that is given up meanwhile makes no more connections.
            let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            let (pool, last_error) = (inner.pool.clone(), Arc::clone(&inner.last_error));
            drop(inner);
            let failed = match pool.get_timeout(SLICE) {
                Ok(mut conn) if self.is_fresh(&conn) => {
                    conn.used = Instant::now();
                    return Ok(conn);
                }
                Ok(mut old) => {
                    old.broken = true;
                    continue;
                }
                Err(failed) => failed,
            };
            let last = last_error.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, message)) = &*last
                && *at >= begun
            {
                return Err(connect_error(message));
            }
            if begun.elapsed() > CHECKOUT_LIMIT {
                let error = connect_error("timed out waiting for connection").with_source(failed);
                // All are in use by calls that take long, which says nothing of the server.
                let used_up = pool.state().connections >= MAX_CONNECTIONS;
                return Err(error.congested(used_up));
            }
        }
    }

    /// Runs `act` on a connection; transient errors are tried again with jitter.
    pub(crate) fn with<T>(
        &self,
        writes: bool,
        mut act: impl FnMut(&mut C) -> Result<T, Error>,
    ) -> Result<T, DriverError> {
        let mut tries = 0;
        let mut asked_again = false;
        let begun = Instant::now();
        loop {
            let mut pooled = self.get()?;
            match act(&mut pooled.conn) {
                Ok(value) => return Ok(value),
                Err(error) => match classify(&error) {
                    Class::Retry => {
                        pooled.broken = self.drop_after_retry;
                        drop(pooled);
                        let in_vain = is_mismatch(&error) && tries >= MAX_TRIES;
                        if in_vain || begun.elapsed() >= RETRY_FOR {
                            return Err(to_driver_error(error, writes));
                        }
                        pause(tries);
                        tries += 1;
                    }
                    Class::Slow => {
                        // It may have been ended in the middle of its rows, or of a transaction that
                        // the server opened: neither is left to the next user.
                        pooled.broken = true;
                        return Err(to_driver_error(error, writes));
                    }
                    Class::Down => {
                        pooled.broken = true;
                        self.generation.fetch_add(1, Ordering::AcqRel);
                        drop(pooled);
                        // The connection may have died while it lay in the pool: a read is
                        // simply asked again on a new one.
                        if writes || asked_again {
                            return Err(to_driver_error(error, writes));
                        }
                        asked_again = true;
                    }
                    _ => return Err(to_driver_error(error, writes)),
                },
            }
        }
    }
}

/// Sleeps before try number `tries` + 1: 2 ms doubling, with jitter.
pub(crate) fn pause(tries: u32) {
    let ceiling = 2_u64 << tries.min(9);
    std::thread::sleep(Duration::from_micros(fastrand::u64(ceiling * 500..=ceiling * 1_000)));
}

#[cfg(all(test, feature = "mysql"))]
mod tests {
    use super::*;

    /// Which connections three calls use, with a break after each.
    fn used(idle_limit: Duration, pause: Duration) -> Vec<u64> {
        let made = Arc::<AtomicU64>::default();
        let pool = Pool::new(idle_limit, move || Ok(made.fetch_add(1, Ordering::AcqRel)));
        let call = |_| {
            let number = pool.with(true, |conn| Ok(*conn)).expect("connects");
            std::thread::sleep(pause);
            number
        };
        (0..3).map(call).collect()
    }

    #[test]
    fn a_connection_that_was_idle_for_too_long_is_not_used_again() {
        // A pool that is slow to connect makes a second one meanwhile.
        let all = used(Duration::from_secs(300), Duration::ZERO);
        assert!(
            all.iter().any(|one| all.iter().filter(|other| *other == one).count() > 1),
            "{all:?}"
        );
        let limit = Duration::from_millis(50);
        let all = used(limit, limit);
        assert!(all.is_sorted_by(|one, next| one < next), "{all:?}");
    }
}
