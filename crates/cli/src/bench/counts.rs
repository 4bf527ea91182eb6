/// So many jobs are worked where nobody says how many.
pub(super) const WORK_JOBS: u32 = 100_000;
