use std::path::{Path, PathBuf};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use qudo::{Manager, ManagerBuilder};
use qudo_test_servers::{MariadbServer, MysqlServer, Options, PostgresServer, Proxy};

use crate::Result;

/// The databases of a run, with what faults are done through.
#[derive(Debug)]
pub struct World {
    /// Behind [`postgres_proxy`](Self::postgres_proxy).
    pub postgres: PostgresServer,
    /// Behind [`mariadb_proxy`](Self::mariadb_proxy).
    pub mariadb: MariadbServer,
    /// What PostgreSQL is reached through.
    pub postgres_proxy: Proxy,
    /// What MariaDB is reached through.
    pub mariadb_proxy: Proxy,
    /// MySQL itself with what it is reached through, where a run is about it and the machine has it.
    pub mysql: Option<(MysqlServer, Proxy)>,
    place: tempfile::TempDir,
}

impl World {
    /// Starts the servers but MySQL, durable ones, and makes the tables.
    ///
    /// # Errors
    ///
    /// When a server does not start.
    pub fn start() -> Result<Self> {
        Self::with(None)
    }

    /// The same with MySQL, unless this machine cannot have it today.
    ///
    /// # Errors
    ///
    /// When a server does not start.
    pub fn with_mysql() -> Result<Self> {
        if !qudo_test_servers::can_start("mysql") {
            return Self::start();
        }
        let server = MysqlServer::start(Options { durable: true, ..Options::default() })?;
        let proxy = Proxy::start(server.port())?;
        Self::with(Some((server, proxy)))
    }

    fn with(mysql: Option<(MysqlServer, Proxy)>) -> Result<Self> {
        let options = Options { durable: true, ..Options::default() };
        let postgres = PostgresServer::start(options.clone())?;
        let mariadb = MariadbServer::start(options)?;
        let world = Self {
            postgres_proxy: Proxy::start(postgres.port())?,
            mariadb_proxy: Proxy::start(mariadb.port())?,
            postgres,
            mariadb,
            mysql,
            place: tempfile::tempdir()?,
        };
        std::fs::create_dir(world.history())?;
        world.builder().build()?.migrate()?;
        Ok(world)
    }

    /// Names and data sources, as worker processes are told them.
    pub fn databases(&self) -> Vec<(String, String)> {
        let through = |url: String, port: u16, proxy: &Proxy| {
            url.replacen(&format!(":{port}/"), &format!(":{}/", proxy.port()), 1)
        };
        let mut databases = vec![
            ("sqlite".to_owned(), format!("sqlite:{}", self.file().display())),
            (
                "postgres".to_owned(),
                through(self.postgres.url(), self.postgres.port(), &self.postgres_proxy),
            ),
            (
                "mariadb".to_owned(),
                through(self.mariadb.url(), self.mariadb.port(), &self.mariadb_proxy),
            ),
        ];
        if let Some((server, proxy)) = &self.mysql {
            databases.push(("mysql".to_owned(), through(server.url(), server.port(), proxy)));
        }
        databases
    }

    /// A manager of all databases that gives up soon and looks again soon.
    pub fn builder(&self) -> ManagerBuilder {
        builder(&self.databases())
    }

    /// A file next to the database's own.
    pub fn file(&self) -> PathBuf {
        self.place.path().join("jobs.db")
    }

    /// Where every process records.
    pub fn history(&self) -> PathBuf {
        self.place.path().join("history")
    }

    /// Holds the write lock of the SQLite file on another connection for so long, as a backup or a
    /// careless script does.
    ///
    /// # Errors
    ///
    /// When the lock cannot be had.
    pub fn lock_sqlite(&self, hold: Duration) -> Result<()> {
        let file = self.file();
        let mut conn = SqliteConnection::establish(path_text(&file)?)?;
        conn.batch_execute("PRAGMA busy_timeout = 10000; BEGIN IMMEDIATE")?;
        std::thread::sleep(hold);
        conn.batch_execute("ROLLBACK")?;
        Ok(())
    }

    /// Makes PostgreSQL refuse writes, or take them again, for all sessions.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub fn set_postgres_read_only(&self, yes: bool) -> Result<()> {
        let word = if yes { "on" } else { "off" };
        self.postgres.query(&format!("ALTER SYSTEM SET default_transaction_read_only = {word}"))?;
        self.postgres.query("SELECT pg_reload_conf()")?;
        Ok(())
    }

    /// Ends every fault.
    ///
    /// # Errors
    ///
    /// When a server does not come back.
    pub fn heal(&self) -> Result<()> {
        self.postgres_proxy.pass();
        self.mariadb_proxy.pass();
        if self.postgres.pid().is_none() {
            self.postgres.restart()?;
        }
        if self.mariadb.pid().is_none() {
            self.mariadb.restart()?;
        }
        self.postgres.resume()?;
        self.mariadb.resume()?;
        if let Some((server, proxy)) = &self.mysql {
            proxy.pass();
            if server.pid().is_none() {
                server.restart()?;
            }
            server.resume()?;
        }
        self.set_postgres_read_only(false)
    }
}

/// As [`World::builder`], for a process that was told the data sources.
pub fn builder(databases: &[(String, String)]) -> ManagerBuilder {
    default_builder(databases)
        .retry_seconds(2)
        .delay(Duration::from_millis(500))
        .call_limit(Duration::from_secs(2))
}

/// A manager of all databases with every limit as a user has it who sets none.
pub(crate) fn default_builder(databases: &[(String, String)]) -> ManagerBuilder {
    let builder = Manager::builder().linked(false).ability::<crate::effort>();
    databases.iter().fold(builder, |builder, (name, dsn)| builder.database_as(name, dsn))
}

fn path_text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| "the temporary directory's name is not UTF-8".into())
}
