use std::process::ExitCode;

use qudo::Manager;
use serde_json::{Value, json};

use crate::output::say;
use crate::sources::Databases;
use crate::with_causes;

/// What is done with missing migrations.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) databases: Databases,
    /// Do not look for worker processes of older programs; their jobs may fail then.
    #[arg(long)]
    force: bool,
    /// Tell which migrations are missing, and apply none: 0 when none is missing, 1 when one is.
    #[arg(long, conflicts_with = "force")]
    dry_run: bool,
    /// The same, with the statements, to be read. Applied by hand they are not recorded, and programs refuse the tables.
    #[arg(long, conflicts_with = "force")]
    sql: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Migrates, or tells what is missing.
pub(crate) fn run(manager: &Manager, arguments: &Arguments) -> ExitCode {
    if arguments.dry_run || arguments.sql {
        missing(manager, arguments)
    } else {
        migrate(manager, arguments)
    }
}

/// Migrates each database, whatever becomes of the others; 1 if one failed.
fn migrate(manager: &Manager, arguments: &Arguments) -> ExitCode {
    let mut told = Told::default();
    for on in manager.migrate_each(arguments.force) {
        match on.answer {
            Ok(applied) => {
                told.objects.push(json!({ "database": on.database, "applied": applied }));
                told.lines.push(if applied.is_empty() {
                    format!("{}: up to date", on.database)
                } else {
                    format!("{}: applied {}", on.database, applied.join(", "))
                });
            }
            Err(error) => told.note_error(&on.database, with_causes(&error)),
        }
    }
    let complete = told.errors.is_empty();
    told.say(arguments.json);
    if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Tells which migrations are missing; 0 when none is, 1 when one is, 2 when a database did not answer.
fn missing(manager: &Manager, arguments: &Arguments) -> ExitCode {
    let (mut told, mut is_missing) = (Told::default(), false);
    if arguments.sql {
        let note = "-- To be read. `qudo migrate` also records what it applied; by hand nothing is recorded, and programs refuse the tables.";
        told.lines.push(note.to_owned());
    }
    for on in manager.missing_migrations() {
        match on.answer {
            Ok(steps) => {
                is_missing |= !steps.is_empty();
                told.lines.extend(lines_of(&on.database, &steps, arguments.sql));
                let step = |(name, sql): &(String, String)| {
                    if arguments.sql {
                        json!({ "name": name, "sql": sql })
                    } else {
                        json!({ "name": name })
                    }
                };
                let steps: Vec<_> = steps.iter().map(step).collect();
                told.objects.push(json!({ "database": on.database, "missing": steps }));
            }
            Err(error) => told.note_error(&on.database, with_causes(&error)),
        }
    }
    let complete = told.errors.is_empty();
    told.say(arguments.json);
    match (complete, is_missing) {
        (false, _) => ExitCode::from(2),
        (true, true) => ExitCode::FAILURE,
        (true, false) => ExitCode::SUCCESS,
    }
}

fn lines_of(database: &str, steps: &[(String, String)], with_sql: bool) -> Vec<String> {
    if steps.is_empty() {
        let comment = if with_sql { "-- " } else { "" };
        return vec![format!("{comment}{database}: up to date")];
    }
    if with_sql {
        let step =
            |(name, sql): &(String, String)| format!("-- {database}: {name}\n{}", sql.trim_end());
        return steps.iter().map(step).collect();
    }
    let names: Vec<_> = steps.iter().map(|(name, _)| name.as_str()).collect();
    vec![format!("{database}: would apply {}", names.join(", "))]
}

#[derive(Default)]
struct Told {
    lines: Vec<String>,
    objects: Vec<Value>,
    errors: Vec<String>,
}

impl Told {
    fn note_error(&mut self, database: &str, error: String) {
        self.objects.push(json!({ "database": database, "error": error }));
        self.errors.push(error);
    }

    fn say(self, as_json: bool) {
        if as_json {
            return say(&json!({ "databases": self.objects }).to_string());
        }
        for line in &self.lines {
            say(line);
        }
        for error in &self.errors {
            eprintln!("qudo: {error}");
        }
    }
}
