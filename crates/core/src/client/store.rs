//! Tries one database after another until one stores the jobs.

use std::sync::Arc;
use std::time::Duration;

use super::Client;
use super::route::{DRAINING, Route};
use super::spool::spool_jobs;
use crate::database::Database;
use crate::database::inserter::insert_limit;
use crate::driver::{DriverError, ErrorKind, Inserted, JobRecord};
use crate::error::{DownReason, Error};
use crate::observe::Event;
use crate::tools::causes::with_causes;
use crate::tools::random::jitter;
use crate::tools::threads::sleep;
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
    let mut refused = Vec::new();
    let mut left = route.candidates.len();
    let budget = Budget::new(route, jobs.len(), until);
    for database in &route.candidates {
        left -= 1;
        if let Some(reason) = database.reason() {
            pass_over(database, reason);
            continue;
        }
        let Some(until) = budget.until(database, left) else {
            pass_over(database, "it owes an answer".to_owned());
            continue;
        };
        let (answer, repeated) = match database.orders_within(time_left(until)) {
            Ok(control) if control.draining => {
                pass_over(database, DRAINING.to_owned());
                continue;
            }
            Ok(_) => insert_at(database, jobs, until),
            Err(error) => (Err(error), false),
        };
        if repeated {
            doubtful.push(Arc::clone(database));
        }
        match answer {
            Ok(answers) => {
                let (database, key_may_double) = (Arc::clone(database), !route.home_only);
                return Ok(Stored { answers, database, doubtful, key_may_double, begun });
            }
            // Nor is it tried elsewhere when the repetition met an error of another kind.
            Err(error)
                if error.is_ambiguous() && !(route.failover_when_uncertain && error.is_down()) =>
            {
                for job in &**jobs {
                    let (job, database) = (job.id, &*database.name);
                    client.program.tell(|| Event::Uncertain { job, database });
                }
                return Err(Error::Uncertain {
                    database: database.name.to_string(),
                    job: jobs[0].id,
                    source: error,
                });
            }
            Err(error) if error.is_down() => {
                if error.is_ambiguous() && !repeated {
                    doubtful.push(Arc::clone(database));
                }
                pass_over(database, with_causes(&error));
            }
            Err(error) if refuses(&error) => {
                pass_over(database, with_causes(&error));
                refused.push(Error::database(&database.name, "store a job", error));
            }
            Err(error) => return Err(Error::database(&database.name, "store a job", error)),
        }
    }
    // None is merely away: whoever runs this has to mend something.
    if refused.len() == route.candidates.len()
        && let Some(first) = refused.into_iter().next()
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

/// Whether the database is at fault and not the job: its tables are missing or of another version, or the
/// account lacks a right. Another database may take the job.
fn refuses(error: &DriverError) -> bool {
    matches!(error.kind(), ErrorKind::Schema | ErrorKind::Permission)
}

/// How soon an insert is repeated whose answer was lost.
const REPEAT_AFTER: Duration = Duration::from_millis(100);

/// Inserts, and repeats by id when the answer was lost: nothing is stored twice while the job lives,
/// and it turns most uncertain answers into certain ones. The server may be restarting, so it is
/// repeated for as long as there is time: stored elsewhere too soon, the job would run twice. A
/// database that hangs is not asked a second time. Tells whether it repeated: should the first have
/// been stored, and the job have run and ended before the second, it runs again.
fn insert_at(
    database: &Arc<Database>,
    jobs: &Arc<Vec<JobRecord>>,
    until: Instant,
) -> (Result<Vec<Inserted>, DriverError>, bool) {
    let epoch = database.health.epoch();
    let mut answer = database.insert(jobs, time_left(until));
    let is_unknown =
        |error: &DriverError| error.is_ambiguous() && error.is_down() && !error.is_hung();
    let repeated = answer.as_ref().is_err_and(is_unknown);
    if repeated {
        log::info!("database {:?} broke off an insert; repeating it by id", &*database.name);
    }
    let mut pause = Duration::ZERO;
    while repeated
        && answer.as_ref().is_err_and(|error| error.is_down() && !error.is_hung())
        // A repetition without the time for an answer would only look like a server that hangs.
        && time_left(until) > pause + 2 * REPEAT_AFTER
    {
        sleep(jitter(pause));
        pause = REPEAT_AFTER;
        // Whatever becomes of the repetition, the first attempt may have been committed.
        answer = database.insert(jobs, time_left(until)).map_err(|again| again.ambiguous(true));
    }
    if let Err(error) = &answer {
        database.note_error(error, epoch);
    }
    (answer, repeated)
}
