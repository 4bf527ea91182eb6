use std::collections::HashSet;

use diesel::result::QueryResult;
use qudo_core::driver::{
    Act, Acted, CancelOrder, Counts, DriverError, ErrorKind, ExceptionId, Operate, OperationId,
    OperationRecord, OperationRow, Redrive, Step, WorkerId,
};
use qudo_hooks::JobId;
use uuid::Uuid;

use crate::driver::DieselDriver;
use crate::engine::Engine;
use crate::sql::Sql;
use crate::statements::act::{self, Answers};
use crate::statements::{cancel, exception, lookup, operation};

impl<E: Engine> DieselDriver<E> {
    /// A transaction of an operation's step: `None` where the operation does not stand where the step begins.
    fn stepped<T>(
        &self,
        step: Option<&Step<'_>>,
        there: impl Fn(&mut Sql<'_, E::Conn>, &T) -> QueryResult<bool>,
        mut act: impl FnMut(&mut Sql<'_, E::Conn>) -> QueryResult<(T, Counts)>,
    ) -> Result<Option<T>, DriverError> {
        let there = |conn: &mut Sql<'_, E::Conn>, done: &Option<T>| match (step, done) {
            (_, None) => Ok(true),
            // That the operation stands there may be another's doing: the commit itself is looked for.
            (Some(_), Some(_)) => Ok(false),
            (None, Some(done)) => there(conn, done),
        };
        self.write_that_stands(there, |conn| {
            if let Some(step) = step
                && !operation::step::<E>(conn, step)?
            {
                return Ok(None);
            }
            let (done, counts) = act(conn)?;
            if let Some(step) = step {
                operation::count::<E>(conn, step, counts)?;
            }
            Ok(Some(done))
        })
    }
}

impl<E: Engine> Operate for DieselDriver<E> {
    fn act(
        &self,
        act: &Act,
        jobs: &[JobId],
        step: Option<&Step<'_>>,
    ) -> Result<Option<Vec<Acted>>, DriverError> {
        let mut ids: Vec<_> = jobs.iter().map(|id| *id.as_uuid()).collect();
        ids.sort_unstable();
        ids.dedup();
        // To change a job twice is to change it once; one that was removed is to be gone.
        let removed = |conn: &mut Sql<'_, E::Conn>, answers: &Answers| {
            let mut done = answers.of.iter().filter(|(_, acted)| **acted == Acted::Done);
            match (act, done.next()) {
                (_, None) if !answers.ordered => Ok(true),
                (Act::Remove(_), Some((id, _))) => Ok(lookup::state::<E>(conn, id)?.is_none()),
                _ => Ok(false),
            }
        };
        let done = self.stepped(step, removed, |conn| {
            let answers = act::act::<E>(conn, act, &ids)?;
            let counts = Counts::of(answers.of.values());
            Ok((answers, counts))
        })?;
        Ok(done.map(|Answers { of, queues, ordered }| {
            self.tell(&queues);
            if ordered {
                self.engine.notify_orders();
            }
            act::in_order(&of, jobs)
        }))
    }

    fn redrive_each(
        &self,
        rows: &[(ExceptionId, JobId)],
        step: Option<&Step<'_>>,
    ) -> Result<Option<Vec<Redrive>>, DriverError> {
        let noted = |conn: &mut Sql<'_, E::Conn>, (answers, _): &(Vec<Redrive>, Vec<String>)| {
            let new: HashSet<Uuid> = answers
                .iter()
                .filter_map(|one| match one {
                    Redrive::Enqueued(new) => Some(*new.as_uuid()),
                    _ => None,
                })
                .collect();
            let row = rows.iter().find(|(_, job)| new.contains(job.as_uuid()));
            match row {
                Some((row, new)) => exception::is_redriven_as::<E>(conn, row.as_uuid(), *new),
                None => Ok(true),
            }
        };
        let done = self.stepped(step, noted, |conn| {
            let (answers, queues) = exception::redrive::<E>(conn, rows)?;
            let counts = Counts::of_redrives(&answers);
            Ok(((answers, queues), counts))
        })?;
        Ok(done.map(|(answers, queues)| {
            self.tell(&queues);
            answers
        }))
    }

    fn note_step(&self, step: &Step<'_>, counts: Counts) -> Result<bool, DriverError> {
        let noted = self.stepped(Some(step), |_, ()| Ok(true), |_| Ok(((), counts)))?;
        Ok(noted.is_some())
    }

    fn begin_operation(&self, record: &OperationRecord) -> Result<OperationRow, DriverError> {
        let there = |conn: &mut Sql<'_, E::Conn>, _: &Option<OperationRow>| {
            Ok(operation::operation::<E>(conn, record.id.as_uuid())?.is_some())
        };
        let row = self.write_that_stands(there, |conn| operation::begin::<E>(conn, record))?;
        let lost = || DriverError::new(ErrorKind::Other, "a stored operation is not there");
        row.ok_or_else(lost)
    }

    fn operation(&self, id: OperationId) -> Result<Option<OperationRow>, DriverError> {
        self.engine.read(|conn| operation::operation::<E>(conn, id.as_uuid()))
    }

    fn operations(
        &self,
        before: Option<OperationId>,
        limit: u32,
    ) -> Result<Vec<OperationRow>, DriverError> {
        self.engine.read(|conn| operation::operations::<E>(conn, before, limit))
    }

    fn cancels(&self, worker: WorkerId) -> Result<Vec<CancelOrder>, DriverError> {
        self.engine.read(|conn| cancel::cancels::<E>(conn, worker.as_uuid()))
    }

    fn open_cancels(&self, limit: u32) -> Result<Vec<(JobId, String)>, DriverError> {
        self.engine.read(|conn| cancel::open_cancels::<E>(conn, limit))
    }
}
