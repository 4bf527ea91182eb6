use std::process::Command;

use crate::cargo::Cargo;
use crate::tally::Tally;
use crate::{Result, program};

/// Checks the adapters to other libraries, which are a workspace of their own: format, lints, tests.
pub(crate) fn run(cargo: &Cargo, tally: &mut Tally) -> Result<()> {
    program::run(command(cargo, "fmt").args(["--all", "--", "--check"]))?;
    let clippy = ["--all-targets", "--", "-D", "warnings"];
    program::run(command(cargo, "clippy").args(EVERYTHING).args(clippy))?;
    let mut tests = command(cargo, "test");
    program::stream(tests.args(EVERYTHING).arg("--no-fail-fast"), |line| tally.read(line))?;
    tally.verdict()
}

const EVERYTHING: [&str; 3] = ["--workspace", "--all-features", "--locked"];

/// A command of cargo there, with the target directory of the other workspace: what both need is built once.
fn command(cargo: &Cargo, subcommand: &str) -> Command {
    let mut command = cargo.command(subcommand);
    command.current_dir(cargo.root().join("adapters"));
    command.env("CARGO_TARGET_DIR", cargo.root().join("target"));
    command
}
