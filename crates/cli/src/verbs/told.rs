//! What an operation would do, what it does, and what it did.

use std::process::ExitCode;

use qudo::admin::{
    Counts, Operation, OperationReport, OperationRow, PerDatabase, Preview, Slice, Treated,
};
use serde_json::{Value, json};

use crate::output::{print_rows, say, say_aside};
use crate::shapes::{EXCEPTIONS, JOBS, time};
use crate::with_causes;

/// Prints a preview; how many jobs it found, and whether all databases answered.
pub(crate) fn say_preview(
    operation: &Operation,
    preview: &[PerDatabase<Preview>],
    as_json: bool,
) -> (u64, bool) {
    let answers =
        || preview.iter().filter_map(|on| Some((&*on.database, on.answer.as_ref().ok()?)));
    let count = answers().map(|(_, one)| one.count).sum();
    if as_json {
        let of_each = preview.iter().map(|on| match &on.answer {
            Ok(one) => json!({
                "database": on.database,
                "count": one.count,
                "more": one.more,
                "running": one.running,
                "searched": one.searched,
                "unreadable": one.unreadable,
                "jobs": one.jobs.iter().map(JOBS.json).collect::<Vec<_>>(),
                "failures": one.failures.iter().map(EXCEPTIONS.json).collect::<Vec<_>>(),
            }),
            Err(error) => json!({ "database": on.database, "error": with_causes(error) }),
        });
        let databases: Vec<_> = of_each.collect();
        say(&json!({ "operation": operation.to_string(), "databases": databases }).to_string());
    } else {
        say_sample(&answers().collect::<Vec<_>>());
        for (database, one) in answers() {
            let more = if one.more { " at least" } else { "" };
            let running = match one.running {
                0 => String::new(),
                running => format!(", {running} of them running"),
            };
            eprintln!("{database}: {} jobs{more}{running}", one.count);
            if one.unreadable > 0 {
                eprintln!(
                    "{database}: {} more rows hang on an argument that cannot be read, and are left",
                    one.unreadable
                );
            }
        }
    }
    let mut complete = true;
    for error in preview.iter().filter_map(|on| on.answer.as_ref().err()) {
        complete = false;
        if !as_json {
            eprintln!("qudo: {}", with_causes(error));
        }
    }
    (count, complete)
}

fn say_sample(answers: &[(&str, &Preview)]) {
    fn rows<R>(database: &str, rows: &[R], cells: fn(&R) -> Vec<String>) -> Vec<Vec<String>> {
        let cells = |row| {
            let mut all = vec![database.to_owned()];
            all.extend(cells(row));
            all
        };
        rows.iter().map(cells).collect()
    }
    let with_database =
        |head: &[&'static str]| ["DATABASE"].iter().chain(head).copied().collect::<Vec<_>>();
    let jobs = answers.iter().flat_map(|(name, one)| rows(name, &one.jobs, JOBS.cells));
    print_rows(&with_database(JOBS.head), jobs);
    let failures =
        answers.iter().flat_map(|(name, one)| rows(name, &one.failures, EXCEPTIONS.cells));
    print_rows(&with_database(EXCEPTIONS.head), failures);
}

/// Prints what became of each job of a slice.
pub(super) fn say_each(slice: &Slice, as_json: bool) {
    for Treated { job, acted, redriven_as, .. } in &slice.treated {
        let (database, acted) = (&slice.database, acted.as_str());
        if as_json {
            let new = redriven_as.map(|new| new.to_string());
            let line = json!({
                "database": database,
                "job": job.to_string(),
                "outcome": acted,
                "redriven_as": new,
            });
            say_aside(&line.to_string());
        } else {
            let new = redriven_as.map(|new| new.to_string()).unwrap_or_default();
            say_aside(&format!("{database}\t{job}\t{acted}\t{new}"));
        }
    }
}

/// Prints what an operation did; 0 when it is done, 2 when a database did not do its part, or of some rows nobody could tell whether they
/// were meant.
pub(crate) fn report(report: &OperationReport, as_json: bool) -> ExitCode {
    if as_json {
        let of_each = report.databases.iter().map(|on| {
            let mut object = match &on.row {
                Some(row) => row_as_json(&on.database, row),
                None => json!({ "database": on.database }),
            };
            object["unreadable"] = json!(on.unreadable);
            object["error"] = json!(on.error.as_ref().map(|error| with_causes(error)));
            object
        });
        let databases: Vec<_> = of_each.collect();
        let all = json!({
            "operation": report.id.to_string(),
            "finished": report.is_done(),
            "databases": databases,
        });
        say(&all.to_string());
    } else {
        print_rows(
            &["DATABASE", "DONE", "IN CONFLICT", "GONE"],
            report.databases.iter().filter_map(|on| {
                let Counts { done, conflicts, gone, .. } = on.row.as_ref()?.counts;
                let numbers = [done, conflicts, gone].map(|number| number.to_string());
                Some([on.database.clone()].into_iter().chain(numbers).collect())
            }),
        );
        for on in &report.databases {
            if on.unreadable > 0 {
                eprintln!(
                    "{}: {} rows hang on an argument that cannot be read, and were left",
                    on.database, on.unreadable
                );
            }
            if let Some(error) = &on.error {
                eprintln!("qudo: {}", with_causes(error));
            }
        }
        if !report.is_done() {
            eprintln!("{}", how_to_go_on(report));
        }
    }
    let is_whole = report.is_done() && report.unreadable() == 0;
    if is_whole { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// An operation as far as a database has come with it.
pub(crate) fn row_as_json(database: &str, row: &OperationRow) -> Value {
    let record = &row.record;
    json!({
        "database": database,
        "operation": record.id.to_string(),
        "verb": record.verb,
        "filter": record.filter,
        "operator": record.operator,
        "reason": record.reason,
        "limit": record.at_most,
        "asked_at": record.asked_at.to_rfc3339(),
        "started_at": row.started_at.to_rfc3339(),
        "changed_at": row.changed_at.to_rfc3339(),
        "finished_at": row.finished_at.map(|at| at.to_rfc3339()),
        "done": row.counts.done,
        "conflicts": row.counts.conflicts,
        "gone": row.counts.gone,
    })
}

/// The same for a table.
pub(crate) fn row_as_cells(database: &str, row: &OperationRow) -> Vec<String> {
    let record = &row.record;
    vec![
        database.to_owned(),
        record.id.to_string(),
        record.verb.clone(),
        record.filter.clone(),
        row.counts.done.to_string(),
        row.counts.conflicts.to_string(),
        row.counts.gone.to_string(),
        time(row.started_at),
        row.finished_at.map(time).unwrap_or_default(),
        record.operator.clone(),
        record.reason.clone(),
    ]
}

fn how_to_go_on(report: &OperationReport) -> String {
    let id = report.id;
    if report.databases.iter().any(|on| on.row.is_some()) {
        return format!("not all is done; go on with it: qudo operations resume {id}");
    }
    // Its row may have been stored all the same, and the answer lost.
    format!(
        "no database said that it began; when `qudo operations` does not show {id}, give the command again"
    )
}
