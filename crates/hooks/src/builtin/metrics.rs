use std::cell::Cell;
use std::time::Instant;

use crate::{Hook, JobView, Outcome};

/// Counts and times jobs through the `metrics` facade: whatever recorder the application installs
/// gets them.
///
/// | metric | kind | labels |
/// |---|---|---|
/// | `qudo_enqueued_total` | counter | ability, queue |
/// | `qudo_runs_total` | counter | ability, queue, outcome |
/// | `qudo_run_seconds` | histogram | ability |
/// | `qudo_wait_seconds` | histogram, first runs only | ability |
///
/// The wait is from the enqueue by the database's clock to the start by this machine's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Metrics;

thread_local! {
    /// How long the run on this thread took, from `around_work` to `post_work`.
    static TOOK: Cell<f64> = const { Cell::new(0.0) };
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
        metrics::counter!(
            "qudo_enqueued_total",
            "ability" => job.ability().to_owned(),
            "queue" => job.queue().to_owned()
        )
        .increment(1);
    }

    fn around_work(&self, job: &JobView<'_>, next: &mut dyn FnMut()) {
        let begun = Instant::now();
        TOOK.set(0.0);
        next();
        TOOK.set(begun.elapsed().as_secs_f64());
        if let (1, Some(at)) = (job.attempt(), job.enqueued_at()) {
            let waited = (chrono::Utc::now() - at).to_std().unwrap_or_default();
            let waited = waited.saturating_sub(begun.elapsed()).as_secs_f64();
            metrics::histogram!("qudo_wait_seconds", "ability" => job.ability().to_owned())
                .record(waited);
        }
    }

    fn post_work(&self, job: &JobView<'_>, outcome: &Outcome) {
        metrics::counter!(
            "qudo_runs_total",
            "ability" => job.ability().to_owned(),
            "queue" => job.queue().to_owned(),
            "outcome" => outcome.as_str()
        )
        .increment(1);
        metrics::histogram!("qudo_run_seconds", "ability" => job.ability().to_owned())
            .record(TOOK.replace(0.0));
    }
}
