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
pub(super) fn route<R>(
    databases: &Databases,
    job: &NewJob<R>,
    until: Instant,
) -> Result<Route, Error> {
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
pub(crate) fn home<R>(client: &Client, job: &NewJob<R>) -> Result<Option<String>, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{DriverError, ErrorKind, Order};
    use crate::fixture::{SOON, client, databases};

    const NAMES: [&str; 3] = ["one", "two", "three"];

    fn job() -> NewJob {
        NewJob::named("mail", 1.into())
    }

    fn route_of(set: &Databases, job: &NewJob) -> Route {
        route(set, job, Instant::now() + SOON).expect("there is a way")
    }

    fn down(database: &Arc<Database>) {
        database.mark_down(&DriverError::new(ErrorKind::Down, "away"));
    }

    #[test]
    fn a_job_without_a_key_may_go_anywhere_and_first_where_somebody_answers() {
        let set = databases(&NAMES);
        let dead = set.find("two").expect("is there");
        down(&dead);
        for _ in 0..20 {
            let route = route_of(&set, &job());
            assert_eq!(route.candidates.len(), 3);
            assert!(Arc::ptr_eq(&route.candidates[2], &dead));
            assert!(route.failover_when_uncertain && route.may_spool && !route.home_only);
        }
        let firsts: std::collections::HashSet<_> =
            (0..100).map(|_| route_of(&set, &job()).candidates[0].name.to_string()).collect();
        assert_eq!(firsts.len(), 2, "clients spread their jobs");
    }

    #[test]
    fn a_named_database_is_the_only_one_also_when_it_is_down() {
        let set = databases(&NAMES);
        down(&set.find("two").expect("is there"));
        let route = route_of(&set, &job().database("two"));
        assert_eq!(route.candidates.len(), 1);
        assert!(!route.may_spool && !route.failover_when_uncertain);
        assert!(super::route(&set, &job().database("four"), Instant::now()).is_err());
    }

    #[test]
    fn a_key_goes_to_its_home_and_nowhere_else_unless_the_job_says_so() {
        let set = databases(&NAMES);
        let keyed = || job().uniqkey("k");
        let home = set.home_of("mail", "k").expect("there are some");
        let route = route_of(&set, &keyed());
        assert!(route.home_only && route.candidates.len() == 1 && !route.failover_when_uncertain);
        assert!(Arc::ptr_eq(&route.candidates[0], &home));
        let open = route_of(&set, &keyed().uniq_policy(UniqPolicy::Available));
        assert!(!open.home_only && open.candidates.len() == 3);
        assert!(Arc::ptr_eq(&open.candidates[0], &home));
    }

    #[test]
    fn a_drained_home_is_asked_whether_it_holds_the_key_still() {
        let set = databases(&NAMES);
        let home = set.home_of("mail", "k").expect("there are some");
        home.order(Order::Draining, true).expect("answers");
        let route = route_of(&set, &job().uniqkey("k"));
        assert!(route.former_homes.len() == 1 && Arc::ptr_eq(&route.former_homes[0], &home));
        assert!(route.candidates.len() == 1 && !Arc::ptr_eq(&route.candidates[0], &home));
        for name in NAMES {
            let database = set.find(name).expect("is there");
            database.order(Order::Draining, true).expect("answers");
        }
        let route = route_of(&set, &job().uniqkey("k"));
        assert_eq!((route.candidates.len(), route.former_homes.len()), (0, 3));
    }

    #[test]
    fn only_a_job_that_cannot_go_elsewhere_has_a_home() {
        let many = client(databases(&NAMES));
        assert_eq!(home(&many, &job()).expect("answers"), None);
        assert_eq!(home(&many, &job().database("two")).expect("is there").as_deref(), Some("two"));
        assert!(home(&many, &job().uniqkey("k")).expect("answers").is_some());
        let single = client(databases(&["one"]));
        assert_eq!(home(&single, &job()).expect("answers").as_deref(), Some("one"));
    }
}
