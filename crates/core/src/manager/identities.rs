//! One database under one name.
//!
//! Two names for one database look like two to everything above: a move from one to the other would
//! delete what it moves, and two lanes would claim as one worker. So databases are told apart by the
//! identity that each stores, and the later of two names for one is taken out of use.

use crate::tools::sync::Mutex;
use std::sync::{Arc, Weak};

use uuid::Uuid;

use super::database::Database;
use crate::driver::{DriverError, ErrorKind};

/// The identities of a manager's databases, as far as they have told them.
#[derive(Default)]
pub(crate) struct Identities(Mutex<Vec<Known>>);

struct Known {
    order: u64,
    identity: Uuid,
    database: Weak<Database>,
}

impl Identities {
    /// Notes what a database says of itself.
    ///
    /// Refuses it if an earlier name has the same identity; takes a later name out of use if it
    /// answered first.
    pub(super) fn note(&self, database: &Arc<Database>, identity: Uuid) -> Result<(), DriverError> {
        // Under one lock with the entry made below: another thread may note the same database.
        let mut known = self.0.lock();
        retain_others(&mut known, database);
        if database.is_removed() {
            return Ok(());
        }
        let others: Vec<_> = known
            .iter()
            .filter(|one| one.identity == identity)
            .filter_map(|one| one.database.upgrade())
            .collect();
        let (order, weak) = (database.order, Arc::downgrade(database));
        known.push(Known { order, identity, database: weak });
        drop(known);
        for other in others.iter().filter(|other| !other.is_removed()) {
            if other.order < database.order {
                return Err(same(&other.name, identity));
            }
            other.mark_second(&same(&database.name, identity));
        }
        Ok(())
    }

    /// Forgets what a database said, and those that are gone.
    pub(super) fn forget(&self, database: &Database) {
        retain_others(&mut self.0.lock(), database);
    }

    /// Which database said that it has this identity.
    pub(super) fn find(&self, identity: Uuid) -> Option<Arc<Database>> {
        let known = self.0.lock();
        let found = known.iter().filter(|one| one.identity == identity);
        let found = found.filter_map(|one| one.database.upgrade());
        found.filter(|one| !one.is_removed()).min_by_key(|one| one.order)
    }
}

fn retain_others(known: &mut Vec<Known>, database: &Database) {
    known.retain(|one| one.database.strong_count() > 0 && one.order != database.order);
}

fn same(other: &str, identity: Uuid) -> DriverError {
    let message = format!(
        "it is the database {other:?} under a second name: both have the identity {identity}; \
         remove one of the names, or, if one is a restored copy, delete the row 'identity' from its \
         table qudo_control"
    );
    DriverError::new(ErrorKind::Down, message)
}
