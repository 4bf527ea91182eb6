//! The exit codes, texts and JSON of `qudo wait`.

#![cfg(feature = "sqlite")]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::process::{Command, Output};

use qudo::{Job, JobError, JobId, JobResult, Manager};
use serde_json::Value;

#[qudo::ability(max_retries = 1, retry_delay = "0s")]
fn report(job: &Job, pages: u32) -> JobResult<u32> {
    job.send(&format!("attempt {}", job.attempt()))?;
    if pages == 0 {
        return Err(JobError::fail("no pages"));
    }
    Ok(pages)
}

fn wait(job: JobId, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qudo"));
    command.arg("wait").arg(job.to_string()).args(arguments).output().expect("runs")
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8(output.stdout.clone()).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn what_a_job_sent_and_its_reply_are_shown_and_the_exit_code_says_how_it_ended() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let dsn = format!("sqlite:{}", place.path().join("jobs.db").display());
    let database = format!("--database=it={dsn}");
    let manager = Manager::builder()
        .linked(false)
        .database(&*dsn)
        .ability::<report>()
        .build()
        .expect("valid");
    manager.migrate().expect("migrates");
    let send = |pages| manager.enqueue(report::job(pages)).expect("stored").id().expect("new");
    let (done, failed) = (send(3), send(0));
    while manager.work_once().expect("works").is_some() {}
    let waits = send(1);

    let told = wait(done, &[&database]);
    assert_eq!(
        (told.status.code(), lines(&told)),
        (Some(0), vec!["\"attempt 1\"".into(), "3".into()])
    );
    let told = wait(done, &[&database, "--json"]);
    let objects: Vec<Value> =
        lines(&told).iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(objects[0]["sent"], "attempt 1");
    assert_eq!((&objects[0]["attempt"], &objects[0]["number"]), (&1.into(), &0.into()));
    assert_eq!((&objects[1]["ended"], &objects[1]["reply"]), (&"completed".into(), &3.into()));

    let told = wait(failed, &[&database]);
    assert_eq!((told.status.code(), lines(&told)), (Some(1), vec!["\"attempt 2\"".into()]));
    assert!(String::from_utf8_lossy(&told.stderr).contains("no pages"), "{told:?}");
    let told = wait(failed, &[&database, "--all-attempts", "--json"]);
    assert_eq!((told.status.code(), lines(&told).len()), (Some(1), 3), "{told:?}");

    let told = wait(waits, &[&database, "--limit=100ms", "--json"]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    let end: Value = serde_json::from_slice(&told.stdout).expect("one JSON object");
    assert_eq!(end["ended"], "waits");
    assert_eq!(wait(JobId::new(), &[&database]).status.code(), Some(1), "nobody knows it");
}
