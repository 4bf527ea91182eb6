//! The manager: the one handle through which clients enqueue and services work.
//!
//! Where each step of a job's life is:
//!
//! | step | file |
//! |---|---|
//! | options, names of databases, what is linked | `builder.rs` |
//! | hooks, encode, validate, insert with failover | `enqueue.rs`, `route.rs` |
//! | up → down → probing → up | `database.rs` |
//! | one work session: its threads, start and shutdown | `session.rs` |
//! | claim | `fetcher.rs` |
//! | the local queue between claims and worker threads | `dispatch.rs` |
//! | run: hooks, decode, ability, outcome | `run.rs` |
//! | settle in groups | `settler.rs` |
//! | heartbeat, rescue, clean-up | `heartbeat.rs` |
//! | wake-ups from other processes | `listener.rs` |
//! | questions: lookup, lists, counts, exception log | `listing.rs` |

mod bell;
mod builder;
pub(crate) mod database;
mod dispatch;
mod enqueue;
mod fetcher;
mod heartbeat;
mod listener;
mod listing;
mod names;
mod once;
mod route;
mod run;
mod session;
mod settler;
mod worker;

pub use builder::ManagerBuilder;
pub use database::{DatabaseReport, DatabaseState};
pub use enqueue::Enqueued;
pub use listing::{JobCount, On};
pub use session::WorkHandle;

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use qudo_hooks::{CodecSet, Hook, HookSet, JobId, PluginSet, SourceLocation};

use crate::ability::Linked;
use crate::driver::SchemaState;
use crate::{AbilitySet, Error, Ticket};
use bell::Epoch;
use builder::Options;
use database::Database;

/// The handle to all databases: clients enqueue through it, services work through it.
///
/// A cheap clone, `Send + Sync`; all methods block the calling thread, so do not call them on
/// a thread of an async runtime.
#[derive(Clone)]
pub struct Manager {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    options: Options,
    databases: Vec<Arc<Database>>,
    abilities: AbilitySet,
    hooks: RwLock<Arc<HookSet>>,
    plugins: PluginSet,
    codecs: CodecSet,
    /// Advances whenever a session of this process settled something, for waiting tickets.
    pub(crate) settled: Epoch,
    working: AtomicBool,
    unknown_abilities: Mutex<HashSet<String>>,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("databases", &self.inner.databases)
            .field("abilities", &self.inner.abilities)
            .field("hooks", &self.hooks())
            .finish_non_exhaustive()
    }
}

impl Manager {
    /// Starts to describe a manager.
    pub fn builder() -> ManagerBuilder {
        ManagerBuilder::default()
    }

    /// The abilities of this manager, with the places where they are registered.
    pub fn abilities(&self) -> Vec<Linked> {
        self.inner.abilities.list()
    }

    /// Whether this manager can do jobs of this ability.
    pub fn can_do(&self, ability: &str) -> bool {
        self.inner.abilities.can_do(ability)
    }

    /// The databases with their state.
    pub fn databases(&self) -> Vec<DatabaseReport> {
        self.inner.databases.iter().map(|database| database.report()).collect()
    }

    /// Adds a hook; it is called from the next job on.
    ///
    /// # Errors
    ///
    /// When a hook of that name is already there.
    #[track_caller]
    pub fn register_hook(&self, hook: impl Hook + 'static) -> Result<(), Error> {
        let location = SourceLocation::caller();
        let mut hooks = self.inner.hooks.write().unwrap_or_else(PoisonError::into_inner);
        let mut set = HookSet::clone(&hooks);
        set.insert(Arc::new(hook), location)?;
        *hooks = Arc::new(set);
        Ok(())
    }

    /// Removes a hook by name; tells whether it was there.
    pub fn unregister_hook(&self, name: &str) -> bool {
        let mut hooks = self.inner.hooks.write().unwrap_or_else(PoisonError::into_inner);
        let mut set = HookSet::clone(&hooks);
        let removed = set.remove(name);
        *hooks = Arc::new(set);
        removed
    }

    /// Creates or updates the tables in every database; returns what was applied where.
    ///
    /// # Errors
    ///
    /// The first database that does not answer, is newer than this program, or refuses.
    pub fn migrate(&self) -> Result<Vec<On<Vec<String>>>, Error> {
        self.migrate_each()
            .into_iter()
            .map(|one| one.answer.map(|applied| On { database: one.database, answer: Ok(applied) }))
            .collect()
    }

    /// As [`migrate`](Self::migrate), with one answer per database.
    pub fn migrate_each(&self) -> Vec<On<Vec<String>>> {
        self.on_each("migrate", |driver| driver.migrate())
    }

    /// A ticket for a job enqueued earlier, perhaps by another process.
    pub fn ticket(&self, job: JobId) -> Ticket {
        Ticket::new(self.clone(), job, None)
    }

    pub(crate) fn hooks(&self) -> Arc<HookSet> {
        Arc::clone(&self.inner.hooks.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn plugins(&self) -> &PluginSet {
        &self.inner.plugins
    }

    pub(crate) fn codecs(&self) -> &CodecSet {
        &self.inner.codecs
    }

    pub(crate) fn options(&self) -> &Options {
        &self.inner.options
    }

    pub(crate) fn all(&self) -> &[Arc<Database>] {
        &self.inner.databases
    }

    pub(crate) fn find(&self, name: &str) -> Result<&Arc<Database>, Error> {
        self.all().iter().find(|database| &*database.name == name).ok_or_else(|| {
            let known: Vec<_> = self.all().iter().map(|database| &*database.name).collect();
            Error::UnknownDatabase { name: name.to_owned(), known: known.join(", ") }
        })
    }

    /// Refuses a database that answers with a schema this program cannot work on.
    fn check_schema(database: &Database) -> Result<(), Error> {
        let state = database.call("read its schema version", |driver| driver.schema())?;
        let reason = match state {
            SchemaState::Current => return Ok(()),
            SchemaState::Behind(missing) => format!(
                "{} migrations of qudo are not applied (first: {}); run `qudo migrate --database \
                 DSN` or call Manager::migrate",
                missing.len(),
                missing.first().map_or("none", String::as_str)
            ),
            SchemaState::Ahead(unknown) => format!(
                "its schema is newer than this program (unknown: {}); update the program",
                unknown.join(", ")
            ),
        };
        Err(Error::Schema { database: database.name.to_string(), reason })
    }
}

/// Spreads waits over 75–125 % so that processes started together do not ask together.
fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + fastrand::f64() / 2.0)
}
