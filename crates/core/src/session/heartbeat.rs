use std::sync::Arc;
use std::time::Duration;

use crate::driver::{Driver, DriverError};
use crate::session::Session;
use crate::session::lane::Lane;
use crate::session::loops::supervise;
use crate::session::pulses::Kind;
use crate::session::rhythm::{Rhythm, SHORTEST_WAIT};
use crate::tools::awake;
use crate::tools::random::fraction;
use crate::tools::time::Instant;

/// Jobs claimed ahead that no thread started for so long go back for others.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// Says that the process lives. Nothing else is done between two beats: what may take long is the
/// janitor's.
pub(crate) fn run(session: &Arc<Session>, lane: &Arc<Lane>) {
    supervise(lane, Kind::Heartbeat, || beat_on(session, lane));
    if lane.is_leaving() {
        // The last run of a database that is being removed is settled; nothing more comes.
        lane.settle.close();
    }
}

fn beat_on(session: &Arc<Session>, lane: &Arc<Lane>) {
    let Rhythm { every, again, limit } = Rhythm::of(&session.client.program.options);
    let (mut next_beat, mut begun) = (Instant::now(), Instant::now());
    // Until the last job ended its lease must be kept alive, also while stopping.
    while !lane.is_done() {
        let due = lane.heart.beat_every().map_or(next_beat, |every| next_beat.min(begun + every));
        // A beat that the outage swallowed is made as soon as the database is back. While it is found
        // out if the database hangs this loop asks all the same: if it is merely slow, a beat that
        // waited would come too late for those who think this process dead.
        if Instant::now() >= due && lane.database.is_up() {
            begun = Instant::now();
            next_beat = begun + every.mul_f64(0.8 + fraction() / 5.0);
            if let Err(error) = beat(session, lane, limit) {
                next_beat = begun + again;
                if !error.is_down() {
                    log::warn!("database {:?}: heartbeat: {error}", &*lane.database.name);
                }
            }
        }
        for job in session.dispatch.drain_stuck(lane.index, STUCK_AFTER) {
            lane.give_back(job);
        }
        let due = lane.heart.beat_every().map_or(next_beat, |every| next_beat.min(begun + every));
        let pause = due.saturating_duration_since(Instant::now());
        lane.heartbeat_bell.wait(pause.clamp(SHORTEST_WAIT, STUCK_AFTER / 2));
    }
}

fn beat(session: &Session, lane: &Lane, limit: Duration) -> Result<(), DriverError> {
    let database = &lane.database;
    let first = !lane.heart.has_beaten();
    let joining = first.then(|| session.joining.lock());
    if first {
        database.meet()?;
    }
    let (begun, begun_awake) = (Instant::now(), awake::now());
    let (worker, was_paused) = (session.worker.clone(), database.orders.known().paused);
    let may_beat = lane.may_beat.lock();
    if !*may_beat {
        return Ok(());
    }
    let ask = move |driver: &dyn Driver| Ok((driver.heartbeat(&worker)?, driver.control()?));
    let (known, control) = database.ask_within(limit, ask, Box::new(|_, _| {}))?;
    drop((may_beat, joining));
    database.watch.lock().note(begun, Instant::now());
    database.note_control(control)?;
    if was_paused && !control.paused {
        database.bell.ring();
    }
    if !known && !first {
        lane.heart.note_death();
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
    if lane.heart.note(begun_awake) {
        // The fetcher waits for the first one: leases without a worker's row are swept.
        database.bell.ring();
    }
    lane.pulses.beat(Kind::Heartbeat);
    if first {
        session.stop.note();
    }
    Ok(())
}
