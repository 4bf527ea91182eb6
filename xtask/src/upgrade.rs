//! Two builds side by side over an upgrade: this one, and the same with migrations of the test's own.

use std::env;

use crate::cargo::Cargo;
use crate::{Result, program};

/// Where the newer build goes: another set of flags would build everything here anew each time.
const TARGET: &str = "target/upgrade";

/// Builds the newer one and lets both work under load.
pub(crate) fn run(cargo: &Cargo) -> Result<()> {
    let mut flags = env::var("RUSTFLAGS").unwrap_or_default();
    flags.push_str(" --cfg qudo_upgrade_test");
    let mut build = cargo.command("build");
    build.args(["--quiet", "--package", "qudo-soak", "--target-dir", TARGET]);
    program::run(build.env("RUSTFLAGS", flags))?;
    let newer = cargo.root().join(TARGET).join("debug/qudo-soak");
    let mut run = cargo.command("run");
    run.args(["--quiet", "--package", "qudo-soak", "--", "upgrade", "--newer"]).arg(newer);
    program::run(&mut run)
}
