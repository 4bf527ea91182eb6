//! Orders for databases, moves between them, and sets that change.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use qudo::admin::{DatabaseState, Part};
use qudo::driver::{
    Arrival, Bounded, Deadline, Driver, DriverRegistration, JobRecord, JobState, Keep, Leg, ManagerInside,
    SchemaState,
};
use qudo::{Error, JobId, Manager, Standing, UniqPolicy};
use uuid::Uuid;

use crate::abilities::{double, echo, other_echo, stumble};
use crate::contract::{beating, claim};
use crate::{Bed, DEADLINE, departed, eventually, run_all};

/// A second database beside the bed's.
struct Pair<'a> {
    bed: &'a Bed,
    other: Bed,
}

impl<'a> Pair<'a> {
    fn of(bed: &'a Bed) -> Self {
        Self { bed, other: bed.another() }
    }

    fn dsn(&self) -> &str {
        &self.other.databases[0].1
    }

    fn manager(&self) -> (Manager, crate::Log) {
        self.bed.with(|builder| builder.ability::<echo>().database_as("other", self.dsn()))
    }

    fn drivers(&self) -> (Arc<dyn Driver>, Arc<dyn Driver>) {
        (self.bed.driver(), self.other.driver())
    }
}

fn depth_of(manager: &Manager, name: &str) -> u64 {
    let reports = manager.database_reports();
    let report = reports.iter().find(|one| one.name == name).expect("known");
    let depth = report.depth.expect("answers");
    depth.ready.count + depth.scheduled.count + depth.moving.count
}

pub fn reports_tell_state_source_and_depth(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    for n in 0..3 {
        manager.enqueue(echo::job(n.to_string()).database(bed.first())).expect("stored");
    }
    let later = echo::job("later".to_owned()).delay(Duration::from_secs(600));
    manager.enqueue(later.database(bed.first())).expect("stored");
    let reports = manager.database_reports();
    assert_eq!(reports.len(), bed.databases.len());
    let first = reports.iter().find(|one| one.name == bed.first()).expect("known");
    assert_eq!(first.state, DatabaseState::Up);
    assert!(!first.draining && !first.paused && !first.source.contains("secret"));
    let depth = first.depth.expect("answers");
    assert_eq!(depth.ready, Bounded { count: 3, more: false });
    assert_eq!(depth.scheduled.count, 1);
    assert_eq!(bed.driver().depth(2).expect("answers").ready.to_string(), "2+");
}

pub fn a_drained_database_takes_no_new_jobs_and_works_those_it_has(bed: &Bed) {
    let pair = Pair::of(bed);
    let (manager, log) = pair.manager();
    let named = |text: &str| echo::job(text.to_owned()).database("other");
    manager.enqueue(named("before")).expect("stored");
    manager.drain("other").expect("drains");
    let error = manager.enqueue(named("during")).expect_err("it is drained");
    assert!(error.to_string().contains("draining"), "{error}");
    for n in 0..20 {
        let sent = manager.enqueue(echo::job(n.to_string())).expect("stored");
        assert_ne!(sent.ticket().expect("stored").database(), Some("other"));
    }
    // A process that starts later reads the order.
    let (later, _) = pair.manager();
    later.enqueue(named("later")).expect_err("it is drained");
    assert_eq!(run_all(&manager), 21);
    assert!(log.lines().contains(&"before".to_owned()));
    manager.undrain("other").expect("undrains");
    manager.enqueue(named("after")).expect("stored");
    assert!(matches!(manager.drain("nowhere"), Err(Error::UnknownDatabase { .. })));
}

pub fn when_all_are_drained_the_error_says_so(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    for (name, _) in &bed.databases {
        manager.drain(name).expect("drains");
    }
    let job = || echo::job("nowhere".to_owned());
    for job in [job(), job().uniqkey("k"), job().uniqkey("k").uniq_policy(UniqPolicy::Available)] {
        let error = manager.enqueue(job).expect_err("nowhere to go");
        assert!(matches!(error, Error::AllDatabasesDown(_)), "{error}");
        assert!(error.to_string().contains("draining"), "{error}");
    }
}

pub fn a_paused_database_keeps_its_jobs_until_it_is_resumed(bed: &Bed) {
    let (manager, log) = bed.manager::<echo>();
    manager.pause(bed.first()).expect("pauses");
    manager.enqueue(echo::job("paused".to_owned()).database(bed.first())).expect("stored");
    assert!(manager.work_once().expect("works").is_none());
    let working = manager.start().expect("starts");
    let others = echo::job("others".to_owned());
    if bed.databases.len() > 1 {
        manager.enqueue(others.database(&bed.databases[1].0)).expect("stored");
        eventually("the others go on", || log.lines() == ["others"]);
    }
    assert_eq!(depth_of(&manager, bed.first()), 1);
    manager.resume(bed.first()).expect("resumes");
    eventually("it is worked", || log.lines().contains(&"paused".to_owned()));
    working.stop();
}

pub fn a_key_is_looked_up_in_the_drained_home_before_it_moves_on(bed: &Bed) {
    let pair = Pair::of(bed);
    let (manager, _) = pair.manager();
    // A key whose home is the database that will be drained.
    let key = (0..10_000)
        .map(|n| n.to_string())
        .find(|key| {
            let job = echo::job(String::new()).uniqkey(key);
            manager.home(&job).expect("known").as_deref() == Some("other")
        })
        .expect("some key");
    let job = || echo::job("keyed".to_owned()).uniqkey(&key);
    let first = manager.enqueue(job()).expect("stored");
    manager.drain("other").expect("drains");
    let second = manager.enqueue(job()).expect("found");
    assert!(!second.is_new());
    assert_eq!(second.id(), first.id());
    let many = manager.enqueue_many([job(), job()]).expect("found");
    assert!(many.iter().all(|one| one.id() == first.id()), "{many:?}");
    assert_eq!(run_all(&manager), 1);
    let third = manager.enqueue(job()).expect("stored");
    assert!(third.is_new(), "the key was free");
    assert_ne!(third.ticket().expect("stored").database(), Some("other"));
}

pub fn moved_jobs_keep_their_facts_and_tickets_follow(bed: &Bed) {
    let pair = Pair::of(bed);
    let (manager, _) = bed.with(|builder| {
        builder.ability::<stumble>().ability::<double>().database_as("other", pair.dsn())
    });
    let first = bed.first();
    // One that has failed once, one that is due later, one with a key and a priority.
    let failed = manager.enqueue(stumble::job(1).database(first)).expect("stored");
    manager.work_once().expect("works");
    let run_after = chrono::Utc::now() + chrono::TimeDelta::hours(1);
    let later = double::job(1).run_after(run_after).database(first);
    let later = manager.enqueue(later).expect("stored");
    // A key whose home will be the other one when the first is drained.
    for (name, _) in &bed.databases {
        manager.drain(name).expect("drains");
    }
    let key = key_at_home(&manager, "other");
    for (name, _) in &bed.databases {
        manager.undrain(name).expect("undrains");
    }
    let keyed = double::job(21).priority(7).database(first);
    let keyed = manager.enqueue(keyed.uniqkey(&key)).expect("stored");
    for (name, _) in &bed.databases {
        manager.drain(name).expect("drains");
    }
    let before = manager.lookup(failed.id().expect("new")).expect("answers").expect("lives").1;
    let moved = manager.move_jobs(first, "other").expect("moves");
    assert_eq!((moved.moved, moved.stayed), (3, 0));
    assert_eq!((depth_of(&manager, first), depth_of(&manager, "other")), (0, 3));
    let look =
        |id: Option<JobId>| manager.lookup(id.expect("new")).expect("answers").expect("lives");
    let (place, after) = look(failed.id());
    assert_eq!(place, "other");
    assert_eq!((after.attempt, after.facts.arg), (before.attempt, before.facts.arg));
    assert_eq!(after.enqueued_at, before.enqueued_at);
    let JobState::Scheduled { run_after: at } = look(later.id()).1.state else {
        panic!("it is due later")
    };
    assert!((at - run_after).abs() < chrono::TimeDelta::milliseconds(1));
    let (_, info) = look(keyed.id());
    assert_eq!((info.facts.priority, info.facts.uniqkey.as_ref()), (7, Some(&key)));
    let (place, holder) = manager.holder("double", &key).expect("answers").expect("held");
    assert_eq!((&*place, Some(holder)), ("other", keyed.id()));
    let ticket = keyed.ticket().expect("stored");
    assert!(matches!(ticket.check().expect("follows"), Standing::Waiting(JobState::Ready)));
    run_all(&manager);
    assert_eq!(ticket.wait_as::<i64>(Duration::from_secs(5)).expect("follows"), 42);
}

pub fn a_job_whose_key_is_held_there_stays_and_running_ones_are_left(bed: &Bed) {
    let pair = Pair::of(bed);
    let (manager, _) = pair.manager();
    for (name, _) in &bed.databases {
        manager.drain(name).expect("drains");
    }
    let key = (0..10_000).map(|n| n.to_string()).find(|key| {
        let job = echo::job(String::new()).uniqkey(key);
        manager.home(&job).expect("known").as_deref() == Some("other")
    });
    for (name, _) in &bed.databases {
        manager.undrain(name).expect("undrains");
    }
    let key = key.expect("some key");
    let job = |database: &str| echo::job("keyed".to_owned()).uniqkey(&key).database(database);
    let here = manager.enqueue(job(bed.first())).expect("stored");
    let there = manager.enqueue(job("other")).expect("stored");
    let running = echo::job("running".to_owned()).priority(9).database(bed.first());
    let running = manager.enqueue(running).expect("stored");
    let (_, claimed) = crate::session::claim_as_stranger(bed, "echo", 1);
    assert_eq!(Some(claimed[0].id), running.id());
    for (name, _) in &bed.databases {
        manager.drain(name).expect("drains");
    }
    let moved = manager.move_jobs(bed.first(), "other").expect("moves");
    assert_eq!((moved.moved, moved.stayed), (0, 1));
    let (place, info) = manager.lookup(here.id().expect("new")).expect("answers").expect("lives");
    assert_eq!((&*place, info.state), (bed.first(), JobState::Ready));
    let (place, info) = manager.lookup(running.id().expect("new")).expect("on").expect("lives");
    assert_eq!((&*place, info.state.as_str()), (bed.first(), "running"));
    assert!(manager.lookup(there.id().expect("new")).expect("answers").is_some());
    assert!(manager.move_jobs("other", "other").is_err(), "to itself");
}

/// A unique key of a job of `double` that belongs to this database now.
fn key_at_home(manager: &Manager, home: &str) -> String {
    let at_home = |key: &String| {
        let job = double::job(0).uniqkey(key);
        manager.home(&job).expect("known").as_deref() == Some(home)
    };
    (0..10_000).map(|n| n.to_string()).find(at_home).expect("some key")
}

pub fn a_key_moves_only_to_its_home(bed: &Bed) {
    let pair = Pair::of(bed);
    let (manager, _) =
        bed.with(|builder| builder.ability::<double>().database_as("other", pair.dsn()));
    let key = key_at_home(&manager, bed.first());
    let job = || double::job(1).uniqkey(&key);
    let stored = manager.enqueue(job()).expect("stored");
    let moved = manager.move_jobs(bed.first(), "other").expect("moves");
    assert_eq!((moved.moved, moved.stayed), (0, 1));
    assert_eq!(manager.enqueue(job()).expect("found").id(), stored.id());
    let (place, info) = manager.lookup(stored.id().expect("new")).expect("on").expect("lives");
    assert_eq!((&*place, info.state), (bed.first(), JobState::Ready));
}

/// Carries the first jobs of a move through `steps` steps and stops, as if killed.
fn break_off(pair: &Pair<'_>, steps: usize) {
    let (from, to) = pair.drivers();
    let there = to.identity().expect("answers").to_string();
    let jobs = from.move_out(&there, Uuid::now_v7(), None, 4).expect("step 1");
    let gone = departed(&jobs);
    assert_eq!(gone.len(), 4);
    if steps >= 2 {
        let here = from.identity().expect("answers").to_string();
        let answers = to.move_in(&here, &jobs).expect("step 2");
        assert_eq!(answers, vec![Arrival::Here; 4]);
    }
    if steps >= 3 {
        assert_eq!(from.moved_out(&gone).expect("step 3").len(), 4);
    }
    if steps >= 4 {
        assert_eq!(to.moved_in(&gone).expect("step 4"), 4);
    }
}

pub fn a_move_that_was_killed_anywhere_goes_on_and_doubles_nothing(bed: &Bed) {
    for steps in 1..=4 {
        let pair = Pair::of(bed);
        let (manager, log) = pair.manager();
        let jobs = (0..10).map(|n| echo::job(n.to_string()).database(bed.first()));
        manager.enqueue_many(jobs).expect("stored");
        break_off(&pair, steps);
        // Nothing of the four can run but what arrived in full.
        let worked = run_all(&manager);
        assert_eq!(worked, if steps == 4 { 10 } else { 6 }, "after step {steps}");
        let count: u64 = pair.drivers().0.depth(100).expect("answers").moving.count;
        assert_eq!(count, 4, "the move is not over");
        manager.move_jobs(bed.first(), "other").expect("goes on");
        assert_eq!(run_all(&manager), 10 - worked, "after step {steps}");
        let lines: HashSet<_> = log.lines().into_iter().collect();
        assert_eq!((lines.len(), log.lines().len()), (10, 10), "each once");
    }
}

pub fn what_an_overtaken_mover_brings_too_late_is_removed(bed: &Bed) {
    let pair = Pair::of(bed);
    let (manager, log) = pair.manager();
    manager.enqueue(echo::job("once".to_owned()).database(bed.first())).expect("stored");
    let (from, to) = pair.drivers();
    let (here, there) =
        (from.identity().expect("known").to_string(), to.identity().expect("known").to_string());
    let jobs = from.move_out(&there, Uuid::now_v7(), None, 4).expect("the slow mover begins");
    let (id, gone) = (jobs[0].record.id, departed(&jobs));
    manager.move_jobs(bed.first(), "other").expect("the fast one ends it");
    assert_eq!(run_all(&manager), 1);
    // What arrived once is not brought again, even after it ended.
    to.move_in(&here, &jobs).expect("late");
    assert!(to.lookup(id).expect("answers").is_none(), "it arrived before");
    assert_eq!(to.moved_in(&gone).expect("answers"), 0);
    // Days later nobody remembers that it arrived.
    to.purge(&Keep::all(Duration::ZERO), 100).expect("purges");
    eventually("the mark is old enough", || {
        to.purge(&Keep::all(Duration::ZERO), 100).expect("purges");
        from.purge(&Keep::all(Duration::ZERO), 100).expect("purges");
        to.move_in(&here, &jobs).expect("late");
        to.lookup(id).expect("answers").is_some()
    });
    assert_eq!(from.moved_out(&gone).expect("answers"), [], "it was not the one who moved it");
    assert!(from.legs(&[id]).expect("answers").iter().all(|(_, leg)| *leg != Leg::Leaving));
    // The slow one dies here; the next move clears up.
    manager.move_jobs(bed.first(), "other").expect("moves");
    assert_eq!(run_all(&manager), 0);
    assert!(manager.lookup(id).expect("answers").is_none(), "the ghost is gone");
    assert_eq!(log.lines(), ["once"]);
}

pub fn two_movers_at_once_move_every_job_once(bed: &Bed) {
    let pair = Pair::of(bed);
    let (manager, log) = pair.manager();
    let jobs = (0..600).map(|n| echo::job(n.to_string()).database(bed.first()));
    manager.enqueue_many(jobs).expect("stored");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let mover = pair.manager().0;
            scope.spawn(move || mover.move_jobs(bed.first(), "other").expect("moves"));
        }
    });
    manager.move_jobs(bed.first(), "other").expect("nothing is left");
    assert_eq!((depth_of(&manager, bed.first()), depth_of(&manager, "other")), (0, 600));
    assert_eq!(run_all(&manager), 600);
    assert_eq!(log.lines().into_iter().collect::<HashSet<_>>().len(), 600);
}

pub fn databases_are_added_and_removed_while_the_manager_works(bed: &Bed) {
    let pair = Pair::of(bed);
    let (manager, log) = bed.manager::<echo>();
    let working = manager.start().expect("starts");
    manager.add_database_as("other", pair.dsn()).expect("adds");
    let again = manager.add_database_as("other", pair.dsn());
    assert!(matches!(again, Err(Error::DuplicateDatabase(_))));
    manager.enqueue(echo::job("there".to_owned()).database("other")).expect("stored");
    eventually("the new one is worked", || log.lines() == ["there"]);
    manager.remove_database("other").expect("removes");
    assert_eq!(manager.database_reports().len(), bed.databases.len());
    assert!(matches!(manager.remove_database("other"), Err(Error::UnknownDatabase { .. })));
    let (apart, _) = pair.manager();
    apart.enqueue(echo::job("left".to_owned()).database("other")).expect("stored");
    assert!(pair.other.driver().workers().expect("answers").is_empty(), "no trace of the worker");
    manager.enqueue(echo::job("here".to_owned())).expect("stored");
    eventually("the others go on", || log.lines().len() == 2);
    assert_eq!(depth_of(&apart, "other"), 1);
    manager.add_database_as("other", pair.dsn()).expect("adds again");
    eventually("what waited is worked", || log.lines().contains(&"left".to_owned()));
    working.stop();
    for (name, _) in bed.databases.iter().skip(1) {
        manager.remove_database(name).expect("removes");
    }
    manager.remove_database("other").expect("removes");
    assert!(matches!(manager.remove_database(bed.first()), Err(Error::NoDatabase)));
}

pub fn a_database_without_tables_is_not_added(bed: &Bed) {
    let other = bed.spool();
    if other.driver().schema().expect("answers") == SchemaState::Current {
        return; // It needs none.
    }
    let (manager, _) = bed.manager::<echo>();
    let error = manager.add_database_as("other", &other.databases[0].1).expect_err("no tables");
    assert!(error.to_string().contains("qudo migrate"), "{error}");
}

pub fn the_spool_takes_jobs_while_no_database_can_and_forwards_them(bed: &Bed) {
    let spool = bed.spool();
    let (manager, log) =
        bed.with(|builder| builder.ability::<echo>().spool(&spool.databases[0].1, 3));
    assert_eq!(manager.spool().expect("opens").expect("set").waiting, 0);
    for (name, _) in &bed.databases {
        manager.drain(name).expect("drains");
    }
    let sent = manager.enqueue(echo::job("spooled".to_owned())).expect("spooled");
    let ticket = sent.ticket().expect("stored").clone();
    assert_eq!(ticket.database(), Some("spool"));
    let keyed = || echo::job("keyed".to_owned()).uniqkey("k");
    let key = manager.enqueue(keyed()).expect("spooled");
    let again = manager.enqueue(keyed()).expect("spooled");
    assert_eq!((again.is_new(), again.id()), (false, key.id()));
    manager.enqueue(echo::job("third".to_owned())).expect("spooled");
    let full = manager.enqueue(echo::job("fourth".to_owned())).expect_err("bounded");
    assert!(matches!(full, Error::SpoolFull { limit: 3 }), "{full}");
    let named = manager.enqueue(echo::job(String::new()).database(bed.first()));
    assert!(matches!(named, Err(Error::AllDatabasesDown(_))), "a named database is meant");
    assert_eq!(manager.spool().expect("answers").expect("set").waiting, 3);
    let reports = manager.database_reports();
    assert!(reports.iter().any(|one| one.name == "spool"), "it is visible");
    let working = manager.start().expect("starts");
    for (name, _) in &bed.databases {
        manager.undrain(name).expect("undrains");
    }
    eventually("all are forwarded and worked", || log.lines().len() == 3);
    assert_eq!(ticket.wait_as::<String>(Duration::from_secs(20)).expect("follows"), "spooled");
    eventually("it is empty", || manager.spool().expect("answers").expect("set").waiting == 0);
    working.stop();
    assert_eq!(log.lines().into_iter().collect::<HashSet<_>>().len(), 3);
}

pub fn a_spooled_job_whose_key_was_taken_meanwhile_is_dropped(bed: &Bed) {
    let spool = bed.spool();
    let dsn = &spool.databases[0].1;
    let (manager, _) = bed.with(|builder| builder.ability::<echo>().spool(dsn, 100));
    let keyed = || echo::job("keyed".to_owned()).uniqkey("k");
    let home = manager.home(&keyed()).expect("known").expect("fixed");
    for (name, _) in &bed.databases {
        manager.drain(name).expect("drains");
    }
    let spooled = manager.enqueue(keyed()).expect("spooled");
    // Another process, which does not know of the order, takes the key in the meantime.
    let position = bed.databases.iter().position(|(name, _)| *name == home).expect("known");
    let driver = DriverRegistration::open_linked(&bed.databases[position].1).expect("opens").driver;
    let record = manager.prepare_record(keyed()).expect("valid").expect("not suppressed");
    driver.insert(std::slice::from_ref(&record), Deadline::NONE).expect("stored");
    for (name, _) in &bed.databases {
        manager.undrain(name).expect("undrains");
    }
    eventually("it is dropped", || manager.spool().expect("answers").expect("set").dropped == 1);
    assert!(manager.lookup(spooled.id().expect("new")).expect("answers").is_none());
    let error = spooled.wait(crate::DEADLINE).expect_err("it never runs");
    assert!(matches!(error, Error::JobRemoved { ending: qudo::driver::Ending::Superseded, .. }), "{error}");
    let (_, holder) = manager.holder("echo", "k").expect("answers").expect("held");
    assert_eq!(holder, record.id);
}

pub fn two_spools_that_forward_at_once_lose_and_double_nothing(bed: &Bed) {
    let log = crate::Log::default();
    let hosts: Vec<_> = (0..2)
        .map(|_| {
            let spool = bed.spool();
            let builder = bed.builder().ability::<echo>().plugin(log.clone());
            let manager = builder.spool(&spool.databases[0].1, 1_000).build().expect("valid");
            (manager, spool)
        })
        .collect();
    let operator = &hosts[0].0;
    for (name, _) in &bed.databases {
        operator.drain(name).expect("drains");
    }
    for (host, (manager, _)) in hosts.iter().enumerate() {
        let jobs = (0..300).map(|n| echo::job(format!("{host} {n}")));
        let sent = manager.enqueue_many(jobs).expect("spooled");
        assert_eq!(sent[0].ticket().expect("stored").database(), Some("spool"));
    }
    for (name, _) in &bed.databases {
        operator.undrain(name).expect("undrains");
    }
    let empty = |manager: &Manager| manager.spool().expect("on").expect("set").waiting == 0;
    eventually("both are empty", || hosts.iter().all(|(manager, _)| empty(manager)));
    let worked = run_all(operator);
    let lines: HashSet<_> = log.lines().into_iter().collect();
    assert_eq!((worked, lines.len()), (600, 600));
}

pub fn a_forward_that_was_killed_half_way_goes_on_when_the_process_is_back(bed: &Bed) {
    for steps in 1..=4 {
        let spool = bed.spool();
        let spool_driver = spool.driver();
        spool_driver.migrate(false).expect("migrates");
        let client = spool.builder().build().expect("valid");
        client.enqueue_many((0..4).map(|n| echo::job(n.to_string()))).expect("stored");
        let (from, to) = (&spool_driver, bed.driver());
        let (here, there) = (
            from.identity().expect("known").to_string(),
            to.identity().expect("known").to_string(),
        );
        let jobs = from.move_out(&there, Uuid::now_v7(), None, 4).expect("step 1");
        let gone = departed(&jobs);
        if steps >= 2 {
            to.move_in(&here, &jobs).expect("step 2");
        }
        if steps >= 3 {
            from.moved_out(&gone).expect("step 3");
        }
        if steps >= 4 {
            to.moved_in(&gone).expect("step 4");
        }
        // A process starts that has nothing to enqueue.
        let dsn = &spool.databases[0].1;
        let (manager, log) = bed.with(|builder| builder.ability::<echo>().spool(dsn, 100));
        let working = manager.start().expect("starts");
        eventually("all are worked", || log.lines().len() == 4);
        eventually("it is empty", || manager.spool().expect("on").expect("set").waiting == 0);
        working.stop();
        assert_eq!(log.lines().into_iter().collect::<HashSet<_>>().len(), 4);
    }
}

/// A spool with one keyed job whose home is the first database, which is drained, and another to go
/// to. Its process starts when this is called.
fn half_forwarded(
    bed: &Bed,
    spool: &Bed,
    other: &Bed,
    half: impl FnOnce(&dyn Driver, JobId, &JobRecord),
) -> (Manager, crate::Log) {
    let log = crate::Log::default();
    let builder = || {
        let builder = bed.builder().ability::<echo>().plugin(log.clone());
        builder.database_as("other", &other.databases[0].1)
    };
    let operator = builder().build().expect("valid");
    let keyed = |n: u32| echo::job("keyed".to_owned()).uniqkey(format!("k{n}"));
    let at_home = |n: &u32| {
        let home = operator.home(&keyed(*n)).expect("known");
        home.as_deref() == Some(bed.first())
    };
    let key = (0..1_000).find(at_home).expect("one of a thousand");
    let record = operator.prepare_record(keyed(key)).expect("valid").expect("not suppressed");
    let spooled = spool.driver();
    spooled.migrate(false).expect("migrates");
    spooled.insert(std::slice::from_ref(&record), Deadline::NONE).expect("stored");
    operator.drain(bed.first()).expect("drains");
    half(&*spooled, record.id, &record);
    let manager = builder().spool(&spool.databases[0].1, 100).build().expect("valid");
    (manager, log)
}

pub fn a_spooled_job_that_a_drained_database_has_half_is_not_lost(bed: &Bed) {
    let (spool, other) = (bed.spool(), bed.another());
    // A forward that began before the order, and was killed half-way.
    let (manager, log) = half_forwarded(bed, &spool, &other, |from, id, _| {
        let to = bed.driver();
        let (here, there) = (
            from.identity().expect("known").to_string(),
            to.identity().expect("known").to_string(),
        );
        let jobs = from.move_out(&there, Uuid::now_v7(), Some(&[id]), 4).expect("step 1");
        to.move_in(&here, &jobs).expect("step 2");
    });
    let working = manager.start().expect("starts");
    let report = || manager.spool().expect("on").expect("set");
    eventually("it is empty", || report().waiting == 0);
    eventually("it went elsewhere", || log.lines() == ["keyed"]);
    working.stop();
    assert_eq!(report().dropped, 0);
    assert_eq!(log.lines(), ["keyed"]);
}

pub fn a_spooled_job_that_lives_in_a_drained_database_is_not_run_twice(bed: &Bed) {
    let (spool, other) = (bed.spool(), bed.another());
    // As after an enqueue whose answer was lost.
    let (manager, log) = half_forwarded(bed, &spool, &other, |_, _, record| {
        bed.driver().insert(std::slice::from_ref(record), Deadline::NONE).expect("stored");
    });
    let report = || manager.spool().expect("on").expect("set");
    eventually("it is empty", || report().waiting == 0);
    assert_eq!(report().dropped, 0);
    assert_eq!(run_all(&manager), 1);
    assert_eq!(log.lines(), ["keyed"]);
}

pub fn a_spool_must_be_local_and_have_a_name_of_its_own(bed: &Bed) {
    let (_, dsn) = &bed.databases[0];
    let builder = || bed.builder().database_as("spool", "memory:not the spool");
    let error = builder().spool("memory:a spool", 9).build().expect_err("one name for two");
    assert!(matches!(error, Error::DuplicateDatabase(_)), "{error}");
    if !bed.driver().is_local() {
        let error = bed.builder().spool(dsn, 9).build().expect_err("not local");
        assert!(error.to_string().contains("local"), "{error}");
    }
}

pub fn jobs_of_a_paused_queue_or_ability_wait_until_it_is_resumed(bed: &Bed) {
    let (manager, log) = bed.with(|builder| builder.ability::<echo>().ability::<other_echo>().queues(["default", "other", "gl.tax"]));
    let lines = || {
        let mut lines = log.lines();
        lines.sort();
        lines
    };
    let paused = |parts: &[Part]| {
        let told = manager.pauses().into_iter().map(|on| on.answer.expect("answers"));
        for pauses in told {
            let named: Vec<_> = pauses.into_iter().map(|one| one.part).collect();
            assert_eq!(named, parts);
        }
    };
    let order = |answers: Result<Vec<qudo::admin::PerDatabase<()>>, Error>| {
        let answers = answers.expect("valid");
        assert_eq!(answers.len(), bed.databases.len());
        for on in answers {
            on.answer.expect("stored");
        }
    };
    let (ledger, sound) = (Part::Queue("gl.*".to_owned()), Part::Ability("other-echo".to_owned()));
    order(manager.pause_part(&ledger, None, "closed"));
    order(manager.pause_part(&sound, None, "too\nloud"));
    order(manager.pause_part(&ledger, None, "closed for good"));
    paused(&[sound.clone(), ledger.clone()]);
    let on = manager.pauses().remove(0).answer.expect("answers");
    assert_eq!((&*on[0].reason, &*on[1].reason), ("tooloud", "closed for good"));
    let at = bed.first();
    manager.enqueue(echo::job("tax".to_owned()).queue("gl.tax").database(at)).expect("stored");
    manager.enqueue(other_echo::job("loud".to_owned()).database(at)).expect("stored");
    manager.enqueue(echo::job("open".to_owned()).database(at)).expect("stored");
    assert_eq!((run_all(&manager), lines()), (1, vec!["open".to_owned()]));
    // Another process learns of it with its first heartbeat, and of the end of it with a later one.
    let (service, told) = bed.with(|builder| builder.ability::<echo>().ability::<other_echo>().queues(["default", "other", "gl.tax"]).heartbeat(Duration::from_millis(50), Duration::from_secs(5)));
    let working = service.start().expect("starts");
    service.enqueue(echo::job("second".to_owned()).database(at)).expect("stored");
    eventually("what is open is worked", || told.lines() == ["second"]);
    order(manager.resume_part(&sound, None));
    eventually("the ability is open", || told.lines().len() == 2);
    assert_eq!(told.lines()[1], "other loud");
    order(manager.resume_part(&ledger, None));
    order(manager.resume_part(&ledger, None));
    eventually("the queue too", || told.lines().len() == 3);
    working.stop();
    paused(&[]);
    let unknown = manager.pause_part(&ledger, Some("nowhere"), "");
    assert!(matches!(unknown, Err(Error::UnknownDatabase { .. })), "{unknown:?}");
    let no_name = manager.pause_part(&Part::Queue(" x".to_owned()), None, "");
    assert!(matches!(no_name, Err(Error::InvalidName { .. })), "{no_name:?}");
}

pub fn the_whole_is_seen_at_a_glance(bed: &Bed) {
    let (manager, _) = bed.manager::<echo>();
    let at = bed.first();
    let glance = || {
        let all = manager.overview(DEADLINE).into_iter();
        all.map(|on| (on.database, on.answer.expect("answers"))).find(|(name, _)| name == at).expect("is there").1
    };
    let empty = glance();
    assert!(empty.depth.is_empty() && empty.ages.ready.is_none() && empty.ages.overdue.is_none());
    assert_eq!((empty.verdict(), empty.workers, empty.silent_workers), ("up", 0, 0));
    // The first of them waits behind others of another queue and of a higher priority.
    let job = |queue: &'static str, priority| qudo::NewJob::named("a", 1.into()).queue(queue).priority(priority).database(at);
    manager.enqueue(job("default", -1)).expect("stored");
    let old = Duration::from_millis(40);
    eventually("it has waited", || glance().ages.ready > Some(old));
    for (queue, priority) in [("default", 0), ("default", 5), ("another", 0), ("zebra", 1)] {
        manager.enqueue(job(queue, priority)).expect("stored");
    }
    let seen = glance();
    assert!(seen.ages.ready > Some(old) && seen.ages.ready < Some(DEADLINE), "{seen:?}");
    assert_eq!((seen.depth.ready.count, seen.depth.running.count), (5, 0));
    let driver = bed.driver();
    let worker = beating(&*driver);
    assert_eq!(claim(&*driver, &worker, Duration::from_millis(1)).len(), 3);
    eventually("a lease is over", || glance().ages.overdue.is_some());
    let seen = glance();
    assert_eq!((seen.workers, seen.silent_workers, seen.depth.running.count), (1, 0, 3));
    manager.drain(at).expect("drains");
    assert_eq!((glance().verdict(), glance().draining), ("draining", true));
    manager.pause(at).expect("pauses");
    assert_eq!((glance().verdict(), glance().paused), ("paused", true));
    let reports = manager.database_reports();
    let report = reports.iter().find(|one| one.name == at).expect("is there");
    assert!(report.paused && report.draining);
}
