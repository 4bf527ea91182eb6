use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use diesel::result::Error;
use qudo_core::driver::{
    AbilityLease, Admin, Ages, Bounded, ClaimRequest, ClaimedJob, Control, CountRow, DeadWorker,
    Deadline, Depth, Driver, DriverError, ErrorKind, Exception, ExceptionScan, Head, Heard,
    Inserted, Inspect, Interim, JobClaim, JobInfo, JobRecord, JobScan, JobState, Keep, LeaseKey,
    News, Order, Past, Pause, PlacedJob, ProgressRecord, ProgressRow, Promotion, Purged, Remains,
    Remark, Rescued, SchemaState, Sending, SentRecord, SentRow, Settled, Settlement, StatRow,
    StatScan, StatusRow, StatusScan, Tidings, Verdict, Wake, WakeSource, Wakes, Work, WorkerId,
    WorkerInfo, WorkerSeen,
};
use qudo_hooks::JobId;
use uuid::Uuid;

use crate::bulk::Keyed;
use crate::checkup;
use crate::claimed::number;
use crate::classify::{Class, classify};
use crate::clock::ServerClock;
use crate::due_floor::DueFloor;
use crate::engine::Engine;
use crate::migrate;
use crate::share::{is_dear, its_share};
use crate::sql::{Bind, Sql};
use crate::statements::ledger::{Orphans, inner};
use crate::statements::{
    control, exception, heads, interim, lookup, operation, scan, schedule, settle, single, stat,
    trace, worker,
};

/// The driver of one database on the engine `E`.
///
/// Made by the manager's builder from a data source name, through the engine's registration.
pub(crate) struct DieselDriver<E> {
    pub(crate) engine: E,
    /// Ready rows that cannot be claimed, because they have no facts or are leased, and since when that is
    /// known.
    orphans: Mutex<VecDeque<(Uuid, Instant)>>,
    pub(crate) due_floor: DueFloor,
    /// Up to this row the exception log was looked through for what is old.
    purged_to: Mutex<exception::PurgedTo>,
    /// Before that the next look for work would take too large a part of the time.
    next_poll: Mutex<Option<Instant>>,
}

/// At most so many rows that cannot be claimed are passed over: each makes every claim a little dearer.
/// With more, claims from the start of their queue fail until an audit repaired them.
const MAX_ORPHANS: usize = 1_000;

/// A row that cannot be claimed is passed over for five minutes: it may have been put right since.
const PASSED_OVER_FOR: Duration = Duration::from_secs(300);

/// How often a settlement is repeated that a cluster undid.
const MAX_SETTLES: u32 = 5;

impl<E> std::fmt::Debug for DieselDriver<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DieselDriver")
    }
}

impl<E: Engine> DieselDriver<E> {
    pub(crate) fn new(engine: E) -> Self {
        Self {
            engine,
            orphans: Mutex::default(),
            due_floor: DueFloor::default(),
            purged_to: Mutex::default(),
            next_poll: Mutex::default(),
        }
    }

    fn passed_over(&self) -> Vec<Uuid> {
        let mut known = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, found)| found.elapsed() < PASSED_OVER_FOR);
        known.iter().map(|(id, _)| *id).collect()
    }

    /// Notes ready rows whose claim was rolled back because they have no facts, so that the next one
    /// passes over them; `false` when that leads nowhere.
    fn note_orphans(&self, error: &DriverError, without: &[Uuid]) -> bool {
        use std::error::Error as _;
        let source = error.source().and_then(|source| source.downcast_ref::<Error>());
        let Some(Orphans(found)) = source.and_then(inner::<Orphans>) else { return false };
        log::error!("{}: {error}; `qudo audit --repair` removes them", self.engine.describe());
        self.pass_over(found, without)
    }

    /// The same for ready rows that are leased already, which is no less wrong.
    fn note_leased(&self, error: &DriverError, without: &[Uuid]) -> Result<bool, DriverError> {
        use std::error::Error as _;
        let source = error.source().and_then(|source| source.downcast_ref::<Error>());
        let collided = source.is_some_and(|source| classify(source) == Class::Unique);
        let in_cluster = self.engine.may_undo() && error.kind() == ErrorKind::Contention;
        if !collided && !in_cluster {
            return Ok(false);
        }
        let found = self.engine.read(lookup::leased_and_ready::<E>)?;
        for id in found.iter().filter(|id| !without.contains(id)) {
            log::error!(
                "{}: job {id} is ready and leased at once; `qudo audit --repair` puts that right",
                self.engine.describe()
            );
        }
        Ok(self.pass_over(&found, without))
    }

    /// Whether some of these are new.
    fn pass_over(&self, found: &[Uuid], without: &[Uuid]) -> bool {
        let new: Vec<_> = found.iter().filter(|id| !without.contains(id)).copied().collect();
        let mut known = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        for id in &new {
            // Another claim may have found it at the same time.
            if !known.iter().any(|(other, _)| other == id) {
                known.push_back((*id, Instant::now()));
            }
        }
        let too_many = known.len().saturating_sub(MAX_ORPHANS);
        known.drain(..too_many);
        !new.is_empty() && too_many == 0
    }

    fn settle_once(
        &self,
        worker: WorkerId,
        settlements: &[Settlement],
    ) -> Result<Vec<Settled>, DriverError> {
        let us = worker.as_uuid();
        if let Some(answers) = self.engine.settle_held(us, settlements)? {
            self.tell_of(settlements);
            return Ok(answers);
        }
        if settle::is_plain(settlements) {
            let ids: Vec<_> = settlements.iter().map(|one| *one.job.id.as_uuid()).collect();
            let claims: Vec<_> = settlements.iter().map(|one| one.job.claim).collect();
            let held = self.engine.complete(us, &ids, &claims)?;
            if held.len() == ids.len() {
                return Ok(vec![Settled::Done; ids.len()]);
            }
            // Of two claims of one job the older was lost before the newer was made.
            let mut newest: HashMap<Uuid, i64> = HashMap::with_capacity(ids.len());
            for (id, claim) in ids.iter().zip(&claims) {
                let known = newest.entry(*id).or_insert(*claim);
                *known = (*known).max(*claim);
            }
            let held: HashSet<_> = held.into_iter().collect();
            let answer = |(id, claim): (&Uuid, &i64)| {
                let ours = held.contains(id) && newest.get(id) == Some(claim);
                if ours { Settled::Done } else { Settled::LeaseLost }
            };
            return Ok(ids.iter().zip(&claims).map(answer).collect());
        }
        self.engine.check_size(settle::largest_value(settlements))?;
        let answers = self.engine.settle(|conn| settle::settle::<E>(conn, us, settlements))?;
        self.tell_of(settlements);
        Ok(answers)
    }

    /// Tells other processes of jobs that are ready now that these runs are settled.
    fn tell_of(&self, settlements: &[Settlement]) {
        let replacements = settlements.iter().filter_map(|one| one.extras.as_ref());
        let mut queues: Vec<&str> = replacements
            .flat_map(|extras| extras.replacements.iter().map(|job| job.facts.queue.as_ref()))
            .collect();
        // What its worker did not start may start elsewhere.
        let unstarted = settlements.iter().filter(|one| one.verdict == Verdict::GiveBack);
        queues.extend(unstarted.map(|one| one.job.facts.queue.as_ref()));
        queues.sort_unstable();
        queues.dedup();
        self.engine.notify(&mut queues.into_iter());
    }

    /// Tells other processes of jobs that became ready, by the queue of each; how many there are.
    pub(crate) fn tell(&self, jobs: &[String]) -> usize {
        let mut queues: Vec<&str> = jobs.iter().map(String::as_str).collect();
        queues.sort_unstable();
        queues.dedup();
        self.engine.notify(&mut queues.into_iter());
        jobs.len()
    }

    /// Which leases are there although their settlement was answered with success.
    fn undone(
        &self,
        worker: WorkerId,
        settlements: &[Settlement],
        answers: &[Settled],
    ) -> Result<HashSet<(Uuid, i64)>, DriverError> {
        if !self.engine.may_undo() {
            return Ok(HashSet::new());
        }
        let done = settlements.iter().zip(answers).filter(|(_, answer)| answer.is_done());
        let done: HashSet<_> =
            done.map(|(one, _)| (*one.job.id.as_uuid(), one.job.claim)).collect();
        let ids: Vec<_> = done.iter().map(|(id, _)| *id).collect();
        let held =
            |conn: &mut Sql<'_, E::Conn>| settle::held::<E>(conn, worker.as_uuid(), &ids, "");
        let held = self.engine.read(held)?.into_iter();
        Ok(held.filter(|lease| done.contains(lease)).collect())
    }

    /// As [`write_transaction`](Self::write_transaction), and made again where a cluster undid it: if
    /// neither `there` finds what it changed nor the connection has a new commit.
    pub(crate) fn write_that_stands<T>(
        &self,
        there: impl Fn(&mut Sql<'_, E::Conn>, &T) -> diesel::QueryResult<bool>,
        mut act: impl FnMut(&mut Sql<'_, E::Conn>) -> diesel::QueryResult<T>,
    ) -> Result<T, DriverError> {
        self.engine.write(|conn| {
            let before = self.engine.last_commit(conn)?;
            let done = conn.transaction(&mut act)?;
            if before.is_some() && !there(conn, &done)? {
                self.engine.stands(conn, before.as_ref())?;
            }
            Ok(done)
        })
    }

    pub(crate) fn write_transaction<T>(
        &self,
        mut act: impl FnMut(&mut Sql<'_, E::Conn>) -> diesel::QueryResult<T>,
    ) -> Result<T, DriverError> {
        self.engine.write(|conn| conn.transaction(&mut act))
    }
}

impl<E: Engine> Driver for DieselDriver<E> {
    fn engine(&self) -> &'static str {
        E::NAME
    }

    fn describe(&self) -> String {
        self.engine.describe()
    }

    fn place(&self) -> Option<String> {
        self.engine.place()
    }

    fn is_local(&self) -> bool {
        E::IS_LOCAL
    }

    fn reset(&self) {
        self.engine.reset();
    }

    fn probe(&self) -> Result<(), DriverError> {
        self.engine.probe()
    }
}

impl<E: Engine> Work for DieselDriver<E> {
    fn insert(&self, jobs: &[JobRecord], deadline: Deadline) -> Result<Vec<Inserted>, DriverError> {
        self.engine
            .check_size(jobs.iter().map(|job| job.facts.size()).max().unwrap_or_default())?;
        let (inserted, notified) =
            self.engine.within(deadline, |window| self.engine.insert_commit(jobs, window))?;
        if notified {
            return Ok(inserted);
        }
        let mut queues: Vec<&str> = jobs.iter().map(|job| job.facts.queue.as_ref()).collect();
        queues.dedup();
        self.engine.notify(&mut queues.into_iter());
        Ok(inserted)
    }

    fn claims_side_by_side(&self) -> bool {
        self.engine.claims_side_by_side()
    }

    fn claim(&self, request: &ClaimRequest<'_>) -> Result<Vec<ClaimedJob>, DriverError> {
        if request.abilities.is_empty() || request.limit == 0 {
            return Ok(Vec::new());
        }
        let mut jobs = loop {
            let without = self.passed_over();
            let claimed = self
                .engine
                .within(request.deadline, |window| self.engine.claim(request, window, &without));
            match claimed {
                Err(error) if self.note_orphans(&error, &without) => {}
                Err(error) if self.note_leased(&error, &without)? => {}
                other => break other?,
            }
        };
        // A claim behind a cursor and one from the start together are in no order.
        jobs.sort_unstable_by_key(|job| (std::cmp::Reverse(job.facts.priority), job.id));
        number(&mut jobs);
        Ok(jobs)
    }

    fn claim_job(&self, claim: &JobClaim) -> Result<Option<ClaimedJob>, DriverError> {
        let binds = [Bind::Id(claim.worker.as_uuid()), Bind::Big(claim.claim)];
        self.engine.within(claim.deadline, |window| {
            self.engine.write(|conn| {
                let job = E::transaction_within(conn, window, |conn| {
                    single::claim_job::<E>(conn, claim)
                })?;
                let ids: Vec<_> = job.iter().map(|job| *job.id.as_uuid()).collect();
                let lease = Keyed::table("qudo_lease").only("worker = ? AND claim = ?", &binds);
                self.engine.confirm(conn, &[lease], &ids)?;
                Ok(job)
            })
        })
    }

    fn release_claim(&self, worker: WorkerId, claim: i64) -> Result<usize, DriverError> {
        let given_back = |conn: &mut Sql<'_, E::Conn>| {
            worker::give_back::<E>(conn, worker.as_uuid(), Some(claim))
        };
        Ok(self.tell(&self.write_transaction(given_back)?))
    }

    fn promote_due(&self, limit: u32) -> Result<Promotion, DriverError> {
        schedule::promote(&self.engine, &self.due_floor, limit)
    }

    fn settle(
        &self,
        worker: WorkerId,
        settlements: &[Settlement],
    ) -> Result<Vec<Settled>, DriverError> {
        let mut answers = self.settle_once(worker, settlements)?;
        for _ in 0..MAX_SETTLES {
            // The settlement itself may have been carried out, whatever becomes of the look.
            let undone = self.undone(worker, settlements, &answers);
            let undone = undone.map_err(|error| error.ambiguous(true))?;
            if undone.is_empty() {
                return Ok(answers);
            }
            log::info!("{}: a settlement was undone; repeating it", self.engine.describe());
            let again = self.settle_once(worker, settlements)?;
            // The others of the group were settled by the first, and find no lease now.
            for ((answer, again), one) in answers.iter_mut().zip(again).zip(settlements) {
                if undone.contains(&(*one.job.id.as_uuid(), one.job.claim)) {
                    *answer = again;
                }
            }
        }
        let message = "a settlement was answered with success and undone, again and again";
        Err(DriverError::new(ErrorKind::Contention, message))
    }

    fn heartbeat(&self, worker: &WorkerInfo) -> Result<bool, DriverError> {
        self.write_transaction(|conn| worker::heartbeat::<E>(conn, worker))
    }

    fn add_stats(&self, reporter: Uuid, number: i64, rows: &[StatRow]) -> Result<(), DriverError> {
        // Not looked for after the commit: if a cluster undoes it, numbers are missing and no job is.
        self.write_transaction(|conn| stat::add::<E>(conn, &reporter, number, rows))
    }

    fn forget_stats(&self, queue: &str) -> Result<usize, DriverError> {
        self.write_transaction(|conn| stat::forget::<E>(conn, queue))
    }

    fn rescue(
        &self,
        dead: &[DeadWorker],
        expired: bool,
        limit: u32,
    ) -> Result<Vec<Rescued>, DriverError> {
        let (rescued, queues) =
            self.write_transaction(|conn| worker::rescue::<E>(conn, dead, expired, limit))?;
        self.tell(&queues);
        Ok(rescued)
    }

    fn remove_worker(&self, worker: WorkerId) -> Result<usize, DriverError> {
        let removed =
            |conn: &mut Sql<'_, E::Conn>| worker::remove_worker::<E>(conn, worker.as_uuid());
        Ok(self.tell(&self.write_transaction(removed)?))
    }

    fn workers(&self) -> Result<Vec<WorkerSeen>, DriverError> {
        self.engine.read(worker::workers::<E>)
    }

    fn purge(&self, keep: &Keep, limit: u32) -> Result<Purged, DriverError> {
        let mut done = self.write_transaction(|conn| trace::purge::<E>(conn, keep, limit))?;
        let to = *self.purged_to.lock().unwrap_or_else(PoisonError::into_inner);
        let (exceptions, next) =
            self.write_transaction(|conn| exception::purge::<E>(conn, keep, to, limit))?;
        *self.purged_to.lock().unwrap_or_else(PoisonError::into_inner) = next;
        done.removed += exceptions;
        done.more |= !next.after.is_nil();
        // Apart: an account that was given its rights before there were these tables removes the rest all the same.
        match self.write_transaction(|conn| operation::purge::<E>(conn, keep, limit)) {
            Ok(removed) => done.removed += removed,
            Err(error) if error.kind() == ErrorKind::Permission => {
                log::debug!("{}: old operations stay: {error}", self.engine.describe());
            }
            Err(error) => return Err(error),
        }
        match self.write_transaction(|conn| interim::purge::<E>(conn, keep, limit)) {
            Ok((removed, more)) => {
                done.removed += removed;
                done.more |= more;
            }
            Err(error) if error.kind() == ErrorKind::Permission => {
                log::debug!("{}: what jobs sent stays: {error}", self.engine.describe());
            }
            Err(error) => return Err(error),
        }
        match self.write_transaction(|conn| stat::purge::<E>(conn, keep, limit)) {
            Ok((removed, more)) => {
                done.removed += removed;
                done.more |= more;
            }
            Err(error) if error.kind() == ErrorKind::Permission => {
                log::debug!("{}: old numbers stay: {error}", self.engine.describe());
            }
            Err(error) => return Err(error),
        }
        Ok(done)
    }
}

impl<E: Engine> Interim for DieselDriver<E> {
    fn send(&self, lease: &LeaseKey, sent: &SentRecord) -> Result<Sending, DriverError> {
        self.engine.check_size(sent.value.body.len())?;
        self.write_that_stands(
            |conn, sending| {
                let is_stored = *sending == Sending::Stored;
                Ok(!is_stored || interim::is_sent::<E>(conn, lease, sent)?)
            },
            |conn| interim::send::<E>(conn, lease, sent),
        )
    }

    fn note_progress(
        &self,
        worker: WorkerId,
        records: &[ProgressRecord],
    ) -> Result<(), DriverError> {
        self.write_transaction(|conn| interim::note_progress::<E>(conn, worker.as_uuid(), records))
    }

    fn sent(&self, job: JobId, from: i32, limit: u32) -> Result<Vec<SentRow>, DriverError> {
        self.engine.read(|conn| interim::sent::<E>(conn, job.as_uuid(), from, limit))
    }

    fn progress(&self, job: JobId) -> Result<Option<ProgressRow>, DriverError> {
        self.engine.read(|conn| interim::progress::<E>(conn, job.as_uuid()))
    }

    fn news(&self, jobs: &[JobId]) -> Result<Vec<News>, DriverError> {
        if let [job] = jobs {
            return self.engine.read(|conn| Ok(vec![interim::news_of::<E>(conn, job.as_uuid())?]));
        }
        let jobs: Vec<_> = jobs.iter().map(|id| *id.as_uuid()).collect();
        self.engine.read(|conn| interim::news::<E>(conn, &jobs))
    }
}

impl<E: Engine> Inspect for DieselDriver<E> {
    fn lookup(&self, id: JobId) -> Result<Option<JobInfo>, DriverError> {
        self.engine.read(|conn| lookup::lookup::<E>(conn, id.as_uuid()))
    }

    fn state(&self, id: JobId) -> Result<Option<JobState>, DriverError> {
        self.engine.read(|conn| lookup::state::<E>(conn, id.as_uuid()))
    }

    fn live(&self, ids: &[JobId]) -> Result<Vec<JobId>, DriverError> {
        let wanted: Vec<_> = ids.iter().map(|id| *id.as_uuid()).collect();
        let job = Keyed::table("qudo_job");
        let live =
            self.engine.read(|conn| E::rows_by_id::<Uuid>(conn, "x.id", &job, &wanted, ""))?;
        Ok(live.into_iter().map(JobId::from_uuid).collect())
    }

    fn holder(&self, ability: &str, uniqkey: &str) -> Result<Option<JobId>, DriverError> {
        let holder = self.engine.read(|conn| lookup::holder::<E>(conn, ability, uniqkey))?;
        Ok(holder.map(JobId::from_uuid))
    }

    fn jobs(&self, ids: &[JobId], args: bool) -> Result<Vec<JobInfo>, DriverError> {
        let ids: Vec<_> = ids.iter().map(|id| *id.as_uuid()).collect();
        self.engine.read(|conn| lookup::jobs::<E>(conn, &ids, args))
    }

    fn scan_jobs(&self, scan: &JobScan<'_>) -> Result<Vec<PlacedJob>, DriverError> {
        self.engine.read(|conn| scan::scan_jobs::<E>(conn, scan))
    }

    fn count(&self) -> Result<Vec<CountRow>, DriverError> {
        self.engine.read(lookup::count::<E>)
    }

    fn depth(&self, bound: u64) -> Result<Depth, DriverError> {
        self.engine.read(|conn| control::depth::<E>(conn, bound))
    }

    fn scan_exceptions(&self, scan: &ExceptionScan) -> Result<Vec<Exception>, DriverError> {
        self.engine.read(|conn| exception::scan::<E>(conn, scan))
    }

    fn scan_status(&self, scan: &StatusScan) -> Result<Vec<StatusRow>, DriverError> {
        self.engine.read(|conn| trace::scan_status::<E>(conn, scan))
    }

    fn count_past(&self, of: Past, bound: u64) -> Result<Bounded, DriverError> {
        self.engine.read(|conn| scan::count_past::<E>(conn, of, bound))
    }

    fn status(&self, job: JobId) -> Result<Vec<StatusRow>, DriverError> {
        self.engine.read(|conn| trace::status::<E>(conn, job.as_uuid()))
    }

    fn heads(&self, queues: u32, rows: u32) -> Result<Vec<Head>, DriverError> {
        self.engine.read(|conn| heads::heads::<E>(conn, queues, rows))
    }

    fn ahead(&self, job: &JobInfo, bound: u64) -> Result<Bounded, DriverError> {
        self.engine.read(|conn| heads::ahead::<E>(conn, job, bound))
    }

    fn ages(&self, pauses: &[Pause]) -> Result<Ages, DriverError> {
        self.engine.read(|conn| heads::ages::<E>(conn, pauses))
    }

    fn stats(&self, scan: &StatScan) -> Result<Vec<StatRow>, DriverError> {
        self.engine.read(|conn| stat::stats::<E>(conn, scan))
    }

    fn remains(&self, job: JobId) -> Result<Remains, DriverError> {
        self.engine.read(|conn| trace::remains::<E>(conn, job.as_uuid()))
    }
}

impl<E: Engine> Admin for DieselDriver<E> {
    fn schema(&self) -> Result<SchemaState, DriverError> {
        migrate::state(&self.engine)
    }

    fn migrate(&self, force: bool) -> Result<Vec<String>, DriverError> {
        self.engine.make_database().map_err(|reason| DriverError::new(ErrorKind::Down, reason))?;
        migrate::apply(&self.engine, force)
    }

    fn missing_migrations(&self) -> Result<Vec<(String, String)>, DriverError> {
        migrate::missing(&self.engine)
    }

    fn checkup(&self) -> Result<Vec<Remark>, DriverError> {
        checkup::checkup(&self.engine)
    }

    fn revert(&self) -> Result<Vec<String>, DriverError> {
        migrate::revert(&self.engine)
    }

    fn identity(&self) -> Result<Uuid, DriverError> {
        self.engine.write(control::identity::<E>)
    }

    fn control(&self) -> Result<Control, DriverError> {
        self.engine.read(control::control::<E>)
    }

    fn set_control(&self, order: &Order, on: bool, deadline: Deadline) -> Result<(), DriverError> {
        let set = self.engine.within(deadline, |window| {
            self.engine.write(|conn| {
                E::transaction_within(conn, window, |conn| {
                    control::set_control::<E>(conn, order, on)
                })
            })
        });
        if set.is_ok() {
            self.engine.notify_orders();
        }
        set
    }
}

impl<E: Engine> Wakes for DieselDriver<E> {
    fn wake_source(&self) -> WakeSource {
        self.engine.wake_source()
    }

    fn changed(&self, queues: &[&str], abilities: &[AbilityLease]) -> Result<bool, DriverError> {
        // A claim passes over dead rows in its own way, and this would step over all of them.
        if self.due_floor.is_dear() || self.engine.is_dear(queues) {
            return Ok(true);
        }
        // Not held while the server is asked: one that does not answer would keep every later caller.
        let next = *self.next_poll.lock().unwrap_or_else(PoisonError::into_inner);
        if next.is_some_and(|next| Instant::now() < next) {
            return Ok(true);
        }
        let begun = Instant::now();
        let changed = self.engine.changed(queues, abilities)?;
        let took = begun.elapsed();
        let round_trip = self.engine.clock().map(ServerClock::round_trip);
        let next = round_trip.filter(|trip| is_dear(took, *trip)).map(|_| its_share(took));
        *self.next_poll.lock().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(changed)
    }

    fn listen(&self, on_wake: &mut dyn FnMut(Wake) -> bool) -> Result<(), DriverError> {
        self.engine.listen(on_wake)
    }

    fn hears_news(&self) -> bool {
        self.engine.hears_news()
    }

    fn listen_for_news(&self, on_news: &mut dyn FnMut(Heard) -> bool) -> Result<(), DriverError> {
        self.engine.listen_for_news(on_news)
    }

    fn ask_for_news(&self) {
        self.engine.ask_for_news();
    }

    fn say_last(&self, limit: Duration) {
        self.engine.say_last(limit);
    }

    fn tell_news(&self, tidings: Tidings<'_>) {
        self.engine.tell_news(tidings);
    }
}
