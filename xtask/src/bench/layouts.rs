//! The layouts of tables that a queue could have, in a plain loop that claims and settles.

use std::process::Command;

use super::{Arguments, Fresh, build, last_line, median, output, rate};
use crate::Result;
use crate::databases::Databases;

/// Layout, type of the ids, and jobs of a claim. Ours is the narrow one with UUIDs, after the last id
/// on PostgreSQL and MySQL.
const LAYOUTS: [(&str, &str, u32); 10] = [
    ("one", "uuid", 500),
    ("one", "big", 500),
    ("narrow", "uuid", 500),
    ("narrow", "big", 500),
    ("narrow-after", "uuid", 500),
    ("narrow-new", "uuid", 500),
    ("narrow-held", "uuid", 500),
    ("one", "uuid", 30),
    ("narrow", "uuid", 30),
    ("narrow-after", "uuid", 30),
];

pub(super) fn measure(arguments: &Arguments, databases: &Databases) -> Result<()> {
    build(&["--manifest-path", "benches/layouts/Cargo.toml"], Some("target/peers"))?;
    let mut rates: Vec<Vec<f64>> = Vec::new();
    let engines: Vec<_> = arguments.engines().collect();
    let cells: Vec<_> = LAYOUTS
        .iter()
        .flat_map(|layout| engines.iter().map(move |engine| (layout, *engine)))
        .collect();
    rates.resize(cells.len(), Vec::new());
    for _ in 0..arguments.repeat {
        for (((layout, ids, batch), engine), rates) in cells.iter().zip(&mut rates) {
            if ["narrow-new", "narrow-held"].contains(layout) && *engine != "postgres" {
                continue;
            }
            let fresh = Fresh::create(databases, engine, "layout")?;
            let (jobs, batch) = (arguments.jobs.to_string(), batch.to_string());
            let mut command = Command::new("target/peers/release/layouts");
            command.args(["--database", &fresh.dsn, "--layout", layout, "--ids", ids]);
            let output = output(command.args(["--jobs", &jobs, "--batch", &batch]))?
                .ok_or("layouts hangs")?;
            if !output.status.success() {
                return Err(format!("{command:?} failed: {}", output.status).into());
            }
            let line = last_line(&output)?;
            if line["stopped"] == true {
                eprintln!("{command:?} was stopped before its last job");
            }
            arguments.note(&line)?;
            rates.push(rate(&line)?);
        }
    }
    println!(
        "\n| layout, ids, batch | {} |\n|---|{}",
        engines.join(" | "),
        "---|".repeat(engines.len())
    );
    for (row, (layout, ids, batch)) in rates.chunks(engines.len()).zip(LAYOUTS) {
        let cells = row.iter().map(|rates| {
            median(rates.clone()).map_or_else(String::new, |rate| format!("{rate:.0}"))
        });
        println!("| {layout}, {ids}, {batch} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    Ok(())
}
