use std::process::ExitCode;
use std::time::Duration;

use qudo::Manager;
use qudo::admin::{Histogram, StatRow, StatScan};
use serde_json::{Value, json};

use crate::output::{print_rows, say};
use crate::shapes::time;
use crate::sources::Databases;
use crate::spans::span;
use crate::with_causes;

/// Which numbers are shown.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The runs of the last so much time, such as `30m` or `14d`, to the minute.
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = span)]
    last: Duration,
    /// Instead, all runs since the database counts them.
    #[arg(long, conflicts_with_all = ["last", "every"])]
    ever: bool,
    /// A row for each of these spans of time, such as `5m`, in whole minutes.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    every: Option<Duration>,
    /// Remove all numbers of a queue that is gone. Counters of it begin anew if it comes back.
    #[arg(long, value_name = "QUEUE", conflicts_with_all = ["last", "ever", "every"])]
    forget: Option<String>,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) databases: Databases,
}

/// Shows numbers of runs; 0 when all databases answered, 2 when one did not.
pub(crate) fn run(manager: &Manager, arguments: &Arguments) -> ExitCode {
    if let Some(queue) = &arguments.forget {
        return forget(manager, queue, arguments.json);
    }
    let scan = match (arguments.ever, arguments.every) {
        (true, _) => StatScan::ever(),
        (false, None) => StatScan::last(arguments.last),
        (false, Some(every)) => StatScan::last(arguments.last).every(every),
    };
    let (mut rows, mut errors, mut cut) = (Vec::new(), Vec::new(), false);
    for on in manager.stats(&scan) {
        match on.answer {
            Ok(more) => {
                cut |= more.len() >= scan.limit as usize;
                rows.extend(more.into_iter().map(|row| (on.database.clone(), row)));
            }
            Err(error) => errors.push((on.database, with_causes(&error))),
        }
    }
    if arguments.json {
        let shown = rows.iter().map(|(database, row)| as_json(database, row));
        let errors =
            errors.iter().map(|(database, error)| json!({ "database": database, "error": error }));
        say(&json!({
            "rows": shown.collect::<Vec<_>>(),
            "more": cut,
            "databases": errors.collect::<Vec<_>>(),
        })
        .to_string());
    } else {
        let cells = rows.iter().map(|(database, row)| as_cells(database, row));
        print_rows(&HEAD, cells);
        if cut {
            let which = if scan.step.is_some() {
                "the earliest are left out: ask for a longer --every or a shorter --last"
            } else {
                "the last by name are left out"
            };
            eprintln!(
                "qudo: there may be more than {} rows of a database, and {which}",
                scan.limit
            );
        }
        for (database, error) in &errors {
            eprintln!("qudo: database {database:?}: {error}");
        }
    }
    if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// Removes the numbers of a queue; 0 when all databases did, 2 when one did not.
fn forget(manager: &Manager, queue: &str, as_json: bool) -> ExitCode {
    let (mut objects, mut complete) = (Vec::new(), true);
    for on in manager.forget_stats(queue) {
        match on.answer {
            Ok(rows) => {
                objects.push(json!({ "database": on.database, "forgotten": rows }));
                if !as_json {
                    say(&format!("{}: {rows} rows removed", on.database));
                }
            }
            Err(error) => {
                complete = false;
                let error = with_causes(&error);
                if !as_json {
                    eprintln!("qudo: database {:?}: {error}", on.database);
                }
                objects.push(json!({ "database": on.database, "error": error }));
            }
        }
    }
    if as_json {
        say(&json!({ "databases": objects }).to_string());
    }
    if complete { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

const HEAD: [&str; 14] = [
    "DATABASE",
    "SINCE",
    "QUEUE",
    "ABILITY",
    "RUNS",
    "COMPLETED",
    "RETRIED",
    "FAILED",
    "CANCELLED",
    "SNOOZED",
    "WAIT P50",
    "WAIT P95",
    "RUN P50",
    "RUN P95",
];

fn as_cells(database: &str, row: &StatRow) -> Vec<String> {
    let stats = &row.stats;
    let quantile = |of: &Histogram, share| match of.quantile(share) {
        Some(span) => short(span),
        None => String::new(),
    };
    let mut cells = vec![
        database.to_owned(),
        row.since.map_or_else(|| "ever".to_owned(), |since| since.format("%F %RZ").to_string()),
        row.queue.to_string(),
        row.ability.to_string(),
    ];
    let counts = [
        stats.ended(),
        stats.completed + stats.replaced,
        stats.retried,
        stats.failed,
        stats.cancelled,
        stats.snoozed,
    ];
    cells.extend(counts.map(|count| count.to_string()));
    cells.extend([
        quantile(&stats.waiting, 0.5),
        quantile(&stats.waiting, 0.95),
        quantile(&stats.running, 0.5),
        quantile(&stats.running, 0.95),
    ]);
    cells
}

/// Three digits and a unit: a quantile is no more exact than that.
fn short(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    match seconds {
        ..0.001 => format!("{:.0}µs", seconds * 1e6),
        ..1.0 => format!("{:.1}ms", seconds * 1e3),
        ..100.0 => format!("{seconds:.2}s"),
        _ => format!("{seconds:.0}s"),
    }
}

fn as_json(database: &str, row: &StatRow) -> Value {
    let quantiles = |of: &Histogram| {
        let at = |share| of.quantile(share).map(|span| span.as_secs_f64());
        json!({ "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "sum": of.sum().as_secs_f64() })
    };
    let mut object = json!({
        "database": database,
        "since": row.since.map(time),
        "queue": row.queue,
        "ability": row.ability,
        "wait_seconds": quantiles(&row.stats.waiting),
        "run_seconds": quantiles(&row.stats.running),
    });
    for (outcome, count) in row.stats.by_outcome() {
        object[outcome] = count.into();
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_shown_with_their_unit() {
        let shown = |micros| short(Duration::from_micros(micros));
        assert_eq!(
            [90, 2_500, 999_400, 12_340_000, 3_600_000_000].map(shown),
            ["90µs", "2.5ms", "999.4ms", "12.34s", "3600s"]
        );
    }
}
