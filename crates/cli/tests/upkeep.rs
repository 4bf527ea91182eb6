//! Health, and what a migration would do: exit codes, texts and JSON.

#![cfg(feature = "sqlite")]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::process::{Command, Output};

use qudo::driver::{DriverRegistration, WorkerInfo};
use qudo::{Manager, NewJob};
use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qudo"));
    command.env_remove("QUDO_DATABASES").env_remove("QUDO_CONFIG");
    command.args(arguments).output().expect("runs")
}

/// The exit code and the one JSON object.
fn json(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = run(arguments);
    let object = serde_json::from_slice(&output.stdout);
    (output.status.code(), object.unwrap_or_else(|error| panic!("{error}: {output:?}")))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn a_database_is_healthy_within_the_limits_that_are_asked_for() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let dsn = format!("sqlite:{}", place.path().join("jobs.db").display());
    let database = format!("--database=it={dsn}");
    let manager = Manager::builder().linked(false).database(&*dsn).build().expect("valid");
    manager.migrate().expect("migrates");
    let healthy = run(&["health", &database]);
    assert_eq!((healthy.status.code(), text(&healthy.stdout)), (Some(0), "healthy\n".to_owned()));
    for n in 0..3 {
        manager.enqueue(NewJob::named("it", n.into())).expect("stored");
    }
    let asked = |arguments: &[&str]| {
        let (code, object) = json(&[&["health", "--json", &database], arguments].concat());
        let ailments = object["ailments"].as_array().expect("a list");
        assert_eq!(object["healthy"].as_bool(), Some(ailments.is_empty()));
        let words = ailments.iter().map(|one| one["ailment"].as_str().expect("a word").to_owned());
        (code, words.collect::<Vec<_>>().join(" "))
    };
    assert_eq!(asked(&[]), (Some(1), "no_worker".to_owned()));
    assert_eq!(asked(&["--without-workers"]), (Some(0), String::new()));
    let strict = ["--without-workers", "--ready", "2", "--oldest-ready", "0"];
    assert_eq!(asked(&strict), (Some(1), "old_job many_jobs".to_owned()));
    let driver = DriverRegistration::open_linked(&dsn).expect("valid").driver;
    driver.heartbeat(&WorkerInfo::new("it", std::time::Duration::from_secs(60))).expect("beats");
    assert_eq!(asked(&[]), (Some(0), String::new()));
    let folder = format!("--database=folder=sqlite:{}", place.path().display());
    let away = run(&["health", &database, &folder]);
    assert_eq!(away.status.code(), Some(2));
    assert!(text(&away.stdout).contains("folder: no answer"), "{away:?}");
}

#[test]
fn what_a_migration_would_do_is_told_and_not_done() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let database = format!("--database=it=sqlite:{}", place.path().join("jobs.db").display());
    let told = run(&["migrate", "--dry-run", &database]);
    assert_eq!(told.status.code(), Some(1));
    assert!(
        text(&told.stdout).contains("it: would apply 2026-11-30-000002_create_tables"),
        "{told:?}"
    );
    let sql = run(&["migrate", "--sql", &database]);
    assert_eq!(sql.status.code(), Some(1));
    let script = text(&sql.stdout);
    assert!(
        script.contains("CREATE TABLE qudo_job (")
            && script.contains("CREATE TABLE qudo_operation (")
    );
    let (code, object) = json(&["migrate", "--sql", "--json", &database]);
    let steps = object["databases"][0]["missing"].as_array().expect("a list");
    assert_eq!((code, steps.len()), (Some(1), 5), "{object}");
    assert!(steps.iter().all(|one| one["sql"].as_str().is_some_and(|sql| sql.contains(';'))));
    assert_eq!(run(&["migrate", "--dry-run", "--force", &database]).status.code(), Some(2));
    let folder = format!("--database=folder=sqlite:{}", place.path().display());
    let (code, object) = json(&["migrate", "--json", &database, &folder]);
    assert_eq!(code, Some(1), "{object}");
    assert_eq!(object["databases"][0]["applied"].as_array().map(Vec::len), Some(5), "{object}");
    assert!(object["databases"][1]["error"].is_string(), "{object}");
    for how in ["--dry-run", "--sql"] {
        let told = run(&["migrate", how, &database]);
        assert_eq!(told.status.code(), Some(0), "{told:?}");
        assert!(text(&told.stdout).contains("it: up to date"));
    }
}

#[test]
fn the_doctor_tells_what_is_missing_and_what_does_not_answer() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("jobs.db");
    let database = format!("--database=it=sqlite:{}", file.display());
    std::fs::write(&file, "").expect("made");
    let (code, object) = json(&["doctor", "--no-audit", "--json", &database]);
    let remarks = object["remarks"].as_array().expect("a list");
    assert_eq!((code, remarks.len()), (Some(1), 1), "{object}");
    assert_eq!((&remarks[0]["database"], &remarks[0]["about"]), (&"it".into(), &"tables".into()));
    let (code, object) = json(&["doctor", "--json", &database]);
    let away = object["databases"].as_array().expect("a list");
    assert_eq!((code, away.len()), (Some(1), 0), "what was remarked on answered: {object}");
    assert_eq!(run(&["migrate", &database]).status.code(), Some(0));
    let well = run(&["doctor", &database]);
    let said = text(&well.stdout);
    assert_eq!((well.status.code(), said.as_str()), (Some(0), "nothing to remark\n"));
    let folder = format!("--database=folder=sqlite:{}", place.path().display());
    let (code, object) = json(&["doctor", "--json", &database, &folder]);
    let away = object["databases"].as_array().expect("a list");
    assert_eq!((code, away.len()), (Some(2), 1), "each that is away once: {object}");
    assert_eq!(away[0]["database"], "folder");
}
