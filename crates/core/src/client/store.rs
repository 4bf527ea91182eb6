//! Tries one database after another until one stores the jobs.

use std::sync::Arc;
use std::time::Duration;

use super::Client;
use super::route::Route;
use super::spool::spool_jobs;
use crate::database::Database;
use crate::database::attempt::{Attempt, DRAINING, Tried};
use crate::database::inserter::insert_limit;
use crate::driver::{DriverError, Inserted, JobRecord};
use crate::error::{DownReason, Error};
use crate::observe::Event;
use crate::tools::causes::with_causes;
use crate::tools::time::{Instant, SystemTime};

/// Where jobs were stored, one answer for each.
pub(super) struct Stored {
    pub(super) answers: Vec<Inserted>,
    pub(super) database: Arc<Database>,
    /// Databases that may have stored them too, before they failed.
    pub(super) doubtful: Vec<Arc<Database>>,
    pub(super) key_may_double: bool,
    pub(super) begun: SystemTime,
}

/// Tries the candidates in order until one stores the jobs.
pub(super) fn store(
    client: &Client,
    jobs: &Arc<Vec<JobRecord>>,
    route: &Route,
    until: Instant,
) -> Result<Stored, Error> {
    let begun = SystemTime::now();
    let (mut reasons, mut doubtful) = (Vec::new(), Vec::new());
    let mut pass_over = |database: &Arc<Database>, reason: String| {
        reasons.push(DownReason { database: database.name.to_string(), reason });
    };
    if route.candidates.is_empty() {
        route.former_homes.iter().for_each(|one| pass_over(one, DRAINING.to_owned()));
    }
    let mut unfit = Vec::new();
    let budget = Budget::new(route, jobs.len(), until);
    for (nth, database) in route.candidates.iter().enumerate() {
        let others = route.candidates.len() - nth - 1;
        let Some(until) = budget.until(database, others) else {
            let slow = || "it has not answered for a while".to_owned();
            pass_over(database, database.reason().unwrap_or_else(slow));
            continue;
        };
        let Tried { outcome, repeated } = database.store(jobs, until);
        if repeated {
            doubtful.push(Arc::clone(database));
        }
        match outcome {
            Attempt::Stored(answers) => {
                let (database, key_may_double) = (Arc::clone(database), !route.home_only);
                return Ok(Stored { answers, database, doubtful, key_may_double, begun });
            }
            Attempt::Away(reason) => pass_over(database, reason),
            // It is not tried elsewhere either when the repetition met an error of another kind.
            Attempt::Uncertain(error) if !(route.failover_when_uncertain && error.is_down()) => {
                return Err(uncertain(client, jobs, database, error));
            }
            Attempt::Uncertain(error) => {
                if !repeated {
                    doubtful.push(Arc::clone(database));
                }
                pass_over(database, with_causes(&error));
            }
            Attempt::Unfit(error) => {
                pass_over(database, with_causes(&error));
                unfit.push(Error::database(&database.name, "store a job", error));
            }
            Attempt::Failed(error) => {
                return Err(Error::database(&database.name, "store a job", error));
            }
        }
    }
    // None is merely away: whoever runs this has to mend something.
    if unfit.len() == route.candidates.len()
        && let Some(first) = unfit.into_iter().next()
    {
        return Err(first);
    }
    if !doubtful.is_empty() {
        for job in &**jobs {
            client.program.tell(|| Event::Uncertain { job: job.id, database: &doubtful[0].name });
        }
    }
    if let Some(why) = why_no_other(client, route) {
        for one in &mut reasons {
            one.reason.push_str(why);
        }
    }
    let (answers, database) = spool_jobs(client, jobs, route, Error::AllDatabasesDown(reasons))?;
    Ok(Stored { answers, database, doubtful, key_may_double: !route.home_only, begun })
}

/// Why the job could not go to another database, where there are others.
fn why_no_other(client: &Client, route: &Route) -> Option<&'static str> {
    if client.databases.all().len() < 2 {
        None
    } else if route.home_only {
        Some(
            "; it is the home of the job's unique key, and no other may take the job unless that says \
             UniqPolicy::Available",
        )
    } else if !route.may_spool {
        Some("; the job names this database, so no other may take it")
    } else {
        None
    }
}

/// The jobs may be stored there or not, and nobody knows.
fn uncertain(
    client: &Client,
    jobs: &[JobRecord],
    database: &Database,
    source: DriverError,
) -> Error {
    let name = &*database.name;
    for job in jobs {
        client.program.tell(|| Event::Uncertain { job: job.id, database: name });
    }
    Error::Uncertain { database: name.to_owned(), job: jobs[0].id, source }
}

/// The time of one enqueue: the limit of a call, however many databases do not answer. The first
/// that is asked gets most of it, because to leave a database that is merely slow risks that the
/// job is stored twice.
struct Budget {
    limit: Duration,
    until: Instant,
}

/// What is kept back for each of the other candidates: 1/5 of the limit, and never more than half of
/// what is left.
const OTHERS_SHARE: u32 = 5;

pub(super) fn time_left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

impl Budget {
    fn new(route: &Route, jobs: usize, until: Instant) -> Self {
        let limit = route.candidates.first().map_or(Duration::ZERO, |one| one.limit());
        Self { limit: insert_limit(limit, jobs), until }
    }

    /// The deadline of this candidate, after which `others` more are tried. A responsive database gets at least its
    /// share of the limit: with less it may commit after the caller stopped waiting, and the job be stored twice.
    fn until(&self, database: &Database, others: usize) -> Option<Instant> {
        let share = self.share(others);
        let least = self.limit / OTHERS_SHARE;
        if share < least && database.is_slow() {
            return (share > Duration::ZERO).then(|| Instant::now() + share);
        }
        Some(Instant::now() + share.max(least))
    }

    /// How long the next candidate may take when so many others come after it.
    fn share(&self, others: usize) -> Duration {
        let left = time_left(self.until);
        let kept = (self.limit / OTHERS_SHARE).saturating_mul(others as u32).min(left / 2);
        left.saturating_sub(kept)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::database::Settings;
    use crate::database::set::Databases;
    use crate::driver::{Driver, ErrorKind};
    use crate::fixture::{SOON, client, database_with, memory, records, settings};
    use crate::testing::FaultyDriver;

    fn error(kind: ErrorKind) -> DriverError {
        DriverError::new(kind, "no")
    }

    /// A driver whose inserts are all answered so, and how many there were.
    fn refusing(
        refuse: impl Fn() -> DriverError + Send + Sync + 'static,
    ) -> (Arc<dyn Driver>, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let driver = FaultyDriver::new(memory()).with_fault(move |call| match call {
            "insert" => {
                counted.fetch_add(1, Ordering::Relaxed);
                Err(refuse())
            }
            _ => Ok(()),
        });
        (Arc::new(driver), count)
    }

    /// Tries these one after the other.
    fn store_at(
        drivers: Vec<Arc<dyn Driver>>,
        failover: bool,
    ) -> (Result<Stored, Error>, Settings) {
        let settings = settings(SOON);
        let names = ["one", "two", "three"];
        let candidates: Vec<_> = names
            .iter()
            .zip(drivers)
            .map(|(name, driver)| database_with(name, driver, &settings))
            .collect();
        let set = Databases::new(candidates.clone(), None, settings.clone());
        let route = Route {
            candidates,
            former_homes: Vec::new(),
            failover_when_uncertain: failover,
            home_only: false,
            may_spool: true,
        };
        let until = Instant::now() + Duration::from_secs(1);
        (store(&client(set), &records(2), &route, until), settings)
    }

    fn name(stored: Result<Stored, Error>) -> String {
        stored.unwrap_or_else(|error| panic!("not stored: {error}")).database.name.to_string()
    }

    #[test]
    fn a_refusal_says_why_no_other_database_may_take_the_job() {
        for (home_only, may_spool, says) in [
            (true, true, "the home of the job's unique key"),
            (false, false, "the job names this database"),
            (false, true, ""),
        ] {
            let settings = settings(SOON);
            let (away, _) = refusing(|| error(ErrorKind::Down));
            let home = database_with("one", away, &settings);
            let other = database_with("two", memory(), &settings);
            let all = vec![Arc::clone(&home), other];
            let client = client(Databases::new(all, None, settings));
            let (candidates, failover_when_uncertain) = (vec![home], false);
            let former_homes = Vec::new();
            let route =
                Route { candidates, former_homes, failover_when_uncertain, home_only, may_spool };
            let until = Instant::now() + Duration::from_secs(1);
            let Err(error) = store(&client, &records(1), &route, until) else { panic!("stored") };
            let text = error.to_string();
            assert!(matches!(error, Error::AllDatabasesDown(_)), "{text}");
            assert_eq!(text.contains("no other may take"), !says.is_empty(), "{text}");
            assert!(text.contains(says), "{text}");
        }
    }

    #[test]
    fn the_first_that_can_has_the_jobs() {
        let (away, tries) = refusing(|| error(ErrorKind::Down));
        assert_eq!(name(store_at(vec![away, memory(), memory()], true).0), "two");
        assert_eq!(tries.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_database_that_lacks_tables_or_rights_is_passed_over_and_told_if_all_do() {
        let (unfit, _) = refusing(|| error(ErrorKind::Permission));
        assert_eq!(name(store_at(vec![Arc::clone(&unfit), memory()], true).0), "two");
        let (other, _) = refusing(|| error(ErrorKind::Permission));
        let Err(told) = store_at(vec![unfit, other], true).0 else { panic!("stored") };
        assert!(!told.is_down(), "whoever runs this has to mend something: {told}");
        let (unfit, _) = refusing(|| error(ErrorKind::Permission));
        let (away, _) = refusing(|| error(ErrorKind::Down));
        let Err(told) = store_at(vec![unfit, away], true).0 else { panic!("stored") };
        assert!(told.is_down(), "one of them may come back: {told}");
    }

    #[test]
    fn what_the_jobs_are_at_fault_for_is_tried_nowhere_else() {
        let (refuses, _) = refusing(|| error(ErrorKind::Other));
        let (never, tries) = refusing(|| error(ErrorKind::Other));
        let Err(told) = store_at(vec![refuses, never], true).0 else { panic!("stored") };
        assert!(matches!(told, Error::Database { database, .. } if database == "one"));
        assert_eq!(tries.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_uncertain_answer_lets_only_those_go_elsewhere_that_may_run_twice() {
        let lost = || error(ErrorKind::Down).ambiguous(true).hung(true);
        let (hangs, _) = refusing(lost);
        let stored = store_at(vec![hangs, memory()], true).0;
        let doubtful = stored.as_ref().map(|stored| stored.doubtful.len());
        assert_eq!(doubtful.ok(), Some(1));
        assert_eq!(name(stored), "two");
        let (hangs, _) = refusing(lost);
        let (never, tries) = refusing(|| error(ErrorKind::Other));
        let Err(told) = store_at(vec![hangs, never], false).0 else { panic!("stored") };
        assert!(matches!(told, Error::Uncertain { database, .. } if database == "one"));
        assert_eq!(tries.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn when_none_can_each_tells_why() {
        let drivers = || (0..3).map(|_| refusing(|| error(ErrorKind::Down)).0).collect();
        let Err(Error::AllDatabasesDown(reasons)) = store_at(drivers(), true).0 else {
            panic!("stored, or another error")
        };
        let names: Vec<_> = reasons.iter().map(|one| &*one.database).collect();
        assert_eq!(names, ["one", "two", "three"]);
        assert!(reasons.iter().all(|one| one.reason == "no"));
    }

    #[test]
    fn the_first_database_has_most_of_the_time_and_each_other_its_fifth() {
        let limit = Duration::from_secs(10);
        let budget = Budget { limit, until: Instant::now() + limit };
        let is_about = |left: Duration, seconds: f64| (left.as_secs_f64() - seconds).abs() < 0.5;
        assert!(is_about(budget.share(0), 10.0));
        assert!(is_about(budget.share(1), 8.0));
        assert!(is_about(budget.share(2), 6.0));
        assert!(is_about(budget.share(9), 5.0), "never less than half of what is left");
        let spent = Budget { limit, until: Instant::now() };
        assert_eq!(spent.share(1), Duration::ZERO);
        // One that owes no answer has its fifth all the same: it might store the job and nobody hear.
        let database = database_with("one", memory(), &settings(SOON));
        let until = spent.until(&database, 1).expect("has a share");
        assert!(is_about(time_left(until), 2.0));
        database.health.suspect(database.health.epoch());
        assert!(spent.until(&database, 1).is_none());
    }
}
