use std::cmp::Reverse;

use qudo_hooks::JobId;

use super::{
    Bounded, CountRow, Depth, DriverError, Exception, ExceptionFilter, Head, JobFilter, JobInfo,
    JobState, Remains, StatusRow,
};

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

    /// Live jobs by filter, in the order of their ids.
    fn list(&self, filter: &JobFilter) -> Result<Vec<JobInfo>, DriverError>;

    /// Live jobs counted by queue, ability and state.
    fn count(&self) -> Result<Vec<CountRow>, DriverError>;

    /// What waits at the heads of the queues: of the first `queues` queues, the abilities of the first `rows` ready jobs
    /// in the order of the claim. Jobs that no worker takes gather there. By default a look at the first live jobs.
    fn heads(&self, queues: u32, rows: u32) -> Result<Vec<Head>, DriverError> {
        let filter = JobFilter { limit: queues.saturating_mul(rows), ..JobFilter::default() };
        let mut heads: Vec<Head> = Vec::new();
        for job in self.list(&filter)?.into_iter().filter(|job| job.state == JobState::Ready) {
            let (queue, ability) = (job.facts.queue.to_string(), job.facts.ability.to_string());
            let known = heads.iter_mut().find(|one| one.queue == queue && one.ability == ability);
            match known {
                Some(head) => head.count += 1,
                None => heads.push(Head { queue, ability, count: 1 }),
            }
        }
        Ok(heads)
    }

    /// How many ready jobs of the queue of a waiting job a claim takes before it, counted up to `bound`: those of a
    /// higher priority, and those of the same priority with a smaller id. By default counted among the first
    /// `bound` live jobs of the queue.
    fn ahead(&self, job: &JobInfo, bound: u64) -> Result<Bounded, DriverError> {
        let limit = u32::try_from(bound).unwrap_or(u32::MAX);
        let queue = Some(job.facts.queue.to_string());
        let listed = self.list(&JobFilter { queue, limit, ..JobFilter::default() })?;
        let rank = |one: &JobInfo| (Reverse(one.facts.priority), one.id);
        let before =
            listed.iter().filter(|one| one.state == JobState::Ready && rank(one) < rank(job));
        let more = listed.len() as u64 >= bound;
        Ok(Bounded { count: before.count() as u64, more })
    }

    /// How many live jobs there are, each number counted up to `bound`.
    fn depth(&self, bound: u64) -> Result<Depth, DriverError>;

    /// The exception log, newest first.
    fn exceptions(&self, filter: &ExceptionFilter) -> Result<Vec<Exception>, DriverError>;

    /// The history of a job whose ability asks for it, oldest first.
    fn status(&self, job: JobId) -> Result<Vec<StatusRow>, DriverError>;

    /// What a job that is no longer live left: its replies, or how it ended without being run to its end. Nothing
    /// for a job that completed without a reply.
    fn remains(&self, job: JobId) -> Result<Remains, DriverError>;
}
