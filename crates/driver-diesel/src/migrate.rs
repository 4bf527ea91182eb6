//! Migrations recorded in a table of our own, so that they never meet the user's.

use diesel::Connection;
use diesel::backend::Backend;
use diesel::connection::BoxableConnection;
use diesel::migration::{
    Migration, MigrationMetadata, MigrationName, MigrationSource, MigrationVersion, Result,
};
use diesel_migrations::MigrationHarness;
use qudo_core::driver::{DriverError, ErrorKind, SchemaState};

use crate::engine::Engine;
use crate::sql::{Bind, Sql};
use crate::statements::control;
use crate::step::Step;
use crate::tables::Tables;

type BackendOf<E> = <<E as Engine>::Conn as Connection>::Backend;

/// A migration with the names of one installation.
struct Rendered {
    step: Step,
    up: String,
    down: String,
}

impl<DB: Backend> Migration<DB> for Rendered {
    fn run(&self, conn: &mut dyn BoxableConnection<DB>) -> Result<()> {
        Ok(conn.batch_execute(&self.up)?)
    }

    fn revert(&self, conn: &mut dyn BoxableConnection<DB>) -> Result<()> {
        Ok(conn.batch_execute(&self.down)?)
    }

    fn metadata(&self) -> &dyn MigrationMetadata {
        &InATransaction
    }

    fn name(&self) -> &dyn MigrationName {
        &self.step
    }
}

struct InATransaction;

impl MigrationMetadata for InATransaction {}

/// The migrations of an engine, for one installation.
struct Steps<'a>(&'a [Step], &'a Tables);

impl<DB: Backend> MigrationSource<DB> for Steps<'_> {
    fn migrations(&self) -> Result<Vec<Box<dyn Migration<DB>>>> {
        let rendered = |step: &Step| {
            let render = |text| self.1.render(text).into_owned();
            Box::new(Rendered { step: *step, up: render(step.up), down: render(step.down) })
                as Box<dyn Migration<DB>>
        };
        Ok(self.0.iter().map(rendered).collect())
    }
}

/// diesel's harness over `qudo_schema_migrations`.
struct OwnTable<'s, 'c, E: Engine> {
    conn: &'s mut Sql<'c, E::Conn>,
}

impl<E: Engine> MigrationHarness<BackendOf<E>> for OwnTable<'_, '_, E> {
    fn run_migration(
        &mut self,
        migration: &dyn Migration<BackendOf<E>>,
    ) -> Result<MigrationVersion<'static>> {
        migration.run(self.conn.raw)?;
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
        migration: &dyn Migration<BackendOf<E>>,
    ) -> Result<MigrationVersion<'static>> {
        // The record goes last: on MySQL, where each statement commits by itself, a reversal that was
        // broken off is then begun again by the next. Were the record to go first, tables would be left
        // behind for good.
        migration.revert(self.conn.raw)?;
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

/// Refuses names that are not those with which the tables were made.
fn check_names<E: Engine>(engine: &E) -> std::result::Result<(), DriverError> {
    match engine.read(E::check_names)? {
        None => Ok(()),
        Some(reason) => Err(DriverError::new(ErrorKind::Schema, reason)),
    }
}

/// Compares the table with the migrations carried. Reads only.
pub(crate) fn state<E: Engine>(engine: &E) -> std::result::Result<SchemaState, DriverError> {
    if !engine.is_made() {
        return Ok(SchemaState::Behind(E::MIGRATIONS.iter().map(ToString::to_string).collect()));
    }
    check_names(engine)?;
    let applied = engine.read(|conn| {
        conn.rows::<String>("SELECT version FROM qudo_schema_migrations ORDER BY version", &[])
    });
    let applied = match applied {
        Ok(applied) => applied,
        Err(error) if error.kind() == ErrorKind::Schema => Vec::new(),
        Err(error) => return Err(error),
    };
    let carried = E::MIGRATIONS;
    let unknown: Vec<_> = applied
        .iter()
        .filter(|version| !carried.iter().any(|step| step.version() == **version))
        .cloned()
        .collect();
    if !unknown.is_empty() {
        return Ok(SchemaState::Ahead(unknown));
    }
    let missing: Vec<_> = carried
        .iter()
        .filter(|step| !applied.contains(&step.version()))
        .map(ToString::to_string)
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
        E::prepare(conn)?;
        conn.batch(
            "CREATE TABLE IF NOT EXISTS qudo_schema_migrations (\
             version VARCHAR(50) NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL)",
        )?;
        let steps = Steps(E::MIGRATIONS, conn.tables);
        let mut table = OwnTable::<E> { conn };
        let applied = table.run_pending_migrations(steps).map_err(boxed)?;
        let applied = named::<E>(&applied);
        E::furnish(table.conn)?;
        // For accounts that may read it and no more.
        control::identity::<E>(table.conn)?;
        Ok(applied)
    })
}

/// Reverts everything, newest first.
pub(crate) fn revert<E: Engine>(engine: &E) -> std::result::Result<Vec<String>, DriverError> {
    check_names(engine)?;
    engine.migrate_alone(|conn| {
        E::strip(conn)?;
        let steps = Steps(E::MIGRATIONS, conn.tables);
        let mut table = OwnTable::<E> { conn };
        let reverted = table.revert_all_migrations(steps).map_err(boxed)?;
        let reverted = named::<E>(&reverted);
        table.conn.batch("DROP TABLE qudo_schema_migrations")?;
        Ok(reverted)
    })
}

/// The migrations of these versions by their names, which say what they do.
fn named<E: Engine>(versions: &[MigrationVersion<'_>]) -> Vec<String> {
    let name = |version: &String| {
        let step = E::MIGRATIONS.iter().find(|step| step.version() == *version);
        step.map_or_else(|| version.clone(), ToString::to_string)
    };
    versions.iter().map(|version| name(&version.to_string())).collect()
}

fn boxed(error: Box<dyn std::error::Error + Send + Sync>) -> diesel::result::Error {
    match error.downcast::<diesel::result::Error>() {
        Ok(error) => *error,
        Err(error) => diesel::result::Error::QueryBuilderError(error),
    }
}
