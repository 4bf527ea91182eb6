use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::engine::Engines;
use crate::{Result, program};

/// Makes the commands of cargo for one run: all in the workspace's root, with the run's features
/// and variables.
#[derive(Debug)]
pub(crate) struct Cargo {
    root: PathBuf,
    features: Vec<String>,
    complete: bool,
    variables: Vec<(&'static str, String)>,
}

impl Cargo {
    /// Cargo for a run on these engines.
    pub(crate) fn new(engines: &Engines) -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let root = package.as_deref().and_then(Path::parent).ok_or("run this as `cargo xtask`")?;
        let mut variables = Vec::new();
        variables.extend(engines.names().map(|names| ("QUDO_TEST_ENGINES", names)));
        if env::var_os("CI").is_some_and(|ci| ci == "true") {
            // Nothing is built twice in CI, so the files for building again are a waste.
            variables.push(("CARGO_INCREMENTAL", "0".into()));
        }
        let (features, complete) = (engines.features(), engines.complete());
        Ok(Self { root: root.to_path_buf(), features, complete, variables })
    }

    /// The root of the workspace.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Adds variables for all programs of the run.
    pub(crate) fn export(&mut self, variables: Vec<(&'static str, String)>) {
        self.variables.extend(variables);
    }

    /// A program with the variables of the run.
    pub(crate) fn program(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// A command of cargo with default features.
    pub(crate) fn command(&self, subcommand: &str) -> Command {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = self.program(Path::new(&cargo));
        command.arg(subcommand).current_dir(&self.root);
        // The variables that describe this package to this program would make some build scripts
        // run again, and then once more when the developer calls cargo without xtask.
        for (name, _) in env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// A command of cargo with the features of the run.
    pub(crate) fn with_features(&self, subcommand: &str) -> Command {
        let mut command = self.command(subcommand);
        command.args(&self.features);
        command
    }

    /// As [`with_features`](Self::with_features), for all packages that the engines of the run
    /// suffice for.
    pub(crate) fn workspace(&self, subcommand: &str) -> Command {
        let mut command = self.with_features(subcommand);
        command.arg("--workspace");
        if !self.complete {
            // It does its faults to all engines.
            command.args(["--exclude", "qudo-soak"]);
        }
        command
    }

    /// What `cargo metadata` says of the workspace's own packages.
    pub(crate) fn packages(&self) -> Result<Vec<Value>> {
        let mut command = self.command("metadata");
        let metadata = program::read(command.args(["--no-deps", "--format-version=1"]))?;
        let metadata: Value = serde_json::from_str(&metadata)?;
        let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
        Ok(packages.clone())
    }
}
