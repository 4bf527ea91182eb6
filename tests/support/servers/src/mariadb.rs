use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::engine::{Definition, Engine};
use crate::options::Options;
use crate::place::Place;
use crate::program::{run, version_number};
use crate::server::Server;
use crate::{Error, Package, binaries, innodb};

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
    const SHORT: &'static str = "mariadb";
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
            // Whatever the name of this machine: nobody logs in by it.
            .arg("--force")
            .arg(format!("--datadir={}", place.data().display())))
        .map(drop)
    }

    fn command(&self, place: &Place, port: u16, options: &Options) -> Command {
        let mut command = place.command(&self.server);
        command.arg("--no-defaults").arg(format!("--datadir={}", place.data().display()));
        // Debian's configuration, which is not read here, would choose the same.
        let own = ["character-set-server=utf8mb4"];
        command.args(innodb::settings(place, port, options, &own, &["skip-log-bin"]));
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
        let text = run(Command::new(&self.server).args(["--no-defaults", "--version"]))?;
        Ok(format!("{} {}", Self::NAME, version_number(&text)))
    }
}
