use std::any::Any;
use std::fmt;

use super::{Failed, Plugin, PluginError, WorkerView};

/// What is called at the start and at the end of the work.
#[derive(Clone, Copy)]
pub(super) struct Life {
    pub(super) name: &'static str,
    start: fn(&(dyn Any + Send + Sync), &WorkerView<'_>) -> Result<(), Failed>,
    stop: fn(&(dyn Any + Send + Sync), &WorkerView<'_>),
}

impl Life {
    pub(super) const fn of<P: Plugin>() -> Self {
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

/// A plugin that starts and stops with the work.
#[derive(Clone, Copy)]
pub struct LivePlugin<'a> {
    pub(super) life: Life,
    pub(super) plugin: &'a (dyn Any + Send + Sync),
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
