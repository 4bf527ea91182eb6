use std::fmt;

use crate::driver::{Password, PasswordError};
use crate::tools::secret::hide_password;

/// Where a database is, and how to log in: a data source name, with an optional short name and an
/// optional source of passwords. A text alone is also a data source.
///
/// ```
/// use qudo_core::{DataSource, Manager};
///
/// let jobs = DataSource::new("memory:jobs").name("main").password(|| Ok("changes".to_owned()));
/// let manager = Manager::builder().database(jobs).database("memory:more").build()?;
/// # Ok::<(), qudo_core::Error>(())
/// ```
#[derive(Clone)]
pub struct DataSource {
    pub(super) name: Option<String>,
    pub(super) dsn: String,
    pub(super) password: Option<Password>,
}

impl DataSource {
    /// A data source name: `sqlite:FILE`, `postgres://…`, `mysql://…` or `memory:NAME`.
    pub fn new(dsn: impl Into<String>) -> Self {
        Self { name: None, dsn: dsn.into(), password: None }
    }

    /// A short name, for logs and reports; else it is taken from the data source name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Calls this function for the password at each new connection, on the thread that connects; the
    /// function should return within a second or two. Its password replaces one in the data source name.
    /// Open connections stay open.
    #[must_use]
    pub fn password(
        mut self,
        ask: impl Fn() -> Result<String, PasswordError> + Send + Sync + 'static,
    ) -> Self {
        self.password = Some(Password::from_fn(ask));
        self
    }
}

impl<T: Into<String>> From<T> for DataSource {
    fn from(dsn: T) -> Self {
        Self::new(dsn)
    }
}

impl fmt::Debug for DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataSource")
            .field("name", &self.name)
            .field("dsn", &hide_password(&self.dsn))
            .finish_non_exhaustive()
    }
}
