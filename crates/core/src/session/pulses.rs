//! How the loops of a lane fare.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::tools::time::Instant;

/// Before the first success.
const NEVER: u64 = u64::MAX;

/// What a loop of a lane does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Fetch,
    /// As the first, beside it while there is a backlog.
    FetchBeside,
    Settle,
    Heartbeat,
    Janitor,
    Listen,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Fetch,
        Self::FetchBeside,
        Self::Settle,
        Self::Heartbeat,
        Self::Janitor,
        Self::Listen,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::FetchBeside => "fetch-beside",
            Self::Settle => "settle",
            Self::Heartbeat => "heartbeat",
            Self::Janitor => "janitor",
            Self::Listen => "listen",
        }
    }
}

/// How one loop of this worker process fares, from [`Manager::loops`](crate::Manager::loops).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopReport {
    /// The short name of the database that it works for.
    pub database: String,
    /// What it does: `fetch` claims jobs, `fetch-beside` does so at the same
    /// time where that is faster, `settle` ends runs, `heartbeat` says that the process lives,
    /// `janitor` rescues and cleans up, `listen` hears of new jobs.
    pub name: &'static str,
    /// How long ago it last did that, or found that nothing was to be done; `None` before the first time. A
    /// loop that has nothing to do looks every [`delay`](crate::ManagerBuilder::delay) at the latest, and one
    /// whose database is away has no successes.
    pub last_success: Option<Duration>,
    /// How often it panicked and was started again.
    pub panics: u64,
}

/// What is known of the loops of one lane.
pub(crate) struct Pulses {
    started: Instant,
    each: [Pulse; Kind::ALL.len()],
}

struct Pulse {
    /// Milliseconds since the start.
    success: AtomicU64,
    panics: AtomicU64,
}

impl Default for Pulses {
    fn default() -> Self {
        let each =
            Kind::ALL.map(|_| Pulse { success: AtomicU64::new(NEVER), panics: AtomicU64::new(0) });
        Self { started: Instant::now(), each }
    }
}

impl Pulses {
    /// A loop did what it is for.
    pub(crate) fn beat(&self, kind: Kind) {
        let now = self.started.elapsed().as_millis() as u64;
        self.each[kind as usize].success.store(now, Ordering::Relaxed);
    }

    pub(crate) fn note_panic(&self, kind: Kind) {
        self.each[kind as usize].panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn reports(
        &self,
        database: &str,
        has: impl Fn(Kind) -> bool,
    ) -> impl Iterator<Item = LoopReport> {
        let now = self.started.elapsed();
        let kinds = Kind::ALL.into_iter().filter(move |kind| has(*kind));
        kinds.map(move |kind| {
            let Pulse { success, panics } = &self.each[kind as usize];
            let success = Some(success.load(Ordering::Relaxed)).filter(|at| *at != NEVER);
            LoopReport {
                database: database.to_owned(),
                name: kind.as_str(),
                last_success: success.map(|at| now.saturating_sub(Duration::from_millis(at))),
                panics: panics.load(Ordering::Relaxed),
            }
        })
    }
}
