use std::collections::BTreeSet;

use serde_json::Value;

use crate::cargo::Cargo;
use crate::tally::Tally;
use crate::{Result, program};

/// The files that each published package holds beside its source.
const EVERYWHERE: [&str; 4] = ["Cargo.toml", "LICENSE-MIT", "LICENSE-APACHE", "README.md"];

/// The package that carries the migrations, and the folders it must have them in.
const MIGRATIONS_PACKAGE: &str = "qudo-driver-diesel";
const MIGRATIONS: [&str; 3] = ["migrations/sqlite/", "migrations/postgres/", "migrations/mysql/"];

/// Checks that each package to be published would hold what its users need.
pub(crate) fn run(cargo: &Cargo, tally: &mut Tally) -> Result<()> {
    let packages = cargo.packages()?;
    // `publish` is a list of registries, empty for `publish = false` and null without a limit.
    let published = packages.iter().filter(|package| package["publish"] != Value::Array(vec![]));
    for package in published {
        let name = package["name"].as_str().ok_or("a package without a name")?;
        tally.check(&format!("package {name}"), || holds_everything(cargo, package, name));
    }
    tally.verdict()
}

/// An error that lists what the package lacks.
fn holds_everything(cargo: &Cargo, package: &Value, name: &str) -> Result<()> {
    // Work that is not committed yet is judged as well.
    let mut list = cargo.command("package");
    let listing = program::read(list.args(["--list", "--allow-dirty", "--package", name]))?;
    let files: BTreeSet<&str> = listing.lines().collect();
    let mut missing: Vec<String> =
        EVERYWHERE.into_iter().chain([main_source(package)]).map(String::from).collect();
    missing.retain(|file| !files.contains(file.as_str()));
    if name == MIGRATIONS_PACKAGE {
        let has_migration =
            |folder| files.iter().any(|file| file.starts_with(folder) && file.ends_with("/up.sql"));
        let absent = MIGRATIONS.into_iter().filter(|&folder| !has_migration(folder));
        missing.extend(absent.map(|folder| format!("{folder}*/up.sql")));
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("the package {name} lacks {}", missing.join(", ")).into())
}

/// The source without which the package is nothing: of a library if it has one.
fn main_source(package: &Value) -> &'static str {
    let libraries = ["lib", "rlib", "proc-macro"];
    let targets = package["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_library = |target: &Value| {
        target["kind"].as_array().is_some_and(|kinds| {
            kinds.iter().any(|kind| kind.as_str().is_some_and(|kind| libraries.contains(&kind)))
        })
    };
    if targets.iter().any(is_library) { "src/lib.rs" } else { "src/main.rs" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::main_source;

    #[test]
    fn a_package_is_judged_by_its_library_or_else_by_its_program() {
        let library = json!({ "targets": [{ "kind": ["bin"] }, { "kind": ["proc-macro"] }] });
        let program = json!({ "targets": [{ "kind": ["bin"] }] });
        assert_eq!(main_source(&library), "src/lib.rs");
        assert_eq!(main_source(&program), "src/main.rs");
    }
}
