use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::bell::{Bell, lock};
use super::jitter;
use crate::driver::{DriverError, ErrorKind, SchemaState};
use crate::error::with_causes;
use crate::{Driver, Error};

/// The first probe of a dead database comes this soon; each failure doubles the pause up to
/// `retry_seconds`. A server that merely restarts is back within a second.
const FIRST_PROBE: Duration = Duration::from_millis(250);

/// One database of a manager: its driver and whether it can be used now.
pub(crate) struct Database {
    pub(crate) name: Arc<str>,
    pub(super) driver: Arc<dyn Driver>,
    state: Mutex<State>,
    retry: Duration,
    /// Rung when local work was enqueued here or the database came back: ends the fetcher's sleep.
    pub(crate) bell: Bell,
}

struct State {
    now: DatabaseState,
    since: DateTime<Utc>,
    reason: Option<String>,
    next_probe: Option<Instant>,
    last_claim: Option<DateTime<Utc>>,
}

/// Whether a database can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatabaseState {
    /// It is used.
    Up,
    /// It is left alone until the next probe.
    Down,
    /// A probe is on its way.
    Probing,
}

impl DatabaseState {
    /// The word for logs and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Probing => "probing",
        }
    }
}

/// What [`Manager::databases`](crate::Manager::databases) tells of one database.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DatabaseReport {
    /// Its short name.
    pub name: String,
    /// Its engine.
    pub engine: &'static str,
    /// Its data source without a password.
    pub source: String,
    /// Whether it can be used.
    pub state: DatabaseState,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Why it is down.
    pub reason: Option<String>,
    /// How long until it is tried again.
    pub next_probe: Option<Duration>,
    /// When this manager last claimed from it without an error.
    pub last_claim: Option<DateTime<Utc>>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.driver.describe())
    }
}

impl Database {
    pub(super) fn new(name: Arc<str>, driver: Arc<dyn Driver>, retry: Duration) -> Self {
        let state = State {
            now: DatabaseState::Up,
            since: Utc::now(),
            reason: None,
            next_probe: None,
            last_claim: None,
        };
        Self { name, driver, state: Mutex::new(state), retry, bell: Bell::default() }
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        self.driver.as_ref()
    }

    pub(crate) fn is_up(&self) -> bool {
        lock(&self.state).now == DatabaseState::Up
    }

    /// Why the database is down, for messages.
    pub(crate) fn reason(&self) -> Option<String> {
        let state = lock(&self.state);
        (state.now != DatabaseState::Up).then(|| state.reason.clone().unwrap_or_default())
    }

    pub(crate) fn note_claim(&self) {
        lock(&self.state).last_claim = Some(Utc::now());
    }

    pub(super) fn report(&self) -> DatabaseReport {
        let state = lock(&self.state);
        DatabaseReport {
            name: self.name.to_string(),
            engine: self.driver.engine(),
            source: self.driver.describe(),
            state: state.now,
            since: state.since,
            reason: state.reason.clone(),
            next_probe: state.next_probe.map(|at| at.saturating_duration_since(Instant::now())),
            last_claim: state.last_claim,
        }
    }

    /// Asks the driver, unless the database is known to be down, and takes note when it is.
    pub(crate) fn call<T>(
        self: &Database,
        action: &'static str,
        ask: impl FnOnce(&dyn Driver) -> Result<T, DriverError>,
    ) -> Result<T, Error> {
        if let Some(reason) = self.reason() {
            return Err(Error::DatabaseDown { database: self.name.to_string(), reason });
        }
        ask(self.driver()).map_err(|error| Error::database(&self.name, action, error))
    }

    /// Takes the database out of use and starts a thread that probes it until it is back.
    pub(crate) fn mark_down(self: &Arc<Self>, error: &(dyn std::error::Error + 'static)) {
        let reason = with_causes(error);
        let mut state = lock(&self.state);
        if state.now != DatabaseState::Up {
            return;
        }
        log::warn!("database {:?} is down: {reason}", &*self.name);
        state.now = DatabaseState::Down;
        state.since = Utc::now();
        state.reason = Some(reason);
        let first = jitter(FIRST_PROBE).min(self.retry);
        state.next_probe = Some(Instant::now() + first);
        drop(state);
        let weak = Arc::downgrade(self);
        let spawned = std::thread::Builder::new()
            .name(format!("qudo-probe-{}", self.name))
            .spawn(move || probe_until_up(&weak, first));
        if let Err(error) = spawned {
            // Without a thread the state would never change again, so better to stay in use:
            // the next call finds out and tries to start the thread anew.
            log::error!("cannot start a thread to probe database {:?}: {error}", &*self.name);
            self.mark_up();
        }
    }

    fn mark_up(&self) {
        let mut state = lock(&self.state);
        if state.now == DatabaseState::Up {
            return;
        }
        let down_for = (Utc::now() - state.since).to_std().unwrap_or_default();
        log::info!("database {:?} is up again after {:.1} s", &*self.name, down_for.as_secs_f32());
        state.now = DatabaseState::Up;
        state.since = Utc::now();
        state.reason = None;
        state.next_probe = None;
        drop(state);
        self.bell.ring();
    }
}

/// A database that is back with a schema we cannot work on is of no more use than a dead one.
fn usable(driver: &dyn Driver) -> Result<(), DriverError> {
    let reason = match driver.schema()? {
        SchemaState::Current => return Ok(()),
        SchemaState::Behind(_) => "its tables are missing or old; run `qudo migrate`",
        SchemaState::Ahead(_) => "its schema is newer than this program",
    };
    Err(DriverError::new(ErrorKind::Schema, reason))
}

/// Lives only while the database is down. Holds no strong reference while it sleeps, so that a
/// dropped manager is not kept alive by a dead database.
fn probe_until_up(database: &Weak<Database>, mut pause: Duration) {
    loop {
        std::thread::sleep(pause);
        let Some(database) = database.upgrade() else {
            return;
        };
        lock(&database.state).now = DatabaseState::Probing;
        match database.driver.probe().and_then(|()| usable(database.driver.as_ref())) {
            Ok(()) => return database.mark_up(),
            Err(error) => {
                pause = jitter(pause * 2).min(database.retry);
                let mut state = lock(&database.state);
                state.now = DatabaseState::Down;
                state.reason = Some(with_causes(&error));
                state.next_probe = Some(Instant::now() + pause);
                log::debug!("database {:?} is still down: {error}", &*database.name);
            }
        }
    }
}
