//! The least that any queue must ask of the database: a table, single and bulk inserts, and a loop
//! that claims a batch, reads its arguments and deletes it. No queue library.

use std::process::ExitCode;

use peers_common::{Arguments, Engine, Parser};

mod mysql;
mod postgres;
mod sqlite;

/// Jobs of one claim.
const BATCH: usize = 500;

fn main() -> ExitCode {
    match Arguments::parse().engine() {
        Engine::Postgres => peers_common::main::<postgres::Bare>(),
        Engine::Mysql => peers_common::main::<mysql::Bare>(),
        Engine::Sqlite => peers_common::main::<sqlite::Bare>(),
    }
}

/// The index in the order of claims, which the best settings leave out.
const INDEX: &str = "CREATE INDEX jobs_claim ON jobs (queue, state, priority, id)";

/// The condition and the order of a claim, by the index or by the primary key.
fn ready(arguments: &Arguments) -> &'static str {
    if arguments.best() {
        "state = 'ready' ORDER BY id"
    } else {
        "queue = 'bench' AND state = 'ready' ORDER BY priority, id"
    }
}

/// Reads the argument as any handler would, and counts.
fn execute(payload: &str) -> peers_common::Any {
    peers_common::executed(&serde_json::from_str::<String>(payload)?);
    Ok(())
}

/// The argument as it is stored.
fn payload(n: usize) -> String {
    format!("\"{}\"", peers_common::text(n))
}

/// What all engines say of their settings.
fn note(arguments: &Arguments, more: &str) -> String {
    use peers_common::Metric;
    let index = if arguments.best() { "no claim index, " } else { "claim index, " };
    let index = if arguments.metric == Metric::Latency { "" } else { index };
    format!("{index}{more}")
}

/// Ends the program when a worker's thread fails, so that no figure is made of the rest.
fn thread(work: impl FnOnce() -> peers_common::Any + Send + 'static) {
    std::thread::spawn(move || {
        if let Err(error) = work() {
            eprintln!("bare: {error}");
            std::process::exit(1);
        }
    });
}
