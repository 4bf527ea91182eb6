//! Rates of one database: bulk and single enqueue, work, and claims among other rows.
//!
//! `cargo bench --bench throughput --all-features -- DSN [--jobs N]`. The database should be empty
//! and of no other use: the tables are emptied at the end by reverting the migrations.

use std::time::{Duration, Instant};

use clap::Parser;
use qudo::driver::{AbilityLease, ClaimRequest, Deadline, DriverRegistration, WorkerId};
use qudo::{Manager, NewJob};

#[derive(Parser)]
struct Arguments {
    /// The database.
    dsn: String,
    /// Jobs of the bulk and work figures, and rows that lie about for the claims.
    #[arg(long, default_value_t = 100_000)]
    jobs: usize,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

#[qudo::ability(queue = "bench")]
fn nothing(_text: String) {}

type Any = Result<(), Box<dyn std::error::Error>>;

/// A 50-byte JSON argument.
fn text(n: usize) -> String {
    format!("{n:048}")
}

fn per_second(count: usize, begun: Instant) -> f64 {
    count as f64 / begun.elapsed().as_secs_f64()
}

fn main() -> Any {
    let arguments = Arguments::parse();
    let manager = Manager::builder().database_as("bench", &arguments.dsn).build()?;
    manager.migrate()?;
    println!(
        "{:?}, {} jobs, {} cores",
        manager,
        arguments.jobs,
        std::thread::available_parallelism()?
    );
    rates(&manager, arguments.jobs)?;
    claims(&manager, &arguments)?;
    DriverRegistration::open_linked(&arguments.dsn)?.driver.revert()?;
    Ok(())
}

fn rates(manager: &Manager, jobs: usize) -> Any {
    let begun = Instant::now();
    for chunk in (0..jobs).collect::<Vec<_>>().chunks(10_000) {
        manager.enqueue_many(chunk.iter().map(|n| nothing::job(text(*n))))?;
    }
    println!("enqueue bulk   {:>10.0} jobs/s", per_second(jobs, begun));
    let begun = Instant::now();
    let working = manager.start()?;
    while !manager.job_count().into_iter().all(|on| on.answer.is_ok_and(|rows| rows.is_empty())) {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    println!("work           {:>10.0} jobs/s", per_second(jobs, begun));
    working.stop();
    let begun = Instant::now();
    let singles = 2_000;
    for n in 0..singles {
        manager.enqueue(nothing::job(text(n)))?;
    }
    println!("enqueue one    {:>10.0} jobs/s", per_second(singles, begun));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for n in 0..singles {
                    manager.enqueue(nothing::job(text(n))).expect("stored");
                }
            });
        }
    });
    println!("enqueue one x8 {:>10.0} jobs/s", per_second(8 * singles, begun));
    let mut waits = Vec::new();
    let working = manager.start()?;
    while !manager.job_count().into_iter().all(|on| on.answer.is_ok_and(|rows| rows.is_empty())) {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    for n in 0..300 {
        std::thread::park_timeout(Duration::from_millis(10));
        let begun = Instant::now();
        manager.enqueue(nothing::job(text(n)))?.wait_as::<()>(Duration::from_secs(9))?;
        waits.push(begun.elapsed());
    }
    working.stop();
    waits.sort_unstable();
    println!("enqueue to settled, same process: p50 {:?}, p99 {:?}", waits[150], waits[297]);
    Ok(())
}

/// 50 claims of 100 jobs, alone and among other rows.
fn claims(manager: &Manager, arguments: &Arguments) -> Any {
    let driver = DriverRegistration::open_linked(&arguments.dsn)?.driver;
    let mut number = 0;
    let mut claim = |what: &str| -> Any {
        let jobs = (0..5_000).map(|n| NewJob::named("claimed", text(n).into()).queue("claims"));
        manager.enqueue_many(jobs)?;
        let abilities =
            [AbilityLease { name: "claimed".into(), grab_for: Duration::from_secs(600) }];
        let (worker, queue) = (WorkerId::new(), "claims".into());
        let begun = Instant::now();
        let mut claimed = 0;
        for _ in 0..50 {
            number += 1;
            let request = ClaimRequest {
                worker,
                claim: number,
                queue: &queue,
                abilities: &abilities,
                limit: 100,
                deadline: Deadline::NONE,
                thorough: false,
            };
            claimed += driver.claim(&request)?.len();
        }
        println!("claim, {what:<44} {:>10.0} jobs/s", per_second(claimed, begun));
        Ok(())
    };
    let many = |queue: &'static str, later: bool| -> Any {
        for chunk in (0..arguments.jobs).collect::<Vec<_>>().chunks(10_000) {
            manager.enqueue_many(chunk.iter().map(|n| {
                let job = NewJob::named("claimed", text(*n).into()).queue(queue);
                if later { job.priority(9).delay(Duration::from_secs(86_400)) } else { job }
            }))?;
        }
        Ok(())
    };
    claim("5,000 ready and nothing else")?;
    many("nobody", false)?;
    claim(&format!("and {} in a queue nobody serves", arguments.jobs))?;
    many("claims", true)?;
    claim(&format!("and {} for tomorrow, urgent", arguments.jobs))?;
    many("claims", false)?;
    claim(&format!("and {} more ready", arguments.jobs))?;
    Ok(())
}
