#![doc = include_str!("../README.md")]

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::SystemTime;

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{
    Link, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer, TracerProvider,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use qudo::hook::{Hook, HookError, JobDraft, JobView};
use qudo::{JobId, Meta, NewJob, Outcome};

/// A run: of one job there may be two in a process, where a lease was lost; each is concluded on the thread that ran it.
type Run = (JobId, u32, ThreadId);

fn run_of(job: &JobView<'_>) -> Run {
    (job.id(), job.attempt(), std::thread::current().id())
}

/// The hook that carries the context of a trace from an enqueue to the runs of its job, and makes a span of each run.
#[derive(Default)]
pub struct Traces {
    /// The spans of runs that are not over, which end when their outcome is known.
    running: Mutex<HashMap<Run, (Context, SystemTime)>>,
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Traces")
    }
}

/// Metadata as they are read and written by propagators.
struct Carrier<'a>(&'a mut Meta);

impl Injector for Carrier<'_> {
    fn set(&mut self, key: &str, value: String) {
        // An empty tracestate says nothing, but must not leave that of another trace.
        if !value.is_empty() || self.0.get(key).is_some() {
            self.0.set(key, value);
        }
    }
}

struct Carried<'a>(&'a Meta);

impl Extractor for Carried<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.values().map(|(name, _)| name).collect()
    }
}

/// The current context, into the metadata; what is there stays where none is current.
fn inject(meta: &mut Meta) {
    let context = Context::current();
    if context.span().span_context().is_valid() {
        TraceContextPropagator::new().inject_context(&context, &mut Carrier(meta));
    }
}

/// The context that the metadata carry.
fn carried(meta: &Meta) -> Option<SpanContext> {
    let context =
        TraceContextPropagator::new().extract_with_context(&Context::new(), &Carried(meta));
    let carried = context.span().span_context().clone();
    carried.is_valid().then_some(carried)
}

fn builder(job: &JobView<'_>) -> SpanBuilder {
    let attributes = vec![
        KeyValue::new("messaging.system", "qudo"),
        KeyValue::new("messaging.operation.name", "process"),
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new("messaging.destination.name", job.queue().to_owned()),
        KeyValue::new("messaging.message.id", job.id().to_string()),
        KeyValue::new("qudo.ability", job.ability().to_owned()),
        KeyValue::new("qudo.database", job.database().to_owned()),
        KeyValue::new("qudo.attempt", i64::from(job.attempt())),
    ];
    let builder = SpanBuilder::from_name(format!("process {}", job.ability()))
        .with_kind(SpanKind::Consumer)
        .with_attributes(attributes);
    match carried(&job.meta()) {
        Some(context) => builder.with_links(vec![Link::with_context(context)]),
        None => builder,
    }
}

impl Hook for Traces {
    fn name(&self) -> &'static str {
        "opentelemetry"
    }

    /// Around all other hooks, so that what these do lies in the span.
    fn order(&self) -> i32 {
        i32::MIN
    }

    fn pre_enqueue(&self, job: &mut JobDraft<'_>) -> Result<(), HookError> {
        inject(job.meta_mut());
        Ok(())
    }

    fn around_work(&self, job: &JobView<'_>, next: &mut dyn FnMut()) {
        let scope = InstrumentationScope::builder("qudo").with_version(env!("CARGO_PKG_VERSION"));
        let tracer = global::tracer_provider().tracer_with_scope(scope.build());
        // No child of what may be current here, which is nobody's who enqueued.
        let span = tracer.build_with_context(builder(job), &Context::new());
        let context = Context::new().with_span(span);
        let attached = context.clone().attach();
        let ends = Ends { traces: self, run: run_of(job), context: Some(context) };
        next();
        drop(ends);
        drop(attached);
    }

    fn post_work(&self, job: &JobView<'_>, outcome: &Outcome) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((context, ended)) = running.remove(&run_of(job)) else { return };
        drop(running);
        let span = context.span();
        span.set_attribute(KeyValue::new("qudo.outcome", outcome.as_str()));
        if let Some(failure) = outcome.failure() {
            span.set_attribute(KeyValue::new("error.type", failure.kind().as_str()));
            span.set_status(Status::error(failure.message().to_owned()));
        }
        span.end_with_timestamp(ended);
    }
}

/// Keeps the span of a run until its outcome is known, also if the run panics.
struct Ends<'a> {
    traces: &'a Traces,
    run: Run,
    context: Option<Context>,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        if let Some(context) = self.context.take() {
            let mut running = self.traces.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.insert(self.run, (context, SystemTime::now()));
        }
    }
}

/// A job that takes the current context of `opentelemetry` along.
pub trait Traced: Sized {
    /// With the context that is current in this thread. Needed only where hooks are called in another: by
    /// [`enqueue_async`](qudo::Manager::enqueue_async).
    #[must_use]
    fn traced(self) -> Self;
}

impl<R> Traced for NewJob<R> {
    fn traced(self) -> Self {
        let mut meta = Meta::default();
        inject(&mut meta);
        let values = meta.values().map(|(name, value)| (name.to_owned(), value.clone()));
        values
            .collect::<Vec<_>>()
            .into_iter()
            .fold(self, |job, (name, value)| job.meta(name, value))
    }
}
