//! What is stored, and what each step of the port does to it. No files here.

#![expect(unreachable_pub, reason = "its test has it as a module of its own")]

use std::collections::BTreeMap;
use std::time::Instant;

use chrono::{DateTime, Utc};
use qudo::JobId;
use qudo::driver::{
    Act, Acted, Ages, Arrival, Bounded, CancelOrder, ClaimRequest, ClaimedJob, Counts, DeadWorker,
    Departure, Due, Exception, ExceptionId, ExceptionRecord, ExceptionScan, Flags, Inserted,
    InterimBook, JobClaim, JobCursor, JobFacts, JobInfo, JobRecord, JobScan, JobState, Keep,
    MovingJob, Name, OperationId, OperationRecord, OperationRow, Order, Past, Pause, PlacedJob,
    Promotion, Redrive, Remains, ReplyRecord, ReplyRow, Rescued, Settled, Settlement, StatBook,
    StatusId, StatusRow, StatusScan, Step, Trail, Verdict, WorkerId, WorkerInfo, WorkerOrder,
    WorkerSeen,
};
use qudo::hook::FailureKind;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// All that the file holds.
#[derive(Default, Serialize, Deserialize)]
pub struct State {
    /// The time of this step.
    #[serde(skip)]
    pub now: DateTime<Utc>,
    pub identity: Option<Uuid>,
    pub draining: bool,
    pub paused: bool,
    /// Under which words each is stored, why, and since when.
    pub pauses: Vec<(String, String, DateTime<Utc>)>,
    /// Under which words each order for a worker process is stored.
    pub worker_orders: Vec<String>,
    pub jobs: BTreeMap<JobId, Row>,
    /// With their last heartbeats.
    pub workers: BTreeMap<WorkerId, (WorkerInfo, DateTime<Utc>)>,
    exceptions: Vec<Exception>,
    statuses: Vec<StatusRow>,
    remains: BTreeMap<JobId, (DateTime<Utc>, Remains)>,
    /// What is left of jobs that were moved.
    pub marks: BTreeMap<JobId, Vec<Mark>>,
    /// Orders to end jobs, with their reasons.
    cancels: BTreeMap<JobId, String>,
    pub operations: BTreeMap<OperationId, OperationRow>,
    pub stats: StatBook,
    pub interim: InterimBook,
}

/// A live job. It is in exactly one place, because it has one: several tables would have to take care of that.
#[derive(Clone, Serialize, Deserialize)]
pub struct Row {
    pub facts: JobFacts,
    enqueued_at: DateTime<Utc>,
    /// Since when it is ready; not kept up while it is scheduled.
    ready_at: DateTime<Utc>,
    attempt: i32,
    crashes: i32,
    flags: Flags,
    pub place: Place,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub enum Place {
    Ready,
    Scheduled { at: DateTime<Utc> },
    Leased { worker: WorkerId, claim: i64, until: DateTime<Utc> },
    Leaving { to: String, departure: Uuid, due: Option<DateTime<Utc>> },
    Arriving { from: String, departure: Uuid, due: Option<DateTime<Utc>> },
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Mark {
    leg: Trace,
    pub other: String,
    pub departure: Uuid,
    at: DateTime<Utc>,
}

/// What a job that was moved leaves behind.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Trace {
    Left,
    Gone,
    Arrived,
    /// Of a copy that was taken back: it says nothing of the job's life.
    Cancelled,
}

impl Row {
    pub fn is_waiting(&self) -> bool {
        matches!(self.place, Place::Ready | Place::Scheduled { .. })
    }

    /// Ability and unique key.
    pub fn key(&self) -> Option<(&str, &str)> {
        Some((&*self.facts.ability, self.facts.uniqkey.as_deref()?))
    }

    fn due(&self) -> Option<DateTime<Utc>> {
        match self.place {
            Place::Scheduled { at } => Some(at),
            Place::Leaving { due, .. } | Place::Arriving { due, .. } => due,
            Place::Ready | Place::Leased { .. } => None,
        }
    }

    pub fn state(&self) -> JobState {
        match self.place {
            Place::Ready => JobState::Ready,
            Place::Scheduled { at } => JobState::Scheduled { run_after: at },
            Place::Leased { worker, until, .. } => JobState::Running { worker, until },
            Place::Leaving { .. } | Place::Arriving { .. } => JobState::Moving,
        }
    }

    /// Where it comes in a list.
    fn cursor(&self, id: JobId) -> JobCursor {
        match &self.place {
            Place::Ready => {
                JobCursor::Ready(self.facts.queue.to_string(), -self.facts.priority, id)
            }
            Place::Scheduled { at } => JobCursor::Scheduled(*at, id),
            Place::Leased { .. } => JobCursor::Leased(id),
            Place::Leaving { to, .. } => JobCursor::Leaving(to.clone(), id),
            Place::Arriving { from, .. } => JobCursor::Arriving(from.clone(), id),
        }
    }

    /// Never before it was there.
    fn ready_since(&self) -> DateTime<Utc> {
        self.ready_at.max(self.enqueued_at)
    }

    fn claimed(&self, id: JobId, claim: i64, now: DateTime<Utc>) -> ClaimedJob {
        let waited = (now - self.ready_since()).to_std().unwrap_or_default();
        ClaimedJob {
            id,
            claim,
            ordinal: 0,
            attempt: self.attempt,
            crashes: self.crashes,
            flags: self.flags,
            facts: self.facts.clone(),
            enqueued_at: self.enqueued_at,
            ready_since: Instant::now().checked_sub(waited).unwrap_or_else(Instant::now),
        }
    }

    pub fn info(&self, id: JobId) -> JobInfo {
        let state = self.state();
        JobInfo::new(id, self.facts.clone(), self.attempt.unsigned_abs(), self.enqueued_at, state)
    }
}

// From the insert to the end.
impl State {
    /// Where a job waits that is due then.
    fn waiting(&self, due: Due) -> Place {
        let at = match due {
            Due::Now => self.now,
            Due::In(delay) => self.now + delay,
            Due::At(at) => at,
        };
        if at > self.now { Place::Scheduled { at } } else { Place::Ready }
    }

    /// Since when it is ready then.
    fn ready_at(&self, due: Due) -> DateTime<Utc> {
        match due {
            Due::At(at) => at.min(self.now),
            Due::Now | Due::In(_) => self.now,
        }
    }

    pub fn holder(&self, ability: &str, uniqkey: &str) -> Option<JobId> {
        let holds = |row: &Row| row.key() == Some((ability, uniqkey));
        self.jobs.iter().find(|(_, row)| holds(row)).map(|(id, _)| *id)
    }

    fn other_holder(&self, id: JobId, facts: &JobFacts) -> Option<JobId> {
        self.holder(&facts.ability, facts.uniqkey.as_deref()?).filter(|holder| *holder != id)
    }

    /// Once by id, and once by key.
    pub fn insert(&mut self, job: &JobRecord) -> Inserted {
        if self.jobs.contains_key(&job.id) {
            return Inserted::New;
        }
        if let Some(holder) = self.other_holder(job.id, &job.facts) {
            return Inserted::Existing(holder);
        }
        let row = Row {
            facts: job.facts.clone(),
            enqueued_at: self.now,
            ready_at: self.ready_at(job.due),
            attempt: 0,
            crashes: 0,
            flags: job.facts.flags(),
            place: self.waiting(job.due),
        };
        self.jobs.insert(job.id, row);
        Inserted::New
    }

    /// The order is that of priority, then of the ids.
    pub fn claim(&mut self, request: &ClaimRequest<'_>) -> Vec<ClaimedJob> {
        let lease = |row: &Row| {
            let ability = request.abilities.iter().find(|one| one.name == row.facts.ability)?;
            (row.place == Place::Ready && *request.queue == row.facts.queue)
                .then_some(ability.grab_for)
        };
        let mut wanted: Vec<_> = self
            .jobs
            .iter()
            .filter_map(|(id, row)| Some((-row.facts.priority, *id, lease(row)?)))
            .collect();
        wanted.sort_unstable();
        wanted.truncate(request.limit as usize);
        let now = self.now;
        let mut claimed = Vec::with_capacity(wanted.len());
        for (_, id, grab_for) in wanted {
            let Some(row) = self.jobs.get_mut(&id) else { continue };
            let (worker, claim) = (request.worker, request.claim);
            row.place = Place::Leased { worker, claim, until: now + grab_for };
            row.attempt += 1;
            claimed.push(row.claimed(id, claim, now));
        }
        claimed
    }

    /// A job that waits, or that was leased under this number before.
    pub fn claim_job(&mut self, asked: &JobClaim) -> Option<ClaimedJob> {
        let JobClaim { worker, claim, job: id, grab_for, .. } = *asked;
        let now = self.now;
        let row = self.jobs.get_mut(&id)?;
        match row.place {
            Place::Ready => row.attempt += 1,
            Place::Scheduled { at } => {
                row.ready_at = at.min(now);
                row.attempt += 1;
            }
            Place::Leased { worker: holder, claim: number, .. } => {
                (holder == worker && number == claim).then_some(())?;
            }
            _ => return None,
        }
        row.place = Place::Leased { worker, claim, until: now + grab_for };
        Some(row.claimed(id, claim, now))
    }

    /// Puts leases back to ready, the attempt unspent; returns how many.
    pub fn give_back(&mut self, which: impl Fn(WorkerId, i64) -> bool) -> usize {
        let mut count = 0;
        for row in self.jobs.values_mut() {
            if let Place::Leased { worker, claim, .. } = row.place
                && which(worker, claim)
            {
                row.place = Place::Ready;
                row.ready_at = self.now;
                row.attempt -= 1;
                count += 1;
            }
        }
        count
    }

    pub fn promote_due(&mut self, limit: u32) -> Promotion {
        let now = self.now;
        let mut waiting: Vec<_> = self
            .jobs
            .iter_mut()
            .filter_map(|(id, row)| match row.place {
                Place::Scheduled { at } => Some((at, *id, row)),
                _ => None,
            })
            .collect();
        waiting.sort_unstable_by_key(|(at, id, _)| (*at, *id));
        let mut waiting = waiting.into_iter().peekable();
        let mut moved = 0;
        while moved < limit
            && let Some((_, _, row)) = waiting.next_if(|(at, ..)| *at <= now)
        {
            if let Place::Scheduled { at } = row.place {
                row.ready_at = at;
            }
            row.place = Place::Ready;
            moved += 1;
        }
        let next = waiting.peek().map(|(at, ..)| (*at - now).to_std().unwrap_or_default());
        Promotion { moved, next }
    }

    /// Ends a run, if this worker still holds the lease under this claim.
    pub fn settle(&mut self, worker: WorkerId, one: &Settlement) -> Settled {
        let (now, id) = (self.now, one.job.id);
        let is_ours = |place: &Place| match place {
            Place::Leased { worker: holder, claim, .. } => {
                *holder == worker && *claim == one.job.claim
            }
            _ => false,
        };
        let Some(row) = self.jobs.get(&id).filter(|row| is_ours(&row.place)).cloned() else {
            return Settled::LeaseLost;
        };
        let extras = one.extras.as_deref().cloned().unwrap_or_default();
        if let Some(exception) = &extras.exception {
            self.log(id, &row, worker, exception, one.verdict == Verdict::Discard);
        }
        if !extras.replies.is_empty() {
            let row = |one: ReplyRecord| ReplyRow { codec: one.codec.into_owned(), body: one.body };
            let replies = extras.replies.into_iter().map(row).collect();
            self.remains.insert(id, (now, Remains::replies(replies)));
        }
        if let Some(status) = extras.status {
            let (ability, begun) = (row.facts.ability.as_str(), now - status.took);
            let (enqueued_at, attempt) = (row.enqueued_at, row.attempt.unsigned_abs());
            let mut kept = StatusRow::new(
                StatusId::new(),
                id,
                ability,
                status.status,
                attempt,
                enqueued_at,
                begun,
                now,
            );
            kept.uniqkey.clone_from(&row.facts.uniqkey);
            kept.message = status.message;
            self.statuses.push(kept);
        }
        let (due, unspent) = match one.verdict {
            Verdict::Complete | Verdict::Discard => (None, 0),
            Verdict::Retry(delay) => (Some(Due::In(delay)), 0),
            Verdict::Snooze(delay) => (Some(Due::In(delay)), 1),
            Verdict::GiveBack => (Some(Due::Now), 1),
        };
        if let Some(due) = due {
            let (place, attempt) = (self.waiting(due), row.attempt - unspent);
            self.jobs.insert(id, Row { attempt, place, ready_at: self.now, ..row });
        } else {
            self.jobs.remove(&id);
            // A later job of this id is another one.
            self.cancels.remove(&id);
        }
        // Last, so that a replacement may take the unique key of the job that it replaces.
        let new = extras.replacements.iter();
        let refused = new.filter(|new| matches!(self.insert(new), Inserted::Existing(_)));
        let refused: Vec<_> = refused.map(|new| new.id).collect();
        let successor = one.extras.as_deref();
        let successor = successor.and_then(|all| all.successor(|new| !refused.contains(&new)));
        if let Some(by) = successor {
            self.remains.insert(id, (now, Remains::replaced_by(by)));
        }
        Settled::done_without(refused)
    }

    fn log(&mut self, job: JobId, row: &Row, worker: WorkerId, what: &ExceptionRecord, last: bool) {
        let mut facts = row.facts.clone();
        if !last {
            // The live job has them.
            (facts.codec, facts.arg) = (Name::from_static(""), Vec::new());
        }
        let (message, now) = (what.message.clone(), self.now);
        let mut logged = Exception::new(what.id, job, facts, what.kind, message, worker, now);
        logged.attempt = row.attempt.unsigned_abs();
        logged.class = what.class.as_deref().map(str::to_owned);
        logged.worker_name = what.worker_name.as_deref().map(str::to_owned);
        logged.version = what.version.as_deref().map(str::to_owned);
        logged.discarded = last;
        self.exceptions.push(logged);
    }
}

// The processes that work.
impl State {
    pub fn heartbeat(&mut self, info: &WorkerInfo) -> bool {
        self.workers.insert(info.id, (info.clone(), self.now)).is_some()
    }

    pub fn workers(&self) -> Vec<WorkerSeen> {
        let seen = |(info, seen_at): &(WorkerInfo, DateTime<Utc>)| WorkerSeen {
            info: info.clone(),
            seen_at: *seen_at,
            silent: (self.now - *seen_at).to_std().unwrap_or_default(),
        };
        self.workers.values().map(seen).collect()
    }

    pub fn rescue(&mut self, dead: &[DeadWorker], expired: bool, limit: u32) -> Vec<Rescued> {
        let now = self.now;
        // Whoever was heard of since lives.
        let is_silent = |one: &&DeadWorker| {
            self.workers.get(&one.id).is_some_and(|(_, seen_at)| *seen_at == one.seen_at)
        };
        let dead: Vec<_> = dead.iter().filter(is_silent).map(|one| one.id).collect();
        let kind = |row: &Row| match row.place {
            Place::Leased { worker, .. }
                if dead.contains(&worker) || !self.workers.contains_key(&worker) =>
            {
                Some((worker, FailureKind::Crash))
            }
            Place::Leased { worker, until, .. } if expired && until < now => {
                Some((worker, FailureKind::LeaseExpired))
            }
            _ => None,
        };
        let lost = self.jobs.iter().filter_map(|(id, row)| Some((*id, kind(row)?)));
        let lost: Vec<_> = lost.take(limit as usize).collect();
        let mut rescued = Vec::with_capacity(lost.len());
        for (id, (worker, kind)) in lost {
            let Some(row) = self.jobs.get_mut(&id) else { continue };
            row.place = Place::Ready;
            row.crashes += 1;
            let row = row.clone();
            let message = format!("taken back from worker {worker}");
            let record = match self.workers.get(&worker) {
                Some((info, _)) => info.failed(kind, message),
                None => ExceptionRecord::new(kind, message),
            };
            self.log(id, &row, worker, &record, false);
            rescued.push(Rescued { id, worker, kind });
        }
        // The row goes with the last lease.
        let holds = |row: &Row, id: &WorkerId| matches!(&row.place, Place::Leased { worker, .. } if worker == id);
        for id in dead {
            if !self.jobs.values().any(|row| holds(row, &id)) {
                self.workers.remove(&id);
            }
        }
        rescued
    }
}

// Questions and orders.
impl State {
    pub fn ordered_workers(&self) -> Option<std::sync::Arc<[(WorkerId, WorkerOrder)]>> {
        let all: Vec<_> =
            self.worker_orders.iter().filter_map(|name| Order::worker_of(name)).collect();
        (!all.is_empty()).then(|| all.into())
    }

    pub fn paused_parts(&self) -> Option<std::sync::Arc<[Pause]>> {
        let part = |(name, reason, since): &(String, String, DateTime<Utc>)| {
            Some(Pause::new(Order::part_of(name)?, &**reason, *since))
        };
        let all: Vec<_> = self.pauses.iter().filter_map(part).collect();
        (!all.is_empty()).then(|| all.into())
    }

    pub fn jobs(&self, ids: &[JobId], args: bool) -> Vec<JobInfo> {
        let info = |id: &JobId| {
            let mut info = self.jobs.get(id)?.info(*id);
            if !args {
                info.facts.arg = Vec::new();
            }
            Some(info)
        };
        ids.iter().filter_map(info).collect()
    }

    pub fn scan_jobs(&self, scan: &JobScan<'_>) -> Vec<PlacedJob> {
        let placed = |(id, row): (&JobId, &Row)| PlacedJob {
            at: row.cursor(*id),
            queue: row.facts.queue.clone(),
            ability: row.facts.ability.clone(),
            priority: row.facts.priority,
            attempt: row.attempt.unsigned_abs(),
            state: row.state(),
        };
        let is_wanted = |one: &PlacedJob| {
            one.at.place() == scan.place
                && scan.queue.is_none_or(|queue| one.queue == *queue)
                && scan.after.is_none_or(|after| one.at > *after)
        };
        let mut rows: Vec<_> = self.jobs.iter().map(placed).filter(is_wanted).collect();
        rows.sort_by(|one, other| one.at.cmp(&other.at));
        rows.truncate(scan.limit as usize);
        rows
    }

    pub fn scan_exceptions(&self, scan: &ExceptionScan) -> Vec<Exception> {
        let is_wanted = |row: &&Exception| {
            scan.job.is_none_or(|job| job == row.job)
                && scan.id.is_none_or(|id| id == row.id)
                && (row.discarded || !scan.discarded_only)
                && scan.before.is_none_or(|before| row.id < before)
        };
        let mut rows: Vec<_> = self.exceptions.iter().filter(is_wanted).cloned().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.id));
        rows.truncate(scan.limit as usize);
        if !scan.arguments {
            for row in &mut rows {
                row.facts.arg = Vec::new();
            }
        }
        rows
    }

    pub fn scan_status(&self, scan: &StatusScan) -> Vec<StatusRow> {
        let is_wanted = |row: &&StatusRow| {
            scan.job.is_none_or(|job| job == row.job)
                && scan.before.is_none_or(|before| row.id < before)
        };
        let mut rows: Vec<_> = self.statuses.iter().filter(is_wanted).cloned().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.id));
        rows.truncate(scan.limit as usize);
        rows
    }

    pub fn count_past(&self, of: Past, bound: u64) -> Bounded {
        let rows = match of {
            Past::Exceptions => self.exceptions.len(),
            Past::Status => self.statuses.len(),
        };
        Bounded::new(rows as u64, bound)
    }

    pub fn status(&self, job: JobId) -> Vec<StatusRow> {
        self.statuses.iter().filter(|row| row.job == job).cloned().collect()
    }

    pub fn remains(&self, job: JobId) -> Remains {
        self.remains.get(&job).map(|(_, remains)| remains.clone()).unwrap_or_default()
    }

    pub fn purge(&mut self, keep: &Keep) -> usize {
        let now = self.now;
        let count = |state: &Self| {
            let marks: usize = state.marks.values().map(Vec::len).sum();
            let kept = state.exceptions.len() + state.operations.len();
            state.remains.len() + state.statuses.len() + kept + marks
        };
        let minutes = self.stats.purge(now, keep.stats);
        let before = count(self);
        self.remains.retain(|_, (at, _)| *at + keep.replies >= now);
        self.statuses.retain(|row| row.finished_at + keep.status >= now);
        let mut ids: Vec<_> = self.exceptions.iter().map(|row| row.id).collect();
        ids.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        let most = keep.exceptions_at_most.unwrap_or(u64::MAX);
        let first_too_many = ids.get(usize::try_from(most).unwrap_or(usize::MAX)).copied();
        self.exceptions.retain(|row| {
            let too_many = first_too_many.is_some_and(|first| row.id <= first);
            let age = keep.exception(row.discarded, row.redriven_as.is_some(), too_many);
            age.is_none_or(|age| row.failed_at + age >= now)
        });
        for marks in self.marks.values_mut() {
            marks.retain(|mark| mark.leg == Trace::Left || mark.at + keep.replies >= now);
        }
        self.marks.retain(|_, marks| !marks.is_empty());
        self.operations.retain(|_, row| row.changed_at + keep.exceptions >= now);
        let jobs = &self.jobs;
        let runs =
            |id| jobs.get(&id).is_some_and(|row: &Row| matches!(row.place, Place::Leased { .. }));
        let lives = |id| jobs.contains_key(&id);
        let told = self.interim.purge(now, keep.replies, lives, runs);
        before - count(self) + minutes + told
    }

    /// Whether this worker holds the lease under this claim.
    pub fn holds(&self, worker: WorkerId, job: JobId, claim: i64) -> bool {
        let is_ours = |place: &Place| match place {
            Place::Leased { worker: holder, claim: under, .. } => {
                *holder == worker && *under == claim
            }
            _ => false,
        };
        self.jobs.get(&job).is_some_and(|row| is_ours(&row.place))
    }
}

// What operators do.
impl State {
    pub fn act(&mut self, act: &Act, id: JobId) -> Acted {
        let Some(row) = self.jobs.get(&id).cloned() else {
            self.cancels.remove(&id);
            return Acted::Gone;
        };
        let kept = match (act, &row.place) {
            (_, Place::Leaving { .. } | Place::Arriving { .. }) => return Acted::Moving,
            (Act::Cancel { reason, by_force: false }, Place::Leased { .. }) => {
                if self.cancels.contains_key(&id) {
                    return Acted::AskedBefore;
                }
                self.cancels.insert(id, reason.clone());
                return Acted::Asked;
            }
            (Act::Cancel { reason, .. }, place) => {
                let worker = match place {
                    Place::Leased { worker, .. } => *worker,
                    _ => WorkerId::from_uuid(Uuid::nil()),
                };
                let record = match self.workers.get(&worker) {
                    Some((info, _)) => info.failed(FailureKind::Cancelled, reason),
                    None => ExceptionRecord::new(FailureKind::Cancelled, reason),
                };
                self.log(id, &row, worker, &record, true);
                self.cancels.remove(&id);
                None
            }
            (_, Place::Leased { .. }) => return Acted::Running,
            (Act::Remove(leaves), _) => {
                if let Some(ending) = leaves {
                    self.remains.insert(id, (self.now, Remains::ending(*ending)));
                }
                None
            }
            (Act::Reschedule(due), _) => {
                let (place, ready_at) = (self.waiting(*due), self.ready_at(*due));
                Some(Row { ready_at, place, ..row })
            }
            (Act::Prioritize(priority), _) => {
                Some(Row { facts: JobFacts { priority: *priority, ..row.facts }, ..row })
            }
            (Act::Requeue(queue), _) => {
                Some(Row { facts: JobFacts { queue: queue.clone(), ..row.facts }, ..row })
            }
        };
        match kept {
            Some(row) => drop(self.jobs.insert(id, row)),
            None => drop(self.jobs.remove(&id)),
        }
        Acted::Done
    }

    pub fn redrive(&mut self, exception: ExceptionId, new: JobId) -> Redrive {
        let Some(at) = self.exceptions.iter().position(|row| row.id == exception) else {
            return Redrive::NotFound;
        };
        let row = &self.exceptions[at];
        match row.redriven_as {
            Some(job) if job == new => return Redrive::Enqueued(job),
            Some(job) => return Redrive::Already(job),
            None if !row.discarded => return Redrive::NotDiscarded,
            None => {}
        }
        let job = JobRecord { id: new, facts: row.facts.clone(), due: Due::Now };
        match self.insert(&job) {
            Inserted::Existing(holder) => Redrive::Conflict(holder),
            Inserted::New => {
                self.exceptions[at].redriven_as = Some(new);
                Redrive::Enqueued(new)
            }
        }
    }

    /// Whether the operation stands where this step begins; if so, it stands where the step ends.
    pub fn step(&mut self, step: Option<&Step<'_>>) -> bool {
        let Some(step) = step else { return true };
        let Some(row) = self.operations.get_mut(&step.operation) else { return false };
        if row.place != step.from || row.finished_at.is_some() {
            return false;
        }
        (row.place, row.changed_at) = (step.to.to_owned(), self.now);
        row.finished_at = step.ends.then_some(self.now);
        true
    }

    pub fn count_step(&mut self, step: Option<&Step<'_>>, counts: Counts) {
        if let Some(row) = step.and_then(|step| self.operations.get_mut(&step.operation)) {
            row.counts += counts;
        }
    }

    pub fn begin_operation(&mut self, record: &OperationRecord) -> OperationRow {
        let now = self.now;
        let new = || OperationRow::new(record.clone(), now);
        self.operations.entry(record.id).or_insert_with(new).clone()
    }

    /// Orders of jobs of this worker.
    pub fn cancels(&self, of: WorkerId) -> Vec<CancelOrder> {
        let order = |(id, reason): (&JobId, &String)| match self.jobs.get(id)?.place {
            Place::Leased { worker, claim, .. } if worker == of => {
                Some(CancelOrder { job: *id, claim, reason: reason.clone() })
            }
            _ => None,
        };
        self.cancels.iter().filter_map(order).collect()
    }

    pub fn open_cancels(&self, limit: u32) -> Vec<(JobId, String)> {
        let is_leased =
            |id| self.jobs.get(id).is_some_and(|row| matches!(row.place, Place::Leased { .. }));
        let open = self.cancels.iter().filter(|(id, _)| !is_leased(id));
        open.map(|(id, reason)| (*id, reason.clone())).take(limit as usize).collect()
    }
}

// Moves; see the table in the documentation of `Moves`.
impl State {
    pub fn mark(&self, id: JobId, leg: Trace) -> Option<&Mark> {
        self.marks.get(&id)?.iter().find(|mark| mark.leg == leg)
    }

    fn set_mark(&mut self, one: Departure, leg: Trace, other: String) {
        self.unmark(one.job, leg);
        let mark = Mark { leg, other, departure: one.id, at: self.now };
        self.marks.entry(one.job).or_default().push(mark);
    }

    pub fn has_mark(&self, one: Departure, leg: Trace) -> bool {
        self.mark(one.job, leg).is_some_and(|mark| mark.departure == one.id)
    }

    fn unmark(&mut self, id: JobId, leg: Trace) -> Option<Mark> {
        let marks = self.marks.get_mut(&id)?;
        let at = marks.iter().position(|mark| mark.leg == leg)?;
        Some(marks.remove(at))
    }

    fn moving_job(&self, id: JobId) -> Option<MovingJob> {
        let row = self.jobs.get(&id)?;
        let due = row.due().map_or(Due::Now, Due::At);
        let Place::Leaving { departure, .. } = row.place else { return None };
        Some(MovingJob {
            record: JobRecord { id, facts: row.facts.clone(), due },
            attempt: row.attempt,
            crashes: row.crashes,
            flags: row.flags,
            enqueued_at: row.enqueued_at,
            departure,
        })
    }

    pub fn move_out(
        &mut self,
        to: &str,
        departure: Uuid,
        only: Option<&[JobId]>,
        limit: u32,
    ) -> Vec<MovingJob> {
        let is_wanted = |id: &JobId, row: &Row| {
            // One that is to end stays where its order is.
            row.is_waiting()
                && only.is_none_or(|only| only.contains(id))
                && !self.cancels.contains_key(id)
        };
        let wanted = self.jobs.iter().filter(|(id, row)| is_wanted(id, row)).map(|(id, _)| *id);
        let ids: Vec<_> = wanted.take(limit as usize).collect();
        for id in &ids {
            let Some(row) = self.jobs.get_mut(id) else { continue };
            row.place = Place::Leaving { to: to.to_owned(), departure, due: row.due() };
        }
        ids.into_iter().filter_map(|id| self.moving_job(id)).collect()
    }

    pub fn moving_out(&self, to: &str, after: JobId, limit: u32) -> Vec<MovingJob> {
        let leaves =
            |row: &Row| matches!(&row.place, Place::Leaving { to: other, .. } if other == to);
        let ids =
            self.jobs.iter().filter(|(id, row)| **id > after && leaves(row)).map(|(id, _)| *id);
        ids.take(limit as usize).filter_map(|id| self.moving_job(id)).collect()
    }

    pub fn move_in(&mut self, from: &str, job: &MovingJob) -> Arrival {
        let (id, departure) = (job.record.id, job.departure);
        if self.has_mark(job.departed(), Trace::Arrived) {
            return Arrival::Here;
        }
        match self.jobs.get(&id).map(|row| &row.place) {
            Some(Place::Arriving { departure: other, .. }) if *other != departure => {
                return Arrival::Busy;
            }
            Some(Place::Leaving { .. }) => return Arrival::Busy,
            Some(_) => return Arrival::Here,
            None => {}
        }
        if let Some(holder) = self.other_holder(id, &job.record.facts) {
            return Arrival::KeyHeld(holder);
        }
        let due = match job.record.due {
            Due::Now => None,
            Due::In(delay) => Some(self.now + delay),
            Due::At(at) => Some(at),
        };
        let row = Row {
            ready_at: self.now,
            facts: job.record.facts.clone(),
            enqueued_at: job.enqueued_at,
            attempt: job.attempt,
            crashes: job.crashes,
            flags: job.flags.with(job.record.facts.flags()),
            place: Place::Arriving { from: from.to_owned(), departure, due },
        };
        self.jobs.insert(id, row);
        Arrival::Here
    }

    /// The place of a job that is on its way by this departure.
    fn on_its_way(&self, one: Departure) -> Option<Place> {
        let place = self.jobs.get(&one.job).map(|row| row.place.clone())?;
        match &place {
            Place::Leaving { departure, .. } | Place::Arriving { departure, .. } => {
                (*departure == one.id).then_some(place)
            }
            _ => None,
        }
    }

    pub fn moved_out(&mut self, one: Departure) -> bool {
        if let Some(Place::Leaving { to, .. }) = self.on_its_way(one) {
            self.jobs.remove(&one.job);
            self.set_mark(one, Trace::Left, to);
        }
        self.has_mark(one, Trace::Left)
    }

    /// A job that arrived, or that did not leave, may be claimed.
    pub fn put_back(&mut self, one: Departure, arrived: bool) -> bool {
        let (from, due) = match self.on_its_way(one) {
            Some(Place::Arriving { from, due, .. }) if arrived => (Some(from), due),
            Some(Place::Leaving { due, .. }) if !arrived => (None, due),
            _ => return false,
        };
        let due = due.map_or(Due::Now, Due::At);
        let (place, ready_at) = (self.waiting(due), self.ready_at(due));
        self.jobs.entry(one.job).and_modify(|row| *row = Row { ready_at, place, ..row.clone() });
        if let Some(from) = from {
            self.set_mark(one, Trace::Arrived, from);
        }
        true
    }

    pub fn leave_trail(&mut self, one: Departure) {
        if !self.has_mark(one, Trace::Left) {
            return;
        }
        let id = one.job;
        if let Some(mark) = self.unmark(id, Trace::Left) {
            self.unmark(id, Trace::Gone);
            // It tells when the job went, however much later its move was ended.
            self.marks.entry(id).or_default().push(Mark { leg: Trace::Gone, ..mark });
        }
    }

    pub fn ages(&self, pauses: &[Pause]) -> Ages {
        let since = |at: DateTime<Utc>| (self.now - at).to_std().ok();
        let is_open = |row: &&Row| {
            let facts = &row.facts;
            row.place == Place::Ready
                && Pause::among(pauses, &facts.queue, &facts.ability).is_none()
        };
        let ready = self.jobs.values().filter(is_open);
        let ends = self.jobs.values().filter_map(|row| match row.place {
            Place::Leased { until, .. } => Some(until),
            _ => None,
        });
        let ready = ready.map(Row::ready_since).min();
        Ages::new(ready.map(|at| since(at).unwrap_or_default()), ends.min().and_then(since))
    }

    /// Jobs whose moves are not over.
    pub fn moving(&self) -> usize {
        let moves =
            |row: &&Row| matches!(row.place, Place::Leaving { .. } | Place::Arriving { .. });
        let left = self.marks.keys().filter(|id| self.mark(**id, Trace::Left).is_some()).count();
        self.jobs.values().filter(moves).count() + left
    }

    pub fn trail(&self, id: JobId) -> Option<Trail> {
        let went = self.mark(id, Trace::Left).or_else(|| self.mark(id, Trace::Gone));
        let went = went.map(|mark| (mark.at, Some(mark.other.clone())));
        let came = self.mark(id, Trace::Arrived).map(|mark| (mark.at, None));
        if let Some((at, to)) = went.into_iter().chain(came).max() {
            return Some(Trail { to, age: Some((self.now - at).to_std().unwrap_or_default()) });
        }
        let copy = self.mark(id, Trace::Cancelled)?;
        Some(Trail { to: Some(copy.other.clone()), age: None })
    }

    pub fn cancel_move_in(&mut self, one: Departure) -> bool {
        let Some(Place::Arriving { from, .. }) = self.on_its_way(one) else { return false };
        self.jobs.remove(&one.job);
        // Who saw the job here is to find where it came from.
        self.set_mark(one, Trace::Cancelled, from);
        true
    }
}
