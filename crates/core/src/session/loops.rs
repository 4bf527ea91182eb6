//! The loops of a worker process: each contains its panics, starts again with growing pauses, ends only
//! when it is asked to, and tells when it last did what it is for.

use std::time::Duration;

use super::lane::Lane;
use super::pulses::Kind;
use crate::tools::guard::{guard, say};
use crate::tools::threads::sleep;
use crate::tools::time::Instant;

/// A loop that panicked starts again this soon; each panic doubles the pause.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// After so long without a panic the next one is taken for a first.
const CALM: Duration = Duration::from_secs(60);

/// Meanwhile a stop is noticed this soon.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs a loop until it returns, over its panics.
pub(crate) fn supervise(lane: &Lane, kind: Kind, mut run: impl FnMut()) {
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = Instant::now();
        let Err(panic) = guard(&mut run) else { return };
        lane.pulses.note_panic(kind);
        if begun.elapsed() > CALM {
            pause = FIRST_PAUSE;
        }
        let (name, what) = (&*lane.database.name, kind.as_str());
        say(|| {
            log::error!("database {name:?}: the loop {what:?} {panic}; it starts again");
        });
        let again = Instant::now() + pause;
        sleep(LOOK_EVERY);
        while Instant::now() < again && !lane.is_stopping() {
            sleep(LOOK_EVERY.min(pause));
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::fixture::{SOON, database, memory};
    use crate::session::stop::Phase;

    fn lane() -> Arc<Lane> {
        Arc::new(Lane::new(0, database("one", memory()), SOON, Arc::default(), &Arc::default()))
    }

    #[test]
    fn a_loop_that_returns_has_ended() {
        let (lane, mut runs) = (lane(), 0);
        supervise(&lane, Kind::Fetch, || runs += 1);
        assert_eq!(runs, 1);
        assert_eq!(lane.reports().next().map(|report| report.panics), Some(0));
    }

    #[test]
    fn a_loop_that_panics_starts_again_after_growing_pauses() {
        let (lane, mut runs) = (lane(), 0);
        let begun = Instant::now();
        supervise(&lane, Kind::Fetch, || {
            runs += 1;
            assert!(runs > 3, "on purpose");
        });
        assert_eq!(runs, 4);
        assert!(begun.elapsed() >= FIRST_PAUSE * 7, "100, 200 and 400 ms: {:?}", begun.elapsed());
        let reports: Vec<_> = lane.reports().collect();
        assert_eq!((reports[0].name, reports[0].panics), ("fetch", 3));
        assert!(reports[1..].iter().all(|report| report.panics == 0));
    }

    #[test]
    fn a_stop_ends_the_pause() {
        let (lane, runs) = (lane(), Arc::new(AtomicU32::new(0)));
        let (other, counted) = (Arc::clone(&lane), Arc::clone(&runs));
        let supervised = std::thread::spawn(move || {
            supervise(&other, Kind::Janitor, || {
                let run = counted.fetch_add(1, Ordering::SeqCst);
                assert!(run >= 8, "on purpose");
            });
        });
        // Pauses would be 25 s in all.
        lane.stop.advance(Phase::Stopping);
        let begun = Instant::now();
        supervised.join().expect("contains its panics");
        assert!(begun.elapsed() < SOON / 2);
        assert_eq!(runs.load(Ordering::SeqCst), 9);
    }
}
