use crate::Result;
use crate::cargo::Cargo;
use crate::program;
use crate::report::Report;

/// Checks format, lints and docs, each as a step of its own.
pub(crate) fn run(cargo: &Cargo, report: &mut Report) -> Result<()> {
    report.step("cargo fmt", |_| {
        program::run(cargo.command("fmt").args(["--all", "--", "--check"]))
    })?;
    report.step("cargo clippy", |_| {
        let mut clippy = cargo.workspace("clippy");
        program::run(clippy.args(["--all-targets", "--", "-D", "warnings"]))
    })?;
    report.step("cargo doc", |_| {
        let mut doc = cargo.workspace("doc");
        doc.env("RUSTDOCFLAGS", "-D warnings");
        program::run(doc.arg("--no-deps"))
    })
}
