use qudo_core::driver::{Arrival, Departure, DriverError, Leg, Moves, MovingJob, Trail};
use qudo_hooks::JobId;
use uuid::Uuid;

use crate::bulk::Keyed;
use crate::classify::{Class, classify};
use crate::driver::DieselDriver;
use crate::engine::Engine;
use crate::sql::Sql;
use crate::statements::moving;

impl<E: Engine> Moves for DieselDriver<E> {
    fn move_out(
        &self,
        to: &str,
        departure: Uuid,
        only: Option<&[JobId]>,
        limit: u32,
    ) -> Result<Vec<MovingJob>, DriverError> {
        self.write_transaction(|conn| moving::move_out::<E>(conn, to, departure, only, limit))
    }

    fn moving_out(
        &self,
        to: &str,
        after: JobId,
        limit: u32,
    ) -> Result<Vec<MovingJob>, DriverError> {
        self.engine.read(|conn| moving::moving_out::<E>(conn, to, after.as_uuid(), limit))
    }

    fn move_in(&self, from: &str, jobs: &[MovingJob]) -> Result<Vec<Arrival>, DriverError> {
        self.engine
            .check_size(jobs.iter().map(|job| job.record.facts.size()).max().unwrap_or(0))?;
        self.engine.write(|conn| {
            let mut move_in = || conn.transaction(|conn| moving::move_in::<E>(conn, from, jobs));
            let answers = match move_in() {
                // Another mover brought one of them at this moment; now it is seen.
                Err(error) if classify(&error) == Class::Unique => move_in(),
                other => other,
            }?;
            // The other database is about to remove them.
            let new = jobs.iter().zip(&answers).filter(|(_, answer)| **answer == Arrival::Here);
            let ids: Vec<_> = new.map(|(job, _)| *job.record.id.as_uuid()).collect();
            let tables = [Keyed::table("qudo_job"), moving::at(Leg::Arrived)];
            self.engine.confirm(conn, &tables, &ids)?;
            Ok(answers)
        })
    }

    fn moved_out(&self, jobs: &[Departure]) -> Result<Vec<Departure>, DriverError> {
        let mut left = Vec::new();
        self.engine.write(|conn| {
            left = conn.transaction(|conn| moving::moved_out::<E>(conn, jobs))?;
            // From here on the job is in the other database only: it must not come back here.
            let ids: Vec<_> = left.iter().map(|one| *one.job.as_uuid()).collect();
            let marks = [moving::at(Leg::Left), moving::at(Leg::Gone)];
            self.engine.confirm(conn, &marks, &ids)
        })?;
        Ok(left)
    }

    fn moved_in(&self, jobs: &[Departure]) -> Result<usize, DriverError> {
        let mut most = 0;
        self.engine.write(|conn| {
            let put = conn.transaction(|conn| moving::put_back::<E>(conn, Leg::Arriving, jobs))?;
            most = most.max(put.len());
            // The other database is about to forget them. One that left again meanwhile has no mark any
            // more: the repetition then finds nothing to do.
            self.engine.confirm(conn, &[moving::at(Leg::Arrived)], &put)
        })?;
        Ok(most)
    }

    fn leave_trail(&self, jobs: &[Departure]) -> Result<(), DriverError> {
        self.write_transaction(|conn| moving::leave_trail::<E>(conn, jobs))
    }

    fn trail(&self, job: JobId) -> Result<Option<Trail>, DriverError> {
        self.engine.read(|conn| moving::trail::<E>(conn, job.as_uuid()))
    }

    fn move_back(&self, jobs: &[Departure]) -> Result<usize, DriverError> {
        let put_back =
            |conn: &mut Sql<'_, E::Conn>| moving::put_back::<E>(conn, Leg::Leaving, jobs);
        Ok(self.write_transaction(put_back)?.len())
    }

    fn legs(&self, jobs: &[JobId]) -> Result<Vec<(Departure, Leg)>, DriverError> {
        self.engine.read(|conn| moving::legs::<E>(conn, jobs))
    }

    fn left_for(&self, to: &str, after: JobId, limit: u32) -> Result<Vec<Departure>, DriverError> {
        let of_leg = |conn: &mut Sql<'_, E::Conn>| {
            moving::of_leg::<E>(conn, Leg::Left, to, after.as_uuid(), limit)
        };
        self.engine.read(of_leg)
    }

    fn moving_in(
        &self,
        from: &str,
        after: JobId,
        limit: u32,
    ) -> Result<Vec<Departure>, DriverError> {
        self.engine
            .read(|conn| moving::of_leg::<E>(conn, Leg::Arriving, from, after.as_uuid(), limit))
    }

    fn cancel_move_in(&self, jobs: &[Departure]) -> Result<usize, DriverError> {
        self.write_transaction(|conn| moving::cancel::<E>(conn, jobs))
    }
}
