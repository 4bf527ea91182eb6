use std::collections::HashMap;
use std::sync::{Arc, Condvar, LazyLock, Mutex};
use std::time::{Duration, Instant};

use qudo::admin::{JobFilter, Paging};
use qudo::driver::{
    AbilityLease, ClaimRequest, ClaimedJob, Deadline, ExceptionRecord, Extras, JobState,
    ReplyRecord, Settled, Settlement, Verdict, WorkerId, WorkerInfo, WorkerOrder,
};
use qudo::hook::FailureKind;
use qudo::{Job, JobId, Manager, JobResult};

use crate::abilities::{echo, no_argument, other_echo};
use crate::{Bed, DEADLINE, Log, eventually, rescue_silent};
use crate::work::exceptions;

/// Claims jobs of an ability in queue `default` for a worker that is not this process.
pub fn claim_as_stranger(bed: &Bed, ability: &str, limit: u32) -> (WorkerId, Vec<ClaimedJob>) {
    claim_for(bed, ability, limit, Duration::from_secs(3600))
}

fn claim_for(
    bed: &Bed,
    ability: &str,
    limit: u32,
    grab_for: Duration,
) -> (WorkerId, Vec<ClaimedJob>) {
    claim_with_promise(bed, ability, limit, grab_for, Duration::from_millis(400))
}

fn claim_with_promise(
    bed: &Bed,
    ability: &str,
    limit: u32,
    grab_for: Duration,
    dead_after: Duration,
) -> (WorkerId, Vec<ClaimedJob>) {
    let worker = WorkerInfo::new("stranger", dead_after);
    let driver = bed.driver();
    assert!(!driver.heartbeat(&worker).expect("beats"), "unknown before");
    assert!(driver.heartbeat(&worker).expect("beats"), "known now");
    let request = ClaimRequest {
        worker: worker.id,
        claim: 1,
        queue: &"default".into(),
        abilities: &[AbilityLease { name: ability.into(), grab_for }],
        limit,
        deadline: Deadline::NONE,
        thorough: true,
    };
    (worker.id, driver.claim(&request).expect("claims"))
}

fn enqueue(manager: &Manager, bed: &Bed, count: usize) -> Vec<JobId> {
    let jobs = (0..count).map(|n| echo::job(n.to_string()).database(bed.first()));
    let answers = manager.enqueue_many(jobs).expect("stored");
    answers.iter().map(|answer| answer.id().expect("new")).collect()
}

pub fn every_job_is_worked_once_by_many_threads(bed: &Bed) {
    let (manager, log) = bed.with(|builder| builder.ability::<echo>().workers(8));
    let jobs = (0..3_000).map(|n| echo::job(n.to_string()));
    assert_eq!(manager.enqueue_many(jobs).expect("stored").len(), 3_000);
    let working = manager.start().expect("starts");
    eventually("all are worked", || log.lines().len() >= 3_000);
    working.stop();
    let mut lines: Vec<u32> = log.lines().iter().map(|line| line.parse().expect("n")).collect();
    lines.sort_unstable();
    assert_eq!(lines, (0..3_000).collect::<Vec<_>>());
    let left: u64 = manager
        .job_count()
        .into_iter()
        .flat_map(|on| on.answer.expect("up"))
        .map(|row| row.count)
        .sum();
    assert_eq!(left, 0);
    assert!(exceptions(&manager).is_empty());
}

pub fn two_managers_share_the_work_and_nothing_runs_twice(bed: &Bed) {
    let (one, log_one) = bed.with(|builder| builder.ability::<echo>().workers(2));
    let (two, log_two) = bed.with(|builder| builder.ability::<echo>().workers(2));
    let running = [one.start().expect("starts"), two.start().expect("starts")];
    for part in 0..10 {
        let jobs = (0..100).map(|n| echo::job((part * 100 + n).to_string()));
        assert_eq!(one.enqueue_many(jobs).expect("stored").len(), 100);
    }
    eventually("all are worked", || log_one.lines().len() + log_two.lines().len() >= 1_000);
    for handle in running {
        assert_eq!(handle.lost_leases(), 0);
        handle.stop();
    }
    let mut runs: HashMap<String, u32> = HashMap::new();
    for line in log_one.lines().into_iter().chain(log_two.lines()) {
        *runs.entry(line).or_default() += 1;
    }
    assert_eq!(runs.len(), 1_000);
    assert!(runs.values().all(|count| *count == 1));
}

pub fn a_delayed_job_starts_when_it_is_due(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    let working = manager.start().expect("starts");
    let begun = Instant::now();
    let job = echo::job("due".to_owned()).delay(Duration::from_millis(300));
    let sent = manager.enqueue(job).expect("stored");
    sent.wait_as::<String>(DEADLINE).expect("runs");
    assert!(begun.elapsed() >= Duration::from_millis(295), "{:?}", begun.elapsed());
    assert_eq!(log.lines(), ["due"]);
    working.stop();
}

pub fn an_idle_worker_starts_a_new_job_at_once(bed: &Bed) {
    // An hour between looks: only a wake-up can start the job before the deadline.
    let (manager, _) =
        bed.with(|builder| builder.ability::<echo>().delay(Duration::from_secs(3600)));
    let working = manager.start().expect("starts");
    for n in 0..5 {
        let sent = manager.enqueue(echo::job(n.to_string())).expect("stored");
        sent.wait_as::<String>(DEADLINE).expect("woken up");
    }
    // From another manager, as from another process.
    let client = bed.builder().build().expect("valid");
    for n in 0..5 {
        let sent = client.enqueue(echo::job(n.to_string())).expect("stored");
        sent.wait_as::<String>(DEADLINE).expect("woken up");
    }
    working.stop();
}

/// A gate that jobs wait at until their test opens it.
#[derive(Debug, Default)]
pub struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    pub fn open(&self) {
        *self.open.lock().expect("no panic") = true;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let open = self.open.lock().expect("no panic");
        let waited = self.changed.wait_timeout_while(open, DEADLINE, |open| !*open);
        assert!(*waited.expect("no panic").0, "the gate was never opened");
    }
}

static GATES: LazyLock<Mutex<HashMap<String, Arc<Gate>>>> = LazyLock::new(Mutex::default);

pub fn gate(name: &str) -> Arc<Gate> {
    Arc::clone(GATES.lock().expect("no panic").entry(name.to_owned()).or_default())
}

#[qudo::ability]
pub fn waits(job: &Job, at: String) -> JobResult {
    job.plugin::<Log>()?.add("started");
    gate(&at).pass();
    job.plugin::<Log>()?.add("passed");
    Ok(())
}

pub fn unstarted_jobs_are_given_back_at_shutdown_with_the_attempt_unspent(bed: &Bed) {
    let (manager, log) =
        bed.with(|builder| builder.ability::<waits>().workers(1).find_job_limit_size(10));
    let name = JobId::new().to_string();
    // Short jobs first, so that more are fetched ahead than the one thread can start.
    gate(&name).open();
    let jobs = (0..200).map(|_| waits::job(name.clone()).database(bed.first()));
    manager.enqueue_many(jobs).expect("stored");
    let working = manager.start().expect("starts");
    eventually("some are worked", || log.lines().len() > 20);
    working.stop();
    let passed = log.lines().iter().filter(|line| *line == "passed").count();
    let jobs = manager.jobs(&JobFilter::all(), &Paging::default().limit(1_000));
    let left: Vec<_> = jobs.into_iter().flat_map(|on| on.answer.expect("up")).collect();
    assert_eq!(passed + left.len(), 200);
    for job in left {
        assert_eq!((job.state, job.attempt), (JobState::Ready, 0));
    }
    let workers = bed.driver().workers().expect("answers");
    assert!(workers.is_empty(), "the worker's row is removed: {workers:?}");
}

pub fn a_running_job_finishes_before_shutdown(bed: &Bed) {
    let (manager, log) = bed.with(|builder| builder.ability::<waits>().workers(1));
    let name = JobId::new().to_string();
    let sent = manager.enqueue(waits::job(name.clone())).expect("stored");
    let working = manager.start().expect("starts");
    eventually("it runs", || log.lines() == ["started"]);
    let stopping = std::thread::spawn(move || working.stop());
    gate(&name).open();
    stopping.join().expect("stops");
    assert_eq!(log.lines(), ["started", "passed"]);
    sent.wait_as::<()>(Duration::ZERO).expect("settled before the stop returned");
}

pub fn a_job_that_outlives_the_stop_is_settled_when_it_ends(bed: &Bed) {
    const DEAD_AFTER: Duration = Duration::from_secs(4);
    let (manager, log) = bed.with(|builder| {
        let builder = builder.ability::<waits>().workers(2).heartbeat(DEAD_AFTER / 20, DEAD_AFTER);
        builder.shutdown_timeout(Duration::from_millis(100))
    });
    let name = JobId::new().to_string();
    let job = waits::job(name.clone()).database(bed.first());
    let sent = manager.enqueue(job).expect("stored");
    let working = manager.start().expect("starts");
    eventually("it runs", || log.lines() == ["started"]);
    working.stop();
    // Others would rescue it now, did its process say no more that it lives.
    let driver = bed.driver();
    let until = Instant::now() + DEAD_AFTER + DEAD_AFTER / 4;
    while Instant::now() < until {
        assert!(rescue_silent(&*driver, DEAD_AFTER).is_empty());
        std::thread::park_timeout(Duration::from_millis(200));
    }
    gate(&name).open();
    sent.wait_as::<()>(DEADLINE).expect("settled");
    assert_eq!(log.lines(), ["started", "passed"]);
    eventually("the worker's row is removed", || driver.workers().expect("answers").is_empty());
    assert!(exceptions(&manager).is_empty());
}

pub fn several_queues_are_served_in_turn(bed: &Bed) {
    let (manager, log) = bed.with(|builder| {
        builder.ability::<echo>().ability::<other_echo>().workers(1).find_job_limit_size(5)
    });
    let jobs = (0..300).map(|n| echo::job(n.to_string()).database(bed.first()));
    manager.enqueue_many(jobs).expect("stored");
    let jobs = (0..10).map(|n| other_echo::job(n.to_string()).database(bed.first()));
    manager.enqueue_many(jobs).expect("stored");
    let working = manager.start().expect("starts");
    eventually("all are worked", || log.lines().len() == 310);
    working.stop();
    let lines = log.lines();
    let last = lines.iter().rposition(|line| line.starts_with("other")).expect("worked");
    assert!(last < 250, "the small queue waited for the full one: position {last}");
}

pub fn jobs_of_a_silent_worker_are_rescued_and_the_late_settle_changes_nothing(bed: &Bed) {
    let (manager, log) = bed.with(|builder| {
        builder.ability::<echo>().heartbeat(Duration::from_millis(50), Duration::from_millis(400))
    });
    let ids = enqueue(&manager, bed, 3);
    let (stranger, claimed) = claim_as_stranger(bed, "echo", 2);
    assert_eq!(claimed.len(), 2);
    // The stranger says nothing more.
    let working = manager.start().expect("starts");
    eventually("all are worked", || log.lines().len() == 3);
    eventually("all are settled", || {
        ids.iter().all(|id| manager.lookup(*id).expect("answers").is_none())
    });
    working.stop();
    let mut rows = exceptions(&manager);
    rows.sort_by_key(|row| row.job);
    assert_eq!(rows.len(), 2);
    for (row, id) in rows.iter().zip(&ids) {
        assert_eq!((row.job, row.kind, row.attempt), (*id, FailureKind::Crash, 1));
        assert!(!row.discarded && row.worker == stranger, "{row:?}");
    }
    let late = settlements(claimed, Verdict::Complete);
    let answers = bed.driver().settle(stranger, &late).expect("answers");
    assert_eq!(answers, [Settled::LeaseLost, Settled::LeaseLost]);
    let known = bed.driver().workers().expect("answers");
    assert!(known.iter().all(|one| one.info.id != stranger), "the dead worker's row is gone");
}

/// A fleet in which two settings meet, as in a rolling deploy.
pub fn the_promise_of_a_worker_counts_and_not_the_setting_of_who_rescues(bed: &Bed) {
    let promised = Duration::from_secs(4);
    let (patient, log) =
        bed.with(|builder| builder.ability::<waits>().workers(1).heartbeat(promised / 4, promised));
    let name = JobId::new().to_string();
    patient.enqueue(waits::job(name.clone()).database(bed.first())).expect("stored");
    let working = patient.start().expect("starts");
    eventually("it runs", || log.lines() == ["started"]);
    let short = Duration::from_millis(400);
    let (hasty, stolen) =
        bed.with(|builder| builder.ability::<waits>().workers(1).heartbeat(short / 8, short));
    let other = hasty.start().expect("starts");
    // Long enough for the hasty one to have missed several beats of the patient one.
    let until = Instant::now() + promised + promised / 4;
    while Instant::now() < until {
        assert!(stolen.lines().is_empty(), "the job of a living worker was taken");
        std::thread::park_timeout(short / 4);
    }
    gate(&name).open();
    eventually("it ends", || log.lines() == ["started", "passed"]);
    working.stop();
    other.stop();
    assert!(exceptions(&patient).is_empty());
    // The other way round: who promised little is found dead by one who promises much.
    let (slow, log) =
        bed.with(|builder| builder.ability::<echo>().workers(1).heartbeat(promised / 4, promised));
    enqueue(&slow, bed, 1);
    let (_, claimed) = claim_as_stranger(bed, "echo", 1);
    assert_eq!(claimed.len(), 1);
    let working = slow.start().expect("starts");
    eventually("the job of the silent stranger is rescued", || log.lines().len() == 1);
    working.stop();
    assert_eq!(exceptions(&slow).len(), 1);
}

fn settlements(claimed: Vec<ClaimedJob>, verdict: Verdict) -> Vec<Settlement> {
    let settle = |job| Settlement { job: Box::new(job), verdict, extras: None };
    claimed.into_iter().map(settle).collect()
}

pub fn a_lease_that_ends_gives_the_job_to_another(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let id = enqueue(&manager, bed, 1)[0];
    let (stranger, claimed) = claim_for(bed, "echo", 1, Duration::from_millis(50));
    let day = Duration::from_secs(86_400);
    let mut rescued = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    while rescued.is_empty() && Instant::now() < deadline {
        rescued = rescue_silent(&*bed.driver(), day);
    }
    assert_eq!(rescued.len(), 1);
    assert_eq!((rescued[0].id, rescued[0].kind), (id, FailureKind::LeaseExpired));
    let answers = bed.driver().settle(stranger, &settlements(claimed, Verdict::Complete));
    assert_eq!(answers.expect("answers"), [Settled::LeaseLost]);
    let job = manager.lookup(id).expect("answers").expect("lives").1;
    assert_eq!((job.state, job.attempt), (JobState::Ready, 1), "the attempt is spent");
}

pub fn a_job_that_outlives_its_workers_ends_in_the_exception_log(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    let id = enqueue(&manager, bed, 1)[0];
    for crash in 1..=6 {
        let (_, claimed) = claim_as_stranger(bed, "echo", 1);
        assert_eq!((claimed[0].attempt, claimed[0].crashes), (crash, crash - 1));
        // Silent for longer than nothing: dead.
        let driver = bed.driver();
        eventually("the stranger is declared dead", || {
            !rescue_silent(&*driver, Duration::ZERO).is_empty()
        });
    }
    manager.work_once().expect("works").expect("the job is claimed and given up");
    assert!(log.lines().is_empty(), "it did not run");
    let last = exceptions(&manager).remove(0);
    assert_eq!((last.job, last.kind, last.discarded), (id, FailureKind::Crash, true));
}

pub fn a_claim_whose_answer_was_lost_is_released(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let ids = enqueue(&manager, bed, 4);
    let (stranger, claimed) = claim_as_stranger(bed, "echo", 3);
    assert_eq!(claimed.len(), 3);
    assert_eq!(bed.driver().release_claim(stranger, 2).expect("answers"), 0, "another claim");
    assert_eq!(bed.driver().release_claim(stranger, 1).expect("answers"), 3);
    for id in ids {
        let job = manager.lookup(id).expect("answers").expect("lives").1;
        assert_eq!((job.state, job.attempt), (JobState::Ready, 0));
    }
}

/// Also where an idle worker sleeps until it is told of something.
pub fn what_another_process_gives_back_starts_at_once(bed: &Bed) {
    let (manager, log) =
        bed.with(|builder| builder.ability::<echo>().delay(Duration::from_secs(3_600)).workers(1));
    let driver = bed.driver();
    let held: Vec<_> = (0..3)
        .map(|_| {
            let id = enqueue(&manager, bed, 1)[0];
            let hour = Duration::from_secs(3_600);
            let (stranger, claimed) = claim_with_promise(bed, "echo", 1, hour, hour);
            assert_eq!(claimed[0].id, id);
            (stranger, claimed)
        })
        .collect();
    let working = manager.start().expect("starts");
    let last = manager.enqueue(echo::job("last".to_owned()).database(bed.first()));
    assert!(last.expect("stored").is_new());
    eventually("it is idle", || log.lines().len() == 1);
    for (done, (stranger, claimed)) in held.into_iter().enumerate() {
        match done {
            0 => drop(driver.settle(stranger, &settlements(claimed, Verdict::GiveBack))),
            1 => drop(driver.release_claim(stranger, 1)),
            _ => drop(driver.remove_worker(stranger)),
        }
        eventually("it runs here", || log.lines().len() == done + 2);
    }
    working.stop();
}

pub fn a_settle_that_is_repeated_changes_nothing(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let id = enqueue(&manager, bed, 1)[0];
    let (stranger, claimed) = claim_as_stranger(bed, "echo", 1);
    let driver = bed.driver();
    let snooze = settlements(claimed, Verdict::Snooze(Duration::ZERO));
    assert_eq!(driver.settle(stranger, &snooze).expect("answers"), [Settled::Done]);
    // The same worker claims the job anew, and the attempt is the same: it was not spent.
    let request = ClaimRequest {
        worker: stranger,
        claim: 2,
        queue: &"default".into(),
        abilities: &[AbilityLease { name: "echo".into(), grab_for: DEADLINE }],
        limit: 1,
        deadline: Deadline::NONE,
        thorough: true,
    };
    let second = driver.claim(&request).expect("claims");
    assert_eq!((second[0].id, second[0].attempt), (id, 1));
    // The first settle, repeated because its answer was lost, must not end the second run.
    assert_eq!(driver.settle(stranger, &snooze).expect("answers"), [Settled::LeaseLost]);
    let state = driver.state(id).expect("answers");
    assert!(matches!(state, Some(JobState::Running { .. })), "{state:?}");
    let done = settlements(second, Verdict::Complete);
    assert_eq!(driver.settle(stranger, &done).expect("answers"), [Settled::Done]);
    assert!(driver.state(id).expect("answers").is_none());
}

pub fn two_claims_of_one_job_in_one_settle_are_told_apart(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let id = enqueue(&manager, bed, 1)[0];
    let (stranger, first) = claim_as_stranger(bed, "echo", 1);
    let driver = bed.driver();
    assert_eq!(driver.release_claim(stranger, 1).expect("answers"), 1);
    let request = ClaimRequest {
        worker: stranger,
        claim: 2,
        queue: &"default".into(),
        abilities: &[AbilityLease { name: "echo".into(), grab_for: DEADLINE }],
        limit: 1,
        deadline: Deadline::NONE,
        thorough: true,
    };
    let second = driver.claim(&request).expect("claims");
    let plain = settlements(first.clone(), Verdict::Complete);
    let answers = driver.settle(stranger, &plain).expect("answers");
    assert_eq!(answers, [Settled::LeaseLost]);
    let mut group = settlements(first, Verdict::Complete);
    let reply = ReplyRecord { codec: "json".into(), body: b"1".to_vec() };
    group[0].extras = Some(Box::new(Extras { replies: vec![reply], ..Extras::default() }));
    group.extend(settlements(second, Verdict::Retry(Duration::ZERO)));
    let answers = driver.settle(stranger, &group).expect("answers");
    assert_eq!(answers, [Settled::LeaseLost, Settled::Done]);
    assert!(driver.remains(id).expect("answers").replies.is_empty(), "the lost run leaves no reply");
    let third = driver.claim(&ClaimRequest { claim: 3, ..request }).expect("claims");
    assert_eq!(third[0].id, id, "the job is there with its facts");
    // Where all are completed and bring nothing there is a shorter way.
    let mut group = settlements(vec![group.swap_remove(0).job.as_ref().clone()], Verdict::Complete);
    group.extend(settlements(third, Verdict::Complete));
    let answers = driver.settle(stranger, &group).expect("answers");
    assert_eq!(answers, [Settled::LeaseLost, Settled::Done]);
    assert!(driver.state(id).expect("answers").is_none());
}

pub fn a_group_of_large_ends_is_stored(bed: &Bed) {
    const SIZE: usize = 5 * 1024 * 1024;
    let (manager, _) = bed.manager::<echo>();
    let large = || echo::job("x".repeat(SIZE)).database(bed.first());
    for _ in 0..6 {
        assert!(manager.enqueue(large()).expect("stored").is_new());
    }
    let (stranger, claimed) = claim_as_stranger(bed, "echo", 6);
    assert_eq!(claimed.len(), 6);
    let mut group = settlements(claimed, Verdict::Discard);
    for (n, settlement) in group.iter_mut().enumerate() {
        let message = "too large".to_owned();
        let exception = ExceptionRecord::new(FailureKind::Error, message);
        let reply = ReplyRecord { codec: "json".into(), body: vec![b'x'; SIZE] };
        let replies = if n % 2 == 0 { vec![reply] } else { Vec::new() };
        let exception = (n % 2 == 1).then_some(exception);
        settlement.extras = Some(Box::new(Extras { exception, replies, ..Extras::default() }));
    }
    let answers = bed.driver().settle(stranger, &group).expect("stored");
    assert!(answers.iter().all(|answer| *answer == Settled::Done));
    assert_eq!(bed.driver().remains(group[0].job.id).expect("reads").replies[0].body.len(), SIZE);
    assert_eq!(exceptions(&manager).len(), 3);
}

pub fn what_is_completed_among_others_leaves_the_others_alone(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    // Ids of another queue lie in between, as do those of another worker below.
    let job = |n: usize| {
        let job = echo::job(n.to_string()).database(bed.first());
        if n % 40 == 39 { job.queue("elsewhere") } else { job }
    };
    let stored = manager.enqueue_many((0..300).map(job)).expect("stored");
    let ids: Vec<JobId> = stored.iter().map(|answer| answer.id().expect("new")).collect();
    let (one, ours) = claim_as_stranger(bed, "echo", 100);
    let (_, theirs) = claim_as_stranger(bed, "echo", 20);
    let (two, more) = claim_as_stranger(bed, "echo", 80);
    assert_eq!((ours.len(), theirs.len(), more.len()), (100, 20, 80));
    let driver = bed.driver();
    let mut gone = std::collections::HashSet::new();
    let mut complete = |worker, jobs: Vec<&ClaimedJob>| {
        let done = settlements(jobs.into_iter().cloned().collect(), Verdict::Complete);
        let answers = driver.settle(worker, &done).expect("answers");
        for (settlement, answer) in done.iter().zip(&answers) {
            let was_ours = *answer == Settled::Done;
            assert_eq!(gone.insert(settlement.job.id), was_ours, "a job ends once");
        }
        answers
    };
    let all_done = |answers: Vec<Settled>| answers.iter().all(|answer| *answer == Settled::Done);
    // A piece with two gaps, one with too many of them, and the rest with those that are done.
    let gaps = |(at, _): &(usize, &ClaimedJob)| *at < 64 && *at != 10 && *at != 20;
    let first: Vec<_> = ours.iter().enumerate().filter(gaps).map(|(_, job)| job).collect();
    assert!(all_done(complete(one, first.clone())));
    assert!(all_done(complete(one, ours[64..].iter().step_by(2).collect())));
    let answers = complete(one, ours.iter().collect());
    assert_eq!(answers.iter().filter(|answer| **answer == Settled::Done).count(), 2 + 18);
    // Two claims' worth in one group; what is not the worker's is not touched.
    assert!(all_done(complete(two, more[..40].iter().rev().collect())));
    let foreign = settlements(theirs.clone(), Verdict::Complete);
    let answers = driver.settle(two, &foreign).expect("answers");
    assert!(answers.iter().all(|answer| *answer == Settled::LeaseLost));
    let running: std::collections::HashSet<_> =
        theirs.iter().chain(&more[40..]).map(|job| job.id).collect();
    for id in ids {
        match driver.state(id).expect("answers") {
            None => assert!(gone.contains(&id), "{id} was lost"),
            Some(JobState::Running { .. }) => assert!(running.contains(&id)),
            Some(JobState::Ready) => assert!(!gone.contains(&id) && !running.contains(&id)),
            other => panic!("{id}: {other:?}"),
        }
    }
    assert_eq!(gone.len(), 100 + 40);
}

pub fn long_jobs_are_not_hoarded(bed: &Bed) {
    let name = JobId::new().to_string();
    let (one, log_one) = bed.with(|builder| builder.ability::<waits>().workers(1));
    let (two, log_two) = bed.with(|builder| builder.ability::<waits>().workers(1));
    let jobs = (0..2).map(|_| waits::job(name.clone()).database(bed.first()));
    one.enqueue_many(jobs).expect("stored");
    let first = one.start().expect("starts");
    eventually("one runs", || log_one.lines() == ["started"]);
    // The first has no free thread, so the second job must be free for another process.
    let second = two.start().expect("starts");
    eventually("the other runs elsewhere", || log_two.lines() == ["started"]);
    gate(&name).open();
    first.stop();
    second.stop();
    let _ = no_argument::job();
}

/// A manager that hears of orders soon.
fn attentive(bed: &Bed) -> (Manager, Log) {
    bed.with(|builder| builder.ability::<echo>().heartbeat(Duration::from_millis(200), DEADLINE))
}

pub fn a_worker_that_is_ordered_to_be_quiet_claims_nothing_until_it_may(bed: &Bed) {
    let (manager, log) = attentive(bed);
    let working = manager.start().expect("starts");
    manager.enqueue(echo::job("before".to_owned())).expect("stored").wait_done(DEADLINE).expect("runs");
    let (operator, _) = bed.manager::<echo>();
    let id = working.worker();
    let answers = operator.order_worker(id, WorkerOrder::Quiet, true);
    assert!(answers.iter().all(|on| matches!(on.answer, Ok(true))), "{answers:?}");
    let unknown = operator.order_worker(WorkerId::new(), WorkerOrder::Quiet, true);
    assert!(unknown.iter().all(|on| matches!(on.answer, Ok(false))), "{unknown:?}");
    let orders = || {
        let all = operator.worker_orders().into_iter();
        all.flat_map(|on| on.answer.expect("answers")).collect::<Vec<_>>()
    };
    assert!(!orders().is_empty() && orders().iter().all(|one| *one == (id, WorkerOrder::Quiet)));
    // From a heartbeat that began after the order on, nothing is claimed.
    let beats = || {
        let seen = bed.driver().workers().expect("answers");
        seen.iter().find(|one| one.info.id == id).map(|one| one.seen_at)
    };
    for _ in 0..2 {
        let before = beats();
        eventually("it beats", || beats() > before);
    }
    let waits = manager.enqueue(echo::job("waits".to_owned())).expect("stored");
    let held = waits.wait_done(Duration::from_millis(700));
    assert!(matches!(held, Err(qudo::Error::WaitTimeout { .. })), "{held:?}");
    assert_eq!(log.lines(), ["before"]);
    assert!(!working.is_asked_to_stop());
    operator.order_worker(id, WorkerOrder::Quiet, false);
    waits.wait_done(DEADLINE).expect("runs now");
    assert!(orders().is_empty());
    working.stop();
}

pub fn a_worker_that_is_ordered_to_stop_claims_nothing_and_is_asked(bed: &Bed) {
    let (manager, log) = attentive(bed);
    let working = manager.start().expect("starts");
    let id = working.worker();
    eventually("each database knows it", || {
        let orders = manager.order_worker(id, WorkerOrder::Stop, true);
        orders.iter().all(|on| matches!(on.answer, Ok(true)))
    });
    working.wait_until_asked();
    assert!(working.is_asked_to_stop());
    working.stop();
    // Its order goes with the next one.
    let (next, _) = attentive(bed);
    let working = next.start().expect("starts");
    manager.enqueue(echo::job("next".to_owned())).expect("stored").wait_done(DEADLINE).expect("runs");
    next.order_worker(working.worker(), WorkerOrder::Quiet, false);
    let left: usize = next.worker_orders().into_iter().map(|on| on.answer.expect("answers").len()).sum();
    assert_eq!(left, 0);
    assert!(log.lines().is_empty(), "the first one took nothing");
    working.stop();
}
