//! Numbers of runs: how many ended how, how long their jobs had waited, how long they took.

use std::time::Duration;

use chrono::{DateTime, Utc};
use qudo_hooks::Outcome;
use serde::{Deserialize, Serialize};

use super::Name;

/// How many buckets a [`Histogram`] has.
pub const BUCKETS: usize = 28;

/// How long each of many things took, sorted into buckets: up to 100 µs, 200 µs, 500 µs, 1 ms and so on with 1, 2 and 5 up
/// to 50,000 s, and longer. The buckets are the same everywhere, so histograms of processes, minutes and databases add up.
///
/// ```
/// use std::time::Duration;
/// use qudo_core::driver::Histogram;
///
/// let mut took = Histogram::default();
/// for millis in [3, 4, 80] {
///     took.note(Duration::from_millis(millis));
/// }
/// assert_eq!((took.count(), took.sum()), (3, Duration::from_millis(87)));
/// assert!(took.quantile(0.5).expect("it has some") <= Duration::from_millis(5));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    /// In microseconds.
    sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum: 0 }
    }
}

impl Histogram {
    /// The longest time of each bucket but the last, which has no limit.
    pub const BOUNDS: [Duration; BUCKETS - 1] = {
        let (mut bounds, mut at, mut decade) = ([Duration::ZERO; BUCKETS - 1], 0, 100);
        while at < bounds.len() {
            let step = [1, 2, 5][at % 3];
            bounds[at] = Duration::from_micros(decade * step);
            at += 1;
            if at % 3 == 0 {
                decade *= 10;
            }
        }
        bounds
    };

    /// From the number in each bucket and the sum of all times, as [`counts`](Self::counts) and [`sum`](Self::sum) tell them.
    pub fn new(counts: [u64; BUCKETS], sum: Duration) -> Self {
        Self { counts, sum: micros(sum) }
    }

    /// Counts one time. At most 30 days of it are added to the sum, so that a clock that is far off does not distort the sum for ever.
    pub fn note(&mut self, took: Duration) {
        self.counts[bucket(took)] += 1;
        self.sum = self.sum.saturating_add(micros(took.min(LONGEST)));
    }

    /// Adds the times of another histogram.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// How many times are in each bucket.
    pub const fn counts(&self) -> &[u64; BUCKETS] {
        &self.counts
    }

    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all times.
    pub const fn sum(&self) -> Duration {
        Duration::from_micros(self.sum)
    }

    /// An estimate of the time that is not exceeded by this share of the times, such as 0.95: a point in its bucket, as if the times of
    /// the bucket were spread evenly. In the last bucket it is the beginning of the bucket. `None` if no time was counted.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        let rank = share.clamp(0.0, 1.0) * count as f64;
        let mut below = 0.0;
        for (at, inside) in self.counts.iter().map(|count| *count as f64).enumerate() {
            if inside > 0.0 && below + inside >= rank {
                let from = if at == 0 { Duration::ZERO } else { Self::BOUNDS[at - 1] };
                let Some(to) = Self::BOUNDS.get(at) else { return Some(from) };
                return Some(
                    from + to
                        .saturating_sub(from)
                        .mul_f64(((rank - below) / inside).clamp(0.0, 1.0)),
                );
            }
            below += inside;
        }
        None
    }
}

/// The most that one time adds to a sum.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// The bucket of a time: the first whose bound is not shorter.
fn bucket(took: Duration) -> usize {
    Histogram::BOUNDS.partition_point(|bound| *bound < took)
}

/// The numbers of runs of one ability in one queue.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunStats {
    /// Runs after which the job was done.
    pub completed: u64,
    /// Runs after which the job was done, and other jobs were enqueued in its place.
    pub replaced: u64,
    /// Runs that failed, after which the job was to run again.
    pub retried: u64,
    /// Runs that failed, after which the job was discarded.
    pub failed: u64,
    /// Runs of cancelled jobs.
    pub cancelled: u64,
    /// Runs that put their job off without failing.
    pub snoozed: u64,
    /// How long the jobs were ready before they ran: since they were enqueued, or due, or put back.
    pub waiting: Histogram,
    /// How long the runs took, with their hooks.
    pub running: Histogram,
}

impl RunStats {
    /// Counts a run.
    pub fn note(&mut self, outcome: &Outcome, waited: Duration, took: Duration) {
        match outcome {
            Outcome::Completed => self.completed += 1,
            Outcome::Replaced(_) => self.replaced += 1,
            Outcome::Retried(..) => self.retried += 1,
            Outcome::Discarded(_) => self.failed += 1,
            Outcome::Cancelled(_) => self.cancelled += 1,
            Outcome::Snoozed(_) => self.snoozed += 1,
            // None that there is now; the times are counted all the same.
            _ => {}
        }
        self.waiting.note(waited);
        self.running.note(took);
    }

    /// Adds the runs of another.
    pub fn add(&mut self, other: &Self) {
        self.completed += other.completed;
        self.replaced += other.replaced;
        self.retried += other.retried;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.snoozed += other.snoozed;
        self.waiting.add(&other.waiting);
        self.running.add(&other.running);
    }

    /// How many runs ended with each outcome, by the words of [`Outcome::as_str`].
    pub const fn by_outcome(&self) -> [(&'static str, u64); 6] {
        [
            ("completed", self.completed),
            ("replaced", self.replaced),
            ("retried", self.retried),
            ("failed", self.failed),
            ("cancelled", self.cancelled),
            ("snoozed", self.snoozed),
        ]
    }

    /// How many runs ended, with any outcome.
    pub fn ended(&self) -> u64 {
        self.by_outcome().iter().map(|(_, count)| count).sum()
    }

    /// How many runs failed, whether their jobs run again or not.
    pub const fn failures(&self) -> u64 {
        self.retried + self.failed
    }
}

/// The runs of one ability in one queue within a span of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StatRow {
    /// When the span begins, by the database's clock; `None` for the sums since the first run.
    pub since: Option<DateTime<Utc>>,
    /// The queue.
    pub queue: Name,
    /// The ability.
    pub ability: Name,
    /// The numbers.
    pub stats: RunStats,
}

impl StatRow {
    /// Makes a row from its four parts.
    pub fn new(
        since: Option<DateTime<Utc>>,
        queue: impl Into<Name>,
        ability: impl Into<Name>,
        stats: RunStats,
    ) -> Self {
        Self { since, queue: queue.into(), ability: ability.into(), stats }
    }
}

/// Says which numbers of runs to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct StatScan {
    /// How far back from now, rounded to minutes. `None` for the sums since the first run, which never fall.
    pub last: Option<Duration>,
    /// The length of the span of each row, in whole minutes. `None` for one row over the whole time.
    pub step: Option<Duration>,
    /// The greatest number of rows in an answer: with `last` the latest rows, without it the first by name. If an answer has this many rows, there
    /// may be more.
    pub limit: u32,
}

impl StatScan {
    /// The sums since the first run: one row for each queue and ability.
    pub const fn ever() -> Self {
        Self { last: None, step: None, limit: 10_000 }
    }

    /// The numbers of this span up to now, as far back as minutes are kept.
    pub const fn last(span: Duration) -> Self {
        Self { last: Some(span), ..Self::ever() }
    }

    /// Asks for one row for each span of this length.
    #[must_use]
    pub const fn every(mut self, step: Duration) -> Self {
        self.step = Some(step);
        self
    }

    /// The step in whole minutes, and at least one; `None` without a step.
    pub fn step_minutes(&self) -> Option<u64> {
        Some((self.step?.as_secs() / 60).max(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use qudo_hooks::{Failure, FailureKind};

    use super::*;

    #[test]
    fn bounds_go_up_by_one_two_and_five_from_100_microseconds_to_50_000_seconds() {
        let first = Histogram::BOUNDS[..4].iter().map(|bound| bound.as_micros());
        assert_eq!(first.collect::<Vec<_>>(), [100, 200, 500, 1_000]);
        assert_eq!(Histogram::BOUNDS.last(), Some(&Duration::from_secs(50_000)));
        assert!(Histogram::BOUNDS.is_sorted());
    }

    #[test]
    fn each_outcome_is_counted_by_its_word() {
        let failure = || Failure::new(FailureKind::Error, "");
        let second = Duration::from_secs(1);
        let mut stats = RunStats::default();
        for (times, outcome) in [
            Outcome::Completed,
            Outcome::Replaced(2),
            Outcome::Retried(failure(), second),
            Outcome::Discarded(failure()),
            Outcome::Cancelled(String::new()),
            Outcome::Snoozed(second),
        ]
        .iter()
        .enumerate()
        {
            for _ in 0..=times {
                stats.note(outcome, second, second * 3);
            }
            let counted =
                stats.by_outcome().into_iter().find(|(word, _)| *word == outcome.as_str());
            assert_eq!(counted, Some((outcome.as_str(), times as u64 + 1)));
        }
        assert_eq!((stats.ended(), stats.failures()), (21, 7));
        assert_eq!((stats.waiting.sum(), stats.running.sum()), (second * 21, second * 63));
    }

    proptest! {
        #[test]
        fn a_quantile_lies_in_the_bucket_of_the_time_at_its_rank(
            mut millis in prop::collection::vec(0_u64..100_000_000, 1..60), share in 0.0..=1.0_f64,
        ) {
            let mut all = Histogram::default();
            for one in &millis {
                all.note(Duration::from_millis(*one));
            }
            millis.sort_unstable();
            let rank = ((share * millis.len() as f64).ceil() as usize).clamp(1, millis.len());
            let at = bucket(Duration::from_millis(millis[rank - 1]));
            let told = all.quantile(share).expect("there are some");
            let from = if at == 0 { Duration::ZERO } else { Histogram::BOUNDS[at - 1] };
            prop_assert!(told >= from);
            prop_assert!(Histogram::BOUNDS.get(at).is_none_or(|bound| told <= *bound));
        }

        #[test]
        fn histograms_add_up(left in prop::collection::vec(any::<u32>(), 0..40), right in prop::collection::vec(any::<u32>(), 0..40)) {
            let of = |all: &[u32]| {
                let mut histogram = Histogram::default();
                for one in all {
                    histogram.note(Duration::from_micros((*one).into()));
                }
                histogram
            };
            let mut sum = of(&left);
            sum.add(&of(&right));
            prop_assert_eq!(&sum, &of(&[left, right].concat()));
            prop_assert_eq!(Histogram::new(*sum.counts(), sum.sum()), sum);
        }
    }
}
