use std::process::ExitCode;

use clap::Args;
use qudo_test_servers::ensure_installed;

use crate::cargo::Cargo;
use crate::databases::Databases;
use crate::engine::{Engine, Engines};
use crate::report::Report;
use crate::tally::Tally;
use crate::{Result, adapters, examples, lints, packages, program, soak, upgrade};

/// Check everything: format, lints, docs, tests, examples, packages.
///
/// Ends at the first step that fails. The last line is always `N passed, M failed`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Test this engine alone; may be repeated. Without it, all are tested.
    #[arg(long, value_enum)]
    engine: Vec<Engine>,
    /// Leave out the checks of format, lints and docs.
    #[arg(long)]
    skip_lints: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let mut report = Report::default();
    let outcome = steps(arguments, &mut report);
    report.finish(outcome)
}

fn steps(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let engines = Engines::chosen(&arguments.engine);
    // First, because cargo cannot build the drivers without the client libraries.
    report.step("install what is missing", |_| Ok(ensure_installed(&engines.packages())?))?;
    let mut cargo = Cargo::new(&engines)?;
    if !arguments.skip_lints {
        lints::run(&cargo, report)?;
    }
    let databases = report.step("start database servers", |_| Databases::start(&engines, false))?;
    cargo.export(databases.variables());
    report.close_with(databases.closing_lines());
    report.step("tests", |tally| tests(&cargo, tally))?;
    if engines.complete() {
        report.step("one minute of random faults", |_| soak::minutes(&cargo, 1.0))?;
        report.step("adapters", |tally| adapters::run(&cargo, tally))?;
        report.step("an upgrade under load", |_| upgrade::run(&cargo))?;
    }
    report.step("examples", |tally| examples::run(&cargo, &databases, tally))?;
    report.step("packages", |tally| packages::run(&cargo, tally))
}

/// How many tests of a program run at a time.
const TEST_THREADS: &str = "4";

/// Runs all tests of the workspace and adds up what each test program reports.
fn tests(cargo: &Cargo, tally: &mut Tally) -> Result<()> {
    let mut command = cargo.workspace("test");
    command.arg("--no-fail-fast");
    // Most tests wait for a server most of the time: with as many as there are processors, two thirds of these are idle.
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        command.env("RUST_TEST_THREADS", TEST_THREADS);
    }
    let outcome = program::stream(&mut command, |line| tally.read(line));
    let ignored = tally.refuse_ignored();
    outcome?;
    if ignored > 0 {
        return Err(format!("{ignored} ignored: an ignored test is a promise nobody checks").into());
    }
    tally.verdict()
}
