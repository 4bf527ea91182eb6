//! Queues and abilities: what waits in them, and whether they are paused.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Subcommand;
use qudo::Manager;
use qudo::admin::{Part, Pause, PerDatabase};
use serde_json::json;

use crate::output::{print_rows, say};
use crate::shapes::time;
use crate::sources::Databases;
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
            let done = format!("{part} has no order to pause any more");
            let code = told(&ordered, &done, arguments.json);
            tell_of_others(manager, &part, &ordered);
            Ok(code)
        }
    }
}

/// Other orders may mean what was resumed: `gl.*` means `gl.tax` too.
fn tell_of_others(manager: &Manager, part: &Part, ordered: &[PerDatabase<()>]) {
    let is_asked = |name: &str| ordered.iter().any(|on| on.database == name);
    for on in manager.pauses().into_iter().filter(|on| is_asked(&on.database)) {
        let pauses = match on.answer {
            Ok(pauses) => pauses.into_iter(),
            Err(error) => {
                eprintln!("qudo: {}", with_causes(&error));
                continue;
            }
        };
        for pause in
            pauses.filter(|pause| pause.part.kind() == part.kind() && pause.part.is(part.name()))
        {
            eprintln!(
                "{}: {} is still paused, by the order for {:?}",
                on.database,
                part,
                pause.part.name()
            );
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
    /// The orders that mean it.
    pauses: Vec<Pause>,
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
            "PAUSED AS",
            "SINCE",
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
                let of = |told: fn(&Pause) -> String| {
                    row.pauses.iter().map(told).collect::<Vec<_>>().join(", ")
                };
                cells.push(of(|pause| pause.part.name().to_owned()));
                cells.push(of(|pause| time(pause.since)));
                cells.push(of(|pause| pause.reason.clone()));
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
                row.pauses.push(pause.clone());
            }
        }
        if !is_met {
            let name = pause.part.name().to_owned();
            rows.entry((database.to_owned(), name)).or_default().pauses.push(pause);
        }
    }
}

fn to_json(
    rows: &BTreeMap<(String, String), Row>,
    errors: &BTreeMap<String, String>,
) -> serde_json::Value {
    let rows = rows.iter().map(|((database, name), row)| {
        let mut object =
            json!({ "database": database, "name": name, "paused": !row.pauses.is_empty() });
        for state in STATES {
            object[state] = json!(row.counts.get(state).copied().unwrap_or_default());
        }
        let pauses = row.pauses.iter().map(|pause| {
            let since = pause.since.to_rfc3339();
            json!({ "name": pause.part.name(), "since": since, "because": pause.reason })
        });
        object["pauses"] = pauses.collect();
        object
    });
    let errors =
        errors.iter().map(|(database, error)| json!({ "database": database, "error": error }));
    json!({ "rows": rows.collect::<Vec<_>>(), "databases": errors.collect::<Vec<_>>() })
}
