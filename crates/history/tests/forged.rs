//! The checker is known to find each kind of fault: forged histories, each with one, beside the
//! honest history that it was made from.

#![allow(missing_docs, reason = "a test is read, not called")]

use std::collections::HashSet;

use qudo_history::{Answer, Fault, History, Line, Micros, Remains, Rules, Step, check};

fn line(at: Micros, step: Step) -> Line {
    Line { at, step }
}

fn enqueued(at: Micros, job: &str, key: Option<&str>, priority: i32) -> Line {
    line(
        at,
        Step::Enqueued {
            job: job.into(),
            database: "db".into(),
            queue: "q".into(),
            ability: "a".into(),
            key: key.map(Into::into),
            key_may_double: false,
            priority,
            delayed: false,
            doubtful: Vec::new(),
            begun: at - 5,
        },
    )
}

fn started(at: Micros, job: &str, worker: &str, attempt: i32) -> Line {
    let (worker, job, database) = (worker.into(), job.into(), "db".into());
    line(at, Step::Started { worker, database, job, attempt })
}

fn finished(at: Micros, job: &str, worker: &str, attempt: i32, outcome: &str) -> Line {
    let (worker, job, outcome) = (worker.into(), job.into(), outcome.into());
    line(at, Step::Finished { worker, database: "db".into(), job, attempt, outcome })
}

fn settled(at: Micros, job: &str, worker: &str, attempt: i32, answer: Answer) -> Line {
    let (worker, database, job) = (worker.into(), "db".into(), job.into());
    let (last, given_back) = (true, false);
    line(at, Step::Settled { worker, database, job, attempt, last, given_back, answer })
}

fn retried(at: Micros, job: &str, worker: &str, attempt: i32) -> Line {
    let mut line = settled(at, job, worker, attempt, Answer::Done);
    if let Step::Settled { last, .. } = &mut line.step {
        *last = false;
    }
    line
}

fn claimed(at: Micros, jobs: &[(&str, i32)]) -> Line {
    let jobs = jobs.iter().map(|(job, priority)| ((*job).to_owned(), *priority)).collect();
    let (worker, database, queue) = ("w".into(), "db".into(), "q".into());
    line(at, Step::Claimed { worker, database, queue, jobs, begun: at - 5 })
}

/// A whole run from its start to its accepted end.
fn run(at: Micros, job: &str, worker: &str, attempt: i32) -> Vec<Line> {
    vec![
        started(at, job, worker, attempt),
        finished(at + 10, job, worker, attempt, "completed"),
        settled(at + 20, job, worker, attempt, Answer::Done),
    ]
}

/// The same step in another database.
fn elsewhere(mut line: Line) -> Line {
    let step = &mut line.step;
    if let Step::Started { database, .. }
    | Step::Finished { database, .. }
    | Step::Settled { database, .. } = step
    {
        "other".clone_into(database);
    }
    line
}

fn faults(lines: Vec<Line>) -> Vec<Fault> {
    check(&History::from_lines(lines), &Remains::default())
}

fn live(job: &str) -> Remains {
    Remains { live: HashSet::from([job.to_owned()]), failed: HashSet::new() }
}

#[test]
fn an_honest_history_has_no_fault() {
    let mut lines = vec![enqueued(100, "j", Some("k"), 0), claimed(150, &[("j", 0)])];
    lines.extend([started(200, "j", "w", 1), finished(210, "j", "w", 1, "retried")]);
    lines.push(retried(220, "j", "w", 1));
    lines.extend(run(300, "j", "v", 2));
    lines.push(line(400, Step::Replied { job: "j".into(), attempt: 2 }));
    // The key is free again.
    lines.push(enqueued(500, "i", Some("k"), 0));
    lines.extend(run(600, "i", "w", 1));
    assert_eq!(faults(lines), []);
}

#[test]
fn a_job_that_is_nowhere_was_lost() {
    let lines = || vec![enqueued(100, "j", None, 0)];
    assert_eq!(faults(lines()), [Fault::Lost { job: "j".into() }]);
    assert_eq!(check(&History::from_lines(lines()), &live("j")), []);
    let failed = Remains { failed: HashSet::from(["j".to_owned()]), ..Remains::default() };
    assert_eq!(check(&History::from_lines(lines()), &failed), []);
    // Its only run failed and was to be tried again.
    let mut tried = lines();
    tried.extend([started(200, "j", "w", 1), finished(210, "j", "w", 1, "retried")]);
    tried.push(retried(220, "j", "w", 1));
    assert_eq!(faults(tried), [Fault::Lost { job: "j".into() }]);
    let mut dequeued = lines();
    dequeued.push(line(300, Step::Dropped { job: "j".into() }));
    assert_eq!(faults(dequeued), []);
}

#[test]
fn a_settlement_that_nobody_lived_to_note_may_have_ended_the_job() {
    let lines = vec![
        enqueued(100, "j", None, 0),
        started(200, "j", "w", 1),
        finished(210, "j", "w", 1, "completed"),
    ];
    assert_eq!(faults(lines), []);
    let lines = vec![enqueued(100, "j", None, 0), started(200, "j", "w", 1)];
    assert_eq!(faults(lines), [Fault::Lost { job: "j".into() }], "it did not even finish");
}

#[test]
fn a_run_that_begins_before_the_former_is_over_overlaps() {
    let forge = |answer| {
        let mut lines = vec![enqueued(100, "j", None, 0), started(200, "j", "w", 1)];
        lines.extend(run(250, "j", "v", 2));
        lines.push(finished(300, "j", "w", 1, "completed"));
        lines.push(settled(310, "j", "w", 1, answer));
        faults(lines)
    };
    let found = forge(Answer::Done);
    let overlap = Fault::Overlap { job: "j".into(), first: "w".into(), second: "v".into() };
    assert!(found.contains(&overlap), "{found:?}");
    assert!(found.contains(&Fault::EndedTwice { job: "j".into() }), "{found:?}");
    assert_eq!(forge(Answer::LeaseLost), [], "the former had lost its lease");
}

#[test]
fn a_process_that_died_leaves_its_run_to_another() {
    let mut lines = vec![enqueued(100, "j", None, 0), started(200, "j", "dead", 1)];
    lines.extend(run(900, "j", "w", 2));
    let history = History::from_lines(lines);
    assert_eq!(check(&history, &Remains::default()), []);
    assert_eq!(history.rescues("dead", 300), [600]);
}

#[test]
fn a_worker_must_not_begin_a_run_twice() {
    let mut lines = vec![enqueued(100, "j", None, 0), started(200, "j", "w", 1)];
    lines.extend(run(250, "j", "w", 1));
    let twice = Fault::StartedTwice { job: "j".into(), worker: "w".into() };
    assert_eq!(faults(lines), [twice]);
    // A job that was put off has the same attempt again.
    let mut snoozed = vec![enqueued(100, "j", None, 0), started(200, "j", "w", 1)];
    snoozed.extend([finished(210, "j", "w", 1, "snoozed"), retried(220, "j", "w", 1)]);
    snoozed.extend(run(300, "j", "w", 1));
    assert_eq!(faults(snoozed), []);
}

#[test]
fn one_worker_may_run_both_copies_of_a_job_that_may_be_double() {
    let mut lines = vec![enqueued(100, "j", None, 0)];
    lines.extend(run(200, "j", "w", 1));
    lines.extend(run(205, "j", "w", 1).into_iter().map(elsewhere));
    assert_ne!(faults(lines.clone()), [], "nobody was told that it may be double");
    lines.push(line(101, Step::Uncertain { job: "j".into() }));
    assert_eq!(faults(lines.clone()), []);
    // Also when nobody lived to settle the first.
    let mut unsettled = vec![enqueued(100, "j", None, 0), started(200, "j", "w", 1)];
    unsettled.extend(run(205, "j", "w", 1).into_iter().map(elsewhere));
    let twice = Fault::StartedTwice { job: "j".into(), worker: "w".into() };
    assert_eq!(faults(unsettled), [twice]);
    // Either copy still runs once.
    lines.push(started(208, "j", "w", 1));
    let twice = Fault::StartedTwice { job: "j".into(), worker: "w".into() };
    assert_eq!(faults(lines), [twice]);
}

#[test]
fn a_claim_that_a_killed_server_forgot_may_be_run_again() {
    let mut lines = vec![enqueued(100, "j", None, 0), claimed(150, &[("j", 0)])];
    lines.push(started(200, "j", "w", 1));
    lines.push(finished(210, "j", "w", 1, "completed"));
    let mut again = run(900, "j", "w", 1);
    let judge = |lines: &[Line], rules: &Rules| {
        rules.check(&History::from_lines(lines.to_vec()), &Remains::default())
    };
    let killed = Rules::default().with_disturbance(205, 1_000);
    let twice = [Fault::StartedTwice { job: "j".into(), worker: "w".into() }];
    // Without another claim the worker itself ran it twice.
    let without: Vec<Line> = lines.iter().cloned().chain(again.clone()).collect();
    assert_eq!(judge(&without, &killed), twice);
    again.insert(0, claimed(850, &[("j", 0)]));
    lines.extend(again);
    assert_eq!(judge(&lines, &killed), []);
    assert_eq!(judge(&lines, &Rules::default()), twice, "no server died");
}

#[test]
fn the_story_of_a_job_is_all_its_lines_in_order() {
    let files = tempfile::tempdir().expect("made");
    let write = |name: &str, lines: &[Line]| {
        let text = lines.iter().map(|line| serde_json::to_string(line).expect("text") + "\n");
        std::fs::write(files.path().join(name), text.collect::<String>()).expect("writes");
    };
    write("worker.jsonl", &run(200, "j", "w", 1));
    write("client.jsonl", &[enqueued(100, "j", None, 0), enqueued(150, "i", None, 0)]);
    let story = History::story(files.path(), "j").expect("reads");
    let at: Vec<Micros> = story.iter().map(|line| line.at).collect();
    assert_eq!(at, [100, 200, 210, 220]);
    assert_eq!(Fault::Lost { job: "j".into() }.job(), "j");
}

#[test]
fn a_job_that_ended_must_not_run_again() {
    let mut lines = vec![enqueued(100, "j", None, 0)];
    lines.extend(run(200, "j", "w", 1));
    lines.push(started(900, "j", "v", 1));
    let again = Fault::RanAfterEnd { job: "j".into(), worker: "v".into() };
    assert_eq!(faults(lines.clone()), [again]);
    // After an uncertain enqueue it may be stored in two places.
    lines.push(line(101, Step::Uncertain { job: "j".into() }));
    assert_eq!(faults(lines), []);
}

#[test]
fn a_key_that_is_given_out_while_it_is_held_lives_twice() {
    let lines = |second| {
        let mut lines = vec![enqueued(100, "j", Some("k"), 0), enqueued(second, "i", Some("k"), 0)];
        lines.extend(run(300, "j", "w", 1));
        lines.extend(run(800, "i", "w", 1));
        lines
    };
    let twice = Fault::KeyLivedTwice { key: "a/k".into(), first: "j".into(), second: "i".into() };
    assert_eq!(faults(lines(200)), std::slice::from_ref(&twice));
    assert_eq!(faults(lines(500)), [], "the first had ended");
    assert_eq!(faults(lines(312)), [], "the first may have ended in between");
    let both = vec![enqueued(100, "j", Some("k"), 0), enqueued(200, "i", Some("k"), 0)];
    let remains = Remains {
        live: ["i", "j"].map(str::to_owned).into_iter().collect(),
        failed: HashSet::new(),
    };
    assert_eq!(check(&History::from_lines(both), &remains), [twice]);
}

#[test]
fn a_reply_of_another_run_is_foreign() {
    let lines = |attempt| {
        let mut lines = vec![enqueued(100, "j", None, 0)];
        lines.extend([started(200, "j", "w", 1), finished(210, "j", "w", 1, "retried")]);
        lines.push(retried(220, "j", "w", 1));
        lines.extend(run(300, "j", "w", 2));
        lines.push(line(400, Step::Replied { job: "j".into(), attempt }));
        lines
    };
    assert_eq!(faults(lines(1)), [Fault::ForeignReply { job: "j".into(), attempt: 1 }]);
    assert_eq!(faults(lines(2)), []);
}

#[test]
fn a_job_of_higher_priority_must_not_be_passed_over_for_long() {
    const LATE: Micros = 10_000_000;
    let lines = |later| {
        let mut lines = vec![enqueued(100, "high", None, 9), enqueued(101, "low", None, 0)];
        lines.push(claimed(later, &[("low", 0)]));
        lines.push(claimed(later + 50, &[("high", 9)]));
        lines.extend(run(later + 60, "low", "w", 1));
        lines.extend(run(later + 90, "high", "w", 1));
        lines
    };
    let inversion = Fault::PriorityInversion { job: "high".into(), instead: "low".into() };
    assert_eq!(faults(lines(LATE)), std::slice::from_ref(&inversion));
    assert_eq!(faults(lines(1_000)), [], "it had not waited for long");
    let strict = Rules::default().with_priority_slack(std::time::Duration::ZERO);
    let found = strict.check(&History::from_lines(lines(1_000)), &Remains::default());
    assert_eq!(found, [inversion]);
    let disturbed = Rules::default().with_disturbance(5_000, 6_000);
    assert_eq!(disturbed.check(&History::from_lines(lines(LATE)), &Remains::default()), []);
    // In the same claim, and in one at the same time, there is no order to break.
    let mut one = vec![enqueued(100, "high", None, 9), enqueued(101, "low", None, 0)];
    one.push(claimed(LATE, &[("high", 9), ("low", 0)]));
    one.extend(run(LATE + 10, "high", "w", 1));
    one.extend(run(LATE + 10, "low", "w", 1));
    assert_eq!(faults(one), []);
}

#[test]
fn files_are_read_with_the_torn_last_line_of_a_killed_process() {
    let files = tempfile::tempdir().expect("a temporary directory");
    let whole = serde_json::to_string(&enqueued(100, "j", None, 0)).expect("encodes");
    std::fs::write(files.path().join("a"), format!("{whole}\n{}", &whole[..20])).expect("writes");
    let history = History::read(files.path()).expect("reads");
    assert_eq!((history.len(), history.torn()), (1, 1));
    std::fs::write(files.path().join("b"), "nonsense\n").expect("writes");
    assert!(History::read(files.path()).is_err(), "a whole line that is none of ours");
}

#[test]
fn every_fault_says_what_happened() {
    let lost = Fault::Lost { job: "j".into() };
    assert_eq!(lost.to_string(), "job j was lost");
}

#[test]
fn a_job_that_ended_in_two_databases_after_a_lost_answer_is_counted() {
    let once = || {
        let mut lines = vec![enqueued(100, "j", None, 0)];
        if let Step::Enqueued { doubtful, .. } = &mut lines[0].step {
            doubtful.push("other".to_owned());
        }
        lines.extend(run(200, "j", "w", 1));
        lines
    };
    assert_eq!(History::from_lines(once()).ended_in_two(), 0);
    let mut lines = once();
    lines.extend(run(300, "j", "v", 1).into_iter().map(elsewhere));
    assert_eq!(faults(lines.clone()), []);
    assert_eq!(History::from_lines(lines).ended_in_two(), 1);
}
