//! A local database that takes enqueues while no other can, and forwards them.

use crate::tools::guard::{guard, say};
use crate::tools::random::choice;
use crate::tools::sync::Mutex;
use crate::tools::time::Instant;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use qudo_hooks::JobId;
use uuid::Uuid;

use super::asked::LISTING;
use super::database::Database;
use super::inserter::insert_limit;
use super::moves::Move;
use super::route::Route;
use super::{Inner, Manager};
use crate::driver::{
    Depth, DriverError, ErrorKind, Inserted, JobRecord, JobState, Keep, Place, Traces,
};
use crate::observe::Event;
use crate::tools::bell::Bell;
use crate::tools::random::jitter;
use crate::{Driver, Error};

/// The short name of the spool in tickets, listings and logs.
pub(super) const NAME: &str = "spool";

/// While jobs wait in the spool, the databases are tried this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Another process may have left jobs in the file: it is looked at this often in any case.
const LOOK_ANYWAY: Duration = Duration::from_secs(60);

/// Old trails removed at one look.
const PURGE_AT_MOST: u32 = 1_000;

/// Jobs forwarded in one step.
const BATCH: u32 = 250;

pub(crate) struct Spool {
    pub(super) database: Arc<Database>,
    limit: u64,
    /// Never held over a call: a disk that stalls must not queue up those who enqueue.
    depth: Mutex<Known>,
    bell: Bell,
    looked: Mutex<Instant>,
    /// How long it is known where forwarded jobs went.
    keep_trails: Duration,
    /// Jobs that were not forwarded because their key was taken.
    dropped: AtomicU64,
}

/// What this process knows of the number of jobs that wait here.
#[derive(Default)]
struct Known {
    /// As counted last, with what was stored since; `None` before the file was looked at.
    waiting: Option<u64>,
    /// Room that is taken by inserts under way.
    reserved: u64,
    /// Jobs stored by this process, ever: by it a count is put right that others overtook.
    stored: u64,
    /// Some may have been counted twice.
    inexact: bool,
}

/// What [`Manager::spool`] tells.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SpoolReport {
    /// How many jobs wait to be forwarded.
    pub waiting: u64,
    /// How many it takes at most.
    pub limit: u64,
    /// How many jobs were dropped since the start of this process, because when they were to be
    /// forwarded another job held their unique key.
    pub dropped: u64,
}

impl Spool {
    pub(super) fn new(database: Arc<Database>, limit: u64, keep_trails: Duration) -> Self {
        Self {
            database,
            limit,
            depth: Mutex::default(),
            bell: Bell::default(),
            looked: Mutex::new(Instant::now()),
            keep_trails,
            dropped: AtomicU64::new(0),
        }
    }

    /// Makes the tables at the first use, and counts what an earlier process left. Several at once wait
    /// for each other in the file, not here.
    fn open(&self) -> Result<(), Error> {
        if self.depth.lock().waiting.is_some() {
            return Ok(());
        }
        let limit = self.limit;
        let found = self.database.begin("open the spool", move |driver| {
            driver.migrate()?;
            driver.depth(limit)
        });
        let found = found.wait_at_most(self.database.limit())?;
        self.depth.lock().waiting.get_or_insert(waiting(&found));
        Ok(())
    }

    /// Stores jobs until a database is back.
    fn take(&self, jobs: &Arc<Vec<JobRecord>>) -> Result<Vec<Inserted>, Error> {
        if let Some(reason) = self.database.reason() {
            return Err(Error::DatabaseDown { database: NAME.to_owned(), reason });
        }
        self.open()?;
        let mut room = self.reserve(jobs.len() as u64);
        // Perhaps some were counted twice, or another process forwarded them. But those who are refused
        // must not stand in the line of the forwarder.
        let is_worth_a_look =
            self.depth.lock().inexact || self.looked.lock().elapsed() >= LOOK_EVERY;
        if room.is_none() && is_worth_a_look {
            self.look_within(self.database.limit())?;
            room = self.reserve(jobs.len() as u64);
        }
        let room = room.ok_or(Error::SpoolFull { limit: self.limit })?;
        let limit = insert_limit(self.database.limit(), jobs.len());
        let epoch = self.database.epoch();
        let stored = self.database.insert(jobs, limit);
        let new = match &stored {
            Ok(answers) => answers.iter().filter(|one| **one == Inserted::New).count() as u64,
            // They may be there: the next look tells.
            Err(error) if error.is_ambiguous() => room.0,
            Err(_) => 0,
        };
        self.give_back(&room, new);
        let stored = stored.map_err(|error| {
            self.database.note_error(&error, epoch);
            Error::database(NAME, "store a job", error)
        })?;
        self.bell.ring();
        Ok(stored)
    }

    /// Takes room for so many jobs.
    fn reserve(&self, jobs: u64) -> Option<Room> {
        let mut known = self.depth.lock();
        let taken = known.waiting.unwrap_or_default() + known.reserved;
        if taken + jobs > self.limit {
            return None;
        }
        known.reserved += jobs;
        Some(Room(jobs))
    }

    fn give_back(&self, room: &Room, stored: u64) {
        let mut known = self.depth.lock();
        known.reserved -= room.0;
        known.stored += stored;
        *known.waiting.get_or_insert_default() += stored;
    }

    /// Counts anew, since other processes use the file too, and forgets old trails.
    fn look(&self) -> Result<Depth, Error> {
        self.look_within(self.database.limit().saturating_mul(LISTING))
    }

    fn look_within(&self, time: Duration) -> Result<Depth, Error> {
        self.open()?;
        *self.looked.lock() = Instant::now();
        let (limit, trails) = (self.limit, self.keep_trails);
        let before = self.depth.lock().stored;
        let found = self.database.begin("count jobs", move |driver| {
            driver.purge(&Keep::all(trails), PURGE_AT_MOST)?;
            driver.depth(limit)
        });
        let found = found.wait_at_most(time)?;
        let mut known = self.depth.lock();
        // What was stored meanwhile may be counted twice until the next look, but not be missed.
        known.inexact = known.stored != before || known.reserved > 0;
        known.waiting = Some(waiting(&found) + (known.stored - before));
        Ok(found)
    }

    fn is_time_to_look(&self) -> bool {
        self.looked.lock().elapsed() > LOOK_ANYWAY
    }

    fn is_empty(&self) -> bool {
        self.depth.lock().waiting.is_none_or(|waiting| waiting == 0)
    }
}

/// Room for so many jobs.
struct Room(u64);

fn waiting(depth: &Depth) -> u64 {
    depth.ready.count + depth.scheduled.count + depth.moving.count
}

impl Manager {
    /// The spool, if one is set with [`ManagerBuilder::spool`](crate::ManagerBuilder::spool).
    ///
    /// # Errors
    ///
    /// When its file cannot be read.
    pub fn spool(&self) -> Result<Option<SpoolReport>, Error> {
        let Some(spool) = &self.inner.spool else { return Ok(None) };
        let (waiting, dropped) = (waiting(&spool.look()?), spool.dropped.load(Ordering::Relaxed));
        Ok(Some(SpoolReport { waiting, limit: spool.limit, dropped }))
    }

    pub(super) fn spool_is(&self, name: &str) -> bool {
        self.inner.spool.is_some() && name == NAME
    }

    /// Spools jobs that no database can take now.
    pub(super) fn spool_jobs(
        &self,
        jobs: &Arc<Vec<JobRecord>>,
        route: &Route,
        refused: Error,
    ) -> Result<(Vec<Inserted>, Arc<Database>), Error> {
        let Some(spool) = self.inner.spool.as_ref().filter(|_| route.may_spool) else {
            return Err(refused);
        };
        log::debug!("{} jobs go to the spool: {refused}", jobs.len());
        Ok((spool.take(jobs)?, Arc::clone(&spool.database)))
    }
}

/// Forwards what is in the spool whenever a database can take it. Ends with the manager.
pub(super) fn run(manager: &Weak<Inner>) {
    let mut opened = false;
    loop {
        let Some(inner) = manager.upgrade() else { return };
        let manager = Manager { inner };
        let Some(spool) = manager.inner.spool.clone() else { return };
        let forwarded = guard(|| match forward(&manager, &spool, &mut opened) {
            Ok(()) => {}
            Err(error) if error.is_down() => log::debug!("the spool waits: {error}"),
            Err(error) => log::warn!("the spool cannot forward: {error}"),
        });
        if let Err(panic) = forwarded {
            say(|| log::error!("the spool's loop {}", panic));
        }
        drop(manager);
        // An idle spool is woken by its first job; the pause lets a dropped manager end.
        spool.bell.wait(jitter(LOOK_EVERY));
    }
}

fn forward(manager: &Manager, spool: &Spool, opened: &mut bool) -> Result<(), Error> {
    if std::mem::replace(opened, true) && spool.is_empty() && !spool.is_time_to_look() {
        return Ok(());
    }
    let depth = spool.look()?;
    if waiting(&depth) == 0 || !manager.all().iter().any(|database| database.is_up()) {
        return Ok(());
    }
    let usable = usable(manager);
    let mut trouble = None;
    if depth.moving.count > 0 {
        // An earlier forward was broken off; where it went is not told by the job alone.
        for database in usable.iter().filter(|database| database.is_up()) {
            let resumed = Move::new(manager, &spool.database, database)
                .and_then(|resumed| resumed.run_these(&[]));
            trouble = resumed.err().or(trouble);
        }
    }
    let mut after = JobId::from_uuid(Uuid::nil());
    loop {
        // Without the arguments, which may be large.
        let from = after;
        let page = spool.database.call("list jobs", move |driver| driver.traces(from, BATCH))?;
        let Some(last) = page.last() else { break };
        after = last.id;
        let mut groups: HashMap<Arc<str>, (Arc<Database>, Vec<JobId>)> = HashMap::new();
        let waits = |job: &&Traces| {
            job.places.iter().any(|place| matches!(place, Place::Ready | Place::Scheduled))
        };
        for job in page.iter().filter(waits) {
            let key =
                job.facts.as_ref().and_then(|(ability, key)| Some((&**ability, &**key.as_ref()?)));
            let step = match target(manager, &usable, job.id, key) {
                Ok(Target::Wait) => Ok(()),
                Ok(Target::There(database)) => join(manager, spool, &database, job.id).map(drop),
                Ok(Target::Taken) => drop_job(manager, spool, job.id).map(drop),
                Ok(Target::To(target)) => {
                    let group = groups.entry(Arc::clone(&target.name));
                    group.or_insert_with(|| (target, Vec::new())).1.push(job.id);
                    Ok(())
                }
                Err(error) => Err(error),
            };
            // The trouble of one database is not that of the jobs for the others.
            trouble = step.err().or(trouble);
        }
        for (target, ids) in groups.into_values() {
            trouble = forward_to(manager, spool, &target, &ids).err().or(trouble);
        }
    }
    spool.look()?;
    trouble.map_or(Ok(()), Err)
}

/// The databases whose orders are known, as far as they are up; one that cannot tell them, because its
/// tables are missing or the account may not read them, takes no job now.
fn usable(manager: &Manager) -> Vec<Arc<Database>> {
    let tells = |database: &&Arc<Database>| match database.control() {
        Err(error) if !error.is_down() => {
            log::debug!("the spool passes over database {:?}: {error}", &*database.name);
            false
        }
        _ => true,
    };
    manager.all().iter().filter(tells).cloned().collect()
}

/// What is to happen with a spooled job now.
enum Target {
    To(Arc<Database>),
    Wait,
    /// Another job holds its key.
    Taken,
    /// It holds its key itself, in a database that is not the key's home any more.
    There(Arc<Database>),
}

/// Where a spooled job goes now: the home of its key, once the former homes say that they do not
/// hold it; without a key any database that is up.
fn target(
    manager: &Manager,
    usable: &[Arc<Database>],
    id: JobId,
    key: Option<(&str, &str)>,
) -> Result<Target, Error> {
    let Some((ability, key)) = key else {
        let open = usable.iter().filter(|one| one.is_up() && !one.controls.known().draining);
        let chosen = choice(open.collect::<Vec<_>>());
        return Ok(chosen.map_or(Target::Wait, |one| Target::To(Arc::clone(one))));
    };
    for former in manager.former_homes(ability, key) {
        if !usable.iter().any(|one| Arc::ptr_eq(one, &former)) {
            return Ok(Target::Wait);
        }
        let (ability, key) = (ability.to_owned(), key.to_owned());
        match former.call("look up a unique key", move |driver| driver.holder(&ability, &key)) {
            Ok(None) => {}
            Ok(Some(holder)) if holder == id => return Ok(Target::There(former)),
            Ok(Some(_)) => return Ok(Target::Taken),
            Err(error) if error.is_down() => return Ok(Target::Wait),
            Err(error) => return Err(error),
        }
    }
    let known = |home: &Arc<Database>| usable.iter().any(|one| Arc::ptr_eq(one, home));
    let home = manager.home_of(ability, key).filter(|home| home.is_up() && known(home));
    Ok(home.map_or(Target::Wait, Target::To))
}

fn drop_job(manager: &Manager, spool: &Spool, id: JobId) -> Result<usize, Error> {
    log::warn!("job {id} of the spool is dropped: another job holds its unique key");
    if !spool.database.call("drop a job", move |driver| driver.dequeue(id))? {
        return Ok(0);
    }
    spool.dropped.fetch_add(1, Ordering::Relaxed);
    manager.tell(|| Event::Dropped { job: id });
    Ok(1)
}

/// A job of the spool that is in a database too. Either a forward was broken off there: what it brought is
/// cancelled, and the job goes on from here. Or an enqueue whose answer was lost stored it: then it
/// lives there, and here it ends.
fn join(
    manager: &Manager,
    spool: &Spool,
    database: &Arc<Database>,
    id: JobId,
) -> Result<usize, Error> {
    Move::new(manager, &spool.database, database)?.run_these(&[])?;
    let state = database.call("look up a job", move |driver| driver.state(id))?;
    if state.is_none_or(|state| state == JobState::Moving) {
        return Ok(0);
    }
    log::info!("job {id} of the spool is in database {:?} already", &*database.name);
    let gone = spool.database.call("drop a job", move |driver| driver.dequeue(id))?;
    Ok(usize::from(gone))
}

/// Forwards these jobs; tells how many are gone from the spool.
fn forward_to(
    manager: &Manager,
    spool: &Spool,
    target: &Arc<Database>,
    ids: &[JobId],
) -> Result<usize, Error> {
    let (moved, taken) = Move::new(manager, &spool.database, target)?.run_these(ids)?;
    if moved > 0 {
        log::info!("{moved} jobs forwarded from the spool to database {:?}", &*target.name);
        target.bell.ring();
    }
    let mut gone = moved;
    // Those that may not go there any more wait for the next look.
    for id in taken {
        gone += drop_job(manager, spool, id)?;
    }
    Ok(gone)
}

/// For the builder's check: a spool that is a server would be down with the others.
pub(super) fn check_engine(driver: &dyn Driver) -> Result<(), DriverError> {
    match driver.engine() {
        "sqlite" | "memory" => Ok(()),
        other => Err(DriverError::new(
            ErrorKind::Other,
            format!("a spool must be local, such as sqlite:spool.db, not {other}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewJob;
    use crate::driver::Deadline;

    #[test]
    fn a_job_whose_home_changed_on_its_way_stays_in_the_spool() {
        let builder = Manager::builder().linked(false);
        let builder = builder.database_as("one", "memory:spool-one");
        let builder = builder.database_as("two", "memory:spool-two");
        let manager = builder.spool("memory:spool-spool", 10).build().expect("valid");
        let spool = manager.inner.spool.clone().expect("set");
        let job = || NewJob::named("anything", 1.into()).uniqkey("k");
        let home = manager.home(&job()).expect("known").expect("fixed");
        let record = manager.prepare_record(job()).expect("valid").expect("not suppressed");
        // Not through the front door, which would wake the thread that forwards.
        spool
            .database
            .driver()
            .insert(std::slice::from_ref(&record), Deadline::NONE)
            .expect("stored");
        let away = manager.find(if home == "one" { "two" } else { "one" }).expect("known");
        assert_eq!(forward_to(&manager, &spool, &away, &[record.id]).expect("answers"), 0);
        assert_eq!(spool.dropped.load(Ordering::Relaxed), 0);
        forward(&manager, &spool, &mut false).expect("forwards");
        let (at, _) = manager.lookup(record.id).expect("answers").expect("is not lost");
        assert_eq!(at, home);
    }
}
