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
            pass_over(database, "it has not answered for a while".to_owned());
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
    let (answers, database) = spool_jobs(client, jobs, route, Error::AllDatabasesDown(reasons))?;
    Ok(Stored { answers, database, doubtful, key_may_double: !route.home_only, begun })
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

    /// Until when this candidate may take when so many others come after it. One that owes no
    /// answer always gets its share: with a moment only it might store the job and nobody hear.
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
