//! Private database servers for tests.
//!
//! [`PostgresServer::start`], [`MariadbServer::start`] and [`MysqlServer::start`] find the binaries, make a
//! data directory of their own, and listen on a port of 127.0.0.1 that nobody else uses. A test may
//! then do to the server what a bad night does to it: [`kill`](Server::kill) it in mid-write,
//! [`pause`](Server::pause) it so that it accepts connections and never answers,
//! [`restart`](Server::restart) it. The server and its directory are gone when the value is dropped,
//! and also when the test process dies without dropping anything.
//!
//! ```no_run
//! use qudo_test_servers::{Options, PostgresServer};
//!
//! let server = PostgresServer::start(Options { durable: true, ..Options::default() })?;
//! assert_eq!(server.query("SELECT 6 * 7")?, "42");
//! server.kill()?;
//! server.restart()?;
//! # Ok::<(), qudo_test_servers::Error>(())
//! ```
//!
//! The processes of a server are found through `/proc`, so faults can be injected on Linux only.

mod account;
mod binaries;
mod certificates;
mod client;
mod engine;
mod error;
mod fresh;
mod given;
mod guardian;
mod innodb;
mod install;
mod mariadb;
mod mysql;
mod node;
mod options;
mod pgbouncer;
mod place;
mod port;
mod postgres;
mod processes;
mod program;
mod proxy;
mod server;
mod unpacked;
mod wait;

pub use account::Account;
pub use certificates::{Authority, Certificates, Pair};
pub use client::{create_database, drop_database, run_sql};
pub use engine::Engine;
pub use error::Error;
pub use fresh::FreshDatabase;
pub use given::{can_start, given, takes_part};
pub use install::{PYTHON, Package, ensure_installed, faketime_library};
pub use mariadb::{Mariadb, MariadbServer, mariadb_available};
pub use mysql::{Mysql, MysqlServer, mysql_available};
pub use node::drivers as node_drivers;
pub use options::Options;
pub use pgbouncer::{Pgbouncer, PgbouncerServer, pgbouncer_available};
pub use postgres::{Postgres, PostgresServer, postgres_available};
pub use proxy::Proxy;
pub use server::Server;
pub use unpacked::unpacked_programs;
pub use wait::eventually;
