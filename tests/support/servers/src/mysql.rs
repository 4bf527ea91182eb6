use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::engine::{Definition, Engine};
use crate::options::Options;
use crate::place::Place;
use crate::program::{run, version_number};
use crate::server::Server;
use crate::unpacked::Unpacked;
use crate::{Error, Package, binaries, innodb};

/// A private MySQL server.
pub type MysqlServer = Server<Mysql>;

/// MySQL proper: account `qudo` with password `secret` and every privilege, told apart by
/// `caching_sha2_password`, with its binary log on and its default `sql_mode`.
///
/// Debian's stable suite has no MySQL, so its programs come from the suite that has
/// ([`Package::MysqlServer`]), unpacked beside the system.
#[derive(Debug)]
pub struct Mysql {
    loader: PathBuf,
    server: Vec<String>,
    usr: PathBuf,
    client: PathBuf,
    admin: PathBuf,
}

/// The suite of Debian that has MySQL.
const SUITE: &str = "sid";

/// The package of the server alone.
const PACKAGE: &str = "mysql-server-core";

/// Whether MySQL's server programs are on this machine.
pub fn mysql_available() -> bool {
    Mysql::locate().is_ok()
}

/// Fetches and unpacks the server; nothing is done when it is there.
pub(crate) fn unpack() -> Result<(), Error> {
    Unpacked::fetch(SUITE, PACKAGE).map(drop)
}

impl Engine for Mysql {
    const NAME: &'static str = "MySQL";
    const SHORT: &'static str = "mysql";
}

impl Definition for Mysql {
    const PREFIX: &'static str = "qudo-mq-";
    const USERS: &'static [&'static str] = &["mysql", "nobody"];
    const STOP: Signal = Signal::TERM;
    const DISCARD: Signal = Signal::KILL;

    fn locate() -> Result<Self, Error> {
        let unpacked =
            Unpacked::find(SUITE, PACKAGE).ok_or_else(|| Package::MysqlServer.missing())?;
        let (loader, server) = unpacked.program("sbin/mysqld", &["mysql/private"])?;
        // The clients of MariaDB speak to MySQL too.
        let find =
            |names: &[&str]| binaries::find(names).ok_or_else(|| Package::MariadbClient.missing());
        Ok(Self {
            loader,
            server,
            usr: unpacked.usr(),
            client: find(&["mariadb", "mysql"])?,
            admin: find(&["mariadb-admin", "mysqladmin"])?,
        })
    }

    fn initialise(&self, place: &Place) -> Result<(), Error> {
        let mut command = self.mysqld(place);
        run(command.args(["--initialize-insecure", "--innodb-flush-log-at-trx-commit=0"])).map(drop)
    }

    fn command(&self, place: &Place, port: u16, options: &Options) -> Command {
        let mut command = self.mysqld(place);
        // The binary log stays on, as it is by default.
        command.args(innodb::settings(place, port, options, &["mysqlx=OFF"], &[]));
        command
    }

    fn answers(&self, place: &Place, port: u16) -> bool {
        innodb::answers(place, port, &self.admin)
    }

    fn furnish(&self, place: &Place, _port: u16) -> Result<(), Error> {
        innodb::furnish(place, &self.client)
    }

    fn forget(&self, _place: &Place) {}

    fn url(port: u16, database: &str) -> String {
        innodb::url(port, database)
    }

    fn version(&self) -> Result<String, Error> {
        let mut command = Command::new(&self.loader);
        let text = run(command.args(&self.server).args(["--no-defaults", "--version"]))?;
        Ok(format!("{} {}", Self::NAME, version_number(&text)))
    }
}

impl Mysql {
    /// The server's program with what it needs to find its own files.
    fn mysqld(&self, place: &Place) -> Command {
        let mut command = place.command(&self.loader);
        command
            .args(&self.server)
            .arg("--no-defaults")
            .arg(format!("--basedir={}", self.usr.display()))
            .arg(format!("--lc-messages-dir={}", self.usr.join("share/mysql").display()))
            .arg(format!("--plugin-dir={}", self.usr.join("lib/mysql/plugin").display()))
            .arg(format!("--datadir={}", place.data().display()))
            .arg("--secure-file-priv=");
        command
    }
}
