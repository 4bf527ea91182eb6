use qudo::Manager;
use qudo::admin::{ExceptionFilter, Paging};

use crate::with_causes;

/// How many of the last failures are shown.
const FAILURES: u32 = 5;

/// Shows each database, whatever becomes of the others; `false` if one did not answer.
pub(crate) fn run(manager: &Manager) -> bool {
    let mut complete = true;
    let (counts, workers) = (manager.job_count(), manager.workers());
    let failures = manager.exceptions(
        &ExceptionFilter::discarded(),
        &Paging::default().limit(FAILURES).without_arguments().without_estimate(),
    );
    for ((counts, workers), failures) in counts.into_iter().zip(workers).zip(failures) {
        println!("{}", counts.database);
        let parts =
            counts.answer.and_then(|counts| Ok((counts, workers.answer?, failures.answer?)));
        let (counts, workers, failures) = match parts {
            Ok(parts) => parts,
            Err(error) => {
                eprintln!("qudo: {}", with_causes(&error));
                complete = false;
                continue;
            }
        };
        if counts.is_empty() {
            println!("  no jobs");
        }
        for row in counts {
            println!("  {:>9} {:<9} {} / {}", row.count, row.state, row.queue, row.ability);
        }
        for worker in workers {
            let (name, silent) = (&worker.info.name, worker.silent.as_secs_f32());
            println!("  worker {name} seen {silent:.0} s ago");
        }
        for row in failures {
            println!(
                "  failed {} job {} ({}): {}",
                row.failed_at, row.job, row.facts.ability, row.message
            );
        }
    }
    complete
}
