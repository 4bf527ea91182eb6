//! Migrations recorded in a table of our own, so that they never meet the user's.

use diesel::Connection;
use diesel::migration::{Migration, MigrationSource, MigrationVersion, Result};
use diesel_migrations::MigrationHarness;
use qudo_core::driver::{DriverError, ErrorKind, SchemaState};

use crate::engine::Engine;
use crate::sql::{Bind, SqlConn};
use crate::statements::control;

type Backend<E> = <<E as Engine>::Conn as Connection>::Backend;

/// diesel's harness over `qudo_schema_migrations`.
struct OwnTable<'c, E: Engine> {
    conn: &'c mut E::Conn,
}

impl<E: Engine> MigrationHarness<Backend<E>> for OwnTable<'_, E> {
    fn run_migration(
        &mut self,
        migration: &dyn Migration<Backend<E>>,
    ) -> Result<MigrationVersion<'static>> {
        migration.run(self.conn)?;
        let version = migration.name().version().as_owned();
        let sql = format!(
            "INSERT INTO qudo_schema_migrations (version, applied_at) VALUES (?, {})",
            E::NOW
        );
        self.conn.run(&sql, &[Bind::Text(&version.to_string())])?;
        Ok(version)
    }

    fn revert_migration(
        &mut self,
        migration: &dyn Migration<Backend<E>>,
    ) -> Result<MigrationVersion<'static>> {
        // The record goes last: on MySQL, where each statement commits by itself, a reversal that was
        // broken off is then begun again by the next. Were the record to go first, tables would be left
        // behind for good.
        migration.revert(self.conn)?;
        let version = migration.name().version().as_owned();
        self.conn.run(
            "DELETE FROM qudo_schema_migrations WHERE version = ?",
            &[Bind::Text(&version.to_string())],
        )?;
        Ok(version)
    }

    fn applied_migrations(&mut self) -> Result<Vec<MigrationVersion<'static>>> {
        let sql = "SELECT version FROM qudo_schema_migrations ORDER BY version DESC";
        let rows: Vec<String> = self.conn.rows(sql, &[])?;
        Ok(rows.into_iter().map(MigrationVersion::from).collect())
    }
}

/// The versions and names of the migrations that this program carries, in order.
fn carried<E: Engine>() -> std::result::Result<Vec<(String, String)>, DriverError> {
    let migrations: Vec<Box<dyn Migration<Backend<E>>>> =
        E::migrations().migrations().map_err(|error| failed(&*error))?;
    let mut names: Vec<_> = migrations
        .iter()
        .map(|one| (one.name().version().to_string(), one.name().to_string()))
        .collect();
    names.sort();
    Ok(names)
}

fn failed(error: &(dyn std::error::Error + Send + Sync)) -> DriverError {
    DriverError::new(ErrorKind::Other, format!("a migration failed: {error}"))
}

/// Compares the table with the migrations carried. Reads only.
pub(crate) fn state<E: Engine>(engine: &E) -> std::result::Result<SchemaState, DriverError> {
    let carried = carried::<E>()?;
    let applied = engine.read(|conn| {
        conn.rows::<String>("SELECT version FROM qudo_schema_migrations ORDER BY version", &[])
    });
    let applied = match applied {
        Ok(applied) => applied,
        Err(error) if error.kind() == ErrorKind::Schema => Vec::new(),
        Err(error) => return Err(error),
    };
    let unknown: Vec<_> = applied
        .iter()
        .filter(|version| !carried.iter().any(|(known, _)| known == *version))
        .cloned()
        .collect();
    if !unknown.is_empty() {
        return Ok(SchemaState::Ahead(unknown));
    }
    let missing: Vec<_> = carried
        .into_iter()
        .filter(|(version, _)| !applied.contains(version))
        .map(|(_, name)| name)
        .collect();
    Ok(if missing.is_empty() { SchemaState::Current } else { SchemaState::Behind(missing) })
}

/// Applies what is missing.
pub(crate) fn apply<E: Engine>(engine: &E) -> std::result::Result<Vec<String>, DriverError> {
    match state(engine)? {
        SchemaState::Ahead(unknown) => {
            let message = format!(
                "the schema is newer than this program (unknown: {}); update the program",
                unknown.join(", ")
            );
            return Err(DriverError::new(ErrorKind::Schema, message));
        }
        // Before anything that takes a right to make tables: programs migrate when they start, and most of
        // them need no such right.
        SchemaState::Current => {
            engine.write(E::furnish)?;
            match engine.write(control::identity::<E>) {
                // Whoever made the tables has seen to it, or whoever may does.
                Err(error) if error.kind() == ErrorKind::Permission => {}
                done => drop(done?),
            }
            return Ok(Vec::new());
        }
        _ => {}
    }
    engine.migrate_alone(|conn| {
        conn.batch(
            "CREATE TABLE IF NOT EXISTS qudo_schema_migrations (\
             version VARCHAR(50) NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL)",
        )?;
        let mut table = OwnTable::<E> { conn };
        let applied = table.run_pending_migrations(E::migrations()).map_err(boxed)?;
        let applied = applied.iter().map(ToString::to_string).collect();
        E::furnish(table.conn)?;
        // For accounts that may read it and no more.
        control::identity::<E>(table.conn)?;
        Ok(applied)
    })
}

/// Reverts everything, newest first.
pub(crate) fn revert<E: Engine>(engine: &E) -> std::result::Result<Vec<String>, DriverError> {
    engine.migrate_alone(|conn| {
        E::strip(conn)?;
        let mut table = OwnTable::<E> { conn };
        let reverted = table.revert_all_migrations(E::migrations()).map_err(boxed)?;
        let reverted = reverted.iter().map(ToString::to_string).collect();
        table.conn.batch("DROP TABLE qudo_schema_migrations")?;
        Ok(reverted)
    })
}

fn boxed(error: Box<dyn std::error::Error + Send + Sync>) -> diesel::result::Error {
    match error.downcast::<diesel::result::Error>() {
        Ok(error) => *error,
        Err(error) => diesel::result::Error::QueryBuilderError(error),
    }
}
