//! Taking a database away for good, so that no job stays behind.

use crate::tools::threads::sleep;
use crate::tools::time::Instant;
use std::sync::Arc;
use std::time::Duration;

use super::control::FRESH_FOR;
use super::database::Database;
use super::moves::Move;
use super::{Manager, Moved};
use crate::Error;

/// How often it is looked whether something is left.
const LOOK_EVERY: Duration = Duration::from_millis(250);

impl Manager {
    /// Takes a database away: [drains](Self::drain) it, [moves](Self::move_jobs) what waits to the others
    /// until nothing has come for as long as other processes may still store jobs there, and
    /// [removes](Self::remove_database) it from this manager. Blocks meanwhile, 25 s at least with the
    /// usual [`call_limit`](crate::ManagerBuilder::call_limit).
    ///
    /// Each of the three alone would leave jobs behind: another process follows the order within 5 s, and
    /// an insert that is under way then may take twice a `call_limit` more, after which this takes none to
    /// be on its way. An insert of tens of thousands of jobs, a transaction of the caller's own, or a process
    /// with a longer `call_limit` may take longer: stop those before. Jobs that run are waited for, because
    /// they may be retried. Jobs with a unique key go to the home that their key has without this database.
    /// What is left when `within` is over stays, and so does the database, draining; call again.
    ///
    /// Other processes remove it when they are deployed without it, or call
    /// [`remove_database`](Self::remove_database).
    ///
    /// # Errors
    ///
    /// As [`move_jobs`](Self::move_jobs), [`Error::NoDatabase`] for the last one, and
    /// [`Error::NotEmpty`] when jobs are left at the end of the time.
    pub fn retire_database(&self, name: &str, within: Duration) -> Result<Moved, Error> {
        let leaving = self.find(name)?;
        if self.all().len() == 1 {
            return Err(Error::NoDatabase);
        }
        let begun = Instant::now();
        self.drain(name)?;
        let late = FRESH_FOR + leaving.limit() * 2;
        let (mut done, mut empty_since) = (Moved::default(), Instant::now());
        loop {
            let mut trouble = None;
            let moved = self.empty(&leaving, &mut trouble)?;
            done.moved += moved.moved;
            done.stayed = moved.stayed;
            let depth = leaving.call("count jobs", |driver| driver.depth(1))?;
            if moved.moved > 0 || !depth.is_empty() {
                empty_since = Instant::now();
            }
            if empty_since.elapsed() >= late {
                self.remove_database(name)?;
                return Ok(done);
            }
            if begun.elapsed() >= within {
                let reason =
                    trouble.unwrap_or_else(|| "they run, or may go nowhere else".to_owned());
                return Err(Error::NotEmpty {
                    database: name.to_owned(),
                    moved: done.moved,
                    reason,
                });
            }
            sleep(LOOK_EVERY.min(within));
        }
    }

    /// Moves what waits to each of the other databases that answers, the spool left out. The trouble of one
    /// of them matters only if something is left at the end.
    fn empty(&self, leaving: &Arc<Database>, trouble: &mut Option<String>) -> Result<Moved, Error> {
        let mut done = Moved::default();
        for to in self.all().iter().filter(|one| !Arc::ptr_eq(one, leaving) && one.is_up()) {
            if to.control().is_ok_and(|control| control.draining) {
                continue;
            }
            match Move::new(self, leaving, to).and_then(Move::run) {
                Ok(moved) => {
                    done.moved += moved.moved;
                    done.stayed = moved.stayed;
                    to.bell.ring();
                }
                // The next may do, unless it is the one that is to be emptied.
                Err(error) if leaving.is_up() => *trouble = Some(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}
