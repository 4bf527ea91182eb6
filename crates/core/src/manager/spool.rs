//! A local database that takes enqueues while no other can, and forwards them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use qudo_hooks::JobId;

use super::bell::{Bell, lock};
use super::database::Database;
use super::moves::Move;
use super::route::{Route, weight};
use super::{Inner, Manager, jitter};
use crate::driver::{Depth, DriverError, ErrorKind, Inserted, JobFilter, JobRecord, JobState};
use crate::observe::Event;
use crate::{Driver, Error};

/// The short name of the spool in tickets, listings and logs.
pub(super) const NAME: &str = "spool";

/// While jobs wait in the spool, the databases are tried this often.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Jobs forwarded in one step.
const BATCH: u32 = 250;

pub(crate) struct Spool {
    pub(super) database: Arc<Database>,
    limit: u64,
    /// Jobs that wait here, as far as this process knows; `None` before the file was looked at.
    /// Held over every insert and count, so that the bound is exact.
    depth: Mutex<Option<u64>>,
    bell: Bell,
    /// Jobs that were not forwarded because their key was taken.
    dropped: AtomicU64,
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
    pub(super) fn new(database: Arc<Database>, limit: u64) -> Self {
        Self {
            database,
            limit,
            depth: Mutex::default(),
            bell: Bell::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Makes the tables at the first use, and counts what an earlier process left.
    fn open(&self, depth: &mut Option<u64>) -> Result<u64, Error> {
        if let Some(depth) = *depth {
            return Ok(depth);
        }
        let limit = self.limit;
        let found = self.database.call("open the spool", move |driver| {
            driver.migrate()?;
            driver.depth(limit)
        })?;
        Ok(*depth.insert(waiting(&found)))
    }

    /// Stores jobs until a database is back.
    fn take(&self, jobs: &Arc<[JobRecord]>) -> Result<Vec<Inserted>, Error> {
        let mut depth = lock(&self.depth);
        if self.open(&mut depth)? + jobs.len() as u64 > self.limit {
            return Err(Error::SpoolFull { limit: self.limit });
        }
        let stored = self.database.insert(jobs, false).map_err(|error| {
            if error.is_down() {
                self.database.mark_down(&error);
            }
            Error::database(NAME, "store a job", error)
        })?;
        let new = stored.iter().filter(|one| **one == Inserted::New).count() as u64;
        *depth.get_or_insert_default() += new;
        drop(depth);
        self.bell.ring();
        Ok(stored)
    }

    /// Counts anew: other processes use the file too.
    fn count(&self) -> Result<u64, Error> {
        let mut depth = lock(&self.depth);
        self.open(&mut depth)?;
        let limit = self.limit;
        let found = self.database.call("count jobs", move |driver| driver.depth(limit))?;
        Ok(*depth.insert(waiting(&found)))
    }

    fn is_empty(&self) -> bool {
        lock(&self.depth).is_none_or(|depth| depth == 0)
    }
}

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
        let (waiting, dropped) = (spool.count()?, spool.dropped.load(Ordering::Relaxed));
        Ok(Some(SpoolReport { waiting, limit: spool.limit, dropped }))
    }

    pub(super) fn spool_is(&self, name: &str) -> bool {
        self.inner.spool.is_some() && name == NAME
    }

    /// Spools jobs that no database can take now.
    pub(super) fn spool_jobs(
        &self,
        jobs: &Arc<[JobRecord]>,
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
        match forward(&manager, &spool, &mut opened) {
            Ok(()) => {}
            Err(error) if error.is_down() => log::debug!("the spool waits: {error}"),
            Err(error) => log::warn!("the spool cannot forward: {error}"),
        }
        drop(manager);
        // An idle spool is woken by its first job; the pause lets a dropped manager end.
        spool.bell.wait(jitter(LOOK_EVERY));
    }
}

fn forward(manager: &Manager, spool: &Spool, opened: &mut bool) -> Result<(), Error> {
    if std::mem::replace(opened, true) && spool.is_empty() {
        return Ok(());
    }
    if spool.count()? == 0 || !manager.all().iter().any(|database| database.is_up()) {
        return Ok(());
    }
    let mut offset = 0;
    loop {
        let filter = JobFilter { limit: BATCH, offset, ..JobFilter::default() };
        let jobs = spool.database.call("list jobs", move |driver| driver.list(&filter))?;
        let found = jobs.len() as u32;
        let mut groups: HashMap<Arc<str>, (Arc<Database>, Vec<JobId>)> = HashMap::new();
        for job in &jobs {
            let key = job.uniqkey.as_deref().map(|key| (&*job.ability, key));
            // A job on its way goes on where it went before: all are asked below.
            if let Some(target) = target(manager, key)? {
                let group = groups.entry(Arc::clone(&target.name));
                let (_, ids) = group.or_insert_with(|| (target, Vec::new()));
                if job.state != JobState::Moving {
                    ids.push(job.id);
                }
            }
        }
        let mut gone = 0;
        for (target, ids) in groups.into_values() {
            gone += forward_to(manager, spool, &target, &ids)?;
        }
        offset += found.saturating_sub(gone as u32);
        if found < BATCH {
            break;
        }
    }
    spool.count().map(drop)
}

/// Where a spooled job goes now: the home of its key if that is up, else any database that is.
fn target(manager: &Manager, key: Option<(&str, &str)>) -> Result<Option<Arc<Database>>, Error> {
    let mut open = Vec::new();
    for database in manager.all().iter() {
        let draining = match database.control() {
            Ok(control) => control.draining,
            Err(error) if error.is_down() => database.controls.known().draining,
            Err(error) => return Err(Error::database(&database.name, "read its orders", error)),
        };
        if !draining {
            open.push(Arc::clone(database));
        }
    }
    if let Some((ability, key)) = key {
        let home = open.into_iter().max_by_key(|one| weight(&one.name, ability, key));
        return Ok(home.filter(|home| home.is_up()));
    }
    open.retain(|database| database.is_up());
    Ok(fastrand::choice(open))
}

/// Forwards these jobs; tells how many are gone from the spool.
fn forward_to(
    manager: &Manager,
    spool: &Spool,
    target: &Arc<Database>,
    ids: &[JobId],
) -> Result<usize, Error> {
    let (moved, stayed) = Move::new(&spool.database, target).run_these(ids)?;
    if moved > 0 {
        log::info!("{moved} jobs forwarded from the spool to database {:?}", &*target.name);
        target.bell.ring();
    }
    for id in &stayed {
        log::warn!("job {id} of the spool is dropped: another job holds its unique key");
        let id = *id;
        spool.database.call("drop a job", move |driver| driver.dequeue(id))?;
        spool.dropped.fetch_add(1, Ordering::Relaxed);
        manager.tell(|| Event::Dropped { job: id });
    }
    Ok(moved + stayed.len())
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
