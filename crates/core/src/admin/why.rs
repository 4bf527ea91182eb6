//! Why one job does not run, or how it ended.

use std::time::Duration;

use chrono::{DateTime, Utc};
use qudo_hooks::JobId;

use crate::database::set::Databases;
use crate::driver::{
    Bounded, Driver, DriverError, Ending, Exception, ExceptionFilter, JobInfo, JobState, Remains,
    Trail, WorkerId, WorkerSeen,
};
use crate::error::Error;
use crate::tools::time::utc_now;

/// The jobs ahead of one that waits are counted up to this: asking costs the same for a million of them.
const AHEAD_BOUND: u64 = 10_000;

/// What [`Manager::why`](crate::Manager::why) answers: where a job stands, and the one reason for it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Explanation {
    /// The job.
    pub job: JobId,
    /// The short name of the database that knows the job; `None` where no database knows it.
    pub database: Option<String>,
    /// The job, if it is live.
    pub info: Option<JobInfo>,
    /// The last failure of the job, if the exception log has one.
    pub failure: Option<Exception>,
    /// Why the job does not run, or how it ended.
    pub reason: Reason,
}

/// Why a job does not run, or how it ended.
///
/// Of several reasons it is the one that has to go first: a job that is not due waits for its time whether or not
/// its database is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It runs: a worker process holds its lease.
    Running {
        /// The worker process.
        worker: WorkerId,
        /// Its name; `None` where the database does not know it, as after its death.
        name: Option<String>,
        /// When the lease ends.
        until: DateTime<Utc>,
    },
    /// The worker process that holds its lease is silent for longer than it promised. Another process takes the job
    /// back; where none works, the job waits for one.
    WorkerSilent {
        /// The worker process.
        worker: WorkerId,
        /// Its name; `None` where the database does not know it any more.
        name: Option<String>,
        /// For how long it has been silent, if the database knows it.
        silent: Option<Duration>,
        /// When the lease ends.
        until: DateTime<Utc>,
    },
    /// It is not due: it was enqueued with a delay, put off, or rescheduled.
    NotDue {
        /// The instant.
        run_after: DateTime<Utc>,
    },
    /// It failed, and waits for its next attempt; [`Explanation::failure`] says why.
    Retrying {
        /// The instant.
        run_after: DateTime<Utc>,
    },
    /// It is on its way to another database. A move that was broken off is continued by the next call of
    /// [`Manager::move_jobs`](crate::Manager::move_jobs).
    Moving,
    /// It lies in the spool of this process, and goes to a database when one takes it.
    Spooled,
    /// The database is paused: [`Manager::resume`](crate::Manager::resume) ends that.
    DatabasePaused,
    /// No worker process works the database.
    NoWorker,
    /// No worker process that works the database has the ability.
    NoWorkerHasAbility,
    /// Worker processes have the ability, and none of them works the queue.
    NoWorkerServesQueue,
    /// Other jobs of its queue come first; with none ahead it is the next one. Jobs that nobody can do count too.
    Queued {
        /// How many.
        ahead: Bounded,
    },
    /// It completed, with this number of replies.
    Completed {
        /// How many replies are still kept.
        replies: usize,
    },
    /// It failed for good; [`Explanation::failure`] says why.
    Failed {
        /// The id under which it was enqueued again.
        redriven_as: Option<JobId>,
        /// The live job that holds its unique key: a redrive is refused as long as it lives.
        key_held_by: Option<JobId>,
    },
    /// It ended without being run to its end.
    Removed {
        /// How.
        ending: Ending,
    },
    /// It was moved to a database that this manager does not have, or that does not know the job any more.
    Moved {
        /// The short name of that database, or its id where the manager does not have it.
        to: String,
    },
    /// No database knows it: it completed without a reply and without a job status, or was never stored, or its
    /// traces were older than they are kept.
    Unknown,
}

/// What one database knows of a job.
struct Known {
    info: Option<JobInfo>,
    failure: Option<Exception>,
    reason: Reason,
}

/// Asks all databases at the same time.
pub(crate) fn why(databases: &Databases, id: JobId) -> Result<Explanation, Error> {
    let is_trail = |known: &Known| matches!(known.reason, Reason::Moved { .. });
    let ask = move |driver: &dyn Driver| ask(driver, id);
    let found = databases.best("explain a job", ask, is_trail, None)?;
    let Some((name, Known { info, failure, mut reason })) = found else {
        let (database, info, failure, reason) = (None, None, None, Reason::Unknown);
        return Ok(Explanation { job: id, database, info, failure, reason });
    };
    let is_spool = databases.found(&name).is_ok_and(|database| databases.is_spool(&database));
    if is_spool && info.is_some() && !matches!(reason, Reason::Moving) {
        reason = Reason::Spooled;
    }
    if let Reason::Moved { to } = &mut reason
        && let Some(database) = databases.find_identity(to)
    {
        *to = database.name.to_string();
    }
    Ok(Explanation { job: id, database: Some(name), info, failure, reason })
}

/// What this database knows. Once the job is seen gone, everything that its end wrote is there, because both happen in
/// one transaction; so whether it lives is asked first.
fn ask(driver: &dyn Driver, id: JobId) -> Result<Option<Known>, DriverError> {
    if let Some(info) = driver.lookup(id)? {
        return alive(driver, info).map(Some);
    }
    if let Some(ended) = ended(driver, id)? {
        return Ok(Some(ended));
    }
    match driver.trail(id)? {
        Some(Trail { to: Some(to), .. }) => {
            let reason = Reason::Moved { to };
            Ok(Some(Known { info: None, failure: last_failure(driver, id)?, reason }))
        }
        // It may have come back since the first look.
        Some(Trail { to: None, .. }) => match driver.lookup(id)? {
            Some(info) => alive(driver, info).map(Some),
            None => ended(driver, id),
        },
        None => Ok(None),
    }
}

fn alive(driver: &dyn Driver, info: JobInfo) -> Result<Known, DriverError> {
    let failure = match info.attempt {
        0 => None,
        _ => last_failure(driver, info.id)?,
    };
    let reason = match info.state {
        JobState::Running { worker, until } => running(worker, until, &driver.workers()?),
        JobState::Moving => Reason::Moving,
        JobState::Scheduled { run_after } if run_after > utc_now() => {
            not_due(run_after, &info, failure.as_ref())
        }
        JobState::Scheduled { run_after } => {
            // By this machine's clock it is due, so somebody should make it ready; by the database's it may not be.
            let held = held_back(driver, &info)?;
            held.unwrap_or_else(|| not_due(run_after, &info, failure.as_ref()))
        }
        JobState::Ready => match held_back(driver, &info)? {
            Some(reason) => reason,
            None => Reason::Queued { ahead: driver.ahead(&info, AHEAD_BOUND)? },
        },
    };
    Ok(Known { info: Some(info), failure, reason })
}

/// Who waits for a retry failed in its last run; who was put off after a failure, in an earlier one.
fn not_due(run_after: DateTime<Utc>, info: &JobInfo, failure: Option<&Exception>) -> Reason {
    match failure {
        Some(failure) if failure.attempt == info.attempt => Reason::Retrying { run_after },
        _ => Reason::NotDue { run_after },
    }
}

fn running(worker: WorkerId, until: DateTime<Utc>, workers: &[WorkerSeen]) -> Reason {
    let seen = workers.iter().find(|one| one.info.id == worker);
    let name = seen.map(|one| one.info.name.to_string());
    match seen {
        Some(seen) if lives(seen) => Reason::Running { worker, name, until },
        _ => Reason::WorkerSilent { worker, name, silent: seen.map(|one| one.silent), until },
    }
}

/// Why nobody takes a job that is due.
fn held_back(driver: &dyn Driver, job: &JobInfo) -> Result<Option<Reason>, DriverError> {
    if driver.control()?.paused {
        return Ok(Some(Reason::DatabasePaused));
    }
    Ok(without_worker(job, &driver.workers()?))
}

/// Why none of these worker processes can take the job.
fn without_worker(job: &JobInfo, workers: &[WorkerSeen]) -> Option<Reason> {
    let mut live = workers.iter().filter(|one| lives(one)).peekable();
    if live.peek().is_none() {
        return Some(Reason::NoWorker);
    }
    let has = |one: &&WorkerSeen| one.info.abilities.contains(&job.facts.ability);
    let mut able = live.filter(has).peekable();
    if able.peek().is_none() {
        return Some(Reason::NoWorkerHasAbility);
    }
    let serves = able.any(|one| one.info.queues.contains(&job.facts.queue));
    (!serves).then_some(Reason::NoWorkerServesQueue)
}

fn lives(worker: &WorkerSeen) -> bool {
    worker.silent <= worker.info.dead_after
}

/// How a job ended that is not live.
fn ended(driver: &dyn Driver, id: JobId) -> Result<Option<Known>, DriverError> {
    let Remains { replies, ending } = driver.remains(id)?;
    // Rows are in the order of the clocks of several machines: the last one need not be the one with which it ended.
    let failure = match failure_of(driver, id, true)? {
        None => last_failure(driver, id)?,
        discarded => discarded,
    };
    let discarded = failure.as_ref().filter(|failure| failure.discarded);
    let reason = if !replies.is_empty() {
        Reason::Completed { replies: replies.len() }
    } else if let Some(ending) = ending {
        Reason::Removed { ending }
    } else if let Some(failure) = discarded {
        let key_held_by = match &failure.facts.uniqkey {
            Some(key) => driver.holder(&failure.facts.ability, key)?,
            None => None,
        };
        Reason::Failed { redriven_as: failure.redriven_as, key_held_by }
    } else {
        let status = driver.status(id)?;
        let is_end = |word: &str| matches!(word, "completed" | "replaced");
        if status.last().is_none_or(|last| !is_end(&last.status)) {
            return Ok(None);
        }
        Reason::Completed { replies: 0 }
    };
    Ok(Some(Known { info: None, failure, reason }))
}

fn last_failure(driver: &dyn Driver, id: JobId) -> Result<Option<Exception>, DriverError> {
    failure_of(driver, id, false)
}

fn failure_of(
    driver: &dyn Driver,
    id: JobId,
    discarded_only: bool,
) -> Result<Option<Exception>, DriverError> {
    let filter =
        ExceptionFilter { job: Some(id), discarded_only, limit: 1, ..ExceptionFilter::default() };
    Ok(driver.exceptions(&filter)?.pop())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{JobFacts, WorkerInfo};
    use crate::fixture::SOON;

    fn job(state: JobState) -> JobInfo {
        let facts = JobFacts::new("mail", "post", "json", Vec::new());
        JobInfo::new(JobId::new(), facts, 2, utc_now(), state)
    }

    fn seen(queue: &str, ability: &str, silent: Duration) -> WorkerSeen {
        let info = WorkerInfo {
            abilities: vec![ability.into()].into(),
            queues: vec![queue.into()].into(),
            ..WorkerInfo::new("host:1", SOON)
        };
        WorkerSeen { info, seen_at: utc_now(), silent }
    }

    #[test]
    fn a_job_is_held_back_unless_one_live_process_has_its_ability_and_serves_its_queue() {
        let job = job(JobState::Ready);
        let (now, silent) = (Duration::ZERO, SOON * 2);
        let held = |workers: &[WorkerSeen]| without_worker(&job, workers);
        assert_eq!(held(&[]), Some(Reason::NoWorker));
        assert_eq!(held(&[seen("post", "mail", silent)]), Some(Reason::NoWorker));
        let other = seen("post", "scale", now);
        assert_eq!(held(std::slice::from_ref(&other)), Some(Reason::NoWorkerHasAbility));
        let elsewhere = seen("images", "mail", now);
        assert_eq!(held(&[other.clone(), elsewhere]), Some(Reason::NoWorkerServesQueue));
        assert_eq!(held(&[other, seen("post", "mail", now)]), None);
    }

    #[test]
    fn who_holds_a_lease_works_until_it_is_silent_for_too_long() {
        let (until, living) = (utc_now(), seen("post", "mail", SOON));
        let worker = living.info.id;
        let name = Some("host:1".to_owned());
        let reason = running(worker, until, std::slice::from_ref(&living));
        assert_eq!(reason, Reason::Running { worker, name: name.clone(), until });
        let silent = WorkerSeen { silent: SOON * 2, ..living };
        let reason = running(worker, until, &[silent]);
        assert_eq!(reason, Reason::WorkerSilent { worker, name, silent: Some(SOON * 2), until });
        let reason = running(worker, until, &[]);
        assert_eq!(reason, Reason::WorkerSilent { worker, name: None, silent: None, until });
    }

    #[test]
    fn a_wait_is_that_for_a_retry_only_after_the_run_that_failed() {
        let run_after = utc_now();
        let waits = job(JobState::Scheduled { run_after });
        let failed = |attempt| {
            let (id, kind) = (crate::driver::ExceptionId::new(), qudo_hooks::FailureKind::Error);
            let worker = WorkerId::new();
            let row =
                Exception::new(id, waits.id, waits.facts.clone(), kind, "no", worker, utc_now());
            Exception { attempt, ..row }
        };
        assert_eq!(not_due(run_after, &waits, Some(&failed(2))), Reason::Retrying { run_after });
        assert_eq!(not_due(run_after, &waits, Some(&failed(1))), Reason::NotDue { run_after });
        assert_eq!(not_due(run_after, &waits, None), Reason::NotDue { run_after });
    }
}
