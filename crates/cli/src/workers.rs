use std::process::ExitCode;

use clap::Subcommand;
use qudo::Manager;
use qudo::admin::{WorkerId, WorkerOrder, WorkerSeen};
use serde_json::json;

use crate::output::{print_rows, say};
use crate::shapes::time;
use crate::sources::Databases;
use crate::with_causes;

/// What is shown or ordered of worker processes.
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
    /// Let it claim no more jobs, of any database; what runs may end, and the process lives on.
    Quiet {
        /// Its id, or its name.
        worker: String,
    },
    /// Take back that it is to be quiet, or to stop if it has not begun to.
    Resume {
        /// Its id, or its name.
        worker: String,
    },
    /// End its work softly, as SIGTERM does: what runs may end.
    Stop {
        /// Its id, or its name.
        worker: String,
    },
}

/// Shows or orders; 0 when all databases answered, 1 when none knows the worker, 2 when one did not answer.
pub(crate) fn run(manager: &Manager, arguments: &Arguments) -> ExitCode {
    let json = arguments.json;
    match &arguments.order {
        None => show(manager, arguments),
        Some(Order::Quiet { worker }) => {
            order(manager, worker, &[(WorkerOrder::Quiet, true)], json)
        }
        Some(Order::Stop { worker }) => order(manager, worker, &[(WorkerOrder::Stop, true)], json),
        Some(Order::Resume { worker }) => {
            let both = [(WorkerOrder::Stop, false), (WorkerOrder::Quiet, false)];
            order(manager, worker, &both, json)
        }
    }
}

fn order(manager: &Manager, name: &str, orders: &[(WorkerOrder, bool)], as_json: bool) -> ExitCode {
    let seen = manager.workers();
    let all = seen.iter().flat_map(|on| on.answer.iter().flatten());
    let is_meant = |one: &&WorkerSeen| *one.info.name == *name || one.info.id.to_string() == name;
    let mut ids: Vec<_> = all.filter(is_meant).map(|one| one.info.id).collect();
    ids.sort_unstable();
    ids.dedup();
    let Some(id) = ids.first().copied().filter(|_| ids.len() == 1) else {
        let many: Vec<_> = ids.iter().map(ToString::to_string).collect();
        let mut complete = true;
        for error in seen.iter().filter_map(|on| on.answer.as_ref().err()) {
            complete = false;
            eprintln!("qudo: {}", with_causes(error));
        }
        if many.is_empty() {
            eprintln!("qudo: no database that answers knows a worker process {name:?}");
        } else {
            let many = many.join(", ");
            eprintln!("qudo: several are called {name:?}, name one by its id: {many}");
        }
        return if complete { ExitCode::FAILURE } else { ExitCode::from(2) };
    };
    let answers: Vec<_> =
        orders.iter().flat_map(|(order, on)| manager.order_worker(id, *order, *on)).collect();
    let complete = answers.iter().all(|on| on.answer.is_ok());
    let mut databases: Vec<_> =
        answers.iter().filter(|on| matches!(on.answer, Ok(true))).map(|on| &*on.database).collect();
    databases.sort_unstable();
    databases.dedup();
    if as_json {
        let errors: Vec<_> = answers
            .iter()
            .filter_map(|on| {
                let error = on.answer.as_ref().err()?;
                Some(json!({ "database": on.database, "error": with_causes(error) }))
            })
            .collect();
        let object =
            json!({ "worker": id.to_string(), "ordered_in": databases, "databases": errors });
        say(&object.to_string());
    } else {
        match &*databases {
            [] => eprintln!("qudo: the worker process {id} has ended"),
            some => say(&format!("{id}: ordered in {}", some.join(", "))),
        }
        for error in answers.iter().filter_map(|on| on.answer.as_ref().err()) {
            eprintln!("qudo: {}", with_causes(error));
        }
    }
    match (complete, databases.is_empty()) {
        (false, _) => ExitCode::from(2),
        (true, true) => ExitCode::FAILURE,
        (true, false) => ExitCode::SUCCESS,
    }
}

/// The worker processes that each database knows.
fn show(manager: &Manager, arguments: &Arguments) -> ExitCode {
    let answers = manager.workers();
    let orders = manager.worker_orders();
    let ordered = |database: &str, id: WorkerId| {
        let on = orders.iter().find(|on| on.database == database)?;
        let all = on.answer.as_ref().ok()?.iter();
        all.filter(|(other, _)| *other == id).map(|(_, order)| order.as_str()).max()
    };
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
                "ordered": ordered(database, one.info.id),
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
        let head =
            ["DATABASE", "NAME", "VERSION", "STATE", "ORDERED", "SEEN", "QUEUES", "ABILITIES"];
        print_rows(
            &head,
            workers().map(|(database, one)| {
                vec![
                    database.clone(),
                    one.info.name.to_string(),
                    one.info.version.as_deref().unwrap_or_default().to_owned(),
                    state(one).to_owned(),
                    ordered(database, one.info.id).unwrap_or_default().to_owned(),
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
