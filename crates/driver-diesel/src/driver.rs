use std::collections::{HashMap, HashSet};
use std::time::Duration;

use qudo_core::driver::{
    ClaimRequest, ClaimedJob, Control, ControlFlag, CountRow, Depth, Driver, DriverError, Due,
    Exception, ExceptionFilter, Inserted, JobFilter, JobInfo, JobRecord, JobState, Promotion,
    Redrive, ReplyRow, Rescued, SchemaState, Settled, Settlement, StatusRow, Wake, WakeSource,
    WorkerId, WorkerInfo,
};
use qudo_hooks::JobId;
use uuid::Uuid;

use crate::engine::Engine;
use crate::migrate;
use crate::sql::SqlConn;
use crate::statements::{control, exception, lookup, schedule, settle, trace, worker};

/// The driver of one database on the engine `E`.
///
/// Made by the manager's builder from a data source name, through the engine's registration.
pub(crate) struct DieselDriver<E> {
    pub(crate) engine: E,
}

impl<E> std::fmt::Debug for DieselDriver<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DieselDriver")
    }
}

impl<E: Engine> DieselDriver<E> {
    pub(crate) fn write_transaction<T>(
        &self,
        mut act: impl FnMut(&mut E::Conn) -> diesel::QueryResult<T>,
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

    fn wake_source(&self) -> WakeSource {
        self.engine.wake_source()
    }

    fn reset(&self) {
        self.engine.reset();
    }

    fn probe(&self) -> Result<(), DriverError> {
        self.engine.probe()
    }

    fn schema(&self) -> Result<SchemaState, DriverError> {
        migrate::state(&self.engine)
    }

    fn migrate(&self) -> Result<Vec<String>, DriverError> {
        migrate::apply(&self.engine)
    }

    fn revert(&self) -> Result<Vec<String>, DriverError> {
        migrate::revert(&self.engine)
    }

    fn insert(&self, jobs: &[JobRecord]) -> Result<Vec<Inserted>, DriverError> {
        self.engine.check_size(jobs.iter().map(|job| job.arg.len()).max().unwrap_or_default())?;
        let (inserted, notified) = self.engine.insert_commit(jobs)?;
        if notified {
            return Ok(inserted);
        }
        let mut queues: Vec<&str> = jobs.iter().map(|job| job.queue.as_ref()).collect();
        queues.dedup();
        self.engine.notify(&mut queues.into_iter());
        Ok(inserted)
    }

    fn claim(&self, request: &ClaimRequest<'_>) -> Result<Vec<ClaimedJob>, DriverError> {
        if request.abilities.is_empty() || request.limit == 0 {
            return Ok(Vec::new());
        }
        let mut jobs = self.engine.claim(request)?;
        // A claim behind a cursor and one from the start together are in no order.
        jobs.sort_unstable_by_key(|job| (std::cmp::Reverse(job.priority), job.id));
        Ok(jobs)
    }

    fn release_claim(&self, worker: WorkerId, claim: i64) -> Result<usize, DriverError> {
        self.write_transaction(|conn| worker::give_back::<E>(conn, worker.as_uuid(), Some(claim)))
    }

    fn promote_due(&self, limit: u32) -> Result<Promotion, DriverError> {
        schedule::promote(&self.engine, limit)
    }

    fn settle(
        &self,
        worker: WorkerId,
        settlements: &[Settlement],
    ) -> Result<Vec<Settled>, DriverError> {
        if settle::is_plain(settlements) {
            let ids: Vec<_> = settlements.iter().map(|one| *one.job.id.as_uuid()).collect();
            let claims: Vec<_> = settlements.iter().map(|one| one.job.claim).collect();
            let held = self.engine.complete(worker.as_uuid(), &ids, &claims)?;
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
        let answers =
            self.engine.settle(|conn| settle::settle::<E>(conn, worker.as_uuid(), settlements))?;
        let replacements = settlements.iter().filter_map(|one| one.extras.as_ref());
        let mut queues: Vec<&str> = replacements
            .flat_map(|extras| extras.replacements.iter().map(|job| job.queue.as_ref()))
            .collect();
        queues.dedup();
        self.engine.notify(&mut queues.into_iter());
        Ok(answers)
    }

    fn heartbeat(&self, worker: &WorkerInfo) -> Result<bool, DriverError> {
        self.write_transaction(|conn| worker::heartbeat::<E>(conn, worker))
    }

    fn rescue(&self, dead_after: Duration, limit: u32) -> Result<Vec<Rescued>, DriverError> {
        self.write_transaction(|conn| worker::rescue::<E>(conn, dead_after, limit))
    }

    fn remove_worker(&self, worker: WorkerId) -> Result<usize, DriverError> {
        self.write_transaction(|conn| worker::remove_worker::<E>(conn, worker.as_uuid()))
    }

    fn workers(&self) -> Result<Vec<(WorkerInfo, Duration)>, DriverError> {
        self.engine.read(worker::workers::<E>)
    }

    fn lookup(&self, id: JobId) -> Result<Option<JobInfo>, DriverError> {
        self.engine.read(|conn| lookup::lookup::<E>(conn, id.as_uuid()))
    }

    fn state(&self, id: JobId) -> Result<Option<JobState>, DriverError> {
        self.engine.read(|conn| lookup::state::<E>(conn, id.as_uuid()))
    }

    fn holder(&self, ability: &str, uniqkey: &str) -> Result<Option<JobId>, DriverError> {
        let holder = self.engine.read(|conn| lookup::holder::<E>(conn, ability, uniqkey))?;
        Ok(holder.map(JobId::from_uuid))
    }

    fn list(&self, filter: &JobFilter) -> Result<Vec<JobInfo>, DriverError> {
        self.engine.read(|conn| lookup::list::<E>(conn, filter))
    }

    fn count(&self) -> Result<Vec<CountRow>, DriverError> {
        self.engine.read(lookup::count::<E>)
    }

    fn depth(&self, bound: u64) -> Result<Depth, DriverError> {
        self.engine.read(|conn| control::depth::<E>(conn, bound))
    }

    fn identity(&self) -> Result<String, DriverError> {
        self.engine.write(control::identity::<E>)
    }

    fn control(&self) -> Result<Control, DriverError> {
        self.engine.read(control::control::<E>)
    }

    fn set_control(&self, flag: ControlFlag, on: bool) -> Result<(), DriverError> {
        self.write_transaction(|conn| control::set_control::<E>(conn, flag, on))
    }

    fn dequeue(&self, id: JobId) -> Result<bool, DriverError> {
        self.write_transaction(|conn| schedule::dequeue::<E>(conn, id.as_uuid()))
    }

    fn reschedule(&self, id: JobId, due: Due) -> Result<bool, DriverError> {
        self.write_transaction(|conn| schedule::reschedule::<E>(conn, id.as_uuid(), due))
    }

    fn exceptions(&self, filter: &ExceptionFilter) -> Result<Vec<Exception>, DriverError> {
        self.engine.read(|conn| exception::exceptions::<E>(conn, filter))
    }

    fn redrive(&self, exception: Uuid, new: JobId) -> Result<Redrive, DriverError> {
        self.write_transaction(|conn| exception::redrive::<E>(conn, &exception, new))
    }

    fn status(&self, job: JobId) -> Result<Vec<StatusRow>, DriverError> {
        self.engine.read(|conn| trace::status::<E>(conn, job.as_uuid()))
    }

    fn replies(&self, job: JobId) -> Result<Vec<ReplyRow>, DriverError> {
        self.engine.read(|conn| trace::replies::<E>(conn, job.as_uuid()))
    }

    fn purge(&self, replies: Duration, status: Duration, limit: u32) -> Result<usize, DriverError> {
        self.write_transaction(|conn| trace::purge::<E>(conn, replies, status, limit))
    }

    fn changed(&self, queues: &[&str]) -> Result<bool, DriverError> {
        self.engine.changed(queues)
    }

    fn listen(&self, on_wake: &mut dyn FnMut(Wake) -> bool) -> Result<(), DriverError> {
        self.engine.listen(on_wake)
    }
}
