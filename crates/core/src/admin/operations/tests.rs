//! Operations over databases that fail, forget their answers, and come back.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::{Operation, OperationReport, Verb};
use crate::driver::{
    Act, Audit, Deadline, Driver, DriverError, Due, ErrorKind, Inspect, JobRecord, Operate,
    Settlement, Step, Verdict, Work,
};
use crate::fixture::{memory, records};
use crate::manager::Manager;
use crate::memory::MemoryDriver;
use crate::testing::FaultyDriver;
use crate::tools::sync::Mutex;

const JOBS: usize = 1_200;

fn filled() -> Arc<MemoryDriver> {
    let driver = Arc::new(MemoryDriver::default());
    driver.insert(&records(JOBS), Deadline::NONE).expect("stored");
    driver
}

fn manager(one: Arc<dyn Driver>, two: Arc<dyn Driver>) -> Manager {
    Manager::builder().linked(false).driver("one", one).driver("two", two).build().expect("valid")
}

fn delete() -> Operation {
    Operation::on("".parse().expect("all"), Verb::Delete).rate(None)
}

fn run(manager: &Manager, operation: &Operation) -> OperationReport {
    manager.operate(operation, |_| ControlFlow::Continue(())).expect("can be begun")
}

fn left(driver: &dyn Driver) -> u64 {
    driver.depth(100_000).expect("answers").ready.count
}

#[test]
fn the_part_of_a_database_that_fails_is_not_done_and_is_gone_on_with() {
    let (one, two) = (filled(), filled());
    let fails = Arc::new(AtomicBool::new(true));
    let (still, slices) = (Arc::clone(&fails), AtomicU32::new(0));
    let faulty = FaultyDriver::new(Arc::clone(&two) as Arc<dyn Driver>).with_fault(move |call| {
        let third = call == "act" && slices.fetch_add(1, Ordering::AcqRel) == 2;
        if third && still.load(Ordering::Acquire) {
            return Err(DriverError::new(ErrorKind::Other, "the disk is full"));
        }
        Ok(())
    });
    let manager = manager(Arc::clone(&one) as Arc<dyn Driver>, Arc::new(faulty));
    let operation = delete().reason("no longer wanted").operator("ada");
    let report = run(&manager, &operation);
    assert!(!report.is_done());
    assert_eq!((left(&*one), left(&*two), report.counts().done), (0, 200, JOBS as u64 + 1_000));
    let failed = report.databases[1].error.as_ref().expect("the disk is full").to_string();
    assert!(failed.contains("two") && failed.contains("the disk is full"), "{failed}");
    fails.store(false, Ordering::Release);
    let again = manager.find_operation(operation.id()).expect("answers").expect("is stored");
    let report = run(&manager, &again);
    assert!(report.is_done());
    assert_eq!((left(&*two), report.counts().done), (0, 2 * JOBS as u64));
    let row = report.databases[1].row.as_ref().expect("done");
    let record = &row.record;
    assert_eq!((&*record.operator, &*record.reason), ("ada", "no longer wanted"));
    // What is done stays done.
    one.insert(&records(1), Deadline::NONE).expect("stored");
    assert_eq!(run(&manager, &again).counts().done, 2 * JOBS as u64);
    assert_eq!(left(&*one), 1);
}

#[test]
fn a_slice_whose_answer_was_lost_is_counted_once() {
    let (one, two) = (filled(), memory());
    let inside = Arc::clone(&one);
    let calls = AtomicU32::new(0);
    let place = Mutex::new(String::new());
    let operation = delete();
    let id = operation.id();
    // The first call of each slice is carried out, with its step, and its answer is lost.
    let faulty = FaultyDriver::new(Arc::clone(&one) as Arc<dyn Driver>).with_fault(move |call| {
        if call != "act" || calls.fetch_add(1, Ordering::AcqRel) % 2 == 1 {
            return Ok(());
        }
        let row = inside.operation(id).expect("answers").expect("is begun");
        let mut known = place.lock();
        let jobs = inside.traces(qudo_hooks::JobId::from_uuid(uuid::Uuid::nil()), 500);
        let jobs: Vec<_> = jobs.expect("answers").iter().map(|one| one.id).collect();
        if jobs.is_empty() {
            return Ok(());
        }
        let to = format!(r#"{{"pass":1,"at":"start","cut":{}}}"#, known.len());
        let step = Step { operation: id, from: &row.place, to: &to, ends: false };
        inside.act(&Act::Remove(None), &jobs, Some(&step)).expect("answers").expect("stands there");
        *known = to;
        let lost = DriverError::new(ErrorKind::Contention, "the answer was lost");
        Err(lost.ambiguous(true))
    });
    let manager = manager(Arc::new(faulty), two);
    let report = run(&manager, &operation);
    assert!(report.is_done(), "{:?}", report.databases);
    assert_eq!((left(&*one), report.counts().sum()), (0, JOBS as u64));
}

#[test]
fn a_limit_is_kept_and_without_all_answers_not_gone_on_with() {
    let (one, two) = (filled(), filled());
    let is_away = Arc::new(AtomicBool::new(false));
    let away = Arc::clone(&is_away);
    let faulty = FaultyDriver::new(Arc::clone(&two) as Arc<dyn Driver>).with_fault(move |_| {
        if away.load(Ordering::Acquire) {
            return Err(DriverError::new(ErrorKind::Other, "away"));
        }
        Ok(())
    });
    let manager = manager(Arc::clone(&one) as Arc<dyn Driver>, Arc::new(faulty));
    let operation = delete().limit(1_000).rate(Some(400));
    let mut slices = 0;
    let stop = |_: &_| {
        slices += 1;
        ControlFlow::Break(())
    };
    let report = manager.operate(&operation, stop).expect("can be begun");
    let done = 2 * JOBS as u64 - left(&*one) - left(&*two);
    assert!(!report.is_done() && done < 1_000 && slices > 0, "{done} of {slices} slices");
    is_away.store(true, Ordering::Release);
    let again = manager.find_operation(operation.id()).expect("one knows").expect("is stored");
    let refused = manager.operate(&again, |_| ControlFlow::Continue(()));
    let refused = refused.expect_err("the other's count is not known").to_string();
    assert!(refused.contains("limit") && refused.contains("two"), "{refused}");
    is_away.store(false, Ordering::Release);
    let report = run(&manager, &again);
    assert!(report.is_done());
    assert_eq!(report.counts().done, 1_000);
    assert_eq!(left(&*one) + left(&*two), 2 * JOBS as u64 - 1_000);
}

#[test]
fn another_operation_of_the_same_id_is_refused() {
    let manager = manager(filled(), memory());
    let operation = delete();
    run(&manager, &operation);
    let other =
        Operation { what: super::What::Jobs(Verb::Retry, "".parse().expect("all")), ..operation };
    let error = manager.operate(&other, |_| ControlFlow::Continue(())).expect_err("is another");
    assert!(error.to_string().contains("delete"), "{error}");
}

#[test]
fn each_job_is_told_of_once() {
    let manager = manager(filled(), filled());
    let (mut told, mut last) = (BTreeSet::new(), BTreeSet::new());
    let report = manager.operate(&delete(), |slice| {
        for one in &slice.treated {
            assert!(told.insert(one.job), "twice");
        }
        last.insert((slice.database.clone(), slice.counts.done));
        ControlFlow::Continue(())
    });
    assert!(report.expect("can be begun").is_done());
    assert_eq!(told.len(), 2 * JOBS);
    assert!(last.contains(&("one".to_owned(), JOBS as u64)));
}

/// Jobs that are scheduled.
fn scheduled(driver: &dyn Driver, count: usize) -> Vec<qudo_hooks::JobId> {
    let late = |job: &JobRecord| JobRecord { due: Due::In(HOUR), ..job.clone() };
    let jobs: Vec<_> = records(count).iter().map(late).collect();
    driver.insert(&jobs, Deadline::NONE).expect("stored");
    jobs.iter().map(|job| job.id).collect()
}

const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);

#[test]
fn a_job_that_moves_to_where_the_operation_was_already_is_met_all_the_same() {
    let one = Arc::new(MemoryDriver::default());
    one.insert(&records(300), Deadline::NONE).expect("stored");
    let late = scheduled(&*one, 300);
    let manager = manager(Arc::clone(&one) as Arc<dyn Driver>, memory());
    let operation = Operation::on("".parse().expect("all"), Verb::Prioritize(-3)).rate(Some(800));
    let mut moved = false;
    let report = manager.operate(&operation, |slice| {
        // The ready ones are done, and some of the others become due.
        if slice.counts.done >= 300 && !std::mem::replace(&mut moved, true) {
            let due = Act::Reschedule(Due::Now);
            one.act(&due, &late[250..], None).expect("answers");
        }
        ControlFlow::Continue(())
    });
    assert_eq!(report.expect("can be begun").counts().done, 600);
    let infos = one.jobs(&late, false).expect("answers");
    assert!(moved && infos.iter().all(|job| job.facts.priority == -3));
}

#[test]
fn a_job_that_fails_again_meanwhile_is_retried_once() {
    let one = Arc::new(MemoryDriver::default());
    one.insert(&records(400), Deadline::NONE).expect("stored");
    let worker = crate::fixture::worker();
    one.heartbeat(&worker).expect("beats");
    let claims = std::cell::Cell::new(0);
    let fail_all = || loop {
        claims.set(claims.get() + 1);
        let jobs = crate::fixture::claim(&*one, &worker, claims.get());
        if jobs.is_empty() {
            return;
        }
        let again = Verdict::Retry(HOUR);
        let end = |job| Settlement { job: Box::new(job), verdict: again, extras: None };
        let ends: Vec<_> = jobs.into_iter().map(end).collect();
        one.settle(worker.id, &ends).expect("settles");
    };
    fail_all();
    let manager = manager(Arc::clone(&one) as Arc<dyn Driver>, memory());
    let operation = Operation::on("".parse().expect("all"), Verb::Retry).rate(Some(400));
    let report = manager.operate(&operation, |_| {
        fail_all();
        ControlFlow::Continue(())
    });
    assert_eq!(report.expect("can be begun").counts().done, 400);
    fail_all();
    assert_eq!(one.depth(1_000).expect("answers").scheduled.count, 400);
}

#[test]
fn jobs_that_were_enqueued_after_it_was_asked_for_are_not_meant_where_it_is_begun_later() {
    let one = filled();
    let manager = manager(Arc::clone(&one) as Arc<dyn Driver>, memory());
    let operation = Operation { asked_at: crate::tools::time::utc_now() - HOUR, ..delete() };
    assert_eq!(run(&manager, &operation).counts().done, 0);
    assert_eq!(left(&*one), JOBS as u64);
}

#[test]
fn what_is_in_the_way_in_one_database_is_left_for_the_others() {
    let (one, two) = (filled(), filled());
    let worker = crate::fixture::worker();
    one.heartbeat(&worker).expect("beats");
    let runs = crate::fixture::claim(&*one, &worker, 1).len() as u64;
    assert!(runs > 5);
    let manager = manager(Arc::clone(&one) as Arc<dyn Driver>, Arc::clone(&two) as Arc<dyn Driver>);
    let operation = Operation::on("state:running".parse().expect("a filter"), Verb::Delete);
    let counts = run(&manager, &operation.limit(5).rate(None)).counts();
    assert_eq!((counts.done, counts.conflicts), (0, runs), "all are told, none is done");
    let report = run(&manager, &delete().limit(2_000));
    assert_eq!((report.counts().done, report.is_done()), (2_000, true));
    assert_eq!(left(&*one) + left(&*two), 2 * JOBS as u64 - 2_000 - runs);
}

#[test]
fn a_redrive_with_a_limit_passes_over_what_is_in_its_way() {
    let one = Arc::new(MemoryDriver::default());
    let keyed = |n: usize, job: &JobRecord| {
        let mut job = job.clone();
        job.facts.uniqkey = Some(format!("k{n}"));
        job
    };
    let jobs: Vec<_> = records(60).iter().enumerate().map(|(n, job)| keyed(n, job)).collect();
    one.insert(&jobs, Deadline::NONE).expect("stored");
    let worker = crate::fixture::worker();
    one.heartbeat(&worker).expect("beats");
    let failed = |job| {
        let exception =
            Some(crate::driver::ExceptionRecord::new(qudo_hooks::FailureKind::Error, "no"));
        let extras = crate::driver::Extras { exception, ..Default::default() };
        let extras = Some(Box::new(extras));
        Settlement { job: Box::new(job), verdict: Verdict::Discard, extras }
    };
    let ends: Vec<_> = crate::fixture::claim(&*one, &worker, 1).into_iter().map(failed).collect();
    assert_eq!(ends.len(), 60);
    one.settle(worker.id, &ends).expect("settles");
    // The keys of the last ones, which come first, are taken again.
    let again: Vec<_> =
        records(60).iter().enumerate().map(|(n, job)| keyed(n, job)).skip(50).collect();
    one.insert(&again, Deadline::NONE).expect("stored");
    let manager = manager(Arc::clone(&one) as Arc<dyn Driver>, memory());
    let operation = Operation::redrive(crate::filter::ExceptionFilter::all()).limit(20).rate(None);
    let counts = run(&manager, &operation).counts();
    assert_eq!((counts.done, counts.conflicts), (20, 10));
}

#[test]
fn what_a_database_that_refuses_was_to_do_is_left_for_the_others() {
    let (one, two) = (filled(), filled());
    let refuses = FaultyDriver::new(Arc::clone(&one) as Arc<dyn Driver>).with_fault(|call| {
        let refused = || DriverError::new(ErrorKind::Permission, "may not");
        if call == "act" { Err(refused()) } else { Ok(()) }
    });
    let manager = manager(Arc::new(refuses), Arc::clone(&two) as Arc<dyn Driver>);
    let report = run(&manager, &delete().limit(700));
    assert!(!report.is_done());
    assert_eq!((report.counts().done, left(&*two)), (700, JOBS as u64 - 700));
}
