use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use clap::Args;
use qudo_test_servers::ensure_installed;
use serde_json::Value;

use crate::Result;
use crate::databases::{Databases, FreshDatabase};
use crate::engine::Engines;

/// Measure qudo, the bare database and other job queues on the same work, in one run.
///
/// Starts private servers that flush every commit. Prints each figure as a line of JSON as it
/// comes, then tables in Markdown: medians, and what ours is against each. The peers are packages of
/// their own in `benches/peers`; a first run builds them for some minutes.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Measure each figure so many times, in turn; the median counts.
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Jobs that are queued for the work and enqueued in bulk.
    #[arg(long, default_value_t = 200_000)]
    jobs: u32,
    /// Leave the other queues out: ours and the bare database only.
    #[arg(long)]
    bare: bool,
    /// This metric alone; may be repeated.
    #[arg(long)]
    metric: Vec<String>,
    /// Also write the lines of JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

const METRICS: [&str; 4] = ["work", "enqueue_one", "enqueue_bulk", "latency"];
const ENGINES: [&str; 3] = ["postgres", "mysql", "sqlite"];
const PEERS: [&str; 5] = ["bare", "graphile_worker", "fang", "apalis", "riverqueue"];

/// One program with its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Contender {
    program: &'static str,
    settings: &'static str,
}

impl Contender {
    const OURS: Self = Self { program: "qudo", settings: "default" };

    fn all(arguments: &Arguments) -> Vec<Self> {
        let peers = if arguments.bare { &PEERS[..1] } else { &PEERS[..] };
        let both = peers
            .iter()
            .flat_map(|program| ["best", "default"].map(|settings| Self { program, settings }));
        std::iter::once(Self::OURS).chain(both).collect()
    }
}

/// A figure of one run.
struct Figure {
    engine: &'static str,
    metric: &'static str,
    contender: Contender,
    line: Value,
}

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
    build(arguments)?;
    let databases = Databases::start(&engines, true)?;
    let contenders = Contender::all(arguments);
    let mut figures = Vec::new();
    for _ in 0..arguments.repeat {
        for engine in ENGINES {
            for metric in METRICS.into_iter().filter(|metric| wanted(arguments, metric)) {
                for contender in &contenders {
                    let Some(line) = one(arguments, &databases, engine, metric, contender)? else {
                        continue;
                    };
                    println!("{line}");
                    figures.push(Figure { engine, metric, contender: contender.clone(), line });
                }
            }
        }
    }
    if let Some(path) = &arguments.json {
        let lines: Vec<_> = figures.iter().map(|figure| figure.line.to_string()).collect();
        std::fs::write(path, lines.join("\n") + "\n")?;
    }
    print_tables(arguments, &contenders, &figures);
    Ok(())
}

fn wanted(arguments: &Arguments, metric: &str) -> bool {
    arguments.metric.is_empty() || arguments.metric.iter().any(|one| one == metric)
}

fn build(arguments: &Arguments) -> Result<()> {
    let ours = ["build", "--release", "--quiet", "--package", "qudo-cli", "--all-features"];
    check(Command::new("cargo").args(ours))?;
    for peer in if arguments.bare { &PEERS[..1] } else { &PEERS[..] } {
        let manifest = format!("benches/peers/{peer}/Cargo.toml");
        let mut build = Command::new("cargo");
        build.args(["build", "--release", "--quiet", "--manifest-path", &manifest]);
        check(build.env("CARGO_TARGET_DIR", "target/peers"))?;
    }
    Ok(())
}

fn check(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed: {status}").into()) }
}

/// One figure on a fresh database; `None` when the program cannot do this.
fn one(
    arguments: &Arguments,
    databases: &Databases,
    engine: &str,
    metric: &str,
    contender: &Contender,
) -> Result<Option<Value>> {
    let file = tempfile::tempdir()?;
    let server = match engine {
        "postgres" => databases.postgres(),
        "mysql" => databases.mysql(),
        _ => None,
    };
    let fresh = server.map(|beside| FreshDatabase::create(beside, "bench")).transpose()?;
    let dsn = fresh.as_ref().map_or_else(
        || format!("sqlite:{}/bench.db", file.path().display()),
        |fresh| fresh.url().to_owned(),
    );
    let jobs = match metric {
        "enqueue_one" => 2_000,
        "latency" => 200,
        _ => arguments.jobs,
    };
    let mut command = if contender.program == "qudo" {
        check(
            Command::new("target/release/qudo")
                .args(["migrate", "--database", &dsn])
                .stdout(Stdio::null()),
        )?;
        let mut command = Command::new("target/release/qudo");
        command.args(["bench", "--json"]);
        command
    } else {
        let mut command = Command::new(format!("target/peers/release/{}", contender.program));
        command.args(["--settings", contender.settings]);
        command
    };
    command.args(["--database", &dsn, "--metric", metric, "--jobs", &jobs.to_string()]);
    let output = command.args(["--workers", "2"]).stderr(Stdio::null()).output()?;
    // 3: the peer lacks this engine or metric.
    if !output.status.success() {
        if output.status.code() != Some(3) {
            eprintln!("{command:?} failed: {}", output.status);
        }
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().ok_or("a bench printed nothing")?;
    Ok(Some(serde_json::from_str(line)?))
}

/// The median of what was measured for this: jobs a second, or milliseconds at p50 and p99.
fn median(figures: &[&Figure], field: &str) -> Option<f64> {
    let mut values: Vec<f64> = figures.iter().filter_map(|one| one.line[field].as_f64()).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn print_tables(arguments: &Arguments, contenders: &[Contender], figures: &[Figure]) {
    for metric in METRICS.into_iter().filter(|metric| wanted(arguments, metric)) {
        println!("\n### {metric}\n\n| | {} |\n|---|---|---|---|", ENGINES.join(" | "));
        for contender in contenders {
            let cells: Vec<_> =
                ENGINES.iter().map(|engine| cell(figures, engine, metric, contender)).collect();
            if cells.iter().any(|cell| !cell.is_empty()) {
                let Contender { program, settings } = contender;
                println!("| {program}, {settings} | {} |", cells.join(" | "));
            }
        }
    }
}

/// The figure, and what ours is against it.
fn cell(figures: &[Figure], engine: &str, metric: &str, contender: &Contender) -> String {
    let of = |contender: &Contender| -> Vec<&Figure> {
        let same = |one: &&Figure| {
            one.engine == engine && one.metric == metric && one.contender == *contender
        };
        figures.iter().filter(same).collect()
    };
    let (theirs, ours) = (of(contender), of(&Contender::OURS));
    if let (Some(p50), Some(p99), "latency") =
        (median(&theirs, "p50_ms"), median(&theirs, "p99_ms"), metric)
    {
        return format!("{p50:.2} / {p99:.2} ms");
    }
    let Some(rate) = median(&theirs, "per_second") else { return String::new() };
    match median(&ours, "per_second") {
        Some(our) if *contender != Contender::OURS => format!("{rate:.0} ({:.2}×)", our / rate),
        _ => format!("{rate:.0}"),
    }
}
