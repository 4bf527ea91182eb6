//! The loops of a worker process: each contains its panics, starts again with growing pauses, ends only
//! when it is asked to, and tells when it last did what it is for.

use crate::tools::guard::{guard, say};
use crate::tools::threads::sleep;
use crate::tools::time::Instant;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Manager;
use super::lane::Lane;
use super::session::Session;

/// A loop that panicked starts again this soon; each panic doubles the pause.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// After so long without a panic the next one is taken for a first.
const CALM: Duration = Duration::from_secs(60);

/// Meanwhile a stop is noticed this soon.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Before the first success.
const NEVER: u64 = u64::MAX;

/// What a loop of a lane does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Fetch,
    Settle,
    Heartbeat,
    Janitor,
    Listen,
}

impl Kind {
    const ALL: [Self; 5] =
        [Self::Fetch, Self::Settle, Self::Heartbeat, Self::Janitor, Self::Listen];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Settle => "settle",
            Self::Heartbeat => "heartbeat",
            Self::Janitor => "janitor",
            Self::Listen => "listen",
        }
    }
}

/// How one loop of this worker process fares, from [`Manager::loops`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopReport {
    /// The short name of the database that it works for.
    pub database: String,
    /// What it does: `fetch` claims jobs, `settle` ends runs, `heartbeat` says that the process lives,
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

    fn note_panic(&self, kind: Kind) {
        self.each[kind as usize].panics.fetch_add(1, Ordering::Relaxed);
    }

    fn reports(&self, database: &str, listens: bool) -> impl Iterator<Item = LoopReport> {
        let now = self.started.elapsed();
        let kinds = Kind::ALL.into_iter().filter(move |kind| listens || *kind != Kind::Listen);
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

impl Manager {
    /// How the loops of this process's work fare, for each database: a loop whose last success grows old
    /// while its database is up hangs. Empty while the manager does not work.
    pub fn loops(&self) -> Vec<LoopReport> {
        let Some(session) = self.session() else { return Vec::new() };
        let lanes = session.lanes();
        let report = |lane: &std::sync::Arc<Lane>| {
            let reports = lane.pulses.reports(&lane.database.name, lane.listens());
            reports.collect::<Vec<_>>()
        };
        lanes.iter().flat_map(report).collect()
    }
}

/// Runs a loop until it returns, over its panics.
pub(super) fn supervise(session: &Session, lane: &Lane, kind: Kind, mut run: impl FnMut()) {
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
        while Instant::now() < again && !lane.is_stopping(session) {
            sleep(LOOK_EVERY.min(pause));
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
