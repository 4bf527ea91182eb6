//! Jobs by the claims that they come from: most of a group that is settled follow on one another.

use qudo_core::driver::ClaimedJob;
use uuid::Uuid;

use crate::sql::Array;

/// A shorter run costs more by its ends than as a list: about 60 microseconds each, where a job of a list costs
/// one more than one of a run.
const MIN_RUN: usize = 64;

/// Two ids of a run were made within so many milliseconds. Of what lies in between only rows that are live are
/// counted before a run is removed, and between ids that are an hour apart there may be dead ones of all jobs of that
/// hour, to be stepped over each time until they are vacuumed.
const MAX_GAP: u128 = 10;

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
            one.0 == next.0 && one.1 + 1 == next.1 && are_near(one.2, next.2)
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

/// Whether the second id was made soon after the first. An id that does not tell its time may be far from any.
fn are_near(one: Uuid, next: Uuid) -> bool {
    let made_at = |id: Uuid| (id.get_version_num() == 7).then_some(id.as_u128() >> 80);
    let gap = made_at(one).zip(made_at(next)).and_then(|(one, next)| next.checked_sub(one));
    one < next && gap.is_some_and(|gap| gap <= MAX_GAP)
}

#[cfg(test)]
mod tests {
    use qudo_core::driver::{Flags, JobFacts};
    use qudo_hooks::JobId;

    use super::*;

    /// An id that was made in this millisecond.
    fn id(millis: u128, number: u128) -> Uuid {
        Uuid::from_u128(millis << 80 | 0x7 << 76 | 0x2 << 62 | number)
    }

    fn job(claim: i64, ordinal: u32) -> ClaimedJob {
        let number = u128::from(ordinal) * 10 + u128::from(claim.unsigned_abs());
        ClaimedJob {
            id: JobId::from_uuid(id(1, number)),
            claim,
            ordinal,
            attempt: 1,
            crashes: 0,
            flags: Flags::NONE,
            facts: JobFacts::new("a", "q", "json", Vec::new()),
            enqueued_at: chrono::DateTime::UNIX_EPOCH,
            ready_since: std::time::Instant::now(),
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
    fn a_run_ends_where_the_next_id_is_far_away() {
        let near = |one, next| are_near(id(one, 1), id(next, 2));
        assert!(near(100, 100) && near(100, 110) && !near(100, 111) && !near(100, 99));
        assert!(!are_near(Uuid::from_u128(1), Uuid::from_u128(2)), "they tell no time");
        let mut jobs: Vec<_> = (0..2 * MIN_RUN as u32).map(|at| job(1, at)).collect();
        for (job, number) in jobs.iter_mut().zip(0..) {
            // The first was put off an hour ago.
            let millis = if number == 0 { 0 } else { 3_600_000 };
            job.id = JobId::from_uuid(id(millis, number));
        }
        let runs = Runs::of(jobs.iter());
        assert_eq!((runs.listed.len(), runs.lengths), (1, vec![2 * MIN_RUN as i32 - 1]));
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
