use std::collections::HashSet;
use std::time::{Duration, Instant};

use qudo::driver::{
    AbilityLease, ClaimRequest, ClaimedJob, ControlFlag, DeadWorker, Deadline, Driver, Due,
    ExceptionFilter, Extras, Inserted, JobFacts, JobRecord, JobState, Keep, Place,
    Redrive, SchemaState, Settled, Settlement, Verdict, WorkerId, WorkerInfo,
};
use qudo::{FailureKind, JobId};
use uuid::Uuid;

use crate::{Bed, eventually};

const HOUR: Duration = Duration::from_secs(3600);

fn record(ability: &str, key: Option<&str>) -> JobRecord {
    let facts = JobFacts {
        uniqkey: key.map(str::to_owned),
        ..JobFacts::new(ability, "default", "json", b"1".to_vec())
    };
    JobRecord { id: JobId::new(), facts, due: Due::Now }
}

fn insert(driver: &dyn Driver, jobs: &[JobRecord]) {
    let answers = driver.insert(jobs, Deadline::NONE).expect("stores");
    assert_eq!(answers, vec![Inserted::New; jobs.len()]);
}

fn beating(driver: &dyn Driver) -> WorkerInfo {
    let worker = WorkerInfo::new("it", HOUR);
    assert!(!driver.heartbeat(&worker).expect("beats"), "its row was not there");
    worker
}

fn claim_until(
    driver: &dyn Driver,
    worker: WorkerId,
    grab_for: Duration,
    deadline: Deadline,
) -> Result<Vec<ClaimedJob>, qudo::driver::DriverError> {
    driver.claim(&ClaimRequest {
        worker,
        claim: 1,
        queue: &"default".into(),
        abilities: &[
            AbilityLease { name: "a".into(), grab_for },
            AbilityLease { name: "ä\"'\\".into(), grab_for },
        ],
        limit: 100,
        deadline,
    })
}

/// All that there are: a claim may return fewer than it was asked for.
fn claim(driver: &dyn Driver, worker: &WorkerInfo, grab_for: Duration) -> Vec<ClaimedJob> {
    let mut all = Vec::new();
    loop {
        let some = claim_until(driver, worker.id, grab_for, Deadline::NONE).expect("claims");
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

fn ends(jobs: Vec<ClaimedJob>, verdict: Verdict) -> Vec<Settlement> {
    let end = |job| Settlement { job: Box::new(job), verdict, extras: None };
    jobs.into_iter().map(end).collect()
}

fn ready(driver: &dyn Driver) -> u64 {
    driver.depth(100).expect("counts").ready.count
}

/// This worker, as it is seen now.
fn seen(driver: &dyn Driver, worker: &WorkerInfo) -> DeadWorker {
    let rows = driver.workers().expect("answers");
    let row = rows.into_iter().find(|row| row.info.id == worker.id).expect("has a row");
    DeadWorker { id: worker.id, seen_at: row.seen_at }
}

pub fn nothing_is_stored_leased_or_ordered_after_its_deadline(bed: &Bed) {
    let driver = &*bed.driver();
    let over = || Deadline::at(Instant::now().checked_sub(Duration::from_secs(1)).expect("runs"));
    let job = record("a", None);
    assert!(driver.insert(std::slice::from_ref(&job), over()).is_err());
    assert!(driver.insert(&[record("a", Some("k")), record("a", None)], over()).is_err());
    assert!(driver.depth(9).expect("counts").is_empty());
    assert_eq!(driver.holder("a", "k").expect("answers"), None);
    insert(driver, &[job]);
    let worker = beating(driver);
    let claimed = claim_until(driver, worker.id, HOUR, over()).unwrap_or_default();
    assert_eq!((claimed.len(), ready(driver)), (0, 1));
    assert!(driver.set_control(ControlFlag::Draining, true, over()).is_err());
    assert!(!driver.control().expect("answers").draining);
}

pub fn a_worker_that_was_heard_of_since_keeps_its_jobs(bed: &Bed) {
    let driver = &*bed.driver();
    let worker = beating(driver);
    insert(driver, &[record("a", None)]);
    assert_eq!(claim(driver, &worker, HOUR).len(), 1);
    let silent = seen(driver, &worker);
    eventually("it beats again", || {
        assert!(driver.heartbeat(&worker).expect("beats"), "its row is there");
        seen(driver, &worker).seen_at != silent.seen_at
    });
    assert_eq!(driver.rescue(&[silent], false, 9).expect("answers"), []);
    assert_eq!(driver.rescue(&[], true, 9).expect("answers"), [], "its lease goes on");
    let now = seen(driver, &worker);
    assert_eq!(driver.rescue(&[now], false, 9).expect("answers").len(), 1);
    assert!(driver.workers().expect("answers").is_empty(), "the row goes with the last lease");
    assert!(!driver.heartbeat(&worker).expect("beats"), "it learns that it was declared dead");
}

pub fn a_lease_past_its_end_is_taken_when_that_is_asked_for(bed: &Bed) {
    let driver = &*bed.driver();
    let worker = beating(driver);
    let job = JobRecord {
        facts: JobFacts { meta: Some("{\"m\":1}".into()), ..record("a", Some("k")).facts },
        ..record("a", None)
    };
    insert(driver, std::slice::from_ref(&job));
    assert_eq!(claim(driver, &worker, Duration::ZERO).len(), 1);
    assert_eq!(driver.rescue(&[], false, 9).expect("answers"), []);
    let mut taken = Vec::new();
    eventually("it is past its end", || {
        driver.rescue(&[], true, 9).is_ok_and(|rescued| !rescued.is_empty())
    });
    taken.extend(claim(driver, &worker, HOUR));
    let [again] = &taken[..] else { panic!("it is ready again") };
    assert_eq!((again.attempt, again.crashes), (2, 1));
    let log = driver.exceptions(&ExceptionFilter::default()).expect("reads");
    assert_eq!((log.len(), log[0].kind), (1, FailureKind::LeaseExpired));
    assert_eq!(log[0].facts.uniqkey, job.facts.uniqkey);
    assert_eq!(log[0].facts.meta, job.facts.meta);
    assert!(log[0].facts.arg.is_empty(), "the live job has it");
}

pub fn leases_of_a_worker_without_a_row_are_taken_back(bed: &Bed) {
    let driver = &*bed.driver();
    insert(driver, &[record("a", None)]);
    let nobody = WorkerInfo::new("nobody", HOUR);
    assert_eq!(claim(driver, &nobody, HOUR).len(), 1);
    let rescued = driver.rescue(&[], false, 9).expect("answers");
    assert_eq!((rescued.len(), rescued[0].kind), (1, FailureKind::Crash));
    assert_eq!(ready(driver), 1);
}

pub fn a_rescue_takes_no_more_than_its_limit(bed: &Bed) {
    let driver = &*bed.driver();
    let worker = beating(driver);
    insert(driver, &[record("a", None), record("a", None), record("a", None)]);
    assert_eq!(claim(driver, &worker, HOUR).len(), 3);
    let dead = seen(driver, &worker);
    assert_eq!(driver.rescue(&[dead], false, 2).expect("answers").len(), 2);
    assert_eq!(driver.workers().expect("answers").len(), 1, "it holds one more");
    assert_eq!(driver.rescue(&[dead], false, 2).expect("answers").len(), 1);
    assert!(driver.workers().expect("answers").is_empty());
    assert_eq!(ready(driver), 3);
}

pub fn the_keys_of_a_group_are_free_when_it_is_settled(bed: &Bed) {
    let driver = &*bed.driver();
    let worker = beating(driver);
    let long = "k".repeat(500);
    let keys = ["1", "it's", "\"", "\\", "ü😀", "a,b", "[]", "{}", "%_", &long];
    let jobs: Vec<_> = ["a", "ä\"'\\"]
        .iter()
        .flat_map(|ability| keys.iter().map(|key| record(ability, Some(key))))
        .collect();
    for verdict in [Verdict::Complete, Verdict::Discard] {
        insert(driver, &jobs);
        let kept = driver.insert(&[record("a", Some("kept"))], Deadline::NONE).expect("stores");
        let claimed = claim(driver, &worker, HOUR);
        let (ended, others): (Vec<_>, Vec<_>) =
            claimed.into_iter().partition(|job| job.facts.uniqkey.as_deref() != Some("kept"));
        assert_eq!((ended.len(), others.len()), (jobs.len(), 1));
        let settled = driver.settle(worker.id, &ends(ended, verdict)).expect("settles");
        assert_eq!(settled, vec![Settled::Done; jobs.len()]);
        let left: Vec<_> = driver.keys(None, 100).expect("lists").into_iter().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!((&*left[0].uniqkey, kept[0]), ("kept", Inserted::New));
        for job in &jobs {
            let key = job.facts.uniqkey.as_deref().expect("is set");
            assert_eq!(driver.holder(&job.facts.ability, key).expect("answers"), None, "{key}");
        }
        driver.settle(worker.id, &ends(others, Verdict::Complete)).expect("settles");
    }
}

pub fn what_is_kept_is_kept_for_its_time(bed: &Bed) {
    let driver = &*bed.driver();
    let worker = beating(driver);
    insert(driver, &[record("a", None), record("a", None), record("a", None)]);
    let mut claimed = claim(driver, &worker, HOUR).into_iter();
    let mut fail = |verdict| {
        let exception = Some(worker.failed(FailureKind::Error, "no"));
        let extras = Some(Box::new(Extras { exception, ..Extras::default() }));
        let job = Box::new(claimed.next().expect("three"));
        driver.settle(worker.id, &[Settlement { job, verdict, extras }]).expect("settles");
    };
    fail(Verdict::Retry(HOUR));
    fail(Verdict::Discard);
    fail(Verdict::Discard);
    let log = || driver.exceptions(&ExceptionFilter::default()).expect("reads");
    let discarded = log().into_iter().find(|row| row.discarded).expect("two");
    let new = JobId::new();
    assert_eq!(driver.redrive(discarded.id, new).expect("answers"), Redrive::Enqueued(new));
    driver.purge(&Keep::all(HOUR), 100).expect("purges");
    assert_eq!(log().len(), 3, "nothing is that old");
    eventually("what is older than nothing goes", || {
        driver.purge(&Keep::all(Duration::ZERO), 100).expect("purges");
        log().len() == 1
    });
    let left = log().remove(0);
    assert!(left.discarded && left.redriven_as.is_none(), "the only copy of a job stays");
    let all = Keep { discarded: Some(Duration::ZERO), ..Keep::all(Duration::ZERO) };
    eventually("unless it is said", || {
        driver.purge(&all, 100).expect("purges");
        log().is_empty()
    });
}

pub fn a_delay_of_nothing_makes_a_job_ready_at_once(bed: &Bed) {
    let driver = &*bed.driver();
    let worker = beating(driver);
    insert(driver, &[record("a", None)]);
    let none = Duration::ZERO;
    for verdict in [Verdict::Retry(none), Verdict::Snooze(none), Verdict::GiveBack] {
        let claimed = claim(driver, &worker, HOUR);
        assert_eq!((claimed.len(), ready(driver)), (1, 0), "{verdict:?}");
        let settled = driver.settle(worker.id, &ends(claimed, verdict)).expect("settles");
        assert_eq!((&settled[..], ready(driver)), (&[Settled::Done][..], 1), "{verdict:?}");
    }
}

pub fn what_arrived_once_is_not_brought_again(bed: &Bed) {
    let (from, to) = (bed.another(), bed.driver());
    let from = from.driver();
    let job = record("a", Some("k"));
    insert(&*from, std::slice::from_ref(&job));
    let leaving = from.move_out("there", None, 9).expect("moves");
    to.move_in("here", Uuid::now_v7(), &leaving).expect("moves");
    assert_eq!(ready(&*to), 0, "it cannot be claimed yet");
    from.moved_out(&[job.id]).expect("moves");
    assert_eq!(to.moved_in(&[job.id]).expect("moves"), 1);
    let worker = beating(&*to);
    let claimed = claim(&*to, &worker, HOUR);
    assert_eq!(claimed.len(), 1);
    to.settle(worker.id, &ends(claimed, Verdict::Complete)).expect("settles");
    // Another mover was overtaken, and comes when all is over.
    to.move_in("here", Uuid::now_v7(), &leaving).expect("moves");
    to.moved_in(&[job.id]).expect("moves");
    assert_eq!(to.state(job.id).expect("answers"), None, "it is not run twice");
    assert_eq!(to.holder("a", "k").expect("answers"), None);
}

pub fn each_live_job_is_told_with_its_one_place(bed: &Bed) {
    let driver = &*bed.driver();
    let worker = beating(driver);
    let later = JobRecord { due: Due::In(HOUR), ..record("a", None) };
    let (leased, keyed) = (record("a", None), record("a", Some("k")));
    insert(driver, std::slice::from_ref(&leased));
    assert_eq!(claim(driver, &worker, HOUR).len(), 1);
    insert(driver, &[later.clone(), keyed.clone()]);
    let nobody = JobId::from_uuid(Uuid::nil());
    let traces = driver.traces(nobody, 100).expect("looks");
    let places: HashSet<_> = traces.iter().map(|one| (one.id, one.places.clone())).collect();
    let expected = [
        (leased.id, vec![Place::Leased]),
        (later.id, vec![Place::Scheduled]),
        (keyed.id, vec![Place::Ready]),
    ];
    assert_eq!(places, HashSet::from(expected));
    assert!(traces.iter().all(|one| one.facts.is_some() && !one.misfiled && !one.ownerless));
    let mut after = None;
    loop {
        let strays = driver.strays(after.as_ref(), 100).expect("looks");
        assert_eq!(strays.ids, []);
        after = strays.next;
        if after.is_none() {
            break;
        }
    }
    let trace = driver.trace(&[keyed.id]).expect("looks").remove(0);
    assert_eq!((trace.holder, trace.keys.len()), (Some(keyed.id), 1));
    assert!(!driver.mend(keyed.id).expect("looks"), "there is nothing to be put right");
    let running = driver.state(leased.id).expect("answers").expect("lives");
    assert!(matches!(running, JobState::Running { worker: by, .. } if by == worker.id));
}

pub fn tables_are_made_and_removed_as_they_are_told(bed: &Bed) {
    let driver = &*bed.driver();
    assert_eq!(driver.schema().expect("answers"), SchemaState::Current);
    assert_eq!(driver.migrate().expect("again"), Vec::<String>::new());
    insert(driver, &[record("a", None)]);
    let reverted = driver.revert().expect("reverts");
    match driver.schema().expect("answers") {
        SchemaState::Current => assert!(reverted.is_empty(), "it has no tables"),
        SchemaState::Behind(missing) => assert_eq!(missing.len(), reverted.len()),
        other => panic!("{other:?}"),
    }
    let made = driver.migrate().expect("migrates");
    assert_eq!(made.len(), reverted.len());
    assert_eq!(driver.schema().expect("answers"), SchemaState::Current);
    assert!(driver.depth(9).expect("counts").is_empty(), "all jobs are lost");
    let identity = driver.identity().expect("answers");
    assert_eq!(driver.identity().expect("answers"), identity);
    assert_eq!(driver.control().expect("answers").identity, Some(identity));
}
