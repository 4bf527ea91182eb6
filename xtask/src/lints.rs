use std::fs;
use std::path::Path;

use crate::Result;
use crate::cargo::Cargo;
use crate::program;
use crate::report::Report;

/// Checks format, lints, docs and that no test is ignored, each as a step of its own.
pub(crate) fn run(cargo: &Cargo, report: &mut Report) -> Result<()> {
    report.step("no test is ignored", |_| no_ignored(cargo.root()))?;
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

/// The step of the tests refuses an ignored test or example too, but after half an hour.
fn no_ignored(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let hidden = name.as_encoded_bytes().starts_with(b".");
        if path.is_dir() {
            if !hidden && name != "target" {
                no_ignored(&path)?;
            }
        } else if path.extension().is_some_and(|end| end == "rs" || end == "md") {
            let text = fs::read_to_string(&path)?;
            if let Some(at) = text.lines().position(is_ignored) {
                return Err(format!("{}:{} is ignored", path.display(), at + 1).into());
            }
        }
    }
    Ok(())
}

/// Whether this line begins an example that is neither run nor compiled, or a test that is not run.
fn is_ignored(line: &str) -> bool {
    if line.trim_start().starts_with("#[ignore") {
        return true;
    }
    let line = line.trim_start_matches([' ', '/', '!', '>', '-', '*']);
    let words = line.trim_start_matches(['`', '~']);
    let is_fence = line.len() - words.len() >= 3;
    is_fence && words.split([',', ' ']).any(|word| word.starts_with("ignore"))
}

#[cfg(test)]
mod tests {
    use super::is_ignored;

    #[test]
    fn an_ignored_example_is_seen_in_a_page_and_in_a_comment_and_an_ignored_test_too() {
        let fence = "`".repeat(3);
        for begin in ["", "    /// ", "//! ", "> `", "- "] {
            for word in ["ignore", "rust,ignore", " rust, ignore", "ignore-windows"] {
                assert!(is_ignored(&format!("{begin}{fence}{word}")), "{begin}{word}");
            }
            for word in ["rust", "no_run", "text", "compile_fail", ""] {
                assert!(!is_ignored(&format!("{begin}{fence}{word}")), "{begin}{word}");
            }
        }
        assert!(is_ignored("- ~~~ignore") && is_ignored(concat!("    #[", "ignore = \"slow\"]")));
        assert!(!is_ignored("ignore") && !is_ignored("`ignore`"));
    }
}
