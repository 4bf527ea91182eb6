//! Whether all is as it should be, within limits of the caller's: for probes, load balancers and alerts.

use std::fmt;
use std::time::Duration;

use super::overview::{Overview, overview};
use crate::database::everywhere::PerDatabase;
use crate::database::set::Databases;
use crate::error::Error;

/// What counts as healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthLimits {
    /// How long each database has to answer. Default: 1 s.
    pub within: Duration,
    /// For how long a job may be ready: since it was enqueued, due or put back. Default: no limit.
    pub oldest_ready: Option<Duration>,
    /// How many jobs may be ready in one database. They are counted up to 10,000. Default: no limit.
    pub ready: Option<u64>,
    /// For how long a lease may be over that nobody took back. Default: 5 minutes.
    pub lease_overdue: Option<Duration>,
    /// Whether worker processes are looked at: one must live where jobs wait, and none may be silent for longer than it promised.
    /// Default: yes.
    pub workers: bool,
}

impl Default for HealthLimits {
    fn default() -> Self {
        Self {
            within: Duration::from_secs(1),
            oldest_ready: None,
            ready: None,
            lease_overdue: Some(Duration::from_secs(300)),
            workers: true,
        }
    }
}

/// What is not as it should be in one database.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ailment {
    /// It did not answer in time, or is down.
    NoAnswer(Error),
    /// A job has been ready for so long, longer than it may be.
    OldJob(Duration),
    /// So many jobs are ready, or more: more than may be.
    ManyJobs(u64),
    /// A lease has been over for so long, and nobody took it back.
    OldLease(Duration),
    /// Jobs wait, and no worker process lives.
    NoWorker,
    /// So many worker processes are silent for longer than they promised.
    SilentWorkers(usize),
}

impl Ailment {
    /// The word for programs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NoAnswer(_) => "no_answer",
            Self::OldJob(_) => "old_job",
            Self::ManyJobs(_) => "many_jobs",
            Self::OldLease(_) => "old_lease",
            Self::NoWorker => "no_worker",
            Self::SilentWorkers(_) => "silent_workers",
        }
    }
}

impl fmt::Display for Ailment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(error) => {
                write!(f, "no answer: {}", crate::tools::causes::with_causes(error))
            }
            Self::OldJob(age) => {
                write!(f, "a job has been ready for {} s", age.as_secs())
            }
            Self::ManyJobs(count) => write!(f, "{count} jobs are ready, or more"),
            Self::OldLease(age) => {
                write!(f, "a lease has been over for {} s, and nobody took it back", age.as_secs())
            }
            Self::NoWorker => f.write_str("jobs wait, and no worker process lives"),
            Self::SilentWorkers(count) => write!(f, "{count} worker processes are silent"),
        }
    }
}

/// Asks all databases at the same time, the spool included.
pub(crate) fn health(databases: &Databases, limits: &HealthLimits) -> Vec<(String, Vec<Ailment>)> {
    let judge = |on: PerDatabase<Overview>| {
        let ailments = match on.answer {
            // The spool has no workers, and its jobs wait for a database.
            Ok(seen) => {
                let is_spool =
                    databases.found(&on.database).is_ok_and(|one| databases.is_spool(&one));
                of_one(&seen, limits, is_spool)
            }
            Err(error) => vec![Ailment::NoAnswer(error)],
        };
        (on.database, ailments)
    };
    overview(databases, limits.within).into_iter().map(judge).collect()
}

/// What is ordered is no ailment: where a database is paused, or a queue or an ability in it, jobs may wait.
fn of_one(seen: &Overview, limits: &HealthLimits, is_spool: bool) -> Vec<Ailment> {
    let mut all = Vec::new();
    let (ready, scheduled) = (seen.depth.ready.count, seen.depth.scheduled.count);
    let over = |age: Option<Duration>, limit: Option<Duration>| {
        age.zip(limit).filter(|(age, limit)| age > limit).map(|(age, _)| age)
    };
    if !seen.paused {
        // Jobs of paused queues and abilities have no age.
        all.extend(over(seen.ages.ready, limits.oldest_ready).map(Ailment::OldJob));
    }
    if !seen.paused && seen.pauses.is_empty() {
        all.extend(limits.ready.filter(|limit| ready > *limit).map(|_| Ailment::ManyJobs(ready)));
        // Without a worker nothing that is due becomes ready either.
        if limits.workers && !is_spool && ready + scheduled > 0 && seen.workers == 0 {
            all.push(Ailment::NoWorker);
        }
    }
    all.extend(over(seen.ages.overdue, limits.lease_overdue).map(Ailment::OldLease));
    if limits.workers && seen.silent_workers > 0 {
        all.push(Ailment::SilentWorkers(seen.silent_workers));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Ages, Bounded, Depth};

    fn seen(ready: u64, workers: usize, ages: Ages) -> Overview {
        let none = Bounded::default();
        let depth = Depth::new(Bounded { count: ready, more: false }, none, none, none);
        Overview {
            depth,
            ages,
            draining: false,
            paused: false,
            pauses: Vec::new(),
            workers,
            silent_workers: 0,
        }
    }

    fn words(seen: &Overview, limits: &HealthLimits) -> Vec<&'static str> {
        of_one(seen, limits, false).iter().map(Ailment::as_str).collect()
    }

    #[test]
    fn what_is_beyond_a_limit_is_named_and_what_is_ordered_is_not() {
        let minute = Duration::from_secs(60);
        let ages = Ages::new(Some(minute), Some(minute));
        let usual = HealthLimits::default();
        assert!(words(&seen(7, 1, ages), &usual).is_empty());
        assert_eq!(words(&seen(7, 0, ages), &usual), ["no_worker"]);
        assert!(words(&seen(0, 0, Ages::default()), &usual).is_empty());
        let strict = HealthLimits {
            oldest_ready: Some(minute / 2),
            ready: Some(6),
            lease_overdue: Some(minute / 2),
            workers: false,
            ..usual.clone()
        };
        assert_eq!(words(&seen(7, 0, ages), &strict), ["old_job", "many_jobs", "old_lease"]);
        let paused = Overview { paused: true, ..seen(7, 0, ages) };
        assert_eq!(words(&paused, &strict), ["old_lease"]);
        let part = crate::driver::Part::Queue("gl.*".to_owned());
        let order = crate::driver::Pause::new(part, "", crate::tools::time::utc_now());
        let half = Overview { pauses: vec![order], ..seen(7, 0, ages) };
        assert_eq!(words(&half, &strict), ["old_job", "old_lease"]);
        let late = Depth { scheduled: Bounded { count: 1, more: false }, ..Depth::default() };
        assert_eq!(words(&Overview { depth: late, ..seen(0, 0, ages) }, &usual), ["no_worker"]);
        let silent = Overview { silent_workers: 2, ..seen(0, 1, Ages::default()) };
        assert_eq!(words(&silent, &usual), ["silent_workers"]);
        assert!(of_one(&seen(7, 0, ages), &usual, true).is_empty(), "of a spool");
    }
}
