//! The operator's commands, as a library: a service binary can carry them, and the binary `qudo` is
//! nothing but a call of [`run`].

mod audit;
mod bench;
mod migrate;
mod status;
mod why;

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
    /// Tell why a job does not run, or how it ended: the one reason, from all databases.
    Why(why::Arguments),
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
/// look at all of it. `why` answers 0 when a database knows the job, 1 when no database knows it, and 2 when
/// a database that did not answer may know it.
pub fn run() -> ExitCode {
    let level = env_logger::Env::default().default_filter_or("warn");
    drop(env_logger::Builder::from_env(level).try_init());
    let command = Arguments::parse().command;
    let after_error = match &command {
        Command::Audit(_) | Command::Why(_) => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    };
    execute(command).unwrap_or_else(|error| {
        eprintln!("qudo: {}", with_causes(&error));
        after_error
    })
}

fn execute(command: Command) -> Result<ExitCode, Error> {
    let code = |done: bool| if done { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    Ok(match command {
        Command::Migrate(Migrate { databases, force }) => {
            code(migrate::run(&databases.manager()?, force))
        }
        Command::Status(databases) => code(status::run(&databases.manager()?)),
        Command::Audit(arguments) => audit::run(&arguments.databases.manager()?, &arguments),
        Command::Why(arguments) => why::run(&arguments.databases.manager()?, &arguments)?,
        Command::Bench(arguments) => code(bench::run(&arguments)?),
    })
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
