use std::time::{Duration, Instant};

/// Waits until a condition holds; answers after how long it did.
///
/// # Panics
///
/// When it does not hold within that time.
#[track_caller]
pub fn eventually(within: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < within, "not within {within:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    begun.elapsed()
}
