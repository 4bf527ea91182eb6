use std::collections::BTreeMap;
use std::process::ExitCode;

use qudo::Manager;
use qudo::admin::{JobFilter, JobInfo, Paging};
use serde_json::json;

use crate::list::parse;
use crate::output::{print_rows, say};
use crate::sources::Databases;
use crate::{Failure, with_causes};

/// So many rows are read at once.
const PAGE: u32 = 10_000;

/// What is counted.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Terms that all hold, as for `qudo jobs`; without one, every live job, from the tables that say only where jobs stand.
    filter: Vec<String>,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(crate) databases: Databases,
}

/// Database, queue, ability, state.
type Key = (String, String, String, String);

/// Counts; 0 when all databases answered, 2 when one did not.
pub(crate) fn run(manager: &Manager, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let filter: JobFilter = parse::<JobInfo>(&arguments.filter, manager)?;
    let Counted { counts, unreadable, errors } =
        if arguments.filter.is_empty() { all(manager) } else { some(manager, &filter) };
    if arguments.json {
        let rows = counts.iter().map(|((database, queue, ability, state), count)| {
            json!({ "database": database, "queue": queue, "ability": ability, "state": state, "count": count })
        });
        let errors =
            errors.iter().map(|(database, error)| json!({ "database": database, "error": error }));
        say(&json!({
            "rows": rows.collect::<Vec<_>>(),
            "databases": errors.collect::<Vec<_>>(),
                "unreadable": unreadable,
        })
        .to_string());
    } else {
        let rows = counts.into_iter().map(|((database, queue, ability, state), count)| {
            vec![database, count.to_string(), state, queue, ability]
        });
        print_rows(&["DATABASE", "COUNT", "STATE", "QUEUE", "ABILITY"], rows);
        if unreadable > 0 {
            eprintln!(
                "{unreadable} jobs hang on arguments that cannot be read here, and are not counted"
            );
        }
        for (_, error) in &errors {
            eprintln!("qudo: {error}");
        }
    }
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

#[derive(Default)]
struct Counted {
    counts: BTreeMap<Key, u64>,
    /// Jobs that hang on arguments that cannot be read.
    unreadable: u64,
    errors: Vec<(String, String)>,
}

fn all(manager: &Manager) -> Counted {
    let Counted { mut counts, mut errors, .. } = Counted::default();
    for on in manager.job_count() {
        match on.answer {
            Ok(rows) => {
                for row in rows {
                    let key = (on.database.clone(), row.queue, row.ability, row.state.to_owned());
                    counts.insert(key, row.count);
                }
            }
            Err(error) => errors.push((on.database, with_causes(&error))),
        }
    }
    Counted { counts, errors, unreadable: 0 }
}

/// Page after page: a job that moves on meanwhile may be counted twice, or not at all.
fn some(manager: &Manager, filter: &JobFilter) -> Counted {
    let Counted { mut counts, mut unreadable, mut errors } = Counted::default();
    let mut paging = Paging::default().limit(PAGE).without_arguments().without_estimate();
    loop {
        let listing = manager.jobs(filter, &paging);
        for (database, job) in listing.rows() {
            let (queue, ability) = (job.facts.queue.to_string(), job.facts.ability.to_string());
            let key = (database.to_owned(), queue, ability, job.state.as_str().to_owned());
            *counts.entry(key).or_default() += 1;
        }
        let pages = listing.pages.iter().flat_map(|on| &on.answer);
        unreadable += pages.map(|page| page.unreadable).sum::<u64>();
        let failed: Vec<_> = listing
            .errors()
            .map(|(database, error)| (database.to_owned(), with_causes(error)))
            .collect();
        let mut next = listing.next;
        for (database, _) in &failed {
            // Part of its jobs is no count of them.
            counts.retain(|(of, ..), _| of != database);
            next = next.and_then(|next| next.without(database));
        }
        errors.extend(failed);
        match next {
            Some(next) => paging = paging.after(next),
            None => return Counted { counts, unreadable, errors },
        }
    }
}
