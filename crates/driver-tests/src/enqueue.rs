use std::collections::HashSet;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use qudo::driver::{Due, JobState};
use qudo::{Enqueued, Error, JobId, Manager, ManagerBuilder, NewJob};
use serde_json::json;

use crate::abilities::{double, echo, no_argument, other_echo, stumble};
use crate::{Bed, run_all, eventually};

fn id<R>(enqueued: &Enqueued<R>) -> JobId {
    enqueued.id().expect("not suppressed")
}

pub fn a_job_is_stored_looked_up_and_worked_once(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    let job = id(&manager.enqueue(echo::job("hello".to_owned())).expect("stored"));
    let (_, found) = manager.lookup(job).expect("answers").expect("lives");
    assert_eq!((found.id, &*found.facts.ability, &*found.facts.queue), (job, "echo", "default"));
    assert_eq!((found.attempt, found.facts.priority, found.state), (0, 0, JobState::Ready));
    assert_eq!(found.facts.arg, b"\"hello\"");
    let age = Utc::now() - found.enqueued_at;
    assert!(age.abs() < TimeDelta::minutes(1), "enqueued {age} ago");
    assert_eq!(run_all(&manager), 1);
    assert_eq!(log.lines(), ["hello"]);
    assert!(manager.lookup(job).expect("answers").is_none(), "a finished job is gone");
}

pub fn arguments_of_every_shape_arrive_as_they_were_sent(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    let large = "x".repeat(500_000);
    let shapes =
        ["", "äöü € 🦀", "it's \"quoted\" \\ and\nbroken ? $1 %s", "nul \0 inside", &large];
    for shape in shapes {
        let sent = manager.enqueue(echo::job(shape.to_owned())).expect("stored");
        manager.work_once().expect("works");
        let back: String = sent.wait(Duration::from_secs(5)).expect("replies");
        assert_eq!(back, shape);
    }
    assert_eq!(log.lines().len(), shapes.len());
}

pub fn a_client_that_does_not_link_the_ability_enqueues_by_name_with_json(bed: &Bed) {
    let client = bed.builder().build().expect("valid");
    let sent = client.enqueue(NewJob::named("double", json!(21))).expect("stored");
    let (manager, _) = bed.manager::<double>();
    assert_eq!(run_all(&manager), 1);
    assert_eq!(sent.wait_as::<i64>(Duration::from_secs(5)).expect("replies"), 42);
}

pub fn higher_priority_runs_first_and_equals_run_in_order(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    for (name, priority) in [
        ("low", -5),
        ("first", 0),
        ("second", 0),
        ("high", 7),
        ("lowest", i32::MIN),
        ("top", i32::MAX),
    ] {
        let job = echo::job(name.to_owned()).priority(priority).database(bed.first());
        assert!(manager.enqueue(job).expect("stored").is_new());
    }
    assert_eq!(run_all(&manager), 6);
    assert_eq!(log.lines(), ["top", "high", "first", "second", "low", "lowest"]);
}

pub fn a_delayed_job_waits_until_it_is_due(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    let delay = Duration::from_millis(300);
    let job = id(&manager.enqueue(echo::job("later".to_owned()).delay(delay)).expect("stored"));
    assert_eq!(run_all(&manager), 0);
    let (_, found) = manager.lookup(job).expect("answers").expect("lives");
    assert!(matches!(found.state, JobState::Scheduled { .. }), "{:?}", found.state);
    eventually("the job is due", || run_all(&manager) == 1);
    assert_eq!(log.lines(), ["later"]);
}

pub fn a_job_due_in_the_past_runs_at_once(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    let past = Utc::now() - TimeDelta::days(3);
    assert!(
        manager.enqueue(echo::job("late".to_owned()).run_after(past)).expect("stored").is_new()
    );
    assert_eq!(run_all(&manager), 1);
    assert_eq!(log.lines(), ["late"]);
}

pub fn a_key_that_a_live_job_holds_is_not_stored_again(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    let job = || echo::job("once".to_owned()).uniqkey("cat.jpg");
    let first = manager.enqueue(job()).expect("stored");
    let second = manager.enqueue(job()).expect("answers");
    assert!(first.is_new() && !second.is_new());
    assert_eq!(id(&first), id(&second));
    // Keys that only look alike are others.
    for other in ["CAT.jpg", "cat.jpg ", " cat.jpg", "cat.jpg\u{301}"] {
        assert!(manager.enqueue(job().uniqkey(other)).expect("stored").is_new(), "{other:?}");
    }
    let holder = manager.holder("echo", "cat.jpg").expect("answers").expect("held");
    assert_eq!(holder.1, id(&first));
    assert_eq!(run_all(&manager), 5);
    assert_eq!(log.lines().len(), 5);
}

pub fn a_key_is_free_again_when_its_job_is_done_failed_or_dequeued(bed: &Bed) {
    let (manager, _) = bed.with(|builder| builder.ability::<echo>().ability::<stumble>());
    let done = || echo::job("x".to_owned()).uniqkey("k");
    assert!(manager.enqueue(done()).expect("stored").is_new());
    run_all(&manager);
    let again = manager.enqueue(done()).expect("stored");
    assert!(again.is_new(), "free after completion");
    assert!(manager.dequeue(id(&again)).expect("answers"));
    assert!(manager.enqueue(done()).expect("stored").is_new(), "free after dequeue");
    let failing = || stumble::job(9).uniqkey("k");
    assert!(manager.enqueue(failing()).expect("stored").is_new());
    run_all(&manager);
    assert!(manager.enqueue(failing()).expect("stored").is_new(), "free after the last failure");
}

pub fn one_key_for_two_abilities_is_two_keys(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    assert!(manager.enqueue(echo::job("x".to_owned()).uniqkey("k")).expect("stored").is_new());
    assert!(
        manager.enqueue(other_echo::job("x".to_owned()).uniqkey("k")).expect("stored").is_new()
    );
}

pub fn a_key_stays_held_while_its_job_waits_for_a_retry(bed: &Bed) {
    let (manager, _) = bed.manager::<stumble>();
    let job = || stumble::job(1).uniqkey("k");
    let first = manager.enqueue(job()).expect("stored");
    manager.work_once().expect("works").expect("failed once");
    let second = manager.enqueue(job()).expect("answers");
    assert_eq!((second.is_new(), id(&second)), (false, id(&first)));
    run_all(&manager);
    assert!(manager.enqueue(job()).expect("stored").is_new());
}

pub fn threads_that_race_for_a_key_store_one_job(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    for round in 0..5 {
        let barrier = Barrier::new(6);
        let new: usize = std::thread::scope(|scope| {
            let race = || {
                barrier.wait();
                let job = echo::job("raced".to_owned()).uniqkey(format!("key {round}"));
                usize::from(manager.enqueue(job).expect("answers").is_new())
            };
            let racers: Vec<_> = (0..6).map(|_| scope.spawn(race)).collect();
            racers.into_iter().map(|racer| racer.join().expect("no panic")).sum()
        });
        assert_eq!(new, 1);
    }
    run_all(&manager);
    assert_eq!(log.lines().len(), 5);
}

pub fn an_id_enqueued_twice_is_stored_once(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    let fixed = JobId::new();
    for key in [None, Some("key")] {
        let fixed = key.map_or(fixed, |_| JobId::new());
        for _ in 0..3 {
            let mut job = echo::job("once".to_owned()).with_id(fixed).database(bed.first());
            if let Some(key) = key {
                job = job.uniqkey(key);
            }
            assert_eq!(id(&manager.enqueue(job).expect("stored or there")), fixed);
        }
    }
    assert_eq!(run_all(&manager), 2);
    assert_eq!(log.lines().len(), 2);
}

pub fn many_jobs_are_stored_at_once_and_conflicts_are_told_one_by_one(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    let held = manager.enqueue(echo::job("held".to_owned()).uniqkey("5")).expect("stored");
    let jobs = (0..2_500).map(|n| {
        let job = echo::job(format!("{n}"));
        // Every tenth has a key; key 5 is held, key 7 comes twice.
        match n {
            50 => job.uniqkey("5"),
            70 | 71 => job.uniqkey("7"),
            n if n % 10 == 0 => job.uniqkey(format!("key {n}")),
            _ => job,
        }
    });
    let answers = manager.enqueue_many(jobs).expect("stored");
    assert_eq!(answers.len(), 2_500);
    let old: Vec<_> = (0..2_500).filter(|n| !answers[*n].is_new()).collect();
    assert_eq!(old, [50, 71]);
    assert_eq!(answers[50].id(), held.id());
    assert_eq!(answers[71].id(), answers[70].id());
    let working = manager.start().expect("starts");
    eventually("all are worked", || log.lines().len() == 2_499);
    working.stop();
    let distinct: HashSet<_> = log.lines().into_iter().collect();
    assert_eq!(distinct.len(), 2_499);
    assert!(manager.enqueue_many([] as [NewJob; 0]).expect("nothing to do").is_empty());
}

pub fn a_suppressed_job_is_not_stored(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    let answer = manager.enqueue(echo::job("x".to_owned()).suppress()).expect("no error");
    assert!(matches!(answer, Enqueued::Suppressed));
    assert_eq!(run_all(&manager), 0);
    assert!(log.lines().is_empty());
}

pub fn a_job_for_a_named_database_goes_there_and_an_unknown_name_is_refused(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    for (name, _) in &bed.databases {
        let job = echo::job("x".to_owned()).database(name.clone());
        let job = id(&manager.enqueue(job).expect("stored"));
        assert_eq!(&manager.lookup(job).expect("answers").expect("lives").0, name);
    }
    let error =
        manager.enqueue(echo::job("x".to_owned()).database("nowhere")).expect_err("unknown");
    assert!(error.to_string().contains("nowhere") && error.to_string().contains(bed.first()));
}

pub fn a_bulk_of_jobs_for_all_places_goes_where_each_alone_would_go(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let names: Vec<_> = bed.databases.iter().map(|(name, _)| name.clone()).collect();
    let job = |n: usize| {
        let (job, name) = (echo::job(n.to_string()), names[n % names.len()].clone());
        match n % 5 {
            0 => job,
            1 => job.uniqkey(format!("key {n}")),
            2 => job.database(name),
            3 => job.database(name).uniqkey(format!("key {n}")),
            _ => job.suppress(),
        }
    };
    let answers = manager.enqueue_many((0..100).map(job)).expect("stored");
    assert_eq!(answers.len(), 100);
    let mut anywhere = HashSet::new();
    for (n, answer) in answers.iter().enumerate() {
        if n % 5 == 4 {
            assert!(matches!(answer, Enqueued::Suppressed));
            continue;
        }
        let (place, info) = manager.lookup(id(answer)).expect("answers").expect("lives");
        assert_eq!(answer.ticket().expect("stored").database(), Some(&*place));
        match n % 5 {
            0 => drop(anywhere.insert(place)),
            // The home of a key is the same whatever else is in the bulk.
            1 => {
                assert_eq!(info.facts.uniqkey, Some(format!("key {n}")));
                let again = manager.enqueue(job(n)).expect("answers");
                assert_eq!((again.is_new(), again.id()), (false, answer.id()));
            }
            _ => assert_eq!(place, names[n % names.len()]),
        }
    }
    assert_eq!(anywhere.len(), 1, "those that may go anywhere go together");
}

pub fn what_cannot_be_stored_is_refused_by_name(bed: &Bed) {
    let (manager, _) = bed.with(|builder| builder.ability::<echo>().max_arg_size(1_000));
    let job = || echo::job("x".to_owned()).untyped();
    let cases: Vec<(NewJob, &str)> = vec![
        (job().queue(" spaced"), "queue"),
        (job().queue("nul\0"), "queue"),
        (job().queue("q".repeat(101)), "queue"),
        (NewJob::named("", json!(null)), "ability"),
        (job().uniqkey(""), "unique key"),
        (job().uniqkey("nul\0"), "unique key"),
        (job().uniqkey("k".repeat(501)), "unique key"),
        (echo::job("x".repeat(1_000)).untyped(), "1002 bytes"),
        (job().codec("sealing-wax"), "sealing-wax"),
        (job().delay(Duration::MAX), "delay"),
    ];
    for (job, named) in cases {
        let error = manager.enqueue(job).expect_err(named);
        let mut text = error.to_string();
        if let Some(cause) = std::error::Error::source(&error) {
            text.push_str(&cause.to_string());
        }
        assert!(text.contains(named), "{text}");
    }
    // Nothing of a bulk is stored when one of it cannot be.
    let bulk = [job(), job().uniqkey("nul\0")];
    assert!(matches!(manager.enqueue_many(bulk), Err(Error::InvalidName { .. })));
    assert_eq!(run_all(&manager), 0);
}

pub fn a_waiting_job_can_be_dequeued_and_a_running_one_cannot(bed: &Bed) {
    let (manager, log) = bed.manager::<no_argument>();
    let ready = id(&manager.enqueue(no_argument::job()).expect("stored"));
    let delayed = no_argument::job().delay(Duration::from_secs(3600)).uniqkey("k");
    let delayed = id(&manager.enqueue(delayed).expect("stored"));
    assert!(manager.dequeue(ready).expect("answers"));
    assert!(manager.dequeue(delayed).expect("answers"));
    assert!(!manager.dequeue(ready).expect("answers"), "already gone");
    assert_eq!(run_all(&manager), 0);
    assert!(log.lines().is_empty());
    let running = id(&manager.enqueue(no_argument::job().database(bed.first())).expect("stored"));
    crate::session::claim_as_stranger(bed, "no_argument", 1);
    assert!(!manager.dequeue(running).expect("answers"), "running");
    assert!(manager.lookup(running).expect("answers").is_some());
}

pub fn reenqueue_changes_when_a_waiting_job_runs(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    let job = id(&manager.enqueue(echo::job("x".to_owned())).expect("stored"));
    let hour = Duration::from_secs(3600);
    assert!(manager.reschedule(job, Due::In(hour)).expect("answers"));
    assert_eq!(run_all(&manager), 0);
    let (_, found) = manager.lookup(job).expect("answers").expect("lives");
    let JobState::Scheduled { run_after } = found.state else { panic!("{:?}", found.state) };
    let left = run_after - Utc::now();
    assert!(left > TimeDelta::minutes(58) && left < TimeDelta::minutes(62), "{left}");
    assert!(manager.reschedule(job, Due::Now).expect("answers"));
    assert_eq!(run_all(&manager), 1);
    assert_eq!(log.lines(), ["x"]);
    assert!(!manager.reschedule(job, Due::Now).expect("answers"), "gone");
}

pub fn jobs_are_counted_by_ability_and_state(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let count = |manager: &Manager, ability: &str, state: &str| -> u64 {
        let rows = manager.job_count().into_iter().flat_map(|on| on.answer.expect("up"));
        rows.filter(|row| row.ability == ability && row.state == state).map(|row| row.count).sum()
    };
    for n in 0..5_u64 {
        let job = echo::job(n.to_string()).database(bed.first());
        let job = if n < 2 { job.delay(Duration::from_secs(3600)) } else { job };
        assert!(manager.enqueue(job).expect("stored").is_new());
    }
    assert!(manager.enqueue(other_echo::job("x".to_owned())).expect("stored").is_new());
    crate::session::claim_as_stranger(bed, "echo", 1);
    assert_eq!(count(&manager, "echo", "ready"), 2);
    assert_eq!(count(&manager, "echo", "scheduled"), 2);
    assert_eq!(count(&manager, "echo", "running"), 1);
    assert_eq!(count(&manager, "other-echo", "ready"), 1);
}

pub fn threads_that_enqueue_at_once_lose_nothing(bed: &Bed) {
    let (manager, log) = bed.with(ManagerBuilder::ability::<echo>);
    let manager = Arc::new(manager);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let manager = Arc::clone(&manager);
            scope.spawn(move || {
                for n in 0..50 {
                    let answer = manager.enqueue(echo::job(format!("{thread}/{n}")));
                    assert!(answer.expect("stored").is_new());
                }
            });
        }
    });
    let working = manager.start().expect("starts");
    eventually("all are worked", || log.lines().len() == 400);
    working.stop();
    assert_eq!(log.lines().into_iter().collect::<HashSet<_>>().len(), 400);
}
