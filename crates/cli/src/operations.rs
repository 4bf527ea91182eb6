//! What operators began, and how far it has come.

use std::process::ExitCode;

use clap::Subcommand;
use qudo::Manager;
use qudo::admin::OperationId;
use serde_json::json;

use crate::output::{print_rows, say};
use crate::sources::Databases;
use crate::verbs::{How, carry_out, row_as_cells, row_as_json};
use crate::{Failure, with_causes};

/// Which operations are shown, or gone on with.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    order: Option<Order>,
    /// How many of each database at most.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Only those that have not come to their end.
    #[arg(long)]
    open: bool,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    databases: Databases,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Go on with one that was stopped, or of which a database did not do its part.
    Resume {
        /// Its id.
        id: OperationId,
        /// At most this number of jobs each second; 0 sets no limit.
        #[arg(long, value_name = "JOBS", default_value_t = 1_000)]
        rate: u32,
        #[command(flatten)]
        how: How,
    },
}

/// Shows, or goes on; 0 when all databases did their part, 1 when no database knows the operation, 2 when one did not.
pub(crate) fn run(own: Option<&Manager>, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let manager = arguments.databases.manager(own)?;
    match &arguments.order {
        None => Ok(show(&manager, arguments)),
        Some(Order::Resume { id, rate, how }) => {
            let Some(operation) = manager.find_operation(*id)? else {
                eprintln!("qudo: no database knows an operation {id}");
                return Ok(ExitCode::FAILURE);
            };
            let operation = operation.rate((*rate > 0).then_some(*rate));
            carry_out(&manager, &operation, how)
        }
    }
}

/// Operations that are open are looked for among so many.
const OPEN_AMONG: u32 = 10_000;

fn show(manager: &Manager, arguments: &Arguments) -> ExitCode {
    // Those that are open may lie behind many that are not.
    let read = if arguments.open { OPEN_AMONG } else { arguments.limit };
    let lists = manager.operations(None, read);
    let wanted = |finished: bool| !(arguments.open && finished);
    let rows = lists.iter().flat_map(|on| {
        let rows = on.answer.iter().flatten().filter(|row| wanted(row.finished_at.is_some()));
        rows.take(arguments.limit as usize).map(|row| (&*on.database, row))
    });
    let errors = || lists.iter().filter_map(|on| Some((&*on.database, on.answer.as_ref().err()?)));
    if arguments.json {
        let rows: Vec<_> = rows.map(|(database, row)| row_as_json(database, row)).collect();
        let errors: Vec<_> = errors()
            .map(|(database, error)| json!({ "database": database, "error": with_causes(error) }))
            .collect();
        say(&json!({ "rows": rows, "databases": errors }).to_string());
    } else {
        let head = [
            "DATABASE",
            "OPERATION",
            "VERB",
            "FILTER",
            "DONE",
            "IN CONFLICT",
            "GONE",
            "STARTED",
            "FINISHED",
            "OPERATOR",
            "REASON",
        ];
        print_rows(&head, rows.map(|(database, row)| row_as_cells(database, row)));
        for (_, error) in errors() {
            eprintln!("qudo: {}", with_causes(error));
        }
    }
    if errors().next().is_none() { ExitCode::SUCCESS } else { ExitCode::from(2) }
}
