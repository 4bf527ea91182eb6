use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{DateTime, Utc};
use qudo_hooks::{FailureKind, JobId};
use uuid::Uuid;

use crate::driver::{
    AbilityLease, Ages, Bounded, ClaimRequest, ClaimedJob, Control, CountRow, DeadWorker, Depth,
    Due, Exception, ExceptionRecord, Extras, Flags, Inserted, InterimBook, JobClaim, JobInfo,
    JobRecord, JobState, Keep, LeaseKey, Leg, Name, OperationId, OperationRow, Pause,
    ProgressRecord, Promotion, Remains, ReplyRow, Rescued, Sending, SentRecord, Settled,
    Settlement, StatBook, StatusId, StatusRow, Verdict, WorkerId, WorkerInfo, WorkerSeen,
};
use crate::tools::time::Instant;

/// The tables. As in a database, a live job's id is in exactly one of ready, scheduled, leases.
#[derive(Default)]
pub(super) struct Store {
    pub(super) now: DateTime<Utc>,
    pub(super) jobs: BTreeMap<JobId, Facts>,
    pub(super) ready: BTreeMap<(String, i32, JobId), Stand>,
    pub(super) scheduled: BTreeMap<(DateTime<Utc>, JobId), Stand>,
    pub(super) leases: BTreeMap<JobId, Lease>,
    pub(super) unique: HashMap<(String, String), JobId>,
    pub(super) exceptions: Vec<Exception>,
    pub(super) status: Vec<StatusRow>,
    pub(super) remains: HashMap<JobId, (DateTime<Utc>, Remains)>,
    pub(super) workers: BTreeMap<WorkerId, (WorkerInfo, DateTime<Utc>)>,
    pub(super) control: Control,
    pub(super) identity: Option<Uuid>,
    pub(super) moving: BTreeMap<(JobId, Leg), Moving>,
    /// Orders to end jobs, with their reasons.
    pub(super) cancels: BTreeMap<JobId, String>,
    pub(super) operations: BTreeMap<OperationId, OperationRow>,
    pub(super) stats: StatBook,
    pub(super) interim: InterimBook,
}

pub(super) struct Facts {
    pub(super) record: JobRecord,
    pub(super) enqueued_at: DateTime<Utc>,
}

#[derive(Clone, Copy, Default)]
pub(super) struct Stand {
    pub(super) attempt: i32,
    pub(super) crashes: i32,
    pub(super) flags: Flags,
    /// Since when it is ready; not kept up while it is scheduled.
    pub(super) ready_at: DateTime<Utc>,
}

/// A row of the moving jobs.
#[derive(Clone)]
pub(super) struct Moving {
    pub(super) other: String,
    pub(super) departure: Uuid,
    pub(super) stand: Stand,
    pub(super) due: Due,
    pub(super) at: DateTime<Utc>,
}

pub(super) struct Lease {
    pub(super) worker: WorkerId,
    pub(super) claim: i64,
    pub(super) until: DateTime<Utc>,
    pub(super) stand: Stand,
}

fn ago(span: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(span).unwrap_or(now)
}

impl Store {
    pub(super) fn insert(&mut self, record: &JobRecord) -> Inserted {
        if self.jobs.contains_key(&record.id) {
            return Inserted::New;
        }
        if let Some(key) = &record.facts.uniqkey {
            let key = (record.facts.ability.to_string(), key.clone());
            if let Some(holder) = self.unique.get(&key) {
                return Inserted::Existing(*holder);
            }
            self.unique.insert(key, record.id);
        }
        let due = record.due;
        self.jobs.insert(record.id, Facts { record: record.clone(), enqueued_at: self.now });
        self.place(record.id, due, Stand { flags: record.facts.flags(), ..Stand::default() });
        Inserted::New
    }

    pub(super) fn place(&mut self, id: JobId, due: Due, stand: Stand) {
        // Of one that waits the time is read when it is due.
        let ready_at = match due {
            Due::At(at) => at.min(self.now),
            Due::Now | Due::In(_) => self.now,
        };
        self.place_since(id, due, Stand { ready_at, ..stand });
    }

    /// The same for a job that was ready, or due, before.
    pub(super) fn place_since(&mut self, id: JobId, due: Due, mut stand: Stand) {
        if let Due::At(at) = due {
            stand.ready_at = at.min(self.now);
        }
        let at = match due {
            Due::In(delay) => self.now + delay,
            Due::At(at) => at,
            Due::Now => self.now,
        };
        if at > self.now {
            self.scheduled.insert((at, id), stand);
        } else {
            let job = &self.jobs[&id].record;
            self.ready.insert((job.facts.queue.to_string(), -job.facts.priority, id), stand);
        }
    }

    pub(super) fn remove(&mut self, id: JobId) -> Option<Facts> {
        // A later job of this id is another one.
        self.cancels.remove(&id);
        let facts = self.jobs.remove(&id)?;
        if let Some(key) = &facts.record.facts.uniqkey {
            self.unique.remove(&(facts.record.facts.ability.to_string(), key.clone()));
        }
        Some(facts)
    }

    pub(super) fn claim(&mut self, request: &ClaimRequest<'_>) -> Vec<ClaimedJob> {
        let first = (request.queue.to_string(), i32::MIN, JobId::from_uuid(Uuid::nil()));
        let picked: Vec<_> = self
            .ready
            .range(first..)
            .take_while(|((queue, ..), _)| **queue == **request.queue)
            .filter_map(|(key, stand)| {
                let ability = &self.jobs[&key.2].record.facts.ability;
                let ours = request.abilities.iter().find(|one| *one.name == **ability)?;
                Some((key.clone(), *stand, ours))
            })
            .take(request.limit as usize)
            .collect();
        picked
            .into_iter()
            .map(|(key, mut stand, ability)| {
                self.ready.remove(&key);
                stand.attempt += 1;
                let until = self.now + ability.grab_for;
                let (worker, claim) = (request.worker, request.claim);
                self.leases.insert(key.2, Lease { worker, claim, until, stand });
                self.claimed(key.2, claim, stand)
            })
            .collect()
    }

    pub(super) fn claim_job(&mut self, claim: &JobClaim) -> Option<ClaimedJob> {
        let JobClaim { worker, claim: number, job: id, grab_for, .. } = *claim;
        let (state, mut stand) = self.stand(id)?;
        let key = &self.jobs[&id].record.facts;
        match state {
            JobState::Ready => {
                self.ready.remove(&(key.queue.to_string(), -key.priority, id));
                stand.attempt += 1;
            }
            JobState::Scheduled { run_after } => {
                self.scheduled.remove(&(run_after, id));
                stand.attempt += 1;
                stand.ready_at = run_after.min(self.now);
            }
            JobState::Running { .. } => {
                let lease = self.leases.get(&id)?;
                (lease.worker == worker && lease.claim == number).then_some(())?;
            }
            _ => return None,
        }
        self.leases.insert(id, Lease { worker, claim: number, until: self.now + grab_for, stand });
        Some(self.claimed(id, number, stand))
    }

    fn claimed(&self, id: JobId, claim: i64, stand: Stand) -> ClaimedJob {
        let facts = &self.jobs[&id];
        ClaimedJob {
            id,
            claim,
            ordinal: 0,
            attempt: stand.attempt,
            crashes: stand.crashes,
            flags: stand.flags,
            facts: facts.record.facts.clone(),
            enqueued_at: facts.enqueued_at,
            // Never before it was there.
            ready_since: ago((self.now - stand.ready_at.max(facts.enqueued_at))
                .to_std()
                .unwrap_or_default()),
        }
    }

    /// Returns leases to ready with the attempt unspent.
    pub(super) fn give_back(&mut self, which: impl Fn(&Lease) -> bool) -> usize {
        let ids: Vec<_> =
            self.leases.iter().filter(|(_, lease)| which(lease)).map(|(id, _)| *id).collect();
        for id in &ids {
            if let Some(mut lease) = self.leases.remove(id) {
                lease.stand.attempt -= 1;
                self.place(*id, Due::Now, lease.stand);
            }
        }
        ids.len()
    }

    pub(super) fn promote_due(&mut self, limit: u32) -> Promotion {
        let due: Vec<_> = self
            .scheduled
            .range(..=(self.now, JobId::from_uuid(Uuid::max())))
            .take(limit as usize)
            .map(|(key, stand)| (*key, *stand))
            .collect();
        for (key, stand) in &due {
            self.scheduled.remove(key);
            self.place_since(key.1, Due::Now, Stand { ready_at: key.0, ..*stand });
        }
        let next = self.scheduled.keys().next();
        let next = next.map(|(at, _)| (*at - self.now).to_std().unwrap_or_default());
        Promotion { moved: due.len() as u32, next }
    }

    pub(super) fn settle(&mut self, worker: WorkerId, one: &Settlement) -> Settled {
        let id = one.job.id;
        let held = self.leases.get(&id);
        if !held.is_some_and(|lease| lease.worker == worker && lease.claim == one.job.claim) {
            return Settled::LeaseLost;
        }
        let Some(Lease { mut stand, .. }) = self.leases.remove(&id) else {
            return Settled::LeaseLost;
        };
        if let Some(extras) = &one.extras {
            if let Some(exception) = &extras.exception {
                let last = one.verdict == Verdict::Discard;
                self.log_exception(id, worker, stand.attempt, exception, last);
            }
            if !extras.replies.is_empty() {
                let row = |reply: &crate::driver::ReplyRecord| ReplyRow {
                    codec: reply.codec.to_string(),
                    body: reply.body.clone(),
                };
                let replies = extras.replies.iter().map(row).collect();
                self.remains.insert(id, (self.now, Remains::replies(replies)));
            }
            if let Some(status) = &extras.status {
                self.status.push(StatusRow {
                    id: StatusId::new(),
                    job: id,
                    ability: one.job.facts.ability.to_string(),
                    status: status.status.to_owned(),
                    attempt: stand.attempt.unsigned_abs(),
                    uniqkey: one.job.facts.uniqkey.clone(),
                    enqueued_at: one.job.enqueued_at,
                    started_at: self.now - status.took,
                    finished_at: self.now,
                    message: status.message.clone(),
                });
            }
        }
        match one.verdict {
            Verdict::Complete | Verdict::Discard => {
                self.remove(id);
            }
            Verdict::Retry(delay) => self.place(id, Due::In(delay), stand),
            Verdict::Snooze(delay) => {
                stand.attempt -= 1;
                self.place(id, Due::In(delay), stand);
            }
            Verdict::GiveBack => {
                stand.attempt -= 1;
                self.place(id, Due::Now, stand);
            }
        }
        // Last, so that a replacement may take the unique key of the job it replaces.
        let new = one.extras.iter().flat_map(|extras| &extras.replacements);
        let refused = new.filter(|new| matches!(self.insert(new), Inserted::Existing(_)));
        let refused: Vec<_> = refused.map(|new| new.id).collect();
        let successor = |extras: &Extras| extras.successor(|new| !refused.contains(&new));
        if let Some(successor) = one.extras.as_deref().and_then(successor) {
            self.remains.insert(id, (self.now, Remains::replaced_by(successor)));
        }
        Settled::done_without(refused)
    }

    pub(super) fn log_exception(
        &mut self,
        id: JobId,
        worker: WorkerId,
        attempt: i32,
        what: &ExceptionRecord,
        last: bool,
    ) {
        let Some(facts) = self.jobs.get(&id) else {
            return;
        };
        let mut facts = facts.record.facts.clone();
        if !last {
            (facts.codec, facts.arg) = (Name::from_static(""), Vec::new());
        }
        self.exceptions.push(Exception {
            id: what.id,
            job: id,
            facts,
            attempt: attempt.unsigned_abs(),
            kind: what.kind,
            class: what.class.as_ref().map(ToString::to_string),
            message: what.message.clone(),
            failed_at: self.now,
            worker,
            worker_name: what.worker_name.as_ref().map(ToString::to_string),
            version: what.version.as_ref().map(ToString::to_string),
            discarded: last,
            redriven_as: None,
        });
    }

    pub(super) fn heartbeat(&mut self, worker: &WorkerInfo) -> bool {
        self.workers.insert(worker.id, (worker.clone(), self.now)).is_some()
    }

    pub(super) fn rescue(
        &mut self,
        dead: &[DeadWorker],
        expired: bool,
        limit: usize,
    ) -> Vec<Rescued> {
        let now = self.now;
        let is_silent = |one: &&DeadWorker| {
            self.workers.get(&one.id).is_some_and(|(_, seen)| *seen == one.seen_at)
        };
        let dead: Vec<_> = dead.iter().filter(is_silent).map(|one| one.id).collect();
        let lost: Vec<_> = self
            .leases
            .iter()
            .filter_map(|(id, lease)| {
                let is_known = self.workers.contains_key(&lease.worker);
                let kind = if !is_known || dead.contains(&lease.worker) {
                    FailureKind::Crash
                } else if expired && lease.until < now {
                    FailureKind::LeaseExpired
                } else {
                    return None;
                };
                Some(Rescued { id: *id, worker: lease.worker, kind })
            })
            .take(limit)
            .collect();
        for one in &lost {
            let Some(mut lease) = self.leases.remove(&one.id) else {
                continue;
            };
            lease.stand.crashes += 1;
            let message = format!("taken back from worker {}", one.worker);
            let record = match self.workers.get(&one.worker) {
                Some((worker, _)) => worker.failed(one.kind, message),
                None => ExceptionRecord::new(one.kind, message),
            };
            self.log_exception(one.id, one.worker, lease.stand.attempt, &record, false);
            self.place(one.id, Due::Now, lease.stand);
        }
        // The row goes with the last lease.
        for worker in dead {
            if self.leases.values().all(|lease| lease.worker != worker) {
                self.workers.remove(&worker);
            }
        }
        lost
    }

    pub(super) fn remove_worker(&mut self, worker: WorkerId) -> usize {
        self.workers.remove(&worker);
        self.give_back(|lease| lease.worker == worker)
    }

    pub(super) fn workers(&self) -> Vec<WorkerSeen> {
        self.workers
            .values()
            .map(|(info, seen_at)| WorkerSeen {
                info: info.clone(),
                seen_at: *seen_at,
                silent: (self.now - *seen_at).to_std().unwrap_or_default(),
            })
            .collect()
    }

    fn stand(&self, id: JobId) -> Option<(JobState, Stand)> {
        let record = &self.jobs.get(&id)?.record;
        if let Some(lease) = self.leases.get(&id) {
            let state = JobState::Running { worker: lease.worker, until: lease.until };
            return Some((state, lease.stand));
        }
        let key = (record.facts.queue.to_string(), -record.facts.priority, id);
        if let Some(stand) = self.ready.get(&key) {
            return Some((JobState::Ready, *stand));
        }
        if let Some(((run_after, _), stand)) =
            self.scheduled.iter().find(|((_, other), _)| *other == id)
        {
            return Some((JobState::Scheduled { run_after: *run_after }, *stand));
        }
        let mut moving = [Leg::Leaving, Leg::Arriving].into_iter();
        let row = moving.find_map(|leg| self.moving.get(&(id, leg)))?;
        Some((JobState::Moving, row.stand))
    }

    pub(super) fn lookup(&self, id: JobId) -> Option<JobInfo> {
        let (state, stand) = self.stand(id)?;
        let facts = &self.jobs[&id];
        Some(JobInfo {
            id,
            facts: facts.record.facts.clone(),
            attempt: stand.attempt.unsigned_abs(),
            enqueued_at: facts.enqueued_at,
            state,
        })
    }

    pub(super) fn holder(&self, ability: &str, uniqkey: &str) -> Option<JobId> {
        self.unique.get(&(ability.to_owned(), uniqkey.to_owned())).copied()
    }

    pub(super) fn count(&self) -> Vec<CountRow> {
        let mut counts: BTreeMap<(String, String, &'static str), u64> = BTreeMap::new();
        for (id, facts) in &self.jobs {
            let Some((state, _)) = self.stand(*id) else {
                continue;
            };
            let record = &facts.record;
            let key =
                (record.facts.queue.to_string(), record.facts.ability.to_string(), state.as_str());
            *counts.entry(key).or_default() += 1;
        }
        counts
            .into_iter()
            .map(|((queue, ability, state), count)| CountRow { queue, ability, state, count })
            .collect()
    }

    pub(super) fn depth(&self, bound: u64) -> Depth {
        let bounded = |rows: usize| Bounded::new(rows as u64, bound);
        let moving = self
            .moving
            .keys()
            .filter(|(_, leg)| matches!(leg, Leg::Leaving | Leg::Left | Leg::Arriving))
            .count();
        Depth::new(
            bounded(self.ready.len()),
            bounded(self.scheduled.len()),
            bounded(self.leases.len()),
            bounded(moving),
        )
    }

    pub(super) fn ages(&self, pauses: &[Pause]) -> Ages {
        let since = |at: DateTime<Utc>| (self.now - at).to_std().ok();
        let is_open = |queue: &str, id: &JobId| {
            let ability = &self.jobs[id].record.facts.ability;
            Pause::among(pauses, queue, ability).is_none()
        };
        let ready = self.ready.iter().filter(|((queue, _, id), _)| is_open(queue, id));
        let ready =
            ready.map(|((.., id), stand)| stand.ready_at.max(self.jobs[id].enqueued_at)).min();
        let lease = self.leases.values().map(|lease| lease.until).min();
        Ages::new(ready.map(|at| since(at).unwrap_or_default()), lease.and_then(since))
    }

    pub(super) fn status(&self, job: JobId) -> Vec<StatusRow> {
        self.status.iter().filter(|row| row.job == job).cloned().collect()
    }

    pub(super) fn remains(&self, job: JobId) -> Remains {
        self.remains.get(&job).map(|(_, remains)| remains.clone()).unwrap_or_default()
    }

    pub(super) fn purge(&mut self, keep: &Keep) -> usize {
        let now = self.now;
        let count = |store: &Self| {
            store.remains.len()
                + store.status.len()
                + store.exceptions.len()
                + store.moving.len()
                + store.operations.len()
        };
        let before = count(self);
        self.remains.retain(|_, (at, _)| *at + keep.replies >= now);
        self.status.retain(|row| row.finished_at + keep.status >= now);
        let mut ids: Vec<_> = self.exceptions.iter().map(|row| row.id).collect();
        ids.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        let most = keep.exceptions_at_most.unwrap_or(u64::MAX);
        let first_too_many = ids.get(usize::try_from(most).unwrap_or(usize::MAX)).copied();
        self.exceptions.retain(|row| {
            let too_many = first_too_many.is_some_and(|first| row.id <= first);
            let age = keep.exception(row.discarded, row.redriven_as.is_some(), too_many);
            age.is_none_or(|age| row.failed_at + age >= now)
        });
        self.moving.retain(|(_, leg), row| {
            !matches!(leg, Leg::Gone | Leg::Arrived | Leg::Cancelled)
                || row.at + keep.replies >= now
        });
        self.operations.retain(|_, row| row.changed_at + keep.exceptions >= now);
        let minutes = self.stats.purge(now, keep.stats);
        let (jobs, leases) = (&self.jobs, &self.leases);
        let (lives, runs) = (|job| jobs.contains_key(&job), |job| leases.contains_key(&job));
        let told = self.interim.purge(now, keep.replies, lives, runs);
        before - count(self) + minutes + told
    }

    fn holds(&self, worker: WorkerId, job: JobId, claim: i64) -> bool {
        let lease = self.leases.get(&job);
        lease.is_some_and(|lease| lease.worker == worker && lease.claim == claim)
    }

    pub(super) fn send(&mut self, lease: &LeaseKey, sent: &SentRecord) -> Sending {
        if !self.holds(lease.worker, lease.job, lease.claim) {
            return Sending::LeaseLost;
        }
        self.interim.send(self.now, lease.job, sent)
    }

    pub(super) fn note_progress(&mut self, worker: WorkerId, records: &[ProgressRecord]) {
        for one in records {
            if self.holds(worker, one.job, one.claim) {
                self.interim.note(self.now, one);
            }
        }
    }

    pub(super) fn has_ready(&self, queues: &[&str], abilities: &[AbilityLease]) -> bool {
        let nil = JobId::from_uuid(Uuid::nil());
        let is_ours = |id: &JobId| {
            let ability = &self.jobs[id].record.facts.ability;
            abilities.iter().any(|one| one.name == *ability)
        };
        queues.iter().any(|queue| {
            let from = self.ready.range(((*queue).to_owned(), i32::MIN, nil)..);
            let mut of_queue = from.take_while(|((other, ..), _)| other == queue);
            of_queue.any(|((_, _, id), _)| is_ours(id))
        }) || self.scheduled.keys().next().is_some_and(|(at, _)| *at <= self.now)
    }
}
