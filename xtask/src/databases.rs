use qudo_test_servers::{
    MariadbServer, Options, PgbouncerServer, PostgresServer, create_database, drop_database,
};

use crate::Result;
use crate::engine::{Engines, MYSQL_URL, POOLER_URL, POSTGRES_URL, given};

/// The database servers of a run: given by the developer, or private and gone with this value.
#[derive(Debug)]
pub(crate) struct Databases {
    postgres: Option<String>,
    pooler: Option<String>,
    mysql: Option<String>,
    // The pooler ends before the server behind it.
    _pooler: Option<PgbouncerServer>,
    _servers: (Option<PostgresServer>, Option<MariadbServer>),
}

impl Databases {
    /// Starts a private server for each engine of the run whose variable names none.
    pub(crate) fn start(engines: &Engines, durable: bool) -> Result<Self> {
        let options = Options { durable, ..Options::default() };
        let (mut postgres, mut mysql) = (None, None);
        let mut servers = (None, None);
        if engines.postgres() {
            postgres = given(POSTGRES_URL);
            if postgres.is_none() {
                let server = PostgresServer::start(options.clone())?;
                announce(server.version(), server.port());
                postgres = Some(server.url());
                servers.0 = Some(server);
            }
        }
        let (mut pooler, mut pooler_server) = (None, None);
        if let Some(postgres) = postgres.as_deref()
            && engines.pooled()
        {
            pooler = given(POOLER_URL);
            if pooler.is_none() {
                let server = PgbouncerServer::before(postgres)?;
                announce(server.version(), server.port());
                pooler = Some(server.url());
                pooler_server = Some(server);
            }
        }
        if engines.mysql() {
            mysql = given(MYSQL_URL);
            if mysql.is_none() {
                let server = MariadbServer::start(options)?;
                announce(server.version(), server.port());
                mysql = Some(server.url());
                servers.1 = Some(server);
            }
        }
        Ok(Self { postgres, pooler, mysql, _pooler: pooler_server, _servers: servers })
    }

    /// The URL of a database on the PostgreSQL server, when one takes part.
    pub(crate) fn postgres(&self) -> Option<&str> {
        self.postgres.as_deref()
    }

    /// The URL of a database on the MySQL or MariaDB server, when one takes part.
    pub(crate) fn mysql(&self) -> Option<&str> {
        self.mysql.as_deref()
    }

    /// The variables by which the tests find the servers.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let named =
            [(POSTGRES_URL, &self.postgres), (POOLER_URL, &self.pooler), (MYSQL_URL, &self.mysql)];
        named.into_iter().filter_map(|(name, url)| Some((name, url.clone()?))).collect()
    }
}

/// An empty database that is dropped with this value.
#[derive(Debug)]
pub(crate) struct FreshDatabase {
    beside: String,
    name: String,
    url: String,
}

impl FreshDatabase {
    /// Creates the database beside the one in the URL. The name holds this process's id, since a
    /// server given by the developer may serve several runs.
    pub(crate) fn create(beside: &str, purpose: &str) -> Result<Self> {
        let name = format!("qudo_{purpose}_{}", std::process::id());
        drop_database(beside, &name)?;
        let url = create_database(beside, &name)?;
        Ok(Self { beside: beside.to_owned(), name, url })
    }

    /// The database's URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for FreshDatabase {
    fn drop(&mut self) {
        if let Err(error) = drop_database(&self.beside, &self.name) {
            eprintln!("the database {} is left behind: {error}", self.name);
        }
    }
}

/// Goes to the error output, because the `servers` command prints lines for a shell.
fn announce(version: &str, port: u16) {
    eprintln!("{version} on port {port}");
}
