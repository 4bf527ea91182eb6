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
use crate::{Error, Package, binaries};

/// A private MariaDB server.
pub type MariadbServer = Server<Mariadb>;

/// The MariaDB engine: account `qudo` with password `secret` and every privilege.
#[derive(Debug)]
pub struct Mariadb {
    server: PathBuf,
    install: PathBuf,
    client: PathBuf,
    admin: PathBuf,
}

/// Whether MariaDB's server programs are installed.
pub fn mariadb_available() -> bool {
    Mariadb::locate().is_ok()
}

impl Engine for Mariadb {
    const NAME: &'static str = "MariaDB";
}

impl Definition for Mariadb {
    const PREFIX: &'static str = "qudo-my-";
    const USERS: &'static [&'static str] = &["mysql", "nobody"];
    const STOP: Signal = Signal::TERM;
    // A clean shutdown would write out a buffer pool that nobody wants; a single process with no
    // shared memory can simply be killed.
    const DISCARD: Signal = Signal::KILL;

    fn locate() -> Result<Self, Error> {
        let find =
            |names: &[&str]| binaries::find(names).ok_or_else(|| Package::MariadbServer.missing());
        Ok(Self {
            server: find(&["mariadbd", "mysqld"])?,
            install: find(&["mariadb-install-db", "mysql_install_db"])?,
            client: find(&["mariadb", "mysql"])?,
            admin: find(&["mariadb-admin", "mysqladmin"])?,
        })
    }

    fn initialise(&self, place: &Place) -> Result<(), Error> {
        // Debian lets only the system's root in as root; here the socket's directory, which only
        // the server's user and root may enter, guards the account.
        run(place
            .command(&self.install)
            .args(["--no-defaults", "--auth-root-authentication-method=normal"])
            .args(["--skip-test-db", "--innodb-flush-log-at-trx-commit=0"])
            .arg(format!("--datadir={}", place.data().display())))
        .map(drop)
    }

    fn command(&self, place: &Place, port: u16, options: &Options) -> Command {
        let pool = if options.durable { "512M" } else { "256M" };
        let mut settings = vec![
            format!("datadir={}", place.data().display()),
            format!("tmpdir={}", place.root().display()),
            format!("socket={}", socket(place).display()),
            format!("pid-file={}", place.root().join("server.pid").display()),
            format!("port={port}"),
            format!("max-connections={}", options.connections()),
            format!("innodb-buffer-pool-size={pool}"),
            "bind-address=127.0.0.1".into(),
            "skip-name-resolve".into(),
            // Debian's configuration, which is not read here, would choose the same.
            "character-set-server=utf8mb4".into(),
        ];
        if !options.durable {
            settings.extend(
                ["innodb-flush-log-at-trx-commit=0", "sync-binlog=0", "skip-log-bin"]
                    .map(String::from),
            );
        }
        let mut command = place.command(&self.server);
        command.arg("--no-defaults");
        for setting in settings.iter().chain(&options.settings) {
            command.arg(format!("--{setting}"));
        }
        command
    }

    fn answers(&self, place: &Place, port: u16) -> bool {
        // The ping goes through the socket, where root needs no password, so the port is tried
        // beside it.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        TcpStream::connect_timeout(&address, Duration::from_secs(3)).is_ok()
            && succeeds(as_root(place, &self.admin).args(["--connect-timeout=3", "ping"]))
    }

    fn furnish(&self, place: &Place, _port: u16) -> Result<(), Error> {
        let accounts = "'qudo'@'127.0.0.1' IDENTIFIED BY 'secret', \
                        'qudo'@'localhost' IDENTIFIED BY 'secret'";
        let statements = format!(
            "CREATE DATABASE {DATABASE}; \
             GRANT ALL PRIVILEGES ON *.* TO {accounts} WITH GRANT OPTION"
        );
        run(as_root(place, &self.client).arg("--execute").arg(statements)).map(drop)
    }

    fn forget(&self, _place: &Place) {}

    fn url(port: u16, database: &str) -> String {
        format!("mysql://qudo:secret@127.0.0.1:{port}/{database}")
    }

    fn version(&self) -> Result<String, Error> {
        let text = run(Command::new(&self.server).args(["--no-defaults", "--version"]))?;
        Ok(format!("{} {}", Self::NAME, version_number(&text)))
    }
}

/// The socket, whose directory only root and the server's user may enter.
fn socket(place: &Place) -> PathBuf {
    place.root().join("socket")
}

/// A client program that speaks to the server as its root.
fn as_root(place: &Place, client: &Path) -> Command {
    let mut command = place.command(client);
    command
        .args(["--no-defaults", "--protocol=socket", "--user=root"])
        .arg(format!("--socket={}", socket(place).display()));
    command
}
