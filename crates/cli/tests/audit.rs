//! The exit codes, texts and JSON of `qudo audit`.

#![cfg(feature = "sqlite")]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::process::{Command, Output};
use std::time::Duration;

use qudo::driver::{AbilityLease, ClaimRequest, Deadline, DriverRegistration, WorkerId};
use qudo::{Manager, NewJob};
use serde_json::Value;

fn audit(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qudo"));
    command.arg("audit").args(arguments).output().expect("runs")
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// Leases the job to a worker that never was.
fn spoil(dsn: &str) {
    let driver = DriverRegistration::open_linked(dsn).expect("valid").driver;
    let grab_for = Duration::from_secs(3_600);
    let claimed = driver.claim(&ClaimRequest {
        worker: WorkerId::new(),
        claim: 1,
        queue: &"default".into(),
        abilities: &[AbilityLease { name: "it".into(), grab_for }],
        limit: 1,
        deadline: Deadline::NONE,
        thorough: true,
    });
    assert_eq!(claimed.expect("claims").len(), 1);
}

#[test]
fn the_exit_code_tells_whether_all_is_well_something_is_wrong_or_a_database_was_not_seen() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let dsn = format!("sqlite:{}", place.path().join("jobs.db").display());
    let database = format!("--database=it={dsn}");
    let manager = Manager::builder().linked(false).database(&*dsn).build().expect("valid");
    manager.migrate().expect("migrates");
    let job = manager.enqueue(NewJob::named("it", 1.into())).expect("stored").id().expect("new");

    let well = audit(&[&database]);
    assert_eq!(code(&well), Some(0), "{well:?}");
    assert_eq!(String::from_utf8_lossy(&well.stdout), "1 live jobs, 0 findings\n");
    let told = json(&audit(&[&database, "--json"]));
    assert_eq!(
        told,
        serde_json::json!({ "jobs": 1, "clean": true, "findings": [], "failures": [] })
    );

    spoil(&dsn);
    let wrong = audit(&[&database]);
    assert_eq!(code(&wrong), Some(1), "{wrong:?}");
    assert!(String::from_utf8_lossy(&wrong.stdout).contains(&job.to_string()), "{wrong:?}");
    let told = json(&audit(&[&database, "--json"]));
    assert_eq!(told["clean"], false);
    assert_eq!(told["findings"][0]["job"], job.to_string());
    assert_eq!(told["findings"][0]["databases"], serde_json::json!(["it"]));
    assert_eq!(told["findings"][0]["repaired"], false);

    let away = format!("--database=away=sqlite:{}/none/jobs.db", place.path().display());
    let unseen = audit(&[&database, &away, "--json"]);
    assert_eq!(code(&unseen), Some(2), "{unseen:?}");
    let told = json(&unseen);
    assert_eq!(told["failures"][0]["database"], "away");
    assert_eq!(told["findings"][0]["job"], job.to_string(), "the other is looked at");

    let repaired = audit(&[&database, "--repair", "--json"]);
    assert_eq!(code(&repaired), Some(0), "{repaired:?}");
    assert_eq!(json(&repaired)["findings"][0]["repaired"], true);
    assert_eq!(code(&audit(&[&database])), Some(0));
}
