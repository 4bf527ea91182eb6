use std::time::Duration;

use chrono::{DateTime, Utc};

use super::health::DatabaseState;
use crate::driver::Depth;

/// What [`Manager::database_reports`](crate::Manager::database_reports) tells of one database.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DatabaseReport {
    /// Its short name.
    pub name: String,
    /// Its engine.
    pub engine: &'static str,
    /// Its data source without a password.
    pub source: String,
    /// Whether it can be used.
    pub state: DatabaseState,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Why it is down.
    pub reason: Option<String>,
    /// How long until it is tried again.
    pub next_probe: Option<Duration>,
    /// When this manager last claimed from it without an error.
    pub last_claim: Option<DateTime<Utc>>,
    /// Whether new jobs go elsewhere; see [`Manager::drain`](crate::Manager::drain).
    pub draining: bool,
    /// Whether its jobs are left waiting; see [`Manager::pause`](crate::Manager::pause).
    pub paused: bool,
    /// How many jobs it holds; `None` when it did not answer, and in reports of a change.
    pub depth: Option<Depth>,
}
