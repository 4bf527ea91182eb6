use std::time::Duration;

use qudo::driver::{
    AbilityLease, ClaimRequest, ClaimedJob, Deadline, Driver, Due, ExceptionFilter, ExceptionRecord,
    Extras, Flags, Inserted, JobFacts, JobFilter, JobRecord, Redrive, Settled, Settlement, Verdict,
    WorkerInfo,
};
use qudo::hook::FailureKind;
use qudo::{JobId, JobResult};
use uuid::Uuid;

use crate::abilities::{echo, other_echo};
use crate::{Bed, eventually};

fn record(due: Due) -> JobRecord {
    let facts = JobFacts {
        uniqkey: Some("k".to_owned()),
        priority: -3,
        meta: Some(r#"{"trace":"a1","ä":1}"#.into()),
        ..JobFacts::new("echo", "default", "json", b"\"x\"".to_vec())
    };
    JobRecord { id: JobId::new(), facts, due }
}

/// Claims the only job that there is for this process.
fn claim(driver: &dyn Driver, worker: &WorkerInfo, number: i64) -> ClaimedJob {
    let request = ClaimRequest {
        worker: worker.id,
        claim: number,
        queue: &"default".into(),
        abilities: &[AbilityLease { name: "echo".into(), grab_for: Duration::from_secs(3600) }],
        limit: 9,
        deadline: Deadline::NONE,
        thorough: true,
    };
    let mut claimed = driver.claim(&request).expect("claims");
    assert_eq!(claimed.len(), 1);
    claimed.remove(0)
}

fn end(
    driver: &dyn Driver,
    worker: &WorkerInfo,
    job: ClaimedJob,
    verdict: Verdict,
    exception: Option<ExceptionRecord>,
) {
    let extras = Some(Box::new(Extras { exception, ..Extras::default() }));
    let settlement = Settlement { job: Box::new(job), verdict, extras };
    let settled = driver.settle(worker.id, &[settlement]).expect("settles");
    assert_eq!(settled, [Settled::Done]);
}

fn worker(driver: &dyn Driver) -> WorkerInfo {
    let worker = WorkerInfo {
        version: Some("1.2.3".into()),
        ..WorkerInfo::new("host:1", Duration::from_secs(3600))
    };
    driver.heartbeat(&worker).expect("beats");
    worker
}

pub fn what_a_job_is_stays_the_same_until_its_end(bed: &Bed) {
    let driver = &*bed.driver();
    let worker = worker(driver);
    let stored = record(Due::Now);
    assert_eq!(driver.insert(std::slice::from_ref(&stored), Deadline::NONE).expect("stores"), [Inserted::New]);
    let mut number = 0;
    let mut claimed = || {
        number += 1;
        let job = claim(driver, &worker, number);
        assert_eq!(job.facts, stored.facts);
        assert_eq!(job.flags, Flags::KEYED);
        job
    };
    assert_eq!(driver.lookup(stored.id).expect("reads").expect("lives").facts, stored.facts);
    assert_eq!(driver.list(&JobFilter::default()).expect("reads")[0].facts, stored.facts);
    // Ready again at once, and by way of the jobs that wait.
    end(driver, &worker, claimed(), Verdict::GiveBack, None);
    end(driver, &worker, claimed(), Verdict::Retry(Duration::ZERO), None);
    end(driver, &worker, claimed(), Verdict::Snooze(Duration::from_millis(1)), None);
    eventually("it is due", || driver.promote_due(9).expect("promotes").moved == 1);
    let job = claimed();
    driver.release_claim(worker.id, job.claim).expect("releases");
    // Discarded, and enqueued again from the log.
    let failed = worker.failed(FailureKind::Abort, "no");
    end(driver, &worker, claimed(), Verdict::Discard, Some(failed));
    let row = driver.exceptions(&ExceptionFilter::default()).expect("reads").remove(0);
    assert_eq!(row.facts, stored.facts);
    let new = JobId::new();
    assert_eq!(driver.redrive(row.id, new).expect("redrives"), Redrive::Enqueued(new));
    assert_eq!(claimed().id, new);
}

pub fn a_job_that_moves_takes_what_it_is_with_it(bed: &Bed) {
    let (from, to) = (bed.driver(), bed.another());
    let to = to.driver();
    for due in [Due::Now, Due::In(Duration::from_millis(1))] {
        let stored = JobRecord { id: JobId::new(), ..record(due) };
        from.insert(std::slice::from_ref(&stored), Deadline::NONE).expect("stores");
        let leaving = from.move_out("there", None, 9).expect("moves");
        assert_eq!((&leaving[0].record.facts, leaving[0].flags), (&stored.facts, Flags::KEYED));
        to.move_in("here", Uuid::now_v7(), &leaving).expect("moves");
        from.moved_out(&[stored.id]).expect("moves");
        to.moved_in(&[stored.id]).expect("moves");
        let worker = worker(&*to);
        eventually("it is due", || {
            to.promote_due(9).expect("promotes");
            to.depth(9).expect("counts").ready.count == 1
        });
        let job = claim(&*to, &worker, 1);
        assert_eq!((&job.facts, job.flags), (&stored.facts, Flags::KEYED));
        end(&*to, &worker, job, Verdict::Complete, None);
        assert_eq!(to.holder("echo", "k").expect("reads"), None, "the key is free");
        assert_eq!(from.holder("echo", "k").expect("reads"), None, "here too");
    }
}

pub fn a_job_with_nothing_beside_it_says_so(bed: &Bed) {
    let driver = &*bed.driver();
    let worker = worker(driver);
    let facts = JobFacts::new("echo", "default", "json", b"1".to_vec());
    let stored = JobRecord { id: JobId::new(), facts, due: Due::Now };
    driver.insert(std::slice::from_ref(&stored), Deadline::NONE).expect("stores");
    let job = claim(driver, &worker, 1);
    assert_eq!((job.facts, job.flags), (stored.facts, Flags::NONE));
}

/// An error of a type of its own.
#[derive(Debug)]
struct NoSuchUser;

impl std::fmt::Display for NoSuchUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no such user")
    }
}

impl std::error::Error for NoSuchUser {}

#[qudo::ability]
fn greets() -> JobResult {
    Err(NoSuchUser)?
}

pub fn the_log_says_which_error_in_which_version_of_which_process(bed: &Bed) {
    let (manager, _) = bed.with(|builder| builder.ability::<greets>().version("4.5.6"));
    manager.enqueue(greets::job()).expect("stored");
    manager.work_once().expect("works");
    let row = crate::work::exceptions(&manager).remove(0);
    assert!(row.class.as_deref().is_some_and(|class| class.ends_with("NoSuchUser")), "{row:?}");
    assert_eq!(row.version.as_deref(), Some("4.5.6"));
    let name = row.worker_name.expect("is known");
    assert!(name.contains(&std::process::id().to_string()), "{name}");
}

pub fn a_worker_says_what_it_serves(bed: &Bed) {
    let (manager, _) = bed
        .with(|builder| builder.ability::<echo>().ability::<other_echo>().version("7").workers(1));
    let seen = || {
        let seen = manager.workers().into_iter().flat_map(|on| on.answer.expect("answers"));
        seen.map(|one| one.info).collect::<Vec<_>>()
    };
    let working = manager.start().expect("starts");
    eventually("each database knows it", || seen().len() == bed.databases.len());
    for info in seen() {
        assert_eq!(info.abilities.iter().map(|one| &**one).collect::<Vec<_>>(), [
            "echo",
            "other-echo"
        ]);
        let queues: Vec<_> = info.queues.iter().map(|one| &**one).collect();
        assert_eq!(queues, ["default", "other"]);
        assert_eq!(info.version.as_deref(), Some("7"));
    }
    working.stop();
}
