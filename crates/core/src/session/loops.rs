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
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

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
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
