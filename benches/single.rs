//! Where the time of a single enqueue goes: the driver's insert on the caller's own thread, the same
//! handed to another thread and back, and the whole of it, which is the manager's.
//!
//! `cargo bench --bench single --all-features -- DSN PART [--jobs N]` prints a line of JSON;
//! `cargo xtask bench --single` runs all parts in turn beside a bare insert. The database should be
//! of no other use, and migrated.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use qudo::driver::{Deadline, Driver, DriverRegistration, Due, JobFacts, JobRecord};
use qudo::{JobId, Manager};

#[derive(Parser)]
struct Arguments {
    /// The database.
    dsn: String,
    /// What is measured.
    part: Part,
    /// Jobs, one after the other.
    #[arg(long, default_value_t = 4_000)]
    jobs: u32,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(ValueEnum, Clone, Copy)]
enum Part {
    /// The driver's insert, on the thread that asks. Nobody could leave a server that hangs.
    Own,
    /// The same on another thread, by channels there and back.
    Other,
    /// `Manager::enqueue`.
    Manager,
}

/// As the manager's own.
const LIMIT: Duration = Duration::from_secs(10);

type Any<T = ()> = Result<T, Box<dyn std::error::Error>>;

#[qudo::ability(queue = "single")]
fn nothing(_job: &qudo::Job, _text: String) -> qudo::JobResult<()> {
    Ok(())
}

/// An argument of 50 bytes.
fn text(n: u32) -> String {
    format!("{n:048}")
}

fn record(n: u32) -> Any<JobRecord> {
    Ok(JobRecord {
        id: JobId::new(),
        facts: JobFacts::new("nothing", "single", "json", serde_json::to_vec(&text(n))?),
        due: Due::Now,
    })
}

/// How long one of so many takes. The one before them opens the connection.
fn each(jobs: u32, mut one: impl FnMut(u32) -> Any) -> Any<Duration> {
    one(jobs)?;
    let begun = Instant::now();
    for n in 0..jobs {
        one(n)?;
    }
    Ok(begun.elapsed() / jobs)
}

fn on_another_thread(driver: Arc<dyn Driver>, jobs: u32) -> Any<Duration> {
    let (ask, asked) = mpsc::channel();
    let (answer, answers) = mpsc::channel();
    let helper = std::thread::spawn(move || {
        for job in asked {
            if answer.send(driver.insert(&[job], Deadline::within(LIMIT))).is_err() {
                return;
            }
        }
    });
    let took = each(jobs, |n| {
        ask.send(record(n)?)?;
        answers.recv()??;
        Ok(())
    });
    drop(ask);
    helper.join().map_err(|_| "the helper panicked")?;
    took
}

fn main() -> Any {
    let Arguments { dsn, part, jobs, .. } = Arguments::parse();
    let driver = DriverRegistration::open_linked(&dsn)?.driver;
    let engine = driver.engine();
    let took = match part {
        Part::Own => {
            each(jobs, |n| Ok(driver.insert(&[record(n)?], Deadline::within(LIMIT)).map(drop)?))?
        }
        Part::Other => on_another_thread(driver, jobs)?,
        Part::Manager => {
            let manager = Manager::builder().database_as("single", &dsn).build()?;
            each(jobs, |n| Ok(manager.enqueue(nothing::job(text(n))).map(drop)?))?
        }
    };
    let part = part.to_possible_value().expect("no part is skipped");
    let each_us = took.as_secs_f64() * 1e6;
    let line = serde_json::json!({
        "engine": engine,
        "part": part.get_name(),
        "jobs": jobs,
        "each_us": each_us,
        "per_second": 1e6 / each_us,
    });
    println!("{line}");
    Ok(())
}
