//! The end of a group of runs of every kind, whose leases are all held.

use std::collections::HashSet;

use qudo_core::driver::{DriverError, Settled, Settlement};
use uuid::Uuid;

use super::Mysql;
use super::complete::{Ends, all_or_nothing};
use crate::engine::Engine;
use crate::statements::keys::free_keys;
use crate::statements::ledger::balance;
use crate::statements::settle::{
    answers, ended_keys, has_twins, insert_replacements, is_gone, is_plain, largest_value,
    put_back, take_leases, write_beside,
};

/// With fewer jobs that are gone the shared way is as fast.
const MIN_GONE: usize = 16;

/// Settles a group in one transaction; `None` when a lease is not held or a job has no facts, or when the group is
/// one for another way, and then nothing is changed.
///
/// Most runs of most groups are gone when they end, whatever they bring: their leases and facts are removed by one
/// statement, where the shared way reads the leases, removes them, and removes the facts.
///
/// Locking: leases by primary key in the order of the ids, each followed by its facts; then those of jobs that run
/// again; then keys in their order.
pub(super) fn settle_held(
    engine: &Mysql,
    worker: &Uuid,
    settlements: &[Settlement],
) -> Result<Option<Vec<Settled>>, DriverError> {
    let ours: Vec<&Settlement> = settlements.iter().collect();
    let lease = |one: &&Settlement| (*one.job.id.as_uuid(), one.job.claim);
    let (gone, again): (Vec<_>, Vec<_>) = ours.iter().copied().partition(|one| is_gone(one));
    let mut gone: Vec<_> = gone.iter().map(lease).collect();
    let again: Vec<_> = again.iter().map(lease).collect();
    if gone.len() < MIN_GONE || is_plain(settlements) || has_twins(settlements) {
        return Ok(None);
    }
    engine.check_size(largest_value(settlements))?;
    gone.sort_unstable();
    let ends = Ends::of(worker, &gone);
    engine.write(|conn| {
        let mut refused = HashSet::new();
        let settled = all_or_nothing(conn, |conn| {
            if !ends.remove(conn)? {
                return Ok(false);
            }
            if !again.is_empty() && take_leases::<Mysql>(conn, worker, &again)?.len() < again.len()
            {
                return Ok(false);
            }
            write_beside::<Mysql>(conn, worker, &ours)?;
            balance("settle", again.len(), put_back::<Mysql>(conn, &ours)?)?;
            free_keys::<Mysql>(conn, ended_keys(&ours))?;
            refused = insert_replacements::<Mysql>(conn, &ours)?;
            Ok(true)
        })?;
        Ok(settled.map(|()| answers(settlements, |_| true, &refused)))
    })
}
