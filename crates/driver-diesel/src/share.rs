//! What a look may cost that steps over rows for nothing.

use std::time::{Duration, Instant};

/// Looks that find nothing may take at most 1/20 of the time, as long as each takes a second at most. Slices,
/// gaps and the looks at due jobs each have one.
const SHARE: u32 = 20;

/// A look that takes longer, beyond its round trip, is dear.
pub(crate) const CHEAP: Duration = Duration::from_millis(5);

/// Whether a look at rows took longer than it should.
pub(crate) fn is_dear(took: Duration, round_trip: Duration) -> bool {
    took > CHEAP + round_trip * 2
}

/// The earliest moment for the next look at a part, after a look that took this long.
pub(crate) fn its_share(took: Duration) -> Instant {
    Instant::now() + took.min(MAX_TOOK) * SHARE
}

/// A look that took longer than a second waited for something else, such as a checkpoint. The next look waits
/// for at most twenty seconds.
const MAX_TOOK: Duration = Duration::from_secs(1);

/// The same where several parts share one twentieth: moves the earliest moment `due` on.
pub(crate) fn wait_its_share(due: &mut Instant, took: Duration) {
    *due = (*due).max(Instant::now()) + took.min(MAX_TOOK) * SHARE;
}

/// A look that takes longer, beyond what was measured of empty ones, stepped over rows for nothing.
pub(crate) const LONG: Duration = Duration::from_millis(3);

/// An empty look takes up to this beyond a round trip, and what was measured.
const SHORT: Duration = Duration::from_micros(400);

/// What looks take beyond a round trip although there is nothing to step over: on a slow machine a claim takes
/// longer than a question for the time. Measured by looks at a part between two places that are one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Noise {
    last: Option<Duration>,
    floor: Option<Duration>,
}

/// Until it is known what empty looks take, a look that takes longer was hardly an empty one.
const LONG_AT_FIRST: Duration = Duration::from_millis(12);

impl Noise {
    /// Notes what such a look took; the less of two counts, because one may have waited for something.
    pub(crate) fn measure(&mut self, took: Duration) {
        self.floor = self.last.map(|last| last.min(took));
        self.last = Some(took);
    }

    /// A look that takes less may have been an empty one.
    pub(crate) fn empty(&self) -> Duration {
        SHORT + self.floor.unwrap_or_default()
    }

    /// A part whose look takes longer is cut.
    pub(crate) fn long(&self) -> Duration {
        self.floor.map_or(LONG_AT_FIRST, |floor| LONG + floor)
    }
}

/// Parts are cut so that a look at one takes about this long.
pub(crate) const AIM: Duration = Duration::from_micros(1_500);

/// One claim looks at no more parts than this.
const MAX_LOOKS: usize = 64;

/// How many parts are due: one from the moment `due` on, and one more for each 30 ms since then.
pub(crate) fn looks_due(due: Instant) -> usize {
    let Some(since) = Instant::now().checked_duration_since(due) else { return 0 };
    let more = since.as_micros() / (AIM * SHARE).as_micros();
    usize::try_from(more).map_or(MAX_LOOKS, |more| (more + 1).min(MAX_LOOKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_pause_several_parts_are_due() {
        let now = Instant::now();
        assert_eq!(looks_due(now + Duration::from_secs(1)), 0);
        assert_eq!(looks_due(now), 1);
        assert!((10..=12).contains(&looks_due(now.checked_sub(AIM * SHARE * 10).expect("later"))));
        let long_ago = now.checked_sub(Duration::from_secs(60)).expect("later");
        assert_eq!(looks_due(long_ago), MAX_LOOKS);
    }

    #[test]
    fn a_slow_network_makes_no_look_dear() {
        assert!(!is_dear(Duration::from_millis(60), Duration::from_millis(30)));
        assert!(is_dear(Duration::from_millis(6), Duration::from_micros(200)));
    }
}
