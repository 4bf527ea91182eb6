//! The operator's commands, as a library: a service binary can carry them, and the binary `qudo` is
//! nothing but a call of [`run`].

mod audit;
mod bench;
mod migrate;
mod status;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use qudo::{Error, Manager};

/// Looks after the databases of a qudo job queue.
#[derive(Debug, Parser)]
#[command(name = "qudo", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create or update the tables. Refuses while worker processes live whose programs must not work on the new tables;
    /// programs that only enqueue have no row, and are not seen.
    Migrate(Migrate),
    /// Show what waits, runs and failed.
    Status(Databases),
    /// Look whether every live job is in exactly one place of one database, with its facts and its
    /// key.
    Audit(audit::Arguments),
    /// Measure what the databases give, with jobs in a queue of the command's own, which are gone
    /// afterwards. Several databases are measured together, as one manager uses them.
    Bench(bench::Arguments),
}

#[derive(Debug, clap::Args)]
struct Migrate {
    #[command(flatten)]
    databases: Databases,
    /// Do not look for worker processes of older programs; their jobs may fail then.
    #[arg(long)]
    force: bool,
}

/// The databases that a command is for.
#[derive(Debug, clap::Args)]
struct Databases {
    /// A data source name, such as `sqlite:jobs.db` or `postgres://user@host/jobs`;
    /// several times for several. `NAME=DSN` gives it a short name, by default the file's or the
    /// database's own.
    #[arg(long, required = true)]
    database: Vec<String>,
}

impl Databases {
    fn manager(&self) -> Result<Manager, Error> {
        let builder = Manager::builder().linked(false);
        self.database.iter().fold(builder, |builder, text| add_database(builder, text)).build()
    }
}

/// Adds `DSN`, or `NAME=DSN` under a short name of the operator's.
fn add_database(builder: qudo::ManagerBuilder, text: &str) -> qudo::ManagerBuilder {
    match text.split_once('=') {
        // A data source name has its scheme's colon first.
        Some((name, dsn)) if !name.contains(':') => builder.database_as(name, dsn),
        _ => builder.database(text),
    }
}

/// Parses the command line of the process and runs its command.
///
/// The exit code is 0 on success, 1 when a database did not do its part, 2 for a wrong command line.
/// `audit` answers 0 when all is as it should be, 1 when something is wrong, and 2 when it could not
/// look at all of it.
pub fn run() -> ExitCode {
    let level = env_logger::Env::default().default_filter_or("warn");
    drop(env_logger::Builder::from_env(level).try_init());
    let command = Arguments::parse().command;
    if let Command::Audit(arguments) = &command {
        return match arguments.databases.manager() {
            Ok(manager) => audit::run(&manager, arguments),
            Err(error) => {
                eprintln!("qudo: {}", with_causes(&error));
                ExitCode::from(2)
            }
        };
    }
    let done = match command {
        Command::Migrate(Migrate { databases, force }) => {
            databases.manager().map(|manager| migrate::run(&manager, force))
        }
        Command::Status(databases) => databases.manager().map(|manager| status::run(&manager)),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Audit(_) => unreachable!("it was dealt with above"),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("qudo: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}
