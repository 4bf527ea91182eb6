use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use qudo::admin::{ExceptionFilter, JobFilter, Paging};
use qudo::driver::{Exception, JobState};
use qudo::admin::DatabaseState;
use qudo::hook::FailureKind;
use qudo::observe::{Event, Observer};
use qudo::{Error, Job, JobError, JobId, Manager, NewJob, Outcome, JobResult};
use serde_json::json;

use crate::abilities::{
    again, computed_retry, double, echo, give_up, gives_way, other_echo, panics, parent, sleepy,
    slow_retry, splits, stumble,
};
use crate::{Bed, DEADLINE, Log, run_all, eventually};

pub fn exceptions(manager: &Manager) -> Vec<Exception> {
    let listing = manager.exceptions(&ExceptionFilter::all(), &Paging::default());
    listing.into_iter().flat_map(|on| on.answer.expect("up")).collect()
}

pub fn nothing_to_do_is_no_error(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    assert!(manager.work_once().expect("works").is_none());
    let workers: usize = manager.workers().into_iter().map(|on| on.answer.expect("up").len()).sum();
    assert_eq!(workers, 0, "work_once leaves no row behind");
}

pub fn a_manager_without_abilities_is_told_how_to_link_them(bed: &Bed) {
    let manager = bed.builder().build().expect("valid");
    for error in [manager.work_once().expect_err("none"), manager.start().expect_err("none")] {
        assert!(error.to_string().contains("use my_jobs as _"), "{error}");
    }
}

pub fn jobs_of_abilities_that_a_manager_lacks_are_left_for_others(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    assert!(manager.can_do("echo") && !manager.can_do("double"));
    // In the same queue, ahead of the job it can do.
    let foreign = double::job(1).priority(9);
    let foreign = manager.enqueue(foreign).expect("stored");
    assert!(manager.enqueue(echo::job("mine".to_owned())).expect("stored").is_new());
    assert_eq!(run_all(&manager), 1);
    assert_eq!(log.lines(), ["mine"]);
    let job = manager.lookup(foreign.id().expect("stored")).expect("answers").expect("lives").1;
    assert_eq!((job.state, job.attempt), (JobState::Ready, 0));
}

pub fn a_failing_job_is_retried_up_to_max_retries_and_ends_in_the_exception_log(bed: &Bed) {
    let (manager, log) = bed.manager::<stumble>();
    let sent = manager.enqueue(stumble::job(99).uniqkey("k")).expect("stored");
    assert_eq!(run_all(&manager), 3, "one run and two retries");
    assert_eq!(log.lines(), ["attempt 1", "attempt 2", "attempt 3"]);
    let rows = exceptions(&manager);
    assert_eq!(rows.len(), 3);
    for (row, attempt) in rows.iter().zip([3, 2, 1]) {
        assert_eq!(
            (row.job, row.attempt, row.kind),
            (sent.id().expect("stored"), attempt, FailureKind::Error)
        );
        assert_eq!(row.message, format!("stumbled at attempt {attempt}"));
        assert_eq!(row.discarded, attempt == 3);
        assert_eq!(row.facts.uniqkey.as_deref(), Some("k"));
    }
    assert_eq!(rows[0].facts.arg, b"99", "the original argument is kept");
    assert!(manager.lookup(rows[0].job).expect("answers").is_none());
}

pub fn the_next_attempt_waits_for_the_retry_delay(bed: &Bed) {
    let (manager, _) = bed.manager::<slow_retry>();
    let sent = manager.enqueue(slow_retry::job()).expect("stored");
    let begun = Instant::now();
    assert!(matches!(manager.work_once(), Ok(Some(Outcome::Retried(..)))));
    eventually("the retry is due", || run_all(&manager) == 1);
    assert!(begun.elapsed() >= Duration::from_millis(395), "{:?}", begun.elapsed());
    sent.wait_as::<()>(Duration::from_secs(1)).expect("done");
}

pub fn the_retry_delay_may_be_computed_from_the_job(bed: &Bed) {
    let (manager, _) = bed.manager::<computed_retry>();
    let sent = manager.enqueue(computed_retry::job()).expect("stored");
    let Some(Outcome::Retried(failure, delay)) = manager.work_once().expect("works") else {
        panic!("not retried")
    };
    assert_eq!((failure.message(), delay), ("always", Duration::from_secs(3600)));
    let job = manager.lookup(sent.id().expect("stored")).expect("answers").expect("lives").1;
    assert!(matches!(job.state, JobState::Scheduled { .. }));
    assert_eq!(job.attempt, 1);
}

pub fn an_aborted_job_never_runs_again(bed: &Bed) {
    let (manager, _) = bed.manager::<give_up>();
    assert!(manager.enqueue(give_up::job()).expect("stored").is_new());
    assert_eq!(run_all(&manager), 1, "in spite of five retries");
    let rows = exceptions(&manager);
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].kind, rows[0].discarded), (FailureKind::Abort, true));
    assert_eq!(rows[0].message, "no such user");
}

pub fn a_panic_is_a_failed_attempt_and_the_thread_lives_on(bed: &Bed) {
    let (manager, _) = bed.with(|builder| builder.ability::<panics>().workers(1));
    let sent = manager.enqueue(panics::job()).expect("stored");
    let working = manager.start().expect("starts");
    assert_eq!(sent.wait_as::<u32>(crate::bed::DEADLINE).expect("the second attempt"), 2);
    working.stop();
    let rows = exceptions(&manager);
    assert_eq!((rows.len(), rows[0].kind), (1, FailureKind::Panic));
    assert!(rows[0].message.contains("the first attempt panics"), "{}", rows[0].message);
}

pub fn an_argument_that_does_not_decode_is_kept_in_the_exception_log(bed: &Bed) {
    let (manager, _) = bed.manager::<double>();
    let wrong = [
        NewJob::named("double", json!("no number")),
        NewJob::encoded("double", "json", b"\xff\x00 no json".to_vec()),
        NewJob::encoded("double", "sealing-wax", b"42".to_vec()),
    ];
    for job in wrong {
        assert!(manager.enqueue(job.database(bed.first())).expect("stored").is_new());
    }
    assert_eq!(run_all(&manager), 3);
    let rows = exceptions(&manager);
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.kind == FailureKind::Decode && row.discarded));
    assert_eq!(rows[1].facts.arg, b"\xff\x00 no json");
    assert!(rows[0].message.contains("sealing-wax"), "{}", rows[0].message);
}

pub fn replace_completes_one_job_and_enqueues_others(bed: &Bed) {
    let (manager, log) = bed.with(|builder| builder.ability::<splits>().ability::<echo>());
    let sent = manager.enqueue(splits::job(false)).expect("stored");
    assert!(matches!(manager.work_once(), Ok(Some(Outcome::Replaced(2)))));
    sent.wait_as::<()>(Duration::from_secs(1)).expect("done");
    assert_eq!(run_all(&manager), 2);
    let mut lines = log.lines();
    lines.sort();
    assert_eq!(lines, ["left", "right"]);
}

#[derive(Debug, Clone, Default)]
pub struct Stored(pub Arc<Mutex<Vec<JobId>>>);

impl Observer for Stored {
    fn observe(&self, event: &Event<'_>) {
        if let Event::Enqueued { job, .. } = event {
            self.0.lock().expect("no panic").push(job.id);
        }
    }
}

pub fn replacements_are_told_to_the_observer(bed: &Bed) {
    for working in [false, true] {
        let stored = Stored::default();
        let (manager, _) = bed
            .with(|builder| builder.ability::<splits>().ability::<echo>().observer(stored.clone()));
        let sent = manager.enqueue(splits::job(false)).expect("stored");
        let told = || stored.0.lock().expect("no panic").clone();
        if working {
            let working = manager.start().expect("starts");
            eventually("all are told", || told().len() == 3);
            working.stop();
        } else {
            run_all(&manager);
        }
        let told = told();
        assert_eq!((told.len(), Some(told[0])), (3, sent.id()));
    }
}

/// Its key may be held by another job by then. The run ends all the same.
pub fn a_replacement_whose_key_is_taken_is_not_told_as_stored(bed: &Bed) {
    for working in [false, true] {
        let stored = Stored::default();
        let (manager, _) =
            bed.with(|builder| builder.ability::<gives_way>().observer(stored.clone()));
        let first = bed.first();
        let later = Duration::from_secs(3_600);
        let holder = manager
            .enqueue(gives_way::job(2).database(first).uniqkey("taken").delay(later))
            .expect("stored");
        let sent = manager.enqueue(gives_way::job(1).database(first)).expect("stored");
        if working {
            let working = manager.start().expect("starts");
            sent.wait_as::<()>(DEADLINE).expect("ends");
            working.stop();
        } else {
            run_all(&manager);
        }
        // The two that were enqueued, and the replacement whose key was free.
        let told = stored.0.lock().expect("no panic").clone();
        assert_eq!(told.len(), 3, "{told:?}");
        let live = manager.jobs(&JobFilter::all(), &Paging::default());
        let live: Vec<_> =
            live.into_iter().flat_map(|on| on.answer.expect("answers")).map(|job| job.id).collect();
        assert!(
            told.iter().all(|id| Some(*id) == sent.id() || live.contains(id)),
            "{told:?}, {live:?}"
        );
        for id in live {
            assert!(manager.dequeue(id).expect("removes"));
        }
        assert!(holder.is_new());
    }
}

pub fn a_run_that_fails_replaces_nothing(bed: &Bed) {
    let (manager, log) = bed.with(|builder| builder.ability::<splits>().ability::<echo>());
    assert!(manager.enqueue(splits::job(true)).expect("stored").is_new());
    assert_eq!(run_all(&manager), 1);
    assert!(log.lines().is_empty());
}

pub fn a_job_may_be_replaced_by_one_with_the_same_key(bed: &Bed) {
    let (manager, log) = bed.manager::<again>();
    assert!(manager.enqueue(again::job(2).uniqkey("the only one")).expect("stored").is_new());
    assert_eq!(run_all(&manager), 3);
    assert_eq!(log.lines(), ["2 left", "1 left", "0 left"]);
    assert!(manager.holder("again", "the only one").expect("answers").is_none());
}

pub fn snooze_spends_no_attempt(bed: &Bed) {
    let (manager, log) = bed.manager::<sleepy>();
    let sent = manager.enqueue(sleepy::job()).expect("stored");
    assert_eq!(run_all(&manager), 3);
    assert_eq!(log.lines().len(), 3);
    assert_eq!(sent.wait_as::<u32>(Duration::from_secs(1)).expect("replies"), 1);
    assert!(exceptions(&manager).is_empty());
}

pub fn job_status_is_kept_on_request_and_only_then(bed: &Bed) {
    let (manager, _) = bed.with(|builder| builder.ability::<stumble>().ability::<other_echo>());
    let with = manager.enqueue(stumble::job(1).uniqkey("k")).expect("stored").id().expect("id");
    let without = manager.enqueue(other_echo::job("x".to_owned())).expect("stored");
    run_all(&manager);
    let rows = manager.job_status(with).expect("answers");
    let told: Vec<_> = rows.iter().map(|row| (&*row.status, row.attempt)).collect();
    assert_eq!(told, [("retried", 1), ("completed", 2)]);
    assert_eq!(rows[0].message.as_deref(), Some("stumbled at attempt 1"));
    for row in &rows {
        assert_eq!((row.job, &*row.ability, row.uniqkey.as_deref()), (with, "stumble", Some("k")));
        assert!(row.started_at <= row.finished_at && row.took() < Duration::from_secs(60));
    }
    assert!(manager.job_status(without.id().expect("id")).expect("answers").is_empty());
}

pub fn a_job_enqueues_more_through_its_manager(bed: &Bed) {
    let (manager, log) = bed.with(|builder| builder.ability::<parent>().ability::<echo>());
    assert!(manager.enqueue(parent::job()).expect("stored").is_new());
    eventually("parent and child ran", || {
        run_all(&manager);
        log.lines() == ["child"]
    });
}

#[qudo::ability(max_retries = 1, retry_delay = "300ms")]
fn soon_again(job: &Job) -> JobResult {
    job.plugin::<Log>()?.add(format!("attempt {}", job.attempt()));
    if job.attempt() == 1 { Err(JobError::fail("once")) } else { Ok(()) }
}

pub fn an_idle_worker_runs_a_retry_as_soon_as_it_is_due(bed: &Bed) {
    // Its next regular look is far away.
    let delay = Duration::from_secs(3600);
    let (manager, log) = bed.with(|builder| builder.ability::<soon_again>().delay(delay));
    let working = manager.start().expect("starts");
    let sent = manager.enqueue(soon_again::job()).expect("stored");
    sent.wait_as::<()>(DEADLINE).expect("runs again");
    assert_eq!(log.lines(), ["attempt 1", "attempt 2"]);
    working.stop();
}

/// More than a packet of MariaDB's may have by default, and less than the others take.
const LARGE: usize = 17 * 1024 * 1024;

pub fn an_argument_larger_than_a_server_takes_is_refused_and_the_database_stays_in_use(bed: &Bed) {
    let (manager, _) = bed.with(|builder| builder.ability::<echo>().max_arg_size(2 * LARGE));
    let large = echo::job("x".repeat(LARGE)).database(bed.first());
    if let Err(error) = manager.enqueue(large) {
        let engine = bed.driver().engine();
        assert!(!["memory", "sqlite", "postgres"].contains(&engine), "{error}");
        assert!(!error.is_down(), "{error}");
    }
    let reports = manager.database_reports();
    assert!(reports.iter().all(|one| one.state == DatabaseState::Up), "{reports:?}");
    assert!(manager.enqueue(echo::job("small".to_owned())).expect("stored").is_new());
}

#[qudo::ability]
fn talkative(job: &Job, bytes: usize) -> JobResult<String> {
    job.plugin::<Log>()?.add("ran");
    Ok("x".repeat(bytes))
}

pub fn an_end_that_cannot_be_stored_sends_the_job_to_the_exception_log(bed: &Bed) {
    let (manager, log) = bed.manager::<talkative>();
    let job = || talkative::job(LARGE).database(bed.first());
    let sent = manager.enqueue(job()).expect("stored");
    let outcome = manager.work_once().expect("settles").expect("there is one");
    let refused = matches!(outcome, Outcome::Discarded(_));
    let kept = exceptions(&manager).len();
    assert_eq!((sent.wait_as::<String>(DEADLINE).is_err(), kept), (refused, usize::from(refused)));
    let working = manager.start().expect("starts");
    let sent = manager.enqueue(job()).expect("stored");
    match sent.wait_as::<String>(DEADLINE) {
        Ok(reply) => assert_eq!(reply.len(), LARGE),
        Err(Error::JobFailed { message, .. }) => {
            assert!(message.contains("cannot be stored"), "{message}");
            let last = exceptions(&manager).remove(0);
            assert!(last.discarded && !last.facts.arg.is_empty(), "it can be enqueued again");
        }
        Err(error) => panic!("{error}"),
    }
    working.stop();
    assert_eq!(log.lines(), ["ran", "ran"], "the work of each is done once");
}
