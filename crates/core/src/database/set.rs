//! The databases of a manager: which there are, and which one is meant.

use std::sync::Arc;

use uuid::Uuid;

use super::home::weight;
use super::open::check_place;
use super::{Database, Settings};
use crate::error::Error;
use crate::tools::sync::RwLock;

/// The databases of one manager. The set may change while it works.
pub(crate) struct Databases {
    all: RwLock<Arc<[Arc<Database>]>>,
    /// That of the spool; none of the others, but jobs may be found there.
    spool: Option<Arc<Database>>,
    pub(crate) settings: Settings,
}

impl Databases {
    pub(crate) fn new(
        all: Vec<Arc<Database>>,
        spool: Option<Arc<Database>>,
        settings: Settings,
    ) -> Self {
        Self { all: RwLock::new(all.into()), spool, settings }
    }

    pub(crate) fn all(&self) -> Arc<[Arc<Database>]> {
        Arc::clone(&self.all.read())
    }

    /// Runs `act` on the set, which cannot change meanwhile.
    pub(crate) fn with_all<T>(&self, act: impl FnOnce(&Arc<[Arc<Database>]>) -> T) -> T {
        act(&self.all.read())
    }

    /// All databases, the spool included: where a job may be found.
    pub(crate) fn everywhere(&self) -> Vec<Arc<Database>> {
        self.all().iter().chain(&self.spool).cloned().collect()
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
    pub(crate) fn found(&self, name: &str) -> Result<Arc<Database>, Error> {
        match self.everywhere().into_iter().find(|one| &*one.name == name) {
            Some(database) => Ok(database),
            None => self.find(name),
        }
    }

    /// The database that calls itself so; those that do not answer are left out.
    pub(crate) fn find_identity(&self, identity: &str) -> Option<Arc<Database>> {
        let wanted = Uuid::parse_str(identity).ok()?;
        let everywhere = self.everywhere();
        // As far as they have told already: one that is away is found too.
        let told = self.settings.identities.find(wanted);
        if let Some(one) = everywhere.iter().find(|one| told == Some(one.order)) {
            return Some(Arc::clone(one));
        }
        everywhere.into_iter().find(|one| one.identity().is_ok_and(|other| other == wanted))
    }

    /// The home of a unique key among the databases that are not draining, as far as is known.
    pub(crate) fn home_of(&self, ability: &str, key: &str) -> Option<Arc<Database>> {
        self.all()
            .iter()
            .filter(|one| !one.orders.known().draining)
            .cloned()
            .max_by_key(|one| weight(&one.name, ability, key))
    }

    /// Drained databases that were a key's home before the present one.
    pub(crate) fn former_homes(&self, ability: &str, key: &str) -> Vec<Arc<Database>> {
        let home = self.home_of(ability, key).map(|home| weight(&home.name, ability, key));
        let all = self.all();
        let former = all.iter().filter(|one| Some(weight(&one.name, ability, key)) > home);
        former.cloned().collect()
    }

    /// Adds a database and lets `take_up` work it before anybody else may change the set; if that fails, it is
    /// not added.
    pub(crate) fn add(
        &self,
        database: &Arc<Database>,
        take_up: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut all = self.all.write();
        if all.iter().chain(&self.spool).any(|one| one.name == database.name) {
            return Err(Error::DuplicateDatabase(database.name.to_string()));
        }
        for other in all.iter().chain(&self.spool) {
            check_place(other, database)?;
        }
        *all = all.iter().cloned().chain([Arc::clone(database)]).collect();
        let done = take_up();
        if done.is_err() {
            *all = all.iter().filter(|one| !Arc::ptr_eq(one, database)).cloned().collect();
        }
        done
    }

    /// Takes a database out of the set; its last one stays.
    pub(crate) fn take_out(&self, name: &str) -> Result<Arc<Database>, Error> {
        let mut all = self.all.write();
        let Some(at) = all.iter().position(|one| &*one.name == name) else {
            drop(all);
            return self.find(name);
        };
        if all.len() == 1 {
            return Err(Error::NoDatabase);
        }
        let mut left = all.to_vec();
        let removed = left.remove(at);
        *all = left.into();
        Ok(removed)
    }
}
