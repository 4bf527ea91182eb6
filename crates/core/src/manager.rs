//! The manager: the one handle through which clients enqueue and services work.
//!
//! It is the roof: each method says in one line which room does it, and nothing below knows this file. What is in
//! the rooms is told in `docs/ARCHITECTURE.md`.

use std::any::Any;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};
use std::time::Duration;

use qudo_hooks::{CodecSet, Hook, JobId, Outcome, PluginSet, SourceLocation};

use crate::ability::AbilityInfo;
use crate::admin;
use crate::admin::audit::{AuditOptions, AuditReport};
use crate::admin::failures::FailureGroups;
use crate::admin::health::{Ailment, HealthLimits};
use crate::admin::listing::{JobCount, Unworkable};
use crate::admin::monitor::{Monitor, Reading, Watch};
use crate::admin::operations::{Operation, OperationReport, Preview, Slice};
use crate::admin::overview::Overview;
use crate::admin::page::{Listing, Paging};
use crate::admin::why::Explanation;
use crate::builder::ManagerBuilder;
use crate::client::enqueued::Enqueued;
use crate::client::saved::SavedTicket;
use crate::client::spool::SpoolReport;
use crate::client::ticket::Ticket;
use crate::client::{self, Client};
use crate::database::data_source::DataSource;
use crate::database::everywhere::PerDatabase;
use crate::database::set::Databases;
use crate::database::transfer::MoveReport;
use crate::database::{DatabaseReport, schema};
use crate::driver::{
    Acted, Driver, Due, Exception, ExceptionId, JobFacts, JobInfo, JobRecord, OperationId,
    OperationRow, Order, Part, Pause, Remark, StatRow, StatScan, StatusRow, WorkerId, WorkerOrder,
    WorkerSeen,
};
use crate::error::Error;
use crate::filter::{ExceptionFilter, JobFilter, StatusFilter};
use crate::inside::ManagerInside;
use crate::job::{Host, Job};
use crate::new_job::NewJob;
use crate::program::Program;
use crate::progress::ProgressCell;
use crate::session::pulses::LoopReport;
use crate::session::work::{AtWork, WorkHandle};
use crate::session::{self, Session};
use crate::tools::front::Front;
use crate::tools::time::SystemTime;

/// The handle to all databases: clients enqueue through it, services work through it.
///
/// A cheap clone, `Send + Sync`; all methods block the calling thread, so do not call them on
/// a thread of an async runtime.
#[derive(Clone)]
pub struct Manager {
    parts: Arc<Parts>,
}

struct Parts {
    client: Arc<Client>,
    at_work: AtWork,
    monitor: Monitor,
}

impl Manager {
    // Made and described.

    /// Starts to describe a manager.
    pub fn builder() -> ManagerBuilder {
        ManagerBuilder::default()
    }

    /// The abilities of this manager, with the places where they are registered.
    pub fn abilities(&self) -> Vec<AbilityInfo> {
        self.program().abilities.list()
    }

    /// Whether this manager can do jobs of this ability.
    pub fn can_do(&self, ability: &str) -> bool {
        self.program().abilities.can_do(ability)
    }

    /// Adds a hook; it is called from the next job on.
    ///
    /// # Errors
    ///
    /// When a hook of that name is already there.
    #[track_caller]
    pub fn register_hook(&self, hook: impl Hook + 'static) -> Result<(), Error> {
        self.program().register_hook(Arc::new(hook), SourceLocation::caller())
    }

    /// Removes a hook by name; tells whether it was there.
    pub fn unregister_hook(&self, name: &str) -> bool {
        self.program().unregister_hook(name)
    }

    // For clients.

    /// Stores a job durably and tells what became of it. Blocks for one round trip or two.
    ///
    /// # Errors
    ///
    /// A hook's refusal, an argument or name that cannot be stored, or no database that can take
    /// the job. After [`Error::Uncertain`] the job may be stored; repeating with the same
    /// [id](NewJob::with_id) is safe.
    pub fn enqueue<R>(&self, job: NewJob<R>) -> Result<Enqueued<R>, Error> {
        Ok(client::enqueue::enqueue(self.client(), job.untyped())?.typed())
    }

    /// Stores many jobs in few statements; answers one for one.
    ///
    /// Jobs that may go to any database go to one database together. In each database either all of the jobs are
    /// stored or none of them. [`NewJob::untyped`] gives jobs of several abilities the same type.
    ///
    /// # Errors
    ///
    /// As [`enqueue`](Self::enqueue); before the first insert nothing is stored. When one of
    /// several databases fails after another stored its share: [`Error::PartlyEnqueued`].
    pub fn enqueue_many<R>(
        &self,
        jobs: impl IntoIterator<Item = NewJob<R>>,
    ) -> Result<Vec<Enqueued<R>>, Error> {
        let jobs = jobs.into_iter().map(NewJob::untyped);
        let enqueued = client::enqueue::enqueue_many(self.client(), jobs)?;
        Ok(enqueued.into_iter().map(Enqueued::typed).collect())
    }

    /// As [`enqueue`](Self::enqueue), for tasks of any runtime: it blocks no thread of theirs.
    ///
    /// The work is done by one of 4 threads of the manager's, or up to 16 while some hang, which are there while somebody awaits and share commits. Nothing
    /// happens before the future is polled. If it is dropped before its turn came, nothing is stored; if it is dropped later,
    /// the job may be stored.
    ///
    /// ```
    /// use qudo_core::{Error, Manager, NewJob};
    ///
    /// async fn sign_up(manager: &Manager, user: &str) -> Result<(), Error> {
    ///     let sent = manager.enqueue_async(NewJob::named("welcome", user.into())).await?;
    ///     println!("job {:?}", sent.id());
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`enqueue`](Self::enqueue).
    pub fn enqueue_async<R>(
        &self,
        job: NewJob<R>,
    ) -> impl Future<Output = Result<Enqueued<R>, Error>> + Send + use<R> {
        let enqueued = client::awaiting::enqueue(Arc::clone(self.client()), job.untyped());
        async { Ok(enqueued.await?.typed()) }
    }

    /// As [`enqueue_many`](Self::enqueue_many), for tasks; see [`enqueue_async`](Self::enqueue_async).
    ///
    /// # Errors
    ///
    /// As [`enqueue_many`](Self::enqueue_many).
    pub fn enqueue_many_async<R>(
        &self,
        jobs: Vec<NewJob<R>>,
    ) -> impl Future<Output = Result<Vec<Enqueued<R>>, Error>> + Send + use<R> {
        let jobs = jobs.into_iter().map(NewJob::untyped).collect();
        let enqueued = client::awaiting::enqueue_many(Arc::clone(self.client()), jobs);
        async { Ok(enqueued.await?.into_iter().map(Enqueued::typed).collect()) }
    }

    /// A ticket for a job enqueued earlier, perhaps by another process. Its reply is JSON, or of the type asked for with
    /// [`Ticket::wait_as`] or [`Ticket::typed`].
    ///
    /// It cannot distinguish a job that completed without a reply from a job that was never stored, unless the ticket
    /// saw the job alive or the job's ability keeps the job status: see
    /// [`Standing::Unknown`](crate::Standing::Unknown).
    pub fn ticket(&self, job: JobId) -> Ticket {
        Ticket::of_id(self.client(), job)
    }

    /// The ticket that was [saved](Ticket::save), perhaps by another process. A database that this manager does not have is as one that is not
    /// known: then the job is looked for in all.
    ///
    /// ```
    /// use qudo_core::{Manager, NewJob, SavedTicket, Ticket};
    ///
    /// # fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = Manager::builder().linked(false).database("memory:").build()?;
    /// let sent = manager.enqueue(NewJob::named("mail", 1.into()))?;
    /// let text = serde_json::to_string(&sent.ticket().expect("it is new").save())?;
    /// let saved: SavedTicket = serde_json::from_str(&text)?;
    /// let ticket: Ticket = manager.restore(&saved);
    /// assert_eq!(Some(ticket.id()), sent.id());
    /// # Ok(())
    /// # }
    /// # run().expect("runs");
    /// ```
    pub fn restore<R>(&self, saved: &SavedTicket) -> Ticket<R> {
        client::saved::restore(self.client(), saved)
    }

    /// The short name of the database where a new job would go if all are up: the key's home for
    /// a job with a unique key, the named database, or `None` when any database may take the job.
    ///
    /// # Errors
    ///
    /// When the job names an unknown database.
    pub fn home<R>(&self, job: &NewJob<R>) -> Result<Option<String>, Error> {
        client::route::home(self.client(), job)
    }

    /// The spool, if one is set with [`ManagerBuilder::spool`](crate::ManagerBuilder::spool).
    ///
    /// # Errors
    ///
    /// When its file cannot be read.
    pub fn spool(&self) -> Result<Option<SpoolReport>, Error> {
        client::spool::report(self.client())
    }

    // For services.

    /// Works on the calling thread and the worker threads until SIGTERM or SIGINT.
    ///
    /// The first signal stops softly: no more claims, unstarted jobs are given back, running jobs
    /// may finish within `shutdown_timeout`. After a second signal this method returns as soon as the stop points of
    /// hooks and plugins have returned; another process rescues the jobs that were running. A third signal ends the
    /// process. Databases that are down, now or later,
    /// are used when they are back. The signals' default action is not restored afterwards.
    ///
    /// # Errors
    ///
    /// When no ability is there, a plugin that is needed is missing, a plugin or a hook does not start
    /// ([`Error::Plugin`], [`Error::HookNotStarted`]), a reachable database has the wrong schema, the manager already
    /// works, or the system refuses threads or signal handlers.
    pub fn work(&self) -> Result<(), Error> {
        session::work::work(self.start()?)
    }

    /// Works in the background until the handle is dropped or stopped; handles no signals.
    ///
    /// # Errors
    ///
    /// As [`work`](Self::work).
    pub fn start(&self) -> Result<WorkHandle, Error> {
        session::work::start(self.client(), self.host(), &self.parts.at_work)
    }

    /// Runs at most one job on the calling thread and settles it; `None` when there is none.
    ///
    /// The databases are asked in random order, each queue in turn. For tests and cron; a service
    /// calls [`work`](Self::work).
    ///
    /// # Errors
    ///
    /// When no ability is there, a plugin that is needed is missing, every database is down, or one answers with an
    /// error.
    pub fn work_once(&self) -> Result<Option<Outcome>, Error> {
        session::once::work_once(self.client(), &self.host())
    }

    /// Runs this job on the calling thread and settles it, ready or scheduled, whatever its queue and whatever is paused: for an
    /// operator who tries one job of a queue that is stopped. The run is one like any other, with its hooks; it spends an
    /// attempt.
    ///
    /// ```
    /// use std::time::Duration;
    /// use qudo_core::{Ability, Job, JobResult, Manager};
    /// use qudo_hooks::Outcome;
    ///
    /// struct Mail;
    /// impl Ability for Mail {
    ///     const NAME: &'static str = "mail";
    ///     type Arg = String;
    ///     type Reply = ();
    ///     fn work(_: &Job, _: String) -> JobResult<()> {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let manager = Manager::builder().linked(false).ability::<Mail>().database("memory:by hand").build()?;
    /// let later = Mail::job("ada@example.org".to_owned()).delay(Duration::from_secs(3600));
    /// let id = manager.enqueue(later)?.id().expect("stored");
    /// assert!(matches!(manager.run_job(id)?, Outcome::Completed));
    /// # Ok::<(), qudo_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NotRunnable`] if no database has the job, it runs or moves, or this manager lacks its ability; [`Error::LeaseLost`] if others took the
    /// job while it ran; as [`work_once`](Self::work_once) otherwise.
    pub fn run_job(&self, id: JobId) -> Result<Outcome, Error> {
        session::by_hand::run_job(self.client(), &self.host(), id)
    }

    /// The state of the loops of this process, for each database: a loop hangs if its last success is
    /// long ago although its database is up. Empty while the manager does not work.
    pub fn loops(&self) -> Vec<LoopReport> {
        self.session().map_or_else(Vec::new, |session| session.loops())
    }

    // For operators: what there is.

    /// The short names of the databases. Asks none of them.
    pub fn database_names(&self) -> Vec<String> {
        self.set().all().iter().map(|one| one.name.to_string()).collect()
    }

    /// The databases with their state, and how many jobs each holds, counted up to 10,000. The
    /// databases that are up are asked, all at the same time; a database that does not answer has
    /// no depth.
    #[doc(alias = "databases")]
    pub fn database_reports(&self) -> Vec<DatabaseReport> {
        admin::databases::reports(self.set())
    }

    /// Each database at a glance, the spool included: depth, ages, orders, workers. All are asked at the same time, and who has
    /// not answered within this time has an error.
    ///
    /// ```
    /// use std::time::Duration;
    /// use qudo_core::{Manager, NewJob};
    ///
    /// let manager = Manager::builder().linked(false).database("memory:glanced at").build()?;
    /// manager.enqueue(NewJob::named("mail", "ada@example.org".into()))?;
    /// let one = manager.overview(Duration::from_secs(1)).remove(0).answer?;
    /// assert_eq!((one.depth.ready.count, one.workers, one.verdict()), (1, 0, "up"));
    /// # Ok::<(), qudo_core::Error>(())
    /// ```
    pub fn overview(&self, limit: Duration) -> Vec<PerDatabase<Overview>> {
        admin::overview::overview(self.set(), limit)
    }

    /// What monitoring asks of each database, the spool left out: each tells as much as it can within the time, and why not more. While a
    /// look at a database goes on, whoever asks is told what it has seen so far: it may be asked as often as is wanted.
    ///
    /// ```
    /// use qudo_core::{Manager, NewJob, Watch};
    ///
    /// let manager = Manager::builder().linked(false).database("memory:watched").build()?;
    /// manager.enqueue(NewJob::named("mail", "ada@example.org".into()))?;
    /// let one = manager.readings(Watch::default()).remove(0);
    /// assert!(one.up && one.depth.is_some_and(|depth| depth.ready.count == 1));
    /// # Ok::<(), qudo_core::Error>(())
    /// ```
    pub fn readings(&self, watch: Watch) -> Vec<Reading> {
        self.parts.monitor.readings(self.set(), watch)
    }

    /// Numbers of runs by queue and ability, from every database: how many ended how, how long their jobs had been ready, how long
    /// they took. Worker processes add them with about the pace of their heartbeats, so the last seconds are missing, and those
    /// that a process counted before it was killed.
    ///
    /// ```
    /// use std::time::Duration;
    /// use qudo_core::Manager;
    /// use qudo_core::driver::StatScan;
    ///
    /// let manager = Manager::builder().linked(false).database("memory:numbers").build()?;
    /// let last_hour = StatScan::last(Duration::from_secs(3_600)).every(Duration::from_secs(60));
    /// for row in manager.stats(&last_hour).remove(0).answer? {
    ///     println!("{:?} {} {:?}", row.since, row.stats.ended(), row.stats.waiting.quantile(0.95));
    /// }
    /// # Ok::<(), qudo_core::Error>(())
    /// ```
    pub fn stats(&self, scan: &StatScan) -> Vec<PerDatabase<Vec<StatRow>>> {
        let scan = *scan;
        self.set().on_each("tell its numbers", move |driver| driver.stats(&scan))
    }

    /// Removes all numbers of runs of a queue that is gone, in every database; tells how many rows there were. Counters of it begin anew if it
    /// comes back.
    pub fn forget_stats(&self, queue: &str) -> Vec<PerDatabase<usize>> {
        let queue = queue.to_owned();
        self.set().on_each("forget numbers", move |driver| driver.forget_stats(&queue))
    }

    /// What is not as it should be in each database, the spool included, within limits of the caller's; an empty list where all is. All
    /// are asked at the same time. For probes and alerts.
    ///
    /// ```
    /// use qudo_core::{HealthLimits, Manager, NewJob};
    ///
    /// let manager = Manager::builder().linked(false).database("memory:examined").build()?;
    /// manager.enqueue(NewJob::named("mail", "ada@example.org".into()))?;
    /// let (database, ailments) = manager.health(&HealthLimits::default()).remove(0);
    /// assert_eq!((&*database, ailments[0].as_str()), ("examined", "no_worker"));
    /// # Ok::<(), qudo_core::Error>(())
    /// ```
    pub fn health(&self, limits: &HealthLimits) -> Vec<(String, Vec<Ailment>)> {
        admin::health::health(self.set(), limits)
    }

    /// The migrations that are missing in each database, with their statements, to be read: nothing is applied, and what is applied by hand is not recorded.
    pub fn missing_migrations(&self) -> Vec<PerDatabase<Vec<(String, String)>>> {
        self.set().on_each("look for missing migrations", |driver| driver.missing_migrations())
    }

    /// What an operator should know of each database: settings with which commits may be lost, clocks that do not agree, tables that are not as
    /// they were made, rights that this account lacks. Reads only.
    pub fn checkup(&self) -> Vec<PerDatabase<Vec<Remark>>> {
        self.set().on_each("look at settings and tables", |driver| driver.checkup())
    }

    /// Live jobs counted by queue, ability and state, one list per database.
    pub fn job_count(&self) -> Vec<PerDatabase<Vec<JobCount>>> {
        admin::listing::job_count(self.set())
    }

    /// Live jobs that a [filter](crate::Filter) means, a page of each database: those that run, then those that are
    /// ready, in the order in which they are claimed, then those that are scheduled, by their due time, then those that
    /// move. What may take long ends after half of the time that a listing has, and tells where to go on.
    ///
    /// ```
    /// use qudo_core::{Manager, NewJob, Paging};
    ///
    /// let manager = Manager::builder().linked(false).database("memory:listed").build()?;
    /// manager.enqueue(NewJob::named("mail", "ada@example.org".into()).meta("tenant", 7))?;
    /// let found = manager.jobs(&"ability:m* meta.tenant=7 age<1h".parse()?, &Paging::default());
    /// let (database, job) = found.rows().next().expect("it waits");
    /// assert_eq!((database, &*job.facts.ability), ("listed", "mail"));
    /// assert!(found.next.is_none() && found.errors().next().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn jobs(&self, filter: &JobFilter, paging: &Paging) -> Listing<JobInfo> {
        admin::listing::jobs(self.client(), filter, paging)
    }

    /// A live job with the short name of its database.
    ///
    /// # Errors
    ///
    /// When no database knows the job and one did not answer.
    pub fn lookup(&self, id: JobId) -> Result<Option<(String, JobInfo)>, Error> {
        admin::listing::lookup(self.set(), id)
    }

    /// Why a job does not run, or how it ended: the one reason, and what the databases know of the job. All
    /// databases are asked at the same time; the first one that knows the job answers, so that a database that is
    /// down hides only its own jobs.
    ///
    /// ```
    /// use qudo_core::{Manager, NewJob, Reason};
    ///
    /// let manager = Manager::builder().linked(false).database("memory:explained").build()?;
    /// let sent = manager.enqueue(NewJob::named("mail", "ada@example.org".into()))?;
    /// let explanation = manager.why(sent.id().expect("stored"))?;
    /// assert_eq!(explanation.reason, Reason::NoWorker);
    /// # Ok::<(), qudo_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When no database knows the job and one did not answer.
    pub fn why(&self, id: JobId) -> Result<Explanation, Error> {
        admin::why::why(self.client(), id)
    }

    /// The argument of a job as JSON, for people; `None` where this manager does not have the codec, where the codec
    /// [hides](qudo_hooks::Codec::hides) what it encodes, or where the bytes are not such a value.
    pub fn readable_argument(&self, facts: &JobFacts) -> Option<serde_json::Value> {
        admin::row::readable(&self.program().codecs, facts)
    }

    /// The live job that holds a unique key, with the short name of its database.
    ///
    /// # Errors
    ///
    /// When no database knows the key and one did not answer.
    pub fn holder(&self, ability: &str, uniqkey: &str) -> Result<Option<(String, JobId)>, Error> {
        admin::listing::holder(self.set(), ability, uniqkey)
    }

    /// The history of a job whose ability asks for it with `job_status`, oldest first.
    ///
    /// # Errors
    ///
    /// When no database knows the job and one did not answer.
    pub fn job_status(&self, job: JobId) -> Result<Vec<StatusRow>, Error> {
        admin::listing::job_status(self.set(), job)
    }

    /// Rows of the job status that a [filter](crate::Filter) means, newest first, a page of each database: what became of
    /// the runs of abilities that ask for it with `job_status`.
    #[doc(alias = "job_status_list")]
    pub fn job_statuses(&self, filter: &StatusFilter, paging: &Paging) -> Listing<StatusRow> {
        admin::listing::statuses(self.client(), filter, paging)
    }

    /// Failures that a [filter](crate::Filter) means, grouped by ability, kind, class of the error and version of the program, one answer for
    /// each database: what fails, how often, since when. At most `search` rows of each exception log are looked at, the newest
    /// first, for half of the time that a listing has.
    pub fn failures(
        &self,
        filter: &ExceptionFilter,
        search: u32,
    ) -> Vec<PerDatabase<FailureGroups>> {
        admin::listing::failures(self.client(), filter, search)
    }

    /// Rows of the exception log that a [filter](crate::Filter) means, newest first, a page of each database.
    #[doc(alias = "exception_list")]
    pub fn exceptions(&self, filter: &ExceptionFilter, paging: &Paging) -> Listing<Exception> {
        admin::listing::exceptions(self.client(), filter, paging)
    }

    /// The worker processes that each database knows, with how long they have been silent.
    pub fn workers(&self) -> Vec<PerDatabase<Vec<WorkerSeen>>> {
        admin::listing::workers(self.set())
    }

    /// Orders a worker process, by its id from [`workers`](Self::workers), to be quiet or to stop, or takes the order back. The order is stored in
    /// each database that knows the process, which an answer tells; it follows within a second on PostgreSQL, where it listens, else with its next heartbeat. A
    /// process that is quiet claims nothing from any database, and lives on; what it had claimed and not begun goes back. A process that was cut off for longer than it may be silent
    /// may lose its order.
    ///
    /// To stop is as SIGTERM is: [`work`](Self::work) returns when what runs has ended, or `shutdown_timeout` is over. A process that called
    /// [`start`](Self::start) only becomes quiet, and looks at
    /// [`WorkHandle::is_asked_to_stop`].
    pub fn order_worker(
        &self,
        worker: WorkerId,
        order: WorkerOrder,
        on: bool,
    ) -> Vec<PerDatabase<bool>> {
        admin::workers::order(self.set(), worker, order, on)
    }

    /// Which worker processes are ordered to be quiet or to stop, in each database.
    pub fn worker_orders(&self) -> Vec<PerDatabase<Vec<(WorkerId, WorkerOrder)>>> {
        self.set().on_each("read the orders", |driver| {
            Ok(driver.control()?.workers.map_or_else(Vec::new, |all| all.to_vec()))
        })
    }

    /// Compares the abilities and queues of this manager with the jobs that wait in the databases:
    /// which of these jobs a manager like this one cannot run. For a check before a deploy.
    ///
    /// Counts all waiting jobs, which takes a while where there are millions.
    pub fn check_abilities(&self) -> Vec<PerDatabase<Vec<Unworkable>>> {
        admin::listing::check_abilities(self.program(), self.set())
    }

    /// Checks for every live job of every database whether it is in exactly one place of one
    /// database, with its facts and its unique key.
    ///
    /// It reads in bounded ranges and makes no other process wait; workers may go on meanwhile. It writes
    /// only the identity of a database that has no identity yet, because the identity shows when two names
    /// lead to one database. Each finding is confirmed by a second look. The spool is checked too. With
    /// [`repair`](AuditOptions::repair) it repairs what can be repaired, under locks that keep other
    /// processes away.
    ///
    /// ```
    /// use qudo_core::{AuditOptions, Manager};
    ///
    /// let manager = Manager::builder().database("memory:audited").build()?;
    /// assert!(manager.audit(AuditOptions::default()).is_clean());
    /// # Ok::<(), qudo_core::Error>(())
    /// ```
    pub fn audit(&self, options: AuditOptions) -> AuditReport {
        admin::audit::run(self.set(), options)
    }

    // For operators: what to do with jobs.

    /// Removes a live job that is not running; tells whether it did.
    ///
    /// # Errors
    ///
    /// When no database removed it and one did not answer.
    pub fn dequeue(&self, id: JobId) -> Result<bool, Error> {
        admin::orders::dequeue(self.client(), id)
    }

    /// Cancels a job, for a reason that its clients and the exception log are told.
    ///
    /// A job that waits ends now ([`Acted::Done`]). One that runs is told ([`Acted::Asked`]): its ability sees it by
    /// [`Job::is_cancelled`], and an `async` ability is dropped at its next `await`; within a second on PostgreSQL, where it
    /// listens, and in this process, else with the next heartbeat. If it then returns an error, or does not start before it
    /// is told, the job ends; if it completes all the same, it is completed. If its process dies, or the run ends in a retry before it is
    /// told, the job ends before its next run, or that run is told.
    ///
    /// A job that was cancelled is no failure: it counts in no group of failures, clients get
    /// [`Error::JobCancelled`], hooks [`post_cancel`](qudo_hooks::Hook::post_cancel). It stays in the exception log, with the kind
    /// `cancelled`, and [`redrive`](Self::redrive) enqueues it again.
    ///
    /// ```
    /// use qudo_core::driver::Acted;
    /// use qudo_core::{Manager, NewJob};
    ///
    /// let manager = Manager::builder().linked(false).database("memory:cancelled").build()?;
    /// let id = manager.enqueue(NewJob::named("mail", "ada@example.org".into()))?.id().expect("stored");
    /// assert_eq!(manager.cancel(id, "sent by hand")?, Acted::Done);
    /// assert_eq!(manager.cancel(id, "sent by hand")?, Acted::Gone);
    /// # Ok::<(), qudo_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the reason is empty, or no database knows the job and one did not answer.
    pub fn cancel(&self, id: JobId, reason: &str) -> Result<Acted, Error> {
        self.cancel_job(id, reason, false)
    }

    /// Cancels a job also if it runs, without waiting for its worker: its lease is taken away, its unique key is free, its clients are told now. The
    /// run itself goes on until it ends, and its end changes nothing: for a job that does not listen to
    /// [`cancel`](Self::cancel).
    ///
    /// # Errors
    ///
    /// As [`cancel`](Self::cancel).
    pub fn cancel_by_force(&self, id: JobId, reason: &str) -> Result<Acted, Error> {
        self.cancel_job(id, reason, true)
    }

    fn cancel_job(&self, id: JobId, reason: &str, by_force: bool) -> Result<Acted, Error> {
        let (acted, database) = admin::orders::cancel(self.client(), id, reason, by_force)?;
        if let (Acted::Asked | Acted::AskedBefore, Some(name), Some(session)) =
            (acted, database, self.session())
        {
            session.note_order(&name);
        }
        Ok(acted)
    }

    /// Changes when a waiting job runs, keeping its id and its attempts; tells whether it did.
    /// A running job is not changed; a delay of more than a year counts as one year.
    ///
    /// # Errors
    ///
    /// When no database knows the job and one did not answer.
    #[doc(alias = "reenqueue")]
    pub fn reschedule(&self, id: JobId, due: Due) -> Result<bool, Error> {
        admin::orders::reschedule(self.set(), id, due)
    }

    /// Redrive: enqueues a discarded job again from the exception log, with its original argument
    /// and unique key, under a new id, in the same database. This can be done only once.
    ///
    /// # Errors
    ///
    /// When the row does not exist, was not the job's last failure, was redriven before, or its
    /// unique key is taken by a live job.
    #[doc(alias = "enqueue_from_failed_job")]
    pub fn redrive(&self, exception: ExceptionId) -> Result<Ticket, Error> {
        admin::orders::redrive(self.client(), exception)
    }

    /// What an [`Operation`] would be about in each database: how many jobs, and this number of them as a sample. Nothing changes.
    ///
    /// # Errors
    ///
    /// When the operation cannot be: a cancel without a reason, a name that is none.
    pub fn preview(
        &self,
        operation: &Operation,
        sample: u32,
    ) -> Result<Vec<PerDatabase<Preview>>, Error> {
        admin::operations::preview(self.client(), operation, sample)
    }

    /// Carries an [`Operation`] out in all databases at the same time, or goes on with one that was stopped. Blocks until
    /// its end.
    ///
    /// It is done in slices of up to 500 jobs, each of them one transaction, and about the jobs that were there when it
    /// began. Each database has a row of it, which says how far it has come: if this process dies, or a database does not answer, the
    /// rest is done by [`find_operation`](Self::find_operation) and another call of this method, by whichever process. Two processes that do the
    /// same operation at the same time share its slices; two operations over the same jobs do nothing twice.
    ///
    /// After each slice `tell` is called on the calling thread with what became of its jobs; `Break` stops the operation, but for
    /// slices that are under way.
    ///
    /// # Errors
    ///
    /// When the operation cannot be begun: a cancel without a reason, a name that is none, a limit that could not be kept. That
    /// a database did not come to its end is said in the report.
    pub fn operate(
        &self,
        operation: &Operation,
        mut tell: impl FnMut(&Slice) -> ControlFlow<()>,
    ) -> Result<OperationReport, Error> {
        let tell = |slice: Slice| {
            // A job that runs in this process is told now, not with the next heartbeat.
            if slice.treated.iter().any(|one| one.acted == Acted::Asked)
                && let Some(session) = self.session()
            {
                session.note_order(&slice.database);
            }
            tell(&slice)
        };
        admin::operations::operate(self.client(), operation, tell)
    }

    /// An operation that is stored, to go on with it; `None` when no database knows it, as when it is older than
    /// [`keep_exceptions`](crate::ManagerBuilder::keep_exceptions). The rate is the default one again.
    ///
    /// # Errors
    ///
    /// When no database knows it and one did not answer, or it was stored by a later version of this library.
    pub fn find_operation(&self, id: OperationId) -> Result<Option<Operation>, Error> {
        admin::operations::find(self.client(), id)
    }

    /// The operations that each database knows, the last that was begun first: at most this number, of those with a smaller id.
    pub fn operations(
        &self,
        before: Option<OperationId>,
        limit: u32,
    ) -> Vec<PerDatabase<Vec<OperationRow>>> {
        admin::operations::list(self.client(), before, limit)
    }

    /// Moves the waiting jobs of one database to another, in bounded batches; running jobs stay.
    /// Blocks until no job is left that can move.
    ///
    /// A job with a unique key moves only to the key's home among the databases that are not draining,
    /// because otherwise the key could be taken there a second time; jobs whose key has another home
    /// stay. So [`drain`](Self::drain) the database first, then move to each of the other databases.
    ///
    /// A job keeps its id, attempts, unique key and due time. Its history, replies and rows of the exception log stay
    /// behind; tickets follow the job. If a move is killed or broken off at any point, the next call continues it: no
    /// job is lost, and no job can run in both databases. Several processes may move at the same time.
    ///
    /// # Errors
    ///
    /// When a name is unknown, both are names of one database, or a database does not answer; the jobs
    /// moved until then stay moved.
    pub fn move_jobs(&self, from: &str, to: &str) -> Result<MoveReport, Error> {
        admin::moves::move_jobs(self.set(), from, to)
    }

    // For operators: what to do with databases.

    /// Creates or updates the tables in every database; returns the migrations that were applied to
    /// each.
    ///
    /// # Errors
    ///
    /// The error of the first database that does not answer, is newer than this program, or
    /// refuses: also while worker processes live whose programs must not work on the new tables.
    pub fn migrate(&self) -> Result<Vec<PerDatabase<Vec<String>>>, Error> {
        schema::migrate(self.set())
    }

    /// As [`migrate`](Self::migrate), with one answer per database. A migration may take as long
    /// as it takes. With `force` it does not look for worker processes of older programs: their jobs may fail then.
    pub fn migrate_each(&self, force: bool) -> Vec<PerDatabase<Vec<String>>> {
        schema::migrate_each(self.set(), force)
    }

    /// Drains a database: new jobs go to the others, while its own jobs are worked as before or
    /// handed over with [`move_jobs`](Self::move_jobs). The order is stored in the database; every
    /// process follows it within 5 seconds, and a new process from its start.
    ///
    /// Jobs that name the database are refused. Unique keys move to their next home; while the
    /// database is drained, enqueues first ask it whether it still holds the key. During the 5
    /// seconds until all processes follow the order, a key may be taken in both databases.
    ///
    /// # Errors
    ///
    /// When no database has this name or it does not answer.
    pub fn drain(&self, database: &str) -> Result<(), Error> {
        self.set().find(database)?.order(Order::Draining, true)
    }

    /// Ends [`drain`](Self::drain): the database takes new jobs again.
    ///
    /// # Errors
    ///
    /// When no database has this name or it does not answer.
    pub fn undrain(&self, database: &str) -> Result<(), Error> {
        self.set().find(database)?.order(Order::Draining, false)
    }

    /// Pauses a database: its jobs wait, and it takes new ones. Running jobs end as usual. The
    /// order is stored in the database; every process follows it within 5 seconds or at its next
    /// heartbeat, whichever is later.
    ///
    /// # Errors
    ///
    /// When no database has this name or it does not answer.
    pub fn pause(&self, database: &str) -> Result<(), Error> {
        self.set().find(database)?.order(Order::Paused, true)
    }

    /// Pauses a queue or an ability, in one database or in all: its jobs wait, and new ones are taken. Running jobs end as
    /// usual. In the name, `*` stands for any characters. Every process follows within 5 seconds or at its next
    /// heartbeat, whichever is later; an order that is stored already has this reason then, of which 200 characters are kept. An order stays in
    /// its database: jobs that are moved to another one, or a database that is added later, have none of it.
    ///
    /// A claim steps over the jobs of a paused ability that lie before others in a queue. Where there may be many,
    /// give the ability a queue of its own and pause that.
    ///
    /// ```
    /// use qudo_core::driver::Part;
    /// use qudo_core::Manager;
    ///
    /// let manager = Manager::builder().linked(false).database("memory:half paused").build()?;
    /// manager.pause_part(&Part::Queue("gl.*".to_owned()), None, "the ledger is closed")?;
    /// let paused = manager.pauses().remove(0).answer?;
    /// assert_eq!((paused[0].part.name(), &*paused[0].reason), ("gl.*", "the ledger is closed"));
    /// manager.resume_part(&Part::Queue("gl.*".to_owned()), None)?;
    /// # Ok::<(), qudo_core::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the name cannot be one, or no database has the name that is asked for. One that does not answer has its error in the list.
    pub fn pause_part(
        &self,
        part: &Part,
        database: Option<&str>,
        reason: &str,
    ) -> Result<Vec<PerDatabase<()>>, Error> {
        admin::pauses::order(self.set(), part, Some(reason), database)
    }

    /// Ends [`pause_part`](Self::pause_part) of the same name.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn resume_part(
        &self,
        part: &Part,
        database: Option<&str>,
    ) -> Result<Vec<PerDatabase<()>>, Error> {
        admin::pauses::order(self.set(), part, None, database)
    }

    /// The queues and abilities that are paused in each database, by name, with the reasons.
    pub fn pauses(&self) -> Vec<PerDatabase<Vec<Pause>>> {
        admin::pauses::pauses(self.set())
    }

    /// Ends [`pause`](Self::pause): the database's jobs are worked again.
    ///
    /// # Errors
    ///
    /// When no database has this name or it does not answer.
    pub fn resume(&self, database: &str) -> Result<(), Error> {
        self.set().find(database)?.order(Order::Paused, false)
    }

    /// Takes a database into use while the manager works, under the short name that its data
    /// source suggests. Its share of unique keys moves there; see
    /// [`add_database_as`](Self::add_database_as).
    ///
    /// # Errors
    ///
    /// As [`add_database_as`](Self::add_database_as).
    pub fn add_database(&self, source: impl Into<DataSource>) -> Result<(), Error> {
        admin::databases::add(self.set(), &self.parts.at_work, source.into())
    }

    /// Takes a database into use while the manager works.
    ///
    /// It becomes the home of its share of the unique keys, one in *n*; the other keys stay where
    /// they are. A key whose job waits in its former home at this moment may be taken a second time
    /// in the new one: if that matters, wait first until the jobs with keys are done. Other
    /// processes do not use the new database until they add it too.
    ///
    /// # Errors
    ///
    /// When the data source name is malformed, the name is taken, or the database answers with a
    /// schema this program cannot work on. A database that is down is added without an error.
    pub fn add_database_as(&self, name: &str, dsn: &str) -> Result<(), Error> {
        self.add_database(DataSource::new(dsn).name(name))
    }

    /// Takes a database out of use while the manager works: unstarted jobs are given back, running
    /// ones may finish within `shutdown_timeout`, for which this method waits. The jobs stored
    /// there stay.
    ///
    /// Its share of unique keys moves to the other databases; [drain](Self::drain) it before, so
    /// that enqueues ask it for its keys until its jobs are done.
    ///
    /// # Errors
    ///
    /// When no database has this name or it is the last one.
    pub fn remove_database(&self, name: &str) -> Result<(), Error> {
        admin::databases::remove(self.set(), &self.parts.at_work, name)
    }

    /// Takes a database away: [drains](Self::drain) it, [moves](Self::move_jobs) its waiting jobs to the
    /// others until no job has come for as long as other processes may still store jobs there, and
    /// [removes](Self::remove_database) it from this manager. Blocks meanwhile, at least 25 s with the
    /// default [`call_limit`](crate::ManagerBuilder::call_limit).
    ///
    /// Each of the three steps alone would leave jobs behind: another process follows the order within 5 s,
    /// and an insert that is under way then may take two more `call_limit`s, after which this method assumes
    /// that no insert is under way. An insert of tens of thousands of jobs, a transaction of the caller's
    /// own, or a process with a longer `call_limit` may take longer: stop such work before. This method waits
    /// for running jobs, because they may be retried. Jobs with a unique key go to the home that their key
    /// has without this database. Jobs that are left when `within` is over stay, and the database stays too,
    /// draining; call this method again.
    ///
    /// Other processes remove it when they are deployed without it, or call
    /// [`remove_database`](Self::remove_database).
    ///
    /// # Errors
    ///
    /// As [`move_jobs`](Self::move_jobs), [`Error::NoDatabase`] for the last one, and
    /// [`Error::NotEmpty`] when jobs are left at the end of the time.
    pub fn retire_database(&self, name: &str, within: Duration) -> Result<MoveReport, Error> {
        admin::retire::retire(self.set(), &self.parts.at_work, name, within)
    }

    // For the rest of this crate.

    pub(crate) fn client(&self) -> &Arc<Client> {
        &self.parts.client
    }

    pub(crate) fn program(&self) -> &Program {
        &self.parts.client.program
    }

    pub(crate) fn set(&self) -> &Databases {
        &self.parts.client.databases
    }

    fn session(&self) -> Option<Arc<Session>> {
        self.parts.at_work.session()
    }

    fn host(&self) -> Arc<dyn Host> {
        Arc::new(self.clone())
    }

    pub(crate) fn downgrade(&self) -> WeakManager {
        WeakManager(Arc::downgrade(&self.parts))
    }
}

/// A manager that does not live on because of this.
pub(crate) struct WeakManager(Weak<Parts>);

impl WeakManager {
    pub(crate) fn upgrade(&self) -> Option<Manager> {
        self.0.upgrade().map(|parts| Manager { parts })
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("databases", &self.set().all())
            .field("abilities", &self.program().abilities)
            .field("hooks", &self.program().hooks())
            .finish_non_exhaustive()
    }
}

impl ManagerBuilder {
    /// Checks everything and builds the manager.
    ///
    /// # Errors
    ///
    /// When a data source name is malformed, a name is taken twice, an option is out of range, or
    /// two abilities, hooks or plugins collide.
    pub fn build(self) -> Result<Manager, Error> {
        let client = self.into_client()?;
        Ok(Manager {
            parts: Arc::new(Parts {
                client,
                at_work: AtWork::default(),
                monitor: Monitor::default(),
            }),
        })
    }
}

impl Host for Manager {
    fn codecs(&self) -> &CodecSet {
        &self.program().codecs
    }

    fn plugins(&self) -> &PluginSet {
        &self.program().plugins
    }

    fn prepare(&self, job: NewJob) -> Result<Option<JobRecord>, Error> {
        client::draft::prepare(self.program(), job)
    }

    fn tell_replacements(&self, jobs: &[JobRecord], without: &[JobId], database: &str) {
        self.program().tell_replacements(jobs, without, database, SystemTime::now());
    }

    fn register_progress(&self, cell: &Arc<ProgressCell>) {
        self.client().progress.register(cell);
    }

    fn note_news(&self, job: JobId) {
        self.client().waiters.note_news([job]);
    }

    fn front(&self) -> Arc<Front> {
        Arc::clone(&self.client().sends)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl ManagerInside for Manager {
    fn prepare_record<R>(&self, job: NewJob<R>) -> Result<Option<JobRecord>, Error> {
        client::draft::prepare(self.program(), job.untyped())
    }

    fn stored_in_transaction(&self, record: &JobRecord, database: Option<&str>) {
        let all = self.set().all();
        let name = match (database, &all[..]) {
            (Some(name), _) => name,
            (None, [one]) => &*one.name,
            _ => "",
        };
        client::draft::call_post_enqueue_in(self.program(), record, name);
    }

    fn drivers(&self, database: Option<&str>) -> Result<Vec<Arc<dyn Driver>>, Error> {
        let databases = match database {
            Some(name) => vec![self.set().find(name)?],
            None => self.set().all().to_vec(),
        };
        Ok(databases.iter().map(|database| Arc::clone(database.driver())).collect())
    }

    fn notifies_in_transactions(&self) -> bool {
        self.program().options.notify_in_transactions
    }
}

impl Job {
    /// The manager that runs the job, for enqueuing more.
    pub fn manager(&self) -> &Manager {
        // Whoever runs jobs knows its manager by a trait only, since it is above them.
        self.host().as_any().downcast_ref().expect("the only host there is")
    }
}
