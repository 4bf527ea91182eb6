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

    /// Whether this is the spool.
    pub(crate) fn is_spool(&self, database: &Arc<Database>) -> bool {
        self.spool.as_ref().is_some_and(|spool| Arc::ptr_eq(spool, database))
    }

    /// The database of this short name. The spool is none of them: it takes no orders.
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
        if let Some(one) = self.known_as(wanted) {
            return Some(one);
        }
        self.everywhere().into_iter().find(|one| one.identity().is_ok_and(|other| other == wanted))
    }

    /// The same as far as databases have told already: nobody is asked, and one that is away is found too.
    pub(crate) fn known_as(&self, identity: Uuid) -> Option<Arc<Database>> {
        let told = self.settings.identities.find(identity)?;
        self.everywhere().into_iter().find(|one| one.order == told)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::Order;
    use crate::fixture::{database, databases, memory, settings};

    #[test]
    fn a_name_is_taken_once_and_a_database_that_is_not_taken_up_is_not_added() {
        let set = databases(&["one"]);
        let again = set.add(&database("one", memory()), || Ok(()));
        assert!(matches!(again, Err(Error::DuplicateDatabase(name)) if name == "one"));
        let two = database("two", memory());
        let refused = set.add(&two, || Err(Error::NoAbilities));
        assert!(refused.is_err() && set.find("two").is_err());
        set.add(&two, || Ok(())).expect("is new");
        assert!(Arc::ptr_eq(&set.find("two").expect("is there"), &two));
        let unknown = set.find("three").map(|_| ()).expect_err("nobody added it").to_string();
        assert!(unknown.contains("one, two"), "{unknown}");
    }

    #[test]
    fn two_names_for_one_driver_are_refused_at_once() {
        let driver = memory();
        let one = database("one", Arc::clone(&driver));
        let set = Databases::new(vec![one], None, settings(crate::fixture::SOON));
        let same = set.add(&database("two", driver), || Ok(()));
        assert!(matches!(same, Err(Error::SameDatabase { .. })));
    }

    #[test]
    fn the_last_database_stays() {
        let set = databases(&["one", "two"]);
        assert_eq!(&*set.take_out("one").expect("is there").name, "one");
        assert!(matches!(set.take_out("two"), Err(Error::NoDatabase)));
        assert!(matches!(set.take_out("one"), Err(Error::UnknownDatabase { .. })));
    }

    #[test]
    fn a_spool_is_found_where_jobs_are_looked_for_and_nobody_orders_it_about() {
        let settings = settings(crate::fixture::SOON);
        let spool = database("spool", memory());
        let set = Databases::new(vec![database("one", memory())], Some(spool), settings);
        assert_eq!((set.all().len(), set.everywhere().len()), (1, 2));
        assert!(set.find("spool").is_err());
        assert_eq!(&*set.found("spool").expect("is there").name, "spool");
        let taken = set.add(&database("spool", memory()), || Ok(()));
        assert!(matches!(taken, Err(Error::DuplicateDatabase(_))));
    }

    #[test]
    fn a_drained_home_leaves_its_keys_to_the_next_and_is_a_former_home() {
        let set = databases(&["one", "two", "three"]);
        let home = set.home_of("mail", "k").expect("there are some");
        assert!(set.former_homes("mail", "k").is_empty());
        home.order(Order::Draining, true).expect("answers");
        let next = set.home_of("mail", "k").expect("there are others");
        assert!(!Arc::ptr_eq(&home, &next));
        let former = set.former_homes("mail", "k");
        assert!(former.len() == 1 && Arc::ptr_eq(&former[0], &home));
    }

    #[test]
    fn a_database_is_found_by_what_it_says_of_itself() {
        let set = databases(&["one", "two"]);
        let two = set.find("two").expect("is there");
        let identity = two.identity().expect("answers").to_string();
        assert!(Arc::ptr_eq(&set.find_identity(&identity).expect("asked"), &two));
        two.meet().expect("answers");
        assert!(Arc::ptr_eq(&set.find_identity(&identity).expect("known"), &two));
        assert!(set.find_identity("nonsense").is_none());
        assert!(set.find_identity(&Uuid::nil().to_string()).is_none());
    }
}
