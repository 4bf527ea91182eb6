//! Which databases a command is for.

use std::path::{Path, PathBuf};

use qudo::{Manager, ManagerBuilder};

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

impl Databases {
    /// The manager that the program itself has, or one of the databases that are named.
    pub(crate) fn manager(&self, own: Option<&Manager>) -> Result<Manager, Failure> {
        if let Some(manager) = own {
            // Whoever names others must not be answered of these.
            if self.database.is_empty() && self.config.is_none() {
                return Ok(manager.clone());
            }
            let reason = "this program has its own databases: --database and --config are for the command `qudo`";
            return Err(Failure::Usage(reason.to_owned()));
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

/// The databases of a file. Names and values may have been swapped and a line may have a password, so no error quotes any of
/// it, nor what the parser says.
fn read(path: &Path) -> Result<Vec<String>, Failure> {
    let wrong = |reason: &str| Failure::Usage(format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
    let config: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        wrong(&format!("line {} is not TOML", before.matches('\n').count() + 1))
    })?;
    if config.keys().any(|key| key != "databases") {
        return Err(wrong("there is something beside the table `databases`"));
    }
    let named = config.get("databases").and_then(toml::Value::as_table);
    let named = named.filter(|named| !named.is_empty());
    let named = named.ok_or_else(|| {
        wrong("it needs a table `databases` with a data source name for each short name")
    })?;
    let entry = |(place, (name, dsn)): (usize, (&String, &toml::Value))| {
        let place = place + 1;
        if name.contains([':', '=', '/', '@']) {
            return Err(wrong(&format!(
                "the name of database {place}, in alphabetical order, is not a short name"
            )));
        }
        let dsn = dsn
            .as_str()
            .ok_or_else(|| wrong(&format!("database {name:?} is not a text in quotes")))?;
        Ok(format!("{name}={dsn}"))
    };
    named.iter().enumerate().map(entry).collect()
}

/// Adds `DSN`, or `NAME=DSN` under a short name of the operator's.
pub(crate) fn add_database(builder: ManagerBuilder, text: &str) -> ManagerBuilder {
    match text.split_once('=') {
        // A data source name has its scheme's colon first.
        Some((name, dsn)) if !name.contains(':') => builder.database_as(name, dsn),
        _ => builder.database(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_databases_of_its_own_is_not_asked_for_others() {
        let own = Manager::builder().linked(false).database("memory:own").build().expect("valid");
        let of = |database: &[&str]| Databases {
            database: database.iter().map(|&name| name.to_owned()).collect(),
            config: None,
        };
        let manager = of(&[]).manager(Some(&own)).expect("its own");
        assert_eq!(manager.database_names(), ["own"]);
        let refused = of(&["memory:other"]).manager(Some(&own));
        assert!(matches!(refused, Err(Failure::Usage(_))), "{refused:?}");
        let manager = of(&["x=memory:other"]).manager(None).expect("named");
        assert_eq!(manager.database_names(), ["x"]);
    }
}
