//! Spans around enqueues and runs, for subscribers of `tracing`; nothing without the feature.

use crate::driver::{Inserted, JobRecord};
use crate::job::Job;
use crate::new_job::NewJob;

/// The name under which the context of a trace travels in a job's metadata, as W3C writes it.
#[cfg(feature = "tracing")]
const TRACE_PARENT: &str = "traceparent";

/// A span that is entered until it is dropped.
#[cfg(feature = "tracing")]
pub(crate) struct Span(tracing::span::EnteredSpan);

#[cfg(not(feature = "tracing"))]
pub(crate) struct Span;

impl Span {
    /// Around the enqueue of one job.
    #[cfg(feature = "tracing")]
    pub(crate) fn of_enqueue(job: &NewJob) -> Self {
        use tracing::field::Empty;
        let span = tracing::info_span!(
            target: "qudo", "enqueue", ability = job.ability(), queue = Empty, database = Empty,
            job = Empty
        );
        Self(span.entered())
    }

    /// Around the enqueue of many.
    #[cfg(feature = "tracing")]
    pub(crate) fn of_enqueue_many() -> Self {
        use tracing::field::Empty;
        Self(tracing::info_span!(target: "qudo", "enqueue_many", jobs = Empty).entered())
    }

    /// Around the whole run of a job, with its hooks.
    #[cfg(feature = "tracing")]
    pub(crate) fn of_run(job: &Job) -> Self {
        use tracing::field::{Empty, display};
        let (ability, queue, database) = (job.ability(), job.queue(), job.database());
        let span = tracing::info_span!(
            target: "qudo", "run", ability, queue, database, attempt = job.attempt(),
            job = %job.id(), traceparent = Empty, outcome = Empty
        );
        // It is read where somebody is told of it only.
        if !span.is_disabled()
            && let Some(parent) = job.meta().get(TRACE_PARENT).and_then(|parent| parent.as_str())
        {
            span.record(TRACE_PARENT, display(parent));
        }
        Self(span.entered())
    }

    /// Where the job is stored, or which job holds its key.
    #[cfg(feature = "tracing")]
    pub(crate) fn note_stored(&self, database: &str, record: &JobRecord, answer: Inserted) {
        let job = if let Inserted::Existing(holder) = answer { holder } else { record.id };
        let queue = &*record.facts.queue;
        let span = self.0.record("database", database).record("queue", queue);
        span.record("job", tracing::field::display(job));
    }

    /// How many jobs were enqueued.
    #[cfg(feature = "tracing")]
    pub(crate) fn note_count(&self, jobs: usize) {
        self.0.record("jobs", jobs);
    }

    /// How the run ended.
    #[cfg(feature = "tracing")]
    pub(crate) fn note_outcome(&self, outcome: &str) {
        self.0.record("outcome", outcome);
    }

    #[cfg(not(feature = "tracing"))]
    pub(crate) fn of_enqueue(_: &NewJob) -> Self {
        Self
    }

    #[cfg(not(feature = "tracing"))]
    pub(crate) fn of_enqueue_many() -> Self {
        Self
    }

    #[cfg(not(feature = "tracing"))]
    pub(crate) fn of_run(_: &Job) -> Self {
        Self
    }

    #[cfg(not(feature = "tracing"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub(crate) fn note_stored(&self, _: &str, _: &JobRecord, _: Inserted) {}

    #[cfg(not(feature = "tracing"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub(crate) fn note_count(&self, _: usize) {}

    #[cfg(not(feature = "tracing"))]
    #[expect(clippy::unused_self, reason = "as with the feature")]
    pub(crate) fn note_outcome(&self, _: &str) {}
}

/// A task that another thread does for the caller, in the span of the caller, and told to its subscriber.
#[cfg(feature = "tracing")]
pub(crate) fn carried<T>(task: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let span = tracing::Span::current();
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    move || tracing::dispatcher::with_default(&dispatch, || span.in_scope(task))
}

#[cfg(not(feature = "tracing"))]
pub(crate) fn carried<T>(task: impl FnOnce() -> T) -> impl FnOnce() -> T {
    task
}
