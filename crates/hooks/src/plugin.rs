use std::any::{Any, TypeId, type_name};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{SourceLocation, WorkerView};

/// A named object that a manager builds once from options and its abilities share: a mailer, an
/// HTTP client, a pool of connections.
///
/// Anything that is `Send + Sync` can be given to a manager as a plugin without this trait; it is for
/// those that register themselves at link time, or are configured by name.
///
/// ```
/// use std::error::Error;
/// use qudo_hooks::{Plugin, PluginSet};
/// use serde::Deserialize;
/// use serde_json::json;
///
/// struct Mailer { relay: String }
///
/// #[derive(Deserialize)]
/// struct MailerOptions { relay: String }
///
/// impl Plugin for Mailer {
///     const NAME: &'static str = "mailer";
///     type Options = MailerOptions;
///     fn build(options: MailerOptions) -> Result<Self, Box<dyn Error + Send + Sync>> {
///         Ok(Self { relay: options.relay })
///     }
/// }
/// qudo_hooks::register_plugin!(Mailer);
///
/// let mut plugins = PluginSet::default();
/// plugins.build_linked(&[("mailer".to_owned(), json!({"relay": "mx1"}))].into())?;
/// assert_eq!(plugins.get::<Mailer>()?.relay, "mx1");
/// # Ok::<(), qudo_hooks::PluginError>(())
/// ```
pub trait Plugin: Sized + Send + Sync + 'static {
    /// The name under which options are given.
    const NAME: &'static str;

    /// What it is built from. For a plugin without options `()`.
    type Options: DeserializeOwned;

    /// Builds it; called once per manager, on the thread that builds the manager.
    ///
    /// # Errors
    ///
    /// Whatever is in the way: the manager is not built then.
    fn build(options: Self::Options) -> Result<Self, Failed>;

    /// Called when the manager begins to work, before its hooks are and before it claims a job, on the thread that
    /// calls `work()` or `start()`; plugins start in the order of their names. Not called by a manager that only
    /// enqueues, nor by `work_once`.
    ///
    /// # Errors
    ///
    /// Whatever is in the way: the work does not begin then, and those that were started are stopped.
    fn start(&self, worker: &WorkerView<'_>) -> Result<(), Failed> {
        let _ = worker;
        Ok(())
    }

    /// Called when the work has ended and what ran is settled, or the shutdown timeout is over; the last that started is
    /// the first that stops. A panic is logged.
    fn stop(&self, worker: &WorkerView<'_>) {
        let _ = worker;
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

type Shared = Arc<dyn Any + Send + Sync>;

/// A plugin that registers itself at link time; made by
/// [`register_plugin!`](crate::register_plugin).
pub struct PluginRegistration {
    name: &'static str,
    type_id: fn() -> TypeId,
    build: fn(&Value) -> Result<Entry, PluginError>,
    life: Life,
    location: SourceLocation,
}

impl fmt::Debug for PluginRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginRegistration")
            .field("name", &self.name)
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

/// What is called at the start and at the end of the work.
#[derive(Clone, Copy)]
struct Life {
    name: &'static str,
    start: fn(&(dyn Any + Send + Sync), &WorkerView<'_>) -> Result<(), Failed>,
    stop: fn(&(dyn Any + Send + Sync), &WorkerView<'_>),
}

impl Life {
    const fn of<P: Plugin>() -> Self {
        Self {
            name: P::NAME,
            start: |plugin, worker| {
                plugin.downcast_ref::<P>().map_or(Ok(()), |it| it.start(worker))
            },
            stop: |plugin, worker| {
                if let Some(plugin) = plugin.downcast_ref::<P>() {
                    plugin.stop(worker);
                }
            },
        }
    }
}

#[derive(Clone)]
struct Entry {
    type_name: &'static str,
    plugin: Shared,
    life: Option<Life>,
}

impl Entry {
    fn of<P: Plugin>(plugin: P) -> Self {
        Self { type_name: type_name::<P>(), plugin: Arc::new(plugin), life: Some(Life::of::<P>()) }
    }
}

/// A plugin that an ability or a hook needs, by its type.
///
/// ```
/// use qudo_hooks::{PluginNeed, PluginSet};
///
/// struct Mailer;
///
/// let mut plugins = PluginSet::default();
/// let missing = plugins.check([PluginNeed::of::<Mailer>()], "the hook \"mails\"");
/// assert!(missing.unwrap_err().to_string().contains("Mailer"));
/// plugins.insert(Mailer)?;
/// plugins.check([PluginNeed::of::<Mailer>()], "the hook \"mails\"")?;
/// # Ok::<(), qudo_hooks::PluginError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluginNeed {
    type_id: TypeId,
    type_name: &'static str,
}

impl PluginNeed {
    /// A plugin of this type.
    pub fn of<P: Send + Sync + 'static>() -> Self {
        Self { type_id: TypeId::of::<P>(), type_name: type_name::<P>() }
    }
}

/// A plugin that starts and stops with the work.
#[derive(Clone, Copy)]
pub struct LivePlugin<'a> {
    life: Life,
    plugin: &'a (dyn Any + Send + Sync),
}

impl fmt::Debug for LivePlugin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LivePlugin").field(&self.life.name).finish()
    }
}

impl LivePlugin<'_> {
    /// The name under which it gets options.
    pub fn name(&self) -> &'static str {
        self.life.name
    }

    /// Calls [`Plugin::start`].
    ///
    /// # Errors
    ///
    /// [`PluginError::Start`].
    pub fn start(&self, worker: &WorkerView<'_>) -> Result<(), PluginError> {
        (self.life.start)(self.plugin, worker)
            .map_err(|source| PluginError::Start { name: self.life.name.to_owned(), source })
    }

    /// Calls [`Plugin::stop`].
    pub fn stop(&self, worker: &WorkerView<'_>) {
        (self.life.stop)(self.plugin, worker);
    }
}

impl PluginRegistration {
    /// Names the plugin and the place of its registration.
    pub const fn of<P: Plugin>(location: SourceLocation) -> Self {
        let (type_id, build, life) = (TypeId::of::<P>, build::<P>, Life::of::<P>());
        Self { name: P::NAME, type_id, build, life, location }
    }
}

inventory::collect!(PluginRegistration);

/// Registers [`Plugin`] types at link time: every manager that uses what is linked builds them.
#[macro_export]
macro_rules! register_plugin {
    ($($plugin:ty),+ $(,)?) => {
        $($crate::inventory::submit! {
            $crate::PluginRegistration::of::<$plugin>(
                $crate::SourceLocation::new(file!(), line!()),
            )
        })+
    };
}

fn build<P: Plugin>(options: &Value) -> Result<Entry, PluginError> {
    let failed = |source| PluginError::Build { name: P::NAME.to_owned(), source };
    let given = serde_json::from_value(options.clone());
    // Options that all have defaults need not be given at all.
    let options = match given {
        Err(_) if options.is_null() => {
            serde_json::from_value(Value::Object(serde_json::Map::default()))
        }
        given => given,
    };
    let options: P::Options = options.map_err(|error| failed(error.into()))?;
    Ok(Entry::of(P::build(options).map_err(failed)?))
}

/// Objects that abilities share, such as a mailer or an HTTP client, found by their type.
#[derive(Clone, Default)]
pub struct PluginSet {
    plugins: HashMap<TypeId, Entry>,
}

/// A plugin that is registered twice or not at all, or cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// Two plugins of one type: abilities could not tell them apart.
    #[error("a plugin of the type {0} is already registered; wrap the second in a type of its own")]
    Duplicate(&'static str),
    /// Two plugins register themselves under one name.
    #[error("two plugins are named {name:?}: one registered at {first}, one at {second}")]
    DuplicateName {
        /// The name.
        name: &'static str,
        /// Where the first is registered.
        first: SourceLocation,
        /// Where the second is registered.
        second: SourceLocation,
    },
    /// The ability asks for a plugin that the manager does not have.
    #[error("no plugin of the type {0}; add it with the manager builder's `plugin`")]
    Missing(&'static str),
    /// An ability or a hook says that it needs a plugin that the manager does not have.
    #[error("{by} needs a plugin of the type {plugin}; add it with the manager builder's `plugin`")]
    Needed {
        /// Its type.
        plugin: &'static str,
        /// Who needs it.
        by: String,
    },
    /// It did not start, so the work does not begin.
    #[error("the plugin {name:?} did not start: {source}")]
    Start {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Options are given for a plugin that nobody linked.
    #[error("options are given for the plugin {name:?}, which is not linked; linked are: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Those there are.
        known: String,
    },
    /// Its options do not fit, or it could not be built from them.
    #[error("the plugin {name:?} cannot be built")]
    Build {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl PluginError {
    pub(crate) fn missing<P>() -> Self {
        Self::Missing(type_name::<P>())
    }
}

impl fmt::Debug for PluginSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.plugins.values().map(|one| one.type_name)).finish()
    }
}

impl PluginSet {
    /// Adds a plugin.
    ///
    /// # Errors
    ///
    /// When a plugin of that type is already there.
    pub fn insert<P: Send + Sync + 'static>(&mut self, plugin: P) -> Result<(), PluginError> {
        let name = type_name::<P>();
        if self.plugins.contains_key(&TypeId::of::<P>()) {
            return Err(PluginError::Duplicate(name));
        }
        let entry = Entry { type_name: name, plugin: Arc::new(plugin), life: None };
        self.plugins.insert(TypeId::of::<P>(), entry);
        Ok(())
    }

    /// Adds a plugin that starts and stops with the work.
    ///
    /// # Errors
    ///
    /// When a plugin of that type is already there.
    pub fn insert_live<P: Plugin>(&mut self, plugin: P) -> Result<(), PluginError> {
        self.insert(plugin)?;
        self.give_life(TypeId::of::<P>(), Life::of::<P>());
        Ok(())
    }

    fn give_life(&mut self, type_id: TypeId, life: Life) {
        if let Some(entry) = self.plugins.get_mut(&type_id) {
            entry.life = Some(life);
        }
    }

    /// Those that start and stop with the work, in the order of their names.
    pub fn live(&self) -> Vec<LivePlugin<'_>> {
        let mut all = Vec::new();
        for one in self.plugins.values() {
            all.extend(one.life.map(|life| LivePlugin { life, plugin: &*one.plugin }));
        }
        all.sort_by_key(LivePlugin::name);
        all
    }

    /// Checks that all these are there; `by` says who needs them, as `the ability "mail"`.
    ///
    /// # Errors
    ///
    /// [`PluginError::Needed`] for the first that is not.
    pub fn check(
        &self,
        needs: impl IntoIterator<Item = PluginNeed>,
        by: &str,
    ) -> Result<(), PluginError> {
        let missing = needs.into_iter().find(|need| !self.plugins.contains_key(&need.type_id));
        missing.map_or(Ok(()), |need| {
            Err(PluginError::Needed { plugin: need.type_name, by: by.to_owned() })
        })
    }

    /// Builds a plugin from options and adds it.
    ///
    /// # Errors
    ///
    /// When a plugin of that type is already there, or it cannot be built from the options.
    pub fn insert_built<P: Plugin>(&mut self, options: P::Options) -> Result<(), PluginError> {
        let built = P::build(options)
            .map_err(|source| PluginError::Build { name: P::NAME.to_owned(), source })?;
        self.insert_live(built)
    }

    /// Builds the plugins that registered themselves at link time, each with the options of its
    /// name. Of one whose type is in the set already none is built: what was given explicitly wins, and starts and
    /// stops with the work.
    ///
    /// # Errors
    ///
    /// When two have one name, one cannot be built, or options are given for none.
    pub fn build_linked(&mut self, options: &BTreeMap<String, Value>) -> Result<(), PluginError> {
        let mut linked: BTreeMap<&'static str, &PluginRegistration> = BTreeMap::new();
        for registration in inventory::iter::<PluginRegistration> {
            if let Some(first) = linked.insert(registration.name, registration) {
                return Err(PluginError::DuplicateName {
                    name: registration.name,
                    first: first.location,
                    second: registration.location,
                });
            }
        }
        if let Some(name) = options.keys().find(|name| !linked.contains_key(name.as_str())) {
            let known: Vec<_> = linked.keys().copied().collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(PluginError::Unknown { name: name.clone(), known });
        }
        for (name, registration) in linked {
            let type_id = (registration.type_id)();
            if self.plugins.contains_key(&type_id) {
                self.give_life(type_id, registration.life);
                continue;
            }
            let options = options.get(name).unwrap_or(&Value::Null);
            self.plugins.insert(type_id, (registration.build)(options)?);
        }
        Ok(())
    }

    /// Finds a plugin by its type.
    ///
    /// # Errors
    ///
    /// When there is none of that type.
    pub fn get<P: Send + Sync + 'static>(&self) -> Result<&P, PluginError> {
        self.plugins
            .get(&TypeId::of::<P>())
            .and_then(|one| one.plugin.downcast_ref())
            .ok_or_else(PluginError::missing::<P>)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plugin_is_found_by_type_refused_twice_and_missed_by_name() {
        let mut set = PluginSet::default();
        set.insert(7_u8).expect("first");
        assert_eq!(set.get::<u8>().expect("there"), &7);
        assert!(set.insert(8_u8).is_err());
        assert!(set.get::<String>().expect_err("missing").to_string().contains("String"));
    }

    #[derive(Debug, PartialEq)]
    struct Greeter(String);

    #[derive(serde::Deserialize)]
    struct Words {
        #[serde(default)]
        word: String,
    }

    impl Plugin for Greeter {
        const NAME: &'static str = "greeter";
        type Options = Words;
        fn build(options: Words) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
            if options.word == "bad" {
                return Err("a bad word".into());
            }
            Ok(Self(options.word))
        }

        fn start(&self, worker: &WorkerView<'_>) -> Result<(), Failed> {
            if self.0 == "late" {
                Err(format!("{} is closed", worker.name()).into())
            } else {
                Ok(())
            }
        }
    }

    crate::register_plugin!(Greeter);

    fn linked(options: &[(&str, Value)]) -> Result<PluginSet, PluginError> {
        let mut set = PluginSet::default();
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        set.build_linked(&options.collect())?;
        Ok(set)
    }

    #[test]
    fn a_linked_plugin_is_built_from_its_options_or_their_defaults() {
        let set = linked(&[("greeter", json!({"word": "hello"}))]).expect("builds");
        assert_eq!(set.get::<Greeter>().expect("built").0, "hello");
        assert_eq!(linked(&[]).expect("builds").get::<Greeter>().expect("built").0, "");
        let mut set = PluginSet::default();
        set.insert(Greeter("mine".to_owned())).expect("first");
        set.build_linked(&BTreeMap::new()).expect("leaves it");
        assert_eq!(set.get::<Greeter>().expect("there").0, "mine");
    }

    #[test]
    fn those_that_implement_the_trait_start_and_stop_however_they_came() {
        let names = |set: &PluginSet| set.live().iter().map(LivePlugin::name).collect::<Vec<_>>();
        let mut given = PluginSet::default();
        given.insert(Greeter("late".to_owned())).expect("first");
        given.insert(7_u8).expect("first");
        assert!(names(&given).is_empty(), "nobody knows yet that it is one");
        given.build_linked(&BTreeMap::new()).expect("leaves it");
        assert_eq!(names(&given), ["greeter"]);
        let error = given.live()[0].start(&WorkerView::new("host:1", &given));
        let error = error.expect_err("it is late").to_string();
        assert_eq!(error, "the plugin \"greeter\" did not start: host:1 is closed");
        let mut built = PluginSet::default();
        built.insert_built::<Greeter>(Words { word: "hello".to_owned() }).expect("builds");
        assert_eq!(names(&built), ["greeter"]);
        built.live()[0].start(&WorkerView::new("host:1", &built)).expect("starts");
    }

    #[test]
    fn who_needs_a_plugin_that_is_not_there_is_named() {
        let mut set = PluginSet::default();
        set.insert(7_u8).expect("first");
        let needs = [PluginNeed::of::<u8>(), PluginNeed::of::<String>()];
        set.check(needs[..1].iter().copied(), "the ability \"mail\"").expect("is there");
        let error = set.check(needs, "the ability \"mail\"").expect_err("missing").to_string();
        assert!(error.starts_with("the ability \"mail\" needs a plugin of the type"), "{error}");
        assert!(error.contains("String"), "{error}");
    }

    #[test]
    fn options_that_fit_nothing_are_errors_that_name_the_plugin() {
        for (options, expected) in [
            (("greeter", json!({"word": 7})), "greeter"),
            (("greeter", json!({"word": "bad"})), "greeter"),
            (("nobody", json!({})), "greeter"),
        ] {
            let error = linked(&[options]).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
