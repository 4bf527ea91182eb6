use diesel::migration::{MigrationName, MigrationVersion};

/// A migration as it is written, with the names of the default installation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Its folder: a stamp, an underscore, what it does.
    pub(crate) name: &'static str,
    /// The level of the oldest programs that may go on working on the tables when it is applied. The level of a program is
    /// the number of migrations that it carries: a migration that older ones need not know of leaves this as it is in
    /// the one before it.
    pub(crate) oldest: u32,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
}

/// Takes in a folder of migrations. Programs of which level may go on working with it is said beside it.
macro_rules! step {
    ($engine:literal, $name:literal, oldest: $oldest:literal) => {
        $crate::step::Step {
            name: $name,
            oldest: $oldest,
            up: include_str!(concat!("../../migrations/", $engine, "/", $name, "/up.sql")),
            down: include_str!(concat!("../../migrations/", $engine, "/", $name, "/down.sql")),
        }
    };
}

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) use step;

impl Step {
    /// Its stamp without the dashes, as diesel has it.
    pub(crate) fn version(&self) -> String {
        self.name.split('_').next().unwrap_or_default().replace('-', "")
    }
}

impl MigrationName for Step {
    fn version(&self) -> MigrationVersion<'_> {
        self.version().into()
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The migrations that this program carries.
pub(crate) fn carried(all: &'static [Step]) -> &'static [Step] {
    // Only builds for the test of upgrades have more than there are; the last is left out unless it is meant.
    #[cfg(qudo_upgrade_test)]
    if std::env::var_os("QUDO_TEST_BREAKING_MIGRATION").is_none() {
        return &all[..all.len() - 1];
    }
    all
}

/// A program that knows no more than the first migration may go on working with this one. Only in builds for the test of
/// upgrades.
#[cfg(qudo_upgrade_test)]
pub(crate) const ADD_A_COLUMN: Step = Step {
    name: "2999-01-01-000001_add_a_column",
    oldest: 1,
    up: "ALTER TABLE qudo_job ADD COLUMN note INTEGER DEFAULT 7; \
         ALTER TABLE qudo_ready ADD COLUMN note INTEGER DEFAULT 7",
    down: "ALTER TABLE qudo_job DROP COLUMN note; ALTER TABLE qudo_ready DROP COLUMN note",
};

/// No older program may go on with this one. Only in builds for the test of upgrades.
#[cfg(qudo_upgrade_test)]
pub(crate) const BREAK: Step = Step {
    name: "2999-01-02-000001_break",
    oldest: 7,
    up: "ALTER TABLE qudo_job ADD COLUMN broken INTEGER",
    down: "ALTER TABLE qudo_job DROP COLUMN broken",
};
