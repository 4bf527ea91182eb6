//! A local database that takes enqueues while no other can. What forwards them is in [`forward`](super::forward).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Client;
use super::route::Route;
use crate::database::asked::LISTING;
use crate::database::data_source::DataSource;
use crate::database::inserter::insert_limit;
use crate::database::open::{self, check_place};
use crate::database::{Database, Settings};
use crate::driver::{Depth, Inserted, JobRecord, Keep};
use crate::error::Error;
use crate::tools::bell::Bell;
use crate::tools::secret::hide_password;
use crate::tools::sync::Mutex;
use crate::tools::time::Instant;

/// The short name of the spool in tickets, listings and logs.
const NAME: &str = "spool";

/// While jobs wait in the spool, the databases are tried this often.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Another process may have left jobs in the file: it is looked at this often in any case.
const LOOK_ANYWAY: Duration = Duration::from_secs(60);

/// Old trails removed at one look.
const MAX_PURGE: u32 = 1_000;

pub(crate) struct Spool {
    pub(crate) database: Arc<Database>,
    limit: u64,
    /// Never held over a call: a disk that stalls must not queue up those who enqueue.
    depth: Mutex<Known>,
    pub(super) bell: Bell,
    looked: Mutex<Instant>,
    /// How long it is known where forwarded jobs went.
    keep_trails: Duration,
    /// Jobs that were not forwarded because their key was taken.
    pub(super) dropped: AtomicU64,
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

/// What [`Manager::spool`](crate::Manager::spool) tells.
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
    pub(crate) fn new(database: Arc<Database>, limit: u64, keep_trails: Duration) -> Self {
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
            driver.migrate(false)?;
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
        let epoch = self.database.health.epoch();
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
    pub(super) fn look(&self) -> Result<Depth, Error> {
        self.look_within(self.database.limit().saturating_mul(LISTING))
    }

    fn look_within(&self, time: Duration) -> Result<Depth, Error> {
        self.open()?;
        *self.looked.lock() = Instant::now();
        let (limit, trails) = (self.limit, self.keep_trails);
        let before = self.depth.lock().stored;
        let found = self.database.begin("count jobs", move |driver| {
            driver.purge(&Keep::all(trails), MAX_PURGE)?;
            driver.depth(limit)
        });
        let found = found.wait_at_most(time)?;
        let mut known = self.depth.lock();
        // What was stored meanwhile may be counted twice until the next look, but not be missed.
        known.inexact = known.stored != before || known.reserved > 0;
        known.waiting = Some(waiting(&found) + (known.stored - before));
        Ok(found)
    }

    pub(super) fn is_time_to_look(&self) -> bool {
        self.looked.lock().elapsed() > LOOK_ANYWAY
    }

    pub(super) fn is_empty(&self) -> bool {
        self.depth.lock().waiting.is_none_or(|waiting| waiting == 0)
    }
}

/// Room for so many jobs.
struct Room(u64);

pub(super) fn waiting(depth: &Depth) -> u64 {
    depth.ready.count + depth.scheduled.count + depth.moving.count
}

/// What is in it, if there is one.
pub(crate) fn report(client: &Client) -> Result<Option<SpoolReport>, Error> {
    let Some(spool) = &client.spool else { return Ok(None) };
    let (waiting, dropped) = (waiting(&spool.look()?), spool.dropped.load(Ordering::Relaxed));
    Ok(Some(SpoolReport { waiting, limit: spool.limit, dropped }))
}

/// Spools jobs that no database can take now.
pub(super) fn spool_jobs(
    client: &Client,
    jobs: &Arc<Vec<JobRecord>>,
    route: &Route,
    refused: Error,
) -> Result<(Vec<Inserted>, Arc<Database>), Error> {
    let Some(spool) = client.spool.as_ref().filter(|_| route.may_spool) else {
        return Err(refused);
    };
    log::debug!("{} jobs go to the spool: {refused}", jobs.len());
    Ok((spool.take(jobs)?, Arc::clone(&spool.database)))
}

/// Opens the spool of a manager with these databases.
pub(crate) fn open(
    dsn: &str,
    databases: &[Arc<Database>],
    settings: &Settings,
) -> Result<Arc<Database>, Error> {
    let database = open::open(DataSource::new(dsn).name(NAME), settings)?;
    // One that is a server would be down with the others.
    if !database.driver().is_local() {
        let engine = database.driver().engine();
        let reason = format!("a spool must be local, such as sqlite:spool.db, not {engine}");
        return Err(Error::InvalidDsn { dsn: hide_password(dsn), reason });
    }
    if databases.iter().any(|other| other.name == database.name) {
        return Err(Error::DuplicateDatabase(NAME.to_owned()));
    }
    for other in databases {
        check_place(other, &database)?;
    }
    Ok(database)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::driver::{DriverError, ErrorKind};
    use crate::fixture::{SOON, database, memory, records};
    use crate::testing::FaultyDriver;

    const DAY: Duration = Duration::from_secs(86_400);

    fn spool(limit: u64) -> Spool {
        Spool::new(database("spool", memory()), limit, DAY)
    }

    #[test]
    fn it_takes_what_there_is_room_for_and_says_when_it_is_full() {
        let spool = spool(5);
        spool.take(&records(3)).expect("there is room");
        let full = spool.take(&records(3)).expect_err("three of two");
        assert!(matches!(full, Error::SpoolFull { limit: 5 }) && full.is_down());
        spool.take(&records(2)).expect("there is room");
        assert_eq!(spool.look().expect("answers").ready.count, 5);
        assert!(!spool.is_empty());
    }

    #[test]
    fn a_job_that_was_stored_again_counts_twice_until_the_next_look() {
        let spool = spool(2);
        let job = records(1);
        spool.take(&job).expect("there is room");
        spool.take(&job).expect("it is there");
        assert!(spool.take(&records(1)).is_err());
        *spool.looked.lock() = Instant::now().checked_sub(LOOK_EVERY).expect("a running machine");
        spool.take(&records(1)).expect("there is room for another");
        assert!(spool.take(&records(1)).is_err(), "and for no third");
    }

    #[test]
    fn room_that_was_not_used_is_given_back() {
        let refuses = Arc::new(AtomicBool::new(true));
        let refusing = Arc::clone(&refuses);
        let driver = FaultyDriver::new(memory()).with_fault(move |call| {
            if call == "insert" && refusing.load(Ordering::Relaxed) {
                return Err(DriverError::new(ErrorKind::Other, "no"));
            }
            Ok(())
        });
        let spool = Spool::new(database("spool", Arc::new(driver)), 1, DAY);
        for _ in 0..3 {
            assert!(matches!(spool.take(&records(1)), Err(Error::Database { .. })));
        }
        refuses.store(false, Ordering::Relaxed);
        spool.take(&records(1)).expect("there is room");
    }

    #[test]
    fn what_an_earlier_process_left_counts() {
        let driver = memory();
        driver.insert(&records(4), crate::driver::Deadline::NONE).expect("stored");
        let spool = Spool::new(database("spool", driver), 5, DAY);
        assert!(spool.take(&records(2)).is_err());
        spool.take(&records(1)).expect("there is room for one");
    }

    #[test]
    fn room_that_was_forwarded_elsewhere_is_found_by_a_look() {
        let driver = memory();
        let spool = Spool::new(database("spool", Arc::clone(&driver)), 1, DAY);
        let job = records(1);
        spool.take(&job).expect("there is room");
        driver.dequeue(job[0].id, None).expect("answers");
        assert!(spool.take(&records(1)).is_err(), "it looked a moment ago");
        *spool.looked.lock() = Instant::now().checked_sub(LOOK_EVERY).expect("a running machine");
        spool.take(&records(1)).expect("there is room again");
        assert!(!spool.is_time_to_look());
    }

    #[test]
    fn only_a_database_without_a_network_may_be_one() {
        let settings = crate::fixture::settings(SOON);
        assert!(open("memory:spool-of-tests", &[], &settings).is_ok());
        let taken = [database("spool", memory())];
        let refused = open("memory:spool-of-others", &taken, &settings).map(|_| ());
        assert!(matches!(refused, Err(Error::DuplicateDatabase(_))));
        assert!(open("nonsense", &[], &settings).is_err());
    }
}
