use diesel::migration::{MigrationName, MigrationVersion};

/// A migration as it is written, with the names of the default installation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Its folder: a stamp, an underscore, what it does.
    pub(crate) name: &'static str,
    pub(crate) up: &'static str,
    pub(crate) down: &'static str,
}

/// Takes in a folder of migrations.
macro_rules! step {
    ($engine:literal, $name:literal) => {
        $crate::step::Step {
            name: $name,
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
