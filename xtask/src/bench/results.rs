//! What ours was against the bare database at each commit: `benches/results.jsonl`, a line of JSON for each run.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::Result;

/// One line for each run, oldest first.
const FILE: &str = "benches/results.jsonl";

/// A figure that is smaller by more than this share is told.
const FALL: f64 = 0.05;

/// What ours is against the bare database, or a mix against plain jobs, by engine and figure.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Ratios(BTreeMap<String, BTreeMap<String, f64>>);

/// A figure that is smaller than at an earlier commit.
#[derive(Debug, PartialEq)]
struct Fall {
    figure: String,
    commit: String,
    from: f64,
    to: f64,
}

impl Ratios {
    pub(super) fn note(&mut self, engine: &str, figure: &str, ratio: f64) {
        let rounded = (ratio * 1_000.0).round() / 1_000.0;
        self.0.entry(engine.to_owned()).or_default().insert(figure.to_owned(), rounded);
    }

    /// Adds them to the file, and says what fell since the last commit for which a figure was noted on such a
    /// machine with as many jobs.
    pub(super) fn record(&self, jobs: u32, repeat: usize) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let machine = machine();
        let known = std::fs::read_to_string(FILE).unwrap_or_default();
        let earlier: Vec<Value> =
            known.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
        let comparable: Vec<_> = earlier
            .iter()
            .filter(|line| line["machine"] == machine && line["jobs"] == jobs)
            .collect();
        let falls = self.falls(&comparable);
        let line = json!({
            "commit": commit()?, "machine": machine, "jobs": jobs, "repeat": repeat, "ratios": self.0,
        });
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(FILE)?;
        writeln!(file, "{line}")?;
        println!("\nRatios are added to {FILE}.");
        if falls.is_empty() {
            println!("Nothing fell by more than {:.0} %.", FALL * 100.0);
        }
        for Fall { figure, commit, from, to } in falls {
            println!("{figure} fell from {from:.2} at {commit} to {to:.2}.");
        }
        Ok(())
    }

    fn falls(&self, earlier: &[&Value]) -> Vec<Fall> {
        let mut falls = Vec::new();
        for (engine, figures) in &self.0 {
            for (figure, to) in figures {
                let last = earlier.iter().rev().find_map(|line| {
                    Some((line["ratios"][engine][figure].as_f64()?, line["commit"].as_str()?))
                });
                let Some((from, commit)) = last else { continue };
                if *to < from * (1.0 - FALL) {
                    let (figure, commit) = (format!("{engine}, {figure},"), commit.to_owned());
                    falls.push(Fall { figure, commit, from, to: *to });
                }
            }
        }
        falls
    }
}

/// The commit that is measured, with `+` behind it when the sources are not as it has them.
fn commit() -> Result<String> {
    let git = |arguments: &[&str]| -> Result<String> {
        let output = Command::new("git").args(arguments).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain", "--", ".", &format!(":!{FILE}")])?;
    let plus = if changed.is_empty() { "" } else { "+" };
    Ok(git(&["rev-parse", "--short=9", "HEAD"])? + plus)
}

/// What kind of machine this is: figures of different ones are not compared.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {model}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratios(work: f64) -> Ratios {
        let mut ratios = Ratios::default();
        ratios.note("postgres", "work", work);
        ratios.note("sqlite", "work", 0.8);
        ratios
    }

    fn line(commit: &str, ratios: &Ratios) -> Value {
        json!({ "commit": commit, "ratios": ratios.0 })
    }

    #[test]
    fn a_figure_that_fell_is_told_against_the_last_commit_that_has_it() {
        let (old, new) = (line("a", &ratios(1.2)), line("b", &ratios(1.0)));
        let earlier = [&old, &new];
        assert_eq!(ratios(0.96).falls(&earlier), []);
        let falls = ratios(0.94).falls(&earlier);
        let fall = |commit: &str, from| Fall {
            figure: "postgres, work,".to_owned(),
            commit: commit.to_owned(),
            from,
            to: 0.94,
        };
        assert_eq!(falls, [fall("b", 1.0)]);
        let without = json!({ "commit": "c", "ratios": { "postgres": { "latency": 1.0 } } });
        assert_eq!(ratios(0.94).falls(&[&old, &without]), [fall("a", 1.2)]);
    }

    #[test]
    fn a_figure_that_was_never_measured_before_did_not_fall() {
        assert_eq!(ratios(0.1).falls(&[]), []);
    }
}
