//! One job on the calling thread, for tests and cron: the same claim, run and settle as a service's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;

use qudo_hooks::{Failure, FailureKind, JobId, Outcome};

use super::cancels::Cancels;
use super::claimable::Claimable;
use super::claiming::Claiming;
use super::rhythm::{MIN_WAIT, Rhythm};
use super::run::{Begun, Context, Ran, run_job};
use super::settling::{Ended, One, Settling};
use super::tally::Tally;
use crate::client::Client;
use crate::client::cancelled::carry_out;
use crate::database::Database;
use crate::database::calls::Late;
use crate::database::interim::JobStore;
use crate::database::schema::check_schema;
use crate::driver::{
    ClaimedJob, Control, Deadline, Driver, DriverError, ErrorKind, JobClaim, Settlement, WorkerId,
    WorkerInfo,
};
use crate::error::{DownReason, Error};
use crate::job::{Host, Post, Tenure};
use crate::observe::Event;
use crate::tools::causes::with_causes;
use crate::tools::random::shuffle;
use crate::tools::sync::mpsc;
use crate::tools::threads::{scope, sleep};
use crate::tools::time::{Instant, SystemTime};

/// One call of `work_once` promotes at most so many due jobs per database.
const MAX_PROMOTE: u32 = 100;

const SETTLE_AGAIN: Duration = Duration::from_millis(100);

/// That a run is counted is waited for so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is refused is tried again so often.
const MAX_REFUSALS: u32 = 2;

/// Runs at most one job on the calling thread and settles it.
pub(crate) fn work_once(
    client: &Arc<Client>,
    host: &Arc<dyn Host>,
) -> Result<Option<Outcome>, Error> {
    if client.program.abilities.is_empty() {
        return Err(Error::NoAbilities);
    }
    client.program.check_needs()?;
    let mut databases = client.databases.all().to_vec();
    shuffle(&mut databases);
    let mut reasons = Vec::new();
    for database in &databases {
        if let Some(reason) = database.reason() {
            reasons.push(DownReason { database: database.name.to_string(), reason });
            continue;
        }
        let worked = check_schema(database).and_then(|()| Once::new(client, host).at(database));
        match worked {
            Ok(None) => {}
            Ok(done) => return Ok(done),
            Err(error) if error.is_down() => {
                let (database, reason) = (database.name.to_string(), with_causes(&error));
                reasons.push(DownReason { database, reason });
            }
            Err(error) => return Err(error),
        }
    }
    if reasons.len() == databases.len() {
        return Err(Error::AllDatabasesDown(reasons));
    }
    Ok(None)
}

/// Nobody stops a single run; the end of its lease ends its tenure, or an order to cancel it.
#[derive(Default)]
struct Alone(Cancels);

impl Tenure for Alone {
    fn is_stopping(&self) -> bool {
        false
    }

    fn may_have_lost(&self, _begun: Duration) -> bool {
        false
    }

    fn cancelled(&self, job: JobId, claim: i64) -> Option<Arc<str>> {
        self.0.reason(job, claim)
    }

    fn tell_news(&self, _: JobId) {}

    fn watch_cancel(&self, job: JobId, number: u64, waker: Option<&Waker>) {
        self.0.watch(job, number, waker);
    }
}

/// Claims the job in the name of a worker that says first that it lives. An answer that comes when nobody waits for it any more is
/// taken back, with the worker's row.
fn claim_job(
    database: &Arc<Database>,
    worker: &WorkerInfo,
    job: JobId,
    grab_for: Duration,
) -> Result<Option<ClaimedJob>, DriverError> {
    let (info, id) = (worker.clone(), worker.id);
    let deadline = Deadline::at(Instant::now() + database.limit());
    let claim = JobClaim { worker: id, claim: 1, job, grab_for, deadline };
    let ask = move |driver: &dyn Driver| {
        driver.heartbeat(&info)?;
        driver.claim_job(&claim)
    };
    let late = move |driver: &dyn Driver, _: Result<Option<ClaimedJob>, DriverError>| {
        if let Err(error) = driver.remove_worker(id) {
            log::warn!("a late claim of job {job} could not be released: {error}");
        }
    };
    database.ask_within(database.limit(), ask, Box::new(late))
}

/// What is done when a beat is answered that nobody waits for any more: once the run is over it made a row anew that nobody would remove.
fn late_beat<T>(worker: WorkerId, over: Arc<AtomicBool>) -> Late<T> {
    Box::new(move |driver, _| {
        if over.load(Ordering::Acquire)
            && let Err(error) = driver.remove_worker(worker)
        {
            log::debug!("the row of a worker that ended could not be removed: {error}");
        }
    })
}

/// A worker process that runs one job.
pub(super) struct Once<'a> {
    client: &'a Arc<Client>,
    host: &'a Arc<dyn Host>,
    tally: Tally,
    alone: Arc<Alone>,
}

/// What became of one run.
pub(super) struct RanOnce {
    pub(super) outcome: Outcome,
    /// Its end changed nothing, because the lease was lost while it ran.
    pub(super) is_lost: bool,
}

impl<'a> Once<'a> {
    pub(super) fn new(client: &'a Arc<Client>, host: &'a Arc<dyn Host>) -> Self {
        Self { client, host, tally: Tally::default(), alone: Arc::default() }
    }

    /// Runs this job of the database; `None` if it does not wait.
    pub(super) fn by_id(
        &self,
        database: &Arc<Database>,
        job: JobId,
        grab_for: Duration,
    ) -> Result<Option<RanOnce>, Error> {
        let worker = self.client.program.worker_info();
        let failed = |error| Error::database(&database.name, "run a job", error);
        database.meet().map_err(failed)?;
        // One that was to end when it waits again ends here, and is not run.
        self.end_cancelled(database);
        let begun = SystemTime::now();
        let claimed = claim_job(database, &worker, job, grab_for);
        let ended = claimed.and_then(|claimed| {
            let Some(claimed) = claimed else { return Ok(None) };
            let (name, jobs) = (&*database.name, std::slice::from_ref(&claimed));
            let (worker_id, queue) = (worker.id, &claimed.facts.queue);
            self.client.program.tell(|| Event::Claimed {
                worker: worker_id,
                database: name,
                queue,
                jobs,
                begun,
            });
            self.run_and_settle(database, &worker, claimed).map(Some)
        });
        self.leave(database, &worker);
        ended.map_err(failed)
    }

    /// Ends jobs that were to end while they ran, and wait now.
    fn end_cancelled(&self, database: &Arc<Database>) {
        if let Err(error) = carry_out(self.client, database) {
            let name = &*database.name;
            log::debug!("database {name:?}: orders to cancel jobs cannot be carried out: {error}");
        }
    }

    /// Whatever happened, the row of this worker must not wait to be declared dead. That its run is counted matters less.
    fn leave(&self, database: &Arc<Database>, worker: &WorkerInfo) {
        let (name, worker) = (&*database.name, worker.id);
        if let Err(error) = database.ask(move |driver| driver.remove_worker(worker)) {
            // The job is settled, and that is what the caller asks; others sweep the row.
            log::warn!("database {name:?}: cannot remove the row of this worker: {error}");
        }
        if let Some(report) = self.tally.report() {
            let counted = database.ask_shortly(PATIENCE, move |driver| report.make(driver));
            if let Err(error) = counted {
                log::debug!("database {name:?}: a run was not counted: {error}");
            }
        }
    }

    fn at(&self, database: &Arc<Database>) -> Result<Option<Outcome>, Error> {
        let worker = self.client.program.worker_info();
        let failed = |error| Error::database(&database.name, "work once", error);
        let control = database.meet().map_err(failed)?;
        if control.paused {
            return Ok(None);
        }
        let (info, begun) = (worker.clone(), Instant::now());
        let others = database.ask(move |driver| {
            driver.promote_due(MAX_PROMOTE)?;
            driver.heartbeat(&info)?;
            driver.workers()
        });
        let others = others.map_err(failed)?;
        // Who is silent is known to a process that calls this often; for one that does not, the end
        // of the lease has to do.
        let dead = {
            let mut watch = database.watch.lock();
            let now = Instant::now();
            watch.note(begun, now);
            watch.judge(&others, self.client.program.options.dead_after, begun, now).dead
        };
        database.ask(move |driver| driver.rescue(&dead, true, MAX_PROMOTE)).map_err(failed)?;
        self.end_cancelled(database);
        let ended = self.claim_and_run(database, &worker, &control);
        self.leave(database, &worker);
        ended.map_err(failed)
    }

    fn claim_and_run(
        &self,
        database: &Arc<Database>,
        worker: &WorkerInfo,
        control: &Control,
    ) -> Result<Option<Outcome>, DriverError> {
        let program = &self.client.program;
        let claimable = Claimable::under(control, &program.queues(), &program.leases());
        let abilities = &claimable.abilities;
        // Nobody comes again for what this claim does not see.
        let claiming = Claiming { program, worker: worker.id, abilities, database, thorough: true };
        for (number, queue) in (1..).zip(&*claimable.queues) {
            let deadline = Instant::now() + database.limit();
            if let Some(job) = claiming.claim(queue, number, 1, deadline)?.pop() {
                return Ok(Some(self.run_and_settle(database, worker, job)?.outcome));
            }
        }
        Ok(None)
    }

    fn run_and_settle(
        &self,
        database: &Arc<Database>,
        worker: &WorkerInfo,
        job: ClaimedJob,
    ) -> Result<RanOnce, DriverError> {
        let (program, hooks) = (&self.client.program, self.client.program.hooks());
        let context = Context { program, hooks: &hooks, worker };
        let post = Post {
            host: Arc::clone(self.host),
            database: Arc::clone(&database.name),
            driver: Arc::clone(database.driver()),
            worker: worker.id,
            tenure: Arc::clone(&self.alone) as Arc<dyn Tenure>,
            store: Arc::new(JobStore(Arc::clone(database))),
        };
        let (id, begun) = (job.id, Begun::now());
        let waited = begun.at.saturating_duration_since(job.ready_since);
        let (queue, ability) = (job.facts.queue.clone(), job.facts.ability.clone());
        let run = || {
            let ran = run_job(&context, Arc::new(post), Box::new(job), begun);
            (ran, begun.at.elapsed())
        };
        let (Ran { settlement, outcome, .. }, took) = self.while_alive(database, worker, run);
        self.tally.note(&queue, &ability, &outcome, waited, took);
        let Some(settlement) = settlement else {
            self.client.waiters.note([id]);
            return Ok(RanOnce { outcome, is_lost: false });
        };
        let (refusal, is_lost) = self.settle(database, worker, settlement)?;
        let discarded = |why| Outcome::Discarded(Failure::new(FailureKind::Error, why));
        Ok(RanOnce { outcome: refusal.map_or(outcome, discarded), is_lost })
    }

    /// Waits out a short absence of the database: a connection that lay idle during a long job may be
    /// dead, and the result exists only here. After `dead_after` others hold the job. Answers why the job was
    /// discarded, if its end was refused with what it brought, and whether the end changed nothing because the lease was lost.
    fn settle(
        &self,
        database: &Arc<Database>,
        worker: &WorkerInfo,
        settlement: Settlement,
    ) -> Result<(Option<String>, bool), DriverError> {
        let settling = Settling { client: self.client, worker, database, asks_anyway: true };
        let deadline = Instant::now() + self.client.program.options.dead_after;
        let (mut refusals, mut refusal) = (0, None);
        let mut one = One::alone(settlement, false);
        loop {
            // It asks once at least, however long the last try took.
            let (left, error) = match settling.settle_one(one, database.limit(), &|| false) {
                Ended::Settled(_, answered) => {
                    let is_done = answered.is_some_and(|answered| answered.is_done);
                    let is_lost = answered.is_some_and(|answered| answered.lost > 0);
                    return Ok((refusal.filter(|_| is_done), is_lost));
                }
                Ended::Contended(left, error) => {
                    let unknown = || DriverError::new(ErrorKind::Down, "no answer");
                    (left, error.unwrap_or_else(unknown))
                }
                Ended::Refused(left, error) => (left, error),
            };
            let is_late = Instant::now() >= deadline;
            let is_refused = !matches!(error.kind(), ErrorKind::Down | ErrorKind::Contention);
            refusals += u32::from(is_refused);
            if is_refused && (is_late || refusals > MAX_REFUSALS) {
                let is_at_fault = error.kind() == ErrorKind::Other && refusal.is_none();
                let without = settling.discarded(left.settlement(), &error).filter(|_| is_at_fault);
                let Some(without) = without else { return Err(error) };
                refusal = Some(with_causes(&error));
                one = One::alone(without, left.repeated);
                continue;
            }
            if is_late {
                return Err(error);
            }
            one = left;
            sleep(SETTLE_AGAIN);
        }
    }

    /// Keeps heartbeats going on another thread while a job runs on this one.
    fn while_alive<T>(
        &self,
        database: &Arc<Database>,
        worker: &WorkerInfo,
        run: impl FnOnce() -> T,
    ) -> T {
        let Rhythm { every, again, limit } = Rhythm::of(&self.client.program.options);
        let (done, waits) = mpsc::channel::<()>();
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        scope(|scope| {
            scope.spawn(move || {
                let mut pause = every;
                while waits.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
                    let (worker, begun) = (worker.clone(), Instant::now());
                    let late = late_beat(worker.id, Arc::clone(&over));
                    let beat = move |driver: &dyn Driver| {
                        driver.heartbeat(&worker)?;
                        Ok(driver.cancels(worker.id))
                    };
                    let next = match database.ask_within(limit, beat, late) {
                        Ok(cancels) => {
                            // An account may lack the right to read orders.
                            self.alone.0.note(cancels.unwrap_or_default());
                            database.watch.lock().note(begun, Instant::now());
                            begun + every
                        }
                        Err(error) => {
                            log::warn!("database {:?}: heartbeat: {error}", &*database.name);
                            begun + again
                        }
                    };
                    pause = next.saturating_duration_since(Instant::now()).max(MIN_WAIT);
                }
            });
            let value = run();
            ended.store(true, Ordering::Release);
            drop(done);
            value
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::ability::Ability;
    use crate::fixture::{SOON, memory};
    use crate::job::Job;
    use crate::job_error::JobResult;
    use crate::manager::Manager;
    use crate::testing::FaultyDriver;

    struct Count;

    /// What happens while the job runs.
    #[derive(Default)]
    struct Meanwhile {
        runs: AtomicU32,
        goes_away: AtomicBool,
        away: Arc<AtomicBool>,
    }

    impl Ability for Count {
        const NAME: &'static str = "count";
        type Arg = ();
        type Reply = u32;

        fn work(job: &Job, (): ()) -> JobResult<u32> {
            let meanwhile = job.plugin::<Arc<Meanwhile>>()?;
            let away = meanwhile.goes_away.load(Ordering::Relaxed);
            meanwhile.away.store(away, Ordering::Relaxed);
            Ok(meanwhile.runs.fetch_add(1, Ordering::Relaxed) + 1)
        }
    }

    fn manager(
        dead_after: Duration,
        settle: impl Fn() -> std::result::Result<(), DriverError> + Send + Sync + 'static,
    ) -> (Manager, Arc<Meanwhile>) {
        let meanwhile = Arc::new(Meanwhile::default());
        let away = Arc::clone(&meanwhile.away);
        let driver = FaultyDriver::new(memory()).with_fault(move |call| {
            if away.load(Ordering::Relaxed) {
                return Err(DriverError::new(ErrorKind::Down, "away"));
            }
            if call == "settle" { settle() } else { Ok(()) }
        });
        let builder = Manager::builder().linked(false).ability::<Count>();
        let builder = builder.plugin(Arc::clone(&meanwhile)).retry_seconds(300);
        let builder = builder.heartbeat(dead_after / 4, dead_after);
        let manager = builder.driver("one", Arc::new(driver)).build().expect("valid");
        manager.enqueue(Count::job(())).expect("stored");
        (manager, meanwhile)
    }

    fn error(kind: ErrorKind) -> DriverError {
        DriverError::new(kind, "the account lacks INSERT")
    }

    #[test]
    fn one_job_is_claimed_run_and_settled() {
        let (manager, meanwhile) = manager(SOON, || Ok(()));
        assert!(matches!(manager.work_once(), Ok(Some(Outcome::Completed))));
        assert!(matches!(manager.work_once(), Ok(None)));
        assert_eq!(meanwhile.runs.load(Ordering::Relaxed), 1);
        assert_eq!(manager.workers()[0].answer.as_ref().map(Vec::len).ok(), Some(0));
    }

    #[test]
    fn a_right_or_a_table_that_is_missing_is_told_soon_and_as_it_is() {
        for kind in [ErrorKind::Permission, ErrorKind::Schema] {
            let (manager, _) = manager(SOON, move || Err(error(kind)));
            let begun = Instant::now();
            let told = manager.work_once().expect_err("it cannot be settled").to_string();
            assert!(told.contains("lacks INSERT"), "{told}");
            assert!(begun.elapsed() < SOON / 4, "{:?}", begun.elapsed());
        }
    }

    #[test]
    fn a_lock_is_waited_for_until_others_hold_the_job_and_is_told_then() {
        let (manager, _) =
            manager(Duration::from_millis(400), || Err(error(ErrorKind::Contention)));
        let begun = Instant::now();
        let told = manager.work_once().expect_err("it cannot be settled").to_string();
        assert!(told.contains("lacks INSERT"), "{told}");
        assert!(begun.elapsed() >= Duration::from_millis(400));
    }

    #[test]
    fn an_end_is_stored_as_soon_as_the_database_is_back_whenever_it_is_probed() {
        let (manager, meanwhile) = manager(SOON, || Ok(()));
        meanwhile.goes_away.store(true, Ordering::Relaxed);
        let away = Arc::clone(&meanwhile.away);
        let outage = std::thread::spawn(move || {
            let begun = Instant::now();
            while !away.load(Ordering::Relaxed) {
                assert!(begun.elapsed() < SOON, "it never ran");
                sleep(Duration::from_millis(1));
            }
            // The next probe comes much later than this.
            sleep(Duration::from_millis(2_100));
            away.store(false, Ordering::Relaxed);
        });
        let begun = Instant::now();
        assert!(matches!(manager.work_once(), Ok(Some(Outcome::Completed))));
        assert!(begun.elapsed() < Duration::from_millis(2_900), "{:?}", begun.elapsed());
        outage.join().expect("no panic");
        assert_eq!(meanwhile.runs.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_end_that_is_refused_with_its_reply_is_discarded_however_late_it_is() {
        // Three tries, or two when others may hold the job by then; the next one is made without the reply.
        for (dead_after, tries) in [(SOON, 3), (Duration::from_millis(200), 2)] {
            let refused = AtomicU32::new(0);
            let (manager, _) = manager(dead_after, move || {
                if refused.fetch_add(1, Ordering::Relaxed) < tries {
                    sleep(Duration::from_millis(120));
                    return Err(error(ErrorKind::Other));
                }
                Ok(())
            });
            let outcome = manager.work_once().expect("answers").expect("there is one");
            let Outcome::Discarded(failure) = outcome else { panic!("{outcome:?}") };
            assert!(failure.message().contains("lacks INSERT"), "{}", failure.message());
        }
    }
}
