//! From an enqueue to its reply, with the worker in another process, while nothing else happens: how soon an answer is
//! heard, and what of that the server takes by itself.
//!
//! `cargo bench --all-features --bench roundtrip -- postgres://.. mysql://.. sqlite:jobs.db`. Beside each PostgreSQL URL it measures the least that two processes need
//! there: an insert and a NOTIFY in one transaction each way, by two threads with a connection for each step.

use std::error::Error;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, NoTls};
use qudo::{Job, JobResult, Manager};

type Any<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// So many round trips are measured, after the first ones.
const ROUNDS: u64 = 300;
const WARM_UP: u64 = 20;

/// Sleeps for so many milliseconds.
#[qudo::ability(queue = "roundtrip")]
fn rest(_job: &Job, millis: u64) -> JobResult<u64> {
    std::thread::sleep(Duration::from_millis(millis));
    Ok(millis)
}

fn manager(url: &str) -> Any<Manager> {
    Ok(Manager::builder().linked(false).database(url).ability::<rest>().build()?)
}

/// Ends with its owner.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// No two begin at the same distance from what goes on by a clock.
fn pause(round: u64) {
    std::thread::sleep(Duration::from_millis(10 + round * 7_919 % 60));
}

fn print(what: &str, mut all: Vec<Duration>) {
    all.sort_unstable();
    let at = |part: usize| all[(all.len() * part / 100).min(all.len() - 1)].as_secs_f64() * 1e3;
    println!("{what:<44} p50 {:6.2}  p90 {:6.2}  p99 {:6.2} ms", at(50), at(90), at(99));
}

/// What a round trip takes beyond the job's own time.
fn measure(manager: &Manager, millis: u64) -> Any<Vec<Duration>> {
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        pause(round);
        let begun = Instant::now();
        manager.enqueue(rest::job(millis))?.wait(Duration::from_secs(30))?;
        if round >= WARM_UP {
            all.push(begun.elapsed().saturating_sub(Duration::from_millis(millis)));
        }
    }
    Ok(all)
}

/// An insert and a NOTIFY each way, durable, on connections that do nothing else.
fn bare(url: &str) -> Any<Vec<Duration>> {
    let connect = || Client::connect(url, NoTls);
    let (mut asks, mut answers, mut hears) = (connect()?, connect()?, connect()?);
    let mut listens = connect()?;
    asks.batch_execute("CREATE TABLE IF NOT EXISTS roundtrip_bare (number BIGINT, what TEXT)")?;
    listens.batch_execute("LISTEN roundtrip_ask")?;
    hears.batch_execute("LISTEN roundtrip_answer")?;
    let put = "WITH put AS (INSERT INTO roundtrip_bare VALUES ($1, $2)) SELECT pg_notify($2, '')";
    let (ask, answer) = (asks.prepare(put)?, answers.prepare(put)?);
    std::thread::spawn(move || -> Any {
        for round in 0..ROUNDS {
            listens.notifications().blocking_iter().next()?;
            answers.query(&answer, &[&(round as i64), &"roundtrip_answer"])?;
        }
        Ok(())
    });
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        pause(round);
        let begun = Instant::now();
        asks.query(&ask, &[&(round as i64), &"roundtrip_ask"])?;
        hears.notifications().timeout_iter(Duration::from_secs(30)).next()?;
        if round >= WARM_UP {
            all.push(begun.elapsed());
        }
    }
    asks.batch_execute("DROP TABLE roundtrip_bare")?;
    Ok(all)
}

fn main() -> Any {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|one| one != "--bench").collect();
    if let [role, url] = &arguments[..]
        && role == "work"
    {
        return Ok(manager(url)?.work()?);
    }
    for url in &arguments {
        let manager = manager(url)?;
        manager.migrate()?;
        let itself = std::env::current_exe()?;
        let worker = Worker(Command::new(itself).args(["work", url]).spawn()?);
        manager.enqueue(rest::job(0))?.wait(Duration::from_secs(30))?;
        let engine = url.split(':').next().unwrap_or_default();
        for millis in [0, 200] {
            print(&format!("{engine}, a job of {millis} ms"), measure(&manager, millis)?);
        }
        drop(worker);
        if engine.starts_with("postgres") {
            print("bare: insert, notify, insert, notify", bare(url)?);
        }
    }
    Ok(())
}
