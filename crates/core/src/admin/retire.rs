//! Taking a database away for good, so that no job stays behind.

use std::sync::Arc;
use std::time::Duration;

use super::databases::remove;
use crate::database::Database;
use crate::database::orders::FRESH_FOR;
use crate::database::set::Databases;
use crate::database::transfer::{Move, MoveReport};
use crate::driver::Order;
use crate::error::Error;
use crate::session::work::AtWork;
use crate::tools::threads::sleep;
use crate::tools::time::Instant;

/// How often it is looked whether something is left.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Drains a database, moves what waits until nothing has come for long enough, and removes it. An insert that was
/// under way when a process heard of the order may take twice the limit of a call.
pub(crate) fn retire(
    databases: &Databases,
    at_work: &AtWork,
    name: &str,
    within: Duration,
) -> Result<MoveReport, Error> {
    let leaving = databases.find(name)?;
    if databases.all().len() == 1 {
        return Err(Error::NoDatabase);
    }
    let begun = Instant::now();
    leaving.order(Order::Draining, true)?;
    let late = FRESH_FOR + leaving.limit() * 2;
    let (mut done, mut empty_since) = (MoveReport::default(), Instant::now());
    loop {
        let mut trouble = None;
        let moved = empty(databases, &leaving, &mut trouble)?;
        done.moved += moved.moved;
        done.stayed = moved.stayed;
        let depth = leaving.call("count jobs", |driver| driver.depth(1))?;
        if moved.moved > 0 || !depth.is_empty() {
            empty_since = Instant::now();
        }
        if empty_since.elapsed() >= late {
            remove(databases, at_work, name)?;
            return Ok(done);
        }
        if begun.elapsed() >= within {
            let reason = trouble.unwrap_or_else(|| "they run, or may go nowhere else".to_owned());
            return Err(Error::NotEmpty { database: name.to_owned(), moved: done.moved, reason });
        }
        sleep(LOOK_EVERY.min(within));
    }
}

/// Moves what waits to each of the other databases that answers, the spool left out. The trouble of one
/// of them matters only if something is left at the end.
fn empty(
    databases: &Databases,
    leaving: &Arc<Database>,
    trouble: &mut Option<String>,
) -> Result<MoveReport, Error> {
    let mut done = MoveReport::default();
    for to in databases.all().iter().filter(|one| !Arc::ptr_eq(one, leaving) && one.is_up()) {
        if to.orders().is_ok_and(|control| control.draining) {
            continue;
        }
        match Move::new(databases, leaving, to).and_then(Move::run) {
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
