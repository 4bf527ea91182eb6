use std::process::ExitCode;

use qudo::Manager;

use crate::output::say;
use crate::with_causes;

/// Migrates each database, whatever becomes of the others; `false` if one failed.
pub(crate) fn run(manager: &Manager, force: bool) -> bool {
    let mut complete = true;
    for on in manager.migrate_each(force) {
        match on.answer {
            Ok(applied) if applied.is_empty() => say(&format!("{}: up to date", on.database)),
            Ok(applied) => say(&format!("{}: applied {}", on.database, applied.join(", "))),
            Err(error) => {
                eprintln!("qudo: {}", with_causes(&error));
                complete = false;
            }
        }
    }
    complete
}

/// Tells which migrations are missing; 0 when none is, 1 when one is, 2 when a database did not answer.
pub(crate) fn missing(manager: &Manager, with_sql: bool) -> ExitCode {
    let (mut complete, mut is_missing) = (true, false);
    if with_sql {
        say(
            "-- To be read. `qudo migrate` also records what it applied; by hand nothing is recorded, and programs refuse the tables.",
        );
    }
    for on in manager.missing_migrations() {
        match on.answer {
            Ok(steps) if steps.is_empty() => {
                let comment = if with_sql { "-- " } else { "" };
                say(&format!("{comment}{}: up to date", on.database));
            }
            Ok(steps) if with_sql => {
                is_missing = true;
                for (name, sql) in steps {
                    say(&format!("-- {}: {name}\n{}", on.database, sql.trim_end()));
                }
            }
            Ok(steps) => {
                is_missing = true;
                let names: Vec<_> = steps.into_iter().map(|(name, _)| name).collect();
                say(&format!("{}: would apply {}", on.database, names.join(", ")));
            }
            Err(error) => {
                eprintln!("qudo: {}", with_causes(&error));
                complete = false;
            }
        }
    }
    match (complete, is_missing) {
        (false, _) => ExitCode::from(2),
        (true, true) => ExitCode::FAILURE,
        (true, false) => ExitCode::SUCCESS,
    }
}
