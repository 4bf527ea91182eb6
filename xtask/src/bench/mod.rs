//! `cargo xtask bench`: ours, the bare database and other queues on the same work; curves; what a
//! transaction that somebody holds open does to the rates; the layouts a queue could have; and the
//! parts of a single enqueue.

mod compare;
mod curves;
mod held;
mod layouts;
mod mixes;
mod plot;
mod results;
mod single;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use qudo_test_servers::{FreshDatabase, ensure_installed};
use serde_json::Value;
use tempfile::TempDir;

use crate::Result;
use crate::databases::Databases;
use crate::engine::Engines;

/// Measure qudo, the bare database and other job queues on the same work, in one run.
///
/// Starts private servers that flush every commit. Prints each figure as a line of JSON as it
/// comes, then tables in Markdown: medians, and what ours is against each. The peers are packages of
/// their own in `benches/peers`; a first run builds them for some minutes. What ours is against the bare
/// database is added to `benches/results.jsonl` with the commit, and what fell by more than 5 % since the
/// last one is told.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Measure each figure so many times, in turn; the median counts. Peers at their defaults are
    /// measured once.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Jobs that are queued for the work and enqueued in bulk.
    #[arg(long, default_value_t = 200_000)]
    jobs: u32,
    /// Leave the other queues out: ours and the bare database only.
    #[arg(long)]
    bare: bool,
    /// This metric alone (`work`, `enqueue_one`, `enqueue_bulk`, `latency`, `mix`); may be repeated.
    #[arg(long)]
    metric: Vec<String>,
    /// This engine alone (`postgres`, `mariadb`, `mysql`, `sqlite`); may be repeated.
    #[arg(long)]
    engine: Vec<String>,
    /// Also write the lines of JSON to this file, as they come.
    #[arg(long)]
    json: Option<PathBuf>,
    #[command(flatten)]
    instead: Instead,
}

/// What is measured instead of the comparison.
#[derive(Debug, Args)]
#[group(multiple = false, conflicts_with_all = ["bare", "metric"])]
struct Instead {
    /// Instead, draw how the rates depend on databases, processes, threads, arguments and waiting
    /// jobs, once each: SVG files in this directory.
    #[arg(long)]
    curves: Option<PathBuf>,
    /// Instead, let 1,000,000 jobs pass, once, while somebody holds a transaction open, so that the
    /// server can remove nothing for good.
    #[arg(long)]
    held: bool,
    /// Instead, claim and settle in a plain loop on the layouts of tables that a queue could have.
    #[arg(long)]
    layouts: bool,
    /// Instead, show where the time of a single enqueue goes.
    #[arg(long)]
    single: bool,
}

const ENGINES: [&str; 4] = ["postgres", "mariadb", "mysql", "sqlite"];

/// A program that has not ended by then hangs.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match measure(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    let engines = Engines::all();
    ensure_installed(&engines.packages())?;
    build(&["--package", "qudo-cli", "--all-features"], None)?;
    let databases = Databases::start(&engines, true)?;
    if let Some(directory) = &arguments.instead.curves {
        return curves::draw(arguments, &databases, directory);
    }
    if arguments.instead.held {
        return held::measure(arguments, &databases);
    }
    if arguments.instead.layouts {
        return layouts::measure(arguments, &databases);
    }
    if arguments.instead.single {
        return single::measure(arguments, &databases);
    }
    compare::compare(arguments, &databases)
}

impl Arguments {
    fn engines(&self) -> impl Iterator<Item = &'static str> {
        ENGINES
            .into_iter()
            .filter(|one| self.engine.is_empty() || self.engine.iter().any(|e| e == one))
    }

    /// Prints a figure and writes it where the developer wants it.
    fn note(&self, line: &Value) -> Result<()> {
        use std::io::Write as _;
        println!("{line}");
        if let Some(path) = &self.json {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
            writeln!(file, "{line}")?;
        }
        Ok(())
    }
}

fn build(arguments: &[&str], target: Option<&str>) -> Result<()> {
    let mut build = Command::new("cargo");
    build.args(["build", "--release", "--quiet"]).args(arguments);
    if let Some(target) = target {
        build.env("CARGO_TARGET_DIR", target);
    }
    check(&mut build)
}

fn check(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed: {status}").into()) }
}

/// An empty database of an engine, gone with this value.
struct Fresh {
    dsn: String,
    _file: TempDir,
    _database: Option<FreshDatabase>,
}

impl Fresh {
    fn create(databases: &Databases, engine: &str, purpose: &str) -> Result<Self> {
        let file = tempfile::tempdir()?;
        let server = match engine {
            "postgres" => databases.postgres(),
            "mariadb" => databases.mariadb(),
            "mysql" => databases.mysql(),
            _ => None,
        };
        let database = server.map(|beside| FreshDatabase::beside(beside, purpose)).transpose()?;
        let dsn = database.as_ref().map_or_else(
            || format!("sqlite:{}/{purpose}.db", file.path().display()),
            |fresh| fresh.url().to_owned(),
        );
        Ok(Self { dsn, _file: file, _database: database })
    }

    /// The same with our tables.
    fn migrated(databases: &Databases, engine: &str, purpose: &str) -> Result<Self> {
        let fresh = Self::create(databases, engine, purpose)?;
        let migrate = ["migrate", "--database", &fresh.dsn];
        check(Command::new("target/release/qudo").args(migrate).stdout(Stdio::null()))?;
        Ok(fresh)
    }
}

/// `qudo bench --json` on these databases; the line that it prints.
fn ours(databases: &[&Fresh], arguments: &[&str]) -> Result<Value> {
    let mut command = Command::new("target/release/qudo");
    command.args(["bench", "--json"]).args(arguments);
    for one in databases {
        command.args(["--database", &one.dsn]);
    }
    let output = output(&mut command)?.ok_or("qudo bench hangs")?;
    if !output.status.success() {
        return Err(format!("{command:?} failed: {}", output.status).into());
    }
    last_line(&output)
}

/// Runs a program to its end; `None` when it hangs and was killed.
fn output(command: &mut Command) -> Result<Option<std::process::Output>> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let deadline = Instant::now() + MAX_WAIT;
    // What it prints is a few lines, which its pipe holds.
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(Some(child.wait_with_output()?))
}

fn last_line(output: &std::process::Output) -> Result<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().ok_or("a bench printed nothing")?;
    Ok(serde_json::from_str(line)?)
}

/// The middle one, or the mean of the two in the middle; `None` of nothing.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len().is_multiple_of(2) {
        Some(f64::midpoint(values[values.len() / 2 - 1], upper))
    } else {
        Some(upper)
    }
}

/// The rate in a line, in jobs a second.
fn rate(line: &Value) -> Result<f64> {
    line["per_second"].as_f64().ok_or_else(|| format!("no rate in {line}").into())
}
