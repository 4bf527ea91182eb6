//! What abilities can say of themselves, plugins, codecs and retry hooks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use qudo::codec::{Compressed, Encrypted, Json};
use qudo::hook::builtin::{AllowList, CircuitBreaker, Deadline, RetryByKind, RetryGrowing, Timing};
use qudo::hook::{FailureKind, Hook, HookError, JobView};
use qudo::plugin::Plugin;
use qudo::{Error, Job, JobError, JobResult, JsonValue, NewJob, Outcome};
use serde::{Deserialize, Serialize};
use serde_json::json;

use qudo_driver_tests::abilities::{double, echo, stumble};
use qudo_driver_tests::work::exceptions;
use qudo_driver_tests::{Bed, Log, eventually, run_all};

#[qudo::ability(aliases = ["former_name", "older_name"])]
fn renamed(job: &Job) -> JobResult {
    job.plugin::<Log>()?.add(format!("ran as {}", job.ability()));
    Ok(())
}

pub fn jobs_of_a_former_name_are_still_run(bed: &Bed) {
    let (manager, log) = bed.manager::<renamed>();
    for name in ["former_name", "older_name", "renamed"] {
        manager.enqueue(NewJob::named(name, JsonValue::Null)).expect("stored");
        assert!(manager.can_do(name));
    }
    assert_eq!(run_all(&manager), 3);
    let mut lines = log.lines();
    lines.sort_unstable();
    assert_eq!(lines, ["ran as former_name", "ran as older_name", "ran as renamed"]);
}

#[derive(Serialize, Deserialize)]
pub struct Order {
    customer: String,
    item: u32,
}

#[qudo::ability(unique_by = |order| format!("{} {}", order.customer, order.item))]
fn pack(order: Order) -> JobResult<u32> {
    Ok(order.item)
}

/// The key is borrowed from the argument.
#[qudo::ability(unique_by = |name| name)]
fn by_itself(name: String) -> JobResult {
    drop(name);
    Ok(())
}

#[qudo::ability(unique_by = |order| order.customer)]
fn by_field(order: Order) -> JobResult {
    drop(order);
    Ok(())
}

#[qudo::ability(unique_by = |order| { if order.item == 0 { return "none".to_owned(); } order.item.to_string() })]
fn by_early_return(order: Order) -> JobResult {
    drop(order);
    Ok(())
}

pub fn the_unique_key_may_come_from_the_argument(bed: &Bed) {
    use qudo::Ability;

    let order = |item| Order { customer: "eve".to_owned(), item };
    assert_eq!(by_itself::uniqkey(&"eve".to_owned()).as_deref(), Some("eve"));
    assert_eq!(by_field::uniqkey(&order(1)).as_deref(), Some("eve"));
    let early = [0, 7].map(|item| by_early_return::uniqkey(&order(item)));
    assert_eq!(early, [Some("none".to_owned()), Some("7".to_owned())]);
    let (manager, _) = bed.manager::<pack>();
    let order = |item| pack::job(Order { customer: "eve".to_owned(), item });
    let first = manager.enqueue(order(1)).expect("stored");
    let again = manager.enqueue(order(1)).expect("found");
    assert_eq!((again.is_new(), again.id()), (false, first.id()));
    assert!(manager.enqueue(order(2)).expect("stored").is_new());
    let (_, info) = manager.lookup(first.id().expect("new")).expect("answers").expect("lives");
    assert_eq!(info.facts.uniqkey.as_deref(), Some("eve 1"));
    assert!(manager.enqueue(order(1).uniqkey("another")).expect("stored").is_new());
}

#[derive(Serialize, Deserialize)]
struct Person {
    first: String,
    last: String,
}

#[qudo::ability(name = "greet_person", version = 3, upgrade = person_upgrade)]
fn greet_person(person: Person) -> JobResult<String> {
    Ok(format!("hello {} {}", person.first, person.last))
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is given")]
/// Version 1 was a text, version 2 had one field.
fn person_upgrade(from: u32, arg: JsonValue) -> JobResult<JsonValue> {
    match from {
        1 => Ok(json!({ "name": arg })),
        2 => {
            let name = arg["name"].as_str().ok_or_else(|| JobError::fail("no name"))?;
            let (first, last) = name.split_once(' ').unwrap_or((name, ""));
            Ok(json!({ "first": first, "last": last }))
        }
        _ => Err(JobError::fail("unknown version")),
    }
}

pub fn an_argument_of_an_older_version_is_upgraded_step_by_step(bed: &Bed) {
    let (manager, _) = bed.manager::<greet_person>();
    let first = NewJob::named("greet_person", "Eve Adams".into());
    let second = NewJob::encoded("greet_person", "json@2", b"{\"name\":\"Bob Brown\"}".to_vec());
    let third = greet_person::job(Person { first: "Cy".to_owned(), last: "Clark".to_owned() });
    let sent: Vec<_> = [first, second, third.untyped()]
        .map(|job| manager.enqueue(job.database(bed.first())).expect("stored"))
        .into();
    assert_eq!(run_all(&manager), 3);
    let greetings: Vec<String> =
        sent.iter().map(|one| one.wait_as(Duration::from_secs(5)).expect("replies")).collect();
    assert_eq!(greetings, ["hello Eve Adams", "hello Bob Brown", "hello Cy Clark"]);
    let broken = NewJob::encoded("greet_person", "json@2", b"{}".to_vec());
    manager.enqueue(broken.database(bed.first())).expect("stored");
    run_all(&manager);
    let row = &exceptions(&manager)[0];
    assert_eq!((row.kind, &*row.facts.codec), (FailureKind::Decode, "json@2"));
    assert_eq!(row.facts.arg, b"{}", "the original bytes are kept");
}

pub fn an_argument_of_a_newer_version_is_left_to_newer_workers(bed: &Bed) {
    let (manager, _) = bed.manager::<greet_person>();
    let newer = NewJob::encoded("greet_person", "json@4", b"{}".to_vec());
    let sent = manager.enqueue(newer).expect("stored");
    let outcome = manager.work_once().expect("works").expect("one");
    assert!(matches!(outcome, Outcome::Snoozed(_)), "{outcome:?}");
    let (_, info) = manager.lookup(sent.id().expect("new")).expect("answers").expect("lives");
    assert_eq!((info.attempt, info.state.as_str()), (0, "scheduled"));
}

#[qudo::ability(time_limit = "20ms", max_retries = 1, retry_delay = "0s")]
fn dawdle(job: &Job, succeed: bool) -> JobResult {
    assert!(job.time_left().is_some());
    while !job.is_stopping() {
        std::thread::yield_now();
    }
    if succeed { Ok(()) } else { Err(JobError::fail("it took too long")) }
}

pub fn a_run_that_fails_after_its_time_limit_has_failed_for_its_time(bed: &Bed) {
    let (manager, _) = bed.manager::<dawdle>();
    manager.enqueue(dawdle::job(false)).expect("stored");
    manager.work_once().expect("works");
    assert_eq!(exceptions(&manager)[0].kind, FailureKind::Timeout);
    manager.enqueue(dawdle::job(true)).expect("stored");
    assert!(run_all(&manager) >= 1, "one that succeeds all the same has succeeded");
}

struct Stamp(&'static str);

impl Hook for Stamp {
    fn name(&self) -> &str {
        self.0
    }

    fn pre_enqueue(&self, job: &mut qudo::hook::JobDraft<'_>) -> Result<(), HookError> {
        let priority = job.priority() + 1;
        job.set_priority(priority);
        Ok(())
    }
}

#[qudo::ability(hooks = [Stamp("one"), Stamp("two")])]
fn stamped(job: &Job) -> JobResult<i32> {
    Ok(job.priority())
}

pub fn hooks_of_an_ability_are_called_for_its_jobs_alone(bed: &Bed) {
    let (manager, _) = bed.with(|builder| builder.ability::<stamped>().ability::<double>());
    let ours = manager.enqueue(stamped::job()).expect("stored");
    let others = manager.enqueue(double::job(1)).expect("stored");
    let priority = |id: Option<qudo::JobId>| {
        let found = manager.lookup(id.expect("new")).expect("answers");
        found.expect("lives").1.facts.priority
    };
    assert_eq!((priority(ours.id()), priority(others.id())), (2, 0));
    assert!(manager.unregister_hook("stamped/two"));
    let after = manager.enqueue(stamped::job()).expect("stored");
    assert_eq!(priority(after.id()), 1);
}

#[derive(Serialize, Deserialize)]
pub struct Thumbnail {
    width: u32,
}

#[qudo::ability(max_retries = 1, retry_delay = "0s", unique_by = |it| it.width)]
impl Thumbnail {
    fn work(self, job: &Job) -> JobResult<u32> {
        Ok(self.width * job.attempt())
    }
}

pub fn a_type_may_be_its_own_ability(bed: &Bed) {
    let (manager, _) = bed.manager::<Thumbnail>();
    let sent = manager.enqueue(Thumbnail { width: 320 }.into_job()).expect("stored");
    assert!(!manager.enqueue(Thumbnail { width: 320 }.into_job()).expect("found").is_new());
    assert!(manager.can_do("thumbnail"));
    assert_eq!(run_all(&manager), 1);
    assert_eq!(sent.wait_as::<u32>(Duration::from_secs(5)).expect("replies"), 320);
}

#[qudo::ability]
fn with_anyhow(fail: bool) -> anyhow::Result<u32> {
    use anyhow::Context;
    if fail {
        Err(std::io::Error::other("the disk is wet")).context("cannot write")?;
    }
    Ok(7)
}

#[qudo::ability]
fn with_io() -> std::io::Result<()> {
    Err(std::io::Error::other("the disk is wet"))
}

#[qudo::ability]
fn with_text() -> Result<(), &'static str> {
    Err("just a text")
}

#[qudo::ability(max_retries = 9, retry_delay = "0s")]
fn with_wish() -> JobResult {
    Err(qudo::abort("never again"))
}

pub fn an_ability_may_return_any_error(bed: &Bed) {
    let (manager, _) = bed.with(|builder| {
        builder
            .ability::<with_anyhow>()
            .ability::<with_io>()
            .ability::<with_text>()
            .ability::<with_wish>()
    });
    for (job, message) in [
        (with_anyhow::job(true).untyped(), "cannot write: the disk is wet"),
        (with_io::job().untyped(), "the disk is wet"),
        (with_text::job().untyped(), "just a text"),
        (with_wish::job().untyped(), "never again"),
    ] {
        manager.enqueue(job.database(bed.first())).expect("stored");
        assert_eq!(run_all(&manager), 1);
        let row = &exceptions(&manager)[0];
        assert_eq!((&*row.message, row.discarded), (message, true));
    }
    let fine = manager.enqueue(with_anyhow::job(false)).expect("stored");
    run_all(&manager);
    assert_eq!(fine.wait_as::<u32>(Duration::from_secs(5)).expect("replies"), 7);
}

#[qudo::ability(codec = "raw")]
fn raw_bytes(bytes: Vec<u8>) -> JobResult<Vec<u8>> {
    Ok(bytes.into_iter().rev().collect())
}

#[qudo::ability(codec = "json+zstd+aead")]
fn sealed(text: String) -> JobResult<String> {
    if text.is_empty() {
        return Err(JobError::fail("nothing to say"));
    }
    Ok(text)
}

fn seal(keys: &[(&str, u8)]) -> Encrypted {
    let codec = Encrypted::over(Compressed::over(Json));
    keys.iter().fold(codec, |codec, (id, byte)| codec.key(*id, [*byte; 32]))
}

pub fn every_codec_carries_arguments_and_replies(bed: &Bed) {
    let (manager, _) = bed.with(|builder| {
        let codec = seal(&[("one", 1)]);
        builder.ability::<raw_bytes>().ability::<sealed>().codec(codec)
    });
    let raw = manager.enqueue(raw_bytes::job(vec![0, 10, 255])).expect("stored");
    let (_, info) = manager.lookup(raw.id().expect("new")).expect("answers").expect("lives");
    assert_eq!(info.facts.arg, [0, 10, 255]);
    let text = "tell nobody ".repeat(1_000);
    let secret = manager.enqueue(sealed::job(text.clone())).expect("stored");
    let (_, info) = manager.lookup(secret.id().expect("new")).expect("answers").expect("lives");
    assert!(
        info.facts.arg.len() < 500 && !String::from_utf8_lossy(&info.facts.arg).contains("nobody")
    );
    assert_eq!(run_all(&manager), 2);
    let limit = Duration::from_secs(5);
    assert_eq!(raw.wait_as::<Vec<u8>>(limit).expect("replies"), [255, 10, 0]);
    assert_eq!(secret.wait_as::<String>(limit).expect("replies"), text);
}

pub fn a_failed_job_keeps_its_original_bytes_over_a_change_of_keys(bed: &Bed) {
    let (before, _) = bed.with(|builder| builder.ability::<sealed>().codec(seal(&[("one", 1)])));
    before.enqueue(sealed::job(String::new()).database(bed.first())).expect("stored");
    run_all(&before);
    let row = exceptions(&before)[0].clone();
    assert_eq!(row.facts.codec, "json+zstd+aead");
    // The key is rotated; the old one is still known.
    let codec = seal(&[("one", 1), ("two", 2)]);
    let (after, _) = bed.with(|builder| builder.ability::<sealed>().codec(codec));
    after.redrive(row.id).expect("redriven");
    run_all(&after);
    assert_eq!(exceptions(&after)[0].message, "nothing to say", "it was read");
    assert_eq!(exceptions(&after)[0].facts.arg, row.facts.arg, "the bytes are the same");
    // Without the old key the attempt fails, and nothing is lost.
    let (forgot, _) = bed.with(|builder| builder.ability::<sealed>().codec(seal(&[("two", 2)])));
    let again = exceptions(&after)[0].id;
    forgot.redrive(again).expect("redriven");
    run_all(&forgot);
    let last = &exceptions(&forgot)[0];
    assert_eq!((last.kind, &last.facts.arg), (FailureKind::Decode, &row.facts.arg));
    assert!(last.message.contains("no key \"one\""), "{}", last.message);
}

pub fn waiting_jobs_that_nobody_here_can_do_are_named(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    manager.enqueue(echo::job("fine".to_owned())).expect("stored");
    manager.enqueue(echo::job("lost".to_owned()).queue("elsewhere")).expect("stored");
    manager.enqueue(NewJob::named("unknown", 1.into())).expect("stored");
    let found: Vec<_> = manager
        .check_abilities()
        .into_iter()
        .flat_map(|on| on.answer.expect("answers"))
        .map(|one| (one.ability, one.queue, one.count))
        .collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.contains(&("unknown".to_owned(), "default".to_owned(), 1)), "{found:?}");
    assert!(found.contains(&("echo".to_owned(), "elsewhere".to_owned(), 1)), "{found:?}");
}

#[qudo::ability(time_limit = "3s")]
async fn asynchronous(job: &Job, millis: u64) -> JobResult<u32> {
    tokio::time::sleep(Duration::from_millis(millis)).await;
    Ok(job.attempt())
}

pub fn async_abilities_run_on_the_runtime_of_the_application(bed: &Bed) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let handle = runtime.handle().clone();
    let (manager, _) = bed.with(|builder| builder.ability::<asynchronous>().plugin(handle));
    let fine = manager.enqueue(asynchronous::job(1)).expect("stored");
    run_all(&manager);
    assert_eq!(fine.wait_as::<u32>(Duration::from_secs(5)).expect("replies"), 1);
    manager.enqueue(asynchronous::job(60_000)).expect("stored");
    run_all(&manager);
    assert_eq!(exceptions(&manager)[0].kind, FailureKind::Timeout);
    let sent = runtime.block_on(manager.enqueue_async(asynchronous::job(1)));
    assert!(sent.expect("stored").is_new());
    let (bare, _) = bed.manager::<asynchronous>();
    run_all(&bare);
    let all = exceptions(&bare);
    let told = |one: &qudo::driver::Exception| {
        one.message.contains("no plugin") && one.message.contains("Handle")
    };
    assert!(all.iter().any(told), "{all:?}");
}

#[qudo::ability]
fn halve(number: u32) -> JobResult<u32> {
    if number % 2 == 1 {
        return Err(JobError::fail("it is odd"));
    }
    Ok(number / 2)
}

pub fn tasks_enqueue_and_await_replies_of_other_processes_on_a_runtime_of_one_thread(bed: &Bed) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // Another manager stands for another process: nobody here hears of its ends.
    let (service, _) = bed.manager::<halve>();
    let working = service.start().expect("starts");
    let (client, _) = bed.manager::<halve>();
    let one = |number: u32| {
        let client = client.clone();
        async move {
            let sent = client.enqueue_async(halve::job(number)).await.expect("stored");
            let ticket = sent.ticket().expect("is new").clone();
            (number, ticket.wait_async(Duration::from_secs(60)).await)
        }
    };
    let answers = runtime.block_on(async {
        let all: Vec<_> = (0..100).map(|number| tokio::spawn(one(number))).collect();
        let mut answers = Vec::new();
        for task in all {
            answers.push(task.await.expect("no panic"));
        }
        answers
    });
    for (number, answer) in answers {
        match answer {
            Ok(half) => assert_eq!(half * 2, number),
            Err(error) => {
                assert!(number % 2 == 1 && matches!(error, Error::JobFailed { .. }), "{error}");
            }
        }
    }
    // Whoever has no time any more leaves nothing behind; the job is run.
    let late = runtime.block_on(async {
        let sent = client
            .enqueue_async(halve::job(8).delay(Duration::from_secs(1)))
            .await
            .expect("stored");
        let ticket = sent.ticket().expect("is new").clone();
        let waits = ticket.wait_async(Duration::from_secs(60));
        assert!(tokio::time::timeout(Duration::from_millis(10), waits).await.is_err());
        let waits = ticket.wait_async(Duration::from_millis(10)).await;
        assert!(waits.is_err_and(|error| error.is_timeout()));
        ticket
    });
    assert_eq!(late.wait(Duration::from_secs(60)).expect("replies"), 4);
    working.stop();
}

/// Says that it began, and then only what becomes of it when it is dropped.
struct Dropped(Log);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.add("dropped");
    }
}

#[qudo::ability]
async fn waits_for_ever(job: &Job) -> JobResult {
    let log = job.plugin::<Log>()?;
    let _dropped = Dropped(log.clone());
    log.add("began");
    std::future::pending::<()>().await;
    Ok(())
}

pub fn an_async_body_is_dropped_when_its_job_is_cancelled(bed: &Bed) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let handle = runtime.handle().clone();
    let (manager, log) = bed.with(|builder| {
        builder
            .ability::<waits_for_ever>()
            .plugin(handle)
            .heartbeat(Duration::from_millis(300), Duration::from_secs(30))
    });
    let sent = manager.enqueue(waits_for_ever::job()).expect("stored");
    let working = manager.start().expect("starts");
    eventually("it began", || log.lines() == ["began"]);
    let id = sent.id().expect("is new");
    assert_eq!(manager.cancel(id, "enough").expect("answers"), qudo::admin::Acted::Asked);
    let error = sent.wait_done(Duration::from_secs(30)).expect_err("it never ends");
    assert!(matches!(&error, Error::JobCancelled { reason, .. } if reason == "enough"), "{error}");
    assert_eq!(log.lines(), ["began", "dropped"]);
    working.stop();
}

// Qudo's t/011plugin: a plugin is a function, an object, or is made with options.

type Shout = fn(&str) -> String;

#[qudo::ability]
fn uses_function(job: &Job, text: String) -> JobResult<String> {
    Ok(job.plugin::<Shout>()?(&text))
}

pub fn t_011_plugin_function(bed: &Bed) {
    let shout: Shout = |text| text.to_uppercase();
    let (manager, _) = bed.with(|builder| builder.ability::<uses_function>().plugin(shout));
    let sent = manager.enqueue(uses_function::job("hey".to_owned())).expect("stored");
    run_all(&manager);
    assert_eq!(sent.wait_as::<String>(Duration::from_secs(5)).expect("replies"), "HEY");
}

#[derive(Default)]
struct Counter(AtomicU32);

#[qudo::ability]
fn uses_object(job: &Job) -> JobResult<u32> {
    Ok(job.plugin::<Arc<Counter>>()?.0.fetch_add(1, Ordering::Relaxed) + 1)
}

pub fn t_011_plugin_object(bed: &Bed) {
    let counter = Arc::new(Counter::default());
    let own = Arc::clone(&counter);
    let (manager, _) = bed.with(|builder| builder.ability::<uses_object>().plugin(own));
    for _ in 0..3 {
        manager.enqueue(uses_object::job()).expect("stored");
    }
    run_all(&manager);
    assert_eq!(counter.0.load(Ordering::Relaxed), 3, "one object for all jobs");
}

struct Greeter {
    word: String,
}

#[derive(Deserialize)]
struct GreeterOptions {
    word: String,
}

impl Plugin for Greeter {
    const NAME: &'static str = "greeter";
    type Options = GreeterOptions;
    fn build(options: GreeterOptions) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        if options.word.is_empty() {
            return Err("an empty word".into());
        }
        Ok(Self { word: options.word })
    }
}

#[qudo::ability]
fn uses_options(job: &Job, name: String) -> JobResult<String> {
    Ok(format!("{} {name}", job.plugin::<Greeter>()?.word))
}

pub fn t_011_plugin_with_options(bed: &Bed) {
    let options = || GreeterOptions { word: "hello".to_owned() };
    let (manager, _) =
        bed.with(|builder| builder.ability::<uses_options>().plugin_from::<Greeter>(options()));
    let sent = manager.enqueue(uses_options::job("eve".to_owned())).expect("stored");
    run_all(&manager);
    assert_eq!(sent.wait_as::<String>(Duration::from_secs(5)).expect("replies"), "hello eve");
    let twice = bed.builder().plugin_from::<Greeter>(options()).plugin_from::<Greeter>(options());
    assert!(matches!(twice.build(), Err(Error::Plugin(_))), "two of one type");
    let bad = bed.builder().plugin_from::<Greeter>(GreeterOptions { word: String::new() });
    let error = bad.build().expect_err("it cannot be built");
    assert!(error.to_string().contains("greeter"), "{error}");
}

pub fn t_011_plugin_that_is_missing_fails_the_attempt(bed: &Bed) {
    let (manager, _) = bed.manager::<uses_object>();
    manager.enqueue(uses_object::job()).expect("stored");
    run_all(&manager);
    assert!(exceptions(&manager)[0].message.contains("no plugin"));
}

// The hooks that come with the crate.

pub fn an_allow_list_refuses_what_it_does_not_name(bed: &Bed) {
    let allowed = AllowList::default().ability("echo").ability_in("double", "numbers");
    let (manager, _) = bed.with(|builder| builder.ability::<echo>().hook(allowed));
    manager.enqueue(echo::job("fine".to_owned())).expect("allowed");
    manager.enqueue(double::job(1).queue("numbers")).expect("allowed");
    for refused in [double::job(1).untyped(), NewJob::named("other", 1.into())] {
        let error = manager.enqueue(refused).expect_err("refused");
        assert!(matches!(error, Error::Refused { .. }), "{error}");
    }
}

pub fn a_late_job_goes_to_the_exception_log(bed: &Bed) {
    let deadline = Deadline::of(Duration::ZERO);
    let (manager, log) = bed.with(|builder| builder.ability::<echo>().hook(deadline));
    // Due later than enqueued: late by a second for every clock.
    let late = echo::job("late".to_owned()).delay(Duration::from_secs(1));
    manager.enqueue(late).expect("stored");
    eventually("it is due", || run_all(&manager) == 1);
    assert!(log.lines().is_empty());
    assert_eq!(exceptions(&manager)[0].kind, FailureKind::Abort);
}

pub fn a_circuit_breaker_puts_jobs_off_without_spending_attempts(bed: &Bed) {
    let breaker = CircuitBreaker::new(2, Duration::from_secs(600));
    let (manager, _) = bed.with(|builder| builder.ability::<stumble>().hook(breaker));
    for _ in 0..4 {
        manager.enqueue(stumble::job(9).database(bed.first())).expect("stored");
    }
    let outcomes: Vec<_> =
        (0..4).map(|_| manager.work_once().expect("works").expect("one")).collect();
    let failed = outcomes.iter().filter(|one| one.failure().is_some()).count();
    assert_eq!(failed, 2, "{outcomes:?}");
    assert!(matches!(outcomes[3], Outcome::Snoozed(_)), "{outcomes:?}");
}

pub fn retry_hooks_decide_by_kind_and_attempt(bed: &Bed) {
    let growing = RetryGrowing::new(Duration::from_secs(60), Duration::from_secs(90));
    let kinds = RetryByKind::default().never(FailureKind::Panic);
    let timing = Timing::default();
    let own = timing.clone();
    let (manager, _) = bed.with(|builder| {
        let abilities =
            builder.ability::<stumble>().ability::<qudo_driver_tests::abilities::panics>();
        abilities.hook(growing).hook(kinds).hook(own)
    });
    manager.enqueue(stumble::job(9)).expect("stored");
    let outcome = manager.work_once().expect("works").expect("one");
    assert!(
        matches!(&outcome, Outcome::Retried(_, delay) if *delay == Duration::from_secs(60)),
        "{outcome:?}"
    );
    manager.enqueue(qudo_driver_tests::abilities::panics::job()).expect("stored");
    let outcome = manager.work_once().expect("works").expect("one");
    assert!(matches!(outcome, Outcome::Discarded(_)), "{outcome:?}");
    let runs: u64 = timing.report().iter().map(|one| one.runs).sum();
    assert_eq!(runs, 2);
}

/// Qudo's t/010hook goes through the points one by one; here each is registered while the manager
/// lives, seen, removed, and not seen any more.
struct Noted {
    log: Log,
    point: &'static str,
}

impl Hook for Noted {
    fn name(&self) -> &str {
        self.point
    }

    fn pre_enqueue(&self, _: &mut qudo::hook::JobDraft<'_>) -> Result<(), HookError> {
        self.note("pre_enqueue");
        Ok(())
    }

    fn post_enqueue(&self, _: &JobView<'_>) {
        self.note("post_enqueue");
    }

    fn pre_work(&self, _: &JobView<'_>) -> Result<(), HookError> {
        self.note("pre_work");
        Ok(())
    }

    fn post_work(&self, _: &JobView<'_>, _: &Outcome) {
        self.note("post_work");
    }
}

impl Noted {
    fn note(&self, point: &str) {
        if point == self.point {
            self.log.add(point);
        }
    }
}

fn point(bed: &Bed, point: &'static str) {
    let (manager, _) = bed.manager::<double>();
    let log = Log::default();
    manager.register_hook(Noted { log: log.clone(), point }).expect("a new name");
    manager.enqueue(double::job(1)).expect("stored");
    run_all(&manager);
    assert_eq!(log.lines(), [point]);
    assert!(manager.unregister_hook(point));
    manager.enqueue(double::job(1)).expect("stored");
    run_all(&manager);
    assert_eq!(log.lines(), [point], "it is not called any more");
}

pub fn t_010_hook_pre_enqueue(bed: &Bed) {
    point(bed, "pre_enqueue");
}

pub fn t_010_hook_post_enqueue(bed: &Bed) {
    point(bed, "post_enqueue");
}

pub fn t_010_hook_pre_work(bed: &Bed) {
    point(bed, "pre_work");
}

pub fn t_010_hook_post_work(bed: &Bed) {
    point(bed, "post_work");
}

pub fn t_010_hook_serialize_and_deserialize(bed: &Bed) {
    // In Qudo two hook points, here the codec: the one of the job, whatever the ability's is.
    let (manager, _) =
        bed.with(|builder| builder.ability::<double>().codec(Compressed::over(Json)));
    let sent = manager.enqueue(double::job(21).codec("json+zstd")).expect("stored");
    let (_, info) = manager.lookup(sent.id().expect("new")).expect("answers").expect("lives");
    assert_eq!(info.facts.codec, "json+zstd");
    run_all(&manager);
    assert_eq!(sent.wait_as::<i64>(Duration::from_secs(5)).expect("replies"), 42);
}
