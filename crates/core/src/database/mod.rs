//! One database of a manager: its driver, the lines of calls to it, and what this process knows of it.

pub(crate) mod asked;
pub(crate) mod attempt;
pub(crate) mod calls;
pub(crate) mod data_source;
pub(crate) mod everywhere;
pub(crate) mod health;
pub(crate) mod home;
pub(crate) mod identities;
pub(crate) mod inserter;
pub(crate) mod interim;
pub(crate) mod open;
pub(crate) mod orders;
mod report;
pub(crate) mod schema;
pub(crate) mod set;
pub(crate) mod transfer;
pub(crate) mod watch;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::driver::{
    Control, Deadline, Driver, DriverError, Due, Inserted, JobRecord, Name, Order,
};
use crate::error::Error;
use crate::tools::bell::Bell;
use crate::tools::causes::with_causes;
use crate::tools::guard::{guard, say};
use crate::tools::random::jitter;
use crate::tools::sync::{Mutex, RwLock};
use crate::tools::threads::{sleep, spawn};
use crate::tools::time::{Instant, utc_now};
use asked::Asked;
use attempt::{Attempt, DRAINING, REPEAT_AFTER, Tried, is_lost};
use calls::{Calls, Late, MAX_HELPERS};
use health::{Blame, FIRST_PROBE, FLAP, Health};
use identities::{Identities, Member};
use inserter::Inserter;
use orders::{Look, Orders};
pub use report::DatabaseReport;
use watch::Watch;

/// A database that has not answered a call for so long is passed over while another will do.
const SLOW: Duration = Duration::from_millis(500);

/// A probe that finds out whether a call was slow or its database hangs ends after so long.
const SUSPICION: Duration = Duration::from_secs(5);

/// Listings at once; a driver has connections for these, for the inserts, and for the loops of a lane.
const MAX_LISTINGS: usize = 2;

/// Looks for the ends of jobs at once.
const MAX_TICKETS: usize = 2;

/// The orders, in the background; a second while the first one's end is not known yet.
const MAX_QUESTIONS: usize = 2;

/// One database of a manager.
pub(crate) struct Database {
    pub(crate) name: Arc<str>,
    /// The place of its name among the others: the earlier of two names for one database stays.
    pub(crate) order: u64,
    driver: Arc<dyn Driver>,
    pub(crate) health: Health,
    pub(crate) orders: Orders,
    /// Heartbeats of this process, by which a silence is told from an outage.
    pub(crate) watch: Mutex<Watch>,
    /// Rung when local work was enqueued here or the database came back: ends the fetcher's sleep.
    pub(crate) bell: Bell,
    calls: Arc<Calls>,
    /// Apart from the others and fewer than a driver has connections, so that slow listings delay no
    /// heartbeat.
    listings: Calls,
    /// The same for those who wait for the ends of jobs.
    tickets: Calls,
    /// For questions that nobody waits for: one that hangs says nothing of how the others fare.
    questions: Calls,
    /// Apart from all: they may be used up by the very calls whose end a probe is to find out.
    probes: Calls,
    inserter: Inserter,
    /// Sessions that work it, and how often a probe comes at least meanwhile.
    work: Mutex<(usize, Duration)>,
    /// The queues of the session that works it.
    queues: RwLock<Vec<Name>>,
    last_claim: Mutex<Option<DateTime<Utc>>>,
    /// It is out of the set, so nobody asks it any more.
    removed: AtomicBool,
    /// It was said that its tables are newer than this program.
    told_newer: AtomicBool,
    settings: Settings,
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

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.driver.describe())
    }
}

impl Database {
    pub(crate) fn new(name: Arc<str>, driver: Arc<dyn Driver>, settings: Settings) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let calls = Arc::new(Calls::new(&driver, MAX_HELPERS));
        Self {
            name,
            order: NEXT.fetch_add(1, Ordering::Relaxed),
            health: Health::default(),
            orders: Orders::default(),
            watch: Mutex::default(),
            bell: Bell::default(),
            inserter: Inserter::new(&driver, &calls),
            calls,
            listings: Calls::new(&driver, MAX_LISTINGS),
            tickets: Calls::new(&driver, MAX_TICKETS),
            questions: Calls::new(&driver, MAX_QUESTIONS),
            probes: Calls::new(&driver, MAX_HELPERS),
            driver,
            work: Mutex::new((0, Duration::MAX)),
            queues: RwLock::default(),
            last_claim: Mutex::default(),
            removed: AtomicBool::new(false),
            told_newer: AtomicBool::new(false),
            settings,
        }
    }

    /// Whether this is the first call: the log says it once.
    pub(crate) fn is_newer_for_the_first_time(&self) -> bool {
        !self.told_newer.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    /// The longest that a call may take.
    pub(crate) fn limit(&self) -> Duration {
        self.settings.limit
    }

    // Whether it can be used.

    pub(crate) fn is_up(&self) -> bool {
        self.health.is_up()
    }

    /// Whether it is up and no probe is deciding if it hangs. Meanwhile calls that can wait hold back: each would
    /// open another connection, and a server that was stopped collects them in its accept backlog, which is as short
    /// as 80 on `MySQL`. While a backlog is full the kernel drops new connections, for seconds after the server goes on.
    pub(crate) fn is_trusted(&self) -> bool {
        self.health.is_trusted()
    }

    /// Whether it is up but has not answered for a while: it may hang, and others are asked first.
    pub(crate) fn is_slow(&self) -> bool {
        self.health.is_suspect() || self.calls.oldest() > SLOW
    }

    /// Why the database is down, for messages.
    pub(crate) fn reason(&self) -> Option<String> {
        self.health.reason()
    }

    /// Whether only its name is at fault. What was claimed under it is settled all the same: the first
    /// name keeps the leases of this process alive, so nobody else will.
    pub(crate) fn is_second_name(&self) -> bool {
        self.health.is_second_name()
    }

    pub(crate) fn report(&self) -> DatabaseReport {
        let (control, told) = (self.orders.known(), self.health.told());
        DatabaseReport {
            name: self.name.to_string(),
            engine: self.driver.engine(),
            source: self.driver.describe(),
            state: told.state,
            since: told.since,
            reason: told.reason,
            next_probe: told.next_probe,
            last_claim: *self.last_claim.lock(),
            draining: control.draining,
            paused: control.paused,
            depth: None,
        }
    }

    // Calls to it.

    /// Asks the driver within the limit of a call. When the database is down or hangs, that is
    /// noted before the error is returned.
    pub(crate) fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        ask: impl FnOnce(&dyn Driver) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        self.ask_within(self.limit(), ask, Box::new(|_, _| {}))
    }

    /// As [`ask`](Self::ask), with a limit of its own and what to do about an answer after it.
    pub(crate) fn ask_within<T: Send + 'static>(
        self: &Arc<Self>,
        limit: Duration,
        ask: impl FnOnce(&dyn Driver) -> Result<T, DriverError> + Send + 'static,
        late: Late<T>,
    ) -> Result<T, DriverError> {
        let epoch = self.health.epoch();
        let answer = self.calls.begin(ask, late).wait(limit);
        if let Err(error) = &answer {
            self.note_error(error, epoch);
        }
        answer
    }

    /// As [`ask`](Self::ask), for a question that is given up before the limit of a call: that it was not answered
    /// by then says nothing of the database.
    pub(crate) fn ask_shortly<T: Send + 'static>(
        self: &Arc<Self>,
        limit: Duration,
        ask: impl FnOnce(&dyn Driver) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, DriverError> {
        let epoch = self.health.epoch();
        let answer = self.calls.begin(ask, Box::new(|_, _| {})).wait(limit);
        if let Err(error) = &answer
            && !(error.is_hung() && limit < self.limit())
        {
            self.note_error(error, epoch);
        }
        answer
    }

    /// Begins a question whose length depends on what is stored, unless the database is known to
    /// be down: a listing, a count.
    pub(crate) fn begin<T: Send + 'static>(
        self: &Arc<Self>,
        action: &'static str,
        ask: impl FnOnce(&dyn Driver) -> Result<T, DriverError> + Send + 'static,
    ) -> Asked<T> {
        self.begin_in(&self.listings, action, ask)
    }

    /// The same for somebody who waits for a job's end. There may be many, and nobody else is to stand in
    /// their line.
    pub(crate) fn begin_ticket<T: Send + 'static>(
        self: &Arc<Self>,
        action: &'static str,
        ask: impl FnOnce(&dyn Driver) -> Result<T, DriverError> + Send + 'static,
    ) -> Asked<T> {
        self.begin_in(&self.tickets, action, ask)
    }

    fn begin_in<T: Send + 'static>(
        self: &Arc<Self>,
        line: &Calls,
        action: &'static str,
        ask: impl FnOnce(&dyn Driver) -> Result<T, DriverError> + Send + 'static,
    ) -> Asked<T> {
        // Nobody probes one that is removed, so only the question itself can tell; whoever holds a ticket
        // from there still asks.
        let call = match self.reason().filter(|_| !self.is_removed()) {
            Some(reason) => Err(reason),
            None => Ok(line.begin(ask, Box::new(|_, _| {}))),
        };
        let (database, epoch) = (Arc::clone(self), self.health.epoch());
        let note = Box::new(move |error: &DriverError| database.note_error(error, epoch));
        Asked::new(Arc::clone(&self.name), self.limit(), action, call, note)
    }

    /// Asks the driver, unless the database is known to be down.
    pub(crate) fn call<T: Send + 'static>(
        self: &Arc<Self>,
        action: &'static str,
        ask: impl FnOnce(&dyn Driver) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, Error> {
        self.begin(action, ask).wait()
    }

    /// Stores jobs until then, if it may have any: the one door for enqueues.
    ///
    /// An insert whose answer was lost is repeated by id: nothing is stored twice while the job lives,
    /// and it turns most uncertain answers into certain ones. The server may be restarting, so it is
    /// repeated for as long as there is time: stored elsewhere too soon, the job would run twice. A
    /// database that hangs is not asked a second time.
    pub(crate) fn store(self: &Arc<Self>, jobs: &Arc<Vec<JobRecord>>, until: Instant) -> Tried {
        let at_once = |outcome| Tried { outcome, repeated: false };
        if let Some(reason) = self.reason() {
            return at_once(Attempt::Away(reason));
        }
        let left = || until.saturating_duration_since(Instant::now());
        match self.orders_within(left()) {
            Ok(control) if control.draining => {
                return at_once(Attempt::Away(DRAINING.to_owned()));
            }
            Ok(_) => {}
            Err(error) => return at_once(Err(error).into()),
        }
        let epoch = self.health.epoch();
        let mut answer = self.insert(jobs, left());
        let repeated = is_lost(&answer);
        if repeated {
            log::info!("database {:?} broke off an insert; repeating it by id", &*self.name);
        }
        let mut pause = Duration::ZERO;
        // A repetition without the time for an answer would only look like a server that hangs.
        while repeated && is_lost(&answer) && left() > pause + 2 * REPEAT_AFTER {
            sleep(jitter(pause));
            pause = REPEAT_AFTER;
            // Whatever becomes of the repetition, the first attempt may have been committed.
            answer = self.insert(jobs, left()).map_err(|again| again.ambiguous(true));
        }
        if let Err(error) = &answer {
            self.note_error(error, epoch);
        }
        Tried { outcome: answer.into(), repeated }
    }

    /// Stores jobs within a time, sharing the statement with other threads. An error that means the database is
    /// down is noted by the caller, with the epoch before: it may try again where that is safe.
    pub(crate) fn insert(
        &self,
        jobs: &Arc<Vec<JobRecord>>,
        limit: Duration,
    ) -> Result<Vec<Inserted>, DriverError> {
        self.inserter.insert(jobs, limit)
    }

    // Orders, and which database this is.

    /// The orders, asked anew when they are old. Those of a database that is down are the last
    /// that are known.
    pub(crate) fn orders(self: &Arc<Self>) -> Result<Control, DriverError> {
        self.orders_within(self.limit())
    }

    /// As [`orders`](Self::orders), within a time of the caller's. Who enqueues again and again never waits for
    /// them: they are asked for in the background before they are too old.
    pub(crate) fn orders_within(self: &Arc<Self>, limit: Duration) -> Result<Control, DriverError> {
        match self.orders.look() {
            Look::Fresh(control) => return Ok(control),
            Look::Old(control) => {
                if self.is_up()
                    && let Some(number) = self.orders.may_ask()
                {
                    self.refresh_orders(number);
                }
                return Ok(control);
            }
            Look::TooOld(control) if !self.is_up() => return Ok(control),
            Look::TooOld(_) => self.orders.give_up_what_hangs(),
        }
        let begun = Instant::now();
        let asked = self.ask_shortly(limit, |driver| driver.control());
        // A question only: nothing can have been stored by it.
        let control = asked.map_err(|error| error.ambiguous(false))?;
        self.note_control(control, begun)?;
        // Which is no other but where a later question was answered before.
        Ok(self.orders.known())
    }

    /// Asks for the orders on a helper's thread, for which nobody waits. Without an answer it is given up by those
    /// who come when the orders are too old.
    fn refresh_orders(self: &Arc<Self>, number: u64) {
        let (database, epoch) = (Arc::downgrade(self), self.health.epoch());
        let ask = move |driver: &dyn Driver| {
            let (begun, told) = (Instant::now(), driver.control());
            let Some(database) = database.upgrade() else { return Ok(()) };
            let counts = database.orders.asked(number);
            match told {
                // A second name for a known database is said where it is found.
                Ok(control) => drop(database.note_control(control, begun)),
                Err(error) if counts => database.note_error(&error, epoch),
                Err(_) => {}
            }
            Ok(())
        };
        self.orders.keep_asking(number, self.questions.begin(ask, Box::new(|_, _| {})));
    }

    /// Stores an order.
    pub(crate) fn order(self: &Arc<Self>, order: Order, on: bool) -> Result<(), Error> {
        // Were it carried out after its time, it could undo an order that came later.
        let deadline = Deadline::within(self.limit());
        let name = order.name();
        let ordered = move |driver: &dyn Driver| {
            driver.set_control(&order, on, deadline)?;
            // What others read before may be from before the order.
            let begun = Instant::now();
            Ok((driver.control()?, begun))
        };
        if let Some(reason) = self.reason().filter(|_| !self.is_removed()) {
            return Err(Error::DatabaseDown { database: self.name.to_string(), reason });
        }
        let failed = |error| Error::database(&self.name, "store an order", error);
        let (control, begun) = self.ask(ordered).map_err(failed)?;
        self.note_control(control, begun).map_err(failed)?;
        let word = if on { "now" } else { "no longer" };
        log::info!("database {:?} is {word} {name}", &*self.name);
        self.bell.ring();
        Ok(())
    }

    /// The id that the database itself knows, made at the first call: short names may differ
    /// between programs, or change. Asked each time, since a failover may lead to another copy.
    pub(crate) fn identity(self: &Arc<Self>) -> Result<Uuid, Error> {
        self.call("tell its id", |driver| driver.identity())
    }

    /// Notes what the database told of orders and of itself when it was asked at `begun`. An answer that was
    /// overtaken by that to a later question is of no account.
    ///
    /// # Errors
    ///
    /// When it is another of our databases under a second name; it is out of use then.
    pub(crate) fn note_control(
        self: &Arc<Self>,
        control: Control,
        begun: Instant,
    ) -> Result<(), DriverError> {
        let identity = control.identity;
        let before = self.orders.known();
        let has_resumed = before.paused && !control.paused || before.pauses != control.pauses;
        let is_latest = self.orders.note(control, begun);
        if is_latest && has_resumed {
            // Whoever learns of it first: the fetcher may sleep for long.
            self.bell.ring();
        }
        if !is_latest && self.orders.known().identity.is_some() {
            return Ok(());
        }
        let member = Arc::clone(self) as Arc<dyn Member>;
        let Some(identity) = identity else {
            self.settings.identities.forget(&*member);
            return Ok(());
        };
        let noted = self.settings.identities.note(&member, identity);
        noted.inspect_err(|same| self.fall(same, &Blame::SecondName))
    }

    /// Learns which database this is before anything is done to it: under a second name the row of
    /// a worker would be there twice, and the jobs of the one would be given back with the other's end.
    ///
    /// # Errors
    ///
    /// As [`note_control`](Self::note_control), and when it does not answer.
    pub(crate) fn meet(self: &Arc<Self>) -> Result<Control, DriverError> {
        let begun = Instant::now();
        let told = self.ask(|driver| {
            let control = driver.control()?;
            let identity = match control.identity {
                Some(known) => known,
                None => driver.identity()?,
            };
            Ok(Control { identity: Some(identity), ..control })
        })?;
        self.note_control(told.clone(), begun)?;
        Ok(told)
    }

    // Its work, and its end.

    /// A session begins to work it. Until the end probes come at least this often while it is away:
    /// whoever works it must be back before others count its silence.
    pub(crate) fn begin_work(&self, probe_every: Duration, queues: &[Name]) {
        *self.queues.write() = queues.to_vec();
        let mut work = self.work.lock();
        *work = (work.0 + 1, work.1.min(probe_every));
    }

    pub(crate) fn end_work(&self) {
        let mut work = self.work.lock();
        work.0 -= 1;
        if work.0 == 0 {
            work.1 = Duration::MAX;
            self.queues.write().clear();
        }
    }

    fn is_worked(&self) -> bool {
        self.work.lock().0 > 0
    }

    pub(crate) fn note_claim(&self) {
        *self.last_claim.lock() = Some(utc_now());
    }

    /// Wakes the fetcher for new jobs, if this process works the queue of one of them and that job is due
    /// before the fetcher's next look, `delay` from now at most.
    pub(crate) fn ring_for(&self, jobs: &[JobRecord], delay: Duration) {
        let soon = |job: &JobRecord| match job.due {
            Due::Now => true,
            Due::In(after) => after < delay,
            // By the database's clock, which may be another.
            Due::At(at) => {
                at - utc_now() < TimeDelta::from_std(delay * 2).unwrap_or(TimeDelta::MAX)
            }
        };
        let queues = self.queues.read();
        let ours = |job: &JobRecord| queues.iter().any(|queue| **queue == *job.facts.queue);
        if !queues.is_empty() && jobs.iter().any(|job| soon(job) && ours(job)) {
            self.bell.ring();
        }
    }

    /// Takes it out of the set for good.
    pub(crate) fn remove(&self) {
        self.removed.store(true, Ordering::Release);
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    // Out of use, and back.

    /// Takes the database out of use if this error means that, and no probe has found it well
    /// since the call began. A call without an answer is no proof: one statement may wait for the
    /// locks of another while all else is well, so a probe decides.
    pub(crate) fn note_error(self: &Arc<Self>, error: &DriverError, epoch: u64) {
        if !error.marks_down() {
        } else if error.is_hung() {
            self.suspect(error.shared(), epoch);
        } else {
            self.fall(error, &Blame::Call(epoch));
        }
    }

    /// Takes the database out of use and starts a thread that probes it until it is back.
    pub(crate) fn mark_down(self: &Arc<Self>, error: &DriverError) {
        self.fall(error, &Blame::Known);
    }

    fn fall(self: &Arc<Self>, error: &DriverError, blame: &Blame) {
        let reason = with_causes(error);
        let Some(first) = self.health.fall(&reason, blame, self.longest_pause()) else { return };
        // A logger that panics must not keep the probe from being started.
        say(|| log::warn!("database {:?} is down: {reason}", &*self.name));
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
            self.rise(FIRST_PROBE);
        }
    }

    /// `again` is how soon it is to be probed if it fails again at once.
    fn rise(&self, again: Duration) {
        let Some(down_for) = self.health.rise(again) else { return };
        let seconds = down_for.as_secs_f32();
        say(|| log::info!("database {:?} is up again after {seconds:.1} s", &*self.name));
        self.tell();
        self.bell.ring();
    }

    fn tell(&self) {
        let Some(on_change) = &self.settings.on_change else { return };
        let report = self.report();
        if let Err(panic) = guard(|| on_change(&report)) {
            say(|| log::error!("the listener for changes of databases {panic}"));
        }
    }

    /// The longest pause between two probes.
    fn longest_pause(&self) -> Duration {
        self.settings.retry.min(self.work.lock().1)
    }

    /// Whether the database can be used again.
    fn probe(self: &Arc<Self>) -> Result<(), DriverError> {
        let check = |driver: &dyn Driver| {
            driver.probe()?;
            schema::usable(driver)?;
            driver.control()
        };
        let begun = Instant::now();
        match self.calls.begin(check, Box::new(|_, _| {})).wait(self.limit()) {
            Ok(control) => self.note_control(control, begun),
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
    fn suspect(self: &Arc<Self>, hung: DriverError, epoch: u64) {
        if !self.health.suspect(epoch) {
            return;
        }
        let suspicion = Suspicion(Arc::clone(self));
        if let Err(error) = spawn("qudo-suspect", move || suspicion.decide(&hung, epoch)) {
            log::error!("cannot start a thread to probe database {:?}: {error}", &*self.name);
        }
    }
}

impl Member for Database {
    fn name(&self) -> &str {
        &self.name
    }

    fn order(&self) -> u64 {
        self.order
    }

    fn is_removed(&self) -> bool {
        self.is_removed()
    }

    fn mark_second(self: Arc<Self>, same: &DriverError) {
        self.fall(same, &Blame::SecondName);
    }
}

/// Lives while a probe finds out whether the database hangs, also if that panics.
struct Suspicion(Arc<Database>);

impl Suspicion {
    fn decide(self, hung: &DriverError, epoch: u64) {
        let database = &self.0;
        // Not the schema or the orders, which would wait for a connection of the pool.
        let probe = database.probes.begin(|driver| driver.probe(), Box::new(|_, _| {}));
        match probe.wait(database.limit().min(SUSPICION)) {
            Err(error) if error.is_down() => database.fall(hung, &Blame::Call(epoch)),
            _ => {
                log::warn!(
                    "database {:?}: {hung}, but a probe succeeded; keeping it in use",
                    &*database.name
                );
                database.health.acquit();
                // The connection of that call may be broken all the same.
                database.driver.reset();
            }
        }
    }
}

impl Drop for Suspicion {
    fn drop(&mut self) {
        self.0.health.acquit();
        // The fetcher waited for it.
        self.0.bell.ring();
    }
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
        database.health.begin_probe();
        match database.probe() {
            Ok(()) => {
                let again = if first { pause.saturating_mul(2) } else { FIRST_PROBE };
                return database.rise(again);
            }
            Err(error) => {
                first = false;
                pause = jitter(pause * 2).min(database.longest_pause());
                database.health.note_probe(with_causes(&error), pause);
                log::debug!("database {:?} is still down: {error}", &*database.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::driver::{ErrorKind, Part, WorkerId};
    use crate::fixture::{SOON, database, database_with, eventually, memory, records, settings};
    use crate::testing::FaultyDriver;

    fn error(kind: ErrorKind) -> DriverError {
        DriverError::new(kind, "no")
    }

    /// A driver whose inserts are answered so, one after the other, and then as they should be.
    fn answering(mut errors: Vec<DriverError>) -> Arc<dyn Driver> {
        errors.reverse();
        let errors = Mutex::new(errors);
        let driver = FaultyDriver::new(memory()).with_fault(move |call| match call {
            "insert" => errors.lock().pop().map_or(Ok(()), Err),
            _ => Ok(()),
        });
        Arc::new(driver)
    }

    fn store(database: &Arc<Database>) -> Tried {
        database.store(&records(2), Instant::now() + SOON)
    }

    #[test]
    fn jobs_are_stored_once_each() {
        let database = database("one", memory());
        let jobs = records(3);
        let first = database.store(&jobs, Instant::now() + SOON);
        assert!(matches!(first.outcome, Attempt::Stored(all) if all == [Inserted::New; 3]));
        assert!(!first.repeated);
        let again = database.store(&jobs, Instant::now() + SOON);
        assert!(matches!(again.outcome, Attempt::Stored(_)));
        assert_eq!(database.driver().depth(100).expect("answers").ready.count, 3);
    }

    #[test]
    fn an_insert_whose_answer_was_lost_is_repeated_by_id() {
        let lost = error(ErrorKind::Down).ambiguous(true);
        let database = database("one", answering(vec![lost.shared(), lost]));
        let Tried { outcome, repeated } = store(&database);
        assert!(repeated && matches!(outcome, Attempt::Stored(_)));
        assert!(database.is_up(), "the repetition was answered");
    }

    #[test]
    fn what_a_repetition_meets_leaves_it_uncertain_whatever_it_says() {
        let lost = error(ErrorKind::Down).ambiguous(true);
        let database = database("one", answering(vec![lost, error(ErrorKind::Other)]));
        let Tried { outcome, repeated } = store(&database);
        assert!(repeated);
        assert!(matches!(outcome, Attempt::Uncertain(error) if error.kind() == ErrorKind::Other));
    }

    #[test]
    fn without_the_time_for_an_answer_nothing_is_repeated() {
        let lost = error(ErrorKind::Down).ambiguous(true);
        let database = database("one", answering(vec![lost]));
        let tried = database.store(&records(1), Instant::now() + REPEAT_AFTER);
        assert!(matches!(tried.outcome, Attempt::Uncertain(_)));
        assert!(!database.is_up());
    }

    #[test]
    fn a_database_that_is_down_or_drained_is_not_asked() {
        let database = database("one", memory());
        database.order(Order::Draining, true).expect("answers");
        assert!(matches!(store(&database).outcome, Attempt::Away(reason) if reason == DRAINING));
        database.order(Order::Draining, false).expect("answers");
        database.mark_down(&error(ErrorKind::Down));
        assert!(matches!(store(&database).outcome, Attempt::Away(reason) if reason == "no"));
        assert_eq!(database.driver().depth(100).expect("answers").ready.count, 0);
        assert!(database.order(Order::Paused, true).is_err_and(|error| error.is_down()));
    }

    #[test]
    fn orders_are_asked_for_once_and_known_from_then_on() {
        let (told, asked) = mpsc::channel();
        let driver = FaultyDriver::new(memory()).with_fault(move |call| {
            if call == "control" {
                told.send(()).expect("counted");
            }
            Ok(())
        });
        let database = database("one", Arc::new(driver));
        for _ in 0..5 {
            store(&database);
        }
        assert_eq!(asked.try_iter().count(), 1);
    }

    #[test]
    fn whoever_learns_first_that_something_is_resumed_wakes_the_fetcher() {
        let database = database_with("one", memory(), &settings(SOON));
        let part = Part::Queue("gl.*".to_owned());
        let order = Order::PausedPart(part, "why".to_owned());
        let rings = || database.bell.wait(Duration::ZERO);
        for (order, on, wakes) in [
            (order.clone(), true, true),
            (order.clone(), true, true),
            (order, false, true),
            (Order::Paused, true, false),
            (Order::Paused, false, true),
            (Order::Draining, true, false),
        ] {
            rings();
            database.driver().set_control(&order, on, Deadline::NONE).expect("stored");
            // As an enqueue asks for them, when they are old.
            database.orders.age(orders::FRESH_FOR * 2);
            database.orders().expect("answers");
            assert_eq!(rings(), wakes, "{order:?} {on}");
        }
    }

    #[test]
    fn whoever_enqueues_does_not_wait_for_orders_that_get_old() {
        let (gate, opens) = mpsc::channel::<()>();
        let (opens, may_hang) = (Mutex::new(opens), Arc::new(AtomicBool::new(false)));
        let hangs = Arc::clone(&may_hang);
        let driver = FaultyDriver::new(memory()).that_may_block().with_fault(move |call| {
            if call == "control" && hangs.load(Ordering::Acquire) {
                let _ = opens.lock().recv();
            }
            Ok(())
        });
        let database = database("one", Arc::new(driver));
        assert!(matches!(store(&database).outcome, Attempt::Stored(_)));
        may_hang.store(true, Ordering::Release);
        database.driver().set_control(&Order::Draining, true, Deadline::NONE).expect("stored");
        database.orders.age(orders::FRESH_FOR * 11 / 20);
        for _ in 0..3 {
            assert!(matches!(store(&database).outcome, Attempt::Stored(_)), "as it was known");
        }
        eventually("it does not look slow for it", || database.calls.oldest().is_zero());
        may_hang.store(false, Ordering::Release);
        drop(gate);
        eventually("the answer is noted", || database.orders.known().draining);
        assert!(matches!(store(&database).outcome, Attempt::Away(_)));
    }

    #[test]
    fn an_order_of_our_own_is_not_undone_by_an_answer_from_before_it() {
        let database = database("one", memory());
        let before = Instant::now();
        database.order(Order::Draining, true).expect("ordered");
        database.note_control(Control::default(), before).expect("noted");
        assert!(database.orders.known().draining);
    }

    #[test]
    fn a_database_that_is_gone_is_probed_until_it_is_back_and_says_so() {
        let away = Arc::new(AtomicBool::new(true));
        let is_away = Arc::clone(&away);
        let driver = FaultyDriver::new(memory()).with_fault(move |_| {
            if is_away.load(Ordering::Acquire) { Err(error(ErrorKind::Down)) } else { Ok(()) }
        });
        let (tell, told) = mpsc::channel();
        let tell = Mutex::new(tell);
        let on_change: OnChange = Arc::new(move |report: &DatabaseReport| {
            tell.lock().send(report.state.as_str()).expect("listens");
        });
        let settings = Settings { on_change: Some(on_change), ..settings(SOON) };
        let database = database_with("one", Arc::new(driver), &settings);
        assert!(matches!(store(&database).outcome, Attempt::Away(_)));
        assert!(!database.is_up() && database.report().reason.is_some());
        assert!(database.call("count", |driver| driver.count()).is_err());
        away.store(false, Ordering::Release);
        eventually("it is back", || database.is_up());
        eventually("the fetcher is woken", || database.bell.wait(Duration::ZERO));
        assert!(matches!(store(&database).outcome, Attempt::Stored(_)));
        assert_eq!(told.try_iter().collect::<Vec<_>>(), ["down", "up"]);
    }

    #[test]
    fn a_dropped_database_is_probed_no_more() {
        let driver = FaultyDriver::new(memory()).with_fault(|_| Err(error(ErrorKind::Down)));
        let database = database("one", Arc::new(driver));
        database.mark_down(&error(ErrorKind::Down));
        let weak = Arc::downgrade(&database);
        drop(database);
        eventually("nobody holds it", || weak.strong_count() == 0);
    }

    /// Calls hang while this is true; probes are answered all the same.
    fn hanging(hangs: &Arc<AtomicBool>, probe: fn() -> Result<(), DriverError>) -> Arc<dyn Driver> {
        let hangs = Arc::clone(hangs);
        let driver = FaultyDriver::new(memory()).that_may_block().with_fault(move |call| {
            if call == "probe" && hangs.load(Ordering::Acquire) {
                return probe();
            }
            while call == "count" && hangs.load(Ordering::Acquire) {
                sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        Arc::new(driver)
    }

    #[test]
    fn a_call_that_is_not_answered_makes_a_suspect_and_a_probe_that_is_acquits() {
        let hangs = Arc::new(AtomicBool::new(true));
        let settings = settings(Duration::from_millis(50));
        let database = database_with("one", hanging(&hangs, || Ok(())), &settings);
        let before = database.health.epoch();
        assert!(database.ask(|driver| driver.count()).is_err_and(|error| error.is_hung()));
        eventually("it is acquitted", || database.is_trusted() && database.health.epoch() > before);
        assert!(database.is_up());
        hangs.store(false, Ordering::Release);
    }

    #[test]
    fn one_whose_probe_fails_too_is_down() {
        let hangs = Arc::new(AtomicBool::new(true));
        let settings = settings(Duration::from_millis(50));
        let driver = hanging(&hangs, || Err(error(ErrorKind::Down)));
        let database = database_with("one", driver, &settings);
        assert!(database.ask(|driver| driver.count()).is_err_and(|error| error.is_hung()));
        eventually("it is down", || !database.is_up());
        hangs.store(false, Ordering::Release);
        eventually("it is back", || database.is_trusted());
    }

    #[test]
    fn a_question_that_was_given_up_early_says_nothing_of_the_database() {
        let hangs = Arc::new(AtomicBool::new(true));
        let database = database("one", hanging(&hangs, || Err(error(ErrorKind::Down))));
        let short = Duration::from_millis(20);
        assert!(database.ask_shortly(short, |driver| driver.count()).is_err());
        let listing = database.begin("count", |driver| driver.count());
        assert!(listing.wait_at_most(short).is_err());
        assert!(database.is_trusted());
        hangs.store(false, Ordering::Release);
    }

    #[test]
    fn a_database_is_slow_while_a_call_waits_for_its_answer_for_long() {
        let hangs = Arc::new(AtomicBool::new(true));
        let database = database("one", hanging(&hangs, || Ok(())));
        let asks = Arc::clone(&database);
        let asks = std::thread::spawn(move || asks.ask(|driver| driver.count()).is_ok());
        eventually("it is slow", || database.is_slow());
        assert!(database.is_trusted());
        hangs.store(false, Ordering::Release);
        assert!(asks.join().expect("no panic"));
        assert!(!database.is_slow());
    }

    #[test]
    fn of_two_names_for_one_database_the_later_is_out_of_use() {
        let (driver, settings) = (memory(), settings(SOON));
        let first = database_with("one", Arc::clone(&driver), &settings);
        let second = database_with("two", driver, &settings);
        // Whichever answers first.
        second.meet().expect("nobody else is known yet");
        first.meet().expect("it has the earlier name");
        assert!(first.is_up() && !second.is_up() && second.is_second_name());
        let same = second.meet().expect_err("it is the same").to_string();
        assert!(same.contains("\"one\" under a second name"), "{same}");
        first.remove();
        second.meet().expect("the other is gone");
    }

    #[test]
    fn the_fetcher_is_woken_for_jobs_of_its_queues_that_are_due_soon() {
        let database = database("one", memory());
        let delay = Duration::from_secs(5);
        let rings = |job: &JobRecord| {
            database.ring_for(std::slice::from_ref(job), delay);
            database.bell.wait(Duration::ZERO)
        };
        let job = crate::fixture::record();
        assert!(!rings(&job), "nobody works here");
        database.begin_work(SOON, &["default".into()]);
        assert!(rings(&job));
        assert!(!rings(&JobRecord {
            facts: crate::driver::JobFacts::new("mail", "other", "json", vec![]),
            ..job.clone()
        }));
        assert!(rings(&JobRecord { due: Due::In(delay / 2), ..job.clone() }));
        assert!(!rings(&JobRecord { due: Due::In(delay), ..job.clone() }));
        let at = |seconds| Due::At(utc_now() + TimeDelta::seconds(seconds));
        assert!(rings(&JobRecord { due: at(8), ..job.clone() }), "its clock may be another");
        assert!(!rings(&JobRecord { due: at(12), ..job.clone() }));
        database.end_work();
        assert!(!rings(&job));
    }

    #[test]
    fn one_that_is_worked_is_probed_before_others_count_its_silence() {
        let database = database("one", memory());
        assert_eq!(database.longest_pause(), Duration::from_secs(30));
        database.begin_work(Duration::from_secs(2), &[]);
        database.begin_work(Duration::from_secs(3), &[]);
        assert_eq!(database.longest_pause(), Duration::from_secs(2));
        database.end_work();
        assert!(database.is_worked());
        database.end_work();
        assert_eq!(database.longest_pause(), Duration::from_secs(30));
    }

    #[test]
    fn a_panic_of_the_driver_is_an_error_of_its_call_alone() {
        let driver = FaultyDriver::new(memory()).with_fault(|call| {
            assert_ne!(call, "remove_worker", "on purpose");
            Ok(())
        });
        let database = database("one", Arc::new(driver));
        let worker = WorkerId::new();
        let failed = database.ask(move |driver| driver.remove_worker(worker));
        assert!(failed.is_err_and(|error| error.to_string().contains("on purpose")));
        assert!(database.ask(|driver| driver.count()).is_ok() && database.is_trusted());
    }
}
