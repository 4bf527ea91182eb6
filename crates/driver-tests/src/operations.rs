use std::ops::ControlFlow;
use std::sync::Barrier;
use std::time::Duration;

use qudo::admin::{
    ExceptionFilter, JobFilter, Operation, OperationReport, Paging, Preview, Treated, Verb,
};
use qudo::driver::{
    Act, Acted, Counts, Driver, Due, Ending, ExceptionId, ExceptionRecord, Extras,
    JobRecord, JobState, OperationId, OperationRecord, Keep, Redrive, Settlement, Step, Verdict,
};
use qudo::hook::FailureKind;
use qudo::{Error, JobId, Manager};

use crate::abilities::{echo, give_up};
use crate::session::claim_as_stranger;
use crate::work::exceptions;
use crate::{Bed, run_all};
use crate::contract::{HOUR, beating, claim, insert, record};

/// So many that each statement over them is made more than once.
const MANY: usize = 333;

fn act(driver: &dyn Driver, act: &Act, jobs: &[JobId]) -> Vec<Acted> {
    driver.act(act, jobs, None).expect("answers").expect("without a step")
}

fn all_of(acted: Acted) -> Vec<Acted> {
    vec![acted; MANY]
}

fn ids(jobs: &[JobRecord]) -> Vec<JobId> {
    jobs.iter().map(|job| job.id).collect()
}

/// Jobs of the ability "a" with keys, every other one scheduled, in no order.
fn stored(driver: &dyn Driver) -> Vec<JobRecord> {
    let job = |n: usize| {
        let mut job = record("a", Some(&format!("k{n}")));
        if n % 2 == 1 {
            job.due = Due::In(HOUR);
        }
        job
    };
    let mut jobs: Vec<_> = (0..MANY).map(job).collect();
    insert(driver, &jobs);
    jobs.reverse();
    jobs
}

pub fn jobs_that_wait_are_changed_many_at_a_time_and_each_is_answered(bed: &Bed) {
    let driver = &*bed.driver();
    let depth = || {
        let depth = driver.depth(10_000).expect("counts");
        (depth.ready.count as usize, depth.scheduled.count as usize)
    };
    let jobs = ids(&stored(driver));
    let now = Act::Reschedule(Due::Now);
    assert_eq!(act(driver, &now, &jobs), all_of(Acted::Done));
    assert_eq!(depth(), (MANY, 0));
    let later = Act::Reschedule(Due::In(HOUR));
    assert_eq!(act(driver, &later, &jobs), all_of(Acted::Done));
    assert_eq!(depth(), (0, MANY));
    assert_eq!(act(driver, &Act::Prioritize(7), &jobs), all_of(Acted::Done));
    assert_eq!(act(driver, &Act::Requeue("fast".into()), &jobs), all_of(Acted::Done));
    assert_eq!(depth(), (0, MANY), "they stay where they were");
    let job = driver.lookup(jobs[0]).expect("answers").expect("lives");
    assert_eq!((job.facts.priority, &*job.facts.queue), (7, "fast"));
    act(driver, &Act::Requeue("default".into()), &jobs);
    act(driver, &now, &jobs);
    // Those that run, that are on their way, that are not there.
    let worker = beating(driver);
    let running: Vec<_> = claim(driver, &worker, HOUR).iter().map(|job| job.id).collect();
    assert_eq!(running.len(), MANY);
    let gone = JobId::new();
    let moving = record("a", None);
    insert(driver, std::slice::from_ref(&moving));
    driver.move_out("elsewhere", uuid::Uuid::now_v7(), None, 1).expect("answers");
    let waits = record("a", Some("waits"));
    insert(driver, std::slice::from_ref(&waits));
    let these = [gone, running[5], waits.id, moving.id];
    for verb in [&now, &later, &Act::Prioritize(1), &Act::Requeue("x".into()), &Act::Remove(None)] {
        let answers = act(driver, verb, &these);
        let expected = [Acted::Gone, Acted::Running, Acted::Done, Acted::Moving];
        assert_eq!(answers, expected, "{verb:?}");
    }
    assert!(driver.lookup(waits.id).expect("answers").is_none());
    assert_eq!(driver.holder("a", "waits").expect("answers"), None);
    assert_eq!(driver.remains(waits.id).expect("answers").ending, None, "it leaves nothing");
    // Given back, all can be removed, and leave their endings.
    driver.remove_worker(worker.id).expect("gives back");
    let remove = Act::Remove(Some(Ending::Removed));
    assert_eq!(act(driver, &remove, &jobs), all_of(Acted::Done));
    assert_eq!(act(driver, &remove, &jobs), all_of(Acted::Gone));
    assert_eq!(depth(), (0, 0));
    for job in [jobs[0], jobs[MANY - 1]] {
        assert_eq!(driver.remains(job).expect("answers").ending, Some(Ending::Removed));
    }
    assert_eq!(driver.holder("a", "k3").expect("answers"), None);
}

pub fn a_changed_priority_or_queue_is_that_of_the_next_claim(bed: &Bed) {
    let driver = &*bed.driver();
    let jobs: Vec<_> = (0..4).map(|_| record("a", None)).collect();
    insert(driver, &jobs);
    let [first, second, third, fourth] = [0, 1, 2, 3].map(|at: usize| jobs[at].id);
    act(driver, &Act::Prioritize(5), &[fourth]);
    act(driver, &Act::Prioritize(-5), &[first]);
    act(driver, &Act::Requeue("elsewhere".into()), &[second]);
    let worker = beating(driver);
    let claimed = claim(driver, &worker, HOUR);
    let order: Vec<_> = claimed.iter().map(|job| (job.id, job.facts.priority)).collect();
    assert_eq!(order, [(fourth, 5), (third, 0), (first, -5)]);
    let (_, state) = (second, driver.state(second).expect("answers"));
    assert_eq!(state, Some(JobState::Ready));
}

fn operation(driver: &dyn Driver) -> OperationRecord {
    let record = OperationRecord {
        id: OperationId::new(),
        verb: "delete".to_owned(),
        filter: "ability:\"a\" age>1h".to_owned(),
        operator: "ada@host".to_owned(),
        reason: "no longer wanted".to_owned(),
        at_most: Some(1_000),
        asked_at: chrono::DateTime::from_timestamp_micros(1_700_000_000_123_456).expect("a time"),
    };
    let row = driver.begin_operation(&record).expect("stored");
    assert_eq!((&row.record, &*row.place, row.counts), (&record, "", Counts::default()));
    assert!(row.finished_at.is_none());
    record
}

pub fn a_step_is_done_once_by_whoever_is_first(bed: &Bed) {
    let driver = &*bed.driver();
    let jobs = ids(&stored(driver));
    let record = operation(driver);
    let step = |from, to, ends| Step { operation: record.id, from, to, ends };
    // Two processes that go on with it at the same time.
    let (barrier, first) = (Barrier::new(2), step("", "one", false));
    let remove = Act::Remove(None);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let try_it = || {
            barrier.wait();
            let driver = bed.driver();
            driver.act(&remove, &jobs[..100], Some(&first)).expect("answers")
        };
        let threads = [scope.spawn(try_it), scope.spawn(try_it)];
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let done: Vec<_> = answers.into_iter().flatten().collect();
    assert_eq!(done, [vec![Acted::Done; 100]], "the other did nothing");
    let row = driver.operation(record.id).expect("answers").expect("is there");
    assert_eq!((&*row.place, row.counts), ("one", Counts::new(100, 0, 0)));
    assert_eq!(driver.begin_operation(&record).expect("is known"), row);
    // One that begins elsewhere.
    let stale = driver.act(&remove, &jobs[100..], Some(&step("", "two", false))).expect("answers");
    assert_eq!(stale, None);
    assert!(driver.lookup(jobs[200]).expect("answers").is_some());
    let some = [jobs[0], jobs[100]];
    let next = driver.act(&remove, &some, Some(&step("one", "two", false))).expect("answers");
    assert_eq!(next, Some(vec![Acted::Gone, Acted::Done]));
    assert!(driver.note_step(&step("two", "three", false), Counts::new(0, 7, 0)).expect("answers"));
    assert!(!driver.note_step(&step("two", "three", false), Counts::new(0, 7, 0)).expect("answers"));
    let ended = driver.act(&remove, &[], Some(&step("three", "end", true))).expect("answers");
    assert_eq!(ended, Some(Vec::new()));
    let row = driver.operation(record.id).expect("answers").expect("is there");
    assert_eq!((&*row.place, row.counts), ("end", Counts::new(101, 7, 1)));
    assert!(row.finished_at.is_some_and(|at| at >= row.started_at));
    assert!(!driver.note_step(&step("end", "on", false), Counts::default()).expect("answers"));
    // Lists, newest first.
    let second = operation(driver);
    let list = |before| {
        let rows = driver.operations(before, 10).expect("answers");
        rows.iter().map(|row| row.record.id).collect::<Vec<_>>()
    };
    assert_eq!(list(None), [second.id, record.id]);
    assert_eq!(list(Some(second.id)), [record.id]);
    assert!(driver.operation(OperationId::new()).expect("answers").is_none());
}

pub fn discarded_jobs_are_enqueued_again_many_at_a_time_each_once(bed: &Bed) {
    let driver = &*bed.driver();
    let jobs: Vec<_> = (0..MANY).map(|n| record("a", Some(&format!("k{n}")))).collect();
    insert(driver, &jobs);
    let worker = beating(driver);
    let failed = |job| {
        let exception = Some(ExceptionRecord::new(FailureKind::Error, "no"));
        let extras = Some(Box::new(Extras { exception, ..Extras::default() }));
        Settlement { job: Box::new(job), verdict: Verdict::Discard, extras }
    };
    let ends: Vec<_> = claim(driver, &worker, HOUR).into_iter().map(failed).collect();
    let row = |end: &Settlement| end.extras.as_ref().and_then(|extras| Some(extras.exception.as_ref()?.id));
    let rows: Vec<ExceptionId> = ends.iter().filter_map(row).collect();
    driver.settle(worker.id, &ends).expect("settles");
    let holder = record("a", Some("k7"));
    insert(driver, std::slice::from_ref(&holder));
    let new = |row: &ExceptionId| (*row, JobId::new());
    let mut wanted: Vec<_> = rows.iter().rev().map(new).collect();
    wanted.push((ExceptionId::new(), JobId::new()));
    let record = operation(driver);
    let step = Step { operation: record.id, from: "", to: "end", ends: true };
    let answers = driver.redrive_each(&wanted, Some(&step)).expect("answers").expect("is first");
    for ((row, new), answer) in wanted.iter().zip(&answers) {
        let at = rows.iter().position(|one| one == row);
        let key = at.and_then(|at| ends[at].job.facts.uniqkey.as_deref());
        let expected = match key {
            None => Redrive::NotFound,
            Some("k7") => Redrive::Conflict(holder.id),
            Some(_) => Redrive::Enqueued(*new),
        };
        assert_eq!(*answer, expected);
    }
    assert_eq!(driver.redrive_each(&wanted, Some(&step)).expect("answers"), None, "it has ended");
    let row = driver.operation(record.id).expect("answers").expect("is there");
    assert_eq!(row.counts, Counts::new(MANY as u64 - 1, 1, 1));
    assert_eq!(driver.depth(1_000).expect("counts").ready.count, MANY as u64);
    // Under the same ids it is the answer that was lost; under others it is done.
    let again = driver.redrive_each(&wanted, None).expect("answers").expect("without a step");
    assert_eq!(again, answers);
    let others: Vec<_> = rows.iter().map(new).collect();
    let again = driver.redrive_each(&others, None).expect("answers").expect("without a step");
    let already = again.iter().filter(|one| matches!(one, Redrive::Already(_))).count();
    assert_eq!(already, MANY - 1);
}

/// What a filter means.
fn jobs(manager: &Manager, filter: &str) -> Vec<JobId> {
    let filter: JobFilter = filter.parse().expect("a filter");
    let found = manager.jobs(&filter, &Paging::default().limit(10_000));
    assert_eq!(found.errors().count(), 0);
    found.rows().map(|(_, job)| job.id).collect()
}

fn count(manager: &Manager, filter: &str) -> usize {
    jobs(manager, filter).len()
}

/// Jobs of all databases: each has `each` that are ready, and as many that are scheduled.
fn fill(manager: &Manager, bed: &Bed, each: usize) -> usize {
    for (name, _) in &bed.databases {
        let new = |n: usize| {
            let job = echo::job(format!("{n}")).database(name).meta("tenant", n % 2);
            if n % 4 < 2 { job } else { job.delay(HOUR) }
        };
        manager.enqueue_many((0..2 * each).map(new)).expect("stored");
    }
    2 * each * bed.databases.len()
}

fn operation_on(filter: &str, verb: Verb) -> Operation {
    Operation::on(filter.parse().expect("a filter"), verb).rate(None).reason("to see")
}

fn run(manager: &Manager, operation: &Operation) -> OperationReport {
    manager.operate(operation, |_| ControlFlow::Continue(())).expect("can be begun")
}

fn done(manager: &Manager, operation: &Operation) -> Counts {
    let report = run(manager, operation);
    assert!(report.is_done(), "{:?}", report.databases);
    report.counts()
}

fn previewed(manager: &Manager, operation: &Operation) -> Preview {
    let mut all = Preview::default();
    for on in manager.preview(operation, 3).expect("can be asked") {
        let one = on.answer.expect("answers");
        all.count += one.count;
        all.running += one.running;
        all.jobs.extend(one.jobs);
        all.failures.extend(one.failures);
    }
    all
}

pub fn a_preview_tells_what_an_operation_would_do_and_does_nothing(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let all = fill(&manager, bed, 20);
    let (_, claimed) = claim_as_stranger(bed, "echo", 2);
    let cancel = operation_on("meta.tenant=1", Verb::Cancel);
    let preview = previewed(&manager, &cancel);
    let running = claimed.iter().filter(|job| job.facts.meta.as_deref() == Some(r#"{"tenant":1}"#));
    assert_eq!((preview.count, preview.running), (all as u64 / 2, running.count() as u64));
    assert_eq!(preview.jobs.len(), 3 * bed.databases.len());
    let retry = operation_on("", Verb::Retry);
    assert_eq!(previewed(&manager, &retry).count, 0, "none waits for its next attempt");
    assert_eq!(count(&manager, ""), all);
    assert!(manager.operations(None, 10).into_iter().all(|on| on.answer.expect("answers").is_empty()));
    // What cannot be is refused before anything is done.
    for refused in [
        Operation::on("".parse().expect("all"), Verb::Cancel),
        operation_on("", Verb::MoveToQueue(" no queue".to_owned())),
        operation_on("", Verb::MoveToDatabase("nowhere".to_owned())),
    ] {
        assert!(manager.preview(&refused, 1).is_err());
        let error = manager.operate(&refused, |_| ControlFlow::Continue(()));
        assert!(error.is_err_and(|error| error.is_invalid()));
    }
    assert!(manager.operations(None, 10).into_iter().all(|on| on.answer.expect("answers").is_empty()));
}

pub fn each_verb_does_to_the_jobs_of_a_filter_what_it_says(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let half = fill(&manager, bed, 30) / 2;
    let (worker, claimed) = claim_as_stranger(bed, "echo", 3);
    let runs = claimed.len();
    let run = |filter: &str, verb| {
        let counts = done(&manager, &operation_on(filter, verb));
        (counts.done as usize, counts.conflicts as usize, counts.gone)
    };
    assert_eq!(run("state:ready", Verb::Reschedule(Due::In(HOUR * 2))), (half - runs, 0, 0));
    assert_eq!((count(&manager, "state:ready"), count(&manager, "state:scheduled")), (0, 2 * half - runs));
    assert_eq!(run("", Verb::Reschedule(Due::Now)), (2 * half - runs, runs, 0));
    assert_eq!(run("", Verb::Reschedule(Due::Now)), (0, runs, 0), "what is ready is passed over");
    assert_eq!(run("meta.tenant=1", Verb::Prioritize(9)).2, 0);
    let urgent = count(&manager, "priority:9");
    assert!((half - runs..=half).contains(&urgent), "{urgent}");
    assert_eq!(run("priority:9", Verb::MoveToQueue("fast".to_owned())), (urgent, 0, 0));
    assert_eq!(count(&manager, "queue:fast"), urgent);
    assert_eq!(run("queue:fast", Verb::Delete), (urgent, 0, 0));
    assert_eq!(count(&manager, ""), 2 * half - urgent);
    // Those that ran fail, and wait for their next attempt.
    let retried = |job| Settlement { job: Box::new(job), verdict: Verdict::Retry(HOUR), extras: None };
    let ends: Vec<_> = claimed.into_iter().map(retried).collect();
    bed.driver().settle(worker, &ends).expect("settles");
    let later = echo::job("later".to_owned()).delay(HOUR).database(bed.first());
    manager.enqueue(later).expect("stored");
    assert_eq!(run("", Verb::Retry), (runs, 0, 0));
    assert_eq!(count(&manager, "state:scheduled"), 1, "what was never tried waits for its time");
    let left = count(&manager, "");
    assert_eq!(run("", Verb::Delete), (left, 0, 0));
    assert_eq!(count(&manager, ""), 0);
    // All of them were written down, in each database.
    for on in manager.operations(None, 100) {
        let rows = on.answer.expect("answers");
        assert_eq!(rows.len(), 8);
        assert!(rows.iter().all(|row| row.finished_at.is_some() && row.record.reason == "to see"));
        let verbs: Vec<_> = rows.iter().rev().map(|row| &*row.record.verb).collect();
        assert_eq!(verbs[3..6], ["prioritize 9", "move to queue fast", "delete"]);
    }
}

pub fn jobs_that_come_while_an_operation_runs_are_left_alone(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let all = fill(&manager, bed, 20);
    let mut new = 0;
    let report = manager.operate(&operation_on("", Verb::Delete).rate(Some(200)), |_| {
        new += 1;
        manager.enqueue(echo::job("new".to_owned())).expect("stored");
        ControlFlow::Continue(())
    });
    let report = report.expect("can be begun");
    assert!(report.is_done() && new >= bed.databases.len());
    assert_eq!((report.counts().done as usize, count(&manager, "")), (all, new));
}

pub fn an_operation_that_was_stopped_is_gone_on_with_by_its_id(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let all = fill(&manager, bed, 100);
    let operation = operation_on("age<1h", Verb::Delete).rate(Some(200)).operator("ada");
    let report = manager.operate(&operation, |_| ControlFlow::Break(())).expect("can be begun");
    assert!(!report.is_done());
    let stopped = report.databases.iter().filter_map(|on| on.error.as_ref());
    assert!(stopped.into_iter().all(|error| matches!(error, Error::OperationStopped { .. })));
    let left = count(&manager, "");
    assert!(left > 0 && left < all, "{left} of {all}");
    // By another process, and by two at the same time.
    let (others, barrier) = ([bed.manager::<echo>().0, bed.manager::<echo>().0], Barrier::new(2));
    std::thread::scope(|scope| {
        for other in &others {
            scope.spawn(|| {
                let again = other.find_operation(operation.id()).expect("answers");
                let again = again.expect("is stored").rate(None);
                assert_eq!(again.to_string(), "delete age<1h");
                barrier.wait();
                assert_eq!(done(other, &again), Counts::new(all as u64, 0, 0), "nothing twice");
            });
        }
    });
    assert_eq!(count(&manager, ""), 0);
    assert!(manager.find_operation(OperationId::new()).expect("all answer").is_none());
}

pub fn two_redrives_of_the_same_failures_enqueue_each_once(bed: &Bed) {
    let (manager, _) = bed.manager::<give_up>();
    for (name, _) in &bed.databases {
        for n in 0..30 {
            let job = give_up::job().database(name).uniqkey(format!("{name}{n}"));
            manager.enqueue(job).expect("stored");
        }
    }
    let all = run_all(&manager);
    let failed = exceptions(&manager);
    assert_eq!((all, failed.len()), (30 * bed.databases.len(), all));
    // One whose key is held again, and one that was cancelled.
    let held = format!("{}7", bed.first());
    manager.enqueue(give_up::job().database(bed.first()).uniqkey(&held)).expect("stored");
    let unwanted = manager.enqueue(give_up::job().database(bed.first())).expect("stored");
    manager.cancel(unwanted.id().expect("new"), "wrong").expect("answers");
    let filter = || -> ExceptionFilter { "ability:give_up".parse().expect("a filter") };
    assert_eq!(previewed(&manager, &Operation::redrive(filter())).count, all as u64);
    let (other, barrier) = (bed.manager::<give_up>().0, Barrier::new(2));
    let redrive = |manager: &Manager| {
        barrier.wait();
        let mut all = Vec::new();
        let operation = Operation::redrive(filter()).rate(None);
        let report = manager.operate(&operation, |slice| {
            all.extend(slice.treated.iter().copied());
            ControlFlow::Continue(())
        });
        assert!(report.expect("can be begun").is_done());
        all
    };
    let treated: Vec<Treated> = std::thread::scope(|scope| {
        let threads = [scope.spawn(|| redrive(&manager)), scope.spawn(|| redrive(&other))];
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let again: Vec<_> = treated.iter().filter(|one| one.acted == Acted::Done).collect();
    assert_eq!(again.len(), all - 1, "each once");
    assert!(again.iter().all(|one| one.redriven_as.is_some()));
    assert!(treated.iter().any(|one| one.acted == Acted::KeyHeld));
    // They, and the one that holds the key.
    assert_eq!(count(&manager, ""), all);
    let ticket = manager.ticket(again[0].job);
    assert!(matches!(ticket.check(), Ok(qudo::Standing::Waiting(_))), "it follows");
}

pub fn jobs_of_a_filter_move_to_another_database(bed: &Bed) {
    let other = bed.another();
    let (from, to) = (&bed.databases[0], &other.databases[0]);
    let manager = Manager::builder().linked(false).ability::<echo>();
    let manager = manager.database_as("from", &from.1).database_as("to", &to.1);
    let manager = manager.build().expect("valid");
    let jobs = (0..300).map(|n| echo::job(n.to_string()).database("from").meta("tenant", n % 3));
    manager.enqueue_many(jobs).expect("stored");
    let (_, claimed) = claim_as_stranger(bed, "echo", 1);
    assert_eq!(claimed.len(), 1);
    let verb = Verb::MoveToDatabase("to".to_owned());
    let counts = done(&manager, &operation_on("meta.tenant=0", verb.clone()));
    let runs = u64::from(claimed[0].facts.meta.as_deref() == Some(r#"{"tenant":0}"#));
    assert_eq!(counts, Counts::new(100 - runs, runs, 0));
    assert_eq!(count(&manager, "db:to") as u64, 100 - runs);
    assert_eq!(count(&manager, "db:to meta.tenant=0") as u64, 100 - runs);
    assert_eq!(done(&manager, &operation_on("meta.tenant=0", verb)), Counts::new(0, runs, 0));
}

pub fn jobs_of_a_filter_are_cancelled_where_they_wait_and_where_they_run(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let all = fill(&manager, bed, 10);
    let (worker, claimed) = claim_as_stranger(bed, "echo", 2);
    let cancel = operation_on("", Verb::Cancel);
    assert_eq!(done(&manager, &cancel), Counts::new(all as u64, 0, 0));
    assert_eq!(count(&manager, ""), claimed.len());
    assert_eq!(bed.driver().cancels(worker).expect("answers").len(), claimed.len());
    let rows = exceptions(&manager);
    assert_eq!(rows.len(), all - claimed.len());
    assert!(rows.iter().all(|row| row.kind == FailureKind::Cancelled && row.message == "to see"));
    assert_eq!(done(&manager, &operation_on("", Verb::CancelByForce)).done, claimed.len() as u64);
    assert_eq!((count(&manager, ""), exceptions(&manager).len()), (0, all));
    // All of them again, since it is asked for by name.
    let all_failures = Operation::redrive(ExceptionFilter::all()).rate(None);
    assert_eq!(done(&manager, &all_failures).done, 0);
    let cancelled: ExceptionFilter = "kind:cancelled".parse().expect("a filter");
    assert_eq!(done(&manager, &Operation::redrive(cancelled).rate(None)).done, all as u64);
    assert_eq!(count(&manager, ""), all);
}

pub fn operations_are_kept_for_as_long_as_failures(bed: &Bed) {
    let driver = &*bed.driver();
    let record = operation(driver);
    let keep = |age| Keep { exceptions: age, ..Keep::all(HOUR) };
    driver.purge(&keep(HOUR), 100).expect("purges");
    assert!(driver.operation(record.id).expect("answers").is_some());
    let is_gone = || {
        driver.purge(&keep(Duration::ZERO), 100).expect("purges");
        driver.operation(record.id).expect("answers").is_none()
    };
    crate::eventually("it is a moment old", is_gone);
}
