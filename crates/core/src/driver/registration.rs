use std::fmt;
use std::sync::Arc;

use super::{Driver, Password};

/// A driver with the short name that its data source suggests.
pub struct NamedDriver {
    /// The suggestion; the manager's builder can be told another name.
    pub name: String,
    /// The driver.
    pub driver: Arc<dyn Driver>,
}

impl fmt::Debug for NamedDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let driver = self.driver.describe();
        f.debug_struct("NamedDriver").field("name", &self.name).field("driver", &driver).finish()
    }
}

/// Schemes that a linked driver opens.
///
/// Drivers register themselves at link time, so that `database("sqlite:jobs.db")` works
/// in every crate; a driver value can always be given to the builder instead.
#[derive(Debug)]
pub struct DriverRegistration {
    /// The schemes, such as `sqlite`.
    pub schemes: &'static [&'static str],
    /// Parses a data source name; does not connect. The error says what is wrong with it
    /// and never contains a password. The second argument gives the password for each new
    /// connection.
    pub open: fn(dsn: &str, password: Option<Password>) -> Result<NamedDriver, String>,
}

inventory::collect!(DriverRegistration);

impl DriverRegistration {
    /// Whether registrations made at link time can be seen at all: it looks for the registration of
    /// the in-memory driver, which is always there. A linker that dropped this registration has
    /// dropped the abilities and hooks too.
    pub fn registry_is_visible() -> bool {
        inventory::iter::<Self>.into_iter().any(|one| one.schemes.contains(&"memory"))
    }

    /// Opens a data source with the linked driver of its scheme.
    ///
    /// # Errors
    ///
    /// When the scheme is unknown or the name is malformed.
    pub fn open_linked(dsn: &str) -> Result<NamedDriver, String> {
        Self::open_linked_with(dsn, None)
    }

    /// As [`open_linked`](Self::open_linked), with a password that is asked for at each new connection.
    ///
    /// # Errors
    ///
    /// As [`open_linked`](Self::open_linked).
    pub fn open_linked_with(dsn: &str, password: Option<Password>) -> Result<NamedDriver, String> {
        let linked = || inventory::iter::<Self>.into_iter();
        let mut schemes: Vec<_> = linked().flat_map(|one| one.schemes).copied().collect();
        schemes.sort_unstable();
        let Some((scheme, _)) = dsn.split_once(':') else {
            return Err(format!(
                "it has no scheme; expected something like sqlite:jobs.db (linked: {})",
                schemes.join(", ")
            ));
        };
        match linked().find(|one| one.schemes.contains(&scheme)) {
            Some(registration) => (registration.open)(dsn, password),
            None => Err(format!(
                "no driver for the scheme {scheme:?} is linked (linked: {}); PostgreSQL and \
                 MySQL/MariaDB are the features `postgres` and `mysql` of the crate qudo, and of the command: `cargo install qudo-cli \
                 --features postgres,mysql`",
                schemes.join(", ")
            )),
        }
    }
}
