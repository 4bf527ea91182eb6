//! Spans around enqueues and runs, and the log inside them.

#![cfg(all(feature = "tracing", feature = "tokio"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use qudo::testing::TestQueue;
use qudo::{Job, JobError, JobResult};
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

type Fields = BTreeMap<String, String>;

/// A span: its name, its parent and its fields.
type Span = (&'static str, Option<u64>, Fields);

/// All spans, by their numbers.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<BTreeMap<u64, Span>>>);

struct Noted<'a>(&'a mut Fields);

impl Visit for Noted<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, span: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::new();
        span.record(&mut Noted(&mut fields));
        let parent = context.span(id).and_then(|span| span.parent()).map(|one| one.id().into_u64());
        let new = (span.metadata().name(), parent, fields);
        self.0.lock().expect("no panic").insert(id.into_u64(), new);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some((_, _, fields)) = self.0.lock().expect("no panic").get_mut(&id.into_u64()) {
            values.record(&mut Noted(fields));
        }
    }
}

impl Spans {
    fn named(&self, name: &str) -> Vec<(u64, Option<u64>, Fields)> {
        let all = self.0.lock().expect("no panic");
        let found = all.iter().filter(|(_, (its, ..))| *its == name);
        found.map(|(id, (_, parent, fields))| (*id, *parent, fields.clone())).collect()
    }

    /// Told what happens in this thread.
    fn told<T>(&self, act: impl FnOnce() -> T) -> T {
        tracing::subscriber::with_default(Registry::default().with(self.clone()), act)
    }
}

/// Which span was entered when each line was logged.
struct Lines(Mutex<Vec<(Option<u64>, String)>>);

static LINES: Lines = Lines(Mutex::new(Vec::new()));

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let span = tracing::Span::current().id().map(|id| id.into_u64());
        self.0.lock().expect("no panic").push((span, record.args().to_string()));
    }

    fn flush(&self) {}
}

#[qudo::ability(max_retries = 0, queue = "slow")]
fn mail(job: &Job, to: String) -> JobResult<usize> {
    log::info!("mailing job {}", job.id());
    if to.is_empty() { Err(JobError::fail("to nobody")) } else { Ok(to.len()) }
}

#[test]
fn enqueues_and_runs_are_spans_and_what_is_logged_lies_inside() {
    log::set_logger(&LINES).expect("the first");
    log::set_max_level(log::LevelFilter::Info);
    let spans = Spans::default();
    spans.told(|| {
        let queue = TestQueue::builder().ability::<mail>().build().expect("valid");
        let manager = queue.manager();
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let job = mail::job("ada".to_owned()).meta("traceparent", parent);
        let sent = manager.enqueue(job).expect("stored").id().expect("new").to_string();
        let failed = manager.enqueue(mail::job(String::new())).expect("stored");
        let failed = failed.id().expect("new").to_string();
        manager.enqueue_many((0..3).map(|_| mail::job("x".to_owned()))).expect("stored");
        queue.run_all().expect("runs");

        let field = |fields: &Fields, name: &str| fields.get(name).cloned().unwrap_or_default();
        let enqueues = spans.named("enqueue");
        assert_eq!(enqueues.len(), 2);
        let (_, _, fields) = &enqueues[0];
        let is = ["ability", "queue", "database", "job"].map(|name| field(fields, name));
        assert_eq!(is, ["mail", "slow", "test", &*sent]);
        assert_eq!(field(&spans.named("enqueue_many")[0].2, "jobs"), "3");

        let runs = spans.named("run");
        assert_eq!(runs.len(), 5);
        let run_of = |job: &str| {
            runs.iter().find(|(_, _, fields)| field(fields, "job") == job).expect("it ran")
        };
        let (id, _, fields) = run_of(&sent);
        let names = ["ability", "queue", "database", "attempt", "outcome", "traceparent"];
        let is = names.map(|name| field(fields, name));
        assert_eq!(is, ["mail", "slow", "test", "1", "completed", parent]);
        let lines = LINES.0.lock().expect("no panic");
        let within = |id: u64, text: &str| {
            lines.iter().any(|(span, line)| *span == Some(id) && line.contains(text))
        };
        assert!(within(*id, &format!("mailing job {sent}")), "{lines:?}");
        let (id, _, fields) = run_of(&failed);
        assert_eq!(field(fields, "outcome"), "failed");
        assert!(within(*id, "failed for good: to nobody"), "ours too: {lines:?}");
        drop(lines);
    });
}

#[test]
fn an_enqueue_of_a_task_lies_in_the_span_of_the_task() {
    let spans = Spans::default();
    let queue = TestQueue::builder().ability::<mail>().build().expect("valid");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runs");
    spans.told(|| {
        let outer = tracing::info_span!("request");
        let _entered = outer.enter();
        let sent = runtime.block_on(queue.manager().enqueue_async(mail::job("ada".to_owned())));
        sent.expect("stored");
    });
    let outer = spans.named("request")[0].0;
    assert_eq!(spans.named("enqueue")[0].1, Some(outer));
    assert_eq!(queue.run_all().expect("runs").len(), 1);
}
