use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::engine::{Definition, Engine};
use crate::options::Options;
use crate::place::Place;
use crate::program::{run, succeeds, version_number};
use crate::server::{DATABASE, Server};
use crate::unpacked::Unpacked;
use crate::{Error, Package, binaries};

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
        let pool = if options.durable { "512M" } else { "256M" };
        let mut settings = vec![
            format!("tmpdir={}", place.root().display()),
            format!("socket={}", socket(place).display()),
            format!("pid-file={}", place.root().join("server.pid").display()),
            format!("port={port}"),
            format!("max-connections={}", options.connections()),
            format!("innodb-buffer-pool-size={pool}"),
            "bind-address=127.0.0.1".into(),
            "skip-name-resolve".into(),
            "mysqlx=OFF".into(),
        ];
        if !options.durable {
            // The binary log stays on, as it is by default.
            settings
                .extend(["innodb-flush-log-at-trx-commit=0", "sync-binlog=0"].map(String::from));
        }
        let mut command = self.mysqld(place);
        for setting in settings.iter().chain(&options.settings) {
            command.arg(format!("--{setting}"));
        }
        command
    }

    fn answers(&self, place: &Place, port: u16) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        TcpStream::connect_timeout(&address, Duration::from_secs(3)).is_ok()
            && succeeds(as_root(place, &self.admin).args(["--connect-timeout=3", "ping"]))
    }

    fn furnish(&self, place: &Place, _port: u16) -> Result<(), Error> {
        let mut statements = format!("CREATE DATABASE {DATABASE};");
        for host in ["127.0.0.1", "localhost"] {
            statements.push_str(&format!(
                "CREATE USER 'qudo'@'{host}' IDENTIFIED BY 'secret'; \
                 GRANT ALL PRIVILEGES ON *.* TO 'qudo'@'{host}' WITH GRANT OPTION;"
            ));
        }
        run(as_root(place, &self.client).arg("--execute").arg(statements)).map(drop)
    }

    fn forget(&self, _place: &Place) {}

    fn url(port: u16, database: &str) -> String {
        format!("mysql://qudo:secret@127.0.0.1:{port}/{database}")
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

/// The socket, whose directory only root and the server's user may enter.
fn socket(place: &Place) -> PathBuf {
    place.root().join("socket")
}

/// A client program that speaks to the server as its root, who has no password.
fn as_root(place: &Place, client: &Path) -> Command {
    let mut command = place.command(client);
    command
        .args(["--no-defaults", "--protocol=socket", "--user=root"])
        .arg(format!("--socket={}", socket(place).display()));
    command
}
