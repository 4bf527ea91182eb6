//! The exit codes, texts and JSON of `qudo why`.

#![cfg(feature = "sqlite")]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::process::{Command, Output};
use std::time::Duration;

use qudo::{JobId, Manager, NewJob};
use serde_json::Value;

fn why(job: JobId, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qudo"));
    command.arg("why").arg(job.to_string()).args(arguments).output().expect("runs")
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[test]
fn the_reason_is_told_in_a_sentence_and_as_json_and_the_exit_code_says_whether_the_job_is_known() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let dsn = format!("sqlite:{}", place.path().join("jobs.db").display());
    let database = format!("--database=it={dsn}");
    let manager = Manager::builder().linked(false).database(&*dsn).build().expect("valid");
    manager.migrate().expect("migrates");
    let send = |job: NewJob| manager.enqueue(job).expect("stored").id().expect("new");
    let ready = send(NewJob::named("mail", "a secret".into()).uniqkey("ada"));
    let later = send(NewJob::named("mail", 1.into()).delay(Duration::from_secs(3_600)));

    let told = why(ready, &[&database]);
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    let lines = text(&told);
    assert!(
        lines.starts_with(&format!("job {ready} in database \"it\"\nready: ability \"mail\"")),
        "{lines}"
    );
    assert!(lines.ends_with("\nno worker process works this database\n"), "{lines}");
    assert!(lines.contains("key \"ada\", 0 runs started") && !lines.contains("secret"), "{lines}");

    let told = why(later, &[&database, "--json"]);
    let object: Value = serde_json::from_slice(&told.stdout).expect("one JSON object");
    assert_eq!(object["job"], later.to_string());
    assert_eq!((&object["database"], &object["reason"]), (&"it".into(), &"not_due".into()));
    assert_eq!((&object["state"], &object["attempt"]), (&"scheduled".into(), &0.into()));
    let run_after = object["run_after"].as_str().expect("a time");
    assert!(object["text"].as_str().expect("a sentence").starts_with("it is not due until "));
    assert!(run_after > object["enqueued_at"].as_str().expect("a time"), "{object}");

    let unknown = JobId::new();
    let told = why(unknown, &[&database]);
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    assert!(text(&told).starts_with(&format!("job {unknown}\nno database knows it: ")), "{told:?}");

    let away = format!("--database=away=sqlite:{}/none/jobs.db", place.path().display());
    assert_eq!(why(ready, &[&database, &away]).status.code(), Some(0), "the other knows it");
    let told = why(unknown, &[&database, &away]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    assert!(String::from_utf8_lossy(&told.stderr).contains("away"), "{told:?}");
}
