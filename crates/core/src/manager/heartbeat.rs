use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::bell::lock;
use super::jitter;
use super::lane::Lane;
use super::session::Session;
use crate::driver::DriverError;

/// One rescue moves at most so many jobs; more are moved in the next calls, at once.
const RESCUE_AT_MOST: u32 = 500;

/// One clean-up removes at most so many rows of a table.
const PURGE_AT_MOST: u32 = 5_000;

const PURGE_EVERY: Duration = Duration::from_secs(60);

/// Jobs claimed ahead that no thread started for so long go back for others.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// How soon a beat that is overdue is looked at again while the database is down.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// Says that the process lives, rescues jobs of processes that do not, and cleans up.
pub(super) fn run(session: &Arc<Session>, lane: &Arc<Lane>) {
    let every = session.manager.options().heartbeat_every;
    let mut next_purge = Instant::now() + jitter(PURGE_EVERY);
    let mut next_beat = Instant::now();
    // Until the last job ended its lease must be kept alive, also while stopping.
    while !lane.is_done(session) {
        // A beat that the outage swallowed is made as soon as the database is back. While it is found
        // out if the database hangs this loop asks all the same: if it is merely slow, a beat that
        // waited would come too late for those who think this process dead.
        if Instant::now() >= next_beat && lane.database.is_up() {
            next_beat = Instant::now() + every.mul_f64(0.8 + fastrand::f64() / 5.0);
            if let Err(error) = beat(session, lane, &mut next_purge)
                && !error.is_down()
            {
                log::warn!("database {:?}: heartbeat: {error}", &*lane.database.name);
            }
        }
        for job in session.dispatch.drain_stuck(lane.index, STUCK_AFTER) {
            lane.give_back(job);
        }
        let pause = next_beat.saturating_duration_since(Instant::now());
        lane.heartbeat_bell.wait(pause.clamp(SHORTEST_WAIT, STUCK_AFTER / 2));
    }
    if lane.leaving.load(Ordering::Acquire) {
        // The last run of a database that is being removed is settled; nothing more comes.
        lane.settle.close();
    }
}

fn beat(session: &Session, lane: &Lane, next_purge: &mut Instant) -> Result<(), DriverError> {
    let (database, options) = (&lane.database, session.manager.options());
    let begun = Instant::now();
    let first = !lane.has_beaten();
    let (worker, was_paused) = (session.worker.clone(), database.controls.known().paused);
    let may_beat = lock(&lane.may_beat);
    if !*may_beat {
        return Ok(());
    }
    let (known, control) =
        database.ask(move |driver| Ok((driver.heartbeat(&worker)?, driver.control()?)))?;
    drop(may_beat);
    database.controls.note(control);
    if was_paused && !control.paused {
        database.bell.ring();
    }
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
        let dead_after = options.dead_after;
        let rescued = database.ask(move |driver| driver.rescue(dead_after, RESCUE_AT_MOST))?;
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
        // What is left of a lost fleet may take longer than others wait for our next sign of life.
        if (rescued.len() as u32) < RESCUE_AT_MOST || begun.elapsed() > options.heartbeat_every {
            break;
        }
    }
    if Instant::now() >= *next_purge {
        let (replies, status) = (options.keep_replies, options.keep_job_status);
        let removed = database.ask(move |driver| driver.purge(replies, status, PURGE_AT_MOST))?;
        let pause = if removed as u32 >= PURGE_AT_MOST { Duration::ZERO } else { PURGE_EVERY };
        *next_purge = Instant::now() + jitter(pause);
    }
    Ok(())
}
