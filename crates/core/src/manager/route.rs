//! Which databases may take a job, in the order in which they are tried.

use crate::tools::random::shuffle;
use crate::tools::time::Instant;
use std::sync::Arc;

use super::Manager;
use super::database::Database;
use crate::new_job::UniqPolicy;
use crate::{Error, NewJob};

/// The candidates for one job.
pub(super) struct Route {
    /// In order of preference; those known to be down included.
    pub(super) candidates: Vec<Arc<Database>>,
    /// Drained databases that would be the unique key's home, and may hold it still.
    pub(super) former_homes: Vec<Arc<Database>>,
    /// Whether the job may be stored elsewhere after an answer was lost.
    pub(super) failover_when_uncertain: bool,
    /// Whether the key must live in its home, and nowhere while that is down.
    pub(super) home_only: bool,
    /// Whether the spool may take the job when none of the candidates can.
    pub(super) may_spool: bool,
}

impl Manager {
    /// The named database; the key's home by rendezvous hashing; or the live ones in random
    /// order, so that clients spread their jobs. Those that owe an answer come last, for they may
    /// hang. Orders that are not known are asked for until then.
    pub(super) fn route(&self, job: &NewJob, until: Instant) -> Result<Route, Error> {
        let mut route = Route {
            candidates: Vec::new(),
            former_homes: Vec::new(),
            failover_when_uncertain: false,
            home_only: false,
            may_spool: job.database.is_none(),
        };
        if let Some(name) = &job.database {
            route.candidates.push(self.find(name)?);
            return Ok(route);
        }
        route.candidates = self.all().to_vec();
        if let Some(key) = job.fields.uniqkey() {
            route.candidates.sort_by_key(|database| {
                std::cmp::Reverse(weight(&database.name, &job.ability, key))
            });
            route.home_only = job.policy == UniqPolicy::Refuse;
            return Ok(route.around_drained(until));
        }
        shuffle(&mut route.candidates);
        // Asked once for each: it may change meanwhile.
        route.candidates.sort_by_cached_key(|database| (!database.is_up(), database.is_slow()));
        route.failover_when_uncertain = true;
        Ok(route)
    }
}

impl Manager {
    /// The home of a unique key among the databases that are not draining, as far as is known.
    pub(super) fn home_of(&self, ability: &str, key: &str) -> Option<Arc<Database>> {
        self.all()
            .iter()
            .filter(|one| !one.controls.known().draining)
            .cloned()
            .max_by_key(|one| weight(&one.name, ability, key))
    }

    /// Drained databases that were a key's home before the present one.
    pub(super) fn former_homes(&self, ability: &str, key: &str) -> Vec<Arc<Database>> {
        let home = self.home_of(ability, key).map(|home| weight(&home.name, ability, key));
        let all = self.all();
        let former = all.iter().filter(|one| Some(weight(&one.name, ability, key)) > home);
        former.cloned().collect()
    }
}

impl Route {
    /// Sets drained databases apart; with `home_only` one candidate is left.
    fn around_drained(mut self, until: Instant) -> Self {
        let sorted = std::mem::take(&mut self.candidates);
        for database in sorted {
            // Those behind the first live one are asked only when their turn comes. Orders that
            // cannot be read now are the database's trouble, found again at once.
            let draining = if self.candidates.is_empty() {
                let left = until.saturating_duration_since(Instant::now());
                database.control_within(left).is_ok_and(|control| control.draining)
            } else {
                database.controls.known().draining
            };
            if !draining {
                self.candidates.push(database);
                if self.home_only {
                    break;
                }
            } else if self.candidates.is_empty() {
                self.former_homes.push(database);
            }
        }
        self
    }
}

/// Why a drained database takes no job.
pub(super) const DRAINING: &str = "it is draining";

/// The rendezvous weight of a key on a database: the highest is the key's home.
///
/// FNV-1a with a finaliser. It must never change, because it decides where keys live; the
/// standard library's hasher gives no such promise.
pub(super) fn weight(database: &str, ability: &str, key: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    // The separator cannot stand in a name, so parts cannot run into each other.
    for byte in [database, "\0", ability, "\0", key].into_iter().flat_map(str::bytes) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home<'a>(databases: &[&'a str], key: &str) -> &'a str {
        databases.iter().max_by_key(|name| weight(name, "ability", key)).expect("not empty")
    }

    #[test]
    fn weights_never_change() {
        assert_eq!(weight("a", "thumbnail", "cat.jpg"), 8_220_701_292_390_773_072);
        assert_eq!(weight("db@host", "köln", " "), 14_832_880_237_250_117_768);
    }

    #[test]
    fn a_new_database_takes_its_share_of_keys_and_moves_no_other() {
        let (before, after) = (["a", "b", "c"], ["a", "b", "c", "d"]);
        let mut moved = 0;
        for n in 0..10_000 {
            let key = n.to_string();
            let (old, new) = (home(&before, &key), home(&after, &key));
            if old != new {
                assert_eq!(new, "d");
                moved += 1;
            }
        }
        assert!((2_300..2_700).contains(&moved), "{moved} of 10000 keys moved");
    }
}
