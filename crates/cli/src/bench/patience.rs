use std::time::Duration;

/// A job of the latency that did not start by then never will.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) type Any<T> = Result<T, Box<dyn std::error::Error>>;
