use qudo_hooks::{FailureKind, JobId};
use uuid::Uuid;

use super::MemoryDriver;
use super::store::{Lease, Stand, Store};
use crate::driver::{
    Act, Acted, CancelOrder, Counts, DriverError, Due, Ending, ExceptionId, ExceptionRecord,
    Inserted, JobRecord, JobState, Operate, OperationId, OperationRecord, OperationRow, Redrive,
    Remains, Step, WorkerId,
};

impl Store {
    fn take_waiting(&mut self, id: JobId) -> Option<(Stand, Due)> {
        let record = &self.jobs.get(&id)?.record;
        let key = (record.facts.queue.to_string(), -record.facts.priority, id);
        if let Some(stand) = self.ready.remove(&key) {
            return Some((stand, Due::Now));
        }
        let key = *self.scheduled.keys().find(|(_, other)| *other == id)?;
        Some((self.scheduled.remove(&key)?, Due::At(key.0)))
    }

    fn act(&mut self, act: &Act, id: JobId) -> Acted {
        let acted = match act {
            Act::Cancel { reason, by_force } => self.cancel_job(id, reason, *by_force),
            _ => self.act_on_waiting(act, id),
        };
        acted.unwrap_or_else(|| match self.lookup(id).map(|job| job.state) {
            Some(JobState::Moving) => Acted::Moving,
            Some(_) => Acted::Running,
            None => {
                self.cancels.remove(&id);
                Acted::Gone
            }
        })
    }

    fn act_on_waiting(&mut self, act: &Act, id: JobId) -> Option<Acted> {
        let (stand, due) = self.take_waiting(id)?;
        let facts = self.jobs.get_mut(&id).map(|job| &mut job.record.facts)?;
        match act {
            Act::Remove(leaves) => {
                self.remove(id);
                if let Some(ending) = leaves {
                    self.leave(id, *ending);
                }
            }
            Act::Reschedule(due) => self.place(id, *due, stand),
            Act::Prioritize(priority) => {
                facts.priority = (*priority).max(-i32::MAX);
                self.place_since(id, due, stand);
            }
            Act::Requeue(queue) => {
                facts.queue = queue.clone();
                self.place_since(id, due, stand);
            }
            Act::Cancel { reason, .. } => {
                self.end(id, WorkerId::from_uuid(Uuid::nil()), stand.attempt, reason);
            }
        }
        Some(Acted::Done)
    }

    fn cancel_job(&mut self, id: JobId, reason: &str, by_force: bool) -> Option<Acted> {
        let act = Act::Cancel { reason: reason.to_owned(), by_force };
        if !self.leases.contains_key(&id) {
            return self.act_on_waiting(&act, id);
        }
        if !by_force {
            if self.cancels.contains_key(&id) {
                return Some(Acted::AskedBefore);
            }
            self.cancels.insert(id, reason.to_owned());
            return Some(Acted::Asked);
        }
        let Lease { worker, stand, .. } = self.leases.remove(&id)?;
        self.end(id, worker, stand.attempt, reason);
        Some(Acted::Done)
    }

    fn end(&mut self, id: JobId, worker: WorkerId, attempt: i32, reason: &str) {
        let record = match self.workers.get(&worker) {
            Some((info, _)) => info.failed(FailureKind::Cancelled, reason),
            None => ExceptionRecord::new(FailureKind::Cancelled, reason),
        };
        self.log_exception(id, worker, attempt, &record, true);
        self.remove(id);
    }

    fn leave(&mut self, id: JobId, ending: Ending) {
        self.remains.insert(id, (self.now, Remains::ending(ending)));
    }

    fn redrive(&mut self, exception: ExceptionId, new: JobId) -> Redrive {
        let Some(at) = self.exceptions.iter().position(|row| row.id == exception) else {
            return Redrive::NotFound;
        };
        let row = self.exceptions[at].clone();
        match row.redriven_as {
            Some(job) if job == new => return Redrive::Enqueued(job),
            Some(job) => return Redrive::Already(job),
            None => {}
        }
        if !row.discarded {
            return Redrive::NotDiscarded;
        }
        let record = JobRecord { id: new, facts: row.facts, due: Due::Now };
        match self.insert(&record) {
            Inserted::Existing(holder) => Redrive::Conflict(holder),
            Inserted::New => {
                self.exceptions[at].redriven_as = Some(new);
                Redrive::Enqueued(new)
            }
        }
    }

    /// Whether the operation stands where this step begins; if so, it stands where the step ends.
    fn step(&mut self, step: Option<&Step<'_>>) -> bool {
        let Some(step) = step else { return true };
        let now = self.now;
        let Some(row) = self.operations.get_mut(&step.operation) else { return false };
        if row.place != step.from || row.finished_at.is_some() {
            return false;
        }
        (row.place, row.changed_at) = (step.to.to_owned(), now);
        row.finished_at = step.ends.then_some(now);
        true
    }

    fn count_step(&mut self, step: Option<&Step<'_>>, counts: Counts) {
        if let Some(row) = step.and_then(|step| self.operations.get_mut(&step.operation)) {
            row.counts += counts;
        }
    }
}

impl Operate for MemoryDriver {
    fn act(
        &self,
        act: &Act,
        jobs: &[JobId],
        step: Option<&Step<'_>>,
    ) -> Result<Option<Vec<Acted>>, DriverError> {
        Ok(self.with(|store| {
            if !store.step(step) {
                return None;
            }
            let answers: Vec<_> = jobs.iter().map(|id| store.act(act, *id)).collect();
            let counts = Counts::of(&answers);
            store.count_step(step, counts);
            Some(answers)
        }))
    }

    fn redrive_each(
        &self,
        rows: &[(ExceptionId, JobId)],
        step: Option<&Step<'_>>,
    ) -> Result<Option<Vec<Redrive>>, DriverError> {
        Ok(self.with(|store| {
            if !store.step(step) {
                return None;
            }
            let answers: Vec<_> = rows.iter().map(|(row, new)| store.redrive(*row, *new)).collect();
            let counts = Counts::of_redrives(&answers);
            store.count_step(step, counts);
            Some(answers)
        }))
    }

    fn note_step(&self, step: &Step<'_>, counts: Counts) -> Result<bool, DriverError> {
        Ok(self.with(|store| {
            let stood = store.step(Some(step));
            if stood {
                store.count_step(Some(step), counts);
            }
            stood
        }))
    }

    fn begin_operation(&self, record: &OperationRecord) -> Result<OperationRow, DriverError> {
        Ok(self.with(|store| {
            let now = store.now;
            let new = || OperationRow::new(record.clone(), now);
            store.operations.entry(record.id).or_insert_with(new).clone()
        }))
    }

    fn operation(&self, id: OperationId) -> Result<Option<OperationRow>, DriverError> {
        Ok(self.with(|store| store.operations.get(&id).cloned()))
    }

    fn operations(
        &self,
        before: Option<OperationId>,
        limit: u32,
    ) -> Result<Vec<OperationRow>, DriverError> {
        Ok(self.with(|store| {
            let all = store.operations.iter().rev();
            let wanted = all.filter(|(id, _)| before.is_none_or(|before| **id < before));
            wanted.map(|(_, row)| row.clone()).take(limit as usize).collect()
        }))
    }

    fn cancels(&self, worker: WorkerId) -> Result<Vec<CancelOrder>, DriverError> {
        Ok(self.with(|store| {
            let order = |(id, reason): (&JobId, &String)| {
                let lease = store.leases.get(id).filter(|lease| lease.worker == worker)?;
                Some(CancelOrder { job: *id, claim: lease.claim, reason: reason.clone() })
            };
            store.cancels.iter().filter_map(order).collect()
        }))
    }

    fn open_cancels(&self, limit: u32) -> Result<Vec<(JobId, String)>, DriverError> {
        Ok(self.with(|store| {
            let open = store.cancels.iter().filter(|(id, _)| !store.leases.contains_key(id));
            open.map(|(id, reason)| (*id, reason.clone())).take(limit as usize).collect()
        }))
    }
}
