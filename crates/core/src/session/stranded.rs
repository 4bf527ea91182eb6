//! Jobs that wait and that no running worker process can do: misspelt names, queues that nobody works, abilities
//! whose last program was stopped. They wait in silence, so the log tells of them.

use std::time::Duration;

use crate::driver::{DriverError, Head, WorkerSeen};
use crate::lack::{Lack, lack};
use crate::session::lane::Lane;
use crate::tools::random::jitter;
use crate::tools::time::Instant;

/// The pause between two looks.
const EVERY: Duration = Duration::from_secs(60);

/// A look takes at most a twentieth of the time: the pause is this many times as long as the look. Dead rows may lie
/// at the start of a queue.
const SHARE: u32 = 20;

/// The first queues by name that are looked at, and the first jobs of each.
const MAX_QUEUES: u32 = 64;
const MAX_ROWS: u32 = 100;

/// A look that takes longer is abandoned: nothing waits for it, and it does not show that the database is down.
const PATIENCE: Duration = Duration::from_secs(1);

/// An abandoned look goes on at the server, for up to two minutes where that ends it itself: a twentieth of the time is
/// this long then.
const AFTER_ABANDONED: Duration = Duration::from_secs(2_400);

/// Warns of what nobody can do. Returns how long until the next look.
pub(super) fn warn(lane: &Lane) -> Duration {
    let begun = Instant::now();
    let done = warn_of(lane);
    if let Err(error) = &done {
        log::debug!("database {:?}: heads of the queues: {error}", &*lane.database.name);
    }
    if done.is_err_and(|error| error.is_hung()) {
        return jitter(AFTER_ABANDONED);
    }
    jitter(EVERY).max(begun.elapsed() * SHARE)
}

fn warn_of(lane: &Lane) -> Result<(), DriverError> {
    let database = &lane.database;
    let heads = database.ask_shortly(PATIENCE, |driver| driver.heads(MAX_QUEUES, MAX_ROWS))?;
    if !heads.is_empty() {
        let workers = database.ask_shortly(PATIENCE, |driver| driver.workers())?;
        for (head, reason) in stranded(&heads, &workers) {
            let more = if head.count >= MAX_ROWS.into() { " or more" } else { "" };
            log::warn!(
                "database {:?}: {}{more} jobs for {:?} wait in queue {:?}, and {reason}",
                &*database.name,
                head.count,
                head.ability,
                head.queue
            );
        }
    }
    Ok(())
}

/// The heads whose jobs no live worker process can do, and why.
fn stranded<'h>(heads: &'h [Head], workers: &[WorkerSeen]) -> Vec<(&'h Head, &'static str)> {
    let reason = |head: &'h Head| {
        let reason = match lack(workers, &head.ability, &head.queue)? {
            Lack::Worker | Lack::Ability => "no running worker process has this ability",
            Lack::Queue => "no running worker process that has this ability works this queue",
        };
        Some((head, reason))
    };
    heads.iter().filter_map(reason).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{SOON, seen};

    fn head(queue: &str, ability: &str) -> Head {
        Head { queue: queue.to_owned(), ability: ability.to_owned(), count: 1 }
    }

    #[test]
    fn a_job_is_stranded_unless_one_process_that_lives_has_its_ability_and_its_queue() {
        let heads = [head("post", "mail"), head("images", "scale"), head("post", "mial")];
        let workers = [
            seen("post", "mail", Duration::ZERO),
            seen("post", "scale", Duration::ZERO),
            seen("images", "scale", SOON * 2),
        ];
        let found = stranded(&heads, &workers);
        let found: Vec<_> = found.iter().map(|(head, why)| (&*head.ability, *why)).collect();
        let queue = "no running worker process that has this ability works this queue";
        assert_eq!(
            found,
            [("scale", queue), ("mial", "no running worker process has this ability")]
        );
        let ability = "no running worker process has this ability";
        assert_eq!(stranded(&heads[..1], &[])[0].1, ability, "nor any other");
    }
}
