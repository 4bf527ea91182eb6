//! What Prometheus is told, and that the alerts and dashboards ask for nothing else.

#![cfg(all(feature = "sqlite", feature = "metrics"))]
#![allow(missing_docs, reason = "a test is read, not called")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use qudo::admin::Part;
use qudo::{Job, JobError, JobResult, Manager, NewJob};

#[qudo::ability(queue = "bills")]
fn billed(_job: &Job, customer: u32) -> JobResult<()> {
    match customer {
        0 => Err(JobError::fail("no customer 0")),
        _ => Ok(()),
    }
}

/// A database with 3 runs, one of them a failure, and 2 jobs that wait, one of them scheduled.
fn database(place: &std::path::Path, name: &str) -> String {
    let dsn = format!("sqlite:{}", place.join(format!("{name}.db")).display());
    let builder = Manager::builder().linked(false).ability::<billed>();
    let manager = builder.database_as(name, &dsn).build().expect("valid");
    manager.migrate().expect("migrates");
    manager.enqueue_many([0, 1, 2].map(billed::job)).expect("stored");
    while manager.work_once().expect("answers").is_some() {}
    let odd = NewJob::named("a \"b\"\\", 1.into());
    manager.enqueue(odd).expect("stored");
    let later = NewJob::named("mail", 1.into()).delay(Duration::from_secs(3_600));
    manager.enqueue(later).expect("stored");
    manager.pause_part(&Part::Queue("gl.*".to_owned()), None, "").expect("paused");
    format!("{name}={dsn}")
}

/// Ends with the test.
struct Server(Child, SocketAddr);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended before.
        let _ended = self.0.kill().and_then(|()| self.0.wait());
    }
}

impl Server {
    fn over(databases: &[String]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qudo"));
        command.args(["metrics", "--listen", "127.0.0.1:0", "--timeout", "1"]);
        for one in databases {
            command.args(["--database", one]);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().expect("starts");
        let mut line = String::new();
        let told = child.stderr.take().expect("piped");
        BufReader::new(told).read_line(&mut line).expect("told");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
        let address = address.and_then(|text| text.parse().ok());
        Self(child, address.unwrap_or_else(|| panic!("no address: {line:?}")))
    }

    /// The head of the answer and its body.
    fn ask(&self, method: &str, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.1).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        let request = format!("{method} {path} HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("asked");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head.to_owned(), body.to_owned())
    }

    fn page(&self) -> String {
        let (head, body) = self.ask("GET", "/metrics");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(
            head.to_lowercase().contains("content-type: application/openmetrics-text"),
            "{head}"
        );
        body
    }
}

/// The labels of each series.
fn series(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once(['{', ' ']).expect("a name");
        let labels = rest.rsplit_once('}').map_or("", |(labels, _)| labels);
        let names = labels.split("\",").filter_map(|one| Some(one.split_once('=')?.0.to_owned()));
        all.entry(name.to_owned()).or_default().extend(names);
    }
    all
}

#[test]
fn all_that_the_databases_know_is_told_of_each() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let mut databases = vec![database(place.path(), "one"), database(place.path(), "two")];
    databases.push("gone=sqlite:/nowhere/at/all.db".to_owned());
    let server = Server::over(&databases);
    let page = server.page();
    for line in [
        "qudo_database_up{database=\"one\"} 1.0",
        "qudo_database_up{database=\"gone\"} 0.0",
        "qudo_jobs{database=\"two\",state=\"ready\"} 1.0",
        "qudo_jobs{database=\"two\",state=\"scheduled\"} 1.0",
        "qudo_workers{database=\"one\",state=\"live\"} 0.0",
        "qudo_pauses{database=\"one\"} 1.0",
        "qudo_runs_total{database=\"one\",queue=\"bills\",ability=\"billed\",outcome=\"completed\"} 2",
        "qudo_runs_total{database=\"one\",queue=\"bills\",ability=\"billed\",outcome=\"failed\"} 1",
        "qudo_run_seconds_count{database=\"one\",queue=\"bills\",ability=\"billed\"} 3",
        "qudo_wait_seconds_bucket{le=\"+Inf\",database=\"two\",queue=\"bills\",ability=\"billed\"} 3",
        "qudo_stats_cut{database=\"one\"} 0",
        "qudo_stats_up{database=\"one\"} 1",
        "qudo_stats_up{database=\"gone\"} 0",
        "# TYPE qudo_runs counter",
        "# TYPE qudo_run_seconds histogram",
    ] {
        assert!(page.lines().any(|one| one == line), "{line}\n{page}");
    }
    assert!(!page.contains("qudo_jobs{database=\"gone\""), "what is not known is not told");
    assert!(page.ends_with("# EOF\n"));
    let shown = Command::new(env!("CARGO_BIN_EXE_qudo"))
        .args(["metrics", "--database", &databases[0]])
        .output()
        .expect("runs");
    assert_eq!(shown.status.code(), Some(0));
    let printed = String::from_utf8(shown.stdout).expect("text");
    let shown = Command::new(env!("CARGO_BIN_EXE_qudo"))
        .args(["metrics", "--database", &databases[0], "--database", &databases[2]])
        .output()
        .expect("runs");
    let told = String::from_utf8(shown.stderr).expect("text");
    assert_eq!(shown.status.code(), Some(2), "one told nothing");
    assert!(told.contains("database \"gone\": "), "{told}");
    assert_eq!(
        series(&printed).keys().collect::<Vec<_>>(),
        series(&page).keys().collect::<Vec<_>>()
    );
}

#[test]
fn other_questions_are_answered_with_what_can_be_asked() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let server = Server::over(&[database(place.path(), "one")]);
    let (head, body) = server.ask("GET", "/");
    assert!(head.starts_with("HTTP/1.1 404") && body.contains("/metrics"), "{head} {body}");
    let (head, _) = server.ask("POST", "/metrics");
    assert!(
        head.starts_with("HTTP/1.1 405") && head.to_lowercase().contains("allow: get"),
        "{head}"
    );
    let (head, body) = server.ask("HEAD", "/metrics");
    assert!(head.starts_with("HTTP/1.1 200") && body.is_empty(), "{head} {body}");
    assert!(server.ask("GET", "/healthz").0.starts_with("HTTP/1.1 200"));
    // More silent connections than the server keeps open: it closes them, and goes on.
    let silent: Vec<_> = (0..80).map(|_| TcpStream::connect(server.1).expect("connects")).collect();
    assert!(server.page().contains("qudo_database_up"));
    drop(silent);
    let again = Command::new(env!("CARGO_BIN_EXE_qudo"))
        .args(["metrics", "--database", "memory:", "--listen", &server.1.to_string()])
        .output()
        .expect("runs");
    let told = String::from_utf8(again.stderr).expect("text");
    assert_eq!(again.status.code(), Some(2), "{told}");
    assert!(told.contains("cannot listen at 127.0.0.1:"), "{told}");
}

/// Each series in a text, with the labels by which it is chosen there.
fn asked_for(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (at, _) in text.match_indices("qudo_") {
        let rest = &text[at..];
        let is_name = |one: char| one.is_ascii_lowercase() || one == '_';
        let (name, rest) = rest.split_at(rest.find(|one| !is_name(one)).unwrap_or(rest.len()));
        let labels = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or("");
        let names = labels.split(',').filter_map(|one| one.split_once('='));
        let names = names.map(|(name, _)| name.trim().to_owned());
        // The table is not a series, and neither is the beginning of all names.
        if !matches!(name, "qudo_stat" | "qudo_") {
            all.entry(name.to_owned()).or_default().extend(names);
        }
    }
    all
}

#[test]
fn alerts_and_dashboards_ask_for_what_is_told() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let told = series(&Server::over(&[database(place.path(), "one")]).page());
    let files = [
        ("alerts", include_str!("../../../docs/monitoring/alerts.yml")),
        ("overview", include_str!("../../../docs/monitoring/grafana/overview.json")),
        ("abilities", include_str!("../../../docs/monitoring/grafana/abilities.json")),
        ("databases", include_str!("../../../docs/monitoring/grafana/databases.json")),
    ];
    let mut used = BTreeSet::new();
    for (file, text) in files {
        let asked = asked_for(text);
        assert!(asked.len() > 3, "{file}: {asked:?}");
        for (name, labels) in asked {
            let known = told.get(&name).unwrap_or_else(|| panic!("{file}: nobody tells {name}"));
            // Prometheus says itself whom it scraped.
            let of_ours = |label: &&String| !matches!(&***label, "job" | "instance");
            let labels: BTreeSet<_> = labels.iter().filter(of_ours).cloned().collect();
            assert!(labels.is_subset(known), "{file}: {name} has {known:?}, not {labels:?}");
            used.insert(name);
        }
    }
    // What is told is shown somewhere.
    let unused: Vec<_> = told.keys().filter(|name| !used.contains(*name)).collect();
    assert!(unused.is_empty(), "{unused:?}");
    // Which labels a sum is by, likewise.
    let all: BTreeSet<_> = told.values().flatten().map(String::as_str).collect();
    for (file, text) in files {
        for words in ["by (", "without (", "on ("] {
            for part in text.split(words).skip(1) {
                for label in part.split(')').next().expect("closed").split(", ") {
                    assert!(all.contains(label), "{file}: {words}{label}");
                }
            }
        }
    }
}

#[test]
fn the_dashboards_are_whole() {
    for (title, text) in [
        ("qudo: overview", include_str!("../../../docs/monitoring/grafana/overview.json")),
        ("qudo: abilities", include_str!("../../../docs/monitoring/grafana/abilities.json")),
        ("qudo: databases", include_str!("../../../docs/monitoring/grafana/databases.json")),
    ] {
        let board: serde_json::Value = serde_json::from_str(text).expect("is JSON");
        assert_eq!(board["title"], title);
        let panels = board["panels"].as_array().expect("has panels");
        assert!(panels.len() >= 10, "{title}");
        for panel in panels {
            let expressions = panel["targets"].as_array().expect("has targets");
            assert!(expressions.iter().all(|one| one["expr"].is_string()), "{panel}");
        }
    }
}

#[test]
fn the_guide_names_every_series_and_no_other() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let told = series(&Server::over(&[database(place.path(), "one")]).page());
    let guide = include_str!("../../../docs/guide/monitoring.md");
    let whole = |name: &str| {
        let of_histogram =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        of_histogram.unwrap_or(name).to_owned()
    };
    let names: BTreeSet<_> = told.keys().map(|name| whole(name)).collect();
    for name in &names {
        assert!(guide.contains(&format!("`{name}`")), "{name}");
    }
    for name in asked_for(guide).into_keys() {
        let is_known = names.contains(&name) || name.starts_with("qudo_process_");
        assert!(is_known, "{name} is in the guide and nowhere else");
    }
}

#[test]
fn scrapes_that_hang_up_do_not_keep_the_next_one_from_its_answer() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let server = Server::over(&[database(place.path(), "one")]);
    for _ in 0..100 {
        let mut stream = TcpStream::connect(server.1).expect("connects");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: it\r\n\r\n").expect("asked");
        // Without a look at the answer.
        drop(stream);
    }
    assert!(server.page().contains("qudo_database_up{database=\"one\"} 1"));
}

#[test]
fn both_signals_that_ask_a_process_to_end_are_a_success() {
    let place = tempfile::tempdir().expect("a temporary directory");
    for name in ["TERM", "INT"] {
        let mut server = Server::over(&[database(place.path(), name)]);
        assert!(server.ask("GET", "/healthz").0.starts_with("HTTP/1.1 200"));
        let signal = ["-s", name, &server.0.id().to_string()].map(str::to_owned);
        assert!(Command::new("kill").args(signal).status().expect("runs").success());
        let ended = server.0.wait().expect("ended");
        assert!(ended.success(), "SIG{name}: {ended}");
    }
}
