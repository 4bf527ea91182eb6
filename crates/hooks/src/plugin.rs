use std::any::{Any, TypeId, type_name};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::SourceLocation;

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
    fn build(options: Self::Options) -> Result<Self, Box<dyn std::error::Error + Send + Sync>>;
}

type Shared = Arc<dyn Any + Send + Sync>;

/// A plugin that registers itself at link time; made by
/// [`register_plugin!`](crate::register_plugin).
pub struct PluginRegistration {
    name: &'static str,
    type_id: fn() -> TypeId,
    build: fn(&Value) -> Result<(&'static str, Shared), PluginError>,
    location: SourceLocation,
}

impl PluginRegistration {
    /// Names the plugin and the place of its registration.
    pub const fn of<P: Plugin>(location: SourceLocation) -> Self {
        Self { name: P::NAME, type_id: TypeId::of::<P>, build: build::<P>, location }
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

fn build<P: Plugin>(options: &Value) -> Result<(&'static str, Shared), PluginError> {
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
    let plugin = P::build(options).map_err(failed)?;
    Ok((type_name::<P>(), Arc::new(plugin)))
}

/// Objects that abilities share, such as a mailer or an HTTP client, found by their type.
#[derive(Clone, Default)]
pub struct PluginSet {
    plugins: HashMap<TypeId, (&'static str, Shared)>,
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
    /// Options are given for a plugin that nobody linked.
    #[error("options are given for the plugin {name:?}, which is not linked; there are: {known}")]
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

impl fmt::Debug for PluginSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.plugins.values().map(|(name, _)| name)).finish()
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
        self.plugins.insert(TypeId::of::<P>(), (name, Arc::new(plugin)));
        Ok(())
    }

    /// Builds a plugin from options and adds it.
    ///
    /// # Errors
    ///
    /// When a plugin of that type is already there, or it cannot be built from the options.
    pub fn insert_built<P: Plugin>(&mut self, options: P::Options) -> Result<(), PluginError> {
        let built = P::build(options)
            .map_err(|source| PluginError::Build { name: P::NAME.to_owned(), source })?;
        self.insert(built)
    }

    /// Builds the plugins that registered themselves at link time, each with the options of its
    /// name. One whose type is in the set already is left out: what was given explicitly wins.
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
            return Err(PluginError::Unknown { name: name.clone(), known: known.join(", ") });
        }
        for (name, registration) in linked {
            let type_id = (registration.type_id)();
            if self.plugins.contains_key(&type_id) {
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
            .and_then(|(_, plugin)| plugin.downcast_ref())
            .ok_or(PluginError::Missing(type_name::<P>()))
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
