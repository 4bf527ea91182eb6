//! One job, run by its id.

use std::time::Duration;

use qudo::admin::JobState;
use qudo::driver::{JobClaim, Part, Settled, Settlement, Verdict};
use qudo::hook::Outcome;
use qudo::{Error, Job, JobId, JobResult, NewJob};

use crate::abilities::{echo, other_echo, stumble};
use crate::contract::{HOUR, beating, insert, record};
use crate::session::claim_as_stranger;
use crate::work::exceptions;
use crate::{Bed, Log};

pub fn a_job_is_run_by_its_id_whatever_its_time_and_whatever_is_paused(bed: &Bed) {
    let (manager, log) = bed.with(|builder| builder.ability::<echo>().ability::<other_echo>());
    let later = echo::job("later".to_owned()).delay(HOUR).database(bed.first());
    let later = manager.enqueue(later).expect("stored").id().expect("new");
    let other = other_echo::job("now".to_owned()).database(bed.first());
    let other = manager.enqueue(other).expect("stored").id().expect("new");
    let before = manager.enqueue(echo::job("before".to_owned()).database(bed.first()));
    let before = before.expect("stored").id().expect("new");
    manager.pause(bed.first()).expect("paused");
    manager.pause_part(&Part::Queue("other".to_owned()), None, "a test").expect("paused");
    assert!(manager.work_once().expect("answers").is_none(), "nothing runs");
    for id in [later, other] {
        assert!(matches!(manager.run_job(id), Ok(Outcome::Completed)), "{id}");
        assert!(manager.lookup(id).expect("answers").is_none(), "it is done");
    }
    assert_eq!(log.lines(), ["later", "other now"]);
    assert!(manager.lookup(before).expect("answers").is_some(), "no other was touched");
    assert!(bed.driver().workers().expect("answers").is_empty(), "it leaves no row behind");
}

pub fn a_run_by_hand_that_fails_is_one_like_any_other(bed: &Bed) {
    let (manager, _) = bed.manager::<stumble>();
    let id = manager.enqueue(stumble::job(2)).expect("stored").id().expect("new");
    assert!(matches!(manager.run_job(id), Ok(Outcome::Retried(..))));
    let (_, job) = manager.lookup(id).expect("answers").expect("lives");
    assert_eq!((job.state, job.attempt), (JobState::Ready, 1));
    assert_eq!(exceptions(&manager).len(), 1);
    assert!(matches!(manager.run_job(id), Ok(Outcome::Retried(..))));
    assert!(matches!(manager.run_job(id), Ok(Outcome::Completed)));
}

pub fn a_job_that_does_not_wait_cannot_be_run_and_it_is_said_why(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    let refusal = |id: JobId| match manager.run_job(id) {
        Err(Error::NotRunnable { job, reason }) if job == id => reason,
        other => panic!("{other:?}"),
    };
    assert!(refusal(JobId::new()).contains("no database has it"));
    let unknown = NewJob::named("nobody does this", 1.into());
    let unknown = manager.enqueue(unknown).expect("stored").id().expect("new");
    assert!(refusal(unknown).contains("no ability"), "{}", refusal(unknown));
    assert!(manager.lookup(unknown).expect("answers").is_some(), "it stays");
    let runs = manager.enqueue(echo::job("x".to_owned()).database(bed.first()));
    let runs = runs.expect("stored").id().expect("new");
    let (worker, claimed) = claim_as_stranger(bed, "echo", 1);
    assert_eq!(claimed[0].id, runs);
    assert!(refusal(runs).contains(&worker.to_string()), "{}", refusal(runs));
    assert!(log.lines().is_empty());
    let settlement = Settlement { job: Box::new(claimed[0].clone()), verdict: Verdict::Complete, extras: None };
    let settled = bed.driver().settle(worker, &[settlement]).expect("answers");
    assert_eq!(settled, [Settled::Done], "its lease was left alone");
    bed.driver().remove_worker(worker).expect("answers");
}

pub fn a_claim_by_id_is_the_same_however_often_it_is_asked_and_can_be_released(bed: &Bed) {
    let driver = &*bed.driver();
    let (one, other) = (beating(driver), beating(driver));
    let job = record("a", Some("k"));
    insert(driver, &[record("a", None), job.clone()]);
    let deadline = qudo::driver::Deadline::NONE;
    let claim = |worker, number| {
        let claim = JobClaim { worker, claim: number, job: job.id, grab_for: HOUR, deadline };
        driver.claim_job(&claim).expect("answers")
    };
    let first = claim(one.id, 7).expect("waits");
    assert_eq!((first.id, first.attempt, first.claim), (job.id, 1, 7));
    assert_eq!((&first.facts.uniqkey, &first.facts.arg), (&job.facts.uniqkey, &job.facts.arg));
    assert_eq!(first.flags, job.facts.flags());
    let again = claim(one.id, 7).expect("the same lease");
    assert_eq!((again.id, again.attempt), (job.id, 1));
    assert!(claim(one.id, 8).is_none() && claim(other.id, 7).is_none(), "it is leased");
    let until = match driver.state(job.id).expect("answers") {
        Some(JobState::Running { worker, until }) if worker == one.id => until,
        state => panic!("{state:?}"),
    };
    let left = (until - chrono::Utc::now()).to_std().expect("in the future");
    assert!(left > HOUR / 2 && left < HOUR * 2, "{left:?}");
    assert_eq!(driver.release_claim(one.id, 7).expect("answers"), 1);
    let anew = claim(other.id, 1).expect("waits");
    assert_eq!(anew.attempt, 1, "the attempt was not spent");
    // Nothing is leased after the deadline.
    assert_eq!(driver.release_claim(other.id, 1).expect("answers"), 1);
    let late = JobClaim {
        worker: one.id,
        claim: 9,
        job: job.id,
        grab_for: HOUR,
        deadline: qudo::driver::Deadline::within(Duration::ZERO),
    };
    driver.claim_job(&late).expect_err("it is too late");
    assert_eq!(driver.state(job.id).expect("answers"), Some(JobState::Ready));
    let anew = claim(other.id, 2).expect("waits");
    let settlement = Settlement { job: Box::new(anew), verdict: Verdict::Complete, extras: None };
    assert_eq!(driver.settle(other.id, &[settlement]).expect("answers"), [Settled::Done]);
    assert!(driver.state(job.id).expect("answers").is_none());
}

pub fn two_who_run_one_job_at_once_run_it_once(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    for round in 0..5 {
        let job = echo::job(round.to_string()).database(bed.first());
        let id = manager.enqueue(job).expect("stored").id().expect("new");
        let (left, right) = std::thread::scope(|scope| {
            let other = scope.spawn(|| manager.run_job(id));
            (manager.run_job(id), other.join().expect("no panic"))
        });
        let done = |one: &Result<Outcome, Error>| matches!(one, Ok(Outcome::Completed));
        let refused = |one: &Result<Outcome, Error>| matches!(one, Err(Error::NotRunnable { .. }));
        assert!(
            (done(&left) && refused(&right)) || (refused(&left) && done(&right)),
            "{left:?} {right:?}"
        );
    }
    assert_eq!(log.lines().len(), 5);
}

pub fn a_job_that_is_to_end_is_not_run_by_hand(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    let job = echo::job("x".to_owned()).database(bed.first());
    let id = manager.enqueue(job).expect("stored").id().expect("new");
    let (worker, claimed) = claim_as_stranger(bed, "echo", 1);
    assert_eq!(claimed[0].id, id);
    manager.cancel(id, "enough").expect("is told");
    // Its worker dies, and the order is left.
    bed.driver().remove_worker(worker).expect("gives back");
    assert!(matches!(manager.run_job(id), Err(Error::NotRunnable { .. })));
    assert!(log.lines().is_empty() && manager.lookup(id).expect("answers").is_none());
}

#[qudo::ability]
fn loses(job: &Job) -> JobResult {
    let cut = job.plugin::<Log>()?;
    cut.add("runs");
    // Somebody cuts it loose while it runs.
    let reason = "cut loose";
    job.manager().cancel_by_force(job.id(), reason).map(drop)?;
    Ok(())
}

pub fn a_run_whose_lease_was_lost_is_told_as_such(bed: &Bed) {
    let (manager, log) = bed.manager::<loses>();
    let id = manager.enqueue(loses::job().database(bed.first())).expect("stored").id().expect("new");
    let lost = manager.run_job(id).expect_err("it changed nothing");
    assert!(matches!(lost, Error::LeaseLost { job } if job == id), "{lost}");
    assert_eq!(log.lines(), ["runs"]);
}
