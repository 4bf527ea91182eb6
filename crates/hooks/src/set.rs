use std::fmt;
use std::sync::Arc;

use crate::{
    Decision, Failure, Hook, HookError, JobDraft, JobView, Outcome, PluginNeed, SourceLocation,
    WorkerView,
};

/// A hook that registers itself at link time; made by [`register_hook!`](crate::register_hook).
pub struct HookRegistration {
    build: fn() -> Arc<dyn Hook>,
    location: SourceLocation,
}

impl fmt::Debug for HookRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookRegistration").field("location", &self.location).finish_non_exhaustive()
    }
}

impl HookRegistration {
    /// Names the constructor and the place of the registration.
    pub const fn new(build: fn() -> Arc<dyn Hook>, location: SourceLocation) -> Self {
        Self { build, location }
    }
}

inventory::collect!(HookRegistration);

/// Registers a hook at link time: every manager that uses the linked hooks runs it.
///
/// ```
/// struct Quiet;
/// impl qudo_hooks::Hook for Quiet {
///     fn name(&self) -> &str { "quiet" }
/// }
/// qudo_hooks::register_hook!(Quiet);
/// assert_eq!(qudo_hooks::HookSet::linked()?.names(), ["quiet"]);
/// # Ok::<(), qudo_hooks::HookSetError>(())
/// ```
#[macro_export]
macro_rules! register_hook {
    ($hook:expr) => {
        $crate::inventory::submit! {
            $crate::HookRegistration::new(
                || ::std::sync::Arc::new($hook),
                $crate::SourceLocation::new(file!(), line!()),
            )
        }
    };
}

/// Hooks in the order in which they run.
#[derive(Clone, Default)]
pub struct HookSet {
    hooks: Vec<(Arc<dyn Hook>, SourceLocation)>,
}

/// Two hooks of one name.
#[derive(Debug, thiserror::Error)]
#[error(
    "two hooks are named {name:?}: one registered at {first}, one at {second}; rename or remove one"
)]
pub struct HookSetError {
    name: String,
    first: SourceLocation,
    second: SourceLocation,
}

impl fmt::Debug for HookSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl HookSet {
    /// The hooks registered at link time, sorted: the order of linking is not stable.
    ///
    /// # Errors
    ///
    /// When two of them have one name.
    pub fn linked() -> Result<Self, HookSetError> {
        let mut set = Self::default();
        for registration in inventory::iter::<HookRegistration> {
            set.insert((registration.build)(), registration.location)?;
        }
        Ok(set)
    }

    /// Adds a hook at its place in the order.
    ///
    /// # Errors
    ///
    /// When a hook of that name is already in the set.
    pub fn insert(
        &mut self,
        hook: Arc<dyn Hook>,
        location: SourceLocation,
    ) -> Result<(), HookSetError> {
        if let Some((_, first)) = self.hooks.iter().find(|(other, _)| other.name() == hook.name()) {
            return Err(HookSetError {
                name: hook.name().to_owned(),
                first: *first,
                second: location,
            });
        }
        let key = |hook: &dyn Hook| (hook.order(), hook.name().to_owned());
        let place = self.hooks.partition_point(|(other, _)| key(other.as_ref()) < key(&*hook));
        self.hooks.insert(place, (hook, location));
        Ok(())
    }

    /// Adds hooks that apply to one ability alone, under names that begin with the ability's.
    ///
    /// # Errors
    ///
    /// When a hook of such a name is already in the set.
    pub fn insert_for(&mut self, ability: &str, own: &Self) -> Result<(), HookSetError> {
        for (hook, location) in &own.hooks {
            let name = format!("{ability}/{}", hook.name());
            let only = OnlyFor { ability: ability.to_owned(), name, hook: Arc::clone(hook) };
            self.insert(Arc::new(only), *location)?;
        }
        Ok(())
    }

    /// Removes a hook by name; tells whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.hooks.len();
        self.hooks.retain(|(hook, _)| hook.name() != name);
        self.hooks.len() < before
    }

    /// Whether there is no hook at all, which lets the worker skip building views.
    pub fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }

    /// All hooks in order.
    pub fn iter(&self) -> impl Iterator<Item = &dyn Hook> {
        self.hooks.iter().map(|(hook, _)| &**hook)
    }

    /// The hooks that apply to an ability, in order.
    pub fn of<'s>(
        &'s self,
        ability: &'s str,
    ) -> impl DoubleEndedIterator<Item = &'s dyn Hook> + Clone + 's {
        self.hooks.iter().map(|(hook, _)| &**hook).filter(move |hook| hook.applies_to(ability))
    }

    /// The names in the order in which the hooks run.
    pub fn names(&self) -> Vec<&str> {
        self.hooks.iter().map(|(hook, _)| hook.name()).collect()
    }
}

/// A hook that an ability brought along.
struct OnlyFor {
    ability: String,
    name: String,
    hook: Arc<dyn Hook>,
}

impl Hook for OnlyFor {
    fn name(&self) -> &str {
        &self.name
    }

    fn order(&self) -> i32 {
        self.hook.order()
    }

    fn applies_to(&self, ability: &str) -> bool {
        ability == self.ability && self.hook.applies_to(ability)
    }

    fn pre_enqueue(&self, job: &mut JobDraft<'_>) -> Result<(), HookError> {
        self.hook.pre_enqueue(job)
    }

    fn post_enqueue(&self, job: &JobView<'_>) {
        self.hook.post_enqueue(job);
    }

    fn pre_work(&self, job: &JobView<'_>) -> Result<(), HookError> {
        self.hook.pre_work(job)
    }

    fn around_work(&self, job: &JobView<'_>, next: &mut dyn FnMut()) {
        self.hook.around_work(job, next);
    }

    fn on_failure(
        &self,
        job: &JobView<'_>,
        failure: &Failure,
        decision: &mut Decision,
    ) -> Result<(), HookError> {
        self.hook.on_failure(job, failure, decision)
    }

    fn post_work(&self, job: &JobView<'_>, outcome: &Outcome) {
        self.hook.post_work(job, outcome);
    }

    fn needs(&self) -> Vec<PluginNeed> {
        self.hook.needs()
    }

    fn post_settle(&self, job: &JobView<'_>, outcome: &Outcome) {
        self.hook.post_settle(job, outcome);
    }

    fn worker_start(&self, worker: &WorkerView<'_>) -> Result<(), HookError> {
        self.hook.worker_start(worker)
    }

    fn worker_stop(&self, worker: &WorkerView<'_>) {
        self.hook.worker_stop(worker);
    }

    fn thread_start(&self, worker: &WorkerView<'_>) {
        self.hook.thread_start(worker);
    }

    fn thread_stop(&self, worker: &WorkerView<'_>) {
        self.hook.thread_stop(worker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str, i32);

    impl Hook for Named {
        fn name(&self) -> &str {
            self.0
        }
        fn order(&self) -> i32 {
            self.1
        }
    }

    #[test]
    fn hooks_run_by_order_then_name_and_a_second_of_one_name_is_refused_with_both_places() {
        let mut set = HookSet::default();
        for hook in [Named("z", 0), Named("a", 0), Named("m", -1)] {
            set.insert(Arc::new(hook), SourceLocation::caller()).expect("new name");
        }
        assert_eq!(set.names(), ["m", "a", "z"]);
        let error = set
            .insert(Arc::new(Named("a", 7)), SourceLocation::new("here.rs", 7))
            .expect_err("duplicate");
        assert!(error.to_string().contains("here.rs:7") && error.to_string().contains("set.rs"));
        assert!(set.remove("a") && !set.remove("a"));
        assert_eq!(set.names(), ["m", "z"]);
    }
}
