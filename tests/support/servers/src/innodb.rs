//! What the servers of MariaDB and MySQL have in common.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Error;
use crate::options::Options;
use crate::place::Place;
use crate::program::{run, succeeds};
use crate::server::DATABASE;

/// Settings of a server on this port, and with these more where it need not be durable.
pub(crate) fn settings(
    place: &Place,
    port: u16,
    options: &Options,
    own: &[&str],
    hasty: &[&str],
) -> Vec<String> {
    let pool = if options.durable { "512M" } else { "256M" };
    let mut settings = vec![
        format!("tmpdir={}", place.root().display()),
        format!("socket={}", socket(place).display()),
        format!("pid-file={}", place.root().join("server.pid").display()),
        format!("port={port}"),
        format!("max-connections={}", options.connections()),
        format!("innodb-buffer-pool-size={pool}"),
        "bind-address=127.0.0.1".into(),
    ];
    // MySQL does not take it back when it is given again as OFF.
    if !options.settings.iter().any(|setting| setting.starts_with("skip-name-resolve")) {
        settings.push("skip-name-resolve".into());
    }
    settings.extend(own.iter().copied().map(String::from));
    if !options.durable {
        settings.extend(["innodb-flush-log-at-trx-commit=0", "sync-binlog=0"].map(String::from));
        settings.extend(hasty.iter().copied().map(String::from));
    }
    settings.extend(options.settings.iter().cloned());
    settings.iter().map(|setting| format!("--{setting}")).collect()
}

/// Whether the server answers. The ping goes through the socket, where root needs no password, so
/// the port is tried beside it.
pub(crate) fn answers(place: &Place, port: u16, admin: &Path) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_secs(3)).is_ok()
        && succeeds(as_root(place, admin).args(["--connect-timeout=3", "ping"]))
}

/// Makes the database, and the account `qudo` with every privilege.
pub(crate) fn furnish(place: &Place, client: &Path) -> Result<(), Error> {
    let mut statements = format!("CREATE DATABASE {DATABASE};");
    for host in ["127.0.0.1", "localhost"] {
        statements.push_str(&format!(
            "CREATE USER 'qudo'@'{host}' IDENTIFIED BY 'secret'; \
             GRANT ALL PRIVILEGES ON *.* TO 'qudo'@'{host}' WITH GRANT OPTION;"
        ));
    }
    run(as_root(place, client).arg("--execute").arg(statements)).map(drop)
}

pub(crate) fn url(port: u16, database: &str) -> String {
    format!("mysql://qudo:secret@127.0.0.1:{port}/{database}")
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
