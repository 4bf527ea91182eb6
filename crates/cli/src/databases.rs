//! Databases: what they are, and what is ordered for them.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use qudo::Manager;
use qudo::admin::{DatabaseReport, MoveReport, PerDatabase};
use serde_json::json;

use crate::Failure;
use crate::output::{print_rows, say};
use crate::parts::told;
use crate::sources::Databases;

/// What is shown or ordered of databases.
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
    /// New jobs go to the other databases; its own are worked as before.
    Drain {
        /// The short name of the database.
        name: String,
    },
    /// End a drain.
    Undrain {
        /// The short name of the database.
        name: String,
    },
    /// Leave its jobs waiting; new ones are taken.
    Pause {
        /// The short name of the database.
        name: String,
    },
    /// End a pause.
    Resume {
        /// The short name of the database.
        name: String,
    },
    /// Move its waiting jobs to another database. Ended at any point, the same command goes on.
    Move {
        /// The short name of the database that they leave.
        from: String,
        /// The short name of the database where they go.
        to: String,
    },
    /// Drain it and move what waits to the others, until no job is left and none can come any more; then no program needs it.
    Retire {
        /// The short name of the database.
        name: String,
        /// How many seconds that may take. At least 25 are needed.
        #[arg(long, value_name = "SECONDS", default_value_t = 600)]
        within: u64,
    },
}

/// Shows or orders; 0 when it is done, 2 when a database did not answer.
pub(crate) fn run(manager: &Manager, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let as_json = arguments.json;
    let one = |name: &str, done: &str, ordered: Result<(), qudo::Error>| {
        Ok(told(&[PerDatabase { database: name.to_owned(), answer: ordered }], done, as_json))
    };
    match &arguments.order {
        None => Ok(show(&manager.database_reports(), as_json)),
        Some(Order::Drain { name }) => one(name, "draining", manager.drain(name)),
        Some(Order::Undrain { name }) => one(name, "not draining any more", manager.undrain(name)),
        Some(Order::Pause { name }) => one(name, "paused", manager.pause(name)),
        Some(Order::Resume { name }) => one(name, "not paused any more", manager.resume(name)),
        Some(Order::Move { from, to }) => Ok(moved(&manager.move_jobs(from, to)?, as_json)),
        Some(Order::Retire { name, within }) => {
            let report = manager.retire_database(name, Duration::from_secs(*within))?;
            Ok(moved(&report, as_json))
        }
    }
}

fn moved(report: &MoveReport, as_json: bool) -> ExitCode {
    let MoveReport { moved, stayed, .. } = report;
    if as_json {
        say(&json!({ "moved": moved, "stayed": stayed }).to_string());
    } else if *stayed == 0 {
        say(&format!("{moved} jobs moved"));
    } else {
        say(&format!("{moved} jobs moved, {stayed} stayed: their unique key belongs elsewhere"));
    }
    ExitCode::SUCCESS
}

fn show(reports: &[DatabaseReport], as_json: bool) -> ExitCode {
    if as_json {
        let rows = reports.iter().map(|one| {
            json!({
                "database": one.name,
                "engine": one.engine,
                "source": one.source,
                "state": state(one),
                "draining": one.draining,
                "paused": one.paused,
                "reason": one.reason,
            })
        });
        say(&json!({ "rows": rows.collect::<Vec<_>>() }).to_string());
    } else {
        let head = ["DATABASE", "ENGINE", "STATE", "SOURCE", "REASON"];
        print_rows(
            &head,
            reports.iter().map(|one| {
                let reason = one.reason.clone().unwrap_or_default();
                vec![
                    one.name.clone(),
                    one.engine.to_owned(),
                    state(one),
                    one.source.clone(),
                    reason,
                ]
            }),
        );
    }
    let complete = reports.iter().all(|one| one.depth.is_some());
    if complete { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// All that is true of it.
fn state(one: &DatabaseReport) -> String {
    let mut words = vec![if one.depth.is_some() { one.state.as_str() } else { "down" }];
    words.extend(one.draining.then_some("draining"));
    words.extend(one.paused.then_some("paused"));
    words.join(", ")
}
