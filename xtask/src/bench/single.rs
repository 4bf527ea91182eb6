//! Where the time of a single enqueue goes: a bare insert, and ours part by part.

use std::process::Command;

use super::{Arguments, Fresh, build, last_line, median, output, rate};
use crate::Result;
use crate::databases::Databases;

const JOBS: &str = "4000";

/// A part that is measured, and what the table calls it.
const PARTS: [(&str, &str); 4] = [
    ("bare", "bare insert into one table with a claim index"),
    ("own", "the driver's insert into two tables, on the caller's thread"),
    ("other", "the same, handed to another thread and back"),
    ("manager", "`Manager::enqueue`"),
];

pub(super) fn measure(arguments: &Arguments, databases: &Databases) -> Result<()> {
    build(&["--manifest-path", "benches/peers/bare/Cargo.toml"], Some("target/peers"))?;
    build(&["--package", "qudo", "--bench", "single", "--all-features"], None)?;
    let engines: Vec<_> = arguments.engines().collect();
    let mut rates = vec![vec![Vec::new(); engines.len()]; PARTS.len()];
    for _ in 0..arguments.repeat {
        for (column, engine) in engines.iter().enumerate() {
            for (row, (part, _)) in PARTS.iter().enumerate() {
                rates[row][column].push(one(arguments, databases, engine, part)?);
            }
        }
    }
    println!(
        "\n| µs an enqueue | {} |\n|---|{}",
        engines.join(" | "),
        "---|".repeat(engines.len())
    );
    for (row, (_, name)) in rates.into_iter().zip(PARTS) {
        let cells = row.into_iter().map(|rates| {
            median(rates).map_or_else(String::new, |rate| format!("{:.0}", 1e6 / rate))
        });
        println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    Ok(())
}

/// The rate of one part on a fresh database.
fn one(arguments: &Arguments, databases: &Databases, engine: &str, part: &str) -> Result<f64> {
    let (fresh, mut command);
    if part == "bare" {
        fresh = Fresh::create(databases, engine, "single")?;
        command = Command::new("target/peers/release/bare");
        command.args(["--settings", "default", "--metric", "enqueue_one", "--workers", "2"]);
        command.args(["--database", &fresh.dsn]);
    } else {
        fresh = Fresh::migrated(databases, engine, "single")?;
        command = Command::new("cargo");
        command.args(["bench", "--quiet", "--bench", "single", "--all-features", "--"]);
        command.args([&fresh.dsn, part]);
    }
    let output = output(command.args(["--jobs", JOBS]))?.ok_or("a bench hangs")?;
    if !output.status.success() {
        return Err(format!("{command:?} failed: {}", output.status).into());
    }
    let line = last_line(&output)?;
    arguments.note(&line)?;
    rate(&line)
}
