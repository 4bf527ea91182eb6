use crate::tools::random::fraction;
use crate::tools::time::Instant;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Options;
use super::lane::Lane;
use super::loops::{Kind, supervise};
use super::session::Session;
use crate::Driver;
use crate::driver::DriverError;
use crate::tools::awake;

/// Jobs claimed ahead that no thread started for so long go back for others.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// How soon a beat that is overdue is looked at again while the database is down.
pub(super) const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// A database under load may take so long for a beat and is none the worse.
const SHORTEST_LIMIT: Duration = Duration::from_secs(1);

/// When a process says that it lives, so that nobody can take a bad connection for its death.
pub(super) struct Rhythm {
    /// Between two beats. Others rely on a quarter of what this process promises, see
    /// [`watch`](super::watch).
    pub(super) every: Duration,
    /// After one that failed.
    pub(super) again: Duration,
    /// A beat is given up after so long and made on another connection: twice before the promise is
    /// over, where that is long enough.
    pub(super) limit: Duration,
}

impl Rhythm {
    pub(super) fn of(options: &Options) -> Self {
        let every = options.heartbeat_every.min(options.dead_after / 4);
        let limit = options.call_limit.min((options.dead_after / 3).max(SHORTEST_LIMIT));
        Self { every, again: every.min(options.dead_after / 8), limit }
    }
}

/// Says that the process lives. Nothing else is done between two beats: what may take long is the
/// janitor's.
pub(super) fn run(session: &Arc<Session>, lane: &Arc<Lane>) {
    supervise(session, lane, Kind::Heartbeat, || beat_on(session, lane));
    if lane.leaving.load(Ordering::Acquire) {
        // The last run of a database that is being removed is settled; nothing more comes.
        lane.settle.close();
    }
}

fn beat_on(session: &Arc<Session>, lane: &Arc<Lane>) {
    let Rhythm { every, again, limit } = Rhythm::of(session.manager.options());
    let (mut next_beat, mut begun) = (Instant::now(), Instant::now());
    // Until the last job ended its lease must be kept alive, also while stopping.
    while !lane.is_done(session) {
        let due = lane.beat_every().map_or(next_beat, |every| next_beat.min(begun + every));
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
        let due = lane.beat_every().map_or(next_beat, |every| next_beat.min(begun + every));
        let pause = due.saturating_duration_since(Instant::now());
        lane.heartbeat_bell.wait(pause.clamp(SHORTEST_WAIT, STUCK_AFTER / 2));
    }
}

fn beat(session: &Session, lane: &Lane, limit: Duration) -> Result<(), DriverError> {
    let database = &lane.database;
    let first = !lane.has_beaten();
    let joining = first.then(|| session.joining.lock());
    if first {
        database.meet()?;
    }
    let (begun, begun_awake) = (Instant::now(), awake::now());
    let (worker, was_paused) = (session.worker.clone(), database.controls.known().paused);
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
        lane.note_death();
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
    lane.note_heartbeat(begun_awake);
    lane.pulses.beat(Kind::Heartbeat);
    if first {
        session.note_progress();
    }
    Ok(())
}
