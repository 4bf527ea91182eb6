//! Jobs that reply, fail, wait or have keys, against plain ones of the same run.

use std::process::Command;

use serde_json::Value;

use super::results::Ratios;
use super::{Arguments, Fresh, median, output};
use crate::Result;
use crate::databases::Databases;

pub(super) fn measure(
    arguments: &Arguments,
    databases: &Databases,
    ratios: &mut Ratios,
) -> Result<()> {
    let engines: Vec<_> = arguments.engines().collect();
    let mut columns = Vec::new();
    for engine in &engines {
        let rounds = (0..arguments.repeat).map(|_| one(arguments, databases, engine));
        let lines = medians(&rounds.collect::<Result<Vec<_>>>()?);
        for line in &lines {
            arguments.note(line)?;
            let (mix, share) = (line["mix"].as_str(), line["of_plain"].as_f64());
            if let (Some(mix), Some(share)) = (mix.filter(|mix| *mix != "plain"), share) {
                ratios.note(engine, mix, share);
            }
        }
        columns.push(lines);
    }
    println!(
        "\n### mix, against plain\n\n| | {} |\n|---|{}",
        engines.join(" | "),
        "---|".repeat(engines.len())
    );
    let rows = columns.first().map_or(0, Vec::len);
    for row in 0..rows {
        let cells = columns.iter().map(|lines| cell(&lines[row]));
        let mix = columns[0][row]["mix"].as_str().unwrap_or_default();
        println!("| {mix} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    Ok(())
}

/// The lines of the first round with the medians of all. Shares are those of each round by itself.
fn medians(rounds: &[Vec<Value>]) -> Vec<Value> {
    let mut lines = rounds.first().cloned().unwrap_or_default();
    for (row, line) in lines.iter_mut().enumerate() {
        for field in ["per_second", "of_plain"] {
            let values = rounds.iter().filter_map(|round| round.get(row)?[field].as_f64());
            line[field] = median(values.collect()).into();
        }
    }
    lines
}

/// The lines of all mixes on one fresh database.
fn one(arguments: &Arguments, databases: &Databases, engine: &str) -> Result<Vec<Value>> {
    let fresh = Fresh::migrated(databases, engine, "mix")?;
    let jobs = arguments.jobs.to_string();
    let mut command = Command::new("target/release/qudo");
    command.args(["bench", "--json", "--metric", "work", "--each-mix", "--workers", "2"]);
    command.args(["--jobs", &jobs, "--database", &fresh.dsn]);
    let output = output(&mut command)?.ok_or("qudo bench hangs")?;
    if !output.status.success() {
        return Err(format!("{command:?} failed: {}", output.status).into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?)
}

fn cell(line: &Value) -> String {
    let rate = line["per_second"].as_f64().unwrap_or_default();
    match line["of_plain"].as_f64() {
        Some(share) if line["mix"] != "plain" => format!("{rate:.0} ({share:.2})"),
        _ => format!("{rate:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_mix_has_the_medians_of_its_own_row() {
        let round = |rate: f64, share: f64| {
            vec![
                json!({ "mix": "plain", "per_second": rate, "of_plain": 1.0 }),
                json!({ "mix": "all keyed", "per_second": rate * share, "of_plain": share }),
            ]
        };
        let lines = medians(&[round(100.0, 0.5), round(200.0, 0.75), round(300.0, 0.25)]);
        assert_eq!(lines[0]["per_second"], 200.0);
        assert_eq!((&lines[1]["mix"], &lines[1]["of_plain"]), (&json!("all keyed"), &json!(0.5)));
    }
}
