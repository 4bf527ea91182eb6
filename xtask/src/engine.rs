use std::env;

use clap::ValueEnum;
use qudo_test_servers::Package;

/// The variable that names an existing PostgreSQL server for the tests.
pub(crate) const POSTGRES_URL: &str = "QUDO_TEST_POSTGRES_URL";

/// The variable that names that server behind an existing transaction pooler.
pub(crate) const POOLER_URL: &str = "QUDO_TEST_POOLER_URL";

/// The variable that names an existing MariaDB server for the tests.
pub(crate) const MARIADB_URL: &str = "QUDO_TEST_MARIADB_URL";

/// The variable that names an existing MySQL server for the tests.
pub(crate) const MYSQL_URL: &str = "QUDO_TEST_MYSQL_URL";

/// The features that need no library of the system.
const PLAIN: [&str; 6] = ["msgpack", "history", "tokio", "metrics", "zstd", "aead"];

/// What the behaviour suite can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// The driver in memory, which needs no database.
    Memory,
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// PostgreSQL behind a pooler that changes its sessions with each transaction.
    Pooled,
    /// MariaDB.
    Mariadb,
    /// MySQL itself.
    Mysql,
    /// One manager over one database of each kind.
    Mixed,
}

/// The engines of one run.
#[derive(Debug)]
pub(crate) struct Engines {
    chosen: Vec<Engine>,
}

impl Engines {
    /// The engines that the developer named, or all when none was.
    pub(crate) fn chosen(engines: &[Engine]) -> Self {
        Self { chosen: engines.to_vec() }
    }

    /// All engines.
    pub(crate) fn all() -> Self {
        Self::chosen(&[])
    }

    /// Whether a PostgreSQL server takes part.
    pub(crate) fn postgres(&self) -> bool {
        self.include(Engine::Postgres) || self.pooled()
    }

    /// Whether a pooler in front of it takes part.
    pub(crate) fn pooled(&self) -> bool {
        self.chosen.is_empty() || self.chosen.contains(&Engine::Pooled)
    }

    /// Whether a MariaDB server takes part.
    pub(crate) fn mariadb(&self) -> bool {
        self.include(Engine::Mariadb)
    }

    /// Whether a MySQL server takes part.
    pub(crate) fn mysql(&self) -> bool {
        self.include(Engine::Mysql)
    }

    /// The arguments that turn on what the engines need. A partial run asks for no more, so that
    /// it works on a machine without the other client libraries.
    pub(crate) fn features(&self) -> Vec<String> {
        if self.chosen.is_empty() {
            return vec!["--all-features".into()];
        }
        [(self.postgres(), "postgres"), (self.mariadb() || self.mysql(), "mysql")]
            .into_iter()
            .filter(|(needed, _)| *needed)
            .map(|(_, feature)| feature)
            .chain(PLAIN)
            .map(|feature| format!("--features={feature}"))
            .collect()
    }

    /// Whether all engines take part.
    pub(crate) fn complete(&self) -> bool {
        self.chosen.is_empty()
    }

    /// The value of `QUDO_TEST_ENGINES` for the tests, when the run is a partial one.
    pub(crate) fn names(&self) -> Option<String> {
        let names: Vec<String> = self
            .chosen
            .iter()
            .filter_map(ValueEnum::to_possible_value)
            .map(|value| value.get_name().to_owned())
            .collect();
        (!names.is_empty()).then(|| names.join(","))
    }

    /// What the machine needs but MySQL's server. The other servers are needed also where a variable
    /// names one: tests that stop and kill servers start their own.
    pub(crate) fn packages(&self) -> Vec<Package> {
        let mut packages = Vec::new();
        if self.postgres() {
            packages.extend([Package::PkgConfig, Package::PostgresHeaders]);
            // One test starts a pooler of its own.
            packages.extend([Package::Pgbouncer, Package::PostgresServer]);
        }
        if self.mariadb() || self.mysql() {
            packages.extend([Package::PkgConfig, Package::MariadbHeaders, Package::MariadbClient]);
        }
        if self.mariadb() {
            packages.push(Package::MariadbServer);
        }
        if self.complete() {
            // For the tests with faults, which take part in a complete run.
            packages.push(Package::Faketime);
            // For the tests that enqueue from other languages, which take part in a complete run.
            packages.extend([Package::SqliteClient, Package::PythonPostgres]);
            packages.extend([Package::PythonMysql, Package::NodeDrivers]);
        }
        packages
    }

    fn include(&self, engine: Engine) -> bool {
        self.chosen.is_empty()
            || self.chosen.iter().any(|&chosen| chosen == engine || chosen == Engine::Mixed)
    }
}

/// The value of a variable that names a server; an empty one counts as not set.
pub(crate) fn given(variable: &str) -> Option<String> {
    env::var(variable).ok().filter(|url| !url.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{Engine, Engines, PLAIN};

    #[test]
    fn a_partial_run_asks_only_for_what_its_engines_need() {
        let sqlite = Engines::chosen(&[Engine::Memory, Engine::Sqlite]);
        assert!(sqlite.packages().is_empty());
        assert_eq!(sqlite.features().len(), PLAIN.len());
        assert_eq!(sqlite.names().as_deref(), Some("memory,sqlite"));
        let postgres = Engines::chosen(&[Engine::Postgres]);
        assert_eq!(postgres.features()[0], "--features=postgres");
        assert!(!postgres.features().contains(&"--features=mysql".to_owned()));
        let mixed = Engines::chosen(&[Engine::Mixed]);
        assert_eq!(mixed.features()[..2], ["--features=postgres", "--features=mysql"]);
    }

    #[test]
    fn a_run_without_a_choice_is_about_everything() {
        let all = Engines::all();
        assert!(all.postgres() && all.mariadb() && all.mysql());
        assert_eq!(all.features(), ["--all-features"]);
        assert_eq!(all.names(), None);
    }
}
