use std::sync::Barrier;

use qudo::JobId;
use qudo::driver::{
    Act, Acted, Counts, Driver, Due, Ending, ExceptionId, ExceptionRecord, Extras,
    JobRecord, JobState, OperationId, OperationRecord, Redrive, Settlement, Step, Verdict,
};
use qudo::hook::FailureKind;

use crate::Bed;
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
