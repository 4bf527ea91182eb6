//! Objects that abilities and hooks share.

mod error;
mod live;
mod need;
mod registration;
mod set;
mod worker;

use serde::de::DeserializeOwned;

pub use error::PluginError;
pub use live::LivePlugin;
pub use need::PluginNeed;
pub use registration::PluginRegistration;
pub use set::PluginSet;
pub use worker::WorkerView;

/// Why a plugin was not built or did not start.
type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A named object that a manager builds once from options and its abilities share: a mailer, an
/// HTTP client, a pool of connections.
///
/// Anything that is `Send + Sync` can be given to a manager as a plugin without this trait; the trait
/// is for plugins that register themselves at link time, or are configured by name.
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

    /// The options from which it is built; `()` for a plugin without options.
    type Options: DeserializeOwned;

    /// Builds it; called once per manager, on the thread that builds the manager.
    ///
    /// # Errors
    ///
    /// Any obstacle: the manager is then not built.
    fn build(options: Self::Options) -> Result<Self, Failed>;

    /// Called when the manager begins to work, before its hooks start and before it claims a job, on the thread that
    /// calls `work()` or `start()`; plugins start in the order of their names. Not called by a manager that only
    /// enqueues, nor by `work_once`, nor for a value that was given as any other, without the builder's `live_plugin`,
    /// unless its type is [registered](crate::register_plugin).
    ///
    /// # Errors
    ///
    /// Any obstacle: the work then does not begin, and the plugins that were started are stopped.
    fn start(&self, worker: &WorkerView<'_>) -> Result<(), Failed> {
        let _ = worker;
        Ok(())
    }

    /// Called when the work has ended and what ran is settled, or the shutdown timeout is over: then jobs may still run. The
    /// last that started is the first that stops. A panic is logged.
    fn stop(&self, worker: &WorkerView<'_>) {
        let _ = worker;
    }
}
