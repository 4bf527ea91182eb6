use std::any::{TypeId, type_name};

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
    pub(super) type_id: TypeId,
    pub(super) type_name: &'static str,
}

impl PluginNeed {
    /// A plugin of this type.
    pub fn of<P: Send + Sync + 'static>() -> Self {
        Self { type_id: TypeId::of::<P>(), type_name: type_name::<P>() }
    }
}
