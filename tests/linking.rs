//! Abilities that live in a crate of their own are there when that crate is named, in debug builds
//! and in release builds with link-time optimisation; and when it is not, the error says so.

#![allow(missing_docs, reason = "a test is read, not called")]

use std::path::PathBuf;
use std::process::Command;

fn program(profile: &str, name: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--package", "qudo-linked-service", "--profile", profile])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo is there");
    assert!(status.success());
    // The test itself lies in TARGET/PROFILE/deps.
    let own = std::env::current_exe().expect("a test has a path");
    let target = own.ancestors().nth(3).expect("a target directory");
    let folder = if profile == "dev" { "debug" } else { profile };
    target.join(folder).join(name)
}

fn output(profile: &str, name: &str) -> String {
    let output = Command::new(program(profile, name)).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn check(profile: &str) {
    let text = output(profile, "linked");
    for part in [
        "linked_double at tests/support/linked-jobs/src/lib.rs:",
        "linked_plain at tests/support/linked-jobs/src/lib.rs:",
        "linked-hook",
        "\n42\n",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let text = output(profile, "forgotten");
    assert!(text.contains("use my_jobs as _;"), "{text}");
}

#[test]
fn abilities_of_another_crate_are_there_in_a_debug_build() {
    check("dev");
}

#[test]
fn abilities_of_another_crate_are_there_after_link_time_optimisation() {
    check("lto");
}
