use std::process::ExitCode;

use clap::Args;
use qudo_test_servers::ensure_installed;

use crate::cargo::Cargo;
use crate::engine::Engines;
use crate::report::Report;
use crate::{Result, program};

/// Do random faults to three databases and their workers, then check that no job was lost.
///
/// Prints the seed first: the same seed makes the same faults.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How long faults are done.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// What the faults are chosen by; by chance if not given.
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let mut report = Report::default();
    let outcome = steps(arguments, &mut report);
    report.finish(outcome)
}

fn steps(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let engines = Engines::all();
    report.step("install what is missing", |_| Ok(ensure_installed(&engines.packages())?))?;
    let cargo = Cargo::new(&engines)?;
    report.step("random faults", |_| minutes(&cargo, arguments.minutes, arguments.seed))
}

/// Runs the soak for so long.
pub(crate) fn minutes(cargo: &Cargo, minutes: f64, seed: Option<u64>) -> Result<()> {
    let mut command = cargo.command("run");
    command.args(["--quiet", "--package", "qudo-soak", "--", "run"]);
    command.arg(format!("--minutes={minutes}"));
    command.args(seed.map(|seed| format!("--seed={seed}")));
    program::run(&mut command)
}
