use std::path::{Path, PathBuf};

use crate::{Error, create_database, drop_database, given};

/// An empty database of one test, removed with this value: on a server of the test run, or a file.
#[derive(Debug)]
pub struct FreshDatabase {
    url: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Server { beside: String, name: String },
    File { path: PathBuf, _directory: tempfile::TempDir },
}

impl FreshDatabase {
    /// Makes a database: `sqlite`, or on the server that the test run has for `postgres`, `mariadb` or `mysql`;
    /// `pooled` is one of PostgreSQL, reached through the pooler. `None` where [`given`] says that there is none
    /// today.
    ///
    /// # Panics
    ///
    /// As [`given`], and when the server refuses.
    pub fn on(engine: &str, purpose: &str) -> Option<Self> {
        match engine {
            "sqlite" => Some(Self::file()),
            "pooled" => {
                let mut fresh = Self::on("postgres", purpose)?;
                let mut url = url::Url::parse(&given("pooler")?).expect("a URL");
                url.set_path(fresh.name());
                // Also for a pooler that the developer named without it.
                url.set_query(Some("pooler=transaction"));
                fresh.url = url.into();
                Some(fresh)
            }
            server => {
                let server = given(server)?;
                Some(Self::beside(&server, purpose).unwrap_or_else(|error| panic!("{error}")))
            }
        }
    }

    /// Creates a database beside the one in the URL. Its name holds the purpose, this process's id and
    /// a number that is drawn by lot, since several runs, also of several machines, may share a server.
    ///
    /// # Errors
    ///
    /// Those of [`create_database`].
    pub fn beside(url: &str, purpose: &str) -> Result<Self, Error> {
        let name = format!("qudo_{purpose}_{}_{:08x}", std::process::id(), fastrand::u32(..));
        let url_of_it = create_database(url, &name)?;
        Ok(Self { url: url_of_it, place: Place::Server { beside: url.to_owned(), name } })
    }

    fn file() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("jobs.db");
        let url = format!("sqlite:{}", path.display());
        Self { url, place: Place::File { path, _directory: directory } }
    }

    /// The data source name.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The database's name on its server; that of the file.
    pub fn name(&self) -> &str {
        match &self.place {
            Place::Server { name, .. } => name,
            Place::File { .. } => "jobs",
        }
    }

    /// The file of one that is a file.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Server { .. } => None,
            Place::File { path, .. } => Some(path),
        }
    }
}

impl Drop for FreshDatabase {
    fn drop(&mut self) {
        if let Place::Server { beside, name } = &self.place
            && let Err(error) = drop_database(beside, name)
        {
            eprintln!("the database {name} is left behind: {error}");
        }
    }
}
