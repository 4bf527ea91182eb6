//! Which databases may take a job, in the order in which they are tried.

use std::sync::Arc;

use super::Client;
use crate::database::Database;
use crate::database::home::weight;
use crate::database::set::Databases;
use crate::error::Error;
use crate::new_job::{NewJob, UniqPolicy};
use crate::tools::random::shuffle;
use crate::tools::time::Instant;

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

/// The named database; the key's home by rendezvous hashing; or the live ones in random
/// order, so that clients spread their jobs. Those that owe an answer come last, for they may
/// hang. Orders that are not known are asked for until then.
pub(super) fn route(databases: &Databases, job: &NewJob, until: Instant) -> Result<Route, Error> {
    let mut route = Route {
        candidates: Vec::new(),
        former_homes: Vec::new(),
        failover_when_uncertain: false,
        home_only: false,
        may_spool: job.database.is_none(),
    };
    if let Some(name) = &job.database {
        route.candidates.push(databases.find(name)?);
        return Ok(route);
    }
    route.candidates = databases.all().to_vec();
    if let Some(key) = job.fields.uniqkey() {
        route
            .candidates
            .sort_by_key(|database| std::cmp::Reverse(weight(&database.name, &job.ability, key)));
        route.home_only = job.policy == UniqPolicy::Refuse;
        return Ok(route.around_drained(until));
    }
    shuffle(&mut route.candidates);
    // Asked once for each: it may change meanwhile.
    route.candidates.sort_by_cached_key(|database| (!database.is_up(), database.is_slow()));
    route.failover_when_uncertain = true;
    Ok(route)
}

/// Where a new job would go if all are up.
pub(crate) fn home(client: &Client, job: &NewJob) -> Result<Option<String>, Error> {
    let databases = client.databases.all();
    let longest = databases.iter().map(|one| one.limit()).max().unwrap_or_default();
    let route = route(&client.databases, job, Instant::now() + longest)?;
    let fixed = job.database.is_some() || route.home_only || databases.len() == 1;
    let home = route.candidates.first().filter(|_| fixed);
    Ok(home.map(|database| database.name.to_string()))
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
                database.orders_within(left).is_ok_and(|control| control.draining)
            } else {
                database.orders.known().draining
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
