//! The tables of the databases: whether they will do, and how they are made.

use std::sync::Arc;
use std::time::Duration;

use super::Database;
use super::asked::Asked;
use super::everywhere::PerDatabase;
use super::set::Databases;
use crate::driver::{Driver, DriverError, ErrorKind, SchemaState};
use crate::error::Error;
use crate::tools::time::Instant;

/// The start of the work waits so long for a database to tell its schema. One that takes longer
/// holds up no other: its claims fail if the schema is wrong.
const SCHEMA_WITHIN: Duration = Duration::from_secs(2);

/// Creates or updates the tables in every database; returns what was applied where.
pub(crate) fn migrate(databases: &Databases) -> Result<Vec<PerDatabase<Vec<String>>>, Error> {
    migrate_each(databases, false)
        .into_iter()
        .map(|one| {
            one.answer.map(|applied| PerDatabase { database: one.database, answer: Ok(applied) })
        })
        .collect()
}

/// With one answer per database. A migration may take as long
/// as it takes.
pub(crate) fn migrate_each(databases: &Databases, force: bool) -> Vec<PerDatabase<Vec<String>>> {
    let migrate = move |driver: &dyn Driver| driver.migrate(force);
    databases.collect("migrate", migrate, Asked::wait_for_ever)
}

/// The schema of every database, asked at once: that it will do, or why not.
pub(crate) fn schema_states(databases: &Databases) -> Vec<Result<(), Error>> {
    let all = databases.all();
    let asked: Vec<_> = all.iter().map(ask_schema).collect();
    let judged = asked.into_iter().zip(all.iter());
    let begun = Instant::now();
    let left = || SCHEMA_WITHIN.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
    judged.map(|(asked, database)| judge(database, asked.wait_at_most(left()))).collect()
}

/// Refuses a database that answers with a schema this program cannot work on.
pub(crate) fn check_schema(database: &Arc<Database>) -> Result<(), Error> {
    judge(database, ask_schema(database).wait())
}

/// Whether a database can be worked with. A database whose tables we cannot work on is of no more use than one that is down.
pub(crate) fn usable(driver: &dyn Driver) -> Result<(), DriverError> {
    match refusal(&driver.schema()?) {
        None => Ok(()),
        Some(reason) => Err(DriverError::new(ErrorKind::Schema, reason)),
    }
}

/// Why this program cannot work on such tables.
fn refusal(state: &SchemaState) -> Option<String> {
    match state {
        SchemaState::Current | SchemaState::Newer(_) => None,
        SchemaState::Behind(missing) => Some(format!(
            "{} migrations of qudo are not applied (first: {}); run `qudo migrate --database \
             DSN` or call Manager::migrate",
            missing.len(),
            missing.first().map_or("none", String::as_str)
        )),
        SchemaState::Ahead(unknown) => Some(format!(
            "its schema is newer than this program (unknown: {}), which must not work on it any more; update the \
             program",
            unknown.join(", ")
        )),
    }
}

fn ask_schema(database: &Arc<Database>) -> Asked<SchemaState> {
    database.begin("read its schema version", |driver| driver.schema())
}

fn judge(database: &Database, state: Result<SchemaState, Error>) -> Result<(), Error> {
    let state = state?;
    if let SchemaState::Newer(unknown) = &state
        && database.is_newer_for_the_first_time()
    {
        log::info!(
            "database {:?}: its tables are newer than this program ({}), which may go on working on them",
            &*database.name,
            unknown.join(", ")
        );
    }
    match refusal(&state) {
        None => Ok(()),
        Some(reason) => Err(Error::Schema { database: database.name.to_string(), reason }),
    }
}
