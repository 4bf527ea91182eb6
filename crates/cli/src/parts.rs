//! Queues and abilities: what waits in them, and whether they are paused.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Subcommand;
use qudo::Manager;
use qudo::admin::{Part, Pause, PerDatabase};
use serde_json::json;

use crate::databases::Databases;
use crate::output::{print_rows, say};
use crate::shapes::time;
use crate::{Failure, with_causes};

/// What is shown or ordered of queues, or of abilities.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    order: Option<Order>,
    /// One JSON object instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    pub(crate) databases: Databases,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Leave its jobs waiting, in all databases; new ones are taken. Running jobs end as usual.
    Pause {
        /// Its name; `*` stands for any characters.
        name: String,
        /// Why, for those who ask why jobs wait.
        #[arg(long, default_value = "")]
        reason: String,
        /// Only in the database of this short name.
        #[arg(long, value_name = "NAME")]
        on: Option<String>,
    },
    /// End a pause, with the name that it has.
    Resume {
        /// The name of the pause.
        name: String,
        /// Only in the database of this short name.
        #[arg(long, value_name = "NAME")]
        on: Option<String>,
    },
}

/// Which of the two the command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Queue,
    Ability,
}

impl Kind {
    fn part(self, name: &str) -> Part {
        match self {
            Self::Queue => Part::Queue(name.to_owned()),
            Self::Ability => Part::Ability(name.to_owned()),
        }
    }

    fn is(self, part: &Part) -> bool {
        matches!((self, part), (Self::Queue, Part::Queue(_)) | (Self::Ability, Part::Ability(_)))
    }
}

/// Shows or orders; 0 when all databases answered, 2 when one did not.
pub(crate) fn run(
    manager: &Manager,
    arguments: &Arguments,
    kind: Kind,
) -> Result<ExitCode, Failure> {
    match &arguments.order {
        None => Ok(show(manager, arguments.json, kind)),
        Some(Order::Pause { name, reason, on }) => {
            let part = kind.part(name);
            let ordered = manager.pause_part(&part, on.as_deref(), reason)?;
            Ok(told(&ordered, &format!("{part} is paused"), arguments.json))
        }
        Some(Order::Resume { name, on }) => {
            let part = kind.part(name);
            let ordered = manager.resume_part(&part, on.as_deref())?;
            Ok(told(&ordered, &format!("{part} is not paused any more"), arguments.json))
        }
    }
}

/// What became of an order in each database.
pub(crate) fn told(ordered: &[PerDatabase<()>], done: &str, as_json: bool) -> ExitCode {
    if as_json {
        let answers = ordered.iter().map(|on| match &on.answer {
            Ok(()) => json!({ "database": on.database, "done": true }),
            Err(error) => {
                json!({ "database": on.database, "done": false, "error": with_causes(error) })
            }
        });
        say(&json!({ "databases": answers.collect::<Vec<_>>() }).to_string());
    } else {
        for on in ordered {
            match &on.answer {
                Ok(()) => say(&format!("{}: {done}", on.database)),
                Err(error) => {
                    eprintln!("qudo: not done in {}: {}", on.database, with_causes(error));
                }
            }
        }
    }
    code(ordered.iter().all(|on| on.answer.is_ok()))
}

fn code(complete: bool) -> ExitCode {
    if complete { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// One queue or ability in one database.
#[derive(Default)]
struct Row {
    counts: BTreeMap<&'static str, u64>,
    pause: Option<Pause>,
}

const STATES: [&str; 4] = ["ready", "scheduled", "running", "moving"];

fn show(manager: &Manager, as_json: bool, kind: Kind) -> ExitCode {
    let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
    let mut errors: BTreeMap<String, String> = BTreeMap::new();
    for on in manager.job_count() {
        match on.answer {
            Ok(counts) => {
                for count in counts {
                    let name = if kind == Kind::Queue { count.queue } else { count.ability };
                    let row = rows.entry((on.database.clone(), name)).or_default();
                    *row.counts.entry(count.state).or_default() += count.count;
                }
            }
            Err(error) => {
                errors.insert(on.database, with_causes(&error));
            }
        }
    }
    for on in manager.pauses() {
        match on.answer {
            Ok(pauses) => {
                note(&mut rows, &on.database, pauses.into_iter().filter(|one| kind.is(&one.part)));
            }
            Err(error) => {
                errors.insert(on.database, with_causes(&error));
            }
        }
    }
    if as_json {
        say(&to_json(&rows, &errors).to_string());
    } else {
        let head = [
            "DATABASE",
            "NAME",
            "READY",
            "SCHEDULED",
            "RUNNING",
            "MOVING",
            "PAUSED SINCE",
            "BECAUSE",
        ];
        print_rows(
            &head,
            rows.iter().map(|((database, name), row)| {
                let mut cells = vec![database.clone(), name.clone()];
                cells.extend(
                    STATES.map(|state| {
                        row.counts.get(state).copied().unwrap_or_default().to_string()
                    }),
                );
                cells.push(row.pause.as_ref().map_or_else(String::new, |pause| time(pause.since)));
                cells.push(
                    row.pause.as_ref().map_or_else(String::new, |pause| pause.reason.clone()),
                );
                cells
            }),
        );
        for error in errors.values() {
            eprintln!("qudo: {error}");
        }
    }
    code(errors.is_empty())
}

/// Notes pauses at the rows that they mean; one that means none has a row of its own.
fn note(
    rows: &mut BTreeMap<(String, String), Row>,
    database: &str,
    pauses: impl Iterator<Item = Pause>,
) {
    for pause in pauses {
        let mut is_met = false;
        for ((of, name), row) in rows.iter_mut() {
            if of == database && pause.part.is(name) {
                is_met = true;
                row.pause = Some(pause.clone());
            }
        }
        if !is_met {
            let name = pause.part.name().to_owned();
            rows.entry((database.to_owned(), name)).or_default().pause = Some(pause);
        }
    }
}

fn to_json(
    rows: &BTreeMap<(String, String), Row>,
    errors: &BTreeMap<String, String>,
) -> serde_json::Value {
    let rows = rows.iter().map(|((database, name), row)| {
        let mut object =
            json!({ "database": database, "name": name, "paused": row.pause.is_some() });
        for state in STATES {
            object[state] = json!(row.counts.get(state).copied().unwrap_or_default());
        }
        if let Some(pause) = &row.pause {
            object["paused_as"] = json!(pause.part.name());
            object["paused_since"] = json!(pause.since.to_rfc3339());
            object["paused_because"] = json!(pause.reason);
        }
        object
    });
    let errors =
        errors.iter().map(|(database, error)| json!({ "database": database, "error": error }));
    json!({ "rows": rows.collect::<Vec<_>>(), "databases": errors.collect::<Vec<_>>() })
}
