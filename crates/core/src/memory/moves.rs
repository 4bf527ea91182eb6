use qudo_hooks::JobId;
use uuid::Uuid;

use super::MemoryDriver;
use super::store::{Facts, Moving, Store};
use crate::driver::{
    Arrival, Departure, DriverError, Due, JobRecord, Leg, Moves, MovingJob, Trail,
};

impl Moves for MemoryDriver {
    fn move_out(
        &self,
        to: &str,
        departure: Uuid,
        only: Option<&[JobId]>,
        limit: u32,
    ) -> Result<Vec<MovingJob>, DriverError> {
        Ok(self.with(|store| store.move_out(to, departure, only, limit as usize)))
    }

    fn moving_out(
        &self,
        to: &str,
        after: JobId,
        limit: u32,
    ) -> Result<Vec<MovingJob>, DriverError> {
        Ok(self.with(|store| {
            let marked = store.marked(Leg::Leaving, to, after, limit);
            marked.into_iter().filter_map(|one| store.moving_job(one.job)).collect()
        }))
    }

    fn move_in(&self, from: &str, jobs: &[MovingJob]) -> Result<Vec<Arrival>, DriverError> {
        Ok(self.with(|store| jobs.iter().map(|job| store.move_in(from, job)).collect()))
    }

    fn moved_out(&self, jobs: &[Departure]) -> Result<Vec<Departure>, DriverError> {
        Ok(self.with(|store| jobs.iter().copied().filter(|one| store.moved_out(*one)).collect()))
    }

    fn moved_in(&self, jobs: &[Departure]) -> Result<usize, DriverError> {
        Ok(self
            .with(|store| jobs.iter().filter(|one| store.put_back(**one, Leg::Arriving)).count()))
    }

    fn leave_trail(&self, jobs: &[Departure]) -> Result<(), DriverError> {
        self.with(|store| {
            for one in jobs {
                if let Some(row) = store.take_moving(*one, Leg::Left) {
                    // It tells when the job went, however much later its move was ended.
                    store.moving.insert((one.job, Leg::Gone), row);
                }
            }
        });
        Ok(())
    }

    fn trail(&self, job: JobId) -> Result<Option<Trail>, DriverError> {
        Ok(self.with(|store| {
            let row = |leg| store.moving.get(&(job, leg));
            let age = |row: &Moving| (store.now - row.at).to_std().unwrap_or_default();
            let went = [Leg::Left, Leg::Gone].into_iter().filter_map(row);
            let went = went.map(|row| (row.at, Some(row.other.clone()), age(row)));
            let came = row(Leg::Arrived).map(|row| (row.at, None, age(row)));
            // Of two at one time the one away from here, which sorts last.
            if let Some((_, to, age)) = went.chain(came).max() {
                return Some(Trail { to, age: Some(age) });
            }
            row(Leg::Cancelled).map(|row| Trail { to: Some(row.other.clone()), age: None })
        }))
    }

    fn move_back(&self, jobs: &[Departure]) -> Result<usize, DriverError> {
        Ok(self.with(|store| jobs.iter().filter(|one| store.put_back(**one, Leg::Leaving)).count()))
    }

    fn legs(&self, jobs: &[JobId]) -> Result<Vec<(Departure, Leg)>, DriverError> {
        Ok(self.with(|store| {
            let mark = |job: JobId| {
                let of = |leg| store.moving.get(&(job, leg)).map(|row| (row.departed(job), leg));
                of(Leg::Leaving).or_else(|| of(Leg::Left))
            };
            jobs.iter().copied().filter_map(mark).collect()
        }))
    }

    fn left_for(&self, to: &str, after: JobId, limit: u32) -> Result<Vec<Departure>, DriverError> {
        Ok(self.with(|store| store.marked(Leg::Left, to, after, limit)))
    }

    fn moving_in(
        &self,
        from: &str,
        after: JobId,
        limit: u32,
    ) -> Result<Vec<Departure>, DriverError> {
        Ok(self.with(|store| store.marked(Leg::Arriving, from, after, limit)))
    }

    fn cancel_move_in(&self, jobs: &[Departure]) -> Result<usize, DriverError> {
        Ok(self.with(|store| jobs.iter().filter(|one| store.cancel(**one)).count()))
    }
}

impl Moving {
    fn departed(&self, job: JobId) -> Departure {
        Departure { job, id: self.departure }
    }
}

impl Store {
    fn move_out(
        &mut self,
        to: &str,
        departure: Uuid,
        only: Option<&[JobId]>,
        limit: usize,
    ) -> Vec<MovingJob> {
        let ready = self.ready.iter().map(|((_, _, id), stand)| (*id, *stand, Due::Now));
        let scheduled = self.scheduled.iter().map(|((at, id), stand)| (*id, *stand, Due::At(*at)));
        let wanted = |id: &JobId| {
            only.is_none_or(|only| only.contains(id)) && !self.cancels.contains_key(id)
        };
        let picked: Vec<_> =
            ready.chain(scheduled).filter(|(id, ..)| wanted(id)).take(limit).collect();
        let at = self.now;
        for (id, stand, due) in &picked {
            self.ready.retain(|(_, _, other), _| other != id);
            self.scheduled.retain(|(_, other), _| other != id);
            let row = Moving { other: to.to_owned(), departure, stand: *stand, due: *due, at };
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
            departure: row.departure,
        })
    }

    fn marked(&self, leg: Leg, other: &str, after: JobId, limit: u32) -> Vec<Departure> {
        self.moving
            .iter()
            .filter(|((id, is), row)| *is == leg && row.other == other && *id > after)
            .map(|((id, _), row)| row.departed(*id))
            .take(limit as usize)
            .collect()
    }

    /// The row of this leg, if it is of this departure, taken out.
    fn take_moving(&mut self, one: Departure, leg: Leg) -> Option<Moving> {
        let key = (one.job, leg);
        let ours = self.moving.get(&key).is_some_and(|row| row.departure == one.id);
        if ours { self.moving.remove(&key) } else { None }
    }

    fn move_in(&mut self, from: &str, job: &MovingJob) -> Arrival {
        let (record, departure) = (&job.record, job.departure);
        let of = |leg| self.moving.get(&(record.id, leg)).map(|row| row.departure);
        if of(Leg::Arrived) == Some(departure) {
            return Arrival::Here;
        }
        if of(Leg::Leaving).is_some() {
            return Arrival::Busy;
        }
        match of(Leg::Arriving) {
            Some(other) if other != departure => return Arrival::Busy,
            Some(_) => return Arrival::Here,
            None if self.jobs.contains_key(&record.id) => return Arrival::Here,
            None => {}
        }
        if let Some(key) = &record.facts.uniqkey {
            let key = (record.facts.ability.to_string(), key.clone());
            if let Some(holder) = self.unique.get(&key) {
                return Arrival::KeyHeld(*holder);
            }
            self.unique.insert(key, record.id);
        }
        let facts = Facts { record: record.clone(), enqueued_at: job.enqueued_at };
        self.jobs.insert(record.id, facts);
        let (attempt, crashes) = (job.attempt, job.crashes);
        let flags = job.flags.with(record.facts.flags());
        let ready_at = self.now;
        let stand = super::store::Stand { attempt, crashes, flags, ready_at };
        let row =
            Moving { other: from.to_owned(), departure, stand, due: record.due, at: self.now };
        self.moving.insert((record.id, Leg::Arriving), row);
        Arrival::Here
    }

    fn moved_out(&mut self, one: Departure) -> bool {
        if let Some(row) = self.take_moving(one, Leg::Leaving) {
            self.remove(one.job);
            self.moving.insert((one.job, Leg::Left), Moving { at: self.now, ..row });
            return true;
        }
        self.moving.get(&(one.job, Leg::Left)).is_some_and(|row| row.departure == one.id)
    }

    fn put_back(&mut self, one: Departure, leg: Leg) -> bool {
        let Some(row) = self.take_moving(one, leg) else { return false };
        self.place(one.job, row.due, row.stand);
        if leg == Leg::Arriving {
            self.moving.insert((one.job, Leg::Arrived), Moving { at: self.now, ..row });
        }
        true
    }

    fn cancel(&mut self, one: Departure) -> bool {
        let Some(row) = self.take_moving(one, Leg::Arriving) else { return false };
        self.remove(one.job);
        // Who saw the job here is to find where the copy came from.
        self.moving.insert((one.job, Leg::Cancelled), Moving { at: self.now, ..row });
        true
    }
}
