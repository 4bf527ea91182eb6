use qudo_hooks::JobId;
use uuid::Uuid;

use crate::tools::sync::mpsc;
use crate::tools::time::Instant;
use std::sync::Arc;
use std::time::Duration;

use super::Manager;
use super::asked::{Asked, LISTING};
use super::database::Database;
use crate::backoff::LONGEST_DELAY;
use crate::driver::{
    CountRow, Driver, DriverError, Due, Exception, ExceptionFilter, JobFilter, JobInfo, Redrive,
    StatusRow, WorkerSeen,
};
use crate::observe::Event;
use crate::{Error, NewJob, Ticket};

/// An answer that was given is handed over within this time.
const HANDED_OVER: Duration = Duration::from_secs(1);

/// Tells that a question was answered, or will not be, in whatever way it ended.
struct Ended(mpsc::Sender<usize>, usize);

impl Drop for Ended {
    fn drop(&mut self) {
        // Whoever asked may have what it wanted.
        let _gone = self.0.send(self.1);
    }
}

/// The answer of one database: listings say what they know even when one is dead.
#[derive(Debug)]
pub struct On<T> {
    /// The database's short name.
    pub database: String,
    /// Its answer, or why there is none.
    pub answer: Result<T, Error>,
}

/// Live jobs of one queue, ability and state, in one database.
pub type JobCount = CountRow;

/// Waiting jobs that no worker like this manager will ever run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Undoable {
    /// Their ability.
    pub ability: String,
    /// Their queue.
    pub queue: String,
    /// How many.
    pub count: u64,
    /// Why.
    pub reason: &'static str,
}

impl Manager {
    /// Compares the abilities and queues of this manager with the jobs that wait in the databases:
    /// which of them nobody like this one can do. For a check before a deploy.
    ///
    /// Counts all waiting jobs, which takes a while where there are millions.
    pub fn check_abilities(&self) -> Vec<On<Vec<Undoable>>> {
        let queues = self.queues();
        let undoable = |row: CountRow| {
            let reason = if !self.can_do(&row.ability) {
                "no ability of this name is linked"
            } else if !queues.iter().any(|queue| **queue == *row.queue) {
                "this queue is not worked"
            } else {
                return None;
            };
            let CountRow { ability, queue, count, .. } = row;
            Some(Undoable { ability, queue, count, reason })
        };
        let check = |on: On<Vec<CountRow>>| On {
            database: on.database,
            answer: on.answer.map(|rows| rows.into_iter().filter_map(undoable).collect()),
        };
        self.job_count().into_iter().map(check).collect()
    }

    /// Asks all databases at once, so that one that hangs holds up no other's answer.
    pub(super) fn on_each<T: Send + 'static>(
        &self,
        action: &'static str,
        ask: impl Fn(&dyn Driver) -> Result<T, DriverError> + Clone + Send + 'static,
    ) -> Vec<On<T>> {
        self.collect(action, ask, Asked::wait)
    }

    pub(super) fn collect<T: Send + 'static>(
        &self,
        action: &'static str,
        ask: impl Fn(&dyn Driver) -> Result<T, DriverError> + Clone + Send + 'static,
        wait: fn(Asked<T>) -> Result<T, Error>,
    ) -> Vec<On<T>> {
        let begun = self.begin_on_each(action, ask);
        let answer = |(database, asked): (Arc<Database>, _)| On {
            database: database.name.to_string(),
            answer: wait(asked),
        };
        begun.into_iter().map(answer).collect()
    }

    fn begin_on_each<T: Send + 'static>(
        &self,
        action: &'static str,
        ask: impl Fn(&dyn Driver) -> Result<T, DriverError> + Clone + Send + 'static,
    ) -> Vec<(Arc<Database>, Asked<T>)> {
        let begin = |database: Arc<Database>| {
            let asked = database.begin(action, ask.clone());
            (database, asked)
        };
        self.everywhere().into_iter().map(begin).collect()
    }

    /// The first database that knows; an error only if none knows and one could not say.
    pub(crate) fn first<T: Send + 'static>(
        &self,
        action: &'static str,
        ask: impl Fn(&dyn Driver) -> Result<Option<T>, DriverError> + Clone + Send + 'static,
    ) -> Result<Option<(String, T)>, Error> {
        self.best(action, ask, |_| false, None)
    }

    /// As [`first`](Self::first), within this time if there is one; a weak answer counts only where
    /// nobody has another.
    pub(crate) fn best<T: Send + 'static>(
        &self,
        action: &'static str,
        ask: impl Fn(&dyn Driver) -> Result<Option<T>, DriverError> + Clone + Send + 'static,
        is_weak: fn(&T) -> bool,
        limit: Option<Duration>,
    ) -> Result<Option<(String, T)>, Error> {
        let begun = Instant::now();
        let (mut failed, mut weak) = (None, None);
        // Answers are taken as they come: one that knows must not wait for one that hangs.
        let (tell, told) = mpsc::channel();
        let ask_one = |(at, database): (usize, Arc<Database>)| {
            let (ask, ended) = (ask.clone(), Ended(tell.clone(), at));
            let ask = move |driver: &dyn Driver| {
                let _ended = ended;
                ask(driver)
            };
            // Only who waits for a job's end has a limit, and a line for that.
            let asked = match limit {
                Some(_) => database.begin_ticket(action, ask),
                None => database.begin(action, ask),
            };
            Some((database, asked))
        };
        let mut asked: Vec<_> = self.everywhere().into_iter().enumerate().map(ask_one).collect();
        drop(tell);
        while asked.iter().any(Option::is_some) {
            let limits = asked.iter().flatten().map(|(database, _)| database.limit());
            let longest = limits.max().unwrap_or_default();
            let patience =
                limit.map_or(longest.saturating_mul(LISTING), |limit| limit.min(longest));
            let left = patience.saturating_sub(begun.elapsed());
            let next = told.recv_timeout(left).ok();
            // In time, or whichever is left when the time is over.
            let at = next.or_else(|| asked.iter().position(Option::is_some));
            let Some((database, asked_here)) = at.and_then(|at| asked[at].take()) else { continue };
            let answer = match (next, limit) {
                (Some(_), _) => asked_here.wait_at_most(HANDED_OVER),
                // Who waited for less than a call may take has no reason for suspicion.
                (None, Some(limit)) if limit < longest => asked_here.wait_at_most(Duration::ZERO),
                (None, _) => asked_here.wait_in_vain(),
            };
            let name = || database.name.to_string();
            match answer {
                Ok(Some(found)) if is_weak(&found) => weak = Some((name(), found)),
                Ok(Some(found)) => {
                    asked.into_iter().flatten().for_each(|(_, other)| other.abandon());
                    return Ok(Some((name(), found)));
                }
                Ok(None) => {}
                Err(error) => failed = Some(error),
            }
        }
        match (weak, failed) {
            (None, Some(error)) => Err(error),
            (weak, _) => Ok(weak),
        }
    }

    /// A live job with the short name of its database.
    ///
    /// # Errors
    ///
    /// When no database knows the job and one did not answer.
    pub fn lookup(&self, id: JobId) -> Result<Option<(String, JobInfo)>, Error> {
        self.first("look up a job", move |driver| driver.lookup(id))
    }

    /// The live job that holds a unique key, with the short name of its database.
    ///
    /// # Errors
    ///
    /// When no database knows the key and one did not answer.
    pub fn holder(&self, ability: &str, uniqkey: &str) -> Result<Option<(String, JobId)>, Error> {
        let (ability, uniqkey) = (ability.to_owned(), uniqkey.to_owned());
        self.first("look up a unique key", move |driver| driver.holder(&ability, &uniqkey))
    }

    /// Live jobs, one list per database. `limit` and `offset` count in each database.
    pub fn jobs(&self, filter: &JobFilter) -> Vec<On<Vec<JobInfo>>> {
        let filter = filter.clone();
        self.on_each("list jobs", move |driver| driver.list(&filter))
    }

    /// Live jobs counted by queue, ability and state, one list per database.
    pub fn job_count(&self) -> Vec<On<Vec<JobCount>>> {
        self.on_each("count jobs", Driver::count)
    }

    /// The worker processes that each database knows, with how long they have been silent.
    pub fn workers(&self) -> Vec<On<Vec<WorkerSeen>>> {
        self.on_each("list worker processes", Driver::workers)
    }

    /// Removes a live job that is not running; tells whether it did.
    ///
    /// # Errors
    ///
    /// When no database removed it and one did not answer.
    pub fn dequeue(&self, id: JobId) -> Result<bool, Error> {
        let removed =
            self.first("dequeue a job", move |driver| Ok(driver.dequeue(id)?.then_some(())))?;
        self.inner.waiters.note([id]);
        if removed.is_some() {
            self.tell(|| Event::Dropped { job: id });
        }
        Ok(removed.is_some())
    }

    /// Changes when a waiting job runs, keeping its id and its attempts; tells whether it did.
    /// A running job is left alone; a delay of more than a year is a year.
    ///
    /// # Errors
    ///
    /// When no database knows the job and one did not answer.
    pub fn reenqueue(&self, id: JobId, due: Due) -> Result<bool, Error> {
        let due = match due {
            Due::In(delay) => Due::In(delay.min(LONGEST_DELAY)),
            other => other,
        };
        let moved = self.first("reenqueue a job", move |driver| {
            Ok(driver.reschedule(id, due)?.then_some(()))
        })?;
        let Some((name, ())) = moved else {
            return Ok(false);
        };
        self.found(&name)?.bell.ring();
        Ok(true)
    }

    /// The exception log, newest first, one list per database. `limit` and `offset` count in each.
    pub fn exceptions(&self, filter: &ExceptionFilter) -> Vec<On<Vec<Exception>>> {
        let filter = filter.clone();
        self.on_each("read the exception log", move |driver| driver.exceptions(&filter))
    }

    /// Redrive: enqueues a discarded job again from the exception log, with its original argument
    /// and unique key, under a new id, in the same database. Once.
    ///
    /// # Errors
    ///
    /// When the row does not exist, was not the job's last failure, was redriven before, or its
    /// unique key is taken by a live job.
    pub fn enqueue_from_failed_job(&self, exception: Uuid) -> Result<Ticket, Error> {
        let refused = |reason: String| Error::NotRedrivable { exception, reason };
        let new = JobId::new();
        let found = self.first("redrive a job", move |driver| {
            Ok(Some(driver.redrive(exception, new)?).filter(|one| *one != Redrive::NotFound))
        })?;
        match found {
            Some((name, Redrive::Enqueued(job))) => {
                let database = self.found(&name)?;
                database.bell.ring();
                Ok(Ticket::new(self.clone(), job, Some(database)))
            }
            Some((_, Redrive::Already(job))) => Err(Error::AlreadyRedriven { exception, job }),
            Some((_, Redrive::Conflict(job))) => {
                Err(refused(format!("job {job} lives and holds its unique key")))
            }
            Some((_, Redrive::NotDiscarded)) => {
                Err(refused("it was not the job's last failure: the job was retried".to_owned()))
            }
            _ => Err(refused("no database has such a row".to_owned())),
        }
    }

    /// The history of a job whose ability asks for it with `set_job_status`, oldest first.
    ///
    /// # Errors
    ///
    /// When no database knows the job and one did not answer.
    pub fn job_status(&self, job: JobId) -> Result<Vec<StatusRow>, Error> {
        let found = self.first("read a job's status", move |driver| {
            Ok(Some(driver.status(job)?).filter(|rows| !rows.is_empty()))
        })?;
        Ok(found.map_or_else(Vec::new, |(_, rows)| rows))
    }

    /// The short name of the database where a new job would go if all are up: the key's home for
    /// a job with a unique key, the named one, or `None` when any will do.
    ///
    /// # Errors
    ///
    /// When the job names an unknown database.
    pub fn home(&self, job: &NewJob) -> Result<Option<String>, Error> {
        let longest = self.all().iter().map(|one| one.limit()).max().unwrap_or_default();
        let route = self.route(job, Instant::now() + longest)?;
        let fixed = job.database.is_some() || route.home_only || self.all().len() == 1;
        let home = route.candidates.first().filter(|_| fixed);
        Ok(home.map(|database| database.name.to_string()))
    }
}
