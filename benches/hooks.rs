//! What hooks cost: nanoseconds per job with none, one and ten, over the in-memory driver.
//!
//! `cargo bench --bench hooks [-- --jobs N]`. Each figure is the median of five runs of all jobs, from
//! the start of the work to the last settlement; the hooks do nothing.

use std::time::{Duration, Instant};

use clap::Parser;
use qudo::{Hook, Manager};

#[derive(Parser)]
struct Arguments {
    /// Jobs of one run.
    #[arg(long, default_value_t = 200_000)]
    jobs: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[qudo::ability(queue = "hooks")]
fn nothing(_text: String) {}

struct Idle(String);

impl Hook for Idle {
    fn name(&self) -> &str {
        &self.0
    }
}

fn run(jobs: usize, hooks: usize) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let mut builder = Manager::builder().database("memory:").workers(1);
    for hook in 0..hooks {
        builder = builder.hook(Idle(format!("idle {hook}")));
    }
    let manager = builder.build()?;
    let per_job = |begun: Instant| begun.elapsed().as_nanos() as f64 / jobs as f64;
    let begun = Instant::now();
    manager.enqueue_many((0..jobs).map(|n| nothing::job(format!("{n:048}"))))?;
    let enqueue = per_job(begun);
    let begun = Instant::now();
    let working = manager.start()?;
    while !manager.job_count().into_iter().all(|on| on.answer.is_ok_and(|rows| rows.is_empty())) {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let work = per_job(begun);
    working.stop();
    Ok((enqueue, work))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let mut none = None;
    for hooks in [0, 1, 10] {
        let mut runs = (Vec::new(), Vec::new());
        for _ in 0..5 {
            let (enqueue, work) = run(arguments.jobs, hooks)?;
            runs.0.push(enqueue);
            runs.1.push(work);
        }
        let (enqueue, work) = (median(runs.0), median(runs.1));
        let (base_enqueue, base_work) = *none.get_or_insert((enqueue, work));
        println!(
            "{hooks:>2} hooks: enqueue {enqueue:>6.0} ns/job ({:+.0}), work {work:>6.0} ns/job ({:+.0})",
            enqueue - base_enqueue,
            work - base_work
        );
    }
    Ok(())
}
