use std::cell::Cell;
use std::time::Instant;

use metrics::Label;

use crate::{Hook, JobView, Outcome};

/// Counts and times the jobs of this process through the `metrics` facade: whatever recorder the application installs gets
/// them.
///
/// | metric | kind | labels |
/// |---|---|---|
/// | `qudo_process_enqueued_total` | counter | database, queue, ability |
/// | `qudo_process_enqueued_in_transactions_total` | counter | database, queue, ability |
/// | `qudo_process_runs_total` | counter | database, queue, ability, outcome |
/// | `qudo_process_run_seconds` | histogram | database, queue, ability |
/// | `qudo_process_wait_seconds` | histogram | database, queue, ability |
///
/// Jobs that take the place of another are enqueued too. What is stored in a transaction of the caller's is counted before
/// the commit, under a name of its own because it may be rolled back; its database is empty where the manager has several and the
/// job names none. The wait of a run is from when the job was ready: enqueued, due, or put back after an earlier run.
///
/// A run is timed around the ability, with the other hooks around it; one that a veto, a cancel or too many crashes ended before that took no
/// time. Recorders decide on buckets: the one for Prometheus makes a summary of a histogram unless it is given some.
///
/// Gauges of the databases are in `qudo::metrics`; the numbers of all processes, which survive them, in `Manager::stats` and `qudo metrics`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Metrics;

thread_local! {
    /// How long the run on this thread took, from `around_work` to `post_work`.
    static TOOK: Cell<f64> = const { Cell::new(0.0) };
}

fn labels(job: &JobView<'_>) -> Vec<Label> {
    vec![
        Label::new("database", job.database().to_owned()),
        Label::new("queue", job.queue().to_owned()),
        Label::new("ability", job.ability().to_owned()),
    ]
}

impl Hook for Metrics {
    fn name(&self) -> &'static str {
        "metrics"
    }

    /// Outermost, so that the time includes the other hooks around the ability.
    fn order(&self) -> i32 {
        -1_000
    }

    fn post_enqueue(&self, job: &JobView<'_>) {
        metrics::counter!("qudo_process_enqueued_total", labels(job)).increment(1);
    }

    fn post_enqueue_in(&self, job: &JobView<'_>) {
        metrics::counter!("qudo_process_enqueued_in_transactions_total", labels(job)).increment(1);
    }

    fn around_work(&self, _job: &JobView<'_>, next: &mut dyn FnMut()) {
        let begun = Instant::now();
        TOOK.set(0.0);
        next();
        TOOK.set(begun.elapsed().as_secs_f64());
    }

    fn post_work(&self, job: &JobView<'_>, outcome: &Outcome) {
        let of_job = labels(job);
        if let Some(waited) = job.waited() {
            metrics::histogram!("qudo_process_wait_seconds", of_job.clone())
                .record(waited.as_secs_f64());
        }
        metrics::histogram!("qudo_process_run_seconds", of_job.clone()).record(TOOK.replace(0.0));
        let mut of_run = of_job;
        of_run.push(Label::new("outcome", outcome.as_str()));
        metrics::counter!("qudo_process_runs_total", of_run).increment(1);
    }
}
