//! How the rates depend on databases, processes, threads, arguments and waiting jobs.

use std::path::Path;

use serde_json::Value;

use super::plot::Chart;
use super::{Arguments, Fresh, ours, rate};
use crate::Result;
use crate::databases::Databases;

/// One measured curve: what varies, and how a point is measured.
struct Curve {
    file: &'static str,
    title: &'static str,
    x: &'static str,
    /// The point as it is shown, and as it is measured.
    points: Vec<(String, Point)>,
    value: fn(&Value) -> Result<f64>,
    y: &'static str,
    powers: bool,
    rising: bool,
}

/// What is measured at a point; the words go to `qudo bench`.
#[derive(Clone)]
struct Point {
    databases: usize,
    words: Vec<String>,
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn point(shown: &str, text: &str) -> (String, Point) {
    (shown.to_owned(), Point { databases: 1, words: words(text) })
}

fn curves() -> Vec<Curve> {
    let rates = |file, title, x, points| Curve {
        file,
        title,
        x,
        points,
        value: rate,
        y: "jobs/s",
        powers: false,
        rising: false,
    };
    let databases = [1, 2, 4].map(|databases| {
        let words = words("--jobs 200000");
        (databases.to_string(), Point { databases, words })
    });
    let processes =
        [1, 2, 4, 8, 16].map(|n| point(&n.to_string(), &format!("--jobs 200000 --processes {n}")));
    let threads = |millis: u32, per_thread: u32| {
        let jobs = |n: u32| if millis == 0 { 100_000 } else { n * per_thread };
        [1, 2, 4, 8, 16, 32, 64].map(|n| {
            point(&n.to_string(), &format!("--jobs {} --workers {n} --job-ms {millis}", jobs(n)))
        })
    };
    let arguments = [(50, "50 B", 100_000), (500, "500 B", 100_000), (5_000, "5 kB", 50_000)]
        .into_iter()
        .chain([(50_000, "50 kB", 5_000), (500_000, "500 kB", 1_000)])
        .map(|(bytes, shown, jobs)| point(shown, &format!("--jobs {jobs} --arg-bytes {bytes}")));
    let waiting = [(1_000, "1,000"), (10_000, "10,000"), (100_000, "100,000")]
        .into_iter()
        .chain([(1_000_000, "1,000,000")])
        .map(|(jobs, shown)| point(shown, &format!("--jobs {jobs} --processes 1")));
    vec![
        rates("databases", "One worker process, several databases", "databases", databases.into()),
        rates("processes", "One database, several worker processes", "processes", processes.into()),
        rates("threads-0ms", "Jobs that do nothing", "worker threads", threads(0, 0).into()),
        Curve {
            rising: true,
            ..rates("threads-1ms", "Jobs of 1 ms", "worker threads", threads(1, 1_500).into())
        },
        Curve {
            rising: true,
            ..rates("threads-20ms", "Jobs of 20 ms", "worker threads", threads(20, 100).into())
        },
        Curve {
            powers: true,
            ..rates("arguments", "Larger arguments", "size of the argument", arguments.collect())
        },
        Curve {
            value: |line| line["worker_memory_mb"].as_f64().ok_or_else(|| "no memory".into()),
            y: "MB at most",
            rising: true,
            ..rates("memory", "Memory of a worker", "waiting jobs", waiting.collect())
        },
    ]
}

/// Measures each curve on each engine and draws it.
pub(super) fn draw(arguments: &Arguments, databases: &Databases, directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    for curve in curves() {
        let mut lines = Vec::new();
        for engine in arguments.engines() {
            let mut values = Vec::new();
            for (shown, point) in &curve.points {
                let value = measure(arguments, databases, engine, &curve, shown, point)?;
                values.push(value);
            }
            lines.push((name(engine), values));
        }
        let points: Vec<_> = curve.points.iter().map(|(shown, _)| shown.clone()).collect();
        let Curve { title, x, y, powers, rising, .. } = curve;
        let chart = Chart { title, x, y, points: &points, lines, powers, rising };
        chart.draw(&directory.join(curve.file).with_extension("svg"))?;
    }
    Ok(())
}

fn measure(
    arguments: &Arguments,
    databases: &Databases,
    engine: &str,
    curve: &Curve,
    shown: &str,
    point: &Point,
) -> Result<f64> {
    let fresh: Vec<_> = (0..point.databases)
        .map(|at| Fresh::migrated(databases, engine, &format!("curve{at}")))
        .collect::<Result<_>>()?;
    let words = ["--metric", "work"].into_iter().chain(point.words.iter().map(String::as_str));
    let mut line = ours(&fresh.iter().collect::<Vec<_>>(), &words.collect::<Vec<_>>())?;
    line["curve"] = curve.file.into();
    line["point"] = shown.into();
    line["engine"] = engine.into();
    arguments.note(&line)?;
    (curve.value)(&line)
}

fn name(engine: &str) -> &'static str {
    match engine {
        "postgres" => "PostgreSQL",
        "mariadb" => "MariaDB",
        "mysql" => "MySQL",
        _ => "SQLite",
    }
}
