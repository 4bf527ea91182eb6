use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::bell::lock;
use super::database::Database;
use super::lane::Lane;
use super::session::Session;
use crate::driver::{Control, DriverError};

/// Jobs claimed ahead that no thread started for so long go back for others.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// How soon a beat that is overdue is looked at again while the database is down.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// Says that the process lives. Nothing else is done between two beats: what may take long is the
/// janitor's.
pub(super) fn run(session: &Arc<Session>, lane: &Arc<Lane>) {
    let options = session.manager.options();
    // One beat may be late by as much as it comes early.
    let every = options.heartbeat_every.min(options.dead_after / 4);
    let again = every.min(options.dead_after / 8);
    let (mut next_beat, mut begun) = (Instant::now(), Instant::now());
    // Until the last job ended its lease must be kept alive, also while stopping.
    while !lane.is_done(session) {
        let due = lane.beat_every().map_or(next_beat, |every| next_beat.min(begun + every));
        // A beat that the outage swallowed is made as soon as the database is back. While it is found
        // out if the database hangs this loop asks all the same: if it is merely slow, a beat that
        // waited would come too late for those who think this process dead.
        if Instant::now() >= due && lane.database.is_up() {
            begun = Instant::now();
            next_beat = begun + every.mul_f64(0.8 + fastrand::f64() / 5.0);
            if let Err(error) = beat(session, lane) {
                next_beat = begun + again;
                if !error.is_down() {
                    log::warn!("database {:?}: heartbeat: {error}", &*lane.database.name);
                }
            }
        }
        for job in session.dispatch.drain_stuck(lane.index, STUCK_AFTER) {
            lane.give_back(job);
        }
        let due = lane.beat_every().map_or(next_beat, |every| next_beat.min(begun + every));
        let pause = due.saturating_duration_since(Instant::now());
        lane.heartbeat_bell.wait(pause.clamp(SHORTEST_WAIT, STUCK_AFTER / 2));
    }
    if lane.leaving.load(Ordering::Acquire) {
        // The last run of a database that is being removed is settled; nothing more comes.
        lane.settle.close();
    }
}

fn beat(session: &Session, lane: &Lane) -> Result<(), DriverError> {
    let database = &lane.database;
    let first = !lane.has_beaten();
    if first {
        meet(database)?;
    }
    let begun = Instant::now();
    let (worker, was_paused) = (session.worker.clone(), database.controls.known().paused);
    let may_beat = lock(&lane.may_beat);
    if !*may_beat {
        return Ok(());
    }
    let (known, control) =
        database.ask(move |driver| Ok((driver.heartbeat(&worker)?, driver.control()?)))?;
    drop(may_beat);
    lock(&database.watch).note(begun, Instant::now());
    database.note_control(control)?;
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
    if first {
        session.note_progress();
    }
    Ok(())
}

/// Learns which database this is before anything is done to it: under a second name the row of this
/// worker would be there twice, and the jobs of the one would be given back with the other's end.
fn meet(database: &Arc<Database>) -> Result<(), DriverError> {
    let told = database.ask(|driver| {
        let control = driver.control()?;
        let identity = match control.identity {
            Some(known) => known,
            None => driver.identity()?,
        };
        Ok(Control { identity: Some(identity), ..control })
    })?;
    database.note_control(told)
}
