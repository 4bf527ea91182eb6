//! Each database at a glance, within a time of the caller's.

use std::time::Duration;

use crate::database::everywhere::PerDatabase;
use crate::database::health::DatabaseState;
use crate::database::set::Databases;
use crate::driver::{Ages, Depth, Driver, DriverError, Pause};

/// Depths are counted up to this: asking costs the same for a million jobs as for this many.
const DEPTH_BOUND: u64 = 10_000;

/// One database at a glance.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Overview {
    /// How many live jobs it holds, each number counted up to 10,000.
    pub depth: Depth,
    /// How long its work has waited that is not paused.
    pub ages: Ages,
    /// New jobs go to other databases.
    pub draining: bool,
    /// Its jobs are not claimed.
    pub paused: bool,
    /// Queues and abilities that are paused in it.
    pub pauses: Vec<Pause>,
    /// How many worker processes work it.
    pub workers: usize,
    /// How many more were silent for longer than they promised.
    pub silent_workers: usize,
}

impl Overview {
    /// One word: `paused`, `draining`, or else that it is in use.
    pub fn verdict(&self) -> &'static str {
        match (self.paused, self.draining) {
            (true, _) => "paused",
            (false, true) => "draining",
            (false, false) => DatabaseState::Up.as_str(),
        }
    }
}

/// Asks all databases, the spool included; who has not answered within the limit has an error.
pub(crate) fn overview(databases: &Databases, limit: Duration) -> Vec<PerDatabase<Overview>> {
    databases.on_each_within("look at the whole", limit, look)
}

fn look(driver: &dyn Driver) -> Result<Overview, DriverError> {
    let (control, workers) = (driver.control()?, driver.workers()?);
    let live = workers.iter().filter(|one| one.is_live()).count();
    let pauses = control.pauses.unwrap_or_default();
    Ok(Overview {
        depth: driver.depth(DEPTH_BOUND)?,
        ages: driver.ages(&pauses)?,
        draining: control.draining,
        paused: control.paused,
        pauses: pauses.to_vec(),
        workers: live,
        silent_workers: workers.len() - live,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::fixture::{SOON, memory};
    use crate::manager::Manager;
    use crate::testing::FaultyDriver;
    use crate::tools::threads::sleep;
    use crate::tools::time::Instant;

    #[test]
    fn a_database_that_hangs_has_an_error_in_time_and_holds_up_no_other() {
        let hangs = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&hangs);
        let stuck = FaultyDriver::new(memory()).that_may_block().with_fault(move |_| {
            while still.load(Ordering::Acquire) {
                sleep(Duration::from_millis(1));
            }
            Ok(())
        });
        let builder = Manager::builder().linked(false).driver("stuck", Arc::new(stuck));
        let manager = builder.driver("free", memory()).build().expect("valid");
        let begun = Instant::now();
        let seen = manager.overview(Duration::from_millis(100));
        assert!(begun.elapsed() < SOON / 2);
        let told: Vec<_> = seen.iter().map(|on| (&*on.database, on.answer.is_ok())).collect();
        assert_eq!(told, [("stuck", false), ("free", true)]);
        hangs.store(false, Ordering::Release);
    }
}
