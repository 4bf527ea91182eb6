//! What a manager is built from: options, abilities, hooks, plugins, codecs, an observer. Clients and workers both
//! need it, and it knows neither of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::{CodecSet, Hook, HookSet, JobId, PluginSet, SourceLocation};

use crate::ability::AbilitySet;
use crate::driver::{AbilityLease, JobRecord, WorkerId, WorkerInfo};
use crate::error::Error;
use crate::observe::{Event, Observer};
use crate::options::Options;
use crate::tools::guard::guard;
use crate::tools::sync::{Mutex, RwLock};
use crate::tools::time::SystemTime;

/// The log warns of this many different names of abilities that are not linked.
const MOST_WARNINGS: usize = 1_000;

pub(crate) struct Program {
    pub(crate) options: Options,
    pub(crate) abilities: AbilitySet,
    pub(crate) plugins: PluginSet,
    pub(crate) codecs: CodecSet,
    hooks: RwLock<Arc<HookSet>>,
    observer: Option<Arc<dyn Observer>>,
    unknown_abilities: Mutex<HashSet<String>>,
}

impl Program {
    pub(crate) fn new(
        options: Options,
        abilities: AbilitySet,
        hooks: HookSet,
        plugins: PluginSet,
        codecs: CodecSet,
        observer: Option<Arc<dyn Observer>>,
    ) -> Self {
        let (hooks, unknown_abilities) = (RwLock::new(Arc::new(hooks)), Mutex::default());
        Self { options, abilities, plugins, codecs, hooks, observer, unknown_abilities }
    }

    /// The hooks as they are now.
    pub(crate) fn hooks(&self) -> Arc<HookSet> {
        Arc::clone(&self.hooks.read())
    }

    pub(crate) fn register_hook(
        &self,
        hook: Arc<dyn Hook>,
        location: SourceLocation,
    ) -> Result<(), Error> {
        let mut hooks = self.hooks.write();
        let mut set = HookSet::clone(&hooks);
        set.insert(hook, location)?;
        *hooks = Arc::new(set);
        Ok(())
    }

    pub(crate) fn unregister_hook(&self, name: &str) -> bool {
        let mut hooks = self.hooks.write();
        let mut set = HookSet::clone(&hooks);
        let removed = set.remove(name);
        *hooks = Arc::new(set);
        removed
    }

    /// A client need not link the ability, but a typing error should not pass in silence.
    pub(crate) fn warn_once_of_unknown(&self, ability: &str) {
        if self.abilities.is_empty() || self.abilities.can_do(ability) {
            return;
        }
        let mut warned = self.unknown_abilities.lock();
        // A gateway may take the names from its requests.
        if warned.len() < MOST_WARNINGS && warned.insert(ability.to_owned()) {
            log::warn!("enqueuing jobs for {ability:?}, which is not linked in this program");
        }
    }

    /// A new worker process, or one call of `work_once`.
    pub(crate) fn worker_info(&self) -> WorkerInfo {
        let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
        let host = match host.trim() {
            "" => "host",
            name => name,
        };
        WorkerInfo {
            id: WorkerId::new(),
            name: format!("{host}:{}", std::process::id()),
            dead_after: self.options.dead_after,
        }
    }

    /// The abilities that are claimed for, each with how long its leases last.
    pub(crate) fn leases(&self) -> Arc<[AbilityLease]> {
        let default = self.options.grab_for;
        let lease = |(name, grab_for): (&Arc<str>, Option<Duration>)| AbilityLease {
            name: Arc::clone(name),
            grab_for: grab_for.unwrap_or(default),
        };
        let names = self.abilities.names();
        names.map(|(name, entry)| lease((name, entry.options.grab_for))).collect()
    }

    /// The queues that are claimed from.
    pub(crate) fn queues(&self) -> Vec<Arc<str>> {
        self.options.queues.clone().unwrap_or_else(|| self.abilities.queues())
    }

    /// Tells the observer, if there is one.
    pub(crate) fn tell<'e>(&self, event: impl FnOnce() -> Event<'e>) {
        let Some(observer) = &self.observer else { return };
        if let Err(panic) = guard(|| observer.observe(&event())) {
            log::error!("the observer {panic}");
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
}
