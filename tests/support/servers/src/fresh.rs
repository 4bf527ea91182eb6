use crate::{Error, create_database, drop_database, given};

/// An empty database on a server, dropped with this value.
#[derive(Debug)]
pub struct FreshDatabase {
    beside: String,
    name: String,
    url: String,
}

impl FreshDatabase {
    /// Creates a database on the server that the test run has for this engine; `None` where
    /// [`given`] says that there is none today.
    ///
    /// # Panics
    ///
    /// As [`given`], and when the server refuses.
    pub fn on(engine: &str, purpose: &str) -> Option<Self> {
        let server = given(engine)?;
        Some(Self::beside(&server, purpose).unwrap_or_else(|error| panic!("{error}")))
    }

    /// Creates a database beside the one in the URL. Its name holds the purpose, this process's id and
    /// a number that is drawn by lot, since several runs, also of several machines, may share a server.
    ///
    /// # Errors
    ///
    /// Those of [`create_database`].
    pub fn beside(url: &str, purpose: &str) -> Result<Self, Error> {
        let name = format!("qudo_{purpose}_{}_{:08x}", std::process::id(), fastrand::u32(..));
        let created = create_database(url, &name)?;
        Ok(Self { beside: url.to_owned(), name, url: created })
    }

    /// The database's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for FreshDatabase {
    fn drop(&mut self) {
        if let Err(error) = drop_database(&self.beside, &self.name) {
            eprintln!("the database {} is left behind: {error}", self.name);
        }
    }
}
