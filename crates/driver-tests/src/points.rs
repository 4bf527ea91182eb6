use std::sync::Arc;
use std::time::Duration;

use qudo::admin::{ExceptionFilter, Paging};
use qudo::driver::{Driver, JobInside};
use qudo::hook::{Hook, HookError, JobDraft, JobView, WorkerView};
use qudo::plugin::{Plugin, PluginError, PluginNeed};
use qudo::{Error, JobId, JobResult, Manager, ManagerBuilder, Outcome};

use crate::abilities::{echo, gives_way, sleepy, splits, stumble};
use crate::{Bed, DEADLINE, Log, run_all, eventually};

/// Notes what it is told, and whether the job lives at that moment.
struct Notes {
    log: Log,
    driver: Arc<dyn Driver>,
}

impl Notes {
    fn of(bed: &Bed) -> (Self, Log) {
        let log = Log::default();
        (Self { log: log.clone(), driver: bed.driver() }, log)
    }

    fn lives(&self, id: JobId) -> bool {
        self.driver.state(id).expect("answers").is_some()
    }
}

impl Hook for Notes {
    fn name(&self) -> &'static str {
        "notes"
    }
    fn pre_enqueue(&self, job: &mut JobDraft<'_>) -> Result<(), HookError> {
        self.log.add(format!("drafted {}", job.ability()));
        Ok(())
    }
    fn post_enqueue(&self, job: &JobView<'_>) {
        let lives = self.lives(job.id());
        self.log.add(format!("enqueued {} {} {lives}", job.ability(), job.arg().len()));
    }
    fn post_settle(&self, job: &JobView<'_>, outcome: &Outcome) {
        let (lives, end) = (self.lives(job.id()), outcome.as_str());
        let why = outcome.failure().map(|failure| failure.message().to_owned());
        self.log.add(format!("settled {} {} {end} {why:?} {lives}", job.ability(), job.attempt()));
    }
}

fn since(log: &Log, before: usize) -> Vec<String> {
    let mut lines = log.lines().split_off(before);
    lines.retain(|line| !line.starts_with("drafted"));
    lines
}

pub fn post_settle_is_told_of_each_end_when_it_is_committed(bed: &Bed) {
    let (hook, told) = Notes::of(bed);
    let (manager, log) =
        bed.with(|builder| builder.ability::<stumble>().ability::<sleepy>().hook(hook));
    manager.enqueue(stumble::job(1).database(bed.first())).expect("stored");
    let before = told.lines().len();
    run_all(&manager);
    let retried = "settled stumble 1 retried Some(\"stumbled at attempt 1\") true";
    assert_eq!(since(&told, before), [retried, "settled stumble 2 completed None false"]);
    manager.enqueue(stumble::job(9).database(bed.first())).expect("stored");
    let before = told.lines().len();
    run_all(&manager);
    let last = since(&told, before).pop();
    let failed = "settled stumble 3 failed Some(\"stumbled at attempt 3\") false";
    assert_eq!(last.as_deref(), Some(failed));
    // And by the threads of a service; one that is put off spends no attempt.
    let working = manager.start().expect("starts");
    let (before, woke) = (told.lines().len(), log.lines().len());
    let sent = manager.enqueue(sleepy::job().database(bed.first())).expect("stored");
    sent.wait(DEADLINE).expect("wakes up at last");
    eventually("the end is told", || since(&told, before).len() > 1);
    working.stop();
    let lines = since(&told, before);
    assert_eq!(lines.last().map(String::as_str), Some("settled sleepy 1 completed None false"));
    let snoozed = lines.iter().filter(|line| line.contains("snoozed")).count();
    assert_eq!(snoozed + 1, log.lines().len() - woke, "{lines:?}");
}

#[qudo::ability]
fn robbed(job: &qudo::Job) -> JobResult {
    // Its lease ends, and another process takes the job back while it runs.
    let rescue = || job.driver().rescue(&[], true, 10).expect("answers");
    eventually("its lease ends", || rescue().iter().any(|one| one.id == job.id()));
    Ok(())
}

pub fn a_run_whose_lease_was_lost_is_not_told_as_settled(bed: &Bed) {
    let (hook, told) = Notes::of(bed);
    let brief = Duration::from_millis(1);
    let (manager, _) = bed.with(|builder| builder.ability::<robbed>().hook(hook).grab_for(brief));
    manager.enqueue(robbed::job().database(bed.first())).expect("stored");
    let before = told.lines().len();
    manager.work_once().expect("works");
    let left = manager.job_count().into_iter().flat_map(|on| on.answer.expect("answers"));
    assert_eq!((left.count(), since(&told, before)), (1, Vec::new()));
}

pub fn jobs_that_replace_another_are_told_to_hooks_when_they_are_stored(bed: &Bed) {
    let (hook, told) = Notes::of(bed);
    let (manager, _) = bed.with(|builder| {
        builder.ability::<splits>().ability::<echo>().ability::<gives_way>().hook(hook)
    });
    manager.enqueue(splits::job(false).database(bed.first())).expect("stored");
    let before = told.lines().len();
    manager.work_once().expect("works");
    assert_eq!(
        since(&told, before),
        [
            "enqueued echo 6 true",
            "enqueued echo 7 true",
            "settled splits 1 replaced None false"
        ]
    );
    run_all(&manager);
    // Of two that replace a job the key of one is taken.
    let held = gives_way::job(0).uniqkey("taken").delay(Duration::from_secs(60));
    manager.enqueue(held.database(bed.first())).expect("stored");
    manager.enqueue(gives_way::job(1).database(bed.first())).expect("stored");
    let before = told.lines().len();
    manager.work_once().expect("works");
    assert_eq!(
        since(&told, before),
        ["enqueued gives_way 1 true", "settled gives_way 1 replaced None false"]
    );
}

pub fn a_redrive_and_a_move_call_no_hook_of_the_enqueue(bed: &Bed) {
    let (hook, told) = Notes::of(bed);
    let other = bed.another();
    let (manager, _) = bed.with(|builder| {
        let builder = builder.ability::<stumble>().hook(hook);
        builder.database_as("other", &other.databases[0].1)
    });
    manager.migrate().expect("migrates");
    manager.enqueue(stumble::job(9).database(bed.first())).expect("stored");
    run_all(&manager);
    let failed = manager.exceptions(&ExceptionFilter::discarded(), &Paging::default());
    let row = failed.rows().map(|(_, row)| row.id).next().expect("failed");
    let before = told.lines().len();
    manager.redrive(row).expect("redrives");
    manager.move_jobs(bed.first(), "other").expect("moves");
    assert_eq!(told.lines().len(), before, "{:?}", told.lines());
    run_all(&manager);
    assert!(since(&told, before)[0].starts_with("settled stumble 1"), "its runs are told");
}

pub fn the_spool_calls_the_hooks_of_the_enqueue_once(bed: &Bed) {
    let (hook, told) = Notes::of(bed);
    let spool = bed.spool();
    let dsn = &spool.databases[0].1;
    let (manager, _) = bed.with(|builder| builder.ability::<echo>().hook(hook).spool(dsn, 9));
    for (name, _) in &bed.databases {
        manager.drain(name).expect("drains");
    }
    manager.enqueue(echo::job("later".to_owned())).expect("spooled");
    assert_eq!(told.lines(), ["drafted echo", "enqueued echo 7 false"], "it is in the spool");
    for (name, _) in &bed.databases {
        manager.undrain(name).expect("undrains");
    }
    eventually("it is forwarded", || {
        manager.spool().expect("answers").expect("set").waiting == 0
    });
    assert_eq!(told.lines().len(), 2);
}

/// Nobody has it.
struct Absent;

#[qudo::ability(plugins = [Absent])]
fn wants(_job: &qudo::Job) -> JobResult {
    Ok(())
}

struct Wants;

impl Hook for Wants {
    fn name(&self) -> &'static str {
        "wants"
    }
    fn needs(&self) -> Vec<PluginNeed> {
        vec![PluginNeed::of::<Absent>()]
    }
}

pub fn a_service_does_not_start_without_a_plugin_that_is_needed(bed: &Bed) {
    let refused = |manager: &Manager, by: &str| {
        let started = manager.start().map(drop).expect_err("it lacks a plugin");
        let once = manager.work_once().expect_err("it lacks a plugin");
        for error in [started, once] {
            assert!(matches!(error, Error::Plugin(PluginError::Needed { .. })), "{error}");
            let text = error.to_string();
            assert!(text.starts_with(by) && text.contains("Absent"), "{text}");
        }
    };
    let (manager, _) = bed.with(|builder| builder.ability::<wants>());
    manager.enqueue(wants::job()).expect("a client needs no plugin");
    refused(&manager, "the ability \"wants\"");
    let (manager, _) = bed.with(|builder| builder.ability::<echo>().hook(Wants));
    refused(&manager, "the hook \"wants\"");
    let (manager, _) = bed.with(|builder| builder.ability::<wants>().hook(Wants).plugin(Absent));
    manager.start().expect("it has all").stop();
}

/// Asks for the plugin at each point.
struct Asks;

impl Hook for Asks {
    fn name(&self) -> &'static str {
        "asks"
    }
    fn pre_enqueue(&self, job: &mut JobDraft<'_>) -> Result<(), HookError> {
        job.plugin::<Log>()?.add("pre_enqueue");
        match job.plugin::<Absent>() {
            Ok(_) => Err(HookError::new("nobody gave it one")),
            Err(_) => Ok(()),
        }
    }
    fn post_enqueue(&self, job: &JobView<'_>) {
        job.plugin::<Log>().expect("is there").add("post_enqueue");
    }
    fn pre_work(&self, job: &JobView<'_>) -> Result<(), HookError> {
        job.plugin::<Log>()?.add("pre_work");
        Ok(())
    }
    fn post_settle(&self, job: &JobView<'_>, _: &Outcome) {
        job.plugin::<Log>().expect("is there").add("post_settle");
    }
}

pub fn hooks_reach_plugins_from_the_draft_to_the_end(bed: &Bed) {
    let (manager, log) = bed.with(|builder| builder.ability::<echo>().hook(Asks));
    manager.enqueue(echo::job("runs".to_owned())).expect("stored");
    run_all(&manager);
    assert_eq!(log.lines(), ["pre_enqueue", "post_enqueue", "pre_work", "runs", "post_settle"]);
}

/// A plugin that lives as long as the work.
struct Pump(Log);

impl Plugin for Pump {
    const NAME: &'static str = "pump of the behaviours";
    type Options = ();

    fn build((): ()) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self(Log::default()))
    }

    fn start(&self, _: &WorkerView<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.0.add("pump starts");
        Ok(())
    }

    fn stop(&self, _: &WorkerView<'_>) {
        self.0.add("pump stops");
    }
}

/// Lives with the process and with each thread.
struct Lives(Log);

impl Hook for Lives {
    fn name(&self) -> &'static str {
        "lives"
    }
    fn worker_start(&self, worker: &WorkerView<'_>) -> Result<(), HookError> {
        let pump = worker.plugin::<Pump>()?;
        pump.0.lines().iter().for_each(|line| self.0.add(line.clone()));
        self.0.add("worker starts");
        Ok(())
    }
    fn worker_stop(&self, worker: &WorkerView<'_>) {
        let stopped = worker.plugin::<Pump>().map_or(0, |pump| pump.0.lines().len() - 1);
        self.0.add(format!("worker stops before {stopped} plugins"));
    }
    fn thread_start(&self, _: &WorkerView<'_>) {
        self.0.add("thread starts");
    }
    fn thread_stop(&self, _: &WorkerView<'_>) {
        self.0.add("thread stops");
    }
}

pub fn a_service_starts_and_stops_its_plugins_hooks_and_threads(bed: &Bed) {
    let lines = Log::default();
    let manager = |give: fn(ManagerBuilder) -> ManagerBuilder| {
        let hook = Lives(lines.clone());
        bed.with(|builder| give(builder.ability::<echo>().workers(2).hook(hook)))
    };
    let built = manager(|builder| builder.plugin_from::<Pump>(()));
    let given = manager(|builder| builder.live_plugin(Pump(Log::default())));
    for (manager, log) in [&built, &given, &built] {
        let before = lines.lines().len();
        let working = manager.start().expect("starts");
        let sent = manager.enqueue(echo::job("works".to_owned())).expect("stored");
        sent.wait(DEADLINE).expect("works");
        working.stop();
        assert!(log.lines().contains(&"works".to_owned()));
        let told = lines.lines().split_off(before);
        let first: Vec<_> = told.iter().take_while(|line| !line.starts_with("thread")).collect();
        assert_eq!(first.last().map(|line| &***line), Some("worker starts"), "{told:?}");
        let threads = |what| told.iter().filter(|line| **line == what).count();
        assert_eq!((threads("thread starts"), threads("thread stops")), (2, 2), "{told:?}");
        assert!(told.last().is_some_and(|line| line.starts_with("worker stops before")));
    }
    let refuses = bed.with(|builder| builder.ability::<echo>().hook(Lives(Log::default())));
    for _ in 0..2 {
        let error = refuses.0.start().map(drop).expect_err("it has no pump");
        assert!(matches!(error, Error::HookNotStarted { .. }), "{error}");
    }
}
