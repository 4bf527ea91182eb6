//! The manager: the one handle through which clients enqueue and services work.
//!
//! Where each step of a job's life is:
//!
//! | step | file |
//! |---|---|
//! | options, names of databases, what is linked | `builder.rs` |
//! | hooks, encode, validate, insert with failover | `enqueue.rs`, `route.rs` |
//! | many threads' enqueues share a commit | `inserter.rs` |
//! | no database can take it: keep it, forward it | `spool.rs` |
//! | up → down → probing → up | `database.rs` |
//! | no call takes for ever | `calls.rs`, `asked.rs` |
//! | one database under one name | `identities.rs` |
//! | databases added and removed, migrations | `databases.rs` |
//! | drain and pause; moves between databases | `control.rs`, `moves.rs` |
//! | one work session: start, shutdown, its threads per database | `work.rs`, `session.rs`, `lane.rs` |
//! | claim | `fetcher.rs` |
//! | the local queue between claims and worker threads | `dispatch.rs` |
//! | run: hooks, decode, ability, outcome | `run.rs` |
//! | settle in groups | `settle_queue.rs`, `settler.rs` |
//! | heartbeat; rescue and clean-up beside it | `heartbeat.rs`, `watch.rs`, `janitor.rs` |
//! | wake-ups from other processes | `listener.rs` |
//! | questions: lookup, lists, counts, exception log | `listing.rs` |

mod asked;
mod batch;
mod builder;
mod calls;
mod control;
mod data_source;
pub(crate) mod database;
mod databases;
mod dispatch;
mod enqueue;
mod fetcher;
mod heartbeat;
pub(crate) mod identities;
mod inserter;
mod janitor;
mod lane;
mod listener;
mod listing;
mod loops;
mod moves;
mod once;
mod retire;
mod route;
mod run;
mod session;
mod settle_queue;
mod settler;
mod spool;
mod waiters;
mod watch;
mod work;
mod worker;

pub use builder::ManagerBuilder;
pub use data_source::DataSource;
pub use database::{DatabaseReport, DatabaseState};
pub use enqueue::Enqueued;
pub use listing::{JobCount, On, Undoable};
pub use loops::LoopReport;
pub use moves::Moved;
pub use spool::SpoolReport;
pub use work::WorkHandle;

pub(crate) use lane::Lane;

use crate::tools::guard::guard;
use crate::tools::sync::{Mutex, RwLock};
use crate::tools::time::SystemTime;
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Weak};

use qudo_hooks::{CodecSet, Hook, HookSet, JobId, PluginSet, SourceLocation};

use crate::ability::Linked;
use crate::driver::JobRecord;
use crate::observe::{Event, Observer};
use crate::{AbilitySet, Error, Ticket};
use builder::Options;
use database::Database;
use session::Session;
use spool::Spool;
use waiters::Waiters;

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
    databases: RwLock<Arc<[Arc<Database>]>>,
    spool: Option<Arc<Spool>>,
    abilities: AbilitySet,
    hooks: RwLock<Arc<HookSet>>,
    plugins: PluginSet,
    codecs: CodecSet,
    observer: Option<Arc<dyn Observer>>,
    /// Advances whenever a session of this process settled something, for waiting tickets.
    pub(crate) waiters: Waiters,
    session: Mutex<Option<Weak<Session>>>,
    unknown_abilities: Mutex<HashSet<String>>,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager")
            .field("databases", &self.all())
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

    /// Adds a hook; it is called from the next job on.
    ///
    /// # Errors
    ///
    /// When a hook of that name is already there.
    #[track_caller]
    pub fn register_hook(&self, hook: impl Hook + 'static) -> Result<(), Error> {
        let location = SourceLocation::caller();
        let mut hooks = self.inner.hooks.write();
        let mut set = HookSet::clone(&hooks);
        set.insert(Arc::new(hook), location)?;
        *hooks = Arc::new(set);
        Ok(())
    }

    /// Removes a hook by name; tells whether it was there.
    pub fn unregister_hook(&self, name: &str) -> bool {
        let mut hooks = self.inner.hooks.write();
        let mut set = HookSet::clone(&hooks);
        let removed = set.remove(name);
        *hooks = Arc::new(set);
        removed
    }

    /// What [`ManagerBuilder::notify_in_transactions`] says, for drivers.
    pub fn notifies_in_transactions(&self) -> bool {
        self.inner.options.notify_in_transactions
    }

    /// A ticket for a job enqueued earlier, perhaps by another process.
    pub fn ticket(&self, job: JobId) -> Ticket {
        Ticket::new(self.clone(), job, None)
    }

    /// Tells the observer, if there is one.
    pub(crate) fn tell<'e>(&self, event: impl FnOnce() -> Event<'e>) {
        let Some(observer) = &self.inner.observer else { return };
        let told = guard(|| observer.observe(&event()));
        if let Err(panic) = told {
            log::error!("the observer {}", panic);
        }
    }

    /// Tells the observer of jobs that took the place of another.
    pub(crate) fn tell_replacements(
        &self,
        jobs: &[JobRecord],
        without: &[JobId],
        database: &str,
        begun: SystemTime,
    ) {
        for job in jobs {
            if without.contains(&job.id) {
                log::warn!(
                    "database {database:?}: job {} ({}) does not replace another, because a live job \
                     holds its unique key",
                    job.id,
                    job.ability
                );
                continue;
            }
            self.tell(|| Event::Enqueued {
                job,
                database,
                doubtful: &[],
                key_may_double: false,
                begun,
            });
        }
    }

    pub(crate) fn hooks(&self) -> Arc<HookSet> {
        Arc::clone(&self.inner.hooks.read())
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
}
