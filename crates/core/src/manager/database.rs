use crate::tools::guard::guard;
use crate::tools::sync::{Mutex, RwLock};
use crate::tools::threads::sleep;
use crate::tools::threads::spawn;
use crate::tools::time::Instant;
use crate::tools::time::utc_now;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::calls::{Calls, Late, MOST_HELPERS};
use super::control::Controls;
use super::identities::Identities;
use super::inserter::Inserter;
use super::watch::Watch;
use crate::driver::{Control, Depth, DriverError, Due, ErrorKind, JobRecord, SchemaState};
use crate::tools::bell::Bell;
use crate::tools::causes::with_causes;
use crate::tools::random::jitter;
use crate::{Driver, Error};
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

/// The first probe of a dead database comes this soon; each failure doubles the pause up to
/// `retry_seconds`. A server that merely restarts is back within a second.
const FIRST_PROBE: Duration = Duration::from_millis(250);

/// A database that fails again within this time after its first probe found it well is probed later: what
/// ails it does not show in a probe, and it would go down and up four times a second.
const FLAP: Duration = Duration::from_secs(10);

/// A database that owes an answer for so long is passed over while another will do.
const SLOW: Duration = Duration::from_millis(500);

/// A probe that finds out whether a call was slow or its database hangs ends after so long.
const SUSPICION: Duration = Duration::from_secs(5);

/// Listings at once; a driver has connections for these, for the inserts below, and for the loops of a
/// lane.
const MOST_LISTINGS: usize = 2;

/// Looks for the ends of jobs at once.
const MOST_TICKETS: usize = 2;

/// Inserts at once that may take long.
const MOST_INSERTS: usize = 3;

/// One database of a manager: its driver and whether it can be used now.
pub(crate) struct Database {
    pub(crate) name: Arc<str>,
    pub(super) driver: Arc<dyn Driver>,
    pub(super) calls: Calls,
    /// Apart from the others and fewer than a driver has connections, so that slow listings delay no
    /// heartbeat.
    pub(super) listings: Calls,
    /// The same for those who wait for the ends of jobs.
    pub(super) tickets: Calls,
    /// The same for inserts that may take long: large ones, and those that wait for somebody's key.
    pub(super) inserts: Calls,
    /// Apart from both: they may be used up by the very calls whose end a probe is to find out.
    probes: Calls,
    pub(super) inserter: Inserter,
    pub(super) controls: Controls,
    state: Mutex<State>,
    /// A call was not answered in time, and a probe is on its way to find out why.
    pub(super) suspected: AtomicBool,
    /// Grows whenever a probe finds the database well: what an older call says of it is out of date.
    epoch: AtomicU64,
    /// The place of its name among the others: the earlier of two names for one database stays.
    pub(super) order: u64,
    /// Heartbeats of this process, by which a silence is told from an outage.
    pub(super) watch: Mutex<Watch>,
    /// Sessions that work it, and how often a probe comes at least meanwhile.
    work: Mutex<(usize, Duration)>,
    /// The queues of the session that works it.
    queues: RwLock<Vec<Arc<str>>>,
    /// It is out of the set, so nobody asks it any more.
    removed: AtomicBool,
    /// It is out of use because another name leads to it too.
    second_name: AtomicBool,
    settings: Settings,
    /// Rung when local work was enqueued here or the database came back: ends the fetcher's sleep.
    pub(crate) bell: Bell,
}

/// What databases of one manager have in common.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The longest pause between two probes.
    pub(crate) retry: Duration,
    /// The longest that a call may take.
    pub(crate) limit: Duration,
    /// Told of every change of state.
    pub(crate) on_change: Option<OnChange>,
    /// What the databases say of themselves.
    pub(crate) identities: Arc<Identities>,
}

pub(crate) type OnChange = Arc<dyn Fn(&DatabaseReport) + Send + Sync>;

struct State {
    now: DatabaseState,
    since: DateTime<Utc>,
    reason: Option<String>,
    next_probe: Option<Instant>,
    last_claim: Option<DateTime<Utc>>,
    /// When it came up, and how soon it is probed first if it fails again at once.
    came_up: Option<(Instant, Duration)>,
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
    /// Whether new jobs go elsewhere; see [`Manager::drain`](crate::Manager::drain).
    pub draining: bool,
    /// Whether its jobs are left waiting; see [`Manager::pause`](crate::Manager::pause).
    pub paused: bool,
    /// How many jobs it holds; `None` when it did not say, and in reports of a change.
    pub depth: Option<Depth>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.driver.describe())
    }
}

impl Database {
    pub(super) fn new(name: Arc<str>, driver: Arc<dyn Driver>, settings: Settings) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let state = State {
            now: DatabaseState::Up,
            since: utc_now(),
            reason: None,
            next_probe: None,
            last_claim: None,
            came_up: None,
        };
        Self {
            name,
            calls: Calls::new(&driver, MOST_HELPERS),
            listings: Calls::new(&driver, MOST_LISTINGS),
            tickets: Calls::new(&driver, MOST_TICKETS),
            inserts: Calls::new(&driver, MOST_INSERTS),
            probes: Calls::new(&driver, MOST_HELPERS),
            driver,
            inserter: Inserter::default(),
            controls: Controls::default(),
            state: Mutex::new(state),
            suspected: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            order: NEXT.fetch_add(1, Ordering::Relaxed),
            watch: Mutex::default(),
            work: Mutex::new((0, Duration::MAX)),
            queues: RwLock::default(),
            removed: AtomicBool::new(false),
            second_name: AtomicBool::new(false),
            settings,
            bell: Bell::default(),
        }
    }

    pub(crate) fn driver(&self) -> &dyn Driver {
        self.driver.as_ref()
    }

    pub(crate) fn limit(&self) -> Duration {
        self.settings.limit
    }

    pub(crate) fn is_up(&self) -> bool {
        self.state.lock().now == DatabaseState::Up
    }

    /// Whether it is up and no probe is finding out if it hangs. What can wait waits meanwhile: each
    /// call would need another connection, and a server that was stopped is left with all of them in
    /// its queue of those to be accepted, which is as short as 80 on `MySQL`. Once that is full the
    /// kernel lets nobody in for seconds after the server goes on.
    pub(super) fn is_trusted(&self) -> bool {
        self.is_up() && !self.suspected.load(Ordering::Acquire)
    }

    /// Whether it is up but owes an answer: it may hang, and others are asked first.
    pub(super) fn is_slow(&self) -> bool {
        self.suspected.load(Ordering::Acquire) || self.calls.oldest() > SLOW
    }

    /// Why the database is down, for messages.
    pub(crate) fn reason(&self) -> Option<String> {
        let state = self.state.lock();
        (state.now != DatabaseState::Up).then(|| state.reason.clone().unwrap_or_default())
    }

    pub(crate) fn note_claim(&self) {
        self.state.lock().last_claim = Some(utc_now());
    }

    pub(super) fn report(&self) -> DatabaseReport {
        let control = self.controls.known();
        let state = self.state.lock();
        DatabaseReport {
            name: self.name.to_string(),
            engine: self.driver.engine(),
            source: self.driver.describe(),
            state: state.now,
            since: state.since,
            reason: state.reason.clone(),
            next_probe: state.next_probe.map(|at| at.saturating_duration_since(Instant::now())),
            last_claim: state.last_claim,
            draining: control.draining,
            paused: control.paused,
            depth: None,
        }
    }

    /// Asks the driver within the limit of a call. When the database is down or hangs, that is
    /// noted before the error is returned.
    pub(crate) fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        ask: impl FnOnce(&dyn Driver) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        self.ask_within(self.limit(), ask, Box::new(|_, _| {}))
    }

    /// As [`ask`](Self::ask), with a limit of its own and what to do about an answer after it.
    pub(super) fn ask_within<T: Send + 'static>(
        self: &Arc<Self>,
        limit: Duration,
        ask: impl FnOnce(&dyn Driver) -> Result<T, DriverError> + Send + 'static,
        late: Late<T>,
    ) -> Result<T, DriverError> {
        let epoch = self.epoch();
        let answer = self.calls.begin(ask, late).wait(limit);
        if let Err(error) = &answer {
            self.note_error(error, epoch);
        }
        answer
    }

    /// For [`note_error`](Self::note_error): taken before a call begins.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Takes the database out of use if this error means that, and no probe has found it well
    /// since the call began. A call without an answer is no proof: one statement may wait for the
    /// locks of another while all else is well, so a probe decides.
    pub(super) fn note_error(self: &Arc<Self>, error: &DriverError, epoch: u64) {
        if !error.marks_down() || self.epoch() != epoch {
        } else if error.is_hung() {
            self.suspect(error.shared());
        } else {
            self.mark_down(error);
        }
    }

    /// The id that the database itself knows, made at the first call: short names may differ
    /// between programs, or change. Asked each time, since a failover may lead to another copy.
    pub(super) fn identity(self: &Arc<Self>) -> Result<Uuid, Error> {
        self.call("tell its id", |driver| driver.identity())
    }

    /// Notes what the database tells of orders and of itself.
    ///
    /// # Errors
    ///
    /// When it is another of the databases under a second name; it is out of use then.
    pub(super) fn note_control(self: &Arc<Self>, control: Control) -> Result<(), DriverError> {
        self.controls.note(control);
        let Some(identity) = control.identity else {
            self.settings.identities.forget(self);
            return Ok(());
        };
        self.settings.identities.note(self, identity).inspect_err(|same| self.mark_second(same))
    }

    /// Learns which database this is before anything is done to it: under a second name the row of
    /// a worker would be there twice, and the jobs of the one would be given back with the other's end.
    ///
    /// # Errors
    ///
    /// As [`note_control`](Self::note_control), and when it does not answer.
    pub(super) fn meet(self: &Arc<Self>) -> Result<Control, DriverError> {
        let told = self.ask(|driver| {
            let control = driver.control()?;
            let identity = match control.identity {
                Some(known) => known,
                None => driver.identity()?,
            };
            Ok(Control { identity: Some(identity), ..control })
        })?;
        self.note_control(told)?;
        Ok(told)
    }

    /// Takes it out of use, because another name leads to it too.
    pub(super) fn mark_second(self: &Arc<Self>, same: &DriverError) {
        self.second_name.store(true, Ordering::Release);
        self.mark_down(same);
    }

    /// Whether only its name is at fault. What was claimed under it is settled all the same: the first
    /// name keeps the leases of this process alive, so nobody else will.
    pub(super) fn is_second_name(&self) -> bool {
        self.second_name.load(Ordering::Acquire)
    }

    /// Takes it out of the set for good.
    pub(super) fn remove(&self) {
        self.removed.store(true, Ordering::Release);
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// A session begins to work it. Until the end probes come at least this often while it is away:
    /// whoever works it must be back before others count its silence.
    pub(super) fn begin_work(&self, probe_every: Duration, queues: &[Arc<str>]) {
        *self.queues.write() = queues.to_vec();
        let mut work = self.work.lock();
        *work = (work.0 + 1, work.1.min(probe_every));
    }

    pub(super) fn end_work(&self) {
        let mut work = self.work.lock();
        work.0 -= 1;
        if work.0 == 0 {
            work.1 = Duration::MAX;
            self.queues.write().clear();
        }
    }

    /// Wakes the fetcher for new jobs, if this process works the queue of one of them and that job is due
    /// before the fetcher's next look, `delay` from now at most.
    pub(super) fn ring_for(&self, jobs: &[JobRecord], delay: Duration) {
        let soon = |job: &JobRecord| match job.due {
            Due::Now => true,
            Due::In(after) => after < delay,
            // By the database's clock, which may be another.
            Due::At(at) => {
                at - utc_now() < TimeDelta::from_std(delay * 2).unwrap_or(TimeDelta::MAX)
            }
        };
        let queues = self.queues.read();
        let ours = |job: &JobRecord| queues.iter().any(|queue| **queue == *job.queue);
        if !queues.is_empty() && jobs.iter().any(|job| soon(job) && ours(job)) {
            self.bell.ring();
        }
    }

    fn is_worked(&self) -> bool {
        self.work.lock().0 > 0
    }

    /// The longest pause between two probes.
    fn longest_pause(&self) -> Duration {
        self.settings.retry.min(self.work.lock().1)
    }

    /// Takes the database out of use and starts a thread that probes it until it is back.
    pub(crate) fn mark_down(self: &Arc<Self>, error: &DriverError) {
        let reason = with_causes(error);
        let mut state = self.state.lock();
        if state.now != DatabaseState::Up {
            return;
        }
        log::warn!("database {:?} is down: {reason}", &*self.name);
        state.now = DatabaseState::Down;
        state.since = utc_now();
        state.reason = Some(reason);
        let flapped = state.came_up.filter(|(at, _)| at.elapsed() < FLAP);
        let first = flapped.map_or(FIRST_PROBE, |(_, first)| first);
        let first = jitter(first).min(self.longest_pause());
        state.next_probe = Some(Instant::now() + first);
        drop(state);
        if error.is_hung() {
            // The connections under way are lost with the threads that wait at them.
            self.driver.reset();
        }
        self.tell();
        let weak = Arc::downgrade(self);
        let spawned = spawn(&format!("qudo-probe-{}", self.name), move || {
            let mut pause = first;
            // Nobody else would ever take it up again.
            while guard(|| probe_until_up(&weak, pause)).is_err() {
                pause = FLAP;
            }
        });
        if let Err(error) = spawned {
            // Without a thread the state would never change again, so better to stay in use:
            // the next call finds out and tries to start the thread anew.
            log::error!("cannot start a thread to probe database {:?}: {error}", &*self.name);
            self.mark_up(FIRST_PROBE);
        }
    }

    /// `again` is how soon it is to be probed if it fails again at once.
    fn mark_up(&self, again: Duration) {
        let mut state = self.state.lock();
        if state.now == DatabaseState::Up {
            return;
        }
        let down_for = (utc_now() - state.since).to_std().unwrap_or_default();
        log::info!("database {:?} is up again after {:.1} s", &*self.name, down_for.as_secs_f32());
        self.second_name.store(false, Ordering::Release);
        state.now = DatabaseState::Up;
        state.since = utc_now();
        state.reason = None;
        state.next_probe = None;
        state.came_up = Some((Instant::now(), again));
        self.epoch.fetch_add(1, Ordering::AcqRel);
        drop(state);
        self.tell();
        self.bell.ring();
    }

    fn tell(&self) {
        let Some(on_change) = &self.settings.on_change else { return };
        let report = self.report();
        if let Err(panic) = guard(|| on_change(&report)) {
            log::error!("the listener for changes of databases {panic}");
        }
    }

    /// Whether the database can be used again.
    fn probe(self: &Arc<Self>) -> Result<(), DriverError> {
        let check = |driver: &dyn Driver| {
            driver.probe()?;
            usable(driver)?;
            driver.control()
        };
        match self.calls.begin(check, Box::new(|_, _| {})).wait(self.limit()) {
            Ok(control) => self.note_control(control),
            Err(error) => {
                if error.is_hung() {
                    self.driver.reset();
                }
                Err(error)
            }
        }
    }

    /// Finds out, on a connection and a thread of its own, whether a call that was given up met a
    /// database that hangs. Until that is known the database is asked last.
    fn suspect(self: &Arc<Self>, hung: DriverError) {
        if self.suspected.swap(true, Ordering::AcqRel) {
            return;
        }
        let suspicion = Suspicion(Arc::clone(self));
        let checked = spawn("qudo-suspect", move || suspicion.decide(&hung));
        if let Err(error) = checked {
            log::error!("cannot start a thread to probe database {:?}: {error}", &*self.name);
        }
    }
}

/// Lives while a probe finds out whether the database hangs, also if that panics.
struct Suspicion(Arc<Database>);

impl Suspicion {
    fn decide(self, hung: &DriverError) {
        let (database, epoch) = (&self.0, self.0.epoch());
        // Not the schema or the orders, which would wait for a connection of the pool.
        let probe = database.probes.begin(|driver| driver.probe(), Box::new(|_, _| {}));
        match probe.wait(database.limit().min(SUSPICION)) {
            Err(error) if error.is_down() => {
                if database.epoch() == epoch {
                    database.mark_down(hung);
                }
            }
            _ => {
                log::warn!("database {:?} is well but slow: {hung}", &*database.name);
                database.epoch.fetch_add(1, Ordering::AcqRel);
                // The connection of that call may be broken all the same.
                database.driver.reset();
            }
        }
    }
}

impl Drop for Suspicion {
    fn drop(&mut self) {
        self.0.suspected.store(false, Ordering::Release);
        // The fetcher waited for it.
        self.0.bell.ring();
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
    let mut first = true;
    loop {
        sleep(pause);
        // One that is removed may still have runs to be settled.
        let goes_on = |one: &Arc<Database>| !one.is_removed() || one.is_worked();
        let Some(database) = database.upgrade().filter(goes_on) else { return };
        database.state.lock().now = DatabaseState::Probing;
        match database.probe() {
            Ok(()) => {
                let again = if first { pause.saturating_mul(2) } else { FIRST_PROBE };
                return database.mark_up(again);
            }
            Err(error) => {
                first = false;
                pause = jitter(pause * 2).min(database.longest_pause());
                let mut state = database.state.lock();
                state.now = DatabaseState::Down;
                state.reason = Some(with_causes(&error));
                state.next_probe = Some(Instant::now() + pause);
                log::debug!("database {:?} is still down: {error}", &*database.name);
            }
        }
    }
}
