use qudo_hooks::JobId;
use uuid::Uuid;

use super::MemoryDriver;
use super::store::{Facts, Moving, Store};
use crate::driver::{DriverError, Due, Inserted, JobRecord, Leg, Moves, MovingJob, Trail};

impl Moves for MemoryDriver {
    fn move_out(
        &self,
        to: &str,
        only: Option<&[JobId]>,
        limit: u32,
    ) -> Result<Vec<MovingJob>, DriverError> {
        Ok(self.with(|store| store.move_out(to, only, limit as usize)))
    }

    fn moving_out(
        &self,
        to: &str,
        after: JobId,
        limit: u32,
    ) -> Result<Vec<MovingJob>, DriverError> {
        Ok(self.with(|store| {
            let ids = store.marked(Leg::Leaving, to, after, limit);
            ids.into_iter().filter_map(|(id, _)| store.moving_job(id)).collect()
        }))
    }

    fn move_in(
        &self,
        from: &str,
        mover: Uuid,
        jobs: &[MovingJob],
    ) -> Result<Vec<Inserted>, DriverError> {
        Ok(self.with(|store| jobs.iter().map(|job| store.move_in(from, mover, job)).collect()))
    }

    fn moved_out(&self, jobs: &[JobId]) -> Result<Vec<JobId>, DriverError> {
        Ok(self.with(|store| jobs.iter().copied().filter(|id| store.moved_out(*id)).collect()))
    }

    fn moved_in(&self, jobs: &[JobId]) -> Result<usize, DriverError> {
        Ok(self.with(|store| jobs.iter().filter(|id| store.put_back(**id, Leg::Arriving)).count()))
    }

    fn leave_trail(&self, jobs: &[JobId]) -> Result<(), DriverError> {
        self.with(|store| {
            for id in jobs {
                if let Some(row) = store.moving.remove(&(*id, Leg::Left)) {
                    // It tells when the job went, however much later its move was ended.
                    store.moving.insert((*id, Leg::Gone), row);
                }
            }
        });
        Ok(())
    }

    fn trail(&self, job: JobId) -> Result<Option<Trail>, DriverError> {
        Ok(self.with(|store| {
            let went = [Leg::Left, Leg::Gone].into_iter();
            let went = went.filter_map(|leg| store.moving.get(&(job, leg)));
            // Only what left by itself has no mover: a copy that was taken back says nothing of the job's life.
            let went = went.map(|row| (row.at, Some(row.other.clone()), !row.mover.is_nil()));
            let came = store.moving.get(&(job, Leg::Arrived)).map(|row| (row.at, None, false));
            // Of two at one time the one away from here, which sorts last.
            let (at, to, was_copy) = went.chain(came).max()?;
            let age = (store.now - at).to_std().unwrap_or_default();
            Some(Trail { to, age: (!was_copy).then_some(age) })
        }))
    }

    fn move_back(&self, jobs: &[JobId]) -> Result<usize, DriverError> {
        Ok(self.with(|store| jobs.iter().filter(|id| store.put_back(**id, Leg::Leaving)).count()))
    }

    fn legs(&self, jobs: &[JobId]) -> Result<Vec<(JobId, Leg)>, DriverError> {
        Ok(self.with(|store| {
            let leg = |id: &JobId| {
                let mut legs = [Leg::Leaving, Leg::Left].into_iter();
                legs.find(|leg| store.moving.contains_key(&(*id, *leg))).map(|leg| (*id, leg))
            };
            jobs.iter().filter_map(leg).collect()
        }))
    }

    fn left_for(&self, to: &str, after: JobId, limit: u32) -> Result<Vec<JobId>, DriverError> {
        let marked = self.with(|store| store.marked(Leg::Left, to, after, limit));
        Ok(marked.into_iter().map(|(id, _)| id).collect())
    }

    fn moving_in(
        &self,
        from: &str,
        after: JobId,
        limit: u32,
    ) -> Result<Vec<(JobId, Uuid)>, DriverError> {
        Ok(self.with(|store| store.marked(Leg::Arriving, from, after, limit)))
    }

    fn cancel_move_in(&self, mover: Uuid, jobs: &[JobId]) -> Result<usize, DriverError> {
        Ok(self.with(|store| jobs.iter().filter(|id| store.cancel(mover, **id)).count()))
    }
}

impl Store {
    fn move_out(&mut self, to: &str, only: Option<&[JobId]>, limit: usize) -> Vec<MovingJob> {
        let ready = self.ready.iter().map(|((_, _, id), stand)| (*id, *stand, Due::Now));
        let scheduled = self.scheduled.iter().map(|((at, id), stand)| (*id, *stand, Due::At(*at)));
        let wanted = |id: &JobId| only.is_none_or(|only| only.contains(id));
        let picked: Vec<_> =
            ready.chain(scheduled).filter(|(id, ..)| wanted(id)).take(limit).collect();
        let at = self.now;
        for (id, stand, due) in &picked {
            self.ready.retain(|(_, _, other), _| other != id);
            self.scheduled.retain(|(_, other), _| other != id);
            let row =
                Moving { other: to.to_owned(), mover: Uuid::nil(), stand: *stand, due: *due, at };
            self.moving.insert((*id, Leg::Leaving), row);
        }
        picked.into_iter().filter_map(|(id, ..)| self.moving_job(id)).collect()
    }

    fn moving_job(&self, id: JobId) -> Option<MovingJob> {
        let (row, facts) = (self.moving.get(&(id, Leg::Leaving))?, self.jobs.get(&id)?);
        Some(MovingJob {
            record: JobRecord { due: row.due, ..facts.record.clone() },
            attempt: row.stand.attempt,
            crashes: row.stand.crashes,
            flags: row.stand.flags,
            enqueued_at: facts.enqueued_at,
        })
    }

    fn marked(&self, leg: Leg, other: &str, after: JobId, limit: u32) -> Vec<(JobId, Uuid)> {
        self.moving
            .iter()
            .filter(|((id, is), row)| *is == leg && row.other == other && *id > after)
            .map(|((id, _), row)| (*id, row.mover))
            .take(limit as usize)
            .collect()
    }

    fn move_in(&mut self, from: &str, mover: Uuid, job: &MovingJob) -> Inserted {
        let record = &job.record;
        if self.moving.contains_key(&(record.id, Leg::Arrived)) {
            return Inserted::New;
        }
        if self.jobs.contains_key(&record.id) {
            if let Some(row) = self.moving.get_mut(&(record.id, Leg::Arriving)) {
                row.mover = mover;
            }
            return Inserted::New;
        }
        if let Some(key) = &record.facts.uniqkey {
            let key = (record.facts.ability.to_string(), key.clone());
            if let Some(holder) = self.unique.get(&key) {
                return Inserted::Existing(*holder);
            }
            self.unique.insert(key, record.id);
        }
        let facts = Facts { record: record.clone(), enqueued_at: job.enqueued_at };
        self.jobs.insert(record.id, facts);
        let (attempt, crashes) = (job.attempt, job.crashes);
        let flags = job.flags.with(record.facts.flags());
        let stand = super::store::Stand { attempt, crashes, flags };
        let row = Moving { other: from.to_owned(), mover, stand, due: record.due, at: self.now };
        self.moving.insert((record.id, Leg::Arriving), row);
        Inserted::New
    }

    fn moved_out(&mut self, id: JobId) -> bool {
        if let Some(row) = self.moving.remove(&(id, Leg::Leaving)) {
            self.remove(id);
            self.moving.remove(&(id, Leg::Arrived));
            self.moving.insert((id, Leg::Left), row);
            return true;
        }
        self.moving.contains_key(&(id, Leg::Left))
    }

    fn put_back(&mut self, id: JobId, leg: Leg) -> bool {
        let Some(row) = self.moving.remove(&(id, leg)) else { return false };
        self.place(id, row.due, row.stand);
        if leg == Leg::Arriving {
            self.moving.insert((id, Leg::Arrived), Moving { at: self.now, ..row });
        }
        true
    }

    fn cancel(&mut self, mover: Uuid, id: JobId) -> bool {
        let ours = self.moving.get(&(id, Leg::Arriving)).is_some_and(|row| row.mover == mover);
        if ours && let Some(row) = self.moving.remove(&(id, Leg::Arriving)) {
            self.remove(id);
            // Who saw the job here is to find it there, unless it went on from here before.
            let trail = Moving { at: self.now, ..row };
            self.moving.entry((id, Leg::Gone)).or_insert(trail);
        }
        ours
    }
}
