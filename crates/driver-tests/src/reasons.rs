use std::time::Duration;

use qudo::admin::{Ending, Explanation, Part, Reason};
use qudo::driver::{
    AbilityLease, Bounded, ClaimRequest, Deadline, Driver, Due, MemoryDriver, WorkerId,
    WorkerInfo,
};
use qudo::{Error, JobId, Manager};

use crate::abilities::{double, echo, give_up, no_argument, noted, other_echo, replies, slow_retry};
use crate::work::exceptions;
use crate::{Bed, eventually, run_all};

const HOUR: Duration = Duration::from_secs(3_600);

fn why(manager: &Manager, id: JobId) -> Explanation {
    let explanation = manager.why(id).expect("all answer");
    assert_eq!(explanation.job, id);
    explanation
}

fn reason(manager: &Manager, id: JobId) -> Reason {
    why(manager, id).reason
}

fn ahead(count: u64) -> Reason {
    Reason::Queued { ahead: Bounded { count, more: false } }
}

/// A worker process that says that it has these abilities and serves these queues.
fn worker(driver: &dyn Driver, abilities: &[&str], queues: &[&str], dead_after: Duration) -> WorkerInfo {
    let worker = WorkerInfo {
        abilities: abilities.iter().map(|&name| name.into()).collect(),
        queues: queues.iter().map(|&name| name.into()).collect(),
        ..WorkerInfo::new("host:1", dead_after)
    };
    driver.heartbeat(&worker).expect("beats");
    worker
}

fn claim(driver: &dyn Driver, worker: WorkerId) {
    let claimed = driver.claim(&ClaimRequest {
        worker,
        claim: 1,
        queue: &"default".into(),
        abilities: &[AbilityLease { name: "echo".into(), grab_for: HOUR }],
        limit: 1,
        deadline: Deadline::NONE,
        thorough: true,
    });
    assert_eq!(claimed.expect("claims").len(), 1);
}

pub fn a_ready_job_waits_for_a_worker_that_has_its_ability_and_serves_its_queue(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let job = echo::job("it".to_owned()).database(bed.first());
    let id = manager.enqueue(job).expect("stored").id().expect("id");
    let driver = &*bed.driver();
    let told = why(&manager, id);
    assert_eq!((told.database.as_deref(), told.reason), (Some(bed.first()), Reason::NoWorker));
    assert_eq!(told.info.map(|info| info.id), Some(id));
    worker(driver, &["echo"], &["default"], Duration::ZERO);
    // By the database's clock, which may count milliseconds.
    eventually("it is silent for longer than it promised", || reason(&manager, id) == Reason::NoWorker);
    worker(driver, &["double"], &["default"], HOUR);
    assert_eq!(reason(&manager, id), Reason::NoWorkerHasAbility);
    worker(driver, &["echo"], &["other"], HOUR);
    assert_eq!(reason(&manager, id), Reason::NoWorkerServesQueue);
    worker(driver, &["echo"], &["default"], HOUR);
    assert_eq!(reason(&manager, id), ahead(0));
    manager.pause(bed.first()).expect("pauses");
    assert_eq!(reason(&manager, id), Reason::DatabasePaused);
}

pub fn the_jobs_ahead_are_those_that_a_claim_takes_first(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let driver = &*bed.driver();
    worker(driver, &["echo", "other-echo"], &["default", "other"], HOUR);
    let send = |priority| {
        let job = echo::job(String::new()).database(bed.first()).priority(priority);
        manager.enqueue(job).expect("stored").id().expect("id")
    };
    let (first, second, urgent, idle) = (send(0), send(0), send(7), send(-1));
    let elsewhere = other_echo::job(String::new()).database(bed.first()).priority(9);
    let elsewhere = manager.enqueue(elsewhere).expect("stored").id().expect("id");
    for (id, count) in [(urgent, 0), (first, 1), (second, 2), (idle, 3), (elsewhere, 0)] {
        assert_eq!(reason(&manager, id), ahead(count), "{id}");
    }
    let last = driver.lookup(idle).expect("answers").expect("lives");
    let bounded = driver.ahead(&last, 2).expect("answers");
    assert_eq!(bounded, Bounded { count: 2, more: true });
}

pub fn a_job_that_is_not_due_waits_for_its_time_or_for_its_next_attempt(bed: &Bed) {
    let (manager, _) = bed.manager::<slow_retry>();
    let later = slow_retry::job().delay(HOUR);
    let id = manager.enqueue(later).expect("stored").id().expect("id");
    assert!(matches!(reason(&manager, id), Reason::NotDue { .. }));
    manager.reschedule(id, Due::Now).expect("answers");
    assert!(manager.work_once().expect("works").is_some());
    // A retry that is due soon: put off, so that this test need not hurry.
    manager.reschedule(id, Due::In(HOUR)).expect("answers");
    let told = why(&manager, id);
    assert!(matches!(told.reason, Reason::Retrying { .. }), "{:?}", told.reason);
    let failure = told.failure.expect("it failed");
    assert_eq!((failure.attempt, &*failure.message), (1, "once"));
}

pub fn a_running_job_is_in_the_hands_of_a_worker_that_lives_or_is_silent(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let driver = &*bed.driver();
    let living = worker(driver, &["echo"], &["default"], HOUR);
    let silent = worker(driver, &["echo"], &["default"], Duration::ZERO);
    let is_silent = || driver.workers().expect("answers").iter().any(|one| !one.is_live());
    eventually("it is silent for longer than it promised", is_silent);
    for holder in [living.id, silent.id, WorkerId::new()] {
        let job = echo::job(String::new()).database(bed.first());
        let id = manager.enqueue(job).expect("stored").id().expect("id");
        claim(driver, holder);
        match reason(&manager, id) {
            Reason::Running { worker, name, .. } => {
                assert_eq!((worker, name.as_deref()), (living.id, Some("host:1")));
                assert_eq!(holder, living.id);
            }
            Reason::WorkerSilent { worker, name, silent: since, .. } => {
                assert_eq!(worker, holder);
                assert_eq!((name.is_some(), since.is_some()), (holder == silent.id, holder == silent.id));
                assert_ne!(holder, living.id);
            }
            other => panic!("{other:?}"),
        }
    }
}

pub fn a_job_that_completed_is_told_as_far_as_it_left_anything(bed: &Bed) {
    let (manager, _) = bed.with(|builder| {
        builder.ability::<replies>().ability::<noted>().ability::<no_argument>()
    });
    let sent = [
        (manager.enqueue(replies::job()).expect("stored").id(), Reason::Completed { replies: 3 }),
        (manager.enqueue(noted::job()).expect("stored").id(), Reason::Completed { replies: 0 }),
        (manager.enqueue(no_argument::job()).expect("stored").id(), Reason::Unknown),
        (Some(JobId::new()), Reason::Unknown),
    ];
    run_all(&manager);
    for (id, expected) in sent {
        let told = why(&manager, id.expect("id"));
        assert_eq!(told.database.is_none(), expected == Reason::Unknown);
        assert_eq!(told.reason, expected);
    }
}

pub fn a_job_that_failed_for_good_tells_of_its_redrive_or_of_the_key_that_forbids_it(bed: &Bed) {
    let (manager, _) = bed.manager::<give_up>();
    let send = || manager.enqueue(give_up::job().uniqkey("k")).expect("stored").id().expect("id");
    let failed = send();
    run_all(&manager);
    let told = why(&manager, failed);
    let free = Reason::Failed { redriven_as: None, key_held_by: None };
    assert_eq!((told.reason, &*told.failure.expect("it failed").message), (free.clone(), "no such user"));
    let holder = send();
    let held = Reason::Failed { redriven_as: None, key_held_by: Some(holder) };
    assert_eq!(reason(&manager, failed), held);
    assert!(manager.dequeue(holder).expect("answers"));
    assert_eq!(reason(&manager, failed), free);
    assert_eq!(reason(&manager, holder), Reason::Removed { ending: Ending::Removed });
    let again = manager.redrive(exceptions(&manager).remove(0).id).expect("free").id();
    let told = reason(&manager, failed);
    assert!(matches!(told, Reason::Failed { redriven_as: Some(id), .. } if id == again), "{told:?}");
}

pub fn a_job_that_was_moved_is_explained_where_it_went(bed: &Bed) {
    let other = bed.another();
    let dsn = &other.databases[0].1;
    let (both, _) = bed.with(|builder| builder.ability::<double>().database_as("other", dsn));
    let job = double::job(1).database(bed.first());
    let id = both.enqueue(job).expect("stored").id().expect("id");
    both.move_jobs(bed.first(), "other").expect("moves");
    let told = why(&both, id);
    assert_eq!((told.database.as_deref(), told.reason), (Some("other"), Reason::NoWorker));
    // Who does not have the other database is told which one it is.
    let (old, _) = bed.manager::<double>();
    let identity = other.driver().identity().expect("answers").to_string();
    assert_eq!(reason(&old, id), Reason::Moved { to: identity });
    run_all(&both);
    let Reason::Completed { replies: 1 } = reason(&both, id) else { panic!("it replied there") };
}

pub fn a_job_on_its_way_and_a_job_in_the_spool_say_so(bed: &Bed) {
    let (manager, _) = bed.manager::<double>();
    let job = double::job(1).database(bed.first());
    let id = manager.enqueue(job).expect("stored").id().expect("id");
    bed.driver().move_out("there", uuid::Uuid::now_v7(), None, 9).expect("moves");
    assert_eq!(reason(&manager, id), Reason::Moving);
    let spool = bed.spool();
    let (manager, _) = bed.with(|builder| builder.spool(&spool.databases[0].1, 3));
    for (name, _) in &bed.databases {
        manager.drain(name).expect("drains");
    }
    match manager.enqueue(double::job(2)) {
        Ok(sent) => {
            let told = why(&manager, sent.id().expect("id"));
            assert_eq!((told.database.as_deref(), told.reason), (Some("spool"), Reason::Spooled));
        }
        Err(error) => panic!("{error}"),
    }
}

pub fn a_database_that_does_not_answer_hides_only_its_own_jobs(bed: &Bed) {
    let faulty = qudo::testing::FaultyDriver::new(std::sync::Arc::new(MemoryDriver::default()))
        .with_fault(|call| match call {
            "state" => Err(qudo::driver::DriverError::new(qudo::driver::ErrorKind::Down, "away")),
            _ => Ok(()),
        });
    let (manager, _) = bed.with(|builder| builder.driver("away", std::sync::Arc::new(faulty)));
    let job = double::job(1).database(bed.first());
    let id = manager.enqueue(job).expect("stored").id().expect("id");
    assert_eq!(reason(&manager, id), Reason::NoWorker);
    let error = manager.why(JobId::new()).expect_err("the one that is away may know it");
    assert!(matches!(&error, Error::DatabaseDown { .. } | Error::Database { .. }), "{error:?}");
    assert!(error.to_string().contains("away"), "{error}");
}

pub fn a_job_of_a_paused_queue_or_ability_says_by_which_order_it_waits(bed: &Bed) {
    let (manager, _) = bed.manager::<double>();
    let job = || double::job(1).database(bed.first());
    let id = manager.enqueue(job()).expect("stored").id().expect("id");
    let later = manager.enqueue(job().delay(Duration::from_secs(3_600))).expect("stored").id().expect("id");
    for part in [Part::Queue("def*".to_owned()), Part::Ability("double".to_owned())] {
        manager.pause_part(&part, Some(bed.first()), "by hand").expect("valid");
        let Reason::PartPaused(pause) = reason(&manager, id) else { panic!("{part}") };
        assert_eq!((&pause.part, &*pause.reason), (&part, "by hand"));
        assert!(matches!(reason(&manager, later), Reason::NotDue { .. }), "that comes first");
        manager.resume_part(&part, Some(bed.first())).expect("valid");
        assert!(!matches!(reason(&manager, id), Reason::PartPaused(_)));
    }
}
