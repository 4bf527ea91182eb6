use std::cmp::Reverse;

use qudo_hooks::JobId;

use super::{
    Ages, Bounded, CountRow, Depth, DriverError, Exception, ExceptionScan, Head, JobInfo, JobScan,
    JobState, Past, Pause, Place, PlacedJob, Remains, StatRow, StatScan, StatusRow, StatusScan,
};

use crate::tools::time::utc_now;

/// Questions. Nothing is written.
///
/// # Errors
///
/// When the database does not answer.
#[expect(clippy::missing_errors_doc, reason = "said once for all")]
pub trait Inspect {
    /// A live job by id.
    fn lookup(&self, id: JobId) -> Result<Option<JobInfo>, DriverError>;

    /// Where a live job stands; `None` when it is not live. Reads no facts.
    fn state(&self, id: JobId) -> Result<Option<JobState>, DriverError>;

    /// Which of these jobs are live, in any order: for callers that wait for many jobs. One question if the
    /// driver can ask so; by default one question for each job.
    fn live(&self, ids: &[JobId]) -> Result<Vec<JobId>, DriverError> {
        let mut live = Vec::with_capacity(ids.len());
        for id in ids {
            if self.state(*id)?.is_some() {
                live.push(*id);
            }
        }
        Ok(live)
    }

    /// The live job that holds a unique key.
    fn holder(&self, ability: &str, uniqkey: &str) -> Result<Option<JobId>, DriverError>;

    /// Those of these jobs that live, in any order; without their arguments, which are then empty, unless they
    /// are asked for.
    fn jobs(&self, ids: &[JobId], args: bool) -> Result<Vec<JobInfo>, DriverError>;

    /// Rows of a narrow table in the order of its key, without the facts of their jobs.
    fn scan_jobs(&self, scan: &JobScan<'_>) -> Result<Vec<PlacedJob>, DriverError>;

    /// Live jobs counted by queue, ability and state.
    fn count(&self) -> Result<Vec<CountRow>, DriverError>;

    /// What waits at the heads of the queues: of the first `queues` queues, the abilities of the first `rows` ready jobs
    /// in the order of the claim. Jobs that no worker takes gather there. By default a look at the first ready jobs of all.
    fn heads(&self, queues: u32, rows: u32) -> Result<Vec<Head>, DriverError> {
        let limit = queues.saturating_mul(rows);
        let ready = JobScan { place: Place::Ready, queue: None, after: None, limit };
        let mut heads: Vec<Head> = Vec::new();
        for job in self.scan_jobs(&ready)? {
            let (queue, ability) = (job.queue.to_string(), job.ability.to_string());
            let known = heads.iter_mut().find(|one| one.queue == queue && one.ability == ability);
            match known {
                Some(head) => head.count += 1,
                None => heads.push(Head { queue, ability, count: 1 }),
            }
        }
        Ok(heads)
    }

    /// How many ready jobs of the queue of a waiting job a claim takes before it, counted up to `bound`: those of a
    /// higher priority, and those of the same priority with a smaller id. By default the first ready jobs are read.
    fn ahead(&self, job: &JobInfo, bound: u64) -> Result<Bounded, DriverError> {
        let limit = u32::try_from(bound.saturating_add(1)).unwrap_or(u32::MAX);
        let queue = Some(&*job.facts.queue);
        let ready = JobScan { place: Place::Ready, queue, after: None, limit };
        let rank = (Reverse(job.facts.priority), job.id);
        let listed = self.scan_jobs(&ready)?;
        let before = listed.iter().filter(|one| (Reverse(one.priority), one.at.id()) < rank);
        Ok(Bounded::new(before.count() as u64, bound))
    }

    /// How long the work has waited. By default a look at the first ready jobs and leases, by this machine's clock, as if each
    /// were ready since it was enqueued. Jobs of queues and abilities that are paused do not count: they are to wait.
    fn ages(&self, pauses: &[Pause]) -> Result<Ages, DriverError> {
        const LOOK: u32 = 1_000;
        let first =
            |place| self.scan_jobs(&JobScan { place, queue: None, after: None, limit: LOOK });
        let now = utc_now();
        let since = |at| now.signed_duration_since(at).to_std().ok();
        let is_open = |job: &PlacedJob| Pause::among(pauses, &job.queue, &job.ability).is_none();
        let ready = first(Place::Ready)?;
        let ids: Vec<_> = ready.iter().filter(|job| is_open(job)).map(|job| job.at.id()).collect();
        let ready = self.jobs(&ids, false)?.iter().map(|job| job.enqueued_at).min();
        let ends = first(Place::Leased)?.into_iter().filter_map(|job| match job.state {
            JobState::Running { until, .. } => Some(until),
            _ => None,
        });
        Ok(Ages::new(ready.map(|at| since(at).unwrap_or_default()), ends.min().and_then(since)))
    }

    /// Numbers of runs, in the order of their time, queue and ability. By default there are none.
    fn stats(&self, scan: &StatScan) -> Result<Vec<StatRow>, DriverError> {
        let _ = scan;
        Ok(Vec::new())
    }

    /// How many live jobs there are, each number counted up to `bound`.
    fn depth(&self, bound: u64) -> Result<Depth, DriverError>;

    /// Rows of the exception log, newest first.
    fn scan_exceptions(&self, scan: &ExceptionScan) -> Result<Vec<Exception>, DriverError>;

    /// Rows of the job status, newest first.
    fn scan_status(&self, scan: &StatusScan) -> Result<Vec<StatusRow>, DriverError>;

    /// How many rows a table of what has been has, counted up to `bound`.
    fn count_past(&self, of: Past, bound: u64) -> Result<Bounded, DriverError>;

    /// The job status of a job, oldest first.
    fn status(&self, job: JobId) -> Result<Vec<StatusRow>, DriverError>;

    /// What a job that is no longer live left: its replies, or how it ended without being run to its end. Nothing
    /// for a job that completed without a reply.
    fn remains(&self, job: JobId) -> Result<Remains, DriverError>;
}
