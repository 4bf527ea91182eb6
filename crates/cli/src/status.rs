use std::process::ExitCode;
use std::time::{Duration, Instant};

use qudo::Manager;
use qudo::admin::{Overview, PerDatabase};
use serde_json::{Value, json};

use crate::output::{print_rows, say};
use crate::sources::Databases;
use crate::spans::timeout;
use crate::with_causes;

/// How databases are shown, and how often.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) databases: Databases,
    /// How many seconds a database has to answer.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = timeout)]
    timeout: Duration,
    /// Shows it again every two seconds, or as often as is said, until it is ended.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = timeout)]
    watch: Option<Duration>,
    /// One JSON object instead of a table; with --watch one a line.
    #[arg(long)]
    json: bool,
}

/// Shows each database, whatever becomes of the others; 0 when all answered, 2 when one did not.
pub(crate) fn run(manager: &Manager, arguments: &Arguments) -> ExitCode {
    loop {
        let begun = Instant::now();
        let answers = manager.overview(arguments.timeout);
        if arguments.json {
            say(&to_json(&answers).to_string());
        } else {
            print(&answers);
        }
        let Some(every) = arguments.watch else {
            let complete = answers.iter().all(|on| on.answer.is_ok());
            return if complete { ExitCode::SUCCESS } else { ExitCode::from(2) };
        };
        std::thread::sleep(every.saturating_sub(begun.elapsed()));
        if !arguments.json {
            say("");
        }
    }
}

const HEAD: [&str; 11] = [
    "DATABASE",
    "STATE",
    "READY",
    "SCHEDULED",
    "RUNNING",
    "MOVING",
    "OLDEST READY",
    "LEASE OVERDUE",
    "WORKERS",
    "SILENT",
    "PAUSED PARTS",
];

fn print(answers: &[PerDatabase<Overview>]) {
    let rows = answers.iter().map(|on| {
        if let Ok(one) = &on.answer {
            return cells(&on.database, one);
        }
        let mut cells = vec![on.database.clone(), absence(on).to_owned()];
        cells.resize(HEAD.len(), String::new());
        cells
    });
    print_rows(&HEAD, rows);
    for error in answers.iter().filter_map(|on| on.answer.as_ref().err()) {
        eprintln!("qudo: {}", with_causes(error));
    }
}

/// What is said of a database without an answer: it is down, or it did not tell all in time, or not at all.
fn absence(on: &PerDatabase<Overview>) -> &'static str {
    match &on.answer {
        Err(error) if error.is_down() => "down",
        _ => "no answer",
    }
}

fn cells(database: &str, one: &Overview) -> Vec<String> {
    let age = |age: Option<Duration>| age.map_or_else(String::new, span);
    let parts =
        one.pauses.iter().map(|pause| format!("{} {}", pause.part.kind(), pause.part.name()));
    vec![
        database.to_owned(),
        one.verdict().to_owned(),
        one.depth.ready.to_string(),
        one.depth.scheduled.to_string(),
        one.depth.running.to_string(),
        one.depth.moving.to_string(),
        age(one.ages.ready),
        age(one.ages.overdue),
        one.workers.to_string(),
        one.silent_workers.to_string(),
        parts.collect::<Vec<_>>().join(", "),
    ]
}

/// A span of time in its two largest units.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{}ms", span.subsec_millis()),
        1..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn to_json(answers: &[PerDatabase<Overview>]) -> Value {
    let databases = answers.iter().map(|on| match &on.answer {
        Ok(one) => {
            let bounded =
                |count: qudo::admin::Bounded| json!({ "count": count.count, "more": count.more });
            let seconds = |age: Option<Duration>| age.map(|age| age.as_secs_f64());
            let pauses = one.pauses.iter().map(|pause| {
                json!({
                    "kind": pause.part.kind(),
                    "name": pause.part.name(),
                    "since": pause.since.to_rfc3339(),
                    "because": pause.reason,
                })
            });
            json!({
                "database": on.database,
                "state": one.verdict(),
                "draining": one.draining,
                "paused": one.paused,
                "ready": bounded(one.depth.ready),
                "scheduled": bounded(one.depth.scheduled),
                "running": bounded(one.depth.running),
                "moving": bounded(one.depth.moving),
                "oldest_ready_seconds": seconds(one.ages.ready),
                "lease_overdue_seconds": seconds(one.ages.overdue),
                "workers": one.workers,
                "silent_workers": one.silent_workers,
                "pauses": pauses.collect::<Vec<_>>(),
            })
        }
        Err(error) => {
            json!({ "database": on.database, "state": absence(on), "error": with_causes(error) })
        }
    });
    json!({ "databases": databases.collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_their_two_largest_units() {
        let of = |seconds: u64| span(Duration::from_secs(seconds));
        assert_eq!(span(Duration::from_millis(7)), "7ms");
        assert_eq!([of(59), of(61), of(3_700), of(90_000)], ["59s", "1m01s", "1h01m", "1d01h"]);
        assert!(timeout("0").is_err() && timeout("x").is_err() && timeout("nan").is_err());
        assert_eq!(timeout("0.5"), Ok(Duration::from_millis(500)));
    }
}
