//! A job that is followed to its end, through moves and databases that are away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use qudo_hooks::JobId;

use super::Client;
use super::lookout::MIN_ANSWER;
use crate::database::Database;
use crate::driver::{
    Driver, DriverError, Ending, Exception, ExceptionFilter, JobState, Remains, ReplyRow, StatusRow,
};
use crate::error::Error;
use crate::tools::awake;
use crate::tools::time::Instant;

/// While nobody says where the job is, it is looked for everywhere this often.
const LOST: Duration = Duration::from_millis(100);

/// The longest that anybody waits, where no end of it can be reckoned.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// How long one look waits for an answer.
const CHECK_WITHIN: Duration = Duration::from_secs(10);

/// A job that was moved more often is not followed further.
const MAX_MOVES: usize = 10;

/// An answer of one database.
enum Known {
    Lives(JobState),
    Replies(Vec<ReplyRow>),
    /// Its history says so.
    Completed,
    Failed(Box<Exception>),
    Removed(Ending),
    Moved(String),
}

/// What is known of a job after a look at all places where it may be.
pub(super) enum Found {
    Lives(JobState),
    Completed(Vec<ReplyRow>),
    Failed(Box<Exception>),
    Removed(Ending),
    Unknown,
}

/// A job, where it is, and when it was alive.
pub(super) struct Tracked {
    pub(super) client: Arc<Client>,
    pub(super) id: JobId,
    pub(super) database: Option<Arc<Database>>,
    /// When the job was alive for sure, in milliseconds by [`awake::now`]; 0 if nobody saw it yet.
    alive: AtomicU64,
}

impl Clone for Tracked {
    fn clone(&self) -> Self {
        let alive = self.alive.load(Ordering::Relaxed);
        Self::new(&self.client, self.id, self.database.clone(), alive)
    }
}

impl Tracked {
    /// One that was stored there, or was found there by its key, after this instant by [`awake::now`].
    pub(super) fn stored(
        client: &Arc<Client>,
        id: JobId,
        database: Arc<Database>,
        asked: Duration,
    ) -> Self {
        Self::new(client, id, Some(database), millis(asked))
    }

    /// One of which nothing is known but its id.
    pub(super) fn of_id(client: &Arc<Client>, id: JobId) -> Self {
        Self::new(client, id, None, 0)
    }

    fn new(client: &Arc<Client>, id: JobId, database: Option<Arc<Database>>, alive: u64) -> Self {
        Self { client: Arc::clone(client), id, database, alive: AtomicU64::new(alive) }
    }

    /// Looks once how the job fares.
    pub(super) fn look_once(&self) -> Result<Found, Error> {
        self.look(CHECK_WITHIN, &mut self.database.clone())
    }

    /// Waits until the job completed; returns its replies.
    pub(super) fn wait_for_end(&self, limit: Duration) -> Result<Vec<ReplyRow>, Error> {
        let begun = Instant::now();
        let until = begun.checked_add(limit).unwrap_or_else(|| begun + FOR_EVER);
        let (mut database, mut seen) = (self.database.clone(), None);
        let waiters = &self.client.waiters;
        let mut watch = waiters.watch(self.id);
        loop {
            let job = self.id;
            match self.look(limit.saturating_sub(begun.elapsed()), &mut database) {
                Ok(Found::Lives(state)) => seen = Some(state),
                Ok(Found::Completed(replies)) => return Ok(replies),
                Ok(Found::Failed(exception)) => {
                    let Exception { attempt, message, .. } = *exception;
                    return Err(Error::JobFailed { job, attempt, message });
                }
                Ok(Found::Removed(ending)) => return Err(Error::JobRemoved { job, ending }),
                Ok(Found::Unknown) => return Err(Error::OutcomeUnknown { job }),
                // A dead database may come back with the answer; the limit bounds the wait.
                Err(error) if error.is_down() => {}
                Err(error) => return Err(error),
            }
            let left = limit.saturating_sub(begun.elapsed());
            if left.is_zero() {
                let database = database.map(|one| one.name.to_string());
                return Err(Error::WaitTimeout { job, after: limit, database, state: seen });
            }
            match &database {
                Some(database) => {
                    self.client.lookouts.wait(waiters, database, &mut watch, until);
                }
                None => drop(watch.wait_until(until.min(Instant::now() + LOST))),
            }
        }
    }

    /// Looks where the job is known to be, and follows it where it went; where it lives is known from then
    /// on.
    fn look(&self, limit: Duration, known: &mut Option<Arc<Database>>) -> Result<Found, Error> {
        let begun = awake::now();
        let (mut found, mut was_stored) = match known {
            Some(database) => self.follow(Arc::clone(database), limit, known)?,
            None => (None, false),
        };
        // What left the spool may live anywhere, and leaves no trail there when it was stored elsewhere before.
        let is_spool = |one: &Arc<Database>| self.client.databases.is_spool(one);
        if found.is_none() && known.as_ref().is_none_or(is_spool) {
            (found, was_stored) = self.look_everywhere(limit, known)?;
        }
        Ok(match found {
            Some(Known::Lives(state)) => {
                self.alive.fetch_max(millis(begun), Ordering::Relaxed);
                Found::Lives(state)
            }
            Some(Known::Replies(replies)) => Found::Completed(replies),
            Some(Known::Completed) => Found::Completed(Vec::new()),
            Some(Known::Failed(exception)) => Found::Failed(exception),
            Some(Known::Removed(ending)) => Found::Removed(ending),
            None if was_stored || self.is_certain() => Found::Completed(Vec::new()),
            Some(Known::Moved(_)) | None => Found::Unknown,
        })
    }

    /// Whether a job of which nothing is found has completed.
    fn is_certain(&self) -> bool {
        let alive = self.alive.load(Ordering::Relaxed);
        is_certain(alive, millis(awake::now()), self.client.program.options.keep.replies)
    }

    /// Asks this database, and those to which it says that the job was moved. Also tells whether there was such a
    /// trail, which is kept no longer than what the job's end left: then it was stored for certain.
    fn follow(
        &self,
        mut database: Arc<Database>,
        limit: Duration,
        known: &mut Option<Arc<Database>>,
    ) -> Result<(Option<Known>, bool), Error> {
        let ask = self.question();
        let mut was_moved = false;
        for _ in 0..MAX_MOVES {
            let asked = database.begin_ticket(ACTION, ask.clone());
            // One lost answer must not take all the time there is.
            match asked.wait_at_most(limit.min(database.limit()).max(MIN_ANSWER))? {
                Some(Known::Moved(to)) => database = self.moved_to(&to)?,
                found => {
                    *known = Some(database);
                    return Ok((found, was_moved));
                }
            }
            was_moved = true;
        }
        // Where it is now, nobody found out.
        Ok((Some(Known::Moved(String::new())), false))
    }

    fn look_everywhere(
        &self,
        limit: Duration,
        known: &mut Option<Arc<Database>>,
    ) -> Result<(Option<Known>, bool), Error> {
        let is_trail = |known: &Known| matches!(known, Known::Moved(_));
        let databases = &self.client.databases;
        let found =
            databases.best(ACTION, self.question(), is_trail, Some(limit.max(MIN_ANSWER)))?;
        match found {
            Some((_, Known::Moved(to))) => {
                let (found, _) = self.follow(self.moved_to(&to)?, limit, known)?;
                Ok((found, true))
            }
            Some((name, found)) => {
                if matches!(found, Known::Lives(_)) {
                    *known = databases.found(&name).ok();
                }
                Ok((Some(found), false))
            }
            None => Ok((None, false)),
        }
    }

    /// What a database is asked. Its history is not needed where the job is known to have been stored.
    fn question(
        &self,
    ) -> impl Fn(&dyn Driver) -> Result<Option<Known>, DriverError> + Clone + Send + Sync + 'static
    {
        let (job, history) = (self.id, !self.is_certain());
        move |driver| ask(driver, job, history)
    }

    fn moved_to(&self, identity: &str) -> Result<Arc<Database>, Error> {
        self.client.databases.find_identity(identity).ok_or_else(|| Error::DatabaseDown {
            database: format!("with the id {identity}"),
            reason: "the job was moved there, and it is none of the databases that answer"
                .to_owned(),
        })
    }
}

const ACTION: &str = "say how far a job is";

/// Whether a job that was alive then has completed if nothing is found of it now: it was alive not longer ago than all
/// other ends leave something that is found. A tenth of that time is given to clocks that do not agree.
fn is_certain(alive: u64, now: u64, kept: Duration) -> bool {
    alive != 0 && now.saturating_sub(alive) < millis(kept / 10 * 9)
}

/// Never 0, which says that there was no such moment.
fn millis(at: Duration) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// The order matters: once the job is seen gone, everything that its end wrote is there, because
/// both happen in one transaction.
fn ask(driver: &dyn Driver, job: JobId, history: bool) -> Result<Option<Known>, DriverError> {
    if let Some(state) = driver.state(job)? {
        return Ok(Some(Known::Lives(state)));
    }
    let Remains { replies, ending } = driver.remains(job)?;
    if !replies.is_empty() {
        return Ok(Some(Known::Replies(replies)));
    }
    if let Some(ending) = ending {
        return Ok(Some(Known::Removed(ending)));
    }
    let filter = ExceptionFilter {
        job: Some(job),
        discarded_only: true,
        limit: 1,
        ..ExceptionFilter::default()
    };
    if let Some(exception) = driver.exceptions(&filter)?.pop() {
        return Ok(Some(Known::Failed(Box::new(exception))));
    }
    if let Some(to) = driver.moved_to(job)? {
        return Ok(Some(Known::Moved(to)));
    }
    let is_done = |row: &StatusRow| matches!(&*row.status, "completed" | "replaced");
    let completed = history && driver.status(job)?.last().is_some_and(is_done);
    Ok(completed.then_some(Known::Completed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{client, databases};

    #[test]
    fn an_absence_says_something_for_nine_tenths_of_the_time_that_replies_are_kept() {
        let (kept, now) = (Duration::from_secs(1_000), 5_000_000);
        assert!(!is_certain(0, now, kept), "nobody saw it");
        for (ago, certain) in [(0, true), (899_999, true), (900_000, false), (4_999_999, false)] {
            assert_eq!(is_certain(now - ago, now, kept), certain, "{ago} ms ago");
        }
        // A clock that goes back, as after a restart that the ticket outlived in some other process.
        assert!(is_certain(now + 1, now, kept));
    }

    #[test]
    fn a_job_that_was_seen_alive_is_remembered_so_also_by_a_clone() {
        let client = client(databases(&["one"]));
        let job = Tracked::of_id(&client, JobId::new());
        assert!(matches!(job.look_once(), Ok(Found::Unknown)));
        job.alive.store(millis(awake::now()), Ordering::Relaxed);
        assert!(matches!(job.clone().look_once(), Ok(Found::Completed(_))));
    }
}
