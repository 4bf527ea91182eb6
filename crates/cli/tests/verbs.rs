//! Verbs over a filter on the command line: what they show, ask, do, and leave to be gone on with.

#![cfg(feature = "sqlite")]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::process::{Command, Output};
use std::time::Duration;

use qudo::{Job, JobError, JobResult, Manager, NewJob};
use serde_json::Value;

#[qudo::ability]
fn billed(_job: &Job, customer: u32) -> JobResult<()> {
    match customer {
        0..3 => Err(JobError::fail(format!("no customer {customer}"))),
        _ => Ok(()),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// Two databases: in the first 6 jobs that are ready, of two tenants, and 2 that are scheduled; in the second 3 that failed.
struct Bed {
    place: tempfile::TempDir,
    manager: Manager,
}

impl Bed {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a temporary directory");
        let dsn = |name: &str| format!("sqlite:{}", place.path().join(name).display());
        let builder = Manager::builder().linked(false).ability::<billed>();
        let builder = builder.database_as("one", dsn("one.db"));
        let manager = builder.database_as("two", dsn("two.db")).build().expect("valid");
        manager.migrate().expect("migrates");
        let send = |job: NewJob| assert!(manager.enqueue(job).expect("stored").is_new());
        for customer in 0..3 {
            send(billed::job(customer).database("two").untyped());
        }
        while manager.work_once().expect("answers").is_some() {}
        for n in 0..6 {
            send(NewJob::named("mail", n.into()).database("one").meta("tenant", n % 2));
        }
        for n in 0..2 {
            let later = NewJob::named("mail", n.into()).queue("late").database("one");
            send(later.delay(Duration::from_secs(3_600)));
        }
        Self { place, manager }
    }

    fn database(&self, name: &str) -> String {
        format!(
            "--database={name}=sqlite:{}",
            self.place.path().join(format!("{name}.db")).display()
        )
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qudo"));
        command.env_remove("QUDO_DATABASES").env_remove("QUDO_CONFIG").env("USER", "ada");
        command.args(arguments).args(["one", "two"].map(|name| self.database(name)));
        command.output().expect("runs")
    }

    /// What is printed as JSON, of a run that did all.
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    }

    fn count(&self, filter: &str) -> usize {
        let filter = filter.parse().expect("a filter");
        self.manager.jobs(&filter, &qudo::admin::Paging::default()).rows().count()
    }
}

fn done(report: &Value) -> Vec<u64> {
    let databases = report["databases"].as_array().expect("a list");
    databases.iter().map(|one| one["done"].as_u64().expect("a number")).collect()
}

#[test]
fn nothing_is_done_unless_it_is_said_to_whom_and_wanted() {
    let bed = Bed::new();
    for (arguments, says) in [
        (&["delete", "--yes"][..], "<FILTER"),
        (&["delete", "--all"], "--yes"),
        (&["delete", "--yes", ""], "--all"),
        (&["redrive", "--yes", " ", ""], "--all"),
        (&["delete", "tenant=7", "--yes"], "tenant"),
        (&["delete", "db:three", "--yes"], "three"),
        (&["cancel", "--all", "--yes"], "reason"),
        (&["move", "--all", "--yes"], "--to-queue"),
        (&["move", "--all", "--yes", "--to-database", "three"], "three"),
        (&["reschedule", "--all", "--yes", "--to", "soon"], "2026-12-01T10:00"),
        (&["redrive", "state:ready", "--yes"], "state"),
        (&["operations", "resume", "7"], "7"),
    ] {
        let output = bed.run(arguments);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains(says), "{arguments:?}: {told}");
    }
    assert_eq!(bed.count(""), 8);
    let none = bed.json(&["operations", "--json"]);
    assert_eq!(none["rows"], serde_json::json!([]));
}

#[test]
fn a_dry_run_shows_what_would_be_done() {
    let bed = Bed::new();
    let output = bed.run(&["delete", "--dry-run", "meta.tenant=1"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout).lines().count(), 3);
    assert!(text(&output.stderr).contains("one: 3 jobs"), "{output:?}");
    let shown = bed.json(&["redrive", "--dry-run", "--json", "ability:billed", "db:two"]);
    assert_eq!(shown["operation"], "redrive ability:billed db:two");
    assert_eq!(shown["databases"][0]["count"], 3);
    assert_eq!(shown["databases"][0]["failures"].as_array().map(Vec::len), Some(3));
    assert_eq!(bed.count(""), 8);
}

#[test]
fn each_verb_does_what_it_says_and_is_written_down() {
    let bed = Bed::new();
    let yes = |arguments: &[&str]| bed.json(&[arguments, &["--yes", "--json"]].concat());
    let limited = yes(&["delete", "meta.tenant=1", "--limit", "2", "--reason", "left"]);
    assert_eq!((done(&limited), bed.count("")), (vec![2, 0], 6));
    assert_eq!(done(&yes(&["prioritize", "queue:default", "--to", "-5"])), [4, 0]);
    assert_eq!(bed.count("priority:-5"), 4);
    assert_eq!(done(&yes(&["move", "queue:late", "--to-queue", "gl.late"])), [2, 0]);
    assert_eq!(done(&yes(&["reschedule", "queue:gl.*", "--to", "now"])), [2, 0]);
    assert_eq!(bed.count("state:ready"), 6);
    assert_eq!(done(&yes(&["reschedule", "queue:gl.*", "--to", "2h"])), [2, 0]);
    assert_eq!(bed.count("state:scheduled due>now"), 2);
    assert_eq!(done(&yes(&["retry", "--all"])), [0, 0]);
    assert_eq!(done(&yes(&["move", "queue:gl.*", "--to-database", "two"])), [2]);
    assert_eq!(bed.count("db:two"), 2);
    assert_eq!(done(&yes(&["redrive", "ability:billed"])), [0, 3]);
    let cancelled = bed.run(&["cancel", "ability:mail", "--yes", "--each", "--reason", "closed"]);
    let lines = text(&cancelled.stdout);
    assert_eq!(lines.lines().filter(|line| line.contains("\tdone\t")).count(), 6, "{lines}");
    assert!(text(&cancelled.stderr).contains("operation "));
    assert_eq!(bed.count(""), 3);
    let forced = yes(&["cancel", "--all", "--force", "--reason", "closed", "--rate", "0"]);
    assert_eq!((done(&forced), bed.count("")), (vec![0, 3], 0));

    let all = bed.json(&["operations", "--json"]);
    let rows = all["rows"].as_array().expect("a list");
    let of_one = |row: &&Value| row["database"] == "one";
    assert_eq!(rows.iter().filter(of_one).count(), 10);
    let first = rows.iter().rfind(of_one).expect("there is one");
    for (field, value) in [("verb", "delete"), ("filter", "meta.tenant=1"), ("reason", "left")] {
        assert_eq!(first[field], value);
    }
    assert_eq!((first["limit"].as_u64(), first["done"].as_u64()), (Some(2), Some(2)));
    let operator = first["operator"].as_str().expect("a name");
    assert!(operator.starts_with("ada@"), "{operator}");
    assert!(rows.iter().all(|row| row["finished_at"].is_string()));
    assert_eq!(bed.json(&["operations", "--json", "--open"])["rows"], serde_json::json!([]));
}

#[test]
fn what_a_database_did_not_do_is_gone_on_with() {
    let bed = Bed::new();
    let gone = bed.place.path().join("two.db");
    let away = bed.place.path().join("away.db");
    // Away for the command; this process has the file open.
    std::fs::rename(&gone, &away).expect("renames");
    std::fs::create_dir(&gone).expect("makes a folder");
    let output = bed.run(&["redrive", "--all", "--yes"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("two") && told.contains("qudo operations resume "), "{told}");
    let id = told.split("resume ").nth(1).expect("an id").trim().to_owned();
    let nowhere = bed.run(&["cancel", "db:two", "--yes", "--reason", "closed"]);
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(text(&nowhere.stderr).contains("give the command again"), "{nowhere:?}");
    std::fs::remove_dir(&gone).expect("removes the folder");
    std::fs::rename(&away, &gone).expect("renames");
    let report = bed.json(&["operations", "resume", &id, "--json"]);
    assert_eq!((done(&report), &report["finished"]), (vec![0, 3], &Value::Bool(true)));
    assert_eq!(done(&bed.json(&["operations", "resume", &id, "--json"])), [0, 3], "once");
    assert_eq!(bed.count("ability:billed"), 3);
    let unknown = qudo::admin::OperationId::new().to_string();
    assert_eq!(bed.run(&["operations", "resume", &unknown]).status.code(), Some(1));
}
