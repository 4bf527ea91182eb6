use crate::tools::random::shuffle;
use crate::tools::sync::mpsc;
use crate::tools::threads::scope;
use crate::tools::threads::sleep;
use crate::tools::time::{Instant, SystemTime};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use qudo_hooks::{Failure, FailureKind, Outcome};

use super::Manager;
use super::database::Database;
use super::heartbeat::{Rhythm, SHORTEST_WAIT};
use super::run::{Context, run_job};
use super::settler::discarded;
use crate::Error;
use crate::driver::{
    ClaimRequest, Deadline, Driver, DriverError, ErrorKind, Settled, Settlement, Verdict, WorkerId,
    WorkerInfo,
};
use crate::observe::Event;

/// One call of `work_once` promotes at most so many due jobs per database.
const PROMOTE_AT_MOST: u32 = 100;

const SETTLE_AGAIN: Duration = Duration::from_millis(100);

/// What is refused is tried again so often.
const MOST_REFUSALS: u32 = 2;

fn passes(error: &DriverError) -> bool {
    matches!(error.kind(), ErrorKind::Down | ErrorKind::Contention)
}

impl Manager {
    /// Runs at most one job on the calling thread and settles it; `None` when there is none.
    ///
    /// The databases are asked in random order, each queue in turn. For tests and cron; a service
    /// calls [`work`](Self::work).
    ///
    /// # Errors
    ///
    /// When no ability is there, every database is down, or one answers with an error.
    pub fn work_once(&self) -> Result<Option<Outcome>, Error> {
        if self.inner.abilities.is_empty() {
            return Err(Error::NoAbilities);
        }
        let mut databases = self.all().to_vec();
        shuffle(&mut databases);
        let mut reasons = Vec::new();
        for database in &databases {
            if let Some(reason) = database.reason() {
                reasons.push(crate::DownReason { database: database.name.to_string(), reason });
                continue;
            }
            let worked = Self::check_schema(database).and_then(|()| self.work_once_at(database));
            match worked {
                Ok(None) => {}
                Ok(done) => return Ok(done),
                Err(error) if error.is_down() => {
                    let (database, reason) =
                        (database.name.to_string(), crate::tools::causes::with_causes(&error));
                    reasons.push(crate::DownReason { database, reason });
                }
                Err(error) => return Err(error),
            }
        }
        if reasons.len() == databases.len() {
            return Err(Error::AllDatabasesDown(reasons));
        }
        Ok(None)
    }

    fn work_once_at(&self, database: &Arc<Database>) -> Result<Option<Outcome>, Error> {
        let worker = self.worker_info();
        let failed = |error| Error::database(&database.name, "work once", error);
        if database.meet().map_err(failed)?.paused {
            return Ok(None);
        }
        let (info, begun) = (worker.clone(), Instant::now());
        let others = database.ask(move |driver| {
            driver.promote_due(PROMOTE_AT_MOST)?;
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
            watch.judge(&others, self.options().dead_after, begun, now).dead
        };
        database.ask(move |driver| driver.rescue(&dead, true, PROMOTE_AT_MOST)).map_err(failed)?;
        let ended = self.claim_and_run(database, &worker);
        // Whatever happened, the row of this worker must not wait to be declared dead.
        let removed = database.ask(move |driver| driver.remove_worker(worker.id));
        let ended = ended.map_err(failed)?;
        if let Err(error) = removed {
            // The job is settled, and that is what the caller asks; others sweep the row.
            let name = &*database.name;
            log::warn!("database {name:?}: cannot remove the row of this worker: {error}");
        }
        Ok(ended)
    }

    fn claim_and_run(
        &self,
        database: &Arc<Database>,
        worker: &WorkerInfo,
    ) -> Result<Option<Outcome>, DriverError> {
        let (abilities, id) = (self.leases(), worker.id);
        for (claim, queue) in (1..).zip(self.queues()) {
            let (abilities, deadline) =
                (Arc::clone(&abilities), Deadline::within(database.limit()));
            let ask = move |driver: &dyn Driver| {
                let (queue, abilities) = (&queue, &*abilities);
                driver.claim(&ClaimRequest {
                    worker: id,
                    claim,
                    queue,
                    abilities,
                    limit: 1,
                    deadline,
                })
            };
            let Some(job) = database.ask(ask)?.pop() else {
                continue;
            };
            let stopping = Arc::new(AtomicBool::new(false));
            let context = Context {
                manager: self,
                database: &database.name,
                driver: &database.driver,
                worker: id,
                stopping: &stopping,
                lane: None,
            };
            let job_id = job.id;
            let (settlement, outcome) =
                self.while_alive(database, worker, || run_job(&context, Box::new(job)));
            let Some(settlement) = settlement else {
                self.inner.waiters.note([job_id]);
                return Ok(Some(outcome));
            };
            let settled = self.settle_alone(database, id, settlement);
            let Err((error, settlement)) = settled else { return Ok(Some(outcome)) };
            let refused = error.kind() == ErrorKind::Other;
            let Some(discarded) = discarded(&settlement, &error).filter(|_| refused) else {
                return Err(error);
            };
            return match self.settle_alone(database, id, discarded) {
                Ok(Some(settled)) if settled.is_done() => {
                    let message = crate::tools::causes::with_causes(&error);
                    let failure = Failure::new(FailureKind::Error, message);
                    Ok(Some(Outcome::Discarded(failure)))
                }
                Ok(_) => Ok(Some(outcome)),
                Err((error, _)) => Err(error),
            };
        }
        Ok(None)
    }

    /// Waits out a short absence of the database: a connection that lay idle during a long job may be
    /// dead, and the result exists only here. After `dead_after` others hold the job. Gives the
    /// settlement back if it is refused.
    fn settle_alone(
        &self,
        database: &Arc<Database>,
        worker: WorkerId,
        settlement: Settlement,
    ) -> Result<Option<Settled>, (DriverError, Arc<Settlement>)> {
        let begun = SystemTime::now();
        let deadline = Instant::now() + self.options().dead_after;
        let settlement = Arc::new(settlement);
        let (mut repeated, mut refusals) = (false, 0);
        let answer = loop {
            let asked = Arc::clone(&settlement);
            let settle =
                move |driver: &dyn Driver| driver.settle(worker, std::slice::from_ref(&*asked));
            match database.ask(settle) {
                Ok(answers) => break answers.into_iter().next(),
                Err(error)
                    if (passes(&error) || refusals < MOST_REFUSALS)
                        && Instant::now() < deadline =>
                {
                    repeated |= error.is_ambiguous();
                    refusals += u32::from(!passes(&error));
                    sleep(SETTLE_AGAIN);
                }
                Err(error) => return Err((error, settlement)),
            }
        };
        // After a lost answer our own first try may have ended it.
        let answer = answer.filter(|answer| !repeated || answer.is_done());
        if let Some(settled) = answer.as_ref().filter(|answer| answer.is_done())
            && let Some(extras) = &settlement.extras
        {
            let without = settled.without();
            self.tell_replacements(&extras.replacements, without, &database.name, begun);
        }
        self.tell(|| Event::Settled {
            worker,
            database: &database.name,
            job: settlement.job.id,
            attempt: settlement.job.attempt,
            verdict: settlement.verdict,
            answer: answer.clone(),
        });
        if matches!(settlement.verdict, Verdict::Complete | Verdict::Discard) {
            self.inner.waiters.note([settlement.job.id]);
        }
        if answer == Some(Settled::LeaseLost) {
            log::warn!("the job's lease was lost, so its end changed nothing");
        }
        Ok(answer)
    }

    /// Keeps heartbeats going on another thread while a job runs on this one.
    fn while_alive<T>(
        &self,
        database: &Arc<Database>,
        worker: &WorkerInfo,
        run: impl FnOnce() -> T,
    ) -> T {
        let Rhythm { every, again, limit } = Rhythm::of(self.options());
        let (done, waits) = mpsc::channel::<()>();
        scope(|scope| {
            scope.spawn(move || {
                let mut pause = every;
                while waits.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
                    let (worker, begun) = (worker.clone(), Instant::now());
                    let beat = move |driver: &dyn Driver| driver.heartbeat(&worker);
                    let next = match database.ask_within(limit, beat, Box::new(|_, _| {})) {
                        Ok(_) => {
                            database.watch.lock().note(begun, Instant::now());
                            begun + every
                        }
                        Err(error) => {
                            log::warn!("database {:?}: heartbeat: {error}", &*database.name);
                            begun + again
                        }
                    };
                    pause = next.saturating_duration_since(Instant::now()).max(SHORTEST_WAIT);
                }
            });
            let value = run();
            drop(done);
            value
        })
    }
}
