//! Ours beside the bare database and other queues.

use std::process::Command;

use serde_json::Value;

use super::results::Ratios;
use super::{Arguments, ENGINES, Fresh, build, last_line, mixes, ours, output};
use crate::Result;
use crate::databases::Databases;

const METRICS: [&str; 4] = ["work", "enqueue_one", "enqueue_bulk", "latency"];
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
        let peers = peers(arguments)
            .iter()
            .flat_map(|program| ["best", "default"].map(|settings| Self { program, settings }));
        std::iter::once(Self::OURS).chain(peers).collect()
    }
}

impl Contender {
    /// Whether one measurement is enough: peers at their defaults are slower by factors, and most
    /// of them run until their time is up.
    fn is_slow(&self) -> bool {
        self.settings == "default" && !["qudo", "bare"].contains(&self.program)
    }
}

fn peers(arguments: &Arguments) -> &'static [&'static str] {
    if arguments.bare { &PEERS[..1] } else { &PEERS[..] }
}

/// A figure of one run.
struct Figure {
    engine: &'static str,
    metric: &'static str,
    contender: Contender,
    line: Value,
}

pub(super) fn compare(arguments: &Arguments, databases: &Databases) -> Result<()> {
    for peer in peers(arguments) {
        let manifest = format!("benches/peers/{peer}/Cargo.toml");
        build(&["--manifest-path", &manifest], Some("target/peers"))?;
    }
    let contenders = Contender::all(arguments);
    let mut figures = Vec::new();
    for round in 0..arguments.repeat {
        for engine in arguments.engines() {
            for metric in METRICS.into_iter().filter(|metric| wanted(arguments, metric)) {
                for contender in contenders.iter().filter(|one| round == 0 || !one.is_slow()) {
                    let Some(line) = one(arguments, databases, engine, metric, contender)? else {
                        continue;
                    };
                    arguments.note(&line)?;
                    figures.push(Figure { engine, metric, contender: contender.clone(), line });
                }
            }
        }
    }
    print_tables(arguments, &contenders, &figures);
    let mut ratios = Ratios::default();
    note_ratios(&figures, &mut ratios);
    if wanted(arguments, "mix") {
        mixes::measure(arguments, databases, &mut ratios)?;
    }
    ratios.record(arguments.jobs, arguments.repeat)
}

/// Ours against the bare database at its defaults: rates, and of the latency the median of theirs against ours.
fn note_ratios(figures: &[Figure], ratios: &mut Ratios) {
    for engine in ENGINES {
        for metric in METRICS {
            let of = |program: &str, field: &str| {
                let same = |one: &&Figure| {
                    one.engine == engine
                        && one.metric == metric
                        && one.contender.program == program
                        && one.contender.settings == "default"
                };
                median(&figures.iter().filter(same).collect::<Vec<_>>(), field)
            };
            let ratio = if metric == "latency" {
                of("bare", "p50_ms").zip(of("qudo", "p50_ms"))
            } else {
                of("qudo", "per_second").zip(of("bare", "per_second"))
            };
            if let Some((one, other)) = ratio {
                ratios.note(engine, metric, one / other);
            }
        }
    }
}

fn wanted(arguments: &Arguments, metric: &str) -> bool {
    arguments.metric.is_empty() || arguments.metric.iter().any(|one| one == metric)
}

/// One figure on a fresh database; `None` when the program cannot do this.
fn one(
    arguments: &Arguments,
    databases: &Databases,
    engine: &str,
    metric: &str,
    contender: &Contender,
) -> Result<Option<Value>> {
    let jobs = match metric {
        "enqueue_one" => 2_000,
        "latency" => 200,
        _ => arguments.jobs,
    };
    let jobs = jobs.to_string();
    let what = ["--metric", metric, "--jobs", &jobs, "--workers", "2"];
    if *contender == Contender::OURS {
        return ours(&[&Fresh::migrated(databases, engine, "bench")?], &what).map(Some);
    }
    let fresh = Fresh::create(databases, engine, "bench")?;
    let mut command = Command::new(format!("target/peers/release/{}", contender.program));
    command.args(["--settings", contender.settings, "--database", &fresh.dsn]).args(what);
    let Some(output) = output(&mut command)? else {
        eprintln!("{command:?} hung and was stopped");
        return Ok(None);
    };
    // 3: the peer lacks this engine or metric.
    if !output.status.success() {
        if output.status.code() != Some(3) {
            eprintln!("{command:?} failed: {}", output.status);
        }
        return Ok(None);
    }
    last_line(&output).map(Some)
}

/// The median of what was measured for this: jobs a second, or milliseconds at p50 and p99.
fn median(figures: &[&Figure], field: &str) -> Option<f64> {
    super::median(figures.iter().filter_map(|one| one.line[field].as_f64()).collect())
}

fn print_tables(arguments: &Arguments, contenders: &[Contender], figures: &[Figure]) {
    for metric in METRICS.into_iter().filter(|metric| wanted(arguments, metric)) {
        println!(
            "\n### {metric}\n\n| | {} |\n|---|{}",
            ENGINES.join(" | "),
            "---|".repeat(ENGINES.len())
        );
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
