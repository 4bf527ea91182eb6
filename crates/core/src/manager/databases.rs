//! The set of databases, which may change while the manager works.

use crate::tools::time::Instant;
use std::sync::{Arc, Weak};
use std::time::Duration;

use uuid::Uuid;

use super::asked::Asked;
use super::builder::{check_place, open};
use super::data_source::DataSource;
use super::database::{Database, DatabaseReport};
use super::session::Session;
use super::{Manager, On};
use crate::driver::{Driver, SchemaState};
use crate::{DatabaseState, Error};

/// The start of the work waits so long for a database to tell its schema. One that takes longer
/// holds up no other: its claims fail if the schema is wrong.
const SCHEMA_WITHIN: Duration = Duration::from_secs(2);

/// Depths are counted up to this: asking costs the same for a million jobs as for this many.
const DEPTH_BOUND: u64 = 10_000;

impl Manager {
    /// The databases with their state, and how many jobs each holds, counted up to 10,000. Those
    /// that are up are asked, all at once; one that does not answer has no depth.
    pub fn databases(&self) -> Vec<DatabaseReport> {
        let asked: Vec<_> = self
            .everywhere()
            .into_iter()
            .map(|database| {
                let depth = database.begin("count jobs", |driver| driver.depth(DEPTH_BOUND));
                (database, depth)
            })
            .collect();
        let report = |(database, depth): (Arc<Database>, Asked<_>)| {
            let depth = depth.wait().ok();
            DatabaseReport { depth, ..database.report() }
        };
        asked.into_iter().map(report).collect()
    }

    /// Takes a database into use while the manager works, under the short name that its data
    /// source suggests. Its share of unique keys moves there; see
    /// [`add_database_as`](Self::add_database_as).
    ///
    /// # Errors
    ///
    /// As [`add_database_as`](Self::add_database_as).
    pub fn add_database(&self, source: impl Into<DataSource>) -> Result<(), Error> {
        self.add(source.into())
    }

    /// Takes a database into use while the manager works.
    ///
    /// It becomes the home of its share of the unique keys, one in *n*; the others stay where they
    /// are. A key whose job waits in its former home at this moment may be taken once more in the
    /// new one: where that matters, let the jobs with keys run out first. Other processes know
    /// nothing of the new database until they add it too.
    ///
    /// # Errors
    ///
    /// When the data source name is malformed, the name is taken, or the database answers with a
    /// schema this program cannot work on. A database that is down is added all the same.
    pub fn add_database_as(&self, name: &str, dsn: &str) -> Result<(), Error> {
        self.add(DataSource::new(dsn).name(name))
    }

    fn add(&self, source: DataSource) -> Result<(), Error> {
        let database = open(source, &self.options().settings())?;
        if let Err(error) = Self::check_schema(&database)
            && !error.is_down()
        {
            return Err(error);
        }
        let mut databases = self.inner.databases.write();
        if self.spool_is(&database.name) || databases.iter().any(|one| one.name == database.name) {
            return Err(Error::DuplicateDatabase(database.name.to_string()));
        }
        let spool = self.inner.spool.as_ref().map(|spool| &spool.database);
        for other in databases.iter().chain(spool) {
            check_place(other, &database)?;
        }
        *databases = databases.iter().cloned().chain([Arc::clone(&database)]).collect();
        // The lane is added before anybody else may change the set.
        let added = self.session().map_or(Ok(()), |session| session.add_lane(&database));
        if added.is_err() {
            *databases =
                databases.iter().filter(|one| !Arc::ptr_eq(one, &database)).cloned().collect();
        }
        added
    }

    /// Takes a database out of use while the manager works: unstarted jobs are given back, running
    /// ones may finish within `shutdown_timeout`, for which this waits. What is stored there stays.
    ///
    /// Its share of unique keys moves to the other databases; [drain](Self::drain) it before, so
    /// that its keys are looked up until its jobs are done.
    ///
    /// # Errors
    ///
    /// When no database has this name or it is the last one.
    pub fn remove_database(&self, name: &str) -> Result<(), Error> {
        let mut databases = self.inner.databases.write();
        let Some(at) = databases.iter().position(|one| *one.name == *name) else {
            drop(databases);
            return self.find(name).map(drop);
        };
        if databases.len() == 1 {
            return Err(Error::NoDatabase);
        }
        let mut left = databases.to_vec();
        let removed = left.remove(at);
        *databases = left.into();
        drop(databases);
        if let Some(session) = self.session() {
            session.remove_lane(&removed);
        }
        removed.remove();
        Ok(())
    }

    pub(super) fn session(&self) -> Option<Arc<Session>> {
        self.inner.session.lock().as_ref().and_then(Weak::upgrade)
    }

    pub(crate) fn all(&self) -> Arc<[Arc<Database>]> {
        Arc::clone(&self.inner.databases.read())
    }

    /// All databases, the spool included: where a job may be found.
    pub(crate) fn everywhere(&self) -> Vec<Arc<Database>> {
        let spool = self.inner.spool.as_ref().map(|spool| Arc::clone(&spool.database));
        self.all().iter().cloned().chain(spool).collect()
    }

    /// The database of this short name. The spool is none of them: nobody orders it about.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<Database>, Error> {
        let all = self.all();
        all.iter().find(|database| &*database.name == name).cloned().ok_or_else(|| {
            let known: Vec<_> = all.iter().map(|database| &*database.name).collect();
            Error::UnknownDatabase { name: name.to_owned(), known: known.join(", ") }
        })
    }

    /// The database or spool where a listing found something.
    pub(super) fn found(&self, name: &str) -> Result<Arc<Database>, Error> {
        match self.everywhere().into_iter().find(|one| &*one.name == name) {
            Some(database) => Ok(database),
            None => self.find(name),
        }
    }

    /// The database that calls itself so; those that do not answer are left out.
    pub(crate) fn find_identity(&self, identity: &str) -> Option<Arc<Database>> {
        let wanted = Uuid::parse_str(identity).ok()?;
        // As far as they have told already: one that is away is found too.
        self.options().identities.find(wanted).or_else(|| {
            let same = |one: &Arc<Database>| one.identity().is_ok_and(|other| other == wanted);
            self.everywhere().into_iter().find(same)
        })
    }

    /// Creates or updates the tables in every database; returns what was applied where.
    ///
    /// # Errors
    ///
    /// The first database that does not answer, is newer than this program, or refuses.
    pub fn migrate(&self) -> Result<Vec<On<Vec<String>>>, Error> {
        self.migrate_each()
            .into_iter()
            .map(|one| one.answer.map(|applied| On { database: one.database, answer: Ok(applied) }))
            .collect()
    }

    /// As [`migrate`](Self::migrate), with one answer per database. A migration may take as long
    /// as it takes.
    pub fn migrate_each(&self) -> Vec<On<Vec<String>>> {
        self.collect("migrate", |driver: &dyn Driver| driver.migrate(), Asked::wait_for_ever)
    }

    /// The schema of every database, asked at once: that it will do, or why not.
    pub(super) fn schema_states(&self) -> Vec<Result<(), Error>> {
        let all = self.all();
        let asked: Vec<_> = all.iter().map(ask_schema).collect();
        let judged = asked.into_iter().zip(all.iter());
        let begun = Instant::now();
        let left = || SCHEMA_WITHIN.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
        judged.map(|(asked, database)| judge(database, asked.wait_at_most(left()))).collect()
    }

    /// Refuses a database that answers with a schema this program cannot work on.
    pub(super) fn check_schema(database: &Arc<Database>) -> Result<(), Error> {
        judge(database, ask_schema(database).wait())
    }
}

fn ask_schema(database: &Arc<Database>) -> Asked<SchemaState> {
    database.begin("read its schema version", |driver| driver.schema())
}

fn judge(database: &Database, state: Result<SchemaState, Error>) -> Result<(), Error> {
    let reason = match state? {
        SchemaState::Current => return Ok(()),
        SchemaState::Behind(missing) => format!(
            "{} migrations of qudo are not applied (first: {}); run `qudo migrate --database \
             DSN` or call Manager::migrate",
            missing.len(),
            missing.first().map_or("none", String::as_str)
        ),
        SchemaState::Ahead(unknown) => format!(
            "its schema is newer than this program (unknown: {}); update the program",
            unknown.join(", ")
        ),
    };
    Err(Error::Schema { database: database.name.to_string(), reason })
}

impl DatabaseState {
    /// Whether jobs are stored and claimed there now.
    pub fn is_up(self) -> bool {
        self == Self::Up
    }
}
