//! From data source names to databases; nothing connects here.

use std::sync::Arc;

use super::data_source::DataSource;
use super::{Database, Settings};
use crate::driver::{Driver, DriverRegistration};
use crate::error::Error;
use crate::names::check_name;
use crate::tools::secret::hide_password;

/// What a manager was told of one database.
pub(crate) enum Source {
    Dsn(DataSource),
    Driver { name: String, driver: Arc<dyn Driver> },
}

/// Opens one data source under a name of its own or the one that it suggests.
pub(crate) fn open(source: DataSource, settings: &Settings) -> Result<Arc<Database>, Error> {
    let DataSource { name, dsn, password } = source;
    let opened = DriverRegistration::open_linked_with(&dsn, password)
        .map_err(|reason| Error::InvalidDsn { dsn: hide_password(&dsn), reason })?;
    named(name.unwrap_or(opened.name), opened.driver, settings)
}

fn named(
    name: String,
    driver: Arc<dyn Driver>,
    settings: &Settings,
) -> Result<Arc<Database>, Error> {
    check_name("database name", &name)?;
    Ok(Arc::new(Database::new(Arc::from(name), driver, settings.clone())))
}

pub(crate) fn open_all(
    sources: Vec<Source>,
    settings: &Settings,
) -> Result<Vec<Arc<Database>>, Error> {
    let mut databases: Vec<Arc<Database>> = Vec::with_capacity(sources.len());
    for source in sources {
        let database = match source {
            Source::Driver { name, driver } => named(name, driver, settings)?,
            Source::Dsn(source) => open(source, settings)?,
        };
        if databases.iter().any(|other| other.name == database.name) {
            return Err(Error::DuplicateDatabase(database.name.to_string()));
        }
        for other in &databases {
            check_place(other, &database)?;
        }
        databases.push(database);
    }
    if databases.is_empty() {
        return Err(Error::NoDatabase);
    }
    Ok(databases)
}

/// Refuses a second name for a database, as far as that shows without asking it.
pub(crate) fn check_place(one: &Database, other: &Database) -> Result<(), Error> {
    let place = one.driver.place();
    let same = Arc::ptr_eq(&one.driver, &other.driver)
        || (place.is_some() && place == other.driver.place());
    if !same {
        return Ok(());
    }
    Err(Error::SameDatabase {
        first: one.name.to_string(),
        second: other.name.to_string(),
        reason: place.unwrap_or_else(|| one.driver.describe()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{SOON, memory, settings};

    fn named(name: &str) -> Source {
        Source::Driver { name: name.to_owned(), driver: memory() }
    }

    fn open_these(sources: Vec<Source>) -> Result<Vec<String>, Error> {
        let opened = open_all(sources, &settings(SOON))?;
        Ok(opened.iter().map(|one| one.name.to_string()).collect())
    }

    #[test]
    fn names_come_from_the_source_or_are_given() {
        let source = |name: Option<&str>, dsn: &str| {
            let source = DataSource::new(dsn);
            Source::Dsn(match name {
                Some(name) => source.name(name),
                None => source,
            })
        };
        let all =
            vec![source(None, "memory:first"), source(Some("2nd"), "memory:second"), named("3")];
        assert_eq!(open_these(all).expect("valid"), ["first", "2nd", "3"]);
    }

    #[test]
    fn what_cannot_be_a_database_is_refused() {
        assert!(matches!(open_these(Vec::new()), Err(Error::NoDatabase)));
        let twice = open_these(vec![named("one"), named("one")]);
        assert!(matches!(twice, Err(Error::DuplicateDatabase(name)) if name == "one"));
        assert!(matches!(open_these(vec![named("")]), Err(Error::InvalidName { .. })));
        let driver = memory();
        let same =
            |name: &str| Source::Driver { name: name.to_owned(), driver: Arc::clone(&driver) };
        let same = open_these(vec![same("one"), same("two")]);
        assert!(matches!(same, Err(Error::SameDatabase { .. })));
        let dsn = "nobody://app:secret@db/jobs";
        let unknown = open(DataSource::new(dsn), &settings(SOON)).map(|_| ()).expect_err("unknown");
        let text = unknown.to_string();
        assert!(text.contains("nobody") && !text.contains("secret"), "{text}");
    }
}
