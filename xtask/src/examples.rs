use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cargo::Cargo;
use crate::checksums::{self, LIMIT};
use crate::databases::Databases;
use crate::tally::Tally;
use crate::{Result, program};

/// What an example is checked for.
#[derive(Clone, Copy, Debug)]
enum Handling {
    /// It runs without arguments in an empty directory and ends with success.
    Runs,
    /// It does so when called in the words of the README, with default features.
    RunsThroughCargo,
    /// It prints what `sha256sum` prints, on each engine.
    Checksums,
}

/// The examples that are checked for more than running.
const SPECIAL: [(&str, Handling); 2] =
    [("quickstart", Handling::RunsThroughCargo), ("checksums", Handling::Checksums)];

/// Builds all examples of the workspace and checks each.
pub(crate) fn run(cargo: &Cargo, databases: &Databases, tally: &mut Tally) -> Result<()> {
    let examples = build(cargo)?;
    for (name, _) in SPECIAL {
        if !examples.contains_key(name) {
            return Err(format!("the example {name} is gone; take it out of the table").into());
        }
    }
    for (name, executable) in &examples {
        let special = SPECIAL.iter().find(|(special, _)| special == name);
        match special.map_or(Handling::Runs, |(_, handling)| *handling) {
            Handling::Runs => {
                tally.check(&format!("example {name}"), || runs(cargo, executable));
            }
            Handling::RunsThroughCargo => {
                tally.check(&format!("example {name}"), || runs_through_cargo(cargo, name));
            }
            Handling::Checksums => checksums::run(cargo, executable, databases, tally)?,
        }
    }
    tally.verdict()
}

/// Builds the examples as the tests did, so that little is left to build, and answers where each
/// one's program is.
fn build(cargo: &Cargo) -> Result<BTreeMap<String, PathBuf>> {
    let mut command = cargo.with_features("build");
    command.args(["--workspace", "--examples", "--message-format=json-render-diagnostics"]);
    let messages = program::read(&mut command)?;
    Ok(messages.lines().filter_map(example_of).collect())
}

/// The name and program of the example that a message of cargo is about, if it is about one.
fn example_of(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let target = &message["target"];
    let is_example = target["kind"].as_array()?.iter().any(|kind| kind == "example");
    let executable = message["executable"].as_str()?;
    is_example.then(|| Some((target["name"].as_str()?.to_owned(), executable.into())))?
}

fn runs(cargo: &Cargo, executable: &Path) -> Result<()> {
    // A directory of its own, because examples keep their databases where they are called.
    let directory = tempfile::tempdir()?;
    let mut command = cargo.program(executable);
    program::capture_success(command.current_dir(&directory), LIMIT).map(drop)
}

fn runs_through_cargo(cargo: &Cargo, name: &str) -> Result<()> {
    // Built beforehand, since the time limit is for the example alone.
    program::run(cargo.command("build").args(["--quiet", "--example", name]))?;
    let mut command = cargo.command("run");
    program::capture_success(command.args(["--quiet", "--example", name]), LIMIT).map(drop)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::example_of;

    #[test]
    fn examples_are_found_among_the_messages_of_cargo() {
        let example = r#"{"reason":"compiler-artifact","target":{"kind":["example"],"name":"a"},
            "executable":"/t/examples/a"}"#;
        assert_eq!(example_of(example), Some(("a".into(), PathBuf::from("/t/examples/a"))));
        let library = r#"{"target":{"kind":["lib"],"name":"a"},"executable":null}"#;
        assert_eq!(example_of(library), None);
        assert_eq!(example_of(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(example_of("not json"), None);
    }
}
