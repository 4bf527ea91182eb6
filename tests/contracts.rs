//! What the core promises whatever the database is, on the one in memory.

#![allow(missing_docs, reason = "a test is read, not called")]

use std::sync::{Arc, Mutex};

use qudo::admin::{ExceptionFilter, Paging};
use qudo::driver::MemoryDriver;
use qudo::driver::{DriverError, ErrorKind};
use qudo::hook::{FailureKind, Hook, HookError, JobDraft, JobView};
use qudo::testing::FaultyDriver;
use qudo::{Error, Job, JobResult, JsonValue, Manager, ManagerBuilder, NewJob};

fn builder() -> ManagerBuilder {
    let memory = format!("memory:{}", uuid::Uuid::now_v7().simple());
    Manager::builder().linked(false).database_as("it", memory).workers(1)
}

/// Runs what is ready.
fn run_all(manager: &Manager) -> usize {
    let mut ran = 0;
    while manager.work_once().expect("works").is_some() {
        ran += 1;
    }
    ran
}

fn messages(manager: &Manager) -> Vec<(FailureKind, String)> {
    let listing = manager.exceptions(&ExceptionFilter::all(), &Paging::default());
    assert_eq!(listing.errors().count(), 0);
    listing.rows().map(|(_, row)| (row.kind, row.message.clone())).collect()
}

#[qudo::ability(name = "second_shape", version = 2, upgrade = refuse)]
fn second_shape(number: u32) -> JobResult<u32> {
    Ok(number)
}

fn refuse(_: u32, _: JsonValue) -> JobResult<JsonValue> {
    Err(qudo::JobError::fail("it was taken for one of version 1"))
}

struct Recode;

impl Hook for Recode {
    fn name(&self) -> &'static str {
        "recode"
    }

    fn pre_enqueue(&self, job: &mut JobDraft<'_>) -> std::result::Result<(), HookError> {
        job.set_codec("raw");
        job.set_codec("json");
        Ok(())
    }
}

#[test]
fn the_version_of_an_argument_outlives_a_change_of_its_codec() {
    let stored = |manager: &Manager, job: NewJob| {
        let id = manager.enqueue(job).expect("stored").id().expect("new");
        let codec = manager.lookup(id).expect("answers").expect("lives").1.facts.codec;
        assert_eq!(run_all(manager), 1);
        codec
    };
    let manager = builder().ability::<second_shape>().build().expect("valid");
    assert_eq!(stored(&manager, second_shape::job(7).codec("json").untyped()), "json@2");
    let plain = NewJob::named("second_shape", 7.into()).codec("json@2");
    assert_eq!(stored(&manager, plain), "json@2", "a client may say it");
    let manager = builder().ability::<second_shape>().hook(Recode).build().expect("valid");
    assert_eq!(stored(&manager, second_shape::job(7).untyped()), "json@2");
    assert!(messages(&manager).is_empty());
}

#[qudo::ability(name = "numbers")]
fn numbers(_: u64) -> JobResult {
    Ok(())
}

#[test]
fn an_argument_that_does_not_fit_is_not_quoted() {
    let manager = builder().ability::<numbers>().build().expect("valid");
    manager.enqueue(NewJob::named("numbers", "4111 1111".into())).expect("stored");
    manager.enqueue(NewJob::named("numbers", serde_json::json!([41_111_111]))).expect("stored");
    assert_eq!(run_all(&manager), 2);
    for (kind, message) in messages(&manager) {
        assert_eq!(kind, FailureKind::Decode);
        assert!(message.contains("expected u64"), "{message}");
        assert!(!message.contains("111"), "{message}");
    }
}

#[test]
fn a_view_shows_no_argument() {
    let view = JobView::new(qudo::JobId::new(), "numbers", "default").with_arg("json", b"4111");
    let bytes = format!("{:?}", b"4111");
    let shown = format!("{view:?}");
    assert!(!shown.contains("4111") && !shown.contains(bytes.trim_matches(['[', ']'])), "{shown}");
}

#[test]
#[cfg(feature = "postgres")]
fn a_spool_on_a_server_is_refused_without_its_password() {
    let error = builder().spool("postgres://app:secret@db/jobs", 9).build().expect_err("a server");
    let text = format!("{error} {error:?}");
    assert!(text.contains("app:***@db") && !text.contains("secret"), "{text}");
}

/// Panics when it is asked whom it is for.
struct Undecided;

impl Hook for Undecided {
    fn name(&self) -> &'static str {
        "undecided"
    }

    fn applies_to(&self, _: &str) -> bool {
        panic!("no idea")
    }
}

#[test]
fn a_hook_that_panics_when_it_is_chosen_refuses_the_job_by_name() {
    let manager = builder().ability::<numbers>().hook(Undecided).build().expect("valid");
    let error = manager.enqueue(numbers::job(1)).expect_err("refused");
    let Error::Refused { hook, source, .. } = &error else { panic!("another error: {error}") };
    assert_eq!(hook, "undecided");
    assert!(source.to_string().contains("no idea"), "{source}");
    assert_eq!(run_all(&manager), 0, "nothing is stored");
}

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Witness;

impl Hook for Witness {
    fn name(&self) -> &'static str {
        "witness"
    }

    fn pre_enqueue(&self, job: &mut JobDraft<'_>) -> std::result::Result<(), HookError> {
        SEEN.lock().expect("no panic").push(format!("pre_enqueue {}", job.ability()));
        Ok(())
    }

    fn post_enqueue(&self, job: &JobView<'_>) {
        SEEN.lock().expect("no panic").push(format!("post_enqueue {}", job.ability()));
    }

    fn pre_work(&self, job: &JobView<'_>) -> std::result::Result<(), HookError> {
        SEEN.lock().expect("no panic").push(format!("pre_work {}", job.ability()));
        Ok(())
    }
}

#[qudo::ability(name = "present", aliases = ["former"], hooks = [Witness])]
fn present(_: &Job) -> JobResult {
    Ok(())
}

#[test]
fn hooks_of_an_ability_see_jobs_under_its_former_name_too() {
    let manager = builder().ability::<present>().build().expect("valid");
    manager.enqueue(NewJob::named("former", JsonValue::Null)).expect("stored");
    assert_eq!(run_all(&manager), 1);
    let seen = SEEN.lock().expect("no panic").clone();
    assert_eq!(seen, ["pre_enqueue former", "post_enqueue former", "pre_work former"]);
}

#[test]
fn a_bulk_enqueue_that_stops_half_way_tells_what_became_of_each_job() {
    let broken = FaultyDriver::new(Arc::new(MemoryDriver::default())).with_fault(|call| {
        if call == "insert" { Err(DriverError::new(ErrorKind::Other, "no")) } else { Ok(()) }
    });
    let manager = builder().driver("broken", Arc::new(broken)).build().expect("valid");
    let first = NewJob::named("numbers", 1.into()).database("it");
    let held = NewJob::named("numbers", 2.into()).database("it").uniqkey("k");
    let holder = manager.enqueue(held).expect("stored").id();
    let again = NewJob::named("numbers", 2.into()).database("it").uniqkey("k");
    let third = NewJob::named("numbers", 3.into()).database("broken");
    let error = manager.enqueue_many([first, third, again]).expect_err("one database refuses");
    let Error::PartlyEnqueued { stored, total, answers, .. } = error else {
        panic!("another error: {error}")
    };
    assert_eq!((stored, total), (1, 3));
    let ids: Vec<_> = answers.iter().map(|one| one.as_ref().map(|one| one.is_new())).collect();
    assert!(matches!(ids[..], [Some(true), None, Some(false) | None]), "{ids:?}");
    let known = answers[2].as_ref().and_then(qudo::admin::Placed::id);
    assert!(known.is_none() || known == holder);
}

#[test]
fn an_outcome_is_told_though_the_row_of_the_worker_stays() {
    let driver = FaultyDriver::new(Arc::new(MemoryDriver::default())).with_fault(|call| {
        if call == "remove_worker" { Err(DriverError::new(ErrorKind::Other, "no")) } else { Ok(()) }
    });
    let builder = Manager::builder().linked(false).driver("it", Arc::new(driver));
    let manager = builder.ability::<numbers>().build().expect("valid");
    manager.enqueue(numbers::job(1)).expect("stored");
    let outcome = manager.work_once().expect("works").expect("one");
    assert!(matches!(outcome, qudo::Outcome::Completed), "{outcome:?}");
}
