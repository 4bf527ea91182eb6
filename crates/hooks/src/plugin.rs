use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Objects that abilities share, such as a mailer or an HTTP client, found by their type.
#[derive(Clone, Default)]
pub struct PluginSet {
    plugins: HashMap<TypeId, (&'static str, Arc<dyn Any + Send + Sync>)>,
}

/// A plugin that is registered twice or not at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// Two plugins of one type: abilities could not tell them apart.
    #[error("a plugin of the type {0} is already registered; wrap the second in a type of its own")]
    Duplicate(&'static str),
    /// The ability asks for a plugin that the manager does not have.
    #[error("no plugin of the type {0}; add it with the manager builder's `plugin`")]
    Missing(&'static str),
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
    use super::*;

    #[test]
    fn a_plugin_is_found_by_type_refused_twice_and_missed_by_name() {
        let mut set = PluginSet::default();
        set.insert(7_u8).expect("first");
        assert_eq!(set.get::<u8>().expect("there"), &7);
        assert!(set.insert(8_u8).is_err());
        assert!(set.get::<String>().expect_err("missing").to_string().contains("String"));
    }
}
