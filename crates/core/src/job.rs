use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

use chrono::{DateTime, Utc};
use qudo_hooks::{CodecSet, Encodable, JobId, JobView, Meta, PluginError, PluginSet};
use serde::Serialize;

use crate::driver::{
    ClaimedJob, Driver, Extras, JobRecord, LeaseKey, ReplyRecord, Sending, SentRecord, Settlement,
    StatusRecord, Verdict, WorkerId,
};
use crate::error::Error;
use crate::inside::JobInside;
use crate::metadata;
use crate::new_job::NewJob;
use crate::progress::ProgressCell;
use crate::tools::awake;
use crate::tools::causes::with_causes;
use crate::tools::front::Front;
use crate::tools::sync::{Mutex, MutexGuard};
use crate::tools::time::Instant;

/// What a job at work needs of its manager. The manager is above everything that runs jobs, so they know it by
/// this only.
pub(crate) trait Host: Send + Sync {
    fn codecs(&self) -> &CodecSet;

    fn plugins(&self) -> &PluginSet;

    /// A job that takes the place of another, through its hooks and encoded; `None` when suppressed.
    fn prepare(&self, job: NewJob) -> Result<Option<JobRecord>, Error>;

    /// Tells the observer of jobs that took the place of another.
    fn tell_replacements(&self, jobs: &[JobRecord], without: &[JobId], database: &str);

    /// A run begins to say how far it is.
    fn register_progress(&self, cell: &Arc<ProgressCell>);

    /// The job told something.
    fn note_news(&self, job: JobId);

    /// The threads that block for futures that send.
    fn front(&self) -> Arc<Front>;

    /// The manager itself.
    fn as_any(&self) -> &dyn Any;
}

/// Where a run stores what it tells before its end.
pub(crate) trait Store: Send + Sync {
    /// Stores a value under its number.
    fn send(&self, lease: LeaseKey, sent: &Arc<SentRecord>) -> Result<Sending, Error>;

    /// The number of the last value that any run of this job sent.
    fn last_sent(&self, job: JobId) -> Result<Option<i32>, Error>;
}

/// What a job at work is told of the process that runs it.
pub(crate) trait Tenure: Send + Sync {
    /// Whether the process is stopping, or the job's database is being removed.
    fn is_stopping(&self) -> bool;

    /// Whether others may hold the lease of a run that began then, by [`awake::now`].
    fn may_have_lost(&self, begun: Duration) -> bool;

    /// Why a run under this claim is to end, if an operator cancelled its job.
    fn cancelled(&self, job: JobId, claim: i64) -> Option<Arc<str>>;

    /// Tells other processes that wait for news of this job.
    fn tell_news(&self, job: JobId);

    /// Wakes the future of this number when the job is cancelled; `None` when it does not wait any more.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code, reason = "only futures are woken"))]
    fn watch_cancel(&self, job: JobId, number: u64, waker: Option<&Waker>);
}

/// Where jobs run one after the other: a thread keeps one for each database, and hands it from job to job, so that no
/// job counts up what all threads share.
pub(crate) struct Post {
    pub(crate) database: Arc<str>,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) worker: WorkerId,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) tenure: Arc<dyn Tenure>,
    pub(crate) store: Arc<dyn Store>,
}

/// A running job, as its ability sees it.
pub struct Job {
    pub(crate) claimed: Box<ClaimedJob>,
    pub(crate) post: Arc<Post>,
    pub(crate) max_retries: u32,
    pub(crate) reply_codec: std::borrow::Cow<'static, str>,
    /// How long the lease lasts.
    pub(crate) lease: Duration,
    /// When the run began.
    pub(crate) begun: Instant,
    /// The same by a clock that goes on while the machine sleeps.
    pub(crate) begun_awake: Duration,
    /// Whether each settled run leaves a row in the history.
    pub(crate) keeps_status: bool,
    /// When the ability's time limit is over.
    pub(crate) deadline: Option<Instant>,
    pub(crate) written: Mutex<Written>,
    /// Once it said how far it is.
    pub(crate) progress: OnceLock<Arc<ProgressCell>>,
    /// The number of the value that it sends next, once it sent any.
    pub(crate) next_sent: Arc<Mutex<Option<i32>>>,
}

/// What the ability asked to be written when it completes.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) replies: Vec<ReplyRecord>,
    pub(crate) replacements: Vec<NewJob>,
    pub(crate) prepared: Vec<JobRecord>,
    /// What took the job's place in the transaction that completed it.
    pub(crate) stored: Vec<JobRecord>,
    /// Why a replacement could not be prepared: the run fails then, also where the ability went on.
    refused: Option<String>,
    pub(crate) completed: bool,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The argument may hold secrets.
        f.debug_struct("Job")
            .field("id", &self.claimed.id)
            .field("ability", &self.claimed.facts.ability)
            .field("attempt", &self.claimed.attempt)
            .finish_non_exhaustive()
    }
}

impl Job {
    /// The job's id.
    pub fn id(&self) -> JobId {
        self.claimed.id
    }

    /// The kind of work.
    pub fn ability(&self) -> &str {
        &self.claimed.facts.ability
    }

    /// The queue the job came from.
    pub fn queue(&self) -> &str {
        &self.claimed.facts.queue
    }

    /// The short name of the job's database.
    pub fn database(&self) -> &str {
        &self.post.database
    }

    /// Which run this is; 1 on the first.
    pub fn attempt(&self) -> u32 {
        self.claimed.attempt.unsigned_abs()
    }

    /// How many retries the ability allows after the first run.
    pub fn max_retries(&self) -> u32 {
        self.max_retries
    }

    /// The unique key.
    pub fn uniqkey(&self) -> Option<&str> {
        self.claimed.facts.uniqkey.as_deref()
    }

    /// The priority; higher runs first.
    pub fn priority(&self) -> i32 {
        self.claimed.facts.priority
    }

    /// When the job was enqueued, by its database's clock.
    pub fn enqueued_at(&self) -> DateTime<Utc> {
        self.claimed.enqueued_at
    }

    /// The name of the codec that encoded the argument.
    pub fn codec(&self) -> &str {
        &self.claimed.facts.codec
    }

    /// The argument as it is stored.
    pub fn arg_bytes(&self) -> &[u8] {
        &self.claimed.facts.arg
    }

    /// What the client added to the argument. It is read anew at each call.
    pub fn meta(&self) -> Meta {
        Meta::from_text(self.claimed.facts.meta.as_deref())
    }

    /// Whether the worker process is stopping, the job's database is being removed, the ability's
    /// time limit is over, or the job [is cancelled](Self::is_cancelled); long work may end early, with a snooze or an
    /// error.
    pub fn is_stopping(&self) -> bool {
        self.post.tenure.is_stopping() || self.is_overdue() || self.is_cancelled()
    }

    /// Whether an operator [cancelled](crate::Manager::cancel) the job. An ability that sees it returns any error, and the outcome is
    /// [`Cancelled`](qudo_hooks::Outcome::Cancelled): no retry, no failure. One that returns `Ok` all the same has done its work, and
    /// is completed. The process learns of it within a second on PostgreSQL, where it listens, and in the process that
    /// cancels; with the next heartbeat elsewhere, and not at all during
    /// [`work_once`](crate::Manager::work_once). Asks no database; call it as often as you like.
    pub fn is_cancelled(&self) -> bool {
        self.cancel_reason().is_some()
    }

    /// Why an operator cancelled the job; `None` when nobody did.
    pub fn cancel_reason(&self) -> Option<Arc<str>> {
        self.post.tenure.cancelled(self.claimed.id, self.claimed.claim)
    }

    /// Whether another worker may run this job by now: the lease is over, or this process was silent towards the
    /// database for as long as other processes wait before they take its jobs. Then all that the run does from here on
    /// may be done twice, and the end of the run most likely changes nothing. Asks no database; call it as often as you
    /// like. `false` is no promise: a process that was stopped learns of its silence at its next heartbeat, and this
    /// method counts the lease from the start of the run, which may be up to one second and one `call_limit` after the
    /// database began to count. During [`Manager::work_once`](crate::Manager::work_once) only the end of the lease
    /// counts.
    pub fn is_lease_lost(&self) -> bool {
        awake::now().saturating_sub(self.begun_awake) >= self.lease
            || self.post.tenure.may_have_lost(self.begun_awake)
    }

    /// How long the run may still take; `None` when the ability has no time limit.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|at| at.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn is_overdue(&self) -> bool {
        self.time_left().is_some_and(|left| left.is_zero())
    }

    /// The plugin of this type.
    ///
    /// # Errors
    ///
    /// When the manager has none of that type.
    pub fn plugin<P: Send + Sync + 'static>(&self) -> Result<&P, PluginError> {
        self.post.host.plugins().get()
    }

    /// Sends a reply to the client. May be called several times; replies are stored in order,
    /// in the transaction that completes the job, before the ability's own return value.
    /// A run that fails leaves no reply.
    ///
    /// # Errors
    ///
    /// When the value cannot be encoded.
    pub fn reply(&self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let record = self.encode_reply(Encodable::new(&value))?;
        self.written().replies.push(record);
        Ok(())
    }

    /// Says how far the job is: `done` of `total` in a unit of its own, and a word for people, of at most 1,000 bytes;
    /// longer ones are cut. Without a total, as with `None`, only what is done is shown.
    ///
    /// It asks no database and costs a short lock, so call it as often as you like. Those who wait in this process see
    /// it at once, by [`Ticket::progress`](crate::Ticket::progress), [`Ticket::updates`](crate::Ticket::updates) and so on;
    /// it is stored for others with the next heartbeat, every five seconds by default, and within a second on PostgreSQL while
    /// somebody waits for news there. A run that is shorter stores nothing, and what is said after the last heartbeat of a run is not stored.
    /// During [`work_once`](crate::Manager::work_once) nothing is.
    pub fn progress(&self, done: u64, total: impl Into<Option<u64>>, note: &str) {
        if let Some(cell) = self.progress.get() {
            return cell.note(done, total.into(), note);
        }
        let cell = self.progress.get_or_init(|| {
            let (claimed, database) = (&self.claimed, Arc::clone(&self.post.database));
            let run = (claimed.claim, claimed.attempt);
            Arc::new(ProgressCell::new(claimed.id, run, database, self.begun_awake))
        });
        cell.note(done, total.into(), note);
        self.post.host.register_progress(cell);
        // Those who wait in this process look now and then from here on.
        self.post.host.note_news(self.id());
    }

    /// Sends a value to those who wait, at once: it is stored when this method returns, in a transaction of its own,
    /// whatever becomes of the run. [`Ticket::updates`](crate::Ticket::updates) reads it, with the attempt that sent it and a number
    /// that counts over all attempts in this database. It is kept while the job lives, and as long as replies are.
    ///
    /// Each call is a round trip and a commit; [`reply`](Self::reply) stores a value with the end of the run. May be called
    /// from several threads: one after the other is stored. Blocks; for async bodies there is [`send_async`](Self::send_async).
    ///
    /// # Errors
    ///
    /// [`Error::LeaseLost`] when the job may run elsewhere; when the value cannot be encoded, or the database refuses it
    /// or does not answer: then it may be stored all the same.
    pub fn send(&self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.outgoing(value)?.make()
    }

    /// As [`send`](Self::send), for async bodies: a thread of the manager's blocks. A future that is dropped may have
    /// sent the value all the same.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn send_async(&self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        let outgoing = self.outgoing(value)?;
        let front = self.post.host.front();
        front.run(move || outgoing.make()).await
    }

    fn outgoing(&self, value: &(impl Serialize + ?Sized)) -> Result<Outgoing, Error> {
        let value = self.encode_reply(Encodable::new(&value))?;
        let (claimed, worker) = (&self.claimed, self.post.worker);
        let lease = LeaseKey { worker, job: claimed.id, claim: claimed.claim };
        let (post, next) = (Arc::clone(&self.post), Arc::clone(&self.next_sent));
        Ok(Outgoing { post, next, lease, attempt: claimed.attempt, value })
    }

    /// Enqueues another job in the place of this one: both happen in one transaction if the ability
    /// returns `Ok`, and neither happens otherwise. The new job goes to this job's database. Its
    /// `pre_enqueue` hooks are called when the ability has returned, `post_enqueue` hooks after the
    /// commit.
    ///
    /// Tickets follow: if one job takes the place of this one, and this one leaves no reply, because it returns nothing or `None`
    /// and called [`reply`](Self::reply) never, then [`Ticket::wait`](crate::Ticket::wait) goes on with the new job and returns its reply.
    ///
    /// With `complete_in` the `pre_enqueue` hooks run inside its open transaction: they must not
    /// enqueue then, because on SQLite the transaction holds the only writing connection.
    pub fn replace<R>(&self, with: NewJob<R>) {
        self.written().replacements.push(with.untyped());
    }

    /// Which kind of database the job is in: `sqlite`, `postgres`, `mysql` for MySQL and MariaDB, `memory`, or what another
    /// driver calls itself. For [`complete_in`](https://docs.rs/qudo/latest/qudo/trait.CompleteIn.html) where
    /// databases are of several kinds.
    pub fn engine(&self) -> &str {
        self.post.driver.engine()
    }

    /// Whether another job is to take this one's place.
    pub(crate) fn is_replaced(&self) -> bool {
        !self.written().replacements.is_empty()
    }

    /// The jobs that take this one's place, through their hooks and encoded.
    pub(crate) fn take_replacements(&self) -> Result<Vec<JobRecord>, Error> {
        let mut written = self.written();
        if let Some(reason) = &written.refused {
            return Err(Error::ReplacementRefused { job: self.id(), reason: reason.clone() });
        }
        let (mut all, new) =
            (std::mem::take(&mut written.prepared), std::mem::take(&mut written.replacements));
        drop(written);
        let meta = if new.is_empty() { Meta::default() } else { self.meta() };
        for mut job in new {
            metadata::inherit(job.fields.meta_mut(), &meta, self.id());
            // An ability may ignore that `complete_in` failed; the replacements are gone by then.
            let prepared = self.post.host.prepare(job);
            all.extend(prepared.inspect_err(|error| {
                self.written().refused = Some(with_causes(error));
            })?);
        }
        Ok(all)
    }

    fn encode_reply(&self, value: Encodable<'_>) -> Result<ReplyRecord, Error> {
        let codec = self.post.host.codecs().get(&self.reply_codec);
        let body = codec.and_then(|codec| codec.encode(value)).map_err(|source| Error::Codec {
            what: format!("a reply of job {} cannot be stored", self.id()),
            source,
        })?;
        Ok(ReplyRecord { codec: self.reply_codec.clone(), body })
    }

    pub(crate) fn host(&self) -> &dyn Host {
        &*self.post.host
    }

    pub(crate) fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock()
    }

    pub(crate) fn view(&self) -> JobView<'_> {
        let (claimed, plugins) = (&self.claimed, self.post.host.plugins());
        let waited = self.begun.saturating_duration_since(claimed.ready_since);
        view_of(claimed, self.max_retries, &self.post.database, plugins)
            .with_waited(Some(waited))
            .with_arg(&claimed.facts.codec, &claimed.facts.arg)
    }
}

/// A number is taken by a run that lost its lease at the same moment, which does not happen over and over.
const MAX_NUMBERS: usize = 10;

/// A value on its way.
struct Outgoing {
    post: Arc<Post>,
    next: Arc<Mutex<Option<i32>>>,
    lease: LeaseKey,
    attempt: i32,
    value: ReplyRecord,
}

impl Outgoing {
    fn make(self) -> Result<(), Error> {
        let (job, store) = (self.lease.job, &self.post.store);
        // Held over the call: what is sent from several threads is stored in the order of its numbers.
        let mut next = self.next.lock();
        let mut value = self.value;
        for _ in 0..MAX_NUMBERS {
            let number = match *next {
                Some(number) => number,
                // Other runs of the job may have sent something.
                None => store.last_sent(job)?.map_or(0, |last| last.saturating_add(1)),
            };
            // Also if it is not answered: it may be stored, and another value under its number would be taken for it.
            *next = Some(number.saturating_add(1));
            let sent = Arc::new(SentRecord { number, attempt: self.attempt, value });
            match store.send(self.lease, &sent)? {
                Sending::Stored => {
                    drop(next);
                    self.post.host.note_news(job);
                    self.post.tenure.tell_news(job);
                    return Ok(());
                }
                Sending::LeaseLost => return Err(Error::LeaseLost { job }),
                // By a run that lost its lease, after this one asked for the last.
                Sending::NumberTaken => *next = None,
            }
            value = Arc::try_unwrap(sent).map_or_else(|sent| sent.value.clone(), |sent| sent.value);
        }
        // Others run it, and send more than this one can.
        Err(Error::LeaseLost { job })
    }
}

/// A claimed job as hooks see it, without its argument.
pub(crate) fn view_of<'a>(
    job: &'a ClaimedJob,
    max_retries: u32,
    database: &'a str,
    plugins: &'a PluginSet,
) -> JobView<'a> {
    JobView::new(job.id, &job.facts.ability, &job.facts.queue)
        .with_arg(&job.facts.codec, &[])
        .with_database(database)
        .with_uniqkey(job.facts.uniqkey.as_deref())
        .with_priority(job.facts.priority)
        .with_meta(job.facts.meta.as_deref())
        .with_attempt(job.attempt.unsigned_abs(), max_retries)
        .with_enqueued_at(Some(job.enqueued_at))
        .with_plugins(plugins)
}

impl JobInside for Job {
    fn driver(&self) -> &dyn Driver {
        self.post.driver.as_ref()
    }

    fn completion(&self, reply: Option<Encodable<'_>>) -> Result<(WorkerId, Settlement), Error> {
        let last = reply.map(|value| self.encode_reply(value)).transpose()?;
        let replacements = self.take_replacements()?;
        let mut written = self.written();
        let mut replies = written.replies.clone();
        replies.extend(last);
        // Kept for a transaction that is tried again.
        written.prepared.clone_from(&replacements);
        drop(written);
        let status = self.keeps_status.then(|| StatusRecord {
            status: if replacements.is_empty() { "completed" } else { "replaced" },
            took: self.begun.elapsed(),
            message: None,
        });
        let extras = Extras { replies, status, replacements, ..Extras::default() };
        let settlement = Settlement {
            job: self.claimed.clone(),
            verdict: Verdict::Complete,
            extras: Some(Box::new(extras)),
        };
        Ok((self.post.worker, settlement))
    }

    fn mark_completed(&self, without: &[JobId]) {
        let mut written = self.written();
        written.completed = true;
        let (refused, stored) = std::mem::take(&mut written.prepared)
            .into_iter()
            .partition(|job: &JobRecord| without.contains(&job.id));
        written.stored = stored;
        drop(written);
        let refused: Vec<_> = refused;
        self.post.host.tell_replacements(&refused, without, &self.post.database);
    }
}
