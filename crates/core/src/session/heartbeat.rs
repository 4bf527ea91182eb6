use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::database::schema::usable;
use crate::driver::{CancelOrder, Driver, DriverError, ErrorKind};
use crate::session::Session;
use crate::session::lane::Lane;
use crate::session::loops::supervise;
use crate::session::pulses::Kind;
use crate::session::rhythm::{MIN_WAIT, Rhythm};
use crate::tools::awake;
use crate::tools::random::fraction;
use crate::tools::time::Instant;

/// Jobs claimed ahead that no thread started for so long go back for others.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// An order that is told of makes a heartbeat this long after the last one, however many are told of.
const ORDERED: Duration = Duration::from_millis(100);

/// How far jobs are is stored at least this often while somebody asks for news.
const PROGRESS: Duration = Duration::from_millis(250);

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
    let mut next_progress = begun + every;
    // Until the last job ended its lease must be kept alive, also while stopping.
    while !lane.is_done() {
        let mut due =
            lane.heart.beat_every().map_or(next_beat, |every| next_beat.min(begun + every));
        if lane.is_ordered() {
            due = due.min(begun + ORDERED);
        }
        // A beat that the outage swallowed is made as soon as the database is back. While it is found
        // out if the database hangs this loop asks all the same: if it is merely slow, a beat that
        // waited would come too late for those who think this process dead.
        if Instant::now() >= due && lane.database.is_up() {
            begun = Instant::now();
            lane.reads_orders();
            next_beat = begun + every.mul_f64(0.8 + fraction() / 5.0);
            if let Err(error) = beat(session, lane, limit) {
                next_beat = begun + again;
                if !error.is_down() {
                    log::warn!("database {:?}: heartbeat: {error}", &*lane.database.name);
                }
            }
        }
        if lane.is_asked() {
            next_progress = next_progress.min(Instant::now() + PROGRESS);
        }
        if Instant::now() >= next_progress && lane.database.is_up() && lane.heart.has_beaten() {
            let pause = if lane.is_asked() { PROGRESS } else { every };
            next_progress = Instant::now() + pause;
            // No longer than a part of the time to the next beat, which has to be made.
            note_progress(session, lane, (every / 4).clamp(PROGRESS, PROGRESS * 4));
        }
        for job in session.dispatch.take_back_stuck(lane.index, STUCK_AFTER) {
            lane.give_back(job);
        }
        let mut due =
            lane.heart.beat_every().map_or(next_beat, |every| next_beat.min(begun + every));
        if lane.is_ordered() {
            due = due.min(begun + ORDERED);
        }
        let pause = due.min(next_progress).saturating_duration_since(Instant::now());
        lane.heartbeat_bell.wait(pause.clamp(MIN_WAIT, STUCK_AFTER / 2));
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
    let worker = session.worker.clone();
    let may_beat = lane.may_beat.lock();
    if !*may_beat {
        return Ok(());
    }
    let is_anew = Arc::clone(&lane.heart.is_anew);
    let was_anew = is_anew.load(Ordering::Acquire);
    let looks = first || was_anew || lane.heart.looks_at_schema();
    let ask = move |driver: &dyn Driver| {
        let known = driver.heartbeat(&worker)?;
        if !known {
            // Known also if the rest of this beat goes wrong: the next one finds the row.
            is_anew.store(true, Ordering::Release);
        }
        // After the row is there: who migrates sees the row, or we see the new tables.
        let looked = looks || !known;
        let tables = if looked { usable(driver) } else { Ok(()) };
        Ok((known, driver.control()?, looked, tables, driver.cancels(worker.id)))
    };
    let asked = database.ask_within(limit, ask, Box::new(|_, _| {}));
    let (known, control, looked, tables, cancels) = asked.inspect_err(|error| {
        // Tables that do not even take a heartbeat any more.
        if error.kind() == ErrorKind::Schema {
            database.mark_down(error);
        }
    })?;
    drop((may_beat, joining));
    database.watch.lock().note(begun, Instant::now());
    session.note_worker_order(lane, control.order_of(session.worker.id));
    database.note_control(control, begun)?;
    note_cancels(lane, cancels);
    let known = known && !was_anew;
    if !known && !first {
        lane.heart.note_death();
        // We were silent for so long that others took our jobs. What is not started must not be.
        let jobs = session.dispatch.take_back(lane.index);
        log::warn!(
            "database {:?}: this worker process was declared dead; {} unstarted jobs dropped",
            &*lane.database.name,
            jobs.len()
        );
        for job in jobs {
            lane.give_back(job);
        }
    }
    match tables {
        Err(error) if error.kind() == ErrorKind::Schema => {
            // A migration did not see this process, or was forced.
            database.mark_down(&error);
            return Ok(());
        }
        // Nothing is claimed from tables that this process has not looked at.
        Err(error) if first => return Err(error),
        tables => lane.heart.note_look(looked, tables.is_ok()),
    }
    if !known && looked {
        // What it means was dealt with, and the tables were looked at since.
        lane.heart.is_anew.store(false, Ordering::Release);
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

/// That how far jobs are is being stored.
struct Storing(Arc<AtomicBool>);

impl Drop for Storing {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Stores how far jobs say that they are. If that fails it is tried again with the next time; not while a call that was abandoned goes on,
/// which would write over what is newer.
fn note_progress(session: &Session, lane: &Lane, limit: Duration) {
    if lane.is_storing.swap(true, Ordering::AcqRel) {
        return;
    }
    let storing = Storing(Arc::clone(&lane.is_storing));
    let changed = session.client.progress.changed(&lane.database.name);
    if changed.records.is_empty() {
        return;
    }
    let jobs: Vec<_> = changed.records.iter().map(|one| one.job).collect();
    let (worker, records) = (session.worker.id, changed.records.clone());
    let ask = move |driver: &dyn Driver| {
        let _storing = storing;
        driver.note_progress(worker, &records)
    };
    match lane.database.ask_shortly(limit, ask) {
        Ok(()) => {
            changed.note_stored();
            lane.tell_news_of(&jobs);
        }
        Err(error) if error.is_down() => {}
        Err(error) => {
            if !lane.said_progress.swap(true, Ordering::Relaxed) {
                let name = &*lane.database.name;
                log::warn!("database {name:?}: how far jobs are cannot be stored: {error}");
            }
        }
    }
}

/// A look that fails says nothing of the heartbeat, which is stored: an account may lack the right to read orders.
fn note_cancels(lane: &Lane, cancels: Result<Vec<CancelOrder>, DriverError>) {
    match cancels {
        Ok(orders) => lane.cancels.note(orders),
        Err(error) if error.is_down() => {}
        Err(error) => {
            if lane.cancels.note_failure() {
                let name = &*lane.database.name;
                log::warn!("database {name:?}: orders to cancel jobs cannot be read: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::driver::{Deadline, Order};
    use crate::fixture::{SOON, memory, records};
    use crate::session::bed::{Bed, eventually};
    use crate::session::heart::LOOK_EVERY;
    use crate::session::shutdown::shut_down;
    use crate::testing::FaultyDriver;

    #[test]
    fn the_first_beat_tells_that_the_process_is_there_and_which_database_it_met() {
        let bed = Bed::with(SOON);
        let lane = Arc::clone(&bed.session.lanes()[0]);
        eventually(|| lane.heart.has_beaten());
        assert!(lane.heart.holds_leases());
        let workers = bed.database.driver().workers().expect("answers");
        assert_eq!(workers.len(), 1);
        assert_eq!(workers[0].info.id, bed.session.worker.id);
        assert!(bed.database.orders.known().identity.is_some());
        shut_down(&bed.session);
    }

    #[test]
    fn after_the_row_was_removed_no_beat_brings_it_back() {
        let bed = Bed::with(SOON);
        let lane = Arc::clone(&bed.session.lanes()[0]);
        eventually(|| lane.heart.has_beaten());
        shut_down(&bed.session);
        assert_eq!(bed.left().2, 0);
        beat(&bed.session, &lane, SOON).expect("does nothing");
        assert_eq!(bed.left().2, 0);
    }

    #[test]
    fn a_process_that_was_declared_dead_starts_nothing_that_it_had_claimed() {
        let bed = Bed::with(SOON);
        let lane = Arc::clone(&bed.session.lanes()[0]);
        eventually(|| lane.heart.has_beaten());
        bed.insert(1);
        bed.begun(1);
        // Somebody took what runs here for the work of a dead process.
        bed.database.driver().remove_worker(bed.session.worker.id).expect("answers");
        let before = lane.heart.death();
        beat(&bed.session, &lane, SOON).expect("answers");
        assert_ne!(lane.heart.death(), before);
        assert!(lane.heart.holds_leases(), "from now on");
        bed.pace.may_end.ring();
        // The end of the first run changed nothing, so the job runs again.
        bed.begun(2);
        eventually(|| bed.left() == (0, 0, 1));
        assert_eq!(bed.session.lost_leases(), 1);
        shut_down(&bed.session);
    }

    #[test]
    fn a_pause_that_ends_wakes_the_fetcher() {
        let bed = Bed::with(SOON);
        let lane = Arc::clone(&bed.session.lanes()[0]);
        eventually(|| lane.heart.has_beaten());
        let driver = bed.database.driver();
        // By another process: this one learns of it with its next beat.
        driver.set_control(&Order::Paused, true, Deadline::NONE).expect("answers");
        beat(&bed.session, &lane, SOON).expect("answers");
        assert!(bed.database.orders.known().paused);
        driver.insert(&records(1), Deadline::NONE).expect("stored");
        driver.set_control(&Order::Paused, false, Deadline::NONE).expect("answers");
        beat(&bed.session, &lane, SOON).expect("answers");
        bed.pace.may_end.ring();
        bed.begun(1);
        shut_down(&bed.session);
    }

    #[test]
    fn tables_that_must_not_be_worked_on_any_more_are_found_and_their_database_is_left() {
        // Newer tables, of whose migration this process was not seen; tables that do not even take a heartbeat.
        for question in ["schema", "heartbeat"] {
            let changed = Arc::new(AtomicBool::new(false));
            let now = Arc::clone(&changed);
            let driver = FaultyDriver::new(memory()).with_fault(move |call| {
                if call == question && now.load(Ordering::Acquire) {
                    return Err(DriverError::new(ErrorKind::Schema, "newer than this program"));
                }
                Ok(())
            });
            let bed = Bed::over(Arc::new(driver), SOON);
            let lane = Arc::clone(&bed.session.lanes()[0]);
            eventually(|| lane.heart.has_beaten());
            changed.store(true, Ordering::Release);
            let leaves = |_| {
                drop(beat(&bed.session, &lane, SOON));
                !bed.database.is_up()
            };
            assert!((0..LOOK_EVERY).any(leaves), "{question}");
            changed.store(false, Ordering::Release);
            eventually(|| bed.database.is_up());
            shut_down(&bed.session);
        }
    }

    #[test]
    fn a_first_beat_that_is_broken_off_leaves_the_look_at_the_tables_to_the_next_one() {
        let (beats, may_answer) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, answers) = (Arc::clone(&beats), Arc::clone(&may_answer));
        let driver = FaultyDriver::new(memory()).with_fault(move |call| match call {
            // The row is stored, and then the call goes wrong.
            "control" if !answers.load(Ordering::Acquire) => {
                counted.fetch_add(1, Ordering::AcqRel);
                Err(DriverError::new(ErrorKind::Contention, "lock timeout"))
            }
            "schema" => Err(DriverError::new(ErrorKind::Schema, "newer than this program")),
            _ => Ok(()),
        });
        let bed = Bed::over(Arc::new(driver), SOON);
        let lane = Arc::clone(&bed.session.lanes()[0]);
        eventually(|| beats.load(Ordering::Acquire) > 0);
        may_answer.store(true, Ordering::Release);
        eventually(|| {
            lane.heartbeat_bell.ring();
            !bed.database.is_up() || lane.heart.has_beaten()
        });
        assert!(!lane.heart.has_beaten(), "nothing may be claimed");
        shut_down(&bed.session);
    }

    #[test]
    fn a_beat_that_is_broken_off_after_it_made_the_row_anew_is_no_less_a_sign_of_death() {
        let breaks = Arc::new(AtomicBool::new(false));
        let broken = Arc::clone(&breaks);
        let driver = FaultyDriver::new(memory()).with_fault(move |call| {
            if call == "control" && broken.swap(false, Ordering::AcqRel) {
                return Err(DriverError::new(ErrorKind::Contention, "lock timeout"));
            }
            Ok(())
        });
        let bed = Bed::over(Arc::new(driver), SOON);
        let lane = Arc::clone(&bed.session.lanes()[0]);
        eventually(|| lane.heart.has_beaten());
        let before = lane.heart.death();
        bed.database.driver().remove_worker(bed.session.worker.id).expect("answers");
        breaks.store(true, Ordering::Release);
        let broken_off = beat(&bed.session, &lane, SOON);
        // The loop of the session may have been the one that was broken off.
        drop(broken_off);
        eventually(|| {
            drop(beat(&bed.session, &lane, SOON));
            lane.heart.death() != before
        });
        shut_down(&bed.session);
    }
}
