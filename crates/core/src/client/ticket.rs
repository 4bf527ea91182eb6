use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::JobId;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Client;
use super::tracked::{Done, Found, Tracked};
use super::updates::Updates;
use crate::database::Database;
use crate::driver::{Ending, Exception, JobState, ReplyRow};
use crate::error::Error;
use crate::progress::Progress;
use crate::tools::polling::warn_if_polled;

/// What a client holds to await the reply of a job. `R` is the type of the reply.
///
/// Rebuilt from a job id after a restart with [`Manager::ticket`](crate::Manager::ticket). It follows the job to the database to which
/// it is moved, and from a failure for good, or a cancel, to the job that it was enqueued again as; errors name that job then.
pub struct Ticket<R = Value> {
    job: Arc<Tracked>,
    reply: PhantomData<fn() -> R>,
}

/// How far a job is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Standing {
    /// It lives.
    Waiting(JobState),
    /// It completed, and this many replies of it are kept: 0 also if it ended longer ago than replies are.
    Completed(usize),
    /// It failed for good, or was cancelled: [`Exception::kind`].
    Failed(Box<Exception>),
    /// It ended before it completed, and will not run.
    Removed(Ending),
    /// It is not alive, and nothing is kept that tells how it ended: it completed without a reply, it was never
    /// stored, or it ended longer ago than [`keep_replies`](crate::ManagerBuilder::keep_replies).
    ///
    /// A ticket answers so if it never saw the job alive, such as one from [`Manager::ticket`](crate::Manager::ticket) or
    /// `enqueue_in` whose job ended before the first look, if it was not asked for nine tenths of the time that replies are
    /// kept, or if the job was moved more than ten times. If the job's ability keeps the job status, it knows the
    /// end too.
    Unknown,
}

impl From<Found> for Standing {
    fn from(found: Found) -> Self {
        match found {
            Found::Lives(state) => Self::Waiting(state),
            Found::Completed(replies) => Self::Completed(replies.len()),
            Found::Failed(exception) => Self::Failed(exception),
            Found::Removed(ending) => Self::Removed(ending),
            // One that was replaced is followed before anybody is told.
            Found::Expired | Found::Replaced(_) => Self::Completed(0),
            Found::Unknown => Self::Unknown,
        }
    }
}

impl<R> fmt::Debug for Ticket<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("job", &self.id())
            .field("database", &self.database())
            .finish()
    }
}

impl<R> Clone for Ticket<R> {
    fn clone(&self) -> Self {
        Self { job: Arc::clone(&self.job), reply: PhantomData }
    }
}

impl<R> Ticket<R> {
    /// Of a job that was stored there, or was found there by its key, after this instant by
    /// [`awake::now`](crate::tools::awake::now).
    pub(crate) fn stored(
        client: &Arc<Client>,
        job: JobId,
        database: Arc<Database>,
        asked: Duration,
    ) -> Self {
        Self::of(Tracked::stored(client, job, database, asked))
    }

    /// Of a job of which nothing is known but its id.
    pub(crate) fn of_id(client: &Arc<Client>, job: JobId) -> Self {
        Self::of(Tracked::of_id(client, job))
    }

    /// Of this job.
    pub(super) fn of(job: Tracked) -> Self {
        Self { job: Arc::new(job), reply: PhantomData }
    }

    /// The job that it is for.
    pub(super) fn tracked(&self) -> Arc<Tracked> {
        Arc::clone(&self.job)
    }

    /// The same ticket for a reply of another type.
    pub fn typed<T>(self) -> Ticket<T> {
        Ticket { job: self.job, reply: PhantomData }
    }

    /// The job.
    pub fn id(&self) -> JobId {
        self.job.id
    }

    /// The job that goes on in its place, which errors name.
    fn last_id(&self) -> JobId {
        self.job.last().id
    }

    /// The short name of the job's database; `None` for a ticket rebuilt from an id.
    pub fn database(&self) -> Option<&str> {
        self.job.database.as_ref().map(|database| &*database.name)
    }

    /// Looks once how far the job is.
    ///
    /// # Errors
    ///
    /// When the job's database does not answer.
    pub fn check(&self) -> Result<Standing, Error> {
        warn_if_polled("a wait or a look of a ticket", "check_async");
        self.job.look_once().map(Standing::from)
    }

    /// What the job tells while it runs: values that it [sends](crate::Job::send), and [how far](crate::Job::progress) it is. An
    /// iterator, which blocks, or a [stream](Updates::into_stream).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use qudo_core::{Job, JobResult, Manager, NewJob, Ticket, Update};
    ///
    /// fn shown(ticket: &Ticket) -> Result<(), qudo_core::Error> {
    ///     for update in ticket.updates::<String>().within(Duration::from_secs(60)) {
    ///         match update? {
    ///             Update::Sent(line) => println!("{}", line.value),
    ///             Update::Progress(progress) => println!("{} done", progress.done),
    ///             _ => {}
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn updates<T: DeserializeOwned>(&self) -> Updates<T> {
        Updates::of(&self.job)
    }

    /// How far the job said last that it is, with [`Job::progress`](crate::Job::progress); `None` when it said nothing, nothing
    /// was stored yet, or it completed.
    ///
    /// # Errors
    ///
    /// When the job's database does not answer.
    pub fn progress(&self) -> Result<Option<Progress>, Error> {
        warn_if_polled("a wait or a look of a ticket", "progress_async");
        self.job.progress()
    }

    /// Waits until the job completed and returns its last reply, which is what the ability returned.
    ///
    /// An ability that returns nothing leaves no row, and this method returns its `()` because the job is gone: that
    /// is certain for a ticket from `enqueue`, or a ticket that saw the job alive, for nine tenths of
    /// [`keep_replies`](crate::ManagerBuilder::keep_replies). A ticket that knows only the id of a job that is
    /// gone answers [`Error::OutcomeUnknown`]. All programs of a database should have the same `keep_replies`.
    ///
    /// Inside an ability this occupies one of the threads that run jobs: if all these threads wait, no
    /// thread runs the jobs that they wait for until their limits are over.
    ///
    /// A worker in the same process wakes the waiting thread immediately. For jobs that other processes run, one of
    /// the waiting threads asks the database for all these jobs in one statement: for each job 1 ms after its wait
    /// began, then with longer and longer pauses, up to 100 ms, and up to one second when more than 1,000 jobs are
    /// waited for. While a database is down, the wait goes on.
    ///
    /// # Errors
    ///
    /// [`Error::WaitTimeout`], [`Error::JobFailed`], [`Error::JobCancelled`], [`Error::JobRemoved`],
    /// [`Error::OutcomeUnknown`], [`Error::ReplyExpired`], or a reply that is not of this type.
    pub fn wait(&self, limit: Duration) -> Result<R, Error>
    where
        R: DeserializeOwned,
    {
        self.wait_as(limit)
    }

    /// As [`wait`](Self::wait), for a reply of this type.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_as<T: DeserializeOwned>(&self, limit: Duration) -> Result<T, Error> {
        warn_if_polled("a wait or a look of a ticket", "wait_async");
        self.last_reply(self.job.wait_for_end(limit)?)
    }

    /// The last reply of a job that completed.
    pub(super) fn last_reply<T: DeserializeOwned>(&self, done: Done) -> Result<T, Error> {
        match self.replies_kept(done)?.last() {
            Some(reply) => self.decode(reply),
            // `()` decodes from null, which is what a job without a reply says.
            None => serde_json::from_value(Value::Null)
                .map_err(|_| Error::NoReply { job: self.last_id() }),
        }
    }

    /// All replies of a job that completed.
    pub(super) fn all_replies<T: DeserializeOwned>(&self, done: Done) -> Result<Vec<T>, Error> {
        self.replies_kept(done)?.iter().map(|reply| self.decode(reply)).collect()
    }

    /// As [`wait`](Self::wait), whatever the job replied.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait), except the errors of the reply.
    pub fn wait_done(&self, limit: Duration) -> Result<(), Error> {
        warn_if_polled("a wait or a look of a ticket", "wait_done_async");
        self.job.wait_for_end(limit).map(drop)
    }

    /// Waits until the job completed and returns all its replies: those sent with
    /// [`Job::reply`](crate::Job::reply) in order, then the ability's return value.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn replies(&self, limit: Duration) -> Result<Vec<R>, Error>
    where
        R: DeserializeOwned,
    {
        self.replies_as(limit)
    }

    /// As [`replies`](Self::replies), for replies of this type.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    pub fn replies_as<T: DeserializeOwned>(&self, limit: Duration) -> Result<Vec<T>, Error> {
        warn_if_polled("a wait or a look of a ticket", "replies_async");
        self.all_replies(self.job.wait_for_end(limit)?)
    }

    fn replies_kept(&self, done: Done) -> Result<Vec<ReplyRow>, Error> {
        match done {
            Done::Replies(replies) => Ok(replies),
            Done::Expired => Err(Error::ReplyExpired { job: self.last_id() }),
        }
    }

    fn decode<T: DeserializeOwned>(&self, reply: &ReplyRow) -> Result<T, Error> {
        self.job.client.program.codecs.decode(&reply.codec, &reply.body).map_err(|source| {
            Error::Codec {
                what: format!("the reply of job {} is not of the type asked for", self.last_id()),
                source,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ability::Ability;
    use crate::driver::DriverError;
    use crate::fixture::{SOON, eventually, memory};
    use crate::job::Job;
    use crate::job_error::{JobError, JobResult};
    use crate::manager::Manager;
    use crate::new_job::NewJob;
    use crate::testing::FaultyDriver;
    use crate::tools::awake;

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

    struct Nothing;

    impl Ability for Nothing {
        const NAME: &'static str = "nothing";
        type Arg = ();
        type Reply = ();

        fn work(_: &Job, (): ()) -> JobResult<()> {
            Ok(())
        }
    }

    fn manager() -> Manager {
        let builder = Manager::builder().linked(false).ability::<Double>().ability::<Nothing>();
        builder.driver("one", memory()).driver("two", memory()).build().expect("valid")
    }

    fn sent(manager: &Manager, n: u32) -> Ticket<u32> {
        manager.enqueue(Double::job(n)).expect("stored").ticket().expect("is new").clone()
    }

    fn run_all(manager: &Manager) {
        while manager.work_once().expect("answers").is_some() {}
    }

    #[test]
    fn the_reply_is_there_when_the_job_is_done_for_a_ticket_and_for_a_bare_id() {
        let manager = manager();
        let ticket = sent(&manager, 21);
        assert!(matches!(ticket.check(), Ok(Standing::Waiting(JobState::Ready))));
        run_all(&manager);
        let bare = manager.ticket(ticket.id());
        assert_eq!((bare.database(), bare.wait_as::<u32>(SOON).expect("replies")), (None, 42));
        assert_eq!(bare.wait(SOON).expect("replies"), serde_json::json!(42));
        assert_eq!(ticket.wait(Duration::ZERO).expect("replies"), 42);
        assert!(matches!(bare.check(), Ok(Standing::Completed(1))));
        let wrong = ticket.wait_as::<String>(Duration::ZERO);
        assert!(matches!(wrong, Err(Error::Codec { .. })));
    }

    #[test]
    fn all_replies_come_in_order() {
        let manager = manager();
        let ticket = sent(&manager, 101);
        run_all(&manager);
        assert_eq!(ticket.replies(SOON).expect("replies"), [1, 202]);
    }

    #[test]
    fn a_job_that_failed_for_good_says_why() {
        let manager = manager();
        let ticket = sent(&manager, 0);
        run_all(&manager);
        let Err(Error::JobFailed { message, attempt: 1, .. }) = ticket.wait(SOON) else {
            panic!("it failed")
        };
        assert!(message.contains("nothing to double"), "{message}");
        assert!(matches!(ticket.check(), Ok(Standing::Failed(_))));
    }

    #[test]
    fn a_wait_ends_with_its_time() {
        let manager = manager();
        let ticket = sent(&manager, 1);
        let limit = Duration::from_millis(20);
        let waited = ticket.wait(limit);
        let Err(error) = waited else { panic!("nobody works") };
        assert!(matches!(error, Error::WaitTimeout { after, .. } if after == limit), "{error}");
        let place = ticket.database().expect("stored");
        let says = format!("it waits in database {place:?} for a worker that is free");
        assert!(error.to_string().contains(&says), "{error}");
    }

    #[test]
    fn a_ticket_follows_its_job_to_another_database() {
        let manager = manager();
        let job = Double::job(4).database("one");
        let ticket = manager.enqueue(job).expect("stored").ticket().expect("is new").clone();
        manager.move_jobs("one", "two").expect("answers");
        assert!(matches!(ticket.check(), Ok(Standing::Waiting(JobState::Ready))));
        run_all(&manager);
        assert_eq!(ticket.wait(SOON).expect("replies"), 8);
        assert!(matches!(manager.ticket(ticket.id()).check(), Ok(Standing::Completed(1))));
    }

    #[test]
    fn of_a_job_that_never_was_nothing_is_known() {
        let manager = manager();
        let ticket = manager.ticket(JobId::new());
        assert!(matches!(ticket.check(), Ok(Standing::Unknown)));
        assert!(matches!(ticket.wait(SOON), Err(Error::OutcomeUnknown { .. })));
        assert!(matches!(ticket.wait_done(SOON), Err(Error::OutcomeUnknown { .. })));
    }

    #[test]
    fn a_job_without_a_reply_completed_for_who_saw_it_alive() {
        let manager = manager();
        let sent = manager.enqueue(Nothing::job(())).expect("stored");
        let ticket = sent.ticket().expect("is new").clone();
        let (late, seen) = (manager.ticket(ticket.id()), manager.ticket(ticket.id()));
        assert!(matches!(seen.check(), Ok(Standing::Waiting(_))));
        run_all(&manager);
        ticket.wait(SOON).expect("it was stored, and nothing says otherwise");
        seen.wait_done(SOON).expect("it was seen alive");
        assert!(matches!(late.check(), Ok(Standing::Unknown)));
        assert!(matches!(late.wait_done(SOON), Err(Error::OutcomeUnknown { .. })));
    }

    #[test]
    fn a_job_that_was_removed_is_told_from_one_that_completed() {
        let manager = manager();
        let sent = manager.enqueue(Nothing::job(())).expect("stored");
        assert!(manager.dequeue(sent.id().expect("is new")).expect("answers"));
        for ticket in [
            sent.ticket().expect("is new").clone(),
            manager.ticket(sent.id().expect("is new")).typed(),
        ] {
            assert!(matches!(ticket.check(), Ok(Standing::Removed(Ending::Removed))));
            let error = ticket.wait(SOON).expect_err("it never ran");
            assert!(matches!(error, Error::JobRemoved { .. }), "{error}");
            assert!(error.to_string().contains("was removed"), "{error}");
        }
    }

    /// Removes the rows that moves left, as a purge does after `keep_replies`, and no others.
    fn purge_trails(manager: &Manager, database: &str) {
        let driver = Arc::clone(manager.set().find(database).expect("is there").driver());
        let keep = crate::driver::Keep {
            replies: Duration::ZERO,
            ..crate::driver::Keep::all(SOON * 1_000)
        };
        eventually("the trail is old enough", || {
            driver.purge(&keep, 100).expect("answers").removed > 0
        });
    }

    #[test]
    fn a_ticket_that_saw_its_job_elsewhere_looks_there_when_the_trail_is_purged() {
        let manager = manager();
        let job = Nothing::job(()).database("one").delay(SOON * 100);
        let ticket = manager.enqueue(job).expect("stored").ticket().expect("is new").clone();
        manager.move_jobs("one", "two").expect("answers");
        assert!(matches!(ticket.check(), Ok(Standing::Waiting(_))));
        purge_trails(&manager, "one");
        assert!(matches!(ticket.check(), Ok(Standing::Waiting(_))), "it lives in the other");
        assert!(matches!(ticket.clone().check(), Ok(Standing::Waiting(_))));
        let waited = ticket.wait_done(Duration::from_millis(5)).expect_err("it is not due");
        assert!(waited.is_timeout(), "{waited}");
    }

    #[test]
    fn a_bare_ticket_looks_where_it_saw_its_job_also_when_that_database_is_removed() {
        let manager = manager();
        let job = Nothing::job(()).database("two").delay(SOON * 100);
        let id = manager.enqueue(job).expect("stored").id().expect("is new");
        let ticket = manager.ticket(id);
        assert!(matches!(ticket.check(), Ok(Standing::Waiting(_))));
        manager.remove_database("two").expect("is not the last");
        assert!(matches!(ticket.check(), Ok(Standing::Waiting(_))));
    }

    #[test]
    fn a_job_that_came_back_is_found_where_it_was() {
        let manager = manager();
        let job = Nothing::job(()).database("one").delay(SOON * 100);
        let id = manager.enqueue(job).expect("stored").id().expect("is new");
        manager.move_jobs("one", "two").expect("answers");
        manager.move_jobs("two", "one").expect("answers");
        assert!(matches!(manager.ticket(id).check(), Ok(Standing::Waiting(_))));
        drain_later(&manager, id);
        manager.ticket(id).wait_done(SOON).expect("the trail of the other leads here");
    }

    fn drain_later(manager: &Manager, id: JobId) {
        manager.reschedule(id, crate::driver::Due::Now).expect("answers");
        run_all(manager);
    }

    #[test]
    fn where_a_trail_leads_the_job_was_stored() {
        let manager = manager();
        let job = Nothing::job(()).database("one");
        let id = manager.enqueue(job).expect("stored").id().expect("is new");
        manager.move_jobs("one", "two").expect("answers");
        run_all(&manager);
        manager.ticket(id).wait_done(SOON).expect("the trail tells that it was stored");
    }

    #[test]
    fn what_left_the_spool_for_a_database_that_had_it_is_found_there() {
        let spool = crate::fixture::database("spool", memory());
        let one = crate::fixture::database("one", memory());
        let settings = crate::fixture::settings(SOON);
        let set = crate::database::set::Databases::new(
            vec![Arc::clone(&one)],
            Some(Arc::clone(&spool)),
            settings,
        );
        let client = Arc::new(crate::fixture::client(set));
        let record = crate::fixture::records(1);
        one.driver().insert(&record, crate::driver::Deadline::NONE).expect("stored");
        let ticket: Ticket = Ticket::stored(&client, record[0].id, spool, awake::now());
        assert!(matches!(ticket.check(), Ok(Standing::Waiting(JobState::Ready))));
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
        run_all(&manager);
        away.store(true, Ordering::Relaxed);
        assert!(ticket.check().is_err_and(|error| error.is_down()));
        let waits = ticket.clone();
        let waits = std::thread::spawn(move || waits.wait(SOON));
        away.store(false, Ordering::Relaxed);
        assert_eq!(waits.join().expect("no panic").expect("replies"), 6);
        let job = NewJob::named("double", 1.into());
        assert!(manager.enqueue(job).is_ok());
    }
}
