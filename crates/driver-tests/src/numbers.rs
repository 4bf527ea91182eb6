//! Numbers of runs, and since when jobs were ready.

use std::time::Duration;

use chrono::Utc;
use qudo::driver::{
    AbilityLease, Act, Arrival, BUCKETS, ClaimRequest, ClaimedJob, Deadline, Driver, Due, Histogram, JobClaim,
    JobRecord, Keep, MovingJob, Name, Part, Pause, RunStats, Settlement, StatRow, StatScan, Verdict, WorkerInfo,
};
use qudo::admin::Paging;
use qudo::hook::Outcome;
use qudo::{Enqueued, Manager};

use crate::abilities::{double, give_up, other_echo, splits, stumble};
use crate::contract::{HOUR, beating, insert, record};
use crate::{Bed, DEADLINE, departed, eventually, run_all};

const MINUTE: Duration = Duration::from_secs(60);

/// Rows without their time.
fn rows(driver: &dyn Driver, scan: StatScan) -> Vec<(String, String, RunStats)> {
    let row = |row: StatRow| (row.queue.to_string(), row.ability.to_string(), row.stats);
    driver.stats(&scan).expect("answers").into_iter().map(row).collect()
}

/// As many rows of runs of each ability as the bed's databases have, together.
fn counted(bed: &Bed, ability: &str) -> RunStats {
    let (manager, _) = bed.with(|builder| builder);
    let mut sum = RunStats::default();
    for on in manager.stats(&StatScan::ever()) {
        for row in on.answer.expect("answers").iter().filter(|row| row.ability == *ability) {
            sum.add(&row.stats);
        }
    }
    sum
}

pub fn runs_are_counted_by_queue_ability_and_outcome(bed: &Bed) {
    let (manager, _) = bed.with(|builder| {
        let builder = builder.ability::<double>().ability::<other_echo>().ability::<give_up>();
        builder.ability::<stumble>().ability::<splits>().ability::<crate::abilities::echo>()
    });
    let doubles = manager.enqueue_many((0..5).map(double::job)).expect("stored");
    let mut jobs: Vec<_> = doubles.iter().filter_map(Enqueued::id).collect();
    for one in [
        other_echo::job("x".to_owned()).untyped(),
        give_up::job().untyped(),
        stumble::job(2).untyped(),
        splits::job(false).untyped(),
    ] {
        jobs.extend(manager.enqueue(one).expect("stored").id());
    }
    let handle = manager.start().expect("starts");
    for job in jobs {
        // However it ends.
        drop(manager.ticket(job).wait_done(DEADLINE));
    }
    let is_empty = || live_of(&manager, "echo") == 0;
    eventually("the jobs that took another's place are done", is_empty);
    // The last words are said before the row of the process goes.
    handle.stop();
    let told = |ability: &str| {
        let stats = counted(bed, ability);
        assert_eq!(stats.running.count(), stats.ended(), "{ability}");
        assert_eq!(stats.waiting.count(), stats.ended(), "{ability}");
        let some = stats.by_outcome().into_iter().filter(|(_, count)| *count > 0);
        some.map(|(outcome, count)| format!("{outcome} {count}")).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(told("double"), "completed 5");
    assert_eq!(told("give_up"), "failed 1");
    assert_eq!(told("stumble"), "completed 1, retried 2");
    assert_eq!(told("splits"), "replaced 1");
    assert_eq!(told("echo"), "completed 2");
    let of_queue = |on: &StatRow| on.queue == *"other" && on.ability == *"other-echo";
    let all = manager.stats(&StatScan::ever());
    let all: Vec<_> = all.into_iter().flat_map(|on| on.answer.expect("answers")).collect();
    assert!(all.iter().any(of_queue), "{all:?}");
    // The same in the minutes that there were.
    let last = manager.stats(&StatScan::last(HOUR).every(MINUTE));
    let last: Vec<_> = last.into_iter().flat_map(|on| on.answer.expect("answers")).collect();
    let ended = |rows: &[StatRow]| rows.iter().map(|row| row.stats.ended()).sum::<u64>();
    assert_eq!((ended(&last), ended(&all)), (13, 13));
    assert!(last.iter().all(|row| row.since.is_some_and(|at| at.timestamp() % 60 == 0)));
}

/// How many jobs of this ability live.
fn live_of(manager: &Manager, ability: &str) -> usize {
    let filter = format!("ability:{ability}").parse().expect("a filter");
    let listing = manager.jobs(&filter, &Paging::default());
    listing.into_iter().map(|on| on.answer.expect("answers").rows.len()).sum()
}

pub fn a_run_of_a_single_job_is_counted_too(bed: &Bed) {
    let (manager, _) = bed.manager::<double>();
    manager.enqueue_many((0..3).map(double::job)).expect("stored");
    assert_eq!(run_all(&manager), 3);
    assert_eq!(counted(bed, "double").completed, 3);
}

fn stats(completed: u64, millis: u64) -> RunStats {
    let mut stats = RunStats::default();
    for _ in 0..completed {
        let took = Duration::from_millis(millis);
        stats.note(&Outcome::Completed, took * 2, took);
    }
    stats
}

fn row(queue: &str, ability: &str, stats: RunStats) -> StatRow {
    StatRow::new(None, queue, ability, stats)
}

pub fn numbers_of_processes_add_up_and_reports_that_are_repeated_count_once(bed: &Bed) {
    let driver = &*bed.driver();
    let add = |worker: &WorkerInfo, number, rows: &[StatRow]| {
        driver.add_stats(*worker.id.as_uuid(), number, rows).expect("answers");
    };
    let (one, other) = (beating(driver), beating(driver));
    // More than one statement takes, in two queues, with a name that is longer than most.
    let long = "q".repeat(100);
    let many: Vec<_> = (0..150).map(|n| row(&long, &format!("a{n:03}"), stats(2, n))).collect();
    add(&one, 1, &many);
    // Made again, because the answer was lost; and once more after the process was taken for dead, and was there again.
    add(&one, 1, &many);
    driver.remove_worker(one.id).expect("answers");
    add(&one, 1, &many);
    driver.heartbeat(&one).expect("beats");
    add(&one, 1, &many);
    add(&one, 2, &[row("q", "a", stats(3, 70))]);
    add(&other, 1, &[row("q", "a", stats(4, 5_000)), row("r", "a", stats(1, 0))]);
    add(&one, 1, &[row("q", "a", stats(9, 1))]);
    let told = rows(driver, StatScan::ever());
    assert_eq!(told.len(), 152);
    let mut sum = stats(3, 70);
    sum.add(&stats(4, 5_000));
    assert_eq!(told[0], ("q".to_owned(), "a".to_owned(), sum.clone()));
    assert_eq!(told[1], (long.clone(), "a000".to_owned(), stats(2, 0)));
    assert_eq!(told[150], (long, "a149".to_owned(), stats(2, 149)));
    assert_eq!(told[151].2, stats(1, 0));
    // Whether the minute changed meanwhile or not.
    assert_eq!(rows(driver, StatScan::last(HOUR))[0], ("q".to_owned(), "a".to_owned(), sum));
    let mut three = StatScan::ever();
    three.limit = 3;
    assert_eq!(rows(driver, three).len(), 3);
    // The longest waits have no bound.
    let years = Duration::from_secs(10 * 366 * 24 * 3_600);
    let mut slow = RunStats::default();
    slow.note(&Outcome::Completed, years, years);
    add(&other, 2, &[row("slow", "a", slow.clone())]);
    let told = rows(driver, StatScan::ever()).pop().expect("is there");
    assert_eq!(told.2, slow);
    assert_eq!(told.2.waiting.quantile(0.5), Histogram::BOUNDS.last().copied());
    // Sums end somewhere, and what comes then is counted all the same.
    let mut most = Histogram::new([0; BUCKETS], Duration::from_micros(u64::MAX));
    most.note(Duration::from_millis(1));
    let endless = RunStats { completed: 1, running: most, ..RunStats::default() };
    for number in 3..7 {
        add(&other, number, &[row("endless", "a", endless.clone())]);
    }
    let told = rows(driver, StatScan::ever());
    let told = told.iter().find(|(queue, ..)| queue == "endless").expect("is there");
    assert_eq!((told.2.completed, told.2.running.count()), (4, 4));
    assert!(rows(driver, StatScan::last(HOUR)).iter().any(|(queue, ..)| queue == "endless"));
    // What nobody wants to know any more: the sum, and the minutes.
    assert!(driver.forget_stats("endless").expect("answers") >= 2);
    assert_eq!(driver.forget_stats("endless").expect("answers"), 0);
    for scan in [StatScan::ever(), StatScan::last(HOUR)] {
        let left = rows(driver, scan);
        assert!(!left.is_empty() && left.iter().all(|(queue, ..)| queue != "endless"));
    }
}

pub fn processes_that_report_the_same_pairs_at_once_wait_for_each_other(bed: &Bed) {
    let driver = bed.driver();
    let pairs: Vec<_> = (0..20).map(|n| row("q", &format!("a{n:02}"), stats(1, n))).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let worker = beating(&*driver);
                for number in 1..=10 {
                    driver.add_stats(*worker.id.as_uuid(), number, &pairs).expect("answers");
                    driver.heartbeat(&worker).expect("beats");
                }
            });
        }
    });
    let told = rows(&*driver, StatScan::ever());
    assert_eq!(told.len(), 20);
    assert!(told.iter().all(|(.., stats)| stats.completed == 40), "{told:?}");
}

pub fn the_numbers_of_this_minute_outlive_a_clean_up(bed: &Bed) {
    let driver = &*bed.driver();
    let worker = beating(driver);
    driver.add_stats(*worker.id.as_uuid(), 1, &[row("q", "a", stats(3, 1))]).expect("answers");
    driver.purge(&Keep::all(Duration::ZERO), 1_000).expect("cleans up");
    for scan in [StatScan::ever(), StatScan::last(MINUTE)] {
        assert_eq!(rows(driver, scan).len(), 1, "{scan:?}");
    }
}

/// How long it had been ready.
fn waited(job: &ClaimedJob) -> Duration {
    job.ready_since.elapsed()
}

/// A job that was enqueued two hours ago and due an hour ago: it comes from another database, which says so.
fn overdue(driver: &dyn Driver) -> JobRecord {
    let record = record("a", None);
    let mut due = record.clone();
    due.due = Due::At(Utc::now() - HOUR);
    arrive(driver, due);
    driver.promote_due(100).expect("promotes");
    record
}

fn arrive(driver: &dyn Driver, record: JobRecord) {
    let (flags, enqueued_at) = (record.facts.flags(), Utc::now() - HOUR * 2);
    let departure = uuid::Uuid::now_v7();
    let job = MovingJob { record, attempt: 0, crashes: 0, flags, enqueued_at, departure };
    let arrived = driver.move_in("another", std::slice::from_ref(&job)).expect("arrives");
    assert_eq!(arrived, [Arrival::Here]);
    assert_eq!(driver.moved_in(&departed(&[job])).expect("waits"), 1);
}

fn one(driver: &dyn Driver, worker: &WorkerInfo, number: i64) -> ClaimedJob {
    let abilities = [AbilityLease { name: "a".into(), grab_for: HOUR }];
    let (queue, deadline) = (Name::from_static("default"), Deadline::NONE);
    let (worker, claim, limit, thorough) = (worker.id, number, 10, true);
    let request = ClaimRequest { worker, claim, queue: &queue, abilities: &abilities, limit, deadline, thorough };
    let mut jobs = driver.claim(&request).expect("claims");
    assert_eq!(jobs.len(), 1);
    jobs.remove(0)
}

pub fn since_when_a_job_is_ready_is_known_through_all_that_becomes_of_it(bed: &Bed) {
    let driver = &*bed.driver();
    let worker = beating(driver);
    let soon = HOUR / 2;
    let settle = |job: ClaimedJob, verdict| {
        let settlement = Settlement { job: Box::new(job), verdict, extras: None };
        driver.settle(worker.id, &[settlement]).expect("answers");
    };
    // New, and one that was due before it was enqueued.
    let mut before = record("a", None);
    before.due = Due::At(Utc::now() - HOUR);
    insert(driver, &[record("a", None)]);
    let new = one(driver, &worker, 1);
    insert(driver, &[before]);
    driver.promote_due(100).expect("promotes");
    assert!(driver.ages(&[]).expect("answers").ready.is_some_and(|age| age < soon));
    for new in [new, one(driver, &worker, 20)] {
        assert!(waited(&new) < soon, "{:?}", waited(&new));
        settle(new, Verdict::Complete);
    }
    // Due for an hour.
    let id = overdue(driver).id;
    let ages = driver.ages(&[]).expect("answers");
    assert!(ages.ready.is_some_and(|age| age > soon), "{ages:?}");
    // A change of its place in the order leaves it as it is.
    driver.act(&Act::Prioritize(3), &[id], None).expect("answers");
    let due = one(driver, &worker, 2);
    assert!(waited(&due) > soon && waited(&due) < HOUR * 2, "{:?}", waited(&due));
    // From here on it was put back.
    settle(due, Verdict::GiveBack);
    let mut number = 2;
    let zero = Duration::ZERO;
    for verdict in [Verdict::Snooze(zero), Verdict::Retry(zero), Verdict::Complete] {
        number += 1;
        let job = one(driver, &worker, number);
        assert!(waited(&job) < soon, "before {verdict:?}: {:?}", waited(&job));
        settle(job, verdict);
    }
    // So it is with a claim that is released, a process that stops, and an order to run now.
    let id = overdue(driver).id;
    one(driver, &worker, 10);
    driver.release_claim(worker.id, 10).expect("gives back");
    assert!(waited(&one(driver, &worker, 11)) < soon);
    driver.release_claim(worker.id, 11).expect("gives back");
    driver.act(&Act::Remove(None), &[id], None).expect("answers");
    let id = overdue(driver).id;
    driver.act(&Act::Reschedule(Due::Now), &[id], None).expect("answers");
    let job = one(driver, &worker, 12);
    assert!(waited(&job) < soon, "{:?}", waited(&job));
    settle(job, Verdict::Complete);
    // Whoever claims it by its id is told the same.
    let id = overdue(driver).id;
    let deadline = Deadline::NONE;
    let asked = JobClaim { worker: worker.id, claim: 13, job: id, grab_for: HOUR, deadline };
    let job = driver.claim_job(&asked).expect("answers").expect("waits");
    assert!(waited(&job) > soon && waited(&job) < HOUR * 2, "{:?}", waited(&job));
}

pub fn the_oldest_ready_job_is_found_behind_younger_ones_and_paused_ones_do_not_count(bed: &Bed) {
    let driver = &*bed.driver();
    let age = |pauses: &[Pause]| driver.ages(pauses).expect("answers").ready;
    assert_eq!(age(&[]), None);
    // Its id is the smallest and it is ready since now, as a job that was retried.
    let worker = beating(driver);
    insert(driver, &[record("a", None)]);
    let first = one(driver, &worker, 1);
    let old: Vec<_> = (0..3).map(|_| overdue(driver)).collect();
    let settlement =
        Settlement { job: Box::new(first), verdict: Verdict::Retry(Duration::ZERO), extras: None };
    driver.settle(worker.id, &[settlement]).expect("answers");
    assert!(age(&[]).is_some_and(|age| age > HOUR / 2), "{:?}", age(&[]));
    // In queues behind it, each with a priority of its own.
    let ids: Vec<_> = old.iter().map(|job| job.id).collect();
    for (at, queue) in ["x", "y", "z"].into_iter().enumerate() {
        driver.act(&Act::Requeue(queue.into()), &ids[at..=at], None).expect("answers");
        driver.act(&Act::Prioritize(at as i32), &ids[at..=at], None).expect("answers");
    }
    assert!(age(&[]).is_some_and(|age| age > HOUR / 2), "{:?}", age(&[]));
    let pause = |part| Pause::new(part, "", Utc::now());
    let queues = ["x", "y", "z"].map(|name| pause(Part::Queue(name.to_owned())));
    assert!(age(&queues).is_some_and(|age| age < HOUR / 2), "{:?}", age(&queues));
    assert!(age(&queues[..2]).is_some_and(|age| age > HOUR / 2));
    assert_eq!(age(&[pause(Part::Ability("a".to_owned()))]), None);
    // Behind more jobs of a paused ability than are read at once, and behind a queue of them.
    let many: Vec<_> = (0..250).map(|_| record("b", None)).collect();
    insert(driver, &many);
    overdue(driver);
    let paused = [pause(Part::Ability("b".to_owned())), pause(Part::Queue("[xyz]".to_owned()))];
    assert!(age(&paused).is_some_and(|age| age > HOUR / 2), "{:?}", age(&paused));
    let ids: Vec<_> = many.iter().map(|job| job.id).collect();
    driver.act(&Act::Requeue("a queue before".into()), &ids, None).expect("answers");
    let paused = [pause(Part::Queue("a queue*".to_owned())), pause(Part::Queue("x".to_owned()))];
    assert!(age(&paused).is_some_and(|age| age > HOUR / 2), "{:?}", age(&paused));
}
