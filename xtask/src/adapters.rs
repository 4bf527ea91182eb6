use std::process::Command;

use crate::cargo::Cargo;
use crate::tally::Tally;
use crate::{Result, program};

/// Checks the adapters to other libraries, which are a workspace of their own: format and tests. Their lints take as long again, for less
/// code than elsewhere, and are left to whoever changes them.
pub(crate) fn run(cargo: &Cargo, tally: &mut Tally) -> Result<()> {
    program::run(command(cargo, "fmt").args(["--all", "--", "--check"]))?;
    let mut tests = command(cargo, "test");
    tests.args(["--workspace", "--all-features", "--locked", "--no-fail-fast"]);
    program::stream(&mut tests, |line| tally.read(line))?;
    tally.verdict()
}

/// A command of cargo there, with the target directory of the other workspace: what both need is built once.
fn command(cargo: &Cargo, subcommand: &str) -> Command {
    let mut command = cargo.command(subcommand);
    command.current_dir(cargo.root().join("adapters"));
    command.env("CARGO_TARGET_DIR", cargo.root().join("target"));
    command
}
