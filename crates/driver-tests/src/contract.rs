use std::collections::{HashMap, HashSet};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use qudo::driver::{
    AbilityLease, Arrival, ClaimRequest, ClaimedJob, Order, DeadWorker, Deadline, Departure, Driver, Due,
    ExceptionRecord, ExceptionScan, Extras, Inserted, JobFacts, JobRecord, JobState, Keep, Leg, Place,
    Redrive, ReplyRecord, SchemaState, Settled, Settlement, StatusRecord, Verdict, WorkerId,
    WorkerInfo,
};
use qudo::hook::FailureKind;
use qudo::JobId;
use uuid::Uuid;

use crate::{Bed, departed, eventually};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn record(ability: &str, key: Option<&str>) -> JobRecord {
    let facts = JobFacts {
        uniqkey: key.map(str::to_owned),
        ..JobFacts::new(ability, "default", "json", b"1".to_vec())
    };
    JobRecord { id: JobId::new(), facts, due: Due::Now }
}

pub(crate) fn insert(driver: &dyn Driver, jobs: &[JobRecord]) {
    let answers = driver.insert(jobs, Deadline::NONE).expect("stores");
    assert_eq!(answers, vec![Inserted::New; jobs.len()]);
}

pub(crate) fn beating(driver: &dyn Driver) -> WorkerInfo {
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
        thorough: true,
    })
}

/// All that there are: a claim may return fewer than it was asked for.
pub(crate) fn claim(driver: &dyn Driver, worker: &WorkerInfo, grab_for: Duration) -> Vec<ClaimedJob> {
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
    assert!(driver.set_control(&Order::Draining, true, over()).is_err());
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
    let log = driver.scan_exceptions(&ExceptionScan::all(30)).expect("reads");
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

/// What becomes of the job with this number, and what its run brings.
fn end_of(number: usize) -> (Verdict, Option<Box<Extras>>) {
    let exception = Some(ExceptionRecord::new(FailureKind::Error, format!("of {number}")));
    let failed = || Some(Box::new(Extras { exception: exception.clone(), ..Extras::default() }));
    match number {
        n if n % 7 == 3 => (Verdict::Retry(Duration::ZERO), failed()),
        n if n % 7 == 5 => (Verdict::Snooze(HOUR), None),
        n if n % 11 == 4 => (Verdict::Discard, failed()),
        n if n % 13 == 2 => {
            let replies = (0..2).map(|seq| ReplyRecord {
                codec: "json".into(),
                body: format!("{}", number * 10 + seq).into_bytes(),
            });
            let status = StatusRecord { status: "completed", took: HOUR, message: None };
            let (replies, status) = (replies.collect(), Some(status));
            let extras = Extras { replies, status, ..Extras::default() };
            (Verdict::Complete, Some(Box::new(extras)))
        }
        _ => (Verdict::Complete, None),
    }
}

/// A driver may settle jobs that were claimed together by the first and the last of them. What lies between those
/// and is not of the group stays.
pub fn a_group_of_every_kind_is_settled_and_what_lies_between_its_jobs_stays(bed: &Bed) {
    const JOBS: usize = 300;
    let driver = &*bed.driver();
    let worker = beating(driver);
    let (mut jobs, mut strangers) = (Vec::new(), Vec::new());
    for number in 0..JOBS {
        let key = (number % 10 == 0).then(|| number.to_string());
        jobs.push(record("a", key.as_deref()));
        // Between the later half of them only.
        if number > JOBS / 2 && number % 5 == 0 {
            let mut stranger = record("a", None);
            stranger.facts.queue = "other".into();
            strangers.push(stranger);
        }
    }
    insert(driver, &jobs);
    insert(driver, &strangers);
    let mut claimed = Vec::new();
    for claim in 1.. {
        let some = driver.claim(&ClaimRequest {
            worker: worker.id,
            claim,
            queue: &"default".into(),
            abilities: &[AbilityLease { name: "a".into(), grab_for: HOUR }],
            limit: 120,
            deadline: Deadline::NONE,
            thorough: true,
        });
        let some = some.expect("claims");
        if some.is_empty() {
            break;
        }
        claimed.extend(some);
    }
    assert_eq!(claimed.len(), JOBS);
    let numbers: HashMap<_, _> = jobs.iter().map(|job| job.id).zip(0..).collect();
    let group: Vec<_> = claimed
        .into_iter()
        .map(|job| {
            let (verdict, extras) = end_of(numbers[&job.id]);
            Settlement { job: Box::new(job), verdict, extras }
        })
        .collect();
    let is_running = |one: &Settlement| [40, 200].contains(&numbers[&one.job.id]);
    let (running, group): (Vec<_>, Vec<_>) = group.into_iter().partition(is_running);
    let settled = driver.settle(worker.id, &group).expect("settles");
    assert_eq!(settled, vec![Settled::Done; JOBS - 2]);

    let check = |running: bool| {
        for (number, job) in jobs.iter().enumerate() {
            let state = driver.state(job.id).expect("answers");
            let (verdict, extras) = end_of(number);
            let is_right = match (&state, verdict) {
                (Some(JobState::Running { .. }), _) => running && [40, 200].contains(&number),
                (Some(JobState::Ready), Verdict::Retry(_))
                | (Some(JobState::Scheduled { .. }), Verdict::Snooze(_))
                | (None, Verdict::Complete | Verdict::Discard) => true,
                _ => false,
            };
            assert!(is_right, "{number}: {verdict:?} and {state:?}");
            let replies = driver.remains(job.id).expect("answers").replies;
            let expected = extras.map_or(0, |extras| extras.replies.len());
            assert_eq!(replies.len(), if state.is_some() { 0 } else { expected }, "{number}");
            let key = job.facts.uniqkey.as_deref();
            let holder = key.and_then(|key| driver.holder("a", key).expect("answers"));
            assert_eq!(holder, state.filter(|_| key.is_some()).map(|_| job.id), "{number}");
        }
        for job in &strangers {
            let found = driver.lookup(job.id).expect("answers").expect("stays");
            assert!(matches!(found.state, JobState::Ready), "{:?}", found.state);
        }
    };
    check(true);
    let again = jobs.iter().filter(|job| matches!(end_of(numbers[&job.id]).0, Verdict::Retry(_)));
    let retried = driver.lookup(again.clone().next().expect("there are").id).expect("answers");
    assert_eq!(retried.expect("lives").attempt, 1, "the attempt is spent");
    let snoozed = jobs.iter().find(|job| matches!(end_of(numbers[&job.id]).0, Verdict::Snooze(_)));
    let snoozed = driver.lookup(snoozed.expect("there are").id).expect("answers");
    assert_eq!(snoozed.expect("lives").attempt, 0, "and here it is not");
    let log = driver.scan_exceptions(&ExceptionScan::all(1_000));
    let log = log.expect("answers");
    let discarded = log.iter().filter(|one| one.discarded);
    assert!(discarded.clone().all(|one| one.facts.arg == b"1" && one.facts.codec == "json"));
    let of = |wanted: fn(Verdict) -> bool| (0..JOBS).filter(|n| wanted(end_of(*n).0)).count();
    assert_eq!(discarded.count(), of(|verdict| verdict == Verdict::Discard));
    let failed = of(|verdict| matches!(verdict, Verdict::Discard | Verdict::Retry(_)));
    assert_eq!(log.len(), failed - usize::from(!matches!(end_of(200).0, Verdict::Complete)));
    for one in &log {
        assert_eq!(one.message, format!("of {}", numbers[&one.job]));
    }

    // Repeated, it changes nothing.
    let repeated = driver.settle(worker.id, &group).expect("settles");
    assert_eq!(repeated, vec![Settled::LeaseLost; JOBS - 2]);
    check(true);
    // One lease that is lost keeps the others from nothing.
    let mut last = running;
    last.push(group[7].clone());
    let settled = driver.settle(worker.id, &last).expect("settles");
    assert_eq!(settled, [Settled::Done, Settled::Done, Settled::LeaseLost]);
    check(false);
}

/// Of jobs that completed and left nothing, as most do.
pub fn what_lies_between_the_jobs_of_a_plain_group_stays(bed: &Bed) {
    let driver = &*bed.driver();
    let worker = beating(driver);
    for between in [false, true] {
        let (mut jobs, mut strangers) = (Vec::new(), Vec::new());
        for number in 0..90 {
            jobs.push(record("a", None));
            if between && number % 30 == 7 {
                strangers.push(JobRecord { due: Due::In(HOUR), ..record("a", None) });
            }
        }
        insert(driver, &jobs);
        insert(driver, &strangers);
        let claim = 1 + i64::from(between);
        let request = ClaimRequest {
            worker: worker.id,
            claim,
            queue: &"default".into(),
            abilities: &[AbilityLease { name: "a".into(), grab_for: HOUR }],
            limit: 100,
            deadline: Deadline::NONE,
            thorough: true,
        };
        let mut claimed = driver.claim(&request).expect("claims");
        assert_eq!(claimed.len(), 90);
        let running = claimed.split_off(80);
        let ended = ends(claimed, Verdict::Complete);
        let settled = driver.settle(worker.id, &ended).expect("settles");
        assert_eq!(settled, vec![Settled::Done; 80]);
        let live: HashSet<_> = running.iter().map(|job| job.id).collect();
        for job in &jobs {
            assert_eq!(driver.state(job.id).expect("answers").is_some(), live.contains(&job.id));
        }
        for job in &strangers {
            assert!(driver.lookup(job.id).expect("answers").is_some(), "it was not of the group");
        }
        let repeated = driver.settle(worker.id, &ended).expect("settles");
        assert_eq!(repeated, vec![Settled::LeaseLost; 80]);
        let rest = ends(running, Verdict::Complete);
        let settled = driver.settle(worker.id, &rest).expect("settles");
        assert_eq!(settled, vec![Settled::Done; 10]);
    }
}

pub fn which_of_many_jobs_live_is_told(bed: &Bed) {
    let driver = &*bed.driver();
    let worker = beating(driver);
    let ended = record("a", None);
    insert(driver, std::slice::from_ref(&ended));
    let claimed = claim(driver, &worker, HOUR);
    driver.settle(worker.id, &ends(claimed, Verdict::Complete)).expect("settles");
    let live = [record("a", None), JobRecord { due: Due::In(HOUR), ..record("a", Some("k")) }];
    insert(driver, &live);
    let asked = [ended.id, live[1].id, JobId::new(), live[0].id];
    let told: HashSet<_> = driver.live(&asked).expect("answers").into_iter().collect();
    assert_eq!(told, live.iter().map(|job| job.id).collect());
    assert_eq!(driver.live(&[]).expect("answers"), []);
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
    let log = || driver.scan_exceptions(&ExceptionScan::all(30)).expect("reads");
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

pub fn of_too_many_failures_the_oldest_go_whatever_their_age(bed: &Bed) {
    let driver = &*bed.driver();
    let worker = beating(driver);
    insert(driver, &[record("a", None), record("a", None)]);
    let fail = |verdict| {
        let job = claim(driver, &worker, HOUR).into_iter().next().expect("one is ready");
        let exception = ExceptionRecord::new(FailureKind::Error, "no");
        let id = exception.id;
        let extras = Some(Box::new(Extras { exception: Some(exception), ..Extras::default() }));
        let end = Settlement { job: Box::new(job), verdict, extras };
        driver.settle(worker.id, &[end]).expect("settles");
        driver.remove_worker(worker.id).expect("gives back");
        id
    };
    let mut rows: Vec<_> = (0..5).map(|_| fail(Verdict::Retry(Duration::ZERO))).collect();
    rows.push(fail(Verdict::Discard));
    let log = || {
        let rows = driver.scan_exceptions(&ExceptionScan::all(30)).expect("reads");
        rows.iter().rev().map(|row| row.id).collect::<Vec<_>>()
    };
    let purge = |most| {
        let keep = Keep { exceptions_at_most: Some(most), ..Keep::all(HOUR) };
        driver.purge(&keep, 2).expect("purges")
    };
    while purge(6).more {}
    assert_eq!(log(), rows);
    eventually("two are too many", || {
        purge(4);
        log() == rows[2..]
    });
    // The only copy of a job stays, and so does for a while by what its ticket knows that it failed.
    let stays = || {
        for _ in 0..5 {
            purge(0);
        }
        log() == rows[5..]
    };
    eventually("all but the last", stays);
    let discarded = rows[5];
    driver.redrive(discarded, JobId::new()).expect("answers");
    assert!(stays());
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

fn nobody() -> JobId {
    JobId::from_uuid(Uuid::nil())
}

pub fn what_arrived_once_is_not_brought_again(bed: &Bed) {
    let (from, to) = (bed.another(), bed.driver());
    let from = from.driver();
    let job = record("a", Some("k"));
    insert(&*from, std::slice::from_ref(&job));
    let leaving = from.move_out("there", Uuid::now_v7(), None, 9).expect("moves");
    let gone = departed(&leaving);
    to.move_in("here", &leaving).expect("moves");
    assert_eq!(ready(&*to), 0, "it cannot be claimed yet");
    from.moved_out(&gone).expect("moves");
    assert_eq!(to.moved_in(&gone).expect("moves"), 1);
    let worker = beating(&*to);
    let claimed = claim(&*to, &worker, HOUR);
    assert_eq!(claimed.len(), 1);
    to.settle(worker.id, &ends(claimed, Verdict::Complete)).expect("settles");
    // Another mover was overtaken, and comes when all is over.
    to.move_in("here", &leaving).expect("moves");
    to.moved_in(&gone).expect("moves");
    assert_eq!(to.state(job.id).expect("answers"), None, "it is not run twice");
    assert_eq!(to.holder("a", "k").expect("answers"), None);
}

pub fn a_mover_that_was_overtaken_ends_no_departure_but_its_own(bed: &Bed) {
    let (from, one, other) = (bed.driver(), bed.another(), bed.another());
    let (one, other) = (one.driver(), other.driver());
    let job = record("a", Some("k"));
    insert(&*from, std::slice::from_ref(&job));
    // It goes to one, comes back since that is its home no more, and goes to the other.
    let slow = from.move_out("one", Uuid::now_v7(), None, 9).expect("leaves");
    assert_eq!(one.move_in("from", &slow).expect("is brought"), [Arrival::Here]);
    assert_eq!(from.move_back(&departed(&slow)).expect("stays"), 1);
    assert_eq!(from.move_back(&departed(&slow)).expect("answers"), 0, "once");
    assert_eq!(one.cancel_move_in(&departed(&slow)).expect("is taken back"), 1);
    let fast = from.move_out("other", Uuid::now_v7(), None, 9).expect("leaves again");
    assert_eq!(other.move_in("from", &fast).expect("is brought"), [Arrival::Here]);
    // Whoever carried it to one goes on.
    assert_eq!(from.moved_out(&departed(&slow)).expect("answers"), [], "it left by another one");
    assert_eq!(from.move_back(&departed(&slow)).expect("answers"), 0);
    from.leave_trail(&departed(&slow)).expect("answers");
    assert_eq!(one.moved_in(&departed(&slow)).expect("answers"), 0);
    let marks = from.legs(&[job.id]).expect("answers");
    assert_eq!(marks, [(departed(&fast)[0], Leg::Leaving)]);
    // And so does the faster one.
    assert_eq!(from.moved_out(&departed(&fast)).expect("answers"), departed(&fast));
    assert_eq!(other.moved_in(&departed(&fast)).expect("answers"), 1);
    assert_eq!((ready(&*from), ready(&*one), ready(&*other)), (0, 0, 1), "it is in one place");
}

pub fn two_departures_of_a_job_do_not_meet_in_one_place(bed: &Bed) {
    let (from, to) = (bed.another(), bed.driver());
    let from = from.driver();
    let job = record("a", None);
    insert(&*from, std::slice::from_ref(&job));
    let slow = from.move_out("to", Uuid::now_v7(), None, 9).expect("leaves");
    from.move_back(&departed(&slow)).expect("stays");
    to.move_in("from", &slow).expect("comes too late");
    let fast = from.move_out("to", Uuid::now_v7(), None, 9).expect("leaves again");
    assert_eq!(to.move_in("from", &fast).expect("answers"), [Arrival::Busy], "a copy lies there");
    assert_eq!(to.cancel_move_in(&departed(&fast)).expect("answers"), 0, "that is not its own");
    assert_eq!(to.moving_in("from", nobody(), 9).expect("answers"), departed(&slow));
    assert_eq!(to.cancel_move_in(&departed(&slow)).expect("answers"), 1);
    assert_eq!(to.move_in("from", &fast).expect("answers"), [Arrival::Here]);
    assert_eq!(from.moved_out(&departed(&fast)).expect("answers"), departed(&fast));
    assert_eq!(to.moved_in(&departed(&fast)).expect("answers"), 1);
    assert_eq!(ready(&*to), 1);
}

pub fn two_departures_that_are_brought_at_the_same_time_leave_each_job_in_one_place(bed: &Bed) {
    const ROUNDS: usize = 20;
    let (from, to) = (bed.another(), bed.driver());
    let from = from.driver();
    for round in 0..ROUNDS {
        let key = |n: usize| n.is_multiple_of(2).then(|| format!("{round} {n}"));
        let jobs: Vec<_> = (0..30).map(|n| record("a", key(n).as_deref())).collect();
        insert(&*from, &jobs);
        let slow = from.move_out("to", Uuid::now_v7(), None, 99).expect("leaves");
        from.move_back(&departed(&slow)).expect("stays");
        let fast = from.move_out("to", Uuid::now_v7(), None, 99).expect("leaves again");
        let at_once = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                at_once.wait();
                to.move_in("from", &slow).expect("answers");
                assert_eq!(from.moved_out(&departed(&slow)).expect("answers"), []);
                to.cancel_move_in(&departed(&slow)).expect("answers");
            });
            scope.spawn(|| {
                at_once.wait();
                let answers = to.move_in("from", &fast).expect("answers");
                let (here, back): (Vec<_>, Vec<_>) = departed(&fast)
                    .into_iter()
                    .zip(answers)
                    .partition(|(_, answer)| *answer == Arrival::Here);
                let only = |all: Vec<(Departure, Arrival)>| -> Vec<_> {
                    all.into_iter().map(|(one, _)| one).collect()
                };
                let (here, back) = (only(here), only(back));
                assert_eq!(from.moved_out(&here).expect("leaves").len(), here.len());
                assert_eq!(to.moved_in(&here).expect("arrives"), here.len());
                from.leave_trail(&here).expect("is over");
                assert_eq!(from.move_back(&back).expect("stays"), back.len());
            });
        });
        let waits = |driver: &dyn Driver, id| driver.state(id).expect("answers") == Some(JobState::Ready);
        for job in &jobs {
            let places = [waits(&*from, job.id), waits(&*to, job.id)];
            assert!(places[0] != places[1], "round {round}: {places:?}");
            if let Some(key) = &job.facts.uniqkey {
                let there = if places[0] { &*from } else { &*to };
                assert_eq!(there.holder("a", key).expect("answers"), Some(job.id), "its key is with it");
            }
            assert!(from.dequeue(job.id, None).expect("answers") != to.dequeue(job.id, None).expect("answers"));
        }
    }
}

pub fn a_job_that_leaves_is_not_taken_for_arrived(bed: &Bed) {
    let (one, two) = (bed.another(), bed.driver());
    let one = one.driver();
    // A full copy in each of two databases, as after an enqueue whose answer was lost; both are moved to the other.
    let job = record("a", None);
    insert(&*one, std::slice::from_ref(&job));
    insert(&*two, std::slice::from_ref(&job));
    let there = one.move_out("two", Uuid::now_v7(), None, 9).expect("leaves");
    let here = two.move_out("one", Uuid::now_v7(), None, 9).expect("leaves");
    assert_eq!(two.move_in("one", &there).expect("answers"), [Arrival::Busy]);
    assert_eq!(one.move_back(&departed(&there)).expect("stays"), 1);
    assert_eq!(one.move_in("two", &here).expect("answers"), [Arrival::Here]);
    assert_eq!(two.moved_out(&departed(&here)).expect("leaves").len(), 1);
    assert_eq!((ready(&*one), ready(&*two)), (1, 0));
}

pub fn full_copies_that_are_moved_to_each_other_at_the_same_time_leave_one_at_least(bed: &Bed) {
    const ROUNDS: usize = 20;
    let (one, two) = (bed.another(), bed.driver());
    let one = one.driver();
    for round in 0..ROUNDS {
        let jobs: Vec<_> = (0..30).map(|_| record("a", None)).collect();
        insert(&*one, &jobs);
        insert(&*two, &jobs);
        let at_once = Barrier::new(2);
        let carry = |from: &dyn Driver, to: &dyn Driver, names: [&str; 2]| {
            at_once.wait();
            let out = from.move_out(names[1], Uuid::now_v7(), None, 99).expect("leaves");
            let answers = to.move_in(names[0], &out).expect("answers");
            let all = departed(&out).into_iter().zip(answers);
            let (here, back): (Vec<_>, Vec<_>) = all.partition(|(_, one)| *one == Arrival::Here);
            let only = |all: Vec<(Departure, Arrival)>| all.into_iter().map(|(one, _)| one).collect::<Vec<_>>();
            let (here, back) = (only(here), only(back));
            let left = from.moved_out(&here).expect("answers");
            to.moved_in(&left).expect("answers");
            from.leave_trail(&left).expect("answers");
            from.move_back(&back).expect("answers");
        };
        std::thread::scope(|scope| {
            scope.spawn(|| carry(&*one, &*two, ["one", "two"]));
            scope.spawn(|| carry(&*two, &*one, ["two", "one"]));
        });
        for job in &jobs {
            let there = [one.dequeue(job.id, None), two.dequeue(job.id, None)].map(|there| there.expect("answers"));
            assert!(there[0] || there[1], "round {round}: job {} is nowhere", job.id);
        }
    }
}

pub fn a_job_of_an_id_that_arrived_before_is_moved_like_any_other(bed: &Bed) {
    let (from, to) = (bed.another(), bed.driver());
    let from = from.driver();
    let job = record("a", None);
    for _ in 0..2 {
        insert(&*from, std::slice::from_ref(&job));
        let leaving = from.move_out("to", Uuid::now_v7(), None, 9).expect("leaves");
        assert_eq!(to.move_in("from", &leaving).expect("is brought"), [Arrival::Here]);
        assert_eq!(from.moved_out(&departed(&leaving)).expect("left").len(), 1);
        assert_eq!(to.moved_in(&departed(&leaving)).expect("arrives"), 1);
        from.leave_trail(&departed(&leaving)).expect("is over");
        assert!(to.dequeue(job.id, None).expect("answers"), "it is there");
    }
}

pub fn of_a_job_that_went_long_ago_and_came_back_only_the_old_trail_is_purged(bed: &Bed) {
    let (here, there) = (bed.driver(), bed.another());
    let there = there.driver();
    let (job, age) = (record("a", None), Duration::from_secs(4));
    insert(&*here, std::slice::from_ref(&job));
    let carry = |from: &dyn Driver, to: &dyn Driver| {
        let leaving = from.move_out("to", Uuid::now_v7(), None, 9).expect("leaves");
        let gone = departed(&leaving);
        to.move_in("from", &leaving).expect("is brought");
        from.moved_out(&gone).expect("left");
        assert_eq!(to.moved_in(&gone).expect("arrives"), 1);
        from.leave_trail(&gone).expect("is over");
    };
    carry(&*here, &*there);
    let trail = || here.trail(job.id).expect("answers").expect("is kept");
    eventually("the trail is old", || trail().age > Some(age));
    carry(&*there, &*here);
    let keep = Keep { replies: age, ..Keep::all(HOUR) };
    eventually("the old one is purged", || here.purge(&keep, 100).expect("purges").removed > 0);
    assert_eq!(trail().to, None, "that it came back is remembered");
}

pub fn each_live_job_is_told_with_its_one_place(bed: &Bed) {
    let driver = &*bed.driver();
    let worker = beating(driver);
    let later = JobRecord { due: Due::In(HOUR), ..record("a", None) };
    let (leased, keyed) = (record("a", None), record("a", Some("k")));
    insert(driver, std::slice::from_ref(&leased));
    assert_eq!(claim(driver, &worker, HOUR).len(), 1);
    insert(driver, &[later.clone(), keyed.clone()]);
    let traces = driver.traces(nobody(), 100).expect("looks");
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
    assert_eq!(driver.migrate(false).expect("again"), Vec::<String>::new());
    insert(driver, &[record("a", None)]);
    let reverted = driver.revert().expect("reverts");
    match driver.schema().expect("answers") {
        SchemaState::Current => assert!(reverted.is_empty(), "it has no tables"),
        SchemaState::Behind(missing) => assert_eq!(missing.len(), reverted.len()),
        other => panic!("{other:?}"),
    }
    let made = driver.migrate(false).expect("migrates");
    assert_eq!(made.len(), reverted.len());
    assert_eq!(driver.schema().expect("answers"), SchemaState::Current);
    assert!(driver.depth(9).expect("counts").is_empty(), "all jobs are lost");
    let identity = driver.identity().expect("answers");
    assert_eq!(driver.identity().expect("answers"), identity);
    assert_eq!(driver.control().expect("answers").identity, Some(identity));
}
