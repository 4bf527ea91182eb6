//! One database under one name.
//!
//! Two names for one database look like two to everything above: a move from one to the other would
//! delete what it moves, and two lanes would claim as one worker. So databases are told apart by the
//! identity that each stores, and the later of two names for one is taken out of use.

use std::sync::{Arc, Weak};

use uuid::Uuid;

use crate::driver::{DriverError, ErrorKind};
use crate::tools::sync::Mutex;

/// A database that says which it is.
pub(crate) trait Member: Send + Sync {
    fn name(&self) -> &str;

    /// The place of its name among the others.
    fn order(&self) -> u64;

    fn is_removed(&self) -> bool;

    /// Takes it out of use, because another name leads to it too.
    fn mark_second(self: Arc<Self>, same: &DriverError);
}

/// The identities of a manager's databases, as far as they have told them.
#[derive(Default)]
pub(crate) struct Identities(Mutex<Vec<Known>>);

struct Known {
    order: u64,
    identity: Uuid,
    database: Weak<dyn Member>,
}

impl Identities {
    /// Notes what a database says of itself.
    ///
    /// Refuses it if an earlier name has the same identity; takes a later name out of use if it
    /// answered first.
    pub(crate) fn note(
        &self,
        database: &Arc<dyn Member>,
        identity: Uuid,
    ) -> Result<(), DriverError> {
        // Under one lock with the entry made below: another thread may note the same database.
        let mut known = self.0.lock();
        retain_others(&mut known, &**database);
        if database.is_removed() {
            return Ok(());
        }
        let others: Vec<_> = known
            .iter()
            .filter(|one| one.identity == identity)
            .filter_map(|one| one.database.upgrade())
            .collect();
        let (order, weak) = (database.order(), Arc::downgrade(database));
        known.push(Known { order, identity, database: weak });
        drop(known);
        for other in others.into_iter().filter(|other| !other.is_removed()) {
            if other.order() < database.order() {
                return Err(same(other.name(), identity));
            }
            other.mark_second(&same(database.name(), identity));
        }
        Ok(())
    }

    /// Forgets what a database said, and those that are gone.
    pub(crate) fn forget(&self, database: &dyn Member) {
        retain_others(&mut self.0.lock(), database);
    }

    /// The order of the database that said that it has this identity.
    pub(crate) fn find(&self, identity: Uuid) -> Option<u64> {
        let known = self.0.lock();
        let found = known.iter().filter(|one| one.identity == identity);
        let found = found.filter_map(|one| one.database.upgrade());
        found.filter(|one| !one.is_removed()).map(|one| one.order()).min()
    }
}

fn retain_others(known: &mut Vec<Known>, database: &dyn Member) {
    known.retain(|one| one.database.strong_count() > 0 && one.order != database.order());
}

fn same(other: &str, identity: Uuid) -> DriverError {
    let message = format!(
        "it is the database {other:?} under a second name: both have the identity {identity}; \
         remove one of the names, or, if one is a restored copy, delete the row 'identity' from its \
         own table of orders (qudo_control by default)"
    );
    DriverError::new(ErrorKind::Down, message)
}
