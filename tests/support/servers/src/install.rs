use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{run, succeeds};
use crate::{
    Error, binaries, mariadb_available, mysql, mysql_available, node, pgbouncer_available,
    postgres_available,
};

/// Something that building or testing with an engine needs from the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Package {
    /// The programs of a PostgreSQL server.
    PostgresServer,
    /// `psql`.
    PostgresClient,
    /// libpq with its headers.
    PostgresHeaders,
    /// The pooler that stands before PostgreSQL in some tests.
    Pgbouncer,
    /// The programs of a MariaDB server.
    MariadbServer,
    /// The programs of a MySQL server, of another suite and unpacked beside the system.
    MysqlServer,
    /// `mariadb`.
    MariadbClient,
    /// The client library of MariaDB with its headers.
    MariadbHeaders,
    /// The replication of a MariaDB cluster.
    Galera,
    /// By which a node of a cluster gets its first copy.
    Rsync,
    /// `sqlite3`.
    SqliteClient,
    /// PostgreSQL's driver for the system's Python.
    PythonPostgres,
    /// MySQL's driver for the system's Python.
    PythonMysql,
    /// Drivers of all engines for Node, of npm and beside the system.
    NodeDrivers,
    /// A library that lets a process see another time.
    Faketime,
    /// `pkg-config`, by which build scripts find the libraries.
    PkgConfig,
}

/// Installs what is missing of these packages through `apt-get`, as root or through `sudo -n`.
///
/// Nothing is run when nothing is missing. The packages may start servers of the system; the
/// private ones do not meet them.
///
/// # Errors
///
/// [`Error::NotInstalled`] with advice when a package is missing and cannot be installed, and
/// [`Error::Unavailable`] when the mirror does not give one of another suite.
pub fn ensure_installed(packages: &[Package]) -> Result<(), Error> {
    let (beside, installed): (Vec<_>, Vec<_>) =
        missing_of(packages).into_iter().partition(|package| package.is_beside());
    install(&installed)?;
    // After the others, because they bring what these need.
    for package in beside {
        if package == Package::NodeDrivers { node::fetch()? } else { mysql::unpack()? }
    }
    Ok(())
}

fn install(missing: &[Package]) -> Result<(), Error> {
    if missing.is_empty() {
        return Ok(());
    }
    if binaries::find(&["apt-get"]).is_none() {
        return Err(not_installed(missing, "this machine has no apt-get to install it with"));
    }
    // The index first, because a fresh image has none.
    if !apt_get(&["update"]) {
        return Err(not_installed(missing, "apt-get update failed"));
    }
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(missing.iter().map(|package| package.debian_name()));
    if !apt_get(&arguments) {
        return Err(not_installed(missing, "apt-get install failed"));
    }
    let still_missing = missing_of(missing);
    if still_missing.is_empty() {
        Ok(())
    } else {
        Err(not_installed(&still_missing, "apt-get install did not bring it"))
    }
}

impl Package {
    /// Whether this machine has it.
    pub fn is_installed(self) -> bool {
        match self {
            Self::PostgresServer => postgres_available(),
            Self::PostgresClient => binaries::psql().is_some(),
            Self::PostgresHeaders => {
                has_header("libpq-fe.h", "pg_config", "--includedir", "/usr/include/postgresql")
            }
            Self::Pgbouncer => pgbouncer_available(),
            Self::MariadbServer => mariadb_available(),
            Self::MysqlServer => mysql_available(),
            Self::MariadbClient => binaries::mariadb_client().is_some(),
            Self::MariadbHeaders => has_header(
                "mysql.h",
                "mariadb_config",
                "--variable=pkgincludedir",
                "/usr/include/mariadb",
            ),
            Self::Galera => Path::new("/usr/lib/galera/libgalera_smm.so").is_file(),
            Self::Rsync => binaries::find(&["rsync"]).is_some(),
            Self::SqliteClient => binaries::find(&["sqlite3"]).is_some(),
            Self::PythonPostgres => python_has("psycopg2"),
            Self::PythonMysql => python_has("pymysql"),
            Self::NodeDrivers => node::drivers().is_some(),
            Self::Faketime => faketime_library().is_some(),
            Self::PkgConfig => binaries::find(&["pkg-config", "pkgconf"]).is_some(),
        }
    }

    /// Whether it is put beside the system and not into it.
    fn is_beside(self) -> bool {
        matches!(self, Self::MysqlServer | Self::NodeDrivers)
    }

    /// The name of the package in Debian and its kin.
    pub fn debian_name(self) -> &'static str {
        match self {
            Self::PostgresServer => "postgresql",
            Self::PostgresClient => "postgresql-client",
            Self::PostgresHeaders => "libpq-dev",
            Self::Pgbouncer => "pgbouncer",
            Self::MariadbServer => "mariadb-server",
            Self::MysqlServer => "mysql-server-core",
            Self::MariadbClient => "mariadb-client",
            Self::MariadbHeaders => "libmariadb-dev",
            Self::Galera => "galera-4",
            Self::Rsync => "rsync",
            Self::SqliteClient => "sqlite3",
            Self::PythonPostgres => "python3-psycopg2",
            Self::PythonMysql => "python3-pymysql",
            Self::NodeDrivers => "nodejs npm",
            Self::Faketime => "libfaketime",
            Self::PkgConfig => "pkg-config",
        }
    }

    /// The error that says this package is missing.
    pub(crate) fn missing(self) -> Error {
        not_installed(&[self], "the tests need it")
    }

    /// The variable that names an existing server, which makes the package unnecessary.
    fn variable(self) -> Option<&'static str> {
        match self {
            Self::PostgresServer => Some("QUDO_TEST_POSTGRES_URL"),
            Self::MariadbServer => Some("QUDO_TEST_MARIADB_URL"),
            Self::MysqlServer => Some("QUDO_TEST_MYSQL_URL"),
            _ => None,
        }
    }
}

/// The system's Python, which sees the packages of the system.
pub const PYTHON: &str = "/usr/bin/python3";

fn python_has(module: &str) -> bool {
    succeeds(Command::new(PYTHON).args(["-c", &format!("import {module}")]))
}

/// The library of [`Package::Faketime`], to be loaded before all others.
pub fn faketime_library() -> Option<PathBuf> {
    let directories = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut found = directories.map(|one| one.path().join("faketime/libfaketime.so.1"));
    found.find(|path| path.is_file())
}

fn missing_of(packages: &[Package]) -> Vec<Package> {
    packages.iter().copied().filter(|package| !package.is_installed()).collect()
}

/// Says what is missing and each way to get along.
fn not_installed(packages: &[Package], reason: &str) -> Error {
    let names: Vec<&str> = packages.iter().map(|package| package.debian_name()).collect();
    let names = names.join(" ");
    let mut ways = vec![format!("as root: apt-get install {names}")];
    ways.extend(packages.iter().filter_map(|package| {
        let variable = package.variable()?;
        Some(format!("set {variable} to the URL of an existing server"))
    }));
    let advice = format!("{reason}; {}", ways.join(", or "));
    Error::NotInstalled { what: names, advice }
}

/// Runs `apt-get` where its progress can be seen; waits for another one that holds the lock.
fn apt_get(arguments: &[&str]) -> bool {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("env")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "env"]);
        sudo
    };
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"])
        .args(["-o", "DPkg::Lock::Timeout=600", "-o", "Acquire::Retries=3"])
        .args(arguments)
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether a header lies where the library's own config program, or Debian, puts it.
fn has_header(header: &str, config: &str, option: &str, usual: &str) -> bool {
    let told = run(Command::new(config).arg(option)).ok().map(PathBuf::from);
    told.iter()
        .map(PathBuf::as_path)
        .chain([Path::new(usual)])
        .any(|dir| dir.join(header).is_file())
}

#[cfg(test)]
mod tests {
    use super::{Package, ensure_installed};

    #[test]
    fn nothing_is_installed_when_nothing_is_missing() {
        ensure_installed(&[]).unwrap();
    }

    #[test]
    fn the_advice_names_the_package_and_the_variable() {
        let server = Package::PostgresServer.missing().to_string();
        assert!(server.contains("apt-get install postgresql"), "{server}");
        assert!(server.contains("QUDO_TEST_POSTGRES_URL"), "{server}");
        let headers = Package::MariadbHeaders.missing().to_string();
        assert!(headers.contains("libmariadb-dev") && !headers.contains("QUDO_TEST"), "{headers}");
    }
}
