use std::time::Duration;

use qudo::driver::{
    AbilityLease, ClaimRequest, ClaimedJob, Deadline, Driver, Due, ExceptionRecord, ExceptionScan,
    Extras, Flags, Inserted, JobFacts, JobRecord, Redrive, Settled, Settlement, Verdict,
    WorkerInfo,
};
use qudo::hook::{FailureKind, Hook, HookError, JobDraft, JobView};
use qudo::{Job, JobId, JobResult};
use uuid::Uuid;

use crate::abilities::{echo, other_echo};
use crate::{Bed, Log, departed, eventually, run_all};

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
    assert_eq!(driver.jobs(&[stored.id], true).expect("reads")[0].facts, stored.facts);
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
    let row = driver.scan_exceptions(&ExceptionScan::all(30)).expect("reads").remove(0);
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
        let leaving = from.move_out("there", Uuid::now_v7(), None, 9).expect("moves");
        assert_eq!((&leaving[0].record.facts, leaving[0].flags), (&stored.facts, Flags::KEYED));
        to.move_in("here", &leaving).expect("moves");
        from.moved_out(&departed(&leaving)).expect("moves");
        to.moved_in(&departed(&leaving)).expect("moves");
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

/// Hands its work on once, and notes what its metadata says.
#[qudo::ability(max_retries = 0)]
fn carries(job: &Job, left: u32) -> JobResult {
    let meta = job.meta();
    let tags: Vec<_> = meta.tags().collect();
    job.plugin::<Log>()?.add(format!("{left} {:?} {:?} {tags:?}", meta.get("tenant"), meta.get("step")));
    if left == 0 {
        return Err(qudo::abort("enough"));
    }
    job.replace(carries::job(left - 1).meta("step", left - 1));
    Ok(())
}

/// Adds to the metadata, and notes what it sees of it.
struct Marks(Log);

impl Hook for Marks {
    fn name(&self) -> &'static str {
        "marks"
    }
    fn pre_enqueue(&self, job: &mut JobDraft<'_>) -> Result<(), HookError> {
        job.meta_mut().tag("marked");
        Ok(())
    }
    fn pre_work(&self, job: &JobView<'_>) -> Result<(), HookError> {
        self.0.add(format!("sees {:?}", job.meta().get("tenant")));
        Ok(())
    }
}

pub fn metadata_reaches_hooks_and_the_job_and_is_inherited(bed: &Bed) {
    let seen = Log::default();
    let (manager, log) =
        bed.with(|builder| builder.ability::<carries>().hook(Marks(seen.clone())));
    let job = carries::job(1).database(bed.first()).meta("tenant", 7).meta("step", 1).tag("eu");
    let id = manager.enqueue(job).expect("stored").id().expect("new");
    let stored = manager.lookup(id).expect("answers").expect("lives").1.facts.meta;
    let text = stored.expect("has some");
    assert_eq!(&*text, r#"{"step":1,"tags":["eu","marked"],"tenant":7}"#);
    assert_eq!(run_all(&manager), 2);
    let told = |left: u32| {
        let number = |n: u32| format!("Some(Number({n}))");
        format!("{left} {} {} {:?}", number(7), number(left), ["eu", "marked"])
    };
    assert_eq!(log.lines(), [told(1), told(0)]);
    assert_eq!(seen.lines(), ["sees Some(Number(7))", "sees Some(Number(7))"]);
    // And by the job that it is enqueued as again.
    let row = crate::work::exceptions(&manager).remove(0);
    manager.redrive(row.id).expect("redrives");
    assert_eq!(run_all(&manager), 1);
    assert_eq!(log.lines(), [told(1), told(0), told(0)]);
}

pub fn metadata_that_cannot_be_stored_is_refused(bed: &Bed) {
    let (manager, _) = bed.with(|builder| builder.ability::<echo>());
    let job = || echo::job("x".to_owned());
    for (job, says) in [
        (job().meta("tags", 1), "list of tags"),
        (job().meta("", 1), "name of metadata"),
        (job().tag("nul\0"), "tag"),
        (job().meta("large", "x".repeat(70_000)), "65536"),
    ] {
        let error = manager.enqueue(job).expect_err(says).to_string();
        assert!(error.contains(says), "{error}");
    }
    let odd = job().meta("ä \" '\u{1f600}", serde_json::json!({"a": [1, null]})).tag("köln");
    let id = manager.enqueue(odd).expect("stored").id().expect("new");
    let meta = manager.lookup(id).expect("answers").expect("lives").1.facts.meta;
    let meta = qudo::Meta::from_text(meta.as_deref());
    assert_eq!(meta.get("ä \" '\u{1f600}"), Some(&serde_json::json!({"a": [1, null]})));
    assert!(meta.has_tag("köln"));
}
