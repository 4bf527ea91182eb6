//! Why one job does not run, or how it ended.

use std::time::Duration;

use chrono::{DateTime, Utc};
use qudo_hooks::{FailureKind, JobId};

use crate::client::Client;
use crate::client::known::{self, Known};
use crate::driver::{
    Bounded, Driver, DriverError, Ending, Exception, ExceptionScan, JobInfo, JobState, Part, Pause,
    Trail, WorkerId, WorkerSeen,
};
use crate::error::Error;
use crate::lack::{Lack, lack};
use crate::tools::time::utc_now;

/// The jobs ahead of a waiting job are counted up to this number: asking costs the same for a million jobs.
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
    /// Why an operator cancelled the job, which runs still: its worker is told.
    pub cancelling: Option<String>,
}

/// Why a job does not run, or how it ended.
///
/// Of several reasons it is the reason that has to go first: a job that is not due waits for its time whether or not
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
    /// Its queue or its ability is paused in the database: [`Manager::resume_part`](crate::Manager::resume_part)
    /// ends that.
    PartPaused(Pause),
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
    /// An operator cancelled it; [`Explanation::failure`] tells more.
    Cancelled {
        /// Why.
        reason: String,
        /// The id under which it was enqueued again.
        redriven_as: Option<JobId>,
    },
    /// It completed without a reply, and this job took its place.
    Replaced {
        /// The job.
        by: JobId,
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

impl Reason {
    /// The word for listings.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Running { .. } => "running",
            Self::WorkerSilent { .. } => "worker_silent",
            Self::NotDue { .. } => "not_due",
            Self::Retrying { .. } => "retrying",
            Self::Moving => "moving",
            Self::Spooled => "spooled",
            Self::DatabasePaused => "database_paused",
            Self::PartPaused(Pause { part: Part::Queue(_), .. }) => "queue_paused",
            Self::PartPaused(_) => "ability_paused",
            Self::NoWorker => "no_worker",
            Self::NoWorkerHasAbility => "no_worker_has_ability",
            Self::NoWorkerServesQueue => "no_worker_serves_queue",
            Self::Queued { .. } => "queued",
            Self::Completed { .. } => "completed",
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
            Self::Replaced { .. } => "replaced",
            Self::Removed { .. } => "removed",
            Self::Moved { .. } => "moved",
            Self::Unknown => "unknown",
        }
    }
}

/// A job as one database explains it.
struct Explained {
    info: Option<JobInfo>,
    failure: Option<Exception>,
    reason: Reason,
    cancelling: Option<String>,
    /// It had a copy of the job, which was taken back: that the job was ever on its way from there is not said.
    was_copy: bool,
}

/// A job that is moved while it is looked for is followed so many times.
const MAX_MOVES: usize = 16;

/// Asks all databases at the same time.
pub(crate) fn why(client: &Client, id: JobId) -> Result<Explanation, Error> {
    let (databases, kept) = (&client.databases, client.program.options.keep.replies);
    let is_trail = |one: &Explained| matches!(one.reason, Reason::Moved { .. });
    let ask = move |driver: &dyn Driver| ask(driver, id, kept);
    let unknown = Explanation {
        job: id,
        database: None,
        info: None,
        failure: None,
        reason: Reason::Unknown,
        cancelling: None,
    };
    let Some((mut name, mut found)) = databases.best("explain a job", ask, is_trail, None)? else {
        return Ok(unknown);
    };
    // The database where a trail leads may be the one that did not answer, or was asked before the job came there.
    for _ in 0..MAX_MOVES {
        let Reason::Moved { to } = &found.reason else { break };
        let Some(database) = databases.find_identity(to) else { break };
        match database.begin("explain a job", ask).wait()? {
            Some(next) => (name, found) = (database.name.to_string(), next),
            None if found.was_copy => return Ok(unknown),
            None => break,
        }
    }
    let Explained { info, failure, mut reason, cancelling, .. } = found;
    let is_spool = databases.found(&name).is_ok_and(|database| databases.is_spool(&database));
    if is_spool && info.is_some() && reason != Reason::Moving {
        reason = Reason::Spooled;
    }
    if let Reason::Moved { to } = &mut reason
        && let Some(database) = databases.find_identity(to)
    {
        *to = database.name.to_string();
    }
    Ok(Explanation { job: id, database: Some(name), info, failure, reason, cancelling })
}

/// What this database says. A job that ends between two questions is asked for again.
fn ask(driver: &dyn Driver, id: JobId, kept: Duration) -> Result<Option<Explained>, DriverError> {
    let mut was_copy = false;
    let (failure, reason) = loop {
        let Some(known) = known::ask(driver, id, Some(kept))? else { return Ok(None) };
        break match known {
            Known::Lives(_) => match driver.lookup(id)? {
                Some(info) => return alive(driver, info).map(Some),
                None => continue,
            },
            Known::Failed(failure) => {
                let reason = failed(driver, &failure)?;
                (Some(*failure), reason)
            }
            other => {
                was_copy = matches!(&other, Known::Moved(trail) if trail.age.is_none());
                (last_failure(driver, id)?, ended(other))
            }
        };
    };
    Ok(Some(Explained { info: None, failure, reason, cancelling: None, was_copy }))
}

/// How a job ended that did not fail, or where it went.
fn ended(known: Known) -> Reason {
    match known {
        Known::Replies(replies) => Reason::Completed { replies: replies.len() },
        Known::Completed | Known::Expired => Reason::Completed { replies: 0 },
        Known::Replaced(by) => Reason::Replaced { by },
        Known::Removed(ending) => Reason::Removed { ending },
        Known::Moved(Trail { to: Some(to), .. }) => Reason::Moved { to },
        Known::Moved(Trail { to: None, .. }) | Known::Lives(_) | Known::Failed(_) => {
            Reason::Unknown
        }
    }
}

/// Under which id a failed job was redriven, and which live job forbids a redrive.
fn failed(driver: &dyn Driver, failure: &Exception) -> Result<Reason, DriverError> {
    if failure.kind == FailureKind::Cancelled {
        let (reason, redriven_as) = (failure.message.clone(), failure.redriven_as);
        return Ok(Reason::Cancelled { reason, redriven_as });
    }
    let key_held_by = match &failure.facts.uniqkey {
        Some(key) => driver.holder(&failure.facts.ability, key)?,
        None => None,
    };
    Ok(Reason::Failed { redriven_as: failure.redriven_as, key_held_by })
}

fn alive(driver: &dyn Driver, info: JobInfo) -> Result<Explained, DriverError> {
    let failure = match info.attempt {
        0 => None,
        _ => last_failure(driver, info.id)?,
    };
    let cancelling = match info.state {
        JobState::Running { worker, .. } => {
            let orders = driver.cancels(worker)?.into_iter();
            orders.filter(|order| order.job == info.id).map(|order| order.reason).next()
        }
        _ => None,
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
    Ok(Explained { info: Some(info), failure, reason, cancelling, was_copy: false })
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
        Some(seen) if seen.is_live() => Reason::Running { worker, name, until },
        _ => Reason::WorkerSilent { worker, name, silent: seen.map(|one| one.silent), until },
    }
}

/// Why nobody takes a job that is due.
fn held_back(driver: &dyn Driver, job: &JobInfo) -> Result<Option<Reason>, DriverError> {
    let control = driver.control()?;
    if control.paused {
        return Ok(Some(Reason::DatabasePaused));
    }
    if let Some(pause) = control.pause_of(&job.facts.queue, &job.facts.ability) {
        return Ok(Some(Reason::PartPaused(pause.clone())));
    }
    let lack = lack(&driver.workers()?, &job.facts.ability, &job.facts.queue);
    Ok(lack.map(|lack| match lack {
        Lack::Worker => Reason::NoWorker,
        Lack::Ability => Reason::NoWorkerHasAbility,
        Lack::Queue => Reason::NoWorkerServesQueue,
    }))
}

fn last_failure(driver: &dyn Driver, id: JobId) -> Result<Option<Exception>, DriverError> {
    Ok(driver.scan_exceptions(&ExceptionScan::last_of(id))?.pop())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::JobFacts;
    use crate::fixture::{SOON, seen};

    fn job(state: JobState) -> JobInfo {
        let facts = JobFacts::new("mail", "post", "json", Vec::new());
        JobInfo::new(JobId::new(), facts, 2, utc_now(), state)
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
