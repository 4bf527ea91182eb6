//! What a manager is built from: options, abilities, hooks, plugins, codecs, an observer. Clients and workers both
//! need it, and it knows neither of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::{CodecSet, Hook, HookError, HookSet, JobId, PluginSet, SourceLocation};

use crate::ability::AbilitySet;
use crate::driver::{AbilityLease, JobRecord, Name, WorkerInfo};
use crate::error::Error;
use crate::observe::{Event, Observer};
use crate::options::Options;
use crate::tools::guard::guard;
use crate::tools::sync::{Mutex, RwLock};
use crate::tools::time::SystemTime;

/// The log warns of this many different names of abilities that are not linked.
const MAX_WARNINGS: usize = 1_000;

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

    /// Refuses to work without a plugin that an ability or a hook says it needs.
    pub(crate) fn check_needs(&self) -> Result<(), Error> {
        for entry in self.abilities.iter() {
            let needs = entry.options.needs.iter().copied();
            self.plugins.check(needs, &format!("the ability {:?}", entry.name))?;
        }
        for hook in self.hooks().iter() {
            let needs = guard(|| hook.needs()).map_err(|panic| {
                let (hook, source) = (hook.name().to_owned(), HookError::new(panic));
                Error::HookNotStarted { hook, source }
            })?;
            self.plugins.check(needs, &format!("the hook {:?}", hook.name()))?;
        }
        Ok(())
    }

    /// A client need not link the ability, but a typing error should not pass in silence.
    pub(crate) fn warn_once_of_unknown(&self, ability: &str) {
        if self.abilities.is_empty() || self.abilities.can_do(ability) {
            return;
        }
        let mut warned = self.unknown_abilities.lock();
        // A gateway may take the names from its requests.
        if warned.len() < MAX_WARNINGS && warned.insert(ability.to_owned()) {
            log::warn!("enqueuing jobs for {ability:?}, which is not linked in this program");
        }
    }

    /// How many retries an ability allows; 0 of one that is not known here.
    pub(crate) fn max_retries(&self, ability: &str) -> u32 {
        self.abilities.get(ability).map_or(0, |entry| entry.options.max_retries)
    }

    /// Host and number of this process.
    pub(crate) fn process_name() -> String {
        let host = gethostname::gethostname();
        format!("{}:{}", host.to_string_lossy(), std::process::id())
    }

    /// A new worker process, or one call of `work_once`.
    pub(crate) fn worker_info(&self) -> WorkerInfo {
        let name = Self::process_name();
        WorkerInfo {
            version: self.options.version.clone(),
            abilities: self.abilities.names().map(|(name, _)| name.clone()).collect(),
            queues: self.queues().into(),
            ..WorkerInfo::new(name, self.options.dead_after)
        }
    }

    /// The abilities that are claimed for, each with how long its leases last.
    pub(crate) fn leases(&self) -> Arc<[AbilityLease]> {
        let default = self.options.grab_for;
        let lease = |(name, grab_for): (&Name, Option<Duration>)| AbilityLease {
            name: name.clone(),
            grab_for: grab_for.unwrap_or(default),
        };
        let names = self.abilities.names();
        names.map(|(name, entry)| lease((name, entry.options.grab_for))).collect()
    }

    /// The queues that are claimed from.
    pub(crate) fn queues(&self) -> Vec<Name> {
        self.options.queues.clone().unwrap_or_else(|| self.abilities.queues())
    }

    /// Whether there is an observer.
    pub(crate) fn is_observed(&self) -> bool {
        self.observer.is_some()
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
                    job.facts.ability
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::ability::Ability;
    use crate::ability_options::AbilityOptions;
    use crate::fixture::{self, SOON};
    use crate::job::Job;
    use crate::job_error::JobResult;

    struct Mail;

    impl Ability for Mail {
        const NAME: &'static str = "mail";
        type Arg = ();
        type Reply = ();

        fn options() -> AbilityOptions {
            AbilityOptions::default().queue("post").grab_for(SOON)
        }

        fn work(_: &Job, (): ()) -> JobResult<()> {
            Ok(())
        }
    }

    fn program(options: Options) -> Program {
        let mut abilities = AbilitySet::default();
        abilities.insert::<Mail>(SourceLocation::new("here", 1)).expect("is new");
        fixture::program_with(abilities, HookSet::default(), options)
    }

    #[test]
    fn queues_are_those_of_the_abilities_unless_they_are_named() {
        let names = |program: &Program| {
            program.queues().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names(&program(Options::default())), ["post"]);
        let queues = Some(vec!["other".into()]);
        assert_eq!(names(&program(Options { queues, ..Options::default() })), ["other"]);
    }

    #[test]
    fn a_lease_lasts_as_long_as_its_ability_says_or_the_manager() {
        let leases = program(Options::default()).leases();
        assert_eq!((&*leases[0].name, leases[0].grab_for), ("mail", SOON));
    }

    #[test]
    fn each_start_is_another_worker() {
        let program = program(Options::default());
        let (one, two) = (program.worker_info(), program.worker_info());
        assert_ne!(one.id, two.id);
        assert_eq!(one.name, two.name);
        assert!(one.name.ends_with(&format!(":{}", std::process::id())), "{}", one.name);
        assert_eq!(one.dead_after, program.options.dead_after);
    }

    struct Named(&'static str);

    impl Hook for Named {
        fn name(&self) -> &'static str {
            self.0
        }
    }

    #[test]
    fn a_hook_is_there_from_the_next_job_on_and_its_name_is_taken_once() {
        let program = program(Options::default());
        let before = program.hooks();
        let here = SourceLocation::new("here", 1);
        program.register_hook(Arc::new(Named("one")), here).expect("is new");
        assert!(before.is_empty() && !program.hooks().is_empty(), "who runs has the old ones");
        assert!(program.register_hook(Arc::new(Named("one")), here).is_err());
        assert!(program.unregister_hook("one") && !program.unregister_hook("one"));
        assert!(program.hooks().is_empty());
    }

    struct Counting(Arc<AtomicU32>);

    impl Observer for Counting {
        fn observe(&self, event: &Event<'_>) {
            let count = self.0.fetch_add(1, Ordering::Relaxed);
            assert!(count > 0, "on purpose, at {event:?}");
        }
    }

    #[test]
    fn an_observer_that_panics_is_told_of_the_next_step_all_the_same() {
        let told = Arc::new(AtomicU32::new(0));
        let (plugins, codecs) = (PluginSet::default(), CodecSet::default());
        let observer: Arc<dyn Observer> = Arc::new(Counting(Arc::clone(&told)));
        let program = Program::new(
            Options::default(),
            AbilitySet::default(),
            HookSet::default(),
            plugins,
            codecs,
            Some(observer),
        );
        let jobs = [fixture::record(), fixture::record(), fixture::record()];
        program.tell_replacements(&jobs, &[jobs[1].id], "one", SystemTime::now());
        assert_eq!(told.load(Ordering::Relaxed), 2, "one of them is not stored");
    }
}
