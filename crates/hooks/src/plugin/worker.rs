use std::fmt;

use super::{PluginError, PluginSet};

/// The worker process, as the hooks and plugins that start and stop with it see it.
///
/// The constructor is public so that a hook or a plugin can be tested without a manager.
#[derive(Clone, Copy)]
pub struct WorkerView<'a> {
    name: &'a str,
    plugins: &'a PluginSet,
}

impl fmt::Debug for WorkerView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerView").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> WorkerView<'a> {
    /// A worker process of this name, with these plugins.
    pub fn new(name: &'a str, plugins: &'a PluginSet) -> Self {
        Self { name, plugins }
    }

    /// Its name, as operators see it: the host and the process id.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The plugin of this type.
    ///
    /// # Errors
    ///
    /// When the manager has none of that type.
    pub fn plugin<P: Send + Sync + 'static>(&self) -> Result<&'a P, PluginError> {
        self.plugins.get()
    }
}
