//! The port over the file: each call is one step of the state, or one look at it.

#![expect(unreachable_pub, reason = "its test has it as a module of its own")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use qudo::JobId;
use qudo::driver::{
    AbilityLease, Act, Acted, Admin, Ages, Arrival, Audit, Bounded, CancelOrder, ClaimRequest,
    ClaimedJob, Control, CountRow, Counts, DeadWorker, Deadline, Departure, Depth, Driver,
    DriverError, DriverRegistration, ErrorKind, Exception, ExceptionId, ExceptionScan, Inserted,
    Inspect, Interim, JobClaim, JobInfo, JobRecord, JobScan, JobState, Keep, KeyRow, LeaseKey, Leg,
    Moves, MovingJob, NamedDriver, News, Operate, OperationId, OperationRecord, OperationRow,
    Order, Past, Pause, PlacedJob, ProgressRecord, ProgressRow, Promotion, Purged, Redrive,
    Remains, Rescued, SchemaState, Sending, SentRecord, SentRow, Settled, Settlement, StatRow,
    StatScan, StatusRow, StatusScan, Step, StrayCursor, Strays, Traces, Trail, WakeSource, Wakes,
    Work, WorkerId, WorkerInfo, WorkerSeen,
};
use uuid::Uuid;

use super::file::StateFile;
use super::state::{Place, Row, Trace};

/// Each step writes the whole file, so nobody is to put large things into it.
const MAX_SIZE: usize = 8 * 1024 * 1024;

/// The only version of the file.
const VERSION: &str = "create_file";

/// `file:PATH`.
pub struct FileDriver(StateFile);

inventory::submit! {
    DriverRegistration {
        schemes: &["file"],
        open: |dsn, _| {
            let path = dsn.strip_prefix("file:").filter(|path| !path.is_empty());
            let path = PathBuf::from(path.ok_or("it names no file")?);
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            Ok(NamedDriver { name, driver: Arc::new(FileDriver(StateFile::new(path))) })
        },
    }
}

type Answer<T> = Result<T, DriverError>;

/// A driver may refuse what its database cannot take: the manager goes on, and a run that brings it is discarded.
fn accept(mut sizes: impl Iterator<Item = usize>) -> Answer<()> {
    match sizes.find(|size| *size > MAX_SIZE) {
        None => Ok(()),
        Some(size) => {
            let text = format!("{size} bytes are more than the file takes: {MAX_SIZE}");
            Err(DriverError::new(ErrorKind::Other, text))
        }
    }
}

impl Driver for FileDriver {
    fn engine(&self) -> &'static str {
        "file"
    }

    fn describe(&self) -> String {
        format!("file:{}", self.0.path().display())
    }

    fn place(&self) -> Option<String> {
        let path = self.0.path().canonicalize().ok()?;
        Some(format!("file:{}", path.display()))
    }

    fn is_local(&self) -> bool {
        true
    }

    fn probe(&self) -> Answer<()> {
        self.0.step(Deadline::NONE, |_| ())
    }
}

impl Work for FileDriver {
    fn insert(&self, jobs: &[JobRecord], deadline: Deadline) -> Answer<Vec<Inserted>> {
        accept(jobs.iter().map(|job| job.facts.size()))?;
        self.0.step(deadline, |state| jobs.iter().map(|job| state.insert(job)).collect())
    }

    fn claim(&self, request: &ClaimRequest<'_>) -> Answer<Vec<ClaimedJob>> {
        self.0.step(request.deadline, |state| state.claim(request))
    }

    fn claim_job(&self, claim: &JobClaim) -> Answer<Option<ClaimedJob>> {
        self.0.step(claim.deadline, |state| state.claim_job(claim))
    }

    fn release_claim(&self, worker: WorkerId, claim: i64) -> Answer<usize> {
        let is_it = |holder, number| holder == worker && number == claim;
        self.0.step(Deadline::NONE, |state| state.give_back(is_it))
    }

    fn promote_due(&self, limit: u32) -> Answer<Promotion> {
        self.0.step(Deadline::NONE, |state| state.promote_due(limit))
    }

    fn settle(&self, worker: WorkerId, settlements: &[Settlement]) -> Answer<Vec<Settled>> {
        let brought = settlements.iter().filter_map(|one| one.extras.as_deref());
        accept(brought.clone().flat_map(|one| &one.replies).map(|reply| reply.body.len()))?;
        accept(brought.flat_map(|one| &one.replacements).map(|job| job.facts.size()))?;
        self.0.step(Deadline::NONE, |state| {
            settlements.iter().map(|one| state.settle(worker, one)).collect()
        })
    }

    fn heartbeat(&self, worker: &WorkerInfo) -> Answer<bool> {
        self.0.step(Deadline::NONE, |state| state.heartbeat(worker))
    }

    fn rescue(&self, dead: &[DeadWorker], expired: bool, limit: u32) -> Answer<Vec<Rescued>> {
        self.0.step(Deadline::NONE, |state| state.rescue(dead, expired, limit))
    }

    fn remove_worker(&self, worker: WorkerId) -> Answer<usize> {
        self.0.step(Deadline::NONE, |state| {
            state.workers.remove(&worker);
            state.give_back(|holder, _| holder == worker)
        })
    }

    fn workers(&self) -> Answer<Vec<WorkerSeen>> {
        self.0.read(|state| state.workers())
    }

    fn add_stats(&self, reporter: Uuid, number: i64, rows: &[StatRow]) -> Answer<()> {
        self.0.step(Deadline::NONE, |state| state.stats.add(state.now, reporter, number, rows))
    }

    fn forget_stats(&self, queue: &str) -> Answer<usize> {
        self.0.step(Deadline::NONE, |state| state.stats.forget(queue))
    }

    fn purge(&self, keep: &Keep, _limit: u32) -> Answer<Purged> {
        let removed = self.0.step(Deadline::NONE, |state| state.purge(keep))?;
        Ok(Purged { removed, more: false })
    }
}

impl Interim for FileDriver {
    fn send(&self, lease: &LeaseKey, sent: &SentRecord) -> Answer<Sending> {
        accept([sent.value.body.len()].into_iter())?;
        self.0.step(Deadline::NONE, |state| {
            if !state.holds(lease.worker, lease.job, lease.claim) {
                return Sending::LeaseLost;
            }
            state.interim.send(state.now, lease.job, sent)
        })
    }

    fn note_progress(&self, worker: WorkerId, records: &[ProgressRecord]) -> Answer<()> {
        self.0.step(Deadline::NONE, |state| {
            for one in records {
                if state.holds(worker, one.job, one.claim) {
                    state.interim.note(state.now, one);
                }
            }
        })
    }

    fn sent(&self, job: JobId, from: i32, limit: u32) -> Answer<Vec<SentRow>> {
        self.0.read(|state| state.interim.sent(job, from, limit))
    }

    fn progress(&self, job: JobId) -> Answer<Option<ProgressRow>> {
        self.0.read(|state| state.interim.progress(job))
    }

    fn news(&self, jobs: &[JobId]) -> Answer<Vec<News>> {
        self.0.read(|state| state.interim.news(jobs))
    }
}

impl Inspect for FileDriver {
    fn lookup(&self, id: JobId) -> Answer<Option<JobInfo>> {
        self.0.read(|state| state.jobs.get(&id).map(|row| row.info(id)))
    }

    fn state(&self, id: JobId) -> Answer<Option<JobState>> {
        self.0.read(|state| state.jobs.get(&id).map(Row::state))
    }

    fn holder(&self, ability: &str, uniqkey: &str) -> Answer<Option<JobId>> {
        self.0.read(|state| state.holder(ability, uniqkey))
    }

    fn jobs(&self, ids: &[JobId], args: bool) -> Answer<Vec<JobInfo>> {
        self.0.read(|state| state.jobs(ids, args))
    }

    fn scan_jobs(&self, scan: &JobScan<'_>) -> Answer<Vec<PlacedJob>> {
        self.0.read(|state| state.scan_jobs(scan))
    }

    fn count(&self) -> Answer<Vec<CountRow>> {
        self.0.read(|state| {
            let mut counts = std::collections::BTreeMap::<_, u64>::new();
            for row in state.jobs.values() {
                let key = (
                    row.facts.queue.to_string(),
                    row.facts.ability.to_string(),
                    row.state().as_str(),
                );
                *counts.entry(key).or_default() += 1;
            }
            let row =
                |((queue, ability, state), count)| CountRow::new(queue, ability, state, count);
            counts.into_iter().map(row).collect()
        })
    }

    fn depth(&self, bound: u64) -> Answer<Depth> {
        self.0.read(|state| {
            let count = |is_it: fn(&Row) -> bool| {
                Bounded::new(state.jobs.values().filter(|row| is_it(row)).count() as u64, bound)
            };
            Depth::new(
                count(|row| row.place == Place::Ready),
                count(|row| matches!(row.place, Place::Scheduled { .. })),
                count(|row| matches!(row.place, Place::Leased { .. })),
                Bounded::new(state.moving() as u64, bound),
            )
        })
    }

    fn scan_exceptions(&self, scan: &ExceptionScan) -> Answer<Vec<Exception>> {
        self.0.read(|state| state.scan_exceptions(scan))
    }

    fn scan_status(&self, scan: &StatusScan) -> Answer<Vec<StatusRow>> {
        self.0.read(|state| state.scan_status(scan))
    }

    fn count_past(&self, of: Past, bound: u64) -> Answer<Bounded> {
        self.0.read(|state| state.count_past(of, bound))
    }

    fn status(&self, job: JobId) -> Answer<Vec<StatusRow>> {
        self.0.read(|state| state.status(job))
    }

    fn ages(&self, pauses: &[Pause]) -> Answer<Ages> {
        self.0.read(|state| state.ages(pauses))
    }

    fn stats(&self, scan: &StatScan) -> Answer<Vec<StatRow>> {
        self.0.read(|state| state.stats.read(state.now, scan))
    }

    fn remains(&self, job: JobId) -> Answer<Remains> {
        self.0.read(|state| state.remains(job))
    }
}

impl Admin for FileDriver {
    fn schema(&self) -> Answer<SchemaState> {
        let missing = || SchemaState::Behind(vec![VERSION.to_owned()]);
        Ok(if self.0.is_there() { SchemaState::Current } else { missing() })
    }

    fn migrate(&self, _force: bool) -> Answer<Vec<String>> {
        Ok(self.0.create()?.then(|| VERSION.to_owned()).into_iter().collect())
    }

    fn revert(&self) -> Answer<Vec<String>> {
        self.0.remove()?;
        Ok(vec![VERSION.to_owned()])
    }

    fn identity(&self) -> Answer<Uuid> {
        self.0.step(Deadline::NONE, |state| *state.identity.get_or_insert_with(Uuid::now_v7))
    }

    fn control(&self) -> Answer<Control> {
        self.0.read(|state| Control {
            draining: state.draining,
            paused: state.paused,
            pauses: state.paused_parts(),
            workers: state.ordered_workers(),
            identity: state.identity,
        })
    }

    fn set_control(&self, order: &Order, on: bool, deadline: Deadline) -> Answer<()> {
        self.0.step(deadline, |state| match order {
            Order::Draining => state.draining = on,
            Order::Paused => state.paused = on,
            Order::Worker(..) => {
                state.worker_orders.retain(|name| *name != order.name());
                if on {
                    state.worker_orders.push(order.name());
                }
            }
            Order::PausedPart(_, reason) => {
                state.pauses.retain(|(name, ..)| *name != order.name());
                if on {
                    state.pauses.push((order.name(), reason.clone(), state.now));
                }
            }
        })
    }
}

impl Operate for FileDriver {
    fn act(
        &self,
        act: &Act,
        jobs: &[JobId],
        step: Option<&Step<'_>>,
    ) -> Answer<Option<Vec<Acted>>> {
        self.0.step(Deadline::NONE, |state| {
            state.step(step).then(|| {
                let answers: Vec<_> = jobs.iter().map(|id| state.act(act, *id)).collect();
                let counts = Counts::of(&answers);
                state.count_step(step, counts);
                answers
            })
        })
    }

    fn redrive_each(
        &self,
        rows: &[(ExceptionId, JobId)],
        step: Option<&Step<'_>>,
    ) -> Answer<Option<Vec<Redrive>>> {
        self.0.step(Deadline::NONE, |state| {
            state.step(step).then(|| {
                let redrive = |(row, new): &(ExceptionId, JobId)| state.redrive(*row, *new);
                let answers: Vec<_> = rows.iter().map(redrive).collect();
                let counts = Counts::of_redrives(&answers);
                state.count_step(step, counts);
                answers
            })
        })
    }

    fn note_step(&self, step: &Step<'_>, counts: Counts) -> Answer<bool> {
        self.0.step(Deadline::NONE, |state| {
            let stood = state.step(Some(step));
            if stood {
                state.count_step(Some(step), counts);
            }
            stood
        })
    }

    fn begin_operation(&self, record: &OperationRecord) -> Answer<OperationRow> {
        self.0.step(Deadline::NONE, |state| state.begin_operation(record))
    }

    fn operation(&self, id: OperationId) -> Answer<Option<OperationRow>> {
        self.0.read(|state| state.operations.get(&id).cloned())
    }

    fn operations(&self, before: Option<OperationId>, limit: u32) -> Answer<Vec<OperationRow>> {
        self.0.read(|state| {
            let all = state.operations.iter().rev();
            let wanted = all.filter(|(id, _)| before.is_none_or(|before| **id < before));
            wanted.map(|(_, row)| row.clone()).take(limit as usize).collect()
        })
    }

    fn cancels(&self, worker: WorkerId) -> Answer<Vec<CancelOrder>> {
        self.0.read(|state| state.cancels(worker))
    }

    fn open_cancels(&self, limit: u32) -> Answer<Vec<(JobId, String)>> {
        self.0.read(|state| state.open_cancels(limit))
    }
}

impl Wakes for FileDriver {
    fn wake_source(&self) -> WakeSource {
        WakeSource::Poll { at_most: Some(Duration::from_millis(20)) }
    }

    fn changed(&self, queues: &[&str], abilities: &[AbilityLease]) -> Answer<bool> {
        self.0.read(|state| {
            state.jobs.values().any(|row| {
                let is_due = match row.place {
                    Place::Ready => true,
                    Place::Scheduled { at } => at <= state.now,
                    _ => false,
                };
                is_due
                    && queues.contains(&&*row.facts.queue)
                    && abilities.iter().any(|one| one.name == row.facts.ability)
            })
        })
    }
}

impl Moves for FileDriver {
    fn move_out(
        &self,
        to: &str,
        departure: Uuid,
        only: Option<&[JobId]>,
        limit: u32,
    ) -> Answer<Vec<MovingJob>> {
        self.0.step(Deadline::NONE, |state| state.move_out(to, departure, only, limit))
    }

    fn moving_out(&self, to: &str, after: JobId, limit: u32) -> Answer<Vec<MovingJob>> {
        self.0.read(|state| state.moving_out(to, after, limit))
    }

    fn move_in(&self, from: &str, jobs: &[MovingJob]) -> Answer<Vec<Arrival>> {
        self.0
            .step(Deadline::NONE, |state| jobs.iter().map(|job| state.move_in(from, job)).collect())
    }

    fn moved_out(&self, jobs: &[Departure]) -> Answer<Vec<Departure>> {
        self.0.step(Deadline::NONE, |state| {
            jobs.iter().copied().filter(|one| state.moved_out(*one)).collect()
        })
    }

    fn moved_in(&self, jobs: &[Departure]) -> Answer<usize> {
        self.0.step(Deadline::NONE, |state| {
            jobs.iter().filter(|one| state.put_back(**one, true)).count()
        })
    }

    fn leave_trail(&self, jobs: &[Departure]) -> Answer<()> {
        self.0.step(Deadline::NONE, |state| jobs.iter().for_each(|one| state.leave_trail(*one)))
    }

    fn trail(&self, job: JobId) -> Answer<Option<Trail>> {
        self.0.read(|state| state.trail(job))
    }

    fn move_back(&self, jobs: &[Departure]) -> Answer<usize> {
        self.0.step(Deadline::NONE, |state| {
            jobs.iter().filter(|one| state.put_back(**one, false)).count()
        })
    }

    fn legs(&self, jobs: &[JobId]) -> Answer<Vec<(Departure, Leg)>> {
        self.0.read(|state| {
            let leaves = |job: JobId| match state.jobs.get(&job)?.place {
                Place::Leaving { departure: id, .. } => Some((Departure { job, id }, Leg::Leaving)),
                _ => None,
            };
            let left = |job: JobId| {
                let id = state.mark(job, Trace::Left)?.departure;
                Some((Departure { job, id }, Leg::Left))
            };
            jobs.iter().filter_map(|job| leaves(*job).or_else(|| left(*job))).collect()
        })
    }

    fn left_for(&self, to: &str, after: JobId, limit: u32) -> Answer<Vec<Departure>> {
        self.0.read(|state| {
            let went = |job: JobId| {
                let mark = state.mark(job, Trace::Left).filter(|one| one.other == to)?;
                Some(Departure { job, id: mark.departure })
            };
            let later = state.marks.keys().copied().filter(|job| *job > after);
            later.filter_map(went).take(limit as usize).collect()
        })
    }

    fn moving_in(&self, from: &str, after: JobId, limit: u32) -> Answer<Vec<Departure>> {
        self.0.read(|state| {
            let comes = |(job, row): (&JobId, &Row)| match &row.place {
                Place::Arriving { from: other, departure, .. } if other == from && *job > after => {
                    Some(Departure { job: *job, id: *departure })
                }
                _ => None,
            };
            state.jobs.iter().filter_map(comes).take(limit as usize).collect()
        })
    }

    fn cancel_move_in(&self, jobs: &[Departure]) -> Answer<usize> {
        self.0.step(Deadline::NONE, |state| {
            jobs.iter().filter(|one| state.cancel_move_in(**one)).count()
        })
    }
}

/// With one row for each job there is little that could be wrong.
impl Audit for FileDriver {
    fn traces(&self, after: JobId, limit: u32) -> Answer<Vec<Traces>> {
        let ids: Vec<_> = self.0.read(|state| {
            let later = state.jobs.keys().copied().filter(|id| *id > after);
            later.take(limit as usize).collect()
        })?;
        self.trace(&ids)
    }

    fn strays(&self, _after: Option<&StrayCursor>, _limit: u32) -> Answer<Strays> {
        Ok(Strays { ids: Vec::new(), next: None })
    }

    fn keys(&self, after: Option<(&str, &str)>, limit: u32) -> Answer<Vec<KeyRow>> {
        self.0.read(|state| {
            let row = |(id, row): (&JobId, &Row)| {
                let (ability, uniqkey) = row.key().filter(|key| Some(*key) > after)?;
                let (ability, uniqkey) = (ability.to_owned(), uniqkey.to_owned());
                Some(KeyRow { ability, uniqkey, id: *id })
            };
            let mut rows: Vec<_> = state.jobs.iter().filter_map(row).collect();
            rows.sort();
            rows.truncate(limit as usize);
            rows
        })
    }

    fn trace(&self, ids: &[JobId]) -> Answer<Vec<Traces>> {
        use qudo::driver::Place as Table;
        self.0.read(|state| {
            let trace = |id: &JobId| {
                let Some(row) = state.jobs.get(id) else { return Traces::none(*id) };
                let (place, ownerless) = match &row.place {
                    Place::Ready => (Table::Ready, false),
                    Place::Scheduled { .. } => (Table::Scheduled, false),
                    Place::Leased { worker, .. } => {
                        (Table::Leased, !state.workers.contains_key(worker))
                    }
                    Place::Leaving { .. } => (Table::Leaving, false),
                    Place::Arriving { .. } => (Table::Arriving, false),
                };
                let key = row.key();
                let owned = key.map(|(ability, key)| (ability.to_owned(), key.to_owned()));
                Traces {
                    facts: Some((row.facts.ability.to_string(), row.facts.uniqkey.clone())),
                    places: vec![place],
                    ownerless,
                    keys: owned.into_iter().collect(),
                    holder: key.and_then(|(ability, key)| state.holder(ability, key)),
                    ..Traces::none(*id)
                }
            };
            ids.iter().map(trace).collect()
        })
    }

    fn mend(&self, _id: JobId) -> Answer<bool> {
        Ok(false)
    }
}
