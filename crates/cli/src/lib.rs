//! The operator's commands, as a library: a service binary can carry them, and the binary `qudo` is
//! nothing but a call of [`run`].

mod audit;
mod bench;
mod count;
mod databases;
mod doctor;
mod failures;
mod health;
mod list;
#[cfg(feature = "metrics")]
mod metrics;
mod migrate;
mod one_job;
mod operations;
mod output;
mod parts;
mod run;
mod shapes;
mod show;
mod sources;
mod spans;
mod stats;
mod status;
mod verbs;
mod wait;
mod why;
mod workers;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use qudo::{Error, Manager};

use list::ListArguments;
use verbs::OnFilter;

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
    Migrate(migrate::Arguments),
    /// Show each database at a glance: whether it answers, what waits and runs, for how long, and who works it.
    Status(status::Arguments),
    #[command(after_long_help = list::LANGUAGE)]
    /// List live jobs: those that run, those that are ready in the order of the claim, those that are scheduled.
    Jobs(ListArguments),
    #[command(after_long_help = list::LANGUAGE)]
    /// Count live jobs by queue, ability and state.
    Count(count::Arguments),
    #[command(after_long_help = list::LANGUAGE)]
    /// Show failures by ability, kind, class of the error and version of the program: how many, since when, a sample.
    Failures(failures::Arguments),
    #[command(after_long_help = list::LANGUAGE)]
    /// List the runs of abilities that keep a job status, newest first.
    Runs(ListArguments),
    /// Show all that the databases know of a job, with its argument.
    Show(one_job::OneJob),
    /// Tell why a job does not run, or how it ended: the one reason, from all databases.
    Why(one_job::OneJob),
    /// Wait for a job: show what it sends and how far it is, as it tells, and then its reply. 0 when it completed, 1 when it did not,
    /// 2 when the limit is over or a database did not answer.
    Wait(wait::Arguments),
    #[command(after_long_help = list::LANGUAGE)]
    /// Let jobs that wait for their next attempt run now.
    Retry(verbs::Retry),
    #[command(after_long_help = list::LANGUAGE)]
    /// Enqueue jobs again that failed for good, each once; of cancelled ones those that the filter asks for by `kind`.
    Redrive(verbs::Redrive),
    #[command(after_long_help = list::LANGUAGE)]
    /// Cancel jobs, for a --reason: those that wait end now, those that run are told.
    Cancel(verbs::Cancel),
    #[command(after_long_help = list::LANGUAGE)]
    /// Remove jobs that wait. They are not kept; `cancel` keeps them for a redrive.
    Delete(verbs::Delete),
    #[command(after_long_help = list::LANGUAGE)]
    /// Let jobs that wait run at another time.
    Reschedule(verbs::Reschedule),
    #[command(after_long_help = list::LANGUAGE)]
    /// Change the priority of jobs that wait.
    Prioritize(verbs::Prioritize),
    #[command(after_long_help = list::LANGUAGE)]
    /// Move jobs that wait to another queue or another database.
    Move(verbs::Move),
    /// Show the verbs that were begun, by whom and how far they have come; go on with one.
    Operations(operations::Arguments),
    /// Show what waits in each queue and whether it is paused; pause and resume queues.
    Queues(parts::Arguments),
    /// The same for abilities.
    Abilities(parts::Arguments),
    /// Show the databases; drain, pause, move and retire them.
    Databases(databases::Arguments),
    /// Look at what an operator should know: weak durability, clocks that do not agree, tables that are not as they were made, rights that this account
    /// lacks, and the audit.
    Doctor(doctor::Arguments),
    /// Tell whether all is as it should be, for probes and alerts: 0 healthy, 1 not, 2 when a database did not answer.
    Health(health::Arguments),
    /// Show how many runs ended how, how long their jobs had been ready, and how long they took, by queue and ability.
    Stats(stats::Arguments),
    /// Tell Prometheus how the databases are and what their worker processes did: from the tables, so for all processes together.
    #[cfg(feature = "metrics")]
    Metrics(metrics::Arguments),
    /// Print the completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page, for `man -l -`.
    #[command(hide = true)]
    Man,
    /// Show the worker processes that each database knows, and what they serve; let one be quiet, or stop.
    Workers(workers::Arguments),
    /// Look whether every live job is in exactly one place of one database, with its facts and its
    /// key.
    Audit(audit::Arguments),
    /// Run one job in this process, ready or scheduled, whatever is paused: to try one job of a queue that is stopped. Needs a program
    /// with the job's ability in it, as `run_with` makes one.
    Run(one_job::OneJob),
    /// Measure what the databases give, with jobs in a queue of the command's own, which are gone
    /// afterwards. Several databases are measured together, as one manager uses them.
    Bench(bench::Arguments),
}

/// Why a command did not do what it was for.
#[derive(Debug)]
enum Failure {
    /// The command line, a file or a variable is wrong; nothing was asked.
    Usage(String),
    Asked(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Asked(error)
    }
}

/// Parses the command line of the process and runs its command.
///
/// The exit code is 0 on success, 1 when a database did not do its part, 2 for a wrong command line.
/// `status`, lists, counts, `show` and orders answer 0 when all databases answered, and 2 when one did not; `show` and `why` 1 when no database
/// knows the job, and 2 when a database that did not answer may know it. `audit` answers 0 when all is as it should be, 1 when
/// something is wrong, and 2 when it could not look at all of it; `doctor` and `health` likewise. `stats` and `metrics` answer 2 when a database did not
/// tell all. `run` answers 1 when the job failed, and 2 when it cannot be run.
pub fn run() -> ExitCode {
    run_on(None)
}

/// The same for a program that has its databases: its commands need no `--database`, and look into arguments by the codecs
/// that the manager has.
///
/// ```no_run
/// # fn main() -> Result<std::process::ExitCode, qudo::Error> {
/// let manager = qudo::Manager::builder().database("sqlite:jobs.db").build()?;
/// Ok(qudo_cli::run_with(&manager))
/// # }
/// ```
pub fn run_with(manager: &Manager) -> ExitCode {
    run_on(Some(manager))
}

fn run_on(own: Option<&Manager>) -> ExitCode {
    let level = env_logger::Env::default().default_filter_or("warn");
    drop(env_logger::Builder::from_env(level).try_init());
    let command = Arguments::parse().command;
    let after_error = match &command {
        Command::Migrate(_) | Command::Bench(_) => ExitCode::FAILURE,
        _ => ExitCode::from(2),
    };
    execute(command, own).unwrap_or_else(|failure| match failure {
        Failure::Usage(reason) => {
            eprintln!("qudo: {reason}");
            ExitCode::from(2)
        }
        Failure::Asked(error) => {
            eprintln!("qudo: {}", with_causes(&error));
            after_error
        }
    })
}

fn execute(command: Command, own: Option<&Manager>) -> Result<ExitCode, Failure> {
    let code = |done: bool| if done { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    Ok(match command {
        Command::Migrate(arguments) => migrate::run(&arguments.databases.manager(own)?, &arguments),
        Command::Status(arguments) => status::run(&arguments.databases.manager(own)?, &arguments),
        Command::Jobs(arguments) => {
            let manager = arguments.databases.manager(own)?;
            let listing = manager.jobs(&arguments.filter(&manager)?, &arguments.paging());
            list::print(&listing, arguments.json, &shapes::JOBS)
        }
        Command::Runs(arguments) => {
            let manager = arguments.databases.manager(own)?;
            let listing = manager.job_statuses(&arguments.filter(&manager)?, &arguments.paging());
            list::print(&listing, arguments.json, &shapes::RUNS)
        }
        Command::Count(arguments) => count::run(&arguments.databases.manager(own)?, &arguments)?,
        Command::Failures(arguments) => {
            failures::run(&arguments.databases().manager(own)?, &arguments)?
        }
        Command::Retry(arguments) => arguments.run(own)?,
        Command::Redrive(arguments) => arguments.run(own)?,
        Command::Cancel(arguments) => arguments.run(own)?,
        Command::Delete(arguments) => arguments.run(own)?,
        Command::Reschedule(arguments) => arguments.run(own)?,
        Command::Prioritize(arguments) => arguments.run(own)?,
        Command::Move(arguments) => arguments.run(own)?,
        Command::Operations(arguments) => operations::run(own, &arguments)?,
        Command::Queues(arguments) => {
            parts::run(&arguments.databases.manager(own)?, &arguments, parts::Kind::Queue)?
        }
        Command::Abilities(arguments) => {
            parts::run(&arguments.databases.manager(own)?, &arguments, parts::Kind::Ability)?
        }
        Command::Databases(arguments) => {
            databases::run(&arguments.databases.manager(own)?, &arguments)?
        }
        Command::Doctor(arguments) => doctor::run(&arguments.databases.manager(own)?, &arguments),
        Command::Health(arguments) => health::run(&arguments.databases.manager(own)?, &arguments),
        Command::Stats(arguments) => stats::run(&arguments.databases.manager(own)?, &arguments),
        #[cfg(feature = "metrics")]
        Command::Metrics(arguments) => {
            metrics::run(&arguments.databases.manager(own)?, &arguments)?
        }
        Command::Completions { shell } => {
            let (mut command, mut script) = (Arguments::command(), Vec::new());
            clap_complete::generate(shell, &mut command, "qudo", &mut script);
            output::say(String::from_utf8_lossy(&script).trim_end());
            ExitCode::SUCCESS
        }
        Command::Man => {
            let mut page = Vec::new();
            // Writing to memory cannot fail.
            let _ = clap_mangen::Man::new(Arguments::command()).render(&mut page);
            output::say(String::from_utf8_lossy(&page).trim_end());
            ExitCode::SUCCESS
        }
        Command::Workers(arguments) => workers::run(&arguments.databases.manager(own)?, &arguments),
        Command::Show(arguments) => show::run(&arguments.databases.manager(own)?, &arguments)?,
        Command::Audit(arguments) => audit::run(&arguments.databases.manager(own)?, &arguments),
        Command::Why(arguments) => why::run(&arguments.databases.manager(own)?, &arguments)?,
        Command::Wait(arguments) => wait::run(&arguments.databases().manager(own)?, &arguments),
        Command::Run(arguments) => run::run(&arguments.databases.manager(own)?, &arguments)?,
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
