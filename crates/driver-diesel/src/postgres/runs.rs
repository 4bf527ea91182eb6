//! Jobs by the claims that they come from: most of a group that is settled follow on one another.

use qudo_core::driver::ClaimedJob;
use uuid::Uuid;

use crate::sql::Array;

/// A shorter run costs more by its ends than as a list: about 60 microseconds each, where a job of a list costs
/// one more than one of a run.
const MIN_RUN: usize = 64;

/// Ids as `qudo_take` and `qudo_remove` have them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    /// Those that are given one by one, in order, and their claims.
    listed: Vec<(Uuid, i64)>,
    /// Those of all runs.
    ids: Vec<Uuid>,
    lengths: Vec<i32>,
    claims: Vec<i64>,
}

impl Runs {
    pub(super) fn of<'a>(jobs: impl Iterator<Item = &'a ClaimedJob>) -> Self {
        let mut places: Vec<(i64, u32, Uuid)> =
            jobs.map(|job| (job.claim, job.ordinal, *job.id.as_uuid())).collect();
        places.sort_unstable();
        let mut runs = Self::default();
        let follow = |one: &(i64, u32, Uuid), next: &(i64, u32, Uuid)| {
            one.0 == next.0 && one.1 + 1 == next.1 && one.2 < next.2
        };
        for run in places.chunk_by(follow) {
            if run.len() < MIN_RUN {
                runs.listed.extend(run.iter().map(|(claim, _, id)| (*id, *claim)));
            } else {
                runs.ids.extend(run.iter().map(|(_, _, id)| *id));
                runs.lengths.push(i32::try_from(run.len()).unwrap_or(i32::MAX));
                runs.claims.push(run[0].0);
            }
        }
        runs.listed.sort_unstable();
        runs
    }

    /// The arguments of `qudo_take` behind the worker.
    pub(super) fn leases(&self) -> [Array<'static>; 5] {
        let [listed, ids, lengths] = self.facts();
        let claims = self.listed.iter().map(|(_, claim)| *claim).collect();
        [listed, Array::Bigs(claims), ids, lengths, Array::Bigs(self.claims.clone())]
    }

    /// The arguments of `qudo_remove`.
    pub(super) fn facts(&self) -> [Array<'static>; 3] {
        [
            Array::Ids(self.listed.iter().map(|(id, _)| *id).collect()),
            Array::Ids(self.ids.clone()),
            Array::Ints(self.lengths.clone()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use qudo_core::driver::{Flags, JobFacts};
    use qudo_hooks::JobId;

    use super::*;

    fn job(claim: i64, ordinal: u32) -> ClaimedJob {
        let id = u128::from(ordinal) * 10 + u128::from(claim.unsigned_abs());
        ClaimedJob {
            id: JobId::from_uuid(Uuid::from_u128(id)),
            claim,
            ordinal,
            attempt: 1,
            crashes: 0,
            flags: Flags::NONE,
            facts: JobFacts::new("a", "q", "json", Vec::new()),
            enqueued_at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn jobs_that_follow_on_one_another_in_their_claim_are_a_run() {
        let most = MIN_RUN as u32;
        let (long, gap, short) = (0..most + 5, most + 5, most + 6..most + 9);
        let mut jobs: Vec<_> = long.clone().chain(short.clone()).map(|at| job(1, at)).collect();
        jobs.extend((0..most).map(|at| job(2, at)));
        jobs.reverse();
        let runs = Runs::of(jobs.iter());
        assert_eq!(runs.lengths, [most as i32 + 5, most as i32]);
        assert_eq!(runs.claims, [1, 2]);
        assert_eq!(runs.listed.len(), 3, "the job at {gap} is not of the group");
        assert!(runs.listed.is_sorted());
        assert_eq!(runs.ids.len(), 2 * MIN_RUN + 5);
    }

    #[test]
    fn jobs_that_say_nothing_of_their_order_are_listed() {
        let mut jobs: Vec<_> = (0..2 * MIN_RUN as u32).map(|at| job(1, at)).collect();
        for job in &mut jobs {
            job.ordinal = 0;
        }
        let runs = Runs::of(jobs.iter());
        assert_eq!((runs.listed.len(), runs.ids.len()), (2 * MIN_RUN, 0));
        // One claim in another order of the ids than it says.
        let mut jobs: Vec<_> = (0..2 * MIN_RUN as u32).map(|at| job(1, at)).collect();
        for (job, ordinal) in jobs.iter_mut().rev().zip(0..) {
            job.ordinal = ordinal;
        }
        assert_eq!(Runs::of(jobs.iter()).ids.len(), 0);
    }
}
