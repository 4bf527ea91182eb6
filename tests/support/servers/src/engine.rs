use std::fmt::Debug;
use std::process::Command;

use rustix::process::Signal;

use crate::Error;
use crate::options::Options;
use crate::place::Place;

/// A kind of database server that this crate starts: [`Postgres`](crate::Postgres),
/// [`Mariadb`](crate::Mariadb) or [`Pgbouncer`](crate::Pgbouncer).
///
/// The trait lets one test run on each kind, `fn survives<E: Engine>(server: &Server<E>)`. It cannot
/// be implemented elsewhere.
pub trait Engine: Definition {
    /// The name people know the engine by, such as `PostgreSQL`.
    const NAME: &'static str;

    /// What test runs call it, as in [`takes_part`](crate::takes_part).
    const SHORT: &'static str;
}

/// What differs between the engines; everything that does not is in [`Server`](crate::Server).
pub trait Definition: Debug + Send + Sync + Sized + 'static {
    /// How the temporary directories of this engine begin.
    const PREFIX: &'static str;
    /// The users to run as when the tests run as root, the best first.
    const USERS: &'static [&'static str];
    /// Ends the server in the clean and fast way: clients are cut off, data is written.
    const STOP: Signal;
    /// Ends a server whose data is no longer wanted, in the fastest way that leaves no shared
    /// memory behind.
    const DISCARD: Signal;

    /// Finds the engine's programs on this machine.
    fn locate() -> Result<Self, Error>;

    /// Fills the data directory.
    fn initialise(&self, place: &Place) -> Result<(), Error>;

    /// The command that runs the server in the foreground.
    fn command(&self, place: &Place, port: u16, options: &Options) -> Command;

    /// Whether the server takes connections by now.
    fn answers(&self, place: &Place, port: u16) -> bool;

    /// Makes the account and the database of the tests, once, after the first start.
    fn furnish(&self, place: &Place, port: u16) -> Result<(), Error>;

    /// Gives back what a killed server has left in the system outside its directory.
    fn forget(&self, place: &Place);

    /// Where clients find a database of the server.
    fn url(port: u16, database: &str) -> String;

    /// What the server's program says of its version.
    fn version(&self) -> Result<String, Error>;
}
