use std::any::type_name;

use crate::SourceLocation;

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
    /// Options are given for a plugin that is not linked.
    #[error("options are given for the plugin {name:?}, which is not linked; linked are: {known}")]
    Unknown {
        /// The name.
        name: String,
        /// The names of the linked plugins.
        known: String,
    },
    /// Its options do not fit, or it could not be built from them.
    #[error("the plugin {name:?} cannot be built: {source}")]
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
