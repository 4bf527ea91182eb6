use std::fs;
use std::path::PathBuf;
use std::process::Command;

use percent_encoding::percent_decode_str;
use rustix::process::Signal;
use url::Url;

use crate::engine::{Definition, Engine};
use crate::options::Options;
use crate::place::Place;
use crate::program::{run, succeeds, version_number};
use crate::server::Server;
use crate::{Error, Package, binaries};

/// A private `PgBouncer` in front of a PostgreSQL server.
pub type PgbouncerServer = Server<Pgbouncer>;

/// `PgBouncer`, which gives each transaction whatever session of the server is free.
#[derive(Debug)]
pub struct Pgbouncer {
    program: PathBuf,
}

/// Whether `PgBouncer` is installed.
pub fn pgbouncer_available() -> bool {
    Pgbouncer::locate().is_ok()
}

impl PgbouncerServer {
    /// Starts a pooler in front of the server of a `postgres://` URL, for all its databases.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a malformed URL, and those of [`Server::start`].
    pub fn before(postgres: &str) -> Result<Self, Error> {
        let url = Url::parse(postgres).map_err(|error| Error::Invalid {
            what: "the URL of a PostgreSQL server".to_owned(),
            reason: error.to_string(),
        })?;
        let decode = |text: &str| {
            let text = percent_decode_str(text).decode_utf8_lossy().into_owned();
            format!("'{}'", text.replace('\'', "''"))
        };
        let mut target = format!(
            "* = host={} port={} user={}",
            decode(url.host_str().unwrap_or("127.0.0.1")),
            url.port().unwrap_or(5432),
            decode(url.username()),
        );
        if let Some(password) = url.password() {
            target.push_str(&format!(" password={}", decode(password)));
        }
        Self::start(Options { settings: vec![target], ..Options::default() })
    }
}

impl Pgbouncer {
    /// Its version, major and minor.
    fn release(&self) -> Option<(u32, u32)> {
        let text = run(Command::new(&self.program).arg("--version")).ok()?;
        let mut parts = version_number(text.lines().next()?).split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

impl Engine for Pgbouncer {
    const NAME: &'static str = "PgBouncer";
    const SHORT: &'static str = "pooler";
}

impl Definition for Pgbouncer {
    const PREFIX: &'static str = "qudo-pb-";
    const USERS: &'static [&'static str] = &["postgres", "nobody"];
    const STOP: Signal = Signal::INT;
    const DISCARD: Signal = Signal::QUIT;

    fn locate() -> Result<Self, Error> {
        binaries::find(&["pgbouncer"])
            .map(|program| Self { program })
            .ok_or_else(|| Package::Pgbouncer.missing())
    }

    fn initialise(&self, _: &Place) -> Result<(), Error> {
        Ok(())
    }

    fn command(&self, place: &Place, port: u16, options: &Options) -> Command {
        let file = place.root().join("pgbouncer.ini");
        // Few sessions and a short life for idle ones, so that transactions do change sessions.
        // From 1.21 it can carry prepared statements, and older ones do not know the word.
        let carried = match self.release() {
            Some(release) if release >= (1, 21) => "max_prepared_statements = 0\n",
            _ => "",
        };
        let settings = format!(
            "[databases]\n{}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\n\
             max_client_conn = 1000\ndefault_pool_size = 5\nserver_idle_timeout = 2\n\
             server_round_robin = 1\nserver_login_retry = 1\nignore_startup_parameters = extra_float_digits\n{carried}",
            options.settings.join("\n"),
        );
        // A file that is missing is what the program then complains of, in its log.
        let _ = fs::write(&file, settings);
        let mut command = place.command(&self.program);
        command.arg("--quiet").arg(file);
        command
    }

    fn answers(&self, place: &Place, port: u16) -> bool {
        let Some(bin) = binaries::postgres_directory() else {
            return std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        };
        succeeds(
            place
                .command(&bin.join("pg_isready"))
                .args(["--host=127.0.0.1", "--dbname=postgres", "--timeout=3"])
                .arg(format!("--port={port}")),
        )
    }

    fn furnish(&self, _: &Place, _: u16) -> Result<(), Error> {
        Ok(())
    }

    fn forget(&self, _: &Place) {}

    fn url(port: u16, database: &str) -> String {
        format!("postgres://qudo@127.0.0.1:{port}/{database}?pooler=transaction")
    }

    fn version(&self) -> Result<String, Error> {
        let text = run(Command::new(&self.program).arg("--version"))?;
        let first = text.lines().next().unwrap_or_default();
        Ok(format!("{} {}", Self::NAME, version_number(first)))
    }
}
