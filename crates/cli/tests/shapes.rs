//! What is printed as JSON is what `docs/json.md` says: no field more, and none less.

#![cfg(feature = "sqlite")]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use qudo::driver::{DriverRegistration, WorkerInfo};
use qudo::{Job, JobError, JobResult, Manager, NewJob};
use serde_json::Value;

#[qudo::ability(job_status = true)]
fn billed(_job: &Job, customer: u32) -> JobResult<()> {
    match customer {
        0 => Err(JobError::fail("no customer 0")),
        _ => Ok(()),
    }
}

/// The fields of each command; whether a field may be missing.
fn documented() -> BTreeMap<String, BTreeMap<String, bool>> {
    let page = include_str!("../../../docs/json.md");
    let mut all: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    let mut command = String::new();
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            name.clone_into(&mut command);
        }
        let Some(item) = line.strip_prefix("- ") else { continue };
        // Values stand in parentheses behind their field.
        let mut outside = String::new();
        let mut depth = 0_u32;
        for one in item.chars() {
            match one {
                '(' => depth += 1,
                ')' => depth -= 1,
                one if depth == 0 => outside.push(one),
                _ => {}
            }
        }
        let fields = outside.split('`').skip(1).step_by(2);
        for field in fields.filter(|field| !field.starts_with("--") && !field.contains(' ')) {
            let (field, may_miss) =
                field.strip_suffix('?').map_or((field, false), |field| (field, true));
            all.entry(command.clone()).or_default().insert(field.to_owned(), may_miss);
        }
    }
    all
}

/// The paths of a value's leaves.
fn paths(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                paths(value, &at, found);
            }
        }
        Value::Array(values) => {
            for value in values {
                paths(value, &format!("{at}[]"), found);
            }
        }
        _ => {
            found.insert(at.to_owned());
        }
    }
}

/// Whether a path stands on the page: as it is, or under one whose fields are not named.
fn stands(path: &str, fields: &BTreeMap<String, bool>) -> bool {
    fields.keys().any(|field| match field.strip_suffix(".*") {
        Some(open) => path.strip_prefix(open).is_some_and(|rest| rest.starts_with('.')),
        None => path == field || (field.ends_with("[]") && path.starts_with(&**field)),
    })
}

struct Bed {
    _place: tempfile::TempDir,
    database: String,
    away: String,
    dsn: String,
    waits: String,
}

impl Bed {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a temporary directory");
        let dsn = format!("sqlite:{}", place.path().join("jobs.db").display());
        let builder = Manager::builder().linked(false).ability::<billed>();
        let manager = builder.database(&*dsn).build().expect("valid");
        manager.migrate().expect("migrates");
        let send = |job: NewJob| manager.enqueue(job).expect("stored").id().expect("new");
        send(billed::job(0).meta("tenant", 7).untyped());
        send(billed::job(1).untyped());
        while manager.work_once().expect("answers").is_some() {}
        let waits = send(NewJob::named("mail", 1.into()).meta("tenant", 7).tag("eu")).to_string();
        send(NewJob::named("mail", 2.into()).delay(std::time::Duration::from_secs(3_600)));
        let driver = DriverRegistration::open_linked(&dsn).expect("valid").driver;
        let mut worker = WorkerInfo::new("host:1", std::time::Duration::from_secs(3_600));
        worker.abilities = ["billed".into()].into();
        worker.queues = ["default".into()].into();
        driver.heartbeat(&worker).expect("beats");
        let database = format!("--database=it={dsn}");
        let away = format!("--database=away=sqlite:{}", place.path().display());
        Self { _place: place, database, away, dsn, waits }
    }

    /// The object that is printed last.
    fn run(&self, arguments: &str, with_away: bool) -> Value {
        let arguments = arguments.replace("ID", &self.waits).replace("DSN", &self.dsn);
        let mut command = Command::new(env!("CARGO_BIN_EXE_qudo"));
        command.env_remove("QUDO_DATABASES").env_remove("QUDO_CONFIG");
        command.args(arguments.split_whitespace()).arg(&self.database);
        if with_away {
            command.arg(&self.away);
        }
        let output = command.arg("--json").output().expect("runs");
        let text = String::from_utf8(output.stdout.clone()).expect("text");
        let last = text.lines().last().unwrap_or_else(|| panic!("{arguments}: {output:?}"));
        serde_json::from_str(last)
            .unwrap_or_else(|error| panic!("{arguments}: {error}: {output:?}"))
    }
}

#[test]
fn what_is_printed_as_json_is_what_its_page_says() {
    let (bed, documented) = (Bed::new(), documented());
    let mut seen: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (section, arguments) in [
        ("migrate", "migrate"),
        ("migrate", "migrate --dry-run"),
        ("status", "status"),
        ("health", "health --ready 0"),
        ("doctor", "doctor"),
        ("jobs", "jobs"),
        ("count", "count"),
        ("failures", "failures"),
        ("failures --each", "failures --each"),
        ("runs", "runs"),
        ("stats", "stats"),
        ("stats", "stats --ever"),
        ("stats --forget", "stats --forget gone"),
        ("why", "why ID"),
        ("queues pause", "queues pause default --reason closed"),
        ("queues", "queues"),
        ("queues", "abilities"),
        ("why", "why ID"),
        ("status", "status"),
        ("queues pause", "queues resume default"),
        ("workers quiet", "workers quiet host:1"),
        ("workers", "workers"),
        ("databases", "databases"),
        ("queues pause", "databases pause it"),
        ("queues pause", "databases resume it"),
        ("delete --dry-run", "delete --all --dry-run"),
        ("delete --dry-run", "redrive --all --dry-run"),
        ("delete --yes", "redrive --all --yes --each"),
        ("delete --yes", "prioritize --all --yes --to 3"),
        ("operations", "operations"),
        ("audit", "audit"),
        ("bench", "bench --metric work --jobs 10"),
    ] {
        let fields = documented.get(section).unwrap_or_else(|| panic!("no section {section}"));
        // What answers alone, and beside a database that does not.
        for with_away in [false, true] {
            if with_away && matches!(section, "databases" | "why" | "bench") {
                continue;
            }
            let object = bed.run(arguments, with_away);
            let mut found = BTreeSet::new();
            paths(&object, "", &mut found);
            for path in &found {
                assert!(stands(path, fields), "{arguments}: {path} is not on the page");
            }
            if !with_away {
                seen.entry(section).or_default().extend(found);
            }
        }
    }
    for (section, found) in &seen {
        for (field, may_miss) in &documented[*section] {
            let is_there = found.contains(field)
                || (field.ends_with("[]") && found.iter().any(|path| path.starts_with(&**field)))
                // An object in its place.
                || found.iter().any(|path| path.starts_with(&format!("{field}.")));
            assert!(is_there || *may_miss, "{section}: {field} was not printed");
        }
    }
    let rows = bed.run("stats --ever", false);
    let of_bench = |row: &Value| row["queue"].as_str().is_some_and(|name| name.contains("bench"));
    let rows = rows["rows"].as_array().expect("a list");
    assert!(!rows.is_empty() && !rows.iter().any(of_bench), "the bench leaves none: {rows:?}");
    let moved = documented.get("databases move").expect("is on the page");
    assert_eq!(moved.keys().collect::<Vec<_>>(), ["moved", "stayed"]);
    // The binary has no ability; what is printed is tested beside it.
    let run = documented.get("run").expect("is on the page");
    let fields: Vec<_> = run.keys().collect();
    assert_eq!(fields, ["again_after_seconds", "job", "message", "outcome"]);
}
