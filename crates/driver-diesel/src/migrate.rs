//! Migrations recorded in a table of our own, so that they never meet the user's.

use diesel::Connection;
use diesel::backend::Backend;
use diesel::connection::BoxableConnection;
use diesel::deserialize;
use diesel::migration::{
    Migration, MigrationMetadata, MigrationName, MigrationSource, MigrationVersion, Result,
};
use diesel::result::QueryResult;
use diesel_migrations::MigrationHarness;
use qudo_core::driver::{DriverError, ErrorKind, SchemaState};

use crate::engine::Engine;
use crate::sql::{Bind, Columns, FromRow, Sql};
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
    /// Whether a migration that was begun and not ended counts as applied: it is to be reverted, and to be applied again.
    with_begun: bool,
}

impl<E: Engine> MigrationHarness<BackendOf<E>> for OwnTable<'_, '_, E> {
    fn run_migration(
        &mut self,
        migration: &dyn Migration<BackendOf<E>>,
    ) -> Result<MigrationVersion<'static>> {
        // The record goes first: on MySQL, where each statement commits by itself, a migration that is broken off has
        // changed tables on which older programs may be forbidden to work.
        let version = migration.name().version().as_owned();
        let text = version.to_string();
        let at = E::migrations().iter().position(|step| step.version() == text).unwrap_or(0);
        let oldest = E::migrations()[at].oldest;
        // One that was begun before stays as it is: between its removal and its return nothing would tell that its tables are ours. A
        // completed record stays too: a migrator that comes too late fails at its key.
        let begun =
            "SELECT version FROM qudo_schema_migrations WHERE version = ? AND applied_at = 0";
        let is_begun = self.conn.row::<String>(begun, &[Bind::Text(&text)])?.is_some();
        let record = "INSERT INTO qudo_schema_migrations (version, level, oldest_level, applied_at) \
                     VALUES (?, ?, ?, 0)";
        let binds = [Bind::Text(&text), Bind::Int(at as i32 + 1), Bind::Int(oldest as i32)];
        if !is_begun {
            self.conn.run(record, &binds)?;
        }
        migration.run(self.conn.raw)?;
        let end =
            format!("UPDATE qudo_schema_migrations SET applied_at = {} WHERE version = ?", E::NOW);
        self.conn.run(&end, &[Bind::Text(&text)])?;
        Ok(version)
    }

    fn revert_migration(
        &mut self,
        migration: &dyn Migration<BackendOf<E>>,
    ) -> Result<MigrationVersion<'static>> {
        // The record goes last: on MySQL, where each statement commits by itself, a reversal that was
        // broken off is then begun again by the next. Were the record to go first, tables would be left
        // behind for good. Meanwhile nobody takes the tables for whole.
        let version = migration.name().version().as_owned();
        let begun = "UPDATE qudo_schema_migrations SET applied_at = 0 WHERE version = ?";
        self.conn.run(begun, &[Bind::Text(&version.to_string())])?;
        migration.revert(self.conn.raw)?;
        self.conn.run(
            "DELETE FROM qudo_schema_migrations WHERE version = ?",
            &[Bind::Text(&version.to_string())],
        )?;
        Ok(version)
    }

    fn applied_migrations(&mut self) -> Result<Vec<MigrationVersion<'static>>> {
        let mut rows = self.conn.rows::<Applied>(APPLIED, &[])?;
        rows.retain(|one| self.with_begun || one.is_whole());
        Ok(rows.into_iter().rev().map(|one| MigrationVersion::from(one.version)).collect())
    }
}

/// Refuses names that are not those with which the tables were made.
fn check_names<E: Engine>(engine: &E) -> std::result::Result<(), DriverError> {
    match engine.read(E::check_names)? {
        None => Ok(()),
        Some(reason) => Err(DriverError::new(ErrorKind::Schema, reason)),
    }
}

/// A migration that is applied, or was begun.
struct Applied {
    version: String,
    /// The level of the oldest programs that may go on working with it.
    oldest: i32,
    /// When its end was reached; 0 before.
    at: i64,
}

const APPLIED: &str =
    "SELECT version, oldest_level, applied_at FROM qudo_schema_migrations ORDER BY version";

impl Applied {
    fn is_whole(&self) -> bool {
        self.at != 0
    }

    /// Whether this is the record of the step, which was applied to its end. A program that does not carry a migration
    /// takes it for applied even if it was only begun.
    fn has(&self, step: &Step) -> bool {
        self.is_whole() && self.version == step.version()
    }
}

impl FromRow for Applied {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        let (version, oldest, at) = (columns.text()?, columns.int()?, columns.big()?);
        Ok(Self { version, oldest, at })
    }
}

/// How many migrations this program carries: what its tables are called in `qudo_worker`.
pub(crate) fn level<E: Engine>() -> i32 {
    E::migrations().len() as i32
}

/// Compares the table with the migrations carried. Reads only.
pub(crate) fn state<E: Engine>(engine: &E) -> std::result::Result<SchemaState, DriverError> {
    if !engine.is_made() {
        return Ok(SchemaState::Behind(E::migrations().iter().map(ToString::to_string).collect()));
    }
    check_names(engine)?;
    let applied = match engine.read(|conn| conn.rows::<Applied>(APPLIED, &[])) {
        Ok(applied) => applied,
        Err(error) if error.kind() == ErrorKind::Schema => Vec::new(),
        Err(error) => return Err(error),
    };
    Ok(compare(E::migrations(), &applied))
}

/// What the migrations that are applied mean for a program that carries these.
fn compare(carried: &[Step], applied: &[Applied]) -> SchemaState {
    let is_known = |one: &&Applied| carried.iter().any(|step| step.version() == one.version);
    let unknown = || applied.iter().filter(|one| !is_known(one));
    let names =
        |all: &mut dyn Iterator<Item = &Applied>| all.map(|one| one.version.clone()).collect();
    let level = carried.len() as i32;
    if unknown().any(|one| one.oldest > level) {
        return SchemaState::Ahead(names(&mut unknown()));
    }
    let missing: Vec<_> = carried
        .iter()
        .filter(|step| !applied.iter().any(|one| one.has(step)))
        .map(ToString::to_string)
        .collect();
    if !missing.is_empty() {
        return SchemaState::Behind(missing);
    }
    match unknown().next() {
        None => SchemaState::Current,
        Some(_) => SchemaState::Newer(names(&mut unknown())),
    }
}

struct Outdated(String, Option<String>);

impl FromRow for Outdated {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        Ok(Self(columns.text()?, columns.opt_text()?))
    }
}

fn ahead(unknown: &[String]) -> String {
    let unknown = unknown.join(", ");
    format!("the schema is newer than this program (unknown: {unknown}); update the program")
}

/// Why the missing migrations must not be applied now: worker processes live that must not work on the new tables, unless
/// it is forced. What only enqueues has no row, and is not seen; what starts just now may not be seen, and looks at the
/// tables itself after its first heartbeat.
fn refusal<E: Engine>(conn: &mut Sql<'_, E::Conn>, force: bool) -> QueryResult<Option<String>> {
    let applied = conn.rows::<Applied>(APPLIED, &[])?;
    // Somebody with newer migrations may have been here while this one waited for its turn.
    if let SchemaState::Ahead(unknown) = compare(E::migrations(), &applied) {
        return Ok(Some(ahead(&unknown)));
    }
    if force || !applied.iter().any(Applied::is_whole) {
        return Ok(None);
    }
    let is_missing = |step: &&Step| !applied.iter().any(|one| one.has(step));
    let oldest = E::migrations().iter().filter(is_missing).map(|step| step.oldest).max();
    let live = format!(
        "SELECT name, program_version FROM qudo_worker WHERE schema_level < ? \
         AND seen_at >= (SELECT {}) - dead_after ORDER BY name LIMIT 20",
        E::NOW
    );
    let live: Vec<Outdated> = conn.rows(&live, &[Bind::Int(oldest.unwrap_or(0) as i32)])?;
    let name = |Outdated(name, version): Outdated| match version {
        Some(version) => format!("{name} (version {version})"),
        None => name,
    };
    let live: Vec<_> = live.into_iter().map(name).collect();
    Ok((!live.is_empty()).then(|| {
        format!(
            "worker processes live that must not work on the new tables: {}; stop them first, or force the \
             migration (`qudo migrate --force`, Manager::migrate_each(true))",
            live.join(", ")
        )
    }))
}

/// What is missing, with its statements as they would be sent.
pub(crate) fn missing<E: Engine>(
    engine: &E,
) -> std::result::Result<Vec<(String, String)>, DriverError> {
    let names = match state(engine)? {
        SchemaState::Behind(names) => names,
        SchemaState::Ahead(unknown) => {
            return Err(DriverError::new(ErrorKind::Schema, ahead(&unknown)));
        }
        _ => return Ok(Vec::new()),
    };
    let wanted = E::migrations().iter().filter(|step| names.contains(&step.to_string()));
    let rendered = |step: &Step| (step.to_string(), engine.tables().render(step.up).into_owned());
    Ok(wanted.map(rendered).collect())
}

/// Applies what is missing.
pub(crate) fn apply<E: Engine>(
    engine: &E,
    force: bool,
) -> std::result::Result<Vec<String>, DriverError> {
    match state(engine)? {
        // The program that applied the newer migrations has done the rest.
        SchemaState::Newer(_) => return Ok(Vec::new()),
        SchemaState::Ahead(unknown) => {
            return Err(DriverError::new(ErrorKind::Schema, ahead(&unknown)));
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
    let mut refused = None;
    let applied = engine.migrate_alone(|conn| {
        prepare::<E>(conn)?;
        refused = refusal::<E>(conn, force)?;
        if refused.is_some() {
            return Ok(Vec::new());
        }
        apply_missing::<E>(conn)
    })?;
    match refused {
        None => Ok(applied),
        Some(reason) => Err(DriverError::new(ErrorKind::Schema, reason)),
    }
}

fn prepare<E: Engine>(conn: &mut Sql<'_, E::Conn>) -> QueryResult<()> {
    E::prepare(conn)?;
    conn.batch(
        "CREATE TABLE IF NOT EXISTS qudo_schema_migrations (\
         version VARCHAR(50) NOT NULL PRIMARY KEY, level INTEGER NOT NULL, \
         oldest_level INTEGER NOT NULL, applied_at BIGINT NOT NULL)",
    )
}

fn apply_missing<E: Engine>(conn: &mut Sql<'_, E::Conn>) -> QueryResult<Vec<String>> {
    let steps = Steps(E::migrations(), conn.tables);
    let mut table = OwnTable::<E> { conn, with_begun: false };
    let applied = table.run_pending_migrations(steps).map_err(boxed)?;
    let applied = named::<E>(&applied);
    E::furnish(table.conn)?;
    // For accounts that may read it and no more.
    control::identity::<E>(table.conn)?;
    Ok(applied)
}

/// Applies what is missing on a connection of the caller's, where nobody works: for tests.
pub(crate) fn apply_on<E: Engine>(conn: &mut Sql<'_, E::Conn>) -> QueryResult<Vec<String>> {
    prepare::<E>(conn)?;
    apply_missing::<E>(conn)
}

/// Reverts everything, newest first.
pub(crate) fn revert<E: Engine>(engine: &E) -> std::result::Result<Vec<String>, DriverError> {
    check_names(engine)?;
    if let SchemaState::Ahead(unknown) | SchemaState::Newer(unknown) = state(engine)? {
        return Err(DriverError::new(ErrorKind::Schema, ahead(&unknown)));
    }
    engine.migrate_alone(|conn| {
        E::strip(conn)?;
        let steps = Steps(E::migrations(), conn.tables);
        let mut table = OwnTable::<E> { conn, with_begun: true };
        let reverted = table.revert_all_migrations(steps).map_err(boxed)?;
        let reverted = named::<E>(&reverted);
        table.conn.batch("DROP TABLE qudo_schema_migrations")?;
        Ok(reverted)
    })
}

/// The migrations of these versions by their names, which say what they do.
fn named<E: Engine>(versions: &[MigrationVersion<'_>]) -> Vec<String> {
    let name = |version: &String| {
        let step = E::migrations().iter().find(|step| step.version() == *version);
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

#[cfg(test)]
mod tests {
    use super::*;

    const fn step(name: &'static str, oldest: u32) -> Step {
        Step { name, oldest, up: "", down: "" }
    }

    const ALL: [Step; 4] = [
        step("2026-01-01-000001_create", 1),
        step("2026-01-02-000001_add", 1),
        step("2026-01-03-000001_drop", 2),
        step("2026-01-04-000001_more", 2),
    ];

    fn state(carried: usize, applied: usize) -> SchemaState {
        let applied: Vec<_> = ALL[..applied].iter().map(|one| row(one, 1)).collect();
        compare(&ALL[..carried], &applied)
    }

    fn row(step: &Step, at: i64) -> Applied {
        Applied { version: step.version(), oldest: step.oldest as i32, at }
    }

    #[test]
    fn a_migration_that_was_begun_is_missing_and_forbids_what_the_whole_one_forbids() {
        let rows = |begun: usize| -> Vec<_> {
            ALL[..=begun]
                .iter()
                .enumerate()
                .map(|(at, one)| row(one, (at < begun).into()))
                .collect()
        };
        let missing = |state| matches!(state, SchemaState::Behind(missing) if missing.len() == 1);
        assert!(missing(compare(&ALL[..3], &rows(2))));
        assert!(matches!(compare(&ALL[..1], &rows(2)), SchemaState::Ahead(_)));
        assert!(matches!(compare(&ALL[..1], &rows(1)), SchemaState::Newer(_)));
    }

    #[test]
    fn a_program_goes_on_with_newer_tables_as_long_as_each_of_their_migrations_lets_it() {
        assert_eq!(state(2, 2), SchemaState::Current);
        assert!(matches!(state(2, 0), SchemaState::Behind(missing) if missing.len() == 2));
        assert!(matches!(state(2, 1), SchemaState::Behind(missing) if missing.len() == 1));
        assert!(
            matches!(state(1, 2), SchemaState::Newer(unknown) if unknown == ["20260102000001"])
        );
        assert!(matches!(state(2, 4), SchemaState::Newer(unknown) if unknown.len() == 2));
        // Of level 1, and the third needs 2; also with one behind it that asks for no more.
        assert!(matches!(state(1, 3), SchemaState::Ahead(unknown) if unknown.len() == 2));
        assert!(matches!(state(1, 4), SchemaState::Ahead(_)));
    }
}
