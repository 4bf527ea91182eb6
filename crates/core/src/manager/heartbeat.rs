use std::time::{Duration, Instant};

use super::jitter;
use super::session::{Lane, Session};
use crate::driver::DriverError;

/// One rescue moves at most so many jobs; more are moved in the next calls, at once.
const RESCUE_AT_MOST: u32 = 500;

/// One clean-up removes at most so many rows of a table.
const PURGE_AT_MOST: u32 = 5_000;

const PURGE_EVERY: Duration = Duration::from_secs(60);

/// Jobs claimed ahead that no thread started for so long go back for others.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Says that the process lives, rescues jobs of processes that do not, and cleans up.
pub(super) fn run(session: &Session, lane: &Lane) {
    let every = session.manager.options().heartbeat_every;
    let mut next_purge = Instant::now() + jitter(PURGE_EVERY);
    let mut next_beat = Instant::now();
    // Until the last job ended its lease must be kept alive, also while stopping.
    while !(session.is_stopping() && session.workers_done()) {
        if Instant::now() >= next_beat {
            next_beat = Instant::now() + every.mul_f64(0.8 + fastrand::f64() / 5.0);
            if lane.database.is_up()
                && let Err(error) = beat(session, lane, &mut next_purge)
            {
                if error.is_down() {
                    session.lanes[lane.index].database.mark_down(&error);
                } else {
                    log::warn!("database {:?}: heartbeat: {error}", &*lane.database.name);
                }
            }
        }
        for job in session.dispatch.drain_stuck(lane.index, STUCK_AFTER) {
            lane.give_back(job);
        }
        let pause = next_beat.saturating_duration_since(Instant::now());
        lane.heartbeat_bell.wait(pause.min(STUCK_AFTER / 2));
    }
}

fn beat(session: &Session, lane: &Lane, next_purge: &mut Instant) -> Result<(), DriverError> {
    let (driver, options) = (lane.database.driver(), session.manager.options());
    let begun = Instant::now();
    let first = !lane.has_beaten();
    let known = driver.heartbeat(&session.worker)?;
    if !known && !first {
        // We were silent for so long that others took our jobs. What is not started must not be.
        let jobs = session.dispatch.drain(lane.index);
        log::warn!(
            "database {:?}: this worker process was declared dead; {} unstarted jobs dropped",
            &*lane.database.name,
            jobs.len()
        );
        for job in jobs {
            lane.give_back(job);
        }
    }
    lane.note_heartbeat(begun);
    loop {
        let rescued = driver.rescue(options.dead_after, RESCUE_AT_MOST)?;
        for one in &rescued {
            log::warn!(
                "database {:?}: job {} rescued from worker {}: {}",
                &*lane.database.name,
                one.id,
                one.worker,
                one.kind
            );
        }
        if !rescued.is_empty() {
            lane.database.bell.ring();
        }
        if (rescued.len() as u32) < RESCUE_AT_MOST {
            break;
        }
    }
    if Instant::now() >= *next_purge {
        let removed = driver.purge(options.keep_replies, options.keep_job_status, PURGE_AT_MOST)?;
        let pause = if removed as u32 >= PURGE_AT_MOST { Duration::ZERO } else { PURGE_EVERY };
        *next_purge = Instant::now() + jitter(pause);
    }
    Ok(())
}
