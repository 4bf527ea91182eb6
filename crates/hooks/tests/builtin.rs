//! The hooks that come with the crate, on views made by hand.

#![allow(missing_docs, reason = "a test is read, not called")]

use std::sync::Mutex;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use qudo_hooks::builtin::{CircuitBreaker, Deadline, Logging};
use qudo_hooks::{Decision, Failure, FailureKind, Hook, HookError, JobId, JobView, Outcome, Veto};

fn view(ability: &str) -> JobView<'_> {
    JobView::new(JobId::new(), ability, "default").with_attempt(1, 3)
}

fn failed() -> Outcome {
    Outcome::Retried(Failure::new(FailureKind::Error, "no"), Duration::ZERO)
}

fn snoozed(passed: Result<(), HookError>) -> bool {
    matches!(passed.map_err(|error| error.veto()), Err(Some(Veto::Snooze(_))))
}

#[test]
fn a_breaker_opens_for_one_ability_lets_a_trial_through_and_closes_again() {
    let breaker = CircuitBreaker::new(2, Duration::from_millis(30));
    let job = view("call");
    let end = |outcome: &Outcome| {
        breaker.around_work(&job, &mut || {});
        breaker.post_work(&job, outcome);
    };
    end(&failed());
    end(&Outcome::Completed);
    end(&failed());
    assert!(breaker.pre_work(&job).is_ok(), "never two in a row");
    end(&failed());
    assert!(snoozed(breaker.pre_work(&job)), "open");
    assert!(breaker.pre_work(&view("other")).is_ok(), "others go on");
    std::thread::park_timeout(Duration::from_millis(40));
    while snoozed(breaker.pre_work(&job)) {}
    assert!(snoozed(breaker.pre_work(&view("call"))), "one trial at a time");
    breaker.post_work(&view("call"), &Outcome::Snoozed(Duration::ZERO));
    assert!(snoozed(breaker.pre_work(&view("call"))), "a job put off is no trial");
    end(&Outcome::Snoozed(Duration::ZERO));
    assert!(breaker.pre_work(&job).is_ok(), "a trial that put itself off is followed by another");
    end(&Outcome::Completed);
    assert!(breaker.pre_work(&job).is_ok(), "closed again");
}

#[test]
fn a_deadline_aborts_what_is_too_old_and_nothing_else() {
    let deadline = Deadline::of(Duration::from_secs(60)).for_ability("remind");
    assert!(deadline.applies_to("remind") && !deadline.applies_to("other"));
    let at = |seconds| Some(Utc::now() - TimeDelta::seconds(seconds));
    assert!(deadline.pre_work(&view("remind").with_enqueued_at(at(10))).is_ok());
    assert!(deadline.pre_work(&view("remind")).is_ok(), "of unknown age");
    let late = deadline.pre_work(&view("remind").with_enqueued_at(at(90))).expect_err("too old");
    assert_eq!(late.veto(), Some(Veto::Abort));
}

/// Keeps what is logged, with its key-values.
struct Kept(Mutex<Vec<String>>);

impl log::Log for Kept {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        struct Pairs(String);
        impl<'kvs> log::kv::VisitSource<'kvs> for Pairs {
            fn visit_pair(
                &mut self,
                key: log::kv::Key<'kvs>,
                value: log::kv::Value<'kvs>,
            ) -> Result<(), log::kv::Error> {
                self.0.push_str(&format!(" {key}={value}"));
                Ok(())
            }
        }
        let mut pairs = Pairs(String::new());
        record.key_values().visit(&mut pairs).expect("readable");
        let line = format!("{} {}{}", record.level(), record.args(), pairs.0);
        self.0.lock().expect("no panic while logging").push(line);
    }

    fn flush(&self) {}
}

static KEPT: Kept = Kept(Mutex::new(Vec::new()));

#[test]
fn logging_tells_each_step_with_key_values_and_never_the_argument() {
    log::set_logger(&KEPT).expect("the only one");
    log::set_max_level(log::LevelFilter::Trace);
    let hook = Logging::at(log::Level::Debug);
    let job = view("mail").with_database("db1").with_arg("json", b"\"secret\"");
    hook.post_enqueue(&job);
    hook.pre_work(&job).expect("never refuses");
    let failure = Failure::new(FailureKind::Panic, "oh no");
    hook.on_failure(&job, &failure, &mut Decision::Discard).expect("never fails");
    hook.post_work(&job, &Outcome::Completed);
    let lines = KEPT.0.lock().expect("no panic").clone();
    let starts = ["DEBUG enqueued", "DEBUG started", "WARN failed: oh no", "DEBUG ended"];
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
        assert!(line.contains("ability=mail") && line.contains("job="), "{line}");
        assert!(!line.contains("secret"), "{line}");
    }
    assert!(lines[0].contains("database=db1") && lines[3].contains("outcome=completed"));
}

#[cfg(feature = "metrics")]
mod metrics {
    use std::sync::{Arc, Mutex};

    use metrics::{
        Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
        SharedString, Unit,
    };
    use qudo_hooks::builtin::Metrics;
    use qudo_hooks::{Hook, Outcome};

    use super::view;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<String>>>);

    struct One(String, Kept);

    impl One {
        fn note(&self, value: &str) {
            (self.1).0.lock().expect("no panic").push(format!("{} {value}", self.0));
        }
    }

    impl CounterFn for One {
        fn increment(&self, value: u64) {
            self.note(&format!("+{value}"));
        }
        fn absolute(&self, _: u64) {}
    }

    impl HistogramFn for One {
        fn record(&self, value: f64) {
            assert!((0.0..60.0).contains(&value), "{value}");
            self.note("recorded");
        }
    }

    impl Recorder for Kept {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(Arc::new(One(text(key), self.clone())))
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }
        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::from_arc(Arc::new(One(text(key), self.clone())))
        }
    }

    fn text(key: &Key) -> String {
        let labels: Vec<_> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        format!("{}{{{}}}", key.name(), labels.join(","))
    }

    #[test]
    fn each_job_is_counted_and_timed_under_its_labels() {
        let kept = Kept::default();
        metrics::with_local_recorder(&kept, || {
            let waited = std::time::Duration::from_millis(250);
            let job = view("mail").with_database("one").with_waited(Some(waited));
            Metrics.post_enqueue(&job);
            Metrics.post_enqueue_in(&job);
            Metrics.around_work(&job, &mut || ());
            Metrics.post_work(&job, &Outcome::Completed);
        });
        let mut lines = kept.0.lock().expect("no panic").clone();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "qudo_process_enqueued_in_transactions_total{database=one,queue=default,ability=mail} +1",
                "qudo_process_enqueued_total{database=one,queue=default,ability=mail} +1",
                "qudo_process_run_seconds{database=one,queue=default,ability=mail} recorded",
                "qudo_process_runs_total{database=one,queue=default,ability=mail,outcome=completed} +1",
                "qudo_process_wait_seconds{database=one,queue=default,ability=mail} recorded",
            ]
        );
    }
}
