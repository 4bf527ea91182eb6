use std::any::TypeId;
use std::fmt;

use serde_json::Value;

use super::live::Life;
use super::set::Entry;
use super::{Plugin, PluginError};
use crate::SourceLocation;

/// A plugin that registers itself at link time; made by
/// [`register_plugin!`](crate::register_plugin).
pub struct PluginRegistration {
    pub(super) name: &'static str,
    pub(super) type_id: fn() -> TypeId,
    pub(super) build: fn(&Value) -> Result<Entry, PluginError>,
    pub(super) life: Life,
    pub(super) location: SourceLocation,
}

impl fmt::Debug for PluginRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginRegistration")
            .field("name", &self.name)
            .field("location", &self.location)
            .finish_non_exhaustive()
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
