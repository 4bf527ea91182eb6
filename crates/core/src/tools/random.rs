//! Random numbers, for all that must not happen everywhere at once.

use std::time::Duration;

use uuid::Uuid;

/// Spreads waits over 75–125 % so that processes started together do not ask together.
pub(crate) fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + fraction() / 2.0)
}

/// From 0 to less than 1.
pub(crate) fn fraction() -> f64 {
    fastrand::f64()
}

/// Puts a list into another order.
pub(crate) fn shuffle<T>(list: &mut [T]) {
    fastrand::shuffle(list);
}

/// One of a list; `None` of an empty one.
pub(crate) fn choice<T>(list: Vec<T>) -> Option<T> {
    fastrand::choice(list)
}

/// A new id; its first bits tell the time.
pub(crate) fn new_id() -> Uuid {
    Uuid::now_v7()
}
