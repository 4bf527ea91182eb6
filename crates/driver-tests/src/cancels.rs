use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use qudo::admin::{ExceptionFilter, Paging, Reason};
use qudo::driver::{Acted, Driver, JobState, Settlement, Verdict, WorkerId};
use qudo::hook::{FailureKind, Hook, JobView, Outcome};
use qudo::{Error, Job, JobError, JobId, JobResult, Manager, Ticket};

use crate::abilities::{echo, give_up};
use crate::session::claim_as_stranger;
use crate::work::exceptions;
use crate::{Bed, DEADLINE, Log, eventually, run_all};

/// Runs until it is cancelled, or may end.
#[qudo::ability(max_retries = 3, retry_delay = "0s", job_status = true)]
fn endures(job: &Job, arg: String) -> JobResult<String> {
    let ends = job.plugin::<MayEnd>()?;
    job.plugin::<Log>()?.add(arg.clone());
    while !ends.0.load(Ordering::SeqCst) {
        if ends.1 && job.is_cancelled() {
            let why = job.cancel_reason().unwrap_or_default();
            return Err(JobError::fail(format!("gave up: {why}")));
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    Ok(arg)
}

/// Whether the job may end, and whether it listens.
#[derive(Debug, Clone, Default)]
struct MayEnd(Arc<AtomicBool>, bool);

impl MayEnd {
    fn now(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What hooks are told.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn lines(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }

    fn note(&self, line: String) {
        self.0.lock().expect("no panic").push(line);
    }
}

impl Hook for Heard {
    fn name(&self) -> &'static str {
        "heard"
    }

    fn on_failure(
        &self,
        _: &JobView<'_>,
        failure: &qudo::hook::Failure,
        _: &mut qudo::hook::Decision,
    ) -> Result<(), qudo::hook::HookError> {
        self.note(format!("failed {}", failure.kind()));
        Ok(())
    }

    fn post_settle(&self, _: &JobView<'_>, outcome: &Outcome) {
        self.note(format!("settled {}", outcome.as_str()));
    }

    fn post_cancel(&self, job: &JobView<'_>, reason: &str) {
        self.note(format!("cancelled {} {:?} for {reason}", job.ability(), job.uniqkey()));
    }
}

fn manager(bed: &Bed, listens: bool) -> (Manager, Log, Heard, MayEnd) {
    let (heard, ends) = (Heard::default(), MayEnd(Arc::default(), listens));
    let (hook, plugin) = (heard.clone(), ends.clone());
    let (manager, log) = bed.with(|builder| {
        builder
            .ability::<endures>()
            .ability::<echo>()
            .workers(1)
            .hook(hook)
            .heartbeat(Duration::from_millis(300), DEADLINE)
            .plugin(plugin)
    });
    (manager, log, heard, ends)
}

/// Stored in the first database.
fn sent(manager: &Manager, bed: &Bed, arg: &str) -> Ticket<String> {
    let job = endures::job(arg.to_owned()).database(bed.first()).uniqkey(arg);
    manager.enqueue(job).expect("stored").ticket().expect("is new").clone()
}

fn cancelled(ticket: &Ticket<String>) -> String {
    match ticket.wait(DEADLINE) {
        Err(Error::JobCancelled { job, reason }) => {
            assert_eq!(job, ticket.id());
            reason
        }
        other => panic!("{other:?}"),
    }
}

/// Nothing of it lives, and of its failures there is but the one that says that it was cancelled.
fn is_over(manager: &Manager, id: JobId, key: &str) {
    assert!(manager.lookup(id).expect("answers").is_none());
    assert!(manager.holder("endures", key).expect("answers").is_none(), "its key is free");
    let rows = exceptions(manager);
    let of_it: Vec<_> = rows.iter().filter(|row| row.job == id).collect();
    assert_eq!(of_it.len(), 1, "{of_it:?}");
    let row = of_it[0];
    assert_eq!((row.kind, row.discarded), (FailureKind::Cancelled, true));
    assert_eq!(row.facts.uniqkey.as_deref(), Some(key));
    assert_eq!(row.facts.arg, serde_json::to_vec(key).expect("a text"));
    let groups = manager.failures(&ExceptionFilter::all(), 1_000).into_iter();
    let groups: Vec<_> = groups.flat_map(|on| on.answer.expect("answers").groups).collect();
    assert!(groups.is_empty(), "a cancel is no failure: {groups:?}");
    let found: ExceptionFilter = "kind:cancelled".parse().expect("a filter");
    assert_eq!(manager.exceptions(&found, &Paging::default()).rows().count(), rows.len());
}

pub fn a_waiting_job_that_is_cancelled_ends_at_once_and_can_be_enqueued_again(bed: &Bed) {
    let (manager, log, heard, ends) = manager(bed, true);
    let ready = sent(&manager, bed, "ready");
    let later = endures::job("later".to_owned()).database(bed.first()).uniqkey("later");
    let later = manager.enqueue(later.delay(Duration::from_secs(3_600))).expect("stored");
    for (id, key) in [(ready.id(), "ready"), (later.id().expect("new"), "later")] {
        assert_eq!(manager.cancel(id, " no longer\nwanted ").expect("answers"), Acted::Done);
        assert_eq!(manager.cancel(id, "again").expect("answers"), Acted::Gone);
        is_over(&manager, id, key);
        let reason = manager.why(id).expect("answers").reason;
        let expected = Reason::Cancelled { reason: "no longerwanted".into(), redriven_as: None };
        assert_eq!(reason, expected);
    }
    assert_eq!(cancelled(&ready), "no longerwanted");
    assert_eq!(
        heard.lines(),
        ["ready", "later"].map(|key| format!("cancelled endures {:?} for no longerwanted", Some(key)))
    );
    let row = exceptions(&manager).into_iter().find(|row| row.job == ready.id());
    let again = manager.redrive(row.expect("is there").id).expect("is kept");
    ends.now();
    assert_eq!(run_all(&manager), 1);
    assert_eq!((again.wait_as::<String>(DEADLINE).expect("runs"), log.lines()), ("ready".into(), vec!["ready".to_owned()]));
}

pub fn a_running_job_is_told_and_is_cancelled_when_it_gives_up(bed: &Bed) {
    let (manager, log, heard, _) = manager(bed, true);
    let ticket = sent(&manager, bed, "it");
    let working = manager.start().expect("starts");
    eventually("it runs", || log.lines() == ["it"]);
    // From another process.
    let (other, ..) = self::manager(bed, true);
    assert_eq!(other.cancel(ticket.id(), "wrong").expect("answers"), Acted::Asked);
    assert_eq!(cancelled(&ticket), "wrong");
    is_over(&manager, ticket.id(), "it");
    let expected = ["settled cancelled", "cancelled endures Some(\"it\") for wrong"];
    eventually("hooks are told", || heard.lines() == expected);
    let history = manager.job_status(ticket.id()).expect("answers");
    let told: Vec<_> = history.iter().map(|row| (&*row.status, row.message.as_deref())).collect();
    assert_eq!(told, [("cancelled", Some("wrong"))]);
    working.stop();
    assert_eq!(log.lines(), ["it"], "it did not run again");
}

pub fn a_running_job_that_completes_all_the_same_is_completed(bed: &Bed) {
    let (manager, log, heard, ends) = manager(bed, false);
    let ticket = sent(&manager, bed, "it");
    let working = manager.start().expect("starts");
    eventually("it runs", || log.lines() == ["it"]);
    assert_eq!(manager.cancel(ticket.id(), "wrong").expect("answers"), Acted::Asked);
    assert_eq!(manager.cancel(ticket.id(), "twice").expect("answers"), Acted::AskedBefore);
    let told = manager.why(ticket.id()).expect("answers");
    assert!(matches!(told.reason, Reason::Running { .. }), "{:?}", told.reason);
    assert_eq!(told.cancelling.as_deref(), Some("wrong"), "the first reason stays");
    ends.now();
    assert_eq!(ticket.wait(DEADLINE).expect("completed"), "it");
    eventually("hooks are told", || heard.lines() == ["settled completed"]);
    working.stop();
}

pub fn a_job_that_is_cancelled_before_its_thread_begins_it_does_not_run(bed: &Bed) {
    let (manager, log, _, ends) = manager(bed, false);
    let first = sent(&manager, bed, "first");
    let second = sent(&manager, bed, "second");
    let working = manager.start().expect("starts");
    eventually("the first runs", || log.lines() == ["first"]);
    let runs = || {
        let job = manager.lookup(second.id()).expect("answers");
        job.is_some_and(|(_, job)| matches!(job.state, JobState::Running { .. }))
    };
    // It was claimed with the first, and goes back when no thread began it; it is cancelled in either place.
    let acted = manager.cancel(second.id(), "late").expect("answers");
    assert!(acted.is_done(), "{acted:?}");
    if acted == Acted::Asked {
        eventually("it goes back, or ends", || !runs());
    }
    ends.now();
    assert_eq!(cancelled(&second), "late");
    assert_eq!(first.wait(DEADLINE).expect("completed"), "first");
    working.stop();
    assert_eq!(log.lines(), ["first"]);
}

pub fn a_job_that_does_not_listen_is_ended_by_force(bed: &Bed) {
    let (manager, log, heard, ends) = manager(bed, false);
    let ticket = sent(&manager, bed, "it");
    let working = manager.start().expect("starts");
    eventually("it runs", || log.lines() == ["it"]);
    assert_eq!(manager.cancel(ticket.id(), "please").expect("answers"), Acted::Asked);
    assert_eq!(manager.cancel_by_force(ticket.id(), "hangs").expect("answers"), Acted::Done);
    assert_eq!(cancelled(&ticket), "hangs", "while its run goes on");
    is_over(&manager, ticket.id(), "it");
    let worker = exceptions(&manager)[0].worker_name.clone();
    assert!(worker.is_some_and(|name| !name.is_empty()), "it says who ran it");
    assert_eq!(heard.lines(), ["cancelled endures Some(\"it\") for hangs"]);
    // Its key is free for another.
    let next = sent(&manager, bed, "it");
    ends.now();
    assert_eq!(next.wait(DEADLINE).expect("completed"), "it");
    eventually("the end of the run comes to nothing", || working.lost_leases() == 1);
    working.stop();
    assert_eq!(manager.cancel_by_force(ticket.id(), "hangs").expect("answers"), Acted::Gone);
}

fn orders(driver: &dyn Driver, worker: WorkerId) -> Vec<(JobId, i64, String)> {
    let orders = driver.cancels(worker).expect("answers").into_iter();
    orders.map(|order| (order.job, order.claim, order.reason)).collect()
}

pub fn a_job_whose_order_outlived_its_run_ends_before_the_next(bed: &Bed) {
    let (manager, log, heard, _) = manager(bed, true);
    let ticket = sent(&manager, bed, "it");
    let (worker, claimed) = claim_as_stranger(bed, "endures", 10);
    assert_eq!(claimed.len(), 1);
    assert_eq!(manager.cancel(ticket.id(), "wrong").expect("answers"), Acted::Asked);
    let driver = bed.driver();
    assert_eq!(orders(&*driver, worker), [(ticket.id(), claimed[0].claim, "wrong".to_owned())]);
    assert!(orders(&*driver, WorkerId::new()).is_empty(), "of other workers");
    assert!(driver.open_cancels(10).expect("answers").is_empty());
    // It dies, and the job is taken back.
    driver.remove_worker(worker).expect("gives back");
    assert_eq!(driver.open_cancels(10).expect("answers"), [(ticket.id(), "wrong".to_owned())]);
    let working = manager.start().expect("starts");
    assert_eq!(cancelled(&ticket), "wrong");
    eventually("the order is gone", || driver.open_cancels(10).expect("answers").is_empty());
    is_over(&manager, ticket.id(), "it");
    working.stop();
    // Cleaned up, or claimed and told: the ability gave up, or did not begin.
    assert!(log.lines().len() <= 1, "{:?}", log.lines());
    let told = heard.lines().into_iter().filter(|line| line.starts_with("cancelled")).count();
    assert_eq!(told, 1);
}

pub fn a_job_that_is_to_end_stays_where_its_order_is(bed: &Bed) {
    let (manager, ..) = manager(bed, true);
    let [ticket, other] = ["it", "other"].map(|arg| sent(&manager, bed, arg));
    let (worker, claimed) = claim_as_stranger(bed, "endures", 1);
    assert_eq!(claimed[0].id, ticket.id());
    manager.cancel(ticket.id(), "wrong").expect("answers");
    let driver = bed.driver();
    driver.remove_worker(worker).expect("gives back");
    let departure = uuid::Uuid::now_v7();
    let these = [ticket.id(), other.id()];
    let moved = driver.move_out("elsewhere", departure, Some(&these), 10).expect("answers");
    assert_eq!(moved.iter().map(|job| job.record.id).collect::<Vec<_>>(), [other.id()]);
    let moved = driver.move_out("elsewhere", departure, None, 10).expect("answers");
    assert!(moved.is_empty(), "the other one left, and it stays");
    // A job on its way is left alone.
    assert_eq!(manager.cancel(other.id(), "late").expect("answers"), Acted::Moving);
    assert_eq!(manager.cancel(ticket.id(), "again").expect("answers"), Acted::Done);
    assert!(driver.open_cancels(10).expect("answers").is_empty());
}

pub fn an_order_for_a_job_that_ended_is_forgotten(bed: &Bed) {
    let (manager, log, _, ends) = manager(bed, false);
    let ticket = sent(&manager, bed, "it");
    let working = manager.start().expect("starts");
    eventually("it runs", || log.lines() == ["it"]);
    assert_eq!(manager.cancel(ticket.id(), "wrong").expect("answers"), Acted::Asked);
    ends.now();
    assert_eq!(ticket.wait(DEADLINE).expect("completed"), "it");
    let driver = bed.driver();
    eventually("the order is gone", || driver.open_cancels(10).expect("answers").is_empty());
    working.stop();
    assert!(exceptions(&manager).is_empty());
}

pub fn a_job_of_which_no_database_knows_is_gone(bed: &Bed) {
    let (manager, _, heard, _) = manager(bed, true);
    assert_eq!(manager.cancel(JobId::new(), "wrong").expect("answers"), Acted::Gone);
    assert_eq!(manager.cancel_by_force(JobId::new(), "wrong").expect("answers"), Acted::Gone);
    let error = manager.cancel(JobId::new(), " \n ").expect_err("for no reason");
    assert!(error.is_invalid(), "{error}");
    assert!(heard.lines().is_empty());
}

pub fn a_ticket_follows_a_job_that_is_enqueued_again(bed: &Bed) {
    let (manager, _) = bed.with(|builder| builder.ability::<give_up>().ability::<endures>().plugin(MayEnd::default()));
    let sent = manager.enqueue(give_up::job().database(bed.first())).expect("stored");
    let ticket = sent.ticket().expect("is new").clone();
    run_all(&manager);
    assert!(matches!(ticket.wait(Duration::ZERO), Err(Error::JobFailed { .. })));
    let again = manager.redrive(exceptions(&manager)[0].id).expect("is kept");
    let waits = ticket.wait(Duration::ZERO).expect_err("it waits again");
    assert!(matches!(waits, Error::WaitTimeout { job, .. } if job == again.id()), "{waits}");
    let bare = manager.ticket(ticket.id());
    assert!(matches!(bare.check(), Ok(qudo::Standing::Waiting(JobState::Ready))));
    manager.cancel(again.id(), "enough").expect("answers");
    for ticket in [ticket.typed(), bare] {
        let error = ticket.wait(DEADLINE).expect_err("it was cancelled");
        assert!(matches!(error, Error::JobCancelled { job, .. } if job == again.id()), "{error}");
    }
}

pub fn an_order_is_not_for_a_later_job_of_the_same_id(bed: &Bed) {
    let (manager, _, _, ends) = manager(bed, false);
    ends.now();
    let ticket = sent(&manager, bed, "it");
    let (worker, claimed) = claim_as_stranger(bed, "endures", 1);
    assert_eq!(manager.cancel(ticket.id(), "wrong").expect("answers"), Acted::Asked);
    let driver = bed.driver();
    let end = |job| Settlement { job: Box::new(job), verdict: Verdict::Complete, extras: None };
    let ends: Vec<_> = claimed.into_iter().map(end).collect();
    driver.settle(worker, &ends).expect("settles");
    let again = endures::job("again".to_owned()).with_id(ticket.id()).database(bed.first());
    assert!(manager.enqueue(again).expect("stored").is_new());
    assert!(driver.open_cancels(10).expect("answers").is_empty());
    let (worker, claimed) = claim_as_stranger(bed, "endures", 1);
    assert_eq!((claimed.len(), orders(&*driver, worker)), (1, Vec::new()));
    // It can be cancelled itself, for a reason of its own.
    assert_eq!(manager.cancel(ticket.id(), "this too").expect("answers"), Acted::Asked);
    let told = orders(&*driver, worker);
    assert_eq!(told, [(ticket.id(), claimed[0].claim, "this too".to_owned())]);
}

pub fn an_order_is_carried_out_where_jobs_are_worked_one_by_one(bed: &Bed) {
    let (manager, log, _, ends) = manager(bed, true);
    ends.now();
    let ticket = sent(&manager, bed, "it");
    let (worker, _) = claim_as_stranger(bed, "endures", 1);
    assert_eq!(manager.cancel(ticket.id(), "wrong").expect("answers"), Acted::Asked);
    bed.driver().remove_worker(worker).expect("gives back");
    while manager.work_once().expect("works").is_some() {}
    assert_eq!((cancelled(&ticket), log.lines()), ("wrong".to_owned(), Vec::<String>::new()));
}
