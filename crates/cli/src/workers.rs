use std::process::ExitCode;

use qudo::Manager;
use qudo::admin::WorkerSeen;
use serde_json::json;

use crate::output::{print_rows, say};
use crate::shapes::time;
use crate::sources::Databases;
use crate::with_causes;

/// How worker processes are shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) databases: Databases,
}

/// Shows the worker processes that each database knows; 0 when all databases answered, 2 when one did not.
pub(crate) fn run(manager: &Manager, arguments: &Arguments) -> ExitCode {
    let answers = manager.workers();
    let workers = || {
        answers.iter().flat_map(|on| {
            let workers = on.answer.iter().flatten();
            workers.map(|one| (&on.database, one))
        })
    };
    if arguments.json {
        let rows = workers().map(|(database, one)| {
            json!({
                "database": database,
                "id": one.info.id.to_string(),
                "name": &*one.info.name,
                "version": one.info.version.as_deref(),
                "state": state(one),
                "seen_at": one.seen_at.to_rfc3339(),
                "silent_seconds": one.silent.as_secs_f64(),
                "dead_after_seconds": one.info.dead_after.as_secs_f64(),
                "queues": one.info.queues.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "abilities": one.info.abilities.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        });
        let errors = answers.iter().filter_map(|on| {
            let error = on.answer.as_ref().err()?;
            Some(json!({ "database": on.database, "error": with_causes(error) }))
        });
        let (rows, errors) = (rows.collect::<Vec<_>>(), errors.collect::<Vec<_>>());
        say(&json!({ "rows": rows, "databases": errors }).to_string());
    } else {
        let head = ["DATABASE", "NAME", "VERSION", "STATE", "SEEN", "QUEUES", "ABILITIES"];
        print_rows(
            &head,
            workers().map(|(database, one)| {
                vec![
                    database.clone(),
                    one.info.name.to_string(),
                    one.info.version.as_deref().unwrap_or_default().to_owned(),
                    state(one).to_owned(),
                    time(one.seen_at),
                    one.info.queues.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(" "),
                    one.info.abilities.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(" "),
                ]
            }),
        );
        for error in answers.iter().filter_map(|on| on.answer.as_ref().err()) {
            eprintln!("qudo: {}", with_causes(error));
        }
    }
    if answers.iter().all(|on| on.answer.is_ok()) { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// A silent one is about to be taken for dead: others take its jobs back.
fn state(one: &WorkerSeen) -> &'static str {
    if one.is_live() { "live" } else { "silent" }
}
