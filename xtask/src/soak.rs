use std::process::{Command, ExitCode};

use clap::Args;
use qudo_test_servers::{FreshDatabase, Package, ensure_installed};

use crate::cargo::Cargo;
use crate::databases::{Databases, fetch_mysql, mysql_was_not_run, without_mysql};
use crate::engine::Engines;
use crate::galera::Galera;
use crate::report::Report;
use crate::tally::Tally;
use crate::{Result, program};

/// Do random faults to four databases and their workers, then check that no job was lost.
///
/// Prints the seed first: the same seed makes the same faults.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How long faults are done at least.
    #[arg(long, default_value_t = 10.0, conflicts_with = "hammer")]
    minutes: f64,
    /// What the faults are chosen by; by chance if not given.
    #[arg(long, conflicts_with = "hammer")]
    seed: Option<u64>,
    /// Workers with every limit as a user has it who sets none.
    #[arg(long, conflicts_with = "hammer")]
    defaults: bool,
    /// Instead, let many clients insert single jobs and many workers claim a few, on each engine.
    #[arg(long)]
    hammer: bool,
    /// How many jobs are enqueued at least while faults are done, without a pause between them; with
    /// `--hammer`, how many it takes on each engine, 100,000 if not given.
    #[arg(long)]
    jobs: Option<u64>,
    /// Hammer three nodes of a Galera cluster instead, as one database.
    #[arg(long, requires = "hammer")]
    galera: bool,
    /// This engine alone; may be repeated.
    #[arg(long, requires = "hammer", conflicts_with = "galera", value_parser = HAMMERED)]
    engine: Vec<String>,
}

/// What the hammer can be told to strike alone.
const HAMMERED: [&str; 4] = ["sqlite", "postgres", "mariadb", "mysql"];

const HAMMER_JOBS: u64 = 100_000;

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let mut report = Report::default();
    let outcome = steps(arguments, &mut report);
    report.finish(outcome)
}

fn steps(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let engines = Engines::all();
    report.step("install what is missing", |_| Ok(ensure_installed(&engines.packages())?))?;
    let mut cargo = Cargo::new(&engines)?;
    let jobs = arguments.jobs.unwrap_or(HAMMER_JOBS);
    if arguments.galera {
        report.step("install a cluster", |_| {
            Ok(ensure_installed(&[Package::Galera, Package::Rsync])?)
        })?;
        let cluster = report.step("start a cluster", |_| Galera::start())?;
        return report.step(&format!("{jobs} short claims on three nodes"), |tally| {
            strike(&cargo, "three nodes of a cluster", &cluster.urls(), jobs, tally)
        });
    }
    if arguments.hammer {
        let databases =
            // Durable: the races of a commit need one that takes its time.
            report.step("start database servers", |_| Databases::start(&engines, true))?;
        cargo.export(databases.variables());
        report.close_with(databases.closing_lines());
        return hammer(&cargo, &databases, jobs, &arguments.engine, report);
    }
    if let Some(reason) = fetch_mysql()? {
        cargo.export(vec![without_mysql()]);
        report.close_with(vec![mysql_was_not_run(&reason)]);
    }
    report.step("random faults", |_| {
        let mut command = random_faults(&cargo, &["--release"], arguments.minutes);
        command.args(arguments.seed.map(|seed| format!("--seed={seed}")));
        command.args(arguments.jobs.map(|jobs| format!("--jobs={jobs}")));
        command.args(arguments.defaults.then_some("--defaults"));
        program::run(&mut command)
    })
}

/// Hammers each engine with so many jobs.
pub(crate) fn hammer(
    cargo: &Cargo,
    databases: &Databases,
    jobs: u64,
    only: &[String],
    report: &mut Report,
) -> Result<()> {
    let file = tempfile::tempdir()?;
    let engines = [
        ("sqlite", None),
        ("postgres", databases.postgres()),
        ("mariadb", databases.mariadb()),
        ("mysql", databases.mysql()),
    ];
    for (name, server) in engines {
        let asked = only.iter().any(|one| one == name);
        if !(only.is_empty() || asked) {
            continue;
        }
        if name != "sqlite" && server.is_none() {
            if asked {
                return Err(format!("there is no server for {name}").into());
            }
            // The last lines say which were not run.
            continue;
        }
        let fresh = server.map(|beside| FreshDatabase::beside(beside, "hammer")).transpose()?;
        let dsn = fresh.as_ref().map_or_else(
            || format!("sqlite:{}/jobs.db", file.path().display()),
            |fresh| fresh.url().to_owned(),
        );
        report.step(&format!("{jobs} short claims on {name}"), |tally| {
            strike(cargo, name, &[dsn], jobs, tally)
        })?;
    }
    Ok(())
}

fn strike(cargo: &Cargo, name: &str, ways: &[String], jobs: u64, tally: &mut Tally) -> Result<()> {
    let mut command = cargo.command("run");
    command.args(["--quiet", "--release", "--package", "qudo-soak", "--", "hammer"]);
    command.args(ways.iter().map(|dsn| format!("--database={dsn}")));
    command.arg(format!("--jobs={jobs}"));
    tally.check(&format!("hammer of {jobs} jobs, {name}"), || program::run(&mut command));
    tally.verdict()
}

/// Runs the soak for so long, as the tests before it were built.
pub(crate) fn minutes(cargo: &Cargo, minutes: f64) -> Result<()> {
    program::run(&mut random_faults(cargo, &[], minutes))
}

fn random_faults(cargo: &Cargo, profile: &[&str], minutes: f64) -> Command {
    let mut command = cargo.command("run");
    command.args(["--quiet"]).args(profile).args(["--package", "qudo-soak", "--", "run"]);
    command.arg(format!("--minutes={minutes}"));
    command
}
