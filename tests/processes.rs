//! Real processes, killed and stopped for real: the `checksums` example as an operator runs it.

#![allow(missing_docs, reason = "a test is read, not called")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The example that cargo built beside this test.
fn checksums() -> PathBuf {
    let mut path = std::env::current_exe().expect("a test has a path");
    path.pop();
    path.pop();
    path.join("examples/checksums")
}

fn tree(files: usize) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for n in 0..files {
        let place = directory.path().join(format!("d{}", n % 7));
        std::fs::create_dir_all(&place).expect("makes a directory");
        let bytes: Vec<u8> = (0..n * 13 % 4_000).map(|at| (at * n) as u8).collect();
        std::fs::write(place.join(format!("file {n}")), bytes).expect("writes a file");
    }
    directory
}

/// What `sha256sum` prints for the same files in the order of their paths.
fn expected(directory: &Path) -> Vec<u8> {
    let script = "find \"$0\" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";
    let output = Command::new("sh").args(["-c", script]).arg(directory).output().expect("runs");
    assert!(output.status.success());
    output.stdout
}

fn command(directory: &Path, database: &Path) -> Command {
    let mut command = Command::new(checksums());
    command.arg(directory).arg("--database").arg(format!("sqlite:{}", database.display()));
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn checksums_killed_on_its_way_goes_on_where_it_was_and_loses_nothing() {
    let (files, state) = (tree(3_000), tempfile::tempdir().expect("a temporary directory"));
    let database = state.path().join("jobs.db");
    let mut killed = 0;
    for pause in [150, 300, 450] {
        let mut child =
            command(files.path(), &database).stdout(Stdio::null()).spawn().expect("starts");
        let deadline = Instant::now() + Duration::from_millis(pause);
        while Instant::now() < deadline && child.try_wait().expect("asks").is_none() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        killed += usize::from(child.try_wait().expect("asks").is_none());
        child.kill().expect("kills or is gone");
        child.wait().expect("ends");
    }
    assert!(killed > 0, "every run was over before its kill: make the tree larger");
    let output = command(files.path(), &database).output().expect("runs");
    assert!(output.status.success());
    assert!(output.stdout == expected(files.path()), "the lines differ");
}

#[test]
fn two_processes_on_one_database_both_print_everything() {
    let (files, state) = (tree(1_000), tempfile::tempdir().expect("a temporary directory"));
    let database = state.path().join("jobs.db");
    let run = || command(files.path(), &database).output().expect("runs");
    let (one, two) = std::thread::scope(|scope| {
        let other = scope.spawn(run);
        (run(), other.join().expect("no panic"))
    });
    let expected = expected(files.path());
    assert!(one.stdout == expected && two.stdout == expected, "the lines differ");
}

#[qudo::ability]
fn slow(job: &qudo::Job) -> qudo::JobResult {
    let place = PathBuf::from(std::env::var("QUDO_SERVICE")?);
    std::fs::write(place.join("started"), "")?;
    // Ends early when the process stops, as a long job should; a deadline ends it anyway.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !job.is_stopping() && Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    std::fs::write(place.join("finished"), "")?;
    Ok(())
}

/// A service that works until it is told to stop; by itself a test that has nothing to do.
#[test]
fn service() {
    let Ok(place) = std::env::var("QUDO_SERVICE") else { return };
    let builder = qudo::Manager::builder()
        .database(format!("sqlite:{place}/jobs.db"))
        .linked(false)
        .ability::<slow>();
    let builder = if Path::new(&place).join("hangs").exists() {
        builder.hook(Hangs(PathBuf::from(place)))
    } else {
        builder
    };
    builder.build().expect("valid").work().expect("stops softly");
}

/// Does not come back from the stop of the work.
struct Hangs(PathBuf);

impl qudo::hook::Hook for Hangs {
    fn name(&self) -> &'static str {
        "hangs"
    }

    fn worker_stop(&self, _: &qudo::hook::WorkerView<'_>) {
        std::fs::write(self.0.join("stopping"), "").expect("writes a file");
        loop {
            std::thread::park();
        }
    }
}

/// A service with one job, whose run has begun.
fn serve(place: &Path) -> (qudo::Manager, qudo::Ticket<()>, Child) {
    let dsn = format!("sqlite:{}/jobs.db", place.display());
    let manager = qudo::Manager::builder().database(dsn).linked(false).build().expect("valid");
    manager.migrate().expect("migrates");
    let sent = manager.enqueue(slow::job()).expect("stored").ticket().expect("new").clone();
    let child = Command::new(std::env::current_exe().expect("a test has a path"))
        .args(["--exact", "service"])
        .env("QUDO_SERVICE", place)
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    wait_for(&place.join("started"));
    (manager, sent, child)
}

fn wait_for(file: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !file.exists() {
        assert!(Instant::now() < deadline, "{} is not written", file.display());
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn terminate(child: &Child) {
    let told = Command::new("kill").arg(child.id().to_string()).status().expect("kills");
    assert!(told.success());
}

#[test]
fn sigterm_lets_the_running_job_finish_and_gives_nothing_up() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let (manager, sent, mut child) = serve(place.path());
    terminate(&child);
    assert!(child.wait().expect("ends").success(), "work() returned without an error");
    assert!(place.path().join("finished").exists());
    sent.wait(Duration::ZERO).expect("settled before the process ended");
    let workers = manager.workers().remove(0).answer.expect("up");
    assert!(workers.is_empty(), "the worker's row is removed");
}

#[cfg(unix)]
#[test]
fn a_third_sigterm_ends_a_process_whose_stop_hangs() {
    use std::os::unix::process::ExitStatusExt;

    let place = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(place.path().join("hangs"), "").expect("writes a file");
    let (_, sent, mut child) = serve(place.path());
    terminate(&child);
    wait_for(&place.path().join("stopping"));
    sent.wait(Duration::ZERO).expect("settled before the stop of the hook");
    // Signals of one kind that come while one is handled may count once: so more than two may be needed.
    let deadline = Instant::now() + Duration::from_secs(20);
    let ended = loop {
        terminate(&child);
        std::thread::park_timeout(Duration::from_millis(20));
        if let Some(status) = child.try_wait().expect("asks") {
            break status;
        }
        assert!(Instant::now() < deadline, "it does not end");
    };
    assert_eq!(ended.signal(), Some(15), "by the default action of SIGTERM");
}
