use std::any::{Any, TypeId, type_name};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::live::Life;
use super::{LivePlugin, Plugin, PluginError, PluginNeed, PluginRegistration};

type Shared = Arc<dyn Any + Send + Sync>;

#[derive(Clone)]
pub(super) struct Entry {
    type_name: &'static str,
    plugin: Shared,
    life: Option<Life>,
}

impl Entry {
    pub(super) fn of<P: Plugin>(plugin: P) -> Self {
        Self { type_name: type_name::<P>(), plugin: Arc::new(plugin), life: Some(Life::of::<P>()) }
    }
}

/// Objects that abilities share, such as a mailer or an HTTP client, found by their type.
#[derive(Clone, Default)]
pub struct PluginSet {
    plugins: HashMap<TypeId, Entry>,
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

    /// The plugins that start and stop with the work, in the order of their names.
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
    /// name. A plugin whose type is already in the set is not built: the plugin that was given explicitly is used,
    /// and starts and stops with the work.
    ///
    /// # Errors
    ///
    /// When two plugins have one name, a plugin cannot be built, or options are given for a plugin
    /// that is not linked.
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

    use super::super::{Failed, WorkerView};
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
