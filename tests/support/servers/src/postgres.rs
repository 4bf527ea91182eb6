use std::fs;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::engine::{Definition, Engine};
use crate::options::Options;
use crate::place::Place;
use crate::program::{run, succeeds, version_number};
use crate::server::{DATABASE, Server};
use crate::{Error, Package, binaries};

/// A private PostgreSQL server.
pub type PostgresServer = Server<Postgres>;

/// The PostgreSQL engine: superuser `qudo`, trusted on the loopback without a password.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
}

/// Whether PostgreSQL's server programs are installed.
pub fn postgres_available() -> bool {
    Postgres::locate().is_ok()
}

impl Engine for Postgres {
    const NAME: &'static str = "PostgreSQL";
    const SHORT: &'static str = "postgres";
}

impl Definition for Postgres {
    const PREFIX: &'static str = "qudo-pg-";
    const USERS: &'static [&'static str] = &["postgres", "nobody"];
    // The "fast shutdown".
    const STOP: Signal = Signal::INT;
    // The "immediate shutdown".
    const DISCARD: Signal = Signal::QUIT;

    fn locate() -> Result<Self, Error> {
        binaries::postgres_directory()
            .map(|bin| Self { bin })
            .ok_or_else(|| Package::PostgresServer.missing())
    }

    fn initialise(&self, place: &Place) -> Result<(), Error> {
        // Nothing here has to survive a loss of power, so even durable servers skip this flush.
        run(place
            .command(&self.bin.join("initdb"))
            .arg("--pgdata")
            .arg(place.data())
            .args(["--username=qudo", "--auth=trust", "--encoding=UTF8", "--locale=C"])
            .arg("--no-sync"))
        .map(drop)
    }

    fn command(&self, place: &Place, port: u16, options: &Options) -> Command {
        let mut settings = vec![
            format!("port={port}"),
            format!("unix_socket_directories={}", place.root().display()),
            format!("max_connections={}", options.connections()),
            "listen_addresses=127.0.0.1".into(),
            "shared_buffers=256MB".into(),
            // Files in the data directory, which go with it; the default would leave its segments
            // in /dev/shm after a kill, and containers keep that very small.
            "dynamic_shared_memory_type=mmap".into(),
        ];
        if !options.durable {
            settings.extend(
                ["fsync=off", "synchronous_commit=off", "full_page_writes=off"].map(String::from),
            );
        }
        let mut command = place.command(&self.bin.join("postgres"));
        command.arg("-D").arg(place.data());
        for setting in settings.iter().chain(&options.settings) {
            command.arg("-c").arg(setting);
        }
        command
    }

    fn answers(&self, place: &Place, port: u16) -> bool {
        succeeds(
            place
                .command(&self.bin.join("pg_isready"))
                .args(["--host=127.0.0.1", "--dbname=postgres", "--username=qudo", "--timeout=3"])
                .arg(format!("--port={port}")),
        )
    }

    fn furnish(&self, place: &Place, port: u16) -> Result<(), Error> {
        run(place
            .command(&self.bin.join("createdb"))
            .args(["--host=127.0.0.1", "--username=qudo", "--maintenance-db=postgres"])
            .arg(format!("--port={port}"))
            .arg(DATABASE))
        .map(drop)
    }

    /// Removes the System V segment by which a postmaster marks its data directory as in use; one
    /// that is killed and never restarted would leave it behind for ever.
    fn forget(&self, place: &Place) {
        let Ok(lock) = fs::read_to_string(place.data().join("postmaster.pid")) else {
            return;
        };
        if let Some(segment) = shared_memory_segment(&lock) {
            succeeds(Command::new("ipcrm").args(["-m", segment]));
        }
    }

    fn url(port: u16, database: &str) -> String {
        format!("postgres://qudo@127.0.0.1:{port}/{database}")
    }

    fn version(&self) -> Result<String, Error> {
        let text = run(Command::new(self.bin.join("postgres")).arg("--version"))?;
        Ok(format!("{} {}", Self::NAME, version_number(&text)))
    }
}

/// The segment's id, second word in the seventh line of `postmaster.pid`.
fn shared_memory_segment(lock: &str) -> Option<&str> {
    lock.lines().nth(6)?.split_whitespace().nth(1)
}

#[cfg(test)]
mod tests {
    use super::shared_memory_segment;

    #[test]
    fn the_shared_memory_segment_is_read_from_the_lock_file() {
        let lock =
            "711\n/tmp/d\n1763886000\n15001\n/tmp\n127.0.0.1\n  8472911        42\nready   \n";
        assert_eq!(shared_memory_segment(lock), Some("42"));
        assert_eq!(shared_memory_segment("711\n/tmp/d\n"), None);
    }
}
