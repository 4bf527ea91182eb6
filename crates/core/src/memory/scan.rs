//! Listings of the in-memory driver.

use std::ops::Bound;

use qudo_hooks::JobId;

use super::store::{Stand, Store};
use crate::driver::{
    Bounded, Exception, ExceptionScan, JobCursor, JobInfo, JobScan, JobState, Leg, Past, Place,
    PlacedJob, StatusRow, StatusScan,
};

impl Store {
    pub(super) fn jobs(&self, ids: &[JobId], args: bool) -> Vec<JobInfo> {
        let mut jobs: Vec<_> = ids.iter().filter_map(|id| self.lookup(*id)).collect();
        if !args {
            for job in &mut jobs {
                job.facts.arg = Vec::new();
            }
        }
        jobs
    }

    pub(super) fn scan_jobs(&self, scan: &JobScan<'_>) -> Vec<PlacedJob> {
        let limit = scan.limit as usize;
        match scan.place {
            Place::Leased => {
                let after = scan.after.map_or(Bound::Unbounded, |at| Bound::Excluded(at.id()));
                let rows = self.leases.range((after, Bound::Unbounded)).take(limit);
                let placed = rows.map(|(id, lease)| {
                    let state = JobState::Running { worker: lease.worker, until: lease.until };
                    self.placed(JobCursor::Leased(*id), lease.stand, state)
                });
                placed.collect()
            }
            Place::Ready => {
                let rows = self
                    .ready
                    .iter()
                    .filter(|((queue, ..), _)| scan.queue.is_none_or(|wanted| wanted == queue));
                let placed = rows.map(|((queue, rank, id), stand)| {
                    let at = JobCursor::Ready(queue.clone(), *rank, *id);
                    self.placed(at, *stand, JobState::Ready)
                });
                placed.filter(|one| is_behind(one, scan)).take(limit).collect()
            }
            Place::Scheduled => {
                let placed = self.scheduled.iter().map(|((run_after, id), stand)| {
                    let state = JobState::Scheduled { run_after: *run_after };
                    self.placed(JobCursor::Scheduled(*run_after, *id), *stand, state)
                });
                placed.filter(|one| is_behind(one, scan)).take(limit).collect()
            }
            Place::Leaving => self.scan_moving(Leg::Leaving, JobCursor::Leaving, scan),
            Place::Arriving => self.scan_moving(Leg::Arriving, JobCursor::Arriving, scan),
        }
    }

    fn scan_moving(
        &self,
        leg: Leg,
        cursor: fn(String, JobId) -> JobCursor,
        scan: &JobScan<'_>,
    ) -> Vec<PlacedJob> {
        let rows = self.moving.iter().filter(|((_, of), _)| *of == leg);
        let mut placed: Vec<_> = rows
            .map(|((id, _), row)| {
                self.placed(cursor(row.other.clone(), *id), row.stand, JobState::Moving)
            })
            .filter(|one| is_behind(one, scan))
            .collect();
        placed.sort_by(|one, other| one.at.cmp(&other.at));
        placed.truncate(scan.limit as usize);
        placed
    }

    fn placed(&self, at: JobCursor, stand: Stand, state: JobState) -> PlacedJob {
        let facts = &self.jobs[&at.id()].record.facts;
        PlacedJob {
            at,
            queue: facts.queue.clone(),
            ability: facts.ability.clone(),
            priority: facts.priority,
            attempt: stand.attempt.unsigned_abs(),
            state,
        }
    }

    pub(super) fn scan_exceptions(&self, scan: &ExceptionScan) -> Vec<Exception> {
        let mut rows: Vec<_> = self
            .exceptions
            .iter()
            .filter(|row| {
                scan.job.is_none_or(|job| job == row.job)
                    && scan.id.is_none_or(|id| id == row.id)
                    && (row.discarded || !scan.discarded_only)
                    && scan.before.is_none_or(|before| row.id < before)
            })
            .cloned()
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.id));
        rows.truncate(scan.limit as usize);
        if !scan.arguments {
            for row in &mut rows {
                row.facts.arg = Vec::new();
            }
        }
        rows
    }

    pub(super) fn scan_status(&self, scan: &StatusScan) -> Vec<StatusRow> {
        let is_meant = |row: &&StatusRow| {
            scan.job.is_none_or(|job| job == row.job)
                && scan.before.is_none_or(|before| row.id < before)
        };
        let mut rows: Vec<_> = self.status.iter().filter(is_meant).cloned().collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.id));
        rows.truncate(scan.limit as usize);
        rows
    }

    pub(super) fn count_past(&self, of: Past, bound: u64) -> Bounded {
        let rows = match of {
            Past::Exceptions => self.exceptions.len(),
            Past::Status => self.status.len(),
        };
        Bounded::new(rows as u64, bound)
    }
}

fn is_behind(one: &PlacedJob, scan: &JobScan<'_>) -> bool {
    scan.after.is_none_or(|after| one.at > *after)
}
