//! What a claim looks at, and what it found.

use std::time::{Duration, Instant};

use qudo_core::driver::ClaimRequest;
use uuid::Uuid;

/// What a row costs by itself, and a byte of its argument: with that a look is not dear.
const A_ROW: Duration = Duration::from_micros(100);
const A_BYTE: Duration = Duration::from_nanos(100);

/// A row's place in the order of the claim.
pub(crate) type Place = (i32, Uuid);

/// A part of a queue, in the order of the claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    Whole,
    /// Behind a row, to the end of the queue. An engine may stop at the end of the row's rank.
    Behind(Place),
    /// Rows of one rank, behind the one id and up to the other.
    Within {
        rank: i32,
        after: Uuid,
        until: Uuid,
    },
    /// Ranks from the one to the other.
    Ranks {
        from: i32,
        to: i32,
    },
}

/// Why a part is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The cursor of a backlog.
    Cursor,
    Start,
    /// New rows of a rank.
    New(i32),
    /// New rows of a rank, and rows that were committed late.
    Recent(i32),
    /// A slice of the older rows of a rank.
    Slice(i32),
    /// Ranks that were not seen yet.
    Gap,
    /// The whole queue, before a thorough claim answers that nothing is ready.
    Thorough,
}

/// What a claim looks at, one after the other until it has enough.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan(pub(crate) Vec<(Span, Reason)>);

impl Plan {
    /// The same, with a look at the whole queue at its end if there is none.
    pub(crate) fn thorough(mut self) -> Self {
        if self.0.iter().all(|(_, reason)| *reason != Reason::Start) {
            self.0.push((Span::Whole, Reason::Thorough));
        }
        self
    }

    /// What comes after so many looks. A look at the whole queue finds again what this claim locked in its
    /// parts, so a claim that has jobs makes none to be thorough.
    pub(crate) fn next(&self, looks: usize, has_jobs: bool) -> Option<Span> {
        let (span, reason) = self.0.get(looks)?;
        (*reason != Reason::Thorough || !has_jobs).then_some(*span)
    }
}

/// A look at one part.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Look {
    pub(crate) took: Duration,
    /// How many rows it found.
    pub(crate) rows: usize,
    /// How many bytes of arguments came with the rows while the time was taken.
    pub(crate) bytes: usize,
}

impl Look {
    /// How long the look took without what its rows cost.
    pub(crate) fn for_nothing(&self) -> Duration {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let rows = A_ROW.saturating_mul(count(self.rows));
        self.took.saturating_sub(rows + A_BYTE.saturating_mul(count(self.bytes)))
    }
}

/// What a claim found.
pub(crate) struct Found<'a> {
    pub(crate) plan: &'a Plan,
    /// The looks that were made; one that failed is the last.
    pub(crate) looks: &'a [Look],
    /// The rows, in the order in which they were found.
    pub(crate) rows: &'a [Place],
    /// There are as many rows as were asked for, so the last look that was made did not see all of its part.
    pub(crate) full: bool,
    /// The claim came to nothing after these looks: what they found is not known.
    pub(crate) failed: bool,
    /// The server's clock before the first look, in microseconds since 1970.
    pub(crate) now: i64,
    /// How long the server takes to answer anything.
    pub(crate) round_trip: Duration,
    /// A part that is cut in two makes two looks that are cheaper.
    pub(crate) ends_looks: bool,
}

impl Found<'_> {
    /// The place behind which it looked, if it began at a cursor.
    pub(crate) fn behind(&self) -> Option<Place> {
        match self.plan.0.first() {
            Some((Span::Behind(place), _)) => Some(*place),
            _ => None,
        }
    }

    /// When its looks were over, by the server's clock.
    pub(crate) fn ended(&self) -> i64 {
        let took: Duration = self.looks.iter().map(|look| look.took).sum();
        self.now.saturating_add(i64::try_from(took.as_micros()).unwrap_or(i64::MAX))
    }
}

/// How long the looks of one claim may take together. Whoever waits for its jobs waits for all of them.
pub(crate) struct Patience {
    begun: Instant,
    /// A quarter of the time until the deadline.
    at_most: Option<Duration>,
    thorough: bool,
}

/// Once there are jobs, no further look begins after this.
const WITH_JOBS: Duration = Duration::from_millis(20);

impl Patience {
    pub(crate) fn of(request: &ClaimRequest<'_>) -> Self {
        let begun = Instant::now();
        let left = request.deadline.instant().map(|at| at.saturating_duration_since(begun));
        Self { begun, at_most: left.map(|left| left / 4), thorough: request.thorough }
    }

    /// Whether another look may begin after this many `looks`; the first one always may, and each of a thorough claim
    /// that has no jobs: only the deadline ends that one.
    pub(crate) fn lasts(&self, looks: usize, has_jobs: bool) -> bool {
        let spent = self.begun.elapsed();
        let has_time = !(has_jobs && spent > WITH_JOBS);
        looks == 0
            || (self.thorough && !has_jobs)
            || (has_time && self.at_most.is_none_or(|most| spent <= most))
    }
}
