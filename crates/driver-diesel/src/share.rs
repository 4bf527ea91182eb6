//! What a look may cost that steps over rows for nothing.

use std::time::{Duration, Instant};

/// It may take at most 1/20 of the time, however many dead rows lie there.
const SHARE: u32 = 20;

/// One that takes longer, beyond its round trip, is dear.
pub(crate) const CHEAP: Duration = Duration::from_millis(5);

/// Whether a look at rows took longer than it should.
pub(crate) fn is_dear(took: Duration, round_trip: Duration) -> bool {
    took > CHEAP + round_trip * 2
}

/// Not before this may a look come that took so long the last time.
pub(crate) fn its_share(took: Duration) -> Instant {
    Instant::now() + took * SHARE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_network_makes_no_look_dear() {
        assert!(!is_dear(Duration::from_millis(60), Duration::from_millis(30)));
        assert!(is_dear(Duration::from_millis(6), Duration::from_micros(200)));
    }
}
