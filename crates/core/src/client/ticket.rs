use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::JobId;
use serde::de::DeserializeOwned;

use super::Client;
use super::lookout::MIN_ANSWER;
use crate::database::Database;
use crate::driver::{Driver, DriverError, Exception, ExceptionFilter, JobState, ReplyRow};
use crate::error::Error;
use crate::tools::time::Instant;

/// While nobody says where the job is, it is looked for everywhere this often.
const LOST: Duration = Duration::from_millis(100);

/// The longest that anybody waits, where no end of it can be reckoned.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// What a client holds to await the reply of a job.
///
/// Rebuilt from a job id after a restart with [`Manager::ticket`](crate::Manager::ticket).
#[derive(Clone)]
pub struct Ticket {
    client: Arc<Client>,
    job: JobId,
    database: Option<Arc<Database>>,
}

/// How far a job is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Progress {
    /// It lives.
    Waiting(JobState),
    /// It completed and left this many replies.
    Replied(usize),
    /// It failed for good.
    Failed(Box<Exception>),
    /// It is gone without reply or failure: it completed with nothing to say, was dequeued, or
    /// never was there.
    Gone,
}

/// How long one look waits for an answer.
const CHECK_WITHIN: Duration = Duration::from_secs(10);

/// A job that was moved oftener is not followed further.
const MAX_MOVES: usize = 10;

/// An answer of one database.
enum Known {
    Lives(JobState),
    Replies(Vec<ReplyRow>),
    Failed(Box<Exception>),
    Moved(String),
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("job", &self.job)
            .field("database", &self.database())
            .finish()
    }
}

impl Ticket {
    pub(crate) fn new(client: &Arc<Client>, job: JobId, database: Option<Arc<Database>>) -> Self {
        Self { client: Arc::clone(client), job, database }
    }

    /// The job.
    pub fn id(&self) -> JobId {
        self.job
    }

    /// The short name of the job's database; `None` for a ticket rebuilt from an id.
    pub fn database(&self) -> Option<&str> {
        self.database.as_ref().map(|database| &*database.name)
    }

    /// Looks once how far the job is.
    ///
    /// # Errors
    ///
    /// When the job's database does not answer.
    pub fn check(&self) -> Result<Progress, Error> {
        Ok(match self.look(CHECK_WITHIN, &mut self.database.clone())? {
            Some(Known::Lives(state)) => Progress::Waiting(state),
            Some(Known::Replies(replies)) => Progress::Replied(replies.len()),
            Some(Known::Failed(exception)) => Progress::Failed(exception),
            Some(Known::Moved(_)) | None => Progress::Gone,
        })
    }

    /// Waits until the job ended and returns its last reply. For an ability that returns nothing
    /// ask for `()`.
    ///
    /// A job that ended without a reply leaves no trace. So for one that never was, that was dequeued, or
    /// whose reply is past [`keep_replies`](crate::ManagerBuilder::keep_replies), `wait::<()>` is `Ok` too.
    ///
    /// Inside an ability this keeps one of the threads that run jobs: if all of them wait, nobody runs what
    /// they wait for until their limits are over.
    ///
    /// A worker in the same process wakes the waiter at once. For others one of the threads that wait asks the
    /// database for all of them, in one statement: for each job 1 ms after its wait began, then ever more seldom,
    /// up to every 100 ms, and where more than 1,000 wait, up to every second. A database that is down is waited
    /// for.
    ///
    /// # Errors
    ///
    /// [`Error::WaitTimeout`], [`Error::JobFailed`], or a reply that is not of this type.
    pub fn wait<T: DeserializeOwned + 'static>(&self, limit: Duration) -> Result<T, Error> {
        let replies = self.wait_for_end(limit)?;
        match replies.last() {
            Some(reply) => self.decode(reply),
            // `()` decodes from null, which is what a job without a reply says.
            None => serde_json::from_value(serde_json::Value::Null)
                .map_err(|_| Error::NoReply { job: self.job }),
        }
    }

    /// Waits until the job ended and returns all its replies: those sent with
    /// [`Job::reply`](crate::Job::reply) in order, then the ability's return value.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn replies<T: DeserializeOwned>(&self, limit: Duration) -> Result<Vec<T>, Error> {
        self.wait_for_end(limit)?.iter().map(|reply| self.decode(reply)).collect()
    }

    fn decode<T: DeserializeOwned>(&self, reply: &ReplyRow) -> Result<T, Error> {
        self.client.program.codecs.decode(&reply.codec, &reply.body).map_err(|source| {
            Error::Codec {
                what: format!("the reply of job {} is not of the type asked for", self.job),
                source,
            }
        })
    }

    fn wait_for_end(&self, limit: Duration) -> Result<Vec<ReplyRow>, Error> {
        let begun = Instant::now();
        let until = begun.checked_add(limit).unwrap_or_else(|| begun + FOR_EVER);
        let mut database = self.database.clone();
        let waiters = &self.client.waiters;
        let mut watch = waiters.watch(self.job);
        loop {
            match self.look(limit.saturating_sub(begun.elapsed()), &mut database) {
                Ok(Some(Known::Lives(_))) => {}
                Ok(Some(Known::Replies(replies))) => return Ok(replies),
                Ok(Some(Known::Failed(exception))) => {
                    return Err(Error::JobFailed {
                        job: self.job,
                        attempt: exception.attempt,
                        message: exception.message,
                    });
                }
                Ok(Some(Known::Moved(_)) | None) => return Ok(Vec::new()),
                // A dead database may come back with the answer; the limit bounds the wait.
                Err(error) if error.is_down() => {}
                Err(error) => return Err(error),
            }
            let left = limit.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Err(Error::WaitTimeout { job: self.job, after: limit });
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
    fn look(
        &self,
        limit: Duration,
        known: &mut Option<Arc<Database>>,
    ) -> Result<Option<Known>, Error> {
        let (action, job) = ("say how far a job is", self.job);
        let mut database = match known {
            Some(database) => Arc::clone(database),
            None => match self.look_everywhere(limit)? {
                Some((_, Known::Moved(to))) => self.moved_to(&to)?,
                Some((name, found)) => {
                    if matches!(found, Known::Lives(_)) {
                        *known = self
                            .client
                            .databases
                            .everywhere()
                            .into_iter()
                            .find(|one| *one.name == *name);
                    }
                    return Ok(Some(found));
                }
                None => return Ok(None),
            },
        };
        for _ in 0..MAX_MOVES {
            let asked = database.begin_ticket(action, move |driver| ask(driver, job));
            // One lost answer must not take all the time there is.
            match asked.wait_at_most(limit.min(database.limit()).max(MIN_ANSWER))? {
                Some(Known::Moved(to)) => database = self.moved_to(&to)?,
                found => {
                    *known = Some(database);
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    fn look_everywhere(&self, limit: Duration) -> Result<Option<(String, Known)>, Error> {
        let job = self.job;
        let is_trail = |known: &Known| matches!(known, Known::Moved(_));
        let ask = move |driver: &dyn Driver| ask(driver, job);
        let limit = limit.max(MIN_ANSWER);
        self.client.databases.best("say how far a job is", ask, is_trail, Some(limit))
    }

    fn moved_to(&self, identity: &str) -> Result<Arc<Database>, Error> {
        self.client.databases.find_identity(identity).ok_or_else(|| Error::DatabaseDown {
            database: format!("with the id {identity}"),
            reason: "the job was moved there, and it is none of the databases that answer"
                .to_owned(),
        })
    }
}

/// The order matters: once the job is seen gone, everything that its end wrote is there, because
/// both happen in one transaction.
fn ask(driver: &dyn Driver, job: JobId) -> Result<Option<Known>, DriverError> {
    if let Some(state) = driver.state(job)? {
        return Ok(Some(Known::Lives(state)));
    }
    let replies = driver.replies(job)?;
    if !replies.is_empty() {
        return Ok(Some(Known::Replies(replies)));
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
    Ok(driver.moved_to(job)?.map(Known::Moved))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ability::Ability;
    use crate::fixture::{SOON, memory};
    use crate::job::Job;
    use crate::job_error::{JobError, JobResult};
    use crate::manager::Manager;
    use crate::new_job::NewJob;
    use crate::testing::FaultyDriver;

    struct Double;

    impl Ability for Double {
        const NAME: &'static str = "double";
        type Arg = u32;
        type Reply = u32;

        fn work(job: &Job, n: u32) -> JobResult<u32> {
            if n == 0 {
                return Err(JobError::fail("nothing to double"));
            }
            if n > 100 {
                job.reply(&1)?;
            }
            Ok(n * 2)
        }
    }

    fn manager() -> Manager {
        let builder = Manager::builder().linked(false).ability::<Double>();
        builder.driver("one", memory()).driver("two", memory()).build().expect("valid")
    }

    fn sent(manager: &Manager, n: u32) -> Ticket {
        manager.enqueue(Double::job(n)).expect("stored").ticket().expect("is new").clone()
    }

    fn drain(manager: &Manager) {
        while manager.work_once().expect("answers").is_some() {}
    }

    #[test]
    fn the_reply_is_there_when_the_job_is_done_for_a_ticket_and_for_a_bare_id() {
        let manager = manager();
        let ticket = sent(&manager, 21);
        assert!(matches!(ticket.check(), Ok(Progress::Waiting(JobState::Ready))));
        drain(&manager);
        let bare = manager.ticket(ticket.id());
        assert_eq!((bare.database(), bare.wait::<u32>(SOON).expect("replies")), (None, 42));
        assert_eq!(ticket.wait::<u32>(Duration::ZERO).expect("replies"), 42);
        assert!(matches!(bare.check(), Ok(Progress::Replied(1))));
        let wrong = ticket.wait::<String>(Duration::ZERO);
        assert!(matches!(wrong, Err(Error::Codec { .. })));
    }

    #[test]
    fn all_replies_come_in_order() {
        let manager = manager();
        let ticket = sent(&manager, 101);
        drain(&manager);
        assert_eq!(ticket.replies::<u32>(SOON).expect("replies"), [1, 202]);
    }

    #[test]
    fn a_job_that_failed_for_good_says_why() {
        let manager = manager();
        let ticket = sent(&manager, 0);
        drain(&manager);
        let Err(Error::JobFailed { message, attempt: 1, .. }) = ticket.wait::<u32>(SOON) else {
            panic!("it failed")
        };
        assert!(message.contains("nothing to double"), "{message}");
        assert!(matches!(ticket.check(), Ok(Progress::Failed(_))));
    }

    #[test]
    fn a_wait_ends_with_its_time() {
        let manager = manager();
        let ticket = sent(&manager, 1);
        let limit = Duration::from_millis(20);
        let waited = ticket.wait::<u32>(limit);
        assert!(matches!(waited, Err(Error::WaitTimeout { after, .. }) if after == limit));
    }

    #[test]
    fn a_ticket_follows_its_job_to_another_database() {
        let manager = manager();
        let job = Double::job(4).database("one");
        let ticket = manager.enqueue(job).expect("stored").ticket().expect("is new").clone();
        manager.move_jobs("one", "two").expect("answers");
        assert!(matches!(ticket.check(), Ok(Progress::Waiting(JobState::Ready))));
        drain(&manager);
        assert_eq!(ticket.wait::<u32>(SOON).expect("replies"), 8);
        assert!(matches!(manager.ticket(ticket.id()).check(), Ok(Progress::Replied(1))));
    }

    #[test]
    fn a_job_that_never_was_is_gone() {
        let manager = manager();
        let ticket = manager.ticket(JobId::new());
        assert!(matches!(ticket.check(), Ok(Progress::Gone)));
        assert!(matches!(ticket.wait::<u32>(SOON), Err(Error::NoReply { .. })));
    }

    #[test]
    fn a_database_that_is_away_is_waited_for() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let away = Arc::new(AtomicBool::new(false));
        let is_away = Arc::clone(&away);
        let driver = FaultyDriver::new(memory()).with_fault(move |_| {
            if is_away.load(Ordering::Relaxed) {
                return Err(DriverError::new(crate::driver::ErrorKind::Down, "away"));
            }
            Ok(())
        });
        let builder = Manager::builder().linked(false).ability::<Double>();
        let manager = builder.driver("one", Arc::new(driver)).build().expect("valid");
        let ticket = sent(&manager, 3);
        drain(&manager);
        away.store(true, Ordering::Relaxed);
        assert!(ticket.check().is_err_and(|error| error.is_down()));
        let waits = ticket.clone();
        let waits = std::thread::spawn(move || waits.wait::<u32>(SOON));
        away.store(false, Ordering::Relaxed);
        assert_eq!(waits.join().expect("no panic").expect("replies"), 6);
        let job = NewJob::named("double", 1.into());
        assert!(manager.enqueue(job).is_ok());
    }
}
