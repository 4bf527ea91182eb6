//! Lists on the command line: what they print, how they are asked, and what they say of wrong questions.

#![cfg(feature = "sqlite")]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use qudo::{Job, JobError, JobId, JobResult, Manager, NewJob};
use serde_json::Value;

#[qudo::ability(job_status = true)]
fn billed(_job: &Job, customer: u32) -> JobResult<()> {
    match customer {
        13 => Err(JobError::fail(format!("no customer {customer}"))),
        _ => Ok(()),
    }
}

/// Runs the command without the variables of whoever runs the test.
fn qudo(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_qudo"));
    command.env_remove("QUDO_DATABASES").env_remove("QUDO_CONFIG");
    command.args(arguments).envs(variables.iter().copied()).output().expect("runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

fn lines(output: &Output) -> Vec<Vec<String>> {
    let rows = text(&output.stdout);
    rows.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// A database with a job that waits, one that is scheduled, one that completed and one that failed.
struct Bed {
    place: tempfile::TempDir,
    waits: JobId,
    late: JobId,
    failed: JobId,
}

impl Bed {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a temporary directory");
        let builder = Manager::builder().linked(false).ability::<billed>();
        let manager = builder.database(dsn(place.path())).build().expect("valid");
        manager.migrate().expect("migrates");
        let send = |job: NewJob| manager.enqueue(job).expect("stored").id().expect("new");
        send(billed::job(7).untyped());
        let failed = send(billed::job(13).tag("eu").untyped());
        while manager.work_once().expect("answers").is_some() {}
        let waits = send(
            NewJob::named("mail", serde_json::json!({ "to": "ada", "text": "a\tb" }))
                .meta("tenant", 7),
        );
        let late =
            send(NewJob::named("mail", 2.into()).queue("gl.x").delay(Duration::from_secs(3_600)));
        Self { place, waits, late, failed }
    }

    fn database(&self) -> String {
        format!("--database=it={}", dsn(self.place.path()))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let database = self.database();
        let all: Vec<_> = arguments.iter().copied().chain([&*database]).collect();
        qudo(&all, &[])
    }
}

fn dsn(place: &Path) -> String {
    format!("sqlite:{}", place.join("jobs.db").display())
}

#[test]
fn jobs_are_listed_by_a_filter_for_a_pipe_and_as_json() {
    let bed = Bed::new();
    let all = bed.run(&["jobs"]);
    assert_eq!(all.status.code(), Some(0), "{all:?}");
    let rows = lines(&all);
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!(&rows[0][..4], ["it", "ready", &*bed.waits.to_string(), "mail"]);
    assert_eq!(&rows[1][..2], ["it", "scheduled"]);
    assert!(!rows[1][9].is_empty() && rows[0][9].is_empty(), "when it is due: {rows:?}");
    let some = bed.run(&["jobs", "queue:gl.*", "state:scheduled"]);
    assert_eq!(lines(&some)[0][2], bed.late.to_string());
    let words = bed.run(&["jobs", "ability:sms", "state:ready OR state:scheduled"]);
    assert!(lines(&words).is_empty(), "a word is a part of its own: {words:?}");
    let told = json(&bed.run(&["jobs", "arg.to:ada", "meta.tenant=7", "--json"]));
    let row = &told["rows"][0];
    assert_eq!(row["id"], bed.waits.to_string());
    assert_eq!((&row["database"], &row["meta"]["tenant"]), (&"it".into(), &7.into()));
    assert_eq!(
        (&row["state"], &row["attempt"], &row["uniqkey"]),
        (&"ready".into(), &0.into(), &Value::Null)
    );
    assert!(row.get("arg").is_none(), "arguments are shown by `show` only");
    assert_eq!((&told["databases"][0]["more"], &told["next"]), (&false.into(), &Value::Null));
}

#[test]
fn a_long_list_goes_on_with_the_cursor_that_it_gave() {
    let bed = Bed::new();
    let first = json(&bed.run(&["jobs", "--limit=1", "--json"]));
    let next = first["next"].as_str().expect("there is more");
    let second = json(&bed.run(&["jobs", "--limit=1", "--json", "--after", next]));
    assert_eq!(first["rows"][0]["id"], bed.waits.to_string());
    assert_eq!(second["rows"][0]["id"], bed.late.to_string());
    let told = bed.run(&["jobs", "--limit=1"]);
    assert!(text(&told.stderr).contains("there is more: --after '{\"it\":"), "{told:?}");
    let wrong = bed.run(&["jobs", "--after", "page 2"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(text(&wrong.stderr).contains("not the cursor of a list"), "{wrong:?}");
}

#[test]
fn failures_are_shown_by_kind_or_one_by_one() {
    let bed = Bed::new();
    let groups = lines(&bed.run(&["failures"]));
    assert_eq!(groups.len(), 1, "{groups:?}");
    assert_eq!(
        &groups[0][..6],
        ["it", "1", "1", "billed", "error", "no customer #"].map(str::to_owned).as_slice()
    );
    let told = json(&bed.run(&["failures", "ability:billed", "tag:eu", "--json"]));
    let group = &told["groups"][0];
    assert_eq!((&group["count"], &group["open"]), (&1.into(), &1.into()));
    assert_eq!(group["sample"]["message"], "no customer 13");
    assert_eq!(
        (&told["databases"][0]["searched"], &told["databases"][0]["about"]),
        (&1.into(), &Value::Null)
    );
    let each = lines(&bed.run(&["failures", "--each", "error~CUSTOMER", "discarded:yes"]));
    assert_eq!((each.len(), &*each[0][3]), (1, &*bed.failed.to_string()));
    assert_eq!(lines(&bed.run(&["failures", "error:nothing"])).len(), 0);
    let of_job = format!("id:{0},{0}", bed.failed);
    assert_eq!(lines(&bed.run(&["failures", "--each", &of_job])).len(), 1, "once");
    assert_eq!(lines(&bed.run(&["failures", &of_job]))[0][1], "1");
    let next = "{\"it\":\"start\"}";
    assert_eq!(
        bed.run(&["failures", "--after", next]).status.code(),
        Some(2),
        "groups have no pages"
    );
}

#[test]
fn runs_and_counts_are_lists_too() {
    let bed = Bed::new();
    let runs = lines(&bed.run(&["runs"]));
    assert_eq!(runs.iter().map(|row| &*row[4]).collect::<Vec<_>>(), ["failed", "completed"]);
    assert_eq!(lines(&bed.run(&["runs", "status:completed"])).len(), 1);
    let counted = lines(&bed.run(&["count"]));
    assert_eq!(
        counted,
        [["it", "1", "ready", "default", "mail"], ["it", "1", "scheduled", "gl.x", "mail"]]
            .map(|row| row.map(str::to_owned).to_vec())
    );
    let some = json(&bed.run(&["count", "arg=2", "--json"]));
    assert_eq!((&some["rows"][0]["count"], &some["rows"][0]["queue"]), (&1.into(), &"gl.x".into()));
}

#[test]
fn one_job_is_shown_with_all_that_is_known_of_it() {
    let bed = Bed::new();
    let shown = bed.run(&["show", &bed.waits.to_string()]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let told = text(&shown.stdout);
    assert!(
        told.contains("metadata: {\"tenant\":7}")
            && told.contains("argument: {\"text\":\"a\\tb\",\"to\":\"ada\"}"),
        "{told}"
    );
    let shown = json(&bed.run(&["show", &bed.failed.to_string(), "--json"]));
    assert_eq!((&shown["why"]["reason"], &shown["argument"]), (&"failed".into(), &13.into()));
    assert_eq!(shown["failures"][0]["message"], "no customer 13");
    assert_eq!(shown["runs"][0]["status"], "failed");
    assert_eq!(bed.run(&["show", &JobId::new().to_string()]).status.code(), Some(1));
}

#[test]
fn databases_come_from_a_variable_or_a_file_too() {
    let bed = Bed::new();
    let name = dsn(bed.place.path());
    let of = |variables: &[(&str, &str)], arguments: &[&str]| {
        let told = qudo(arguments, variables);
        assert_eq!(told.status.code(), Some(0), "{told:?}");
        lines(&told)[0][0].clone()
    };
    assert_eq!(of(&[("QUDO_DATABASES", &format!("  mine={name}\n"))], &["jobs"]), "mine");
    let file = bed.place.path().join("qudo.toml");
    std::fs::write(&file, format!("[databases]\nfiled = \"{name}\"\n")).expect("writes");
    let file = file.to_str().expect("text");
    assert_eq!(of(&[("QUDO_CONFIG", file)], &["jobs"]), "filed");
    assert_eq!(
        of(&[("QUDO_DATABASES", "sqlite:nowhere.db")], &["jobs", "--config", file]),
        "filed"
    );
    let none = qudo(&["jobs"], &[]);
    assert_eq!(none.status.code(), Some(2), "{none:?}");
    assert!(
        text(&none.stderr).contains("--database") && text(&none.stderr).contains("QUDO_DATABASES"),
        "{none:?}"
    );
    for (content, line) in [
        ("[databases]\none = \"sqlite:a\"\ntwo = postgres://u:hidden@h/d\n", "line 3 is not TOML"),
        (
            "[databases]\none = \"sqlite:a\"\n[other]\nsecret = \"hidden\"\n",
            "something beside the table",
        ),
        ("[databases]\n", "needs a table `databases`"),
        ("databases = \"postgres://u:hidden@h/d\"\n", "needs a table `databases`"),
        ("[databases]\none = [\"hidden\"]\n", "database \"one\" is not a text"),
        ("[databases]\n\"postgres://u:hidden@h/d\" = \"one\"\n", "the name of database 1"),
        ("\"postgres://u:hidden@h/d\" = \"one\"\n", "something beside the table"),
    ] {
        std::fs::write(file, content).expect("writes");
        let wrong = qudo(&["jobs", "--config", file], &[]);
        let told = text(&wrong.stderr);
        assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
        assert!(told.contains(line) && !told.contains("hidden"), "{told}");
    }
}

#[test]
fn a_wrong_question_is_answered_with_its_place_and_nothing_is_asked() {
    let bed = Bed::new();
    let wrong = bed.run(&["jobs", "state:ready", "abilty:mail"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    let told = text(&wrong.stderr);
    assert!(
        told.contains("did you mean `ability`?")
            && told.contains("\n  state:ready abilty:mail\n              ^^^^^^"),
        "{told}"
    );
    let wrong = bed.run(&["failures", "db:nowhere"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(
        text(&wrong.stderr).contains("no database is called \"nowhere\"; there are: it"),
        "{wrong:?}"
    );
}

#[test]
fn a_database_that_does_not_answer_is_told_and_the_others_are_listed() {
    let bed = Bed::new();
    let away = format!("--database=away=sqlite:{}/none/jobs.db", bed.place.path().display());
    for command in ["jobs", "failures", "runs", "count"] {
        let told = bed.run(&[command, &away]);
        assert_eq!(told.status.code(), Some(2), "{told:?}");
        assert!(!lines(&told).is_empty() && text(&told.stderr).contains("away"), "{told:?}");
    }
    let told = json(&bed.run(&["jobs", &away, "--json"]));
    assert!(
        told["databases"][0]["error"].as_str().is_some_and(|error| error.contains("away")),
        "{told}"
    );
    assert_eq!(told["rows"].as_array().map(Vec::len), Some(2));
    assert!(told["next"].as_str().is_some_and(|next| next.contains("away")), "it is asked again");
}

#[test]
fn a_queue_or_an_ability_is_paused_for_a_reason_and_resumed() {
    let bed = Bed::new();
    let row = |arguments: &[&str], name: &str| {
        let rows = json(&bed.run(arguments))["rows"].as_array().cloned().expect("rows");
        rows.into_iter()
            .find(|row| row["name"] == name)
            .unwrap_or_else(|| panic!("{name} is not there"))
    };
    let queue = row(&["queues", "--json"], "gl.x");
    assert_eq!((&queue["scheduled"], &queue["paused"]), (&1.into(), &false.into()));
    let paused = bed.run(&["queues", "pause", "gl.*", "--reason", "the ledger is closed"]);
    assert_eq!(paused.status.code(), Some(0), "{paused:?}");
    assert_eq!(text(&paused.stdout), "it: queue \"gl.*\" is paused\n");
    let queue = row(&["queues", "--json"], "gl.x");
    let pause = &queue["pauses"][0];
    assert_eq!(
        (&pause["name"], &pause["because"]),
        (&"gl.*".into(), &"the ledger is closed".into())
    );
    // What was resumed may be paused by another order.
    bed.run(&["queues", "pause", "gl.x"]);
    assert_eq!(row(&["queues", "--json"], "gl.x")["pauses"].as_array().map(Vec::len), Some(2));
    let half = bed.run(&["queues", "resume", "gl.x"]);
    assert!(text(&half.stderr).contains("still paused, by the order for \"gl.*\""), "{half:?}");
    assert_eq!(row(&["queues", "--json"], "default")["paused"], false);
    assert_eq!(bed.run(&["abilities", "pause", "mail", "--on", "it"]).status.code(), Some(0));
    assert_eq!(row(&["abilities", "--json"], "mail")["paused"], true);
    let why = json(&bed.run(&["why", &bed.waits.to_string(), "--json"]));
    assert_eq!((&why["reason"], &why["paused"]), (&"ability_paused".into(), &"mail".into()));
    bed.run(&["abilities", "pause", "nobody"]);
    assert_eq!(
        lines(&bed.run(&["abilities"])).iter().map(|row| &*row[1]).collect::<Vec<_>>(),
        ["mail", "nobody"]
    );
    for (kind, name) in [("queues", "gl.*"), ("abilities", "mail"), ("abilities", "nobody")] {
        assert_eq!(bed.run(&[kind, "resume", name]).status.code(), Some(0));
    }
    assert_eq!(row(&["abilities", "--json"], "mail")["paused"], false);
    let wrong = bed.run(&["queues", "pause", "x", "--on", "nowhere"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(text(&wrong.stderr).contains("nowhere"), "{wrong:?}");
    let away = format!("--database=away=sqlite:{}/none/jobs.db", bed.place.path().display());
    let half = bed.run(&["queues", "pause", "x", &away]);
    assert_eq!(
        (half.status.code(), text(&half.stdout)),
        (Some(2), "it: queue \"x\" is paused\n".to_owned())
    );
    assert!(text(&half.stderr).contains("not done in away"), "{half:?}");
}

#[test]
fn worker_processes_are_shown_with_what_they_serve() {
    let bed = Bed::new();
    let manager =
        Manager::builder().linked(false).ability::<billed>().database(dsn(bed.place.path()));
    let working = manager.build().expect("valid").start().expect("starts");
    let begun = std::time::Instant::now();
    let row = loop {
        let told = json(&bed.run(&["workers", "--json"]));
        if let Some(row) = told["rows"].get(0) {
            break row.clone();
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{told}");
    };
    assert_eq!(
        (&row["state"], &row["abilities"][0], &row["queues"][0]),
        (&"live".into(), &"billed".into(), &"default".into())
    );
    assert_eq!(lines(&bed.run(&["workers"]))[0][3], "live");
    let name = lines(&bed.run(&["workers"]))[0][1].clone();
    for (order, shown) in [("quiet", "quiet"), ("stop", "stop"), ("resume", "")] {
        let ordered = bed.run(&["workers", order, &name]);
        assert_eq!(ordered.status.code(), Some(0), "{ordered:?}");
        assert_eq!(lines(&bed.run(&["workers"]))[0][4], shown);
    }
    assert_eq!(bed.run(&["workers", "stop", "nobody"]).status.code(), Some(1));
    working.stop();
    assert!(lines(&bed.run(&["workers"])).is_empty());
}

#[test]
fn the_status_tells_each_database_at_a_glance() {
    let bed = Bed::new();
    let told = bed.run(&["status"]);
    assert_eq!(told.status.code(), Some(0), "{told:?}");
    let rows = lines(&told);
    assert_eq!(
        (rows.len(), &rows[0][..6]),
        (1, ["it", "up", "1", "1", "0", "0"].map(str::to_owned).as_slice())
    );
    assert!(!rows[0][6].is_empty() && rows[0][7].is_empty(), "how long it waits: {rows:?}");
    bed.run(&["queues", "pause", "x", "--reason", "why"]);
    bed.run(&["databases", "pause", "it"]);
    let away = format!("--database=away=sqlite:{}/none/jobs.db", bed.place.path().display());
    let told = bed.run(&["status", &away, "--json", "--timeout=0.9"]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    let told = json(&told);
    let of = |name: &str| {
        let mut all = told["databases"].as_array().expect("rows").iter();
        all.find(|one| one["database"] == name).cloned().expect("is there")
    };
    assert_eq!(
        (&of("it")["state"], &of("it")["pauses"][0]["name"]),
        (&"paused".into(), &"x".into())
    );
    assert_eq!((&of("it")["ready"]["count"], &of("it")["workers"]), (&1.into(), &0.into()));
    assert_eq!(of("away")["state"], "down");
    assert!(of("away")["error"].as_str().is_some_and(|error| error.contains("away")));
    assert_eq!(bed.run(&["status", "--timeout=0"]).status.code(), Some(2), "no time at all");
}

#[test]
fn databases_are_drained_moved_and_shown() {
    let bed = Bed::new();
    let other = format!("sqlite:{}", bed.place.path().join("other.db").display());
    let manager = Manager::builder().linked(false).database(&*other).build().expect("valid");
    manager.migrate().expect("migrates");
    let other = format!("--database=other={other}");
    let run = |arguments: &[&str]| bed.run(&[arguments, &[&*other]].concat());
    assert_eq!(run(&["databases", "drain", "it"]).status.code(), Some(0));
    let moved = json(&run(&["databases", "move", "it", "other", "--json"]));
    assert_eq!((&moved["moved"], &moved["stayed"]), (&2.into(), &0.into()));
    let shown = json(&run(&["databases", "--json"]));
    let rows = shown["rows"].as_array().expect("rows").iter();
    let states: Vec<_> = rows.map(|row| row["state"].as_str().expect("text")).collect();
    assert!(
        states.contains(&"up") && states.iter().any(|state| state.contains("draining")),
        "{states:?}"
    );
    let wrong = run(&["databases", "pause", "nowhere"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(text(&wrong.stderr).contains("nowhere"), "{wrong:?}");
}

#[test]
fn shells_and_readers_are_told_of_the_commands() {
    let told = qudo(&["completions", "bash"], &[]);
    assert!(told.status.success() && text(&told.stdout).contains("failures"), "{told:?}");
    let told = qudo(&["man"], &[]);
    assert!(told.status.success() && text(&told.stdout).contains(".TH qudo"), "{told:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn an_answer_that_cannot_be_written_is_no_success() {
    let bed = Bed::new();
    let full = std::fs::File::options().write(true).open("/dev/full").expect("opens");
    let mut command = Command::new(env!("CARGO_BIN_EXE_qudo"));
    let written = command.args(["jobs", "--json", &bed.database()]).stdout(full).output();
    let written = written.expect("runs");
    assert_eq!(written.status.code(), Some(2), "{written:?}");
    assert!(text(&written.stderr).contains("cannot write the answer"), "{written:?}");
}
