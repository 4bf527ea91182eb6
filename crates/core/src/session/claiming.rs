//! Claims jobs of one queue for a worker process.

use std::sync::Arc;

use crate::database::Database;
use crate::driver::{
    AbilityLease, ClaimRequest, ClaimedJob, Deadline, Driver, DriverError, Name, WorkerId,
};
use crate::observe::Event;
use crate::program::Program;
use crate::tools::time::{Instant, SystemTime};

/// Who claims, for what, and where.
pub(super) struct Claiming<'a> {
    pub(super) program: &'a Program,
    pub(super) worker: WorkerId,
    pub(super) abilities: &'a Arc<[AbilityLease]>,
    pub(super) database: &'a Arc<Database>,
    /// Whether no jobs has to mean that none was ready.
    pub(super) thorough: bool,
}

impl Claiming<'_> {
    /// Claims at most `limit` jobs under this number, by which the claim can be released. A server that gets to it
    /// after `deadline` leases nothing; an answer that comes when nobody waits for it any more is released.
    pub(super) fn claim(
        &self,
        queue: &Name,
        claim: i64,
        limit: u32,
        deadline: Instant,
    ) -> Result<Vec<ClaimedJob>, DriverError> {
        let (worker, abilities, thorough) =
            (self.worker, Arc::clone(self.abilities), self.thorough);
        let (asked, deadline) = (queue.clone(), Deadline::at(deadline));
        let ask = move |driver: &dyn Driver| {
            let (queue, abilities) = (&asked, &*abilities);
            driver.claim(&ClaimRequest {
                worker,
                claim,
                queue,
                abilities,
                limit,
                deadline,
                thorough,
            })
        };
        let late = move |driver: &dyn Driver, late: Result<Vec<ClaimedJob>, DriverError>| {
            if late.is_ok_and(|jobs| !jobs.is_empty())
                && let Err(error) = driver.release_claim(worker, claim)
            {
                log::warn!("a late claim could not be released: {error}");
            }
        };
        let begun = SystemTime::now();
        let jobs = self.database.ask_within(self.database.limit(), ask, Box::new(late))?;
        if !jobs.is_empty() {
            let (database, jobs) = (&*self.database.name, &jobs);
            self.program.tell(|| Event::Claimed { worker, database, queue, jobs, begun });
        }
        Ok(jobs)
    }
}
