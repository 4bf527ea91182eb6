use qudo_test_servers::{
    Engine, MariadbServer, MysqlServer, Options, PgbouncerServer, PostgresServer, Server,
    ensure_installed, run_sql,
};

use crate::Result;
use crate::engine::{Engines, MARIADB_URL, MYSQL_URL, POOLER_URL, POSTGRES_URL, given};

/// The variable that tells the tests which engine this machine cannot have today.
const WITHOUT: &str = "QUDO_TEST_WITHOUT";

/// The database servers of a run: given by the developer, or private and gone with this value.
#[derive(Debug, Default)]
pub(crate) struct Databases {
    postgres: Option<String>,
    pooler: Option<String>,
    mariadb: Option<String>,
    mysql: Option<String>,
    /// Why there is no MySQL server although one was asked for.
    mysql_missing: Option<String>,
    versions: Vec<String>,
    // The pooler ends before the server behind it.
    pooler_server: Option<PgbouncerServer>,
    postgres_server: Option<PostgresServer>,
    mariadb_server: Option<MariadbServer>,
    mysql_server: Option<MysqlServer>,
}

impl Databases {
    /// Starts a private server for each engine of the run whose variable names none.
    ///
    /// MySQL comes from another suite of Debian than the rest. That its mirror cannot give it today
    /// is the one reason for which a run goes on without an engine.
    pub(crate) fn start(engines: &Engines, durable: bool) -> Result<Self> {
        Self::start_with(engines, durable, &[])
    }

    /// The same with further settings of PostgreSQL.
    pub(crate) fn start_with(
        engines: &Engines,
        durable: bool,
        postgres: &[String],
    ) -> Result<Self> {
        let options = Options { durable, ..Options::default() };
        let mut this = Self::default();
        if engines.postgres() {
            let options = Options { settings: postgres.to_vec(), ..options.clone() };
            (this.postgres, this.postgres_server) = server(POSTGRES_URL, &options)?;
        }
        if let Some(postgres) = this.postgres.as_deref()
            && engines.pooled()
        {
            this.pooler = given(POOLER_URL);
            if this.pooler.is_none() {
                let server = PgbouncerServer::before(postgres)?;
                announce(server.version(), server.port());
                this.versions.push(server.version().to_owned());
                this.pooler = Some(server.url());
                this.pooler_server = Some(server);
            }
        }
        if engines.mariadb() {
            (this.mariadb, this.mariadb_server) = server(MARIADB_URL, &options)?;
        }
        if engines.mysql() {
            this.mysql_missing = fetch_mysql()?;
            (this.mysql, this.mysql_server) = match this.mysql_missing {
                Some(_) => (given(MYSQL_URL), None),
                None => server(MYSQL_URL, &options)?,
            };
        }
        for url in [&this.postgres, &this.mariadb, &this.mysql].into_iter().flatten() {
            this.versions.push(version(url)?);
        }
        Ok(this)
    }

    /// The servers with their versions.
    pub(crate) fn versions(&self) -> &[String] {
        &self.versions
    }

    /// The URL of a database on the PostgreSQL server, when one takes part.
    pub(crate) fn postgres(&self) -> Option<&str> {
        self.postgres.as_deref()
    }

    /// The URL of a database on the MariaDB server, when one takes part.
    pub(crate) fn mariadb(&self) -> Option<&str> {
        self.mariadb.as_deref()
    }

    /// The URL of a database on the MySQL server, when one takes part.
    pub(crate) fn mysql(&self) -> Option<&str> {
        self.mysql.as_deref()
    }

    /// The variables by which the tests find the servers.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let named = [
            (POSTGRES_URL, &self.postgres),
            (POOLER_URL, &self.pooler),
            (MARIADB_URL, &self.mariadb),
            (MYSQL_URL, &self.mysql),
        ];
        let without = self.mysql_missing.as_ref().map(|_| match self.mysql {
            Some(_) => (WITHOUT, "own mysql".to_owned()),
            None => without_mysql(),
        });
        named
            .into_iter()
            .filter_map(|(name, url)| Some((name, url.clone()?)))
            .chain(without)
            .collect()
    }

    /// The servers of the run with their versions, and which one is missing: for its last lines.
    pub(crate) fn closing_lines(&self) -> Vec<String> {
        let mut lines = vec![format!("tested: {}", self.versions.join(", "))];
        if let Some(reason) = &self.mysql_missing {
            lines.push(match self.mysql {
                Some(_) => format!("NO MYSQL SERVER WAS STARTED, STOPPED OR KILLED: {reason}"),
                None => mysql_was_not_run(reason),
            });
        }
        lines
    }
}

/// Unpacks MySQL where it is not yet, and says why it cannot be had where the mirror cannot give it.
pub(crate) fn fetch_mysql() -> Result<Option<String>> {
    match ensure_installed(&[qudo_test_servers::Package::MysqlServer]) {
        Ok(()) => Ok(None),
        Err(error @ qudo_test_servers::Error::Unavailable { .. }) => Ok(Some(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

/// The variable for tests that have to go without MySQL.
pub(crate) fn without_mysql() -> (&'static str, String) {
    (WITHOUT, "mysql".to_owned())
}

/// The last line of a run that had to go without.
pub(crate) fn mysql_was_not_run(reason: &str) -> String {
    format!("MYSQL WAS NOT RUN: {reason}")
}

/// The server that the developer named, or a private one.
fn server<E: Engine>(
    variable: &str,
    options: &Options,
) -> Result<(Option<String>, Option<Server<E>>)> {
    if let Some(url) = given(variable) {
        return Ok((Some(url), None));
    }
    let server = Server::<E>::start(options.clone())?;
    announce(server.version(), server.port());
    Ok((Some(server.url()), Some(server)))
}

/// What a server says of itself: `PostgreSQL 15.18`, `MariaDB 10.11.19`, `MySQL 9.7.4`.
fn version(url: &str) -> Result<String> {
    if url.starts_with("postgres") {
        let told = run_sql(url, "SHOW server_version")?;
        return Ok(format!("PostgreSQL {}", told.split(' ').next().unwrap_or_default()));
    }
    let told = run_sql(url, "SELECT VERSION()")?;
    let name = if told.to_lowercase().contains("mariadb") { "MariaDB" } else { "MySQL" };
    Ok(format!("{name} {}", told.split('-').next().unwrap_or_default()))
}

/// Goes to the error output, because the `servers` command prints lines for a shell.
fn announce(version: &str, port: u16) {
    eprintln!("{version} on port {port}");
}
