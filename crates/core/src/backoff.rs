use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::JobView;

use crate::tools::random::fraction;

/// The longest delay that any rule gives: a year, far below what a time column holds.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(365 * 24 * 3600);

/// Exponential backoff with jitter and a cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
}

impl Default for Backoff {
    /// 1 s, 2 s, 4 s … at most an hour.
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(3600))
    }
}

impl Backoff {
    /// Doubles from `base` with each retry, up to `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap }
    }

    /// The longest delay before retry number `retry` (1 for the first).
    pub fn ceiling(&self, retry: u32) -> Duration {
        let doublings = retry.saturating_sub(1).min(63);
        let nanos = self.base.as_nanos().saturating_mul(1_u128 << doublings);
        let cap = self.cap.min(MAX_DELAY);
        if nanos >= cap.as_nanos() {
            cap
        } else {
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(cap)
        }
    }

    /// A delay before retry number `retry`, drawn between half the ceiling and the ceiling,
    /// so that jobs that failed together do not come back together.
    pub fn delay(&self, retry: u32) -> Duration {
        let ceiling = self.ceiling(retry);
        ceiling.mul_f64(0.5 + fraction() / 2.0).min(ceiling)
    }
}

/// How long a failed job waits before its next attempt.
#[derive(Clone)]
#[non_exhaustive]
pub enum RetryDelay {
    /// Always the same.
    Constant(Duration),
    /// Growing.
    Exponential(Backoff),
    /// Computed from the job.
    Computed(Arc<dyn Fn(&JobView<'_>) -> Duration + Send + Sync>),
}

impl Default for RetryDelay {
    /// Exponential: 1 s, 2 s, 4 s … at most an hour, with jitter.
    fn default() -> Self {
        Self::Exponential(Backoff::default())
    }
}

impl fmt::Debug for RetryDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(delay) => f.debug_tuple("Constant").field(delay).finish(),
            Self::Exponential(backoff) => f.debug_tuple("Exponential").field(backoff).finish(),
            Self::Computed(_) => f.write_str("Computed(..)"),
        }
    }
}

impl From<Duration> for RetryDelay {
    fn from(delay: Duration) -> Self {
        Self::Constant(delay)
    }
}

impl From<Backoff> for RetryDelay {
    fn from(backoff: Backoff) -> Self {
        Self::Exponential(backoff)
    }
}

impl<F: Fn(&JobView<'_>) -> Duration + Send + Sync + 'static> From<F> for RetryDelay {
    fn from(function: F) -> Self {
        Self::Computed(Arc::new(function))
    }
}

impl RetryDelay {
    /// The delay after the failed attempt that the view shows, at most a year.
    pub fn delay(&self, job: &JobView<'_>) -> Duration {
        match self {
            Self::Constant(delay) => *delay,
            Self::Exponential(backoff) => backoff.delay(job.attempt()),
            Self::Computed(function) => function(job),
        }
        .min(MAX_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn delays_stay_between_half_the_ceiling_and_the_ceiling(
            base in 0_u64..u64::MAX, cap in 0_u64..u64::MAX, retry in 0_u32..u32::MAX,
        ) {
            let backoff = Backoff::new(Duration::from_nanos(base), Duration::from_nanos(cap));
            let (delay, ceiling) = (backoff.delay(retry), backoff.ceiling(retry));
            prop_assert!(delay <= ceiling && ceiling <= backoff.cap);
            prop_assert!(delay >= ceiling.mul_f64(0.499));
        }

        #[test]
        fn ceilings_never_fall_and_never_overflow(base in 0_u64..u64::MAX, retry in 1_u32..200) {
            let backoff = Backoff::new(Duration::from_millis(base), Duration::MAX);
            prop_assert!(backoff.ceiling(retry) <= backoff.ceiling(retry + 1));
            prop_assert!(backoff.ceiling(retry) <= MAX_DELAY);
        }
    }
}
