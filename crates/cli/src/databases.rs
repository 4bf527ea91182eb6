//! Which databases a command is for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use qudo::{Manager, ManagerBuilder};
use serde::Deserialize;

use crate::Failure;

/// The environment variable with data source names, separated by spaces or lines.
const DATABASES: &str = "QUDO_DATABASES";

/// The environment variable with the path of the file that `--config` names.
const CONFIG: &str = "QUDO_CONFIG";

/// The databases that a command is for: those of the command line; without any, those of the file that `--config` or
/// `QUDO_CONFIG` names; without a file, those of `QUDO_DATABASES`.
#[derive(Debug, clap::Args)]
pub(crate) struct Databases {
    /// A data source name, such as `sqlite:jobs.db` or `postgres://user@host/jobs`;
    /// several times for several. `NAME=DSN` gives it a short name, by default the file's or the
    /// database's own. Without it, the variable `QUDO_DATABASES` has the names, separated by spaces.
    #[arg(long, global = true)]
    database: Vec<String>,
    /// A TOML file in whose table `databases` each short name has its data source name. Also the variable `QUDO_CONFIG`.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

/// The file that `--config` names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    databases: BTreeMap<String, String>,
}

impl Databases {
    /// The manager that the program itself has, or one of the databases that are named.
    pub(crate) fn manager(&self, own: Option<&Manager>) -> Result<Manager, Failure> {
        if let Some(manager) = own {
            return Ok(manager.clone());
        }
        let builder = Manager::builder().linked(false);
        Ok(self
            .names()?
            .iter()
            .fold(builder, |builder, text| add_database(builder, text))
            .build()?)
    }

    /// The databases that are named, each as `DSN` or `NAME=DSN`.
    pub(crate) fn names(&self) -> Result<Vec<String>, Failure> {
        let of_variable =
            |name: &str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
        if !self.database.is_empty() {
            return Ok(self.database.clone());
        }
        if let Some(path) = self.config.clone().or_else(|| of_variable(CONFIG).map(Into::into)) {
            return read(&path);
        }
        match of_variable(DATABASES) {
            Some(names) => Ok(names.split_whitespace().map(str::to_owned).collect()),
            None => Err(Failure::Usage(format!(
                "no database: name one with --database, or several in {DATABASES} or in the file of --config"
            ))),
        }
    }
}

/// The databases of a file. A line of it may have a password, so no error quotes one.
fn read(path: &Path) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
    let config: Config = toml::from_str(&text).map_err(|error| {
        let line = error
            .span()
            .map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
        Failure::Usage(format!("{}, line {line}: {}", path.display(), error.message()))
    })?;
    if config.databases.is_empty() {
        return Err(Failure::Usage(format!("{} names no database", path.display())));
    }
    let named = config.databases.iter().map(|(name, dsn)| {
        if name.contains([':', '=']) {
            return Err(Failure::Usage(format!(
                "{}: {name:?} cannot be a short name",
                path.display()
            )));
        }
        Ok(format!("{name}={dsn}"))
    });
    named.collect()
}

/// Adds `DSN`, or `NAME=DSN` under a short name of the operator's.
pub(crate) fn add_database(builder: ManagerBuilder, text: &str) -> ManagerBuilder {
    match text.split_once('=') {
        // A data source name has its scheme's colon first.
        Some((name, dsn)) if !name.contains(':') => builder.database_as(name, dsn),
        _ => builder.database(text),
    }
}
