//! Jobs that pass while somebody holds a transaction open: vacuum and purge can remove nothing.

use std::thread;
use std::time::{Duration, Instant};

use qudo_test_servers::run_sql;
use serde_json::json;

use super::{Arguments, Fresh, ours, rate};
use crate::Result;
use crate::databases::Databases;

/// Rounds of as many jobs: enqueued in bulk, then worked off.
const ROUNDS: u32 = 10;

/// Jobs of one round.
const JOBS: u32 = 100_000;

pub(super) fn measure(arguments: &Arguments, databases: &Databases) -> Result<()> {
    let mut table = String::from("\n| | first | last | last / first |\n|---|---|---|---|\n");
    for engine in arguments.engines().filter(|engine| *engine != "sqlite") {
        for held in [false, true] {
            let fresh = Fresh::migrated(databases, engine, "held")?;
            let _open = held.then(|| Open::begin(engine, &fresh.dsn)).transpose()?;
            let mut rates = Vec::new();
            for round in 1..=ROUNDS {
                let jobs = JOBS.to_string();
                let line = ours(&[&fresh], &["--metric", "work", "--jobs", &jobs])?;
                rates.push(rate(&line)?);
                let rate = rate(&line)?;
                arguments.note(&json!({
                    "engine": engine, "held_open": held, "round": round, "jobs": JOBS,
                    "per_second": rate,
                }))?;
            }
            let (first, last) = (rates[0], rates[rates.len() - 1]);
            let what = if held { "transaction held open" } else { "nothing held" };
            table.push_str(&format!(
                "| {engine}, {what} | {first:.0} | {last:.0} | {:.2} |\n",
                last / first
            ));
        }
    }
    println!("{table}");
    Ok(())
}

/// A transaction that sees the tables as they were when it began, and sleeps until this is dropped.
struct Open {
    dsn: String,
    end: String,
}

impl Open {
    fn begin(engine: &str, dsn: &str) -> Result<Self> {
        let (open, seen, end) = match engine {
            "postgres" => (
                "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM qudo_job; \
                 SELECT pg_sleep(3600)",
                "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600)%' \
                 AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()",
                "SELECT pg_terminate_backend(ID)",
            ),
            _ => (
                "START TRANSACTION WITH CONSISTENT SNAPSHOT; SELECT count(*) FROM qudo_job; \
                 SELECT SLEEP(3600)",
                "SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(%'",
                "KILL ID",
            ),
        };
        let holding = dsn.to_owned();
        // Its connection is cut, and that is how it ends.
        thread::spawn(move || drop(run_sql(&holding, open)));
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let id = run_sql(dsn, seen)?;
            if !id.trim().is_empty() {
                return Ok(Self { dsn: dsn.to_owned(), end: end.replace("ID", id.trim()) });
            }
            if Instant::now() > deadline {
                return Err("the transaction to be held open did not begin".into());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Open {
    /// Before its database goes, which would wait for it.
    fn drop(&mut self) {
        if let Err(error) = run_sql(&self.dsn, &self.end) {
            eprintln!("a transaction is left open: {error}");
        }
    }
}
