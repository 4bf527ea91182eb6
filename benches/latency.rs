//! How soon an idle worker in another process starts a job, and what it costs to wait for one.
//!
//! `cargo bench --bench latency --all-features -- DSN [--jobs N] [--idle SECONDS]`. The database
//! should be of no other use: the tables are emptied at the end by reverting the migrations. On
//! PostgreSQL the same is measured for a bare insert and NOTIFY to a thread that listens.

use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use qudo::driver::DriverRegistration;
use qudo::{Job, Manager};

#[derive(Parser)]
struct Arguments {
    /// The database.
    dsn: String,
    /// Jobs, one at a time.
    #[arg(long, default_value_t = 500)]
    jobs: usize,
    /// How long the idle worker is watched, in seconds.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Works; the bench starts itself so.
    #[arg(long, hide = true)]
    work: bool,
    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

type Any<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

/// Answers with the instant of its start.
#[qudo::ability(queue = "latency")]
fn stamp(_job: &Job, _text: String) -> qudo::JobResult<u64> {
    Ok(now())
}

fn quantiles(what: &str, mut took: Vec<u64>) {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize] as f64 / 1_000.0;
    println!("{what:<44} p50 {:>6.2} ms   p99 {:>6.2} ms", at(0.5), at(0.99));
}

/// CPU time that a process used so far, its ended threads included, in clock ticks of 10 ms.
fn ticks(worker: &Child) -> Any<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", worker.id()))?;
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

fn main() -> Any {
    let arguments = Arguments::parse();
    let manager = Manager::builder().database_as("latency", &arguments.dsn).workers(1).build()?;
    if arguments.work {
        return Ok(manager.work()?);
    }
    manager.migrate()?;
    let mut worker =
        Command::new(std::env::current_exe()?).args([&arguments.dsn, "--work"]).spawn()?;
    let measured = measure(&manager, &worker, &arguments);
    worker.kill()?;
    worker.wait()?;
    DriverRegistration::open_linked(&arguments.dsn)?.driver.revert()?;
    measured
}

fn measure(manager: &Manager, worker: &Child, arguments: &Arguments) -> Any {
    let mut took = Vec::new();
    for n in 0..arguments.jobs {
        // Longer than any poll after activity, so that the worker is idle again.
        std::thread::sleep(Duration::from_millis(fastrand::u64(40..60)));
        let begun = now();
        let ticket = manager.enqueue(stamp::job(format!("{n:048}")))?;
        let started: u64 = ticket.wait(Duration::from_secs(20))?;
        if n >= arguments.jobs / 10 {
            took.push(started.saturating_sub(begun));
        }
    }
    quantiles("enqueue to start in another process", took);
    bare(&arguments.dsn, arguments.jobs)?;
    // The server's own counters are renewed late.
    std::thread::sleep(Duration::from_secs(3));
    let (before, begun) = (ticks(worker)?, Instant::now());
    let statements = statements(&arguments.dsn)?;
    std::thread::sleep(Duration::from_secs(arguments.idle));
    let used = (ticks(worker)? - before) as f64 / 100.0 / begun.elapsed().as_secs_f64();
    println!("an idle worker uses {:.2} % of a core", used * 100.0);
    if let (Some(before), Some(after)) = (statements, self::statements(&arguments.dsn)?) {
        let minutes = begun.elapsed().as_secs_f64() / 60.0;
        println!("and sends {:.0} statements a minute", (after - before) as f64 / minutes);
    }
    Ok(())
}

/// What the server counted so far: transactions on PostgreSQL, where each is one statement of an
/// idle worker or a few; questions on MySQL.
fn statements(dsn: &str) -> Any<Option<i64>> {
    use diesel::sql_types::{BigInt, Text};
    use diesel::{Connection, QueryableByName, RunQueryDsl, sql_query};
    #[derive(QueryableByName)]
    struct Count {
        #[diesel(sql_type = BigInt)]
        count: i64,
    }
    #[derive(QueryableByName)]
    struct Status {
        #[diesel(sql_type = Text, column_name = "Value")]
        value: String,
    }
    if dsn.starts_with("postgres") {
        let mut conn = diesel::PgConnection::establish(dsn)?;
        // The view is renewed a second late at most.
        let sql = "SELECT xact_commit + xact_rollback AS count FROM pg_stat_database \
                   WHERE datname = current_database()";
        return Ok(Some(sql_query(sql).get_result::<Count>(&mut conn)?.count));
    }
    if dsn.starts_with("mysql") {
        let mut conn = diesel::MysqlConnection::establish(dsn)?;
        let sql = "SHOW GLOBAL STATUS LIKE 'Questions'";
        return Ok(Some(sql_query(sql).get_result::<Status>(&mut conn)?.value.parse()?));
    }
    Ok(None)
}

/// A bare insert with NOTIFY in one transaction, to a thread that blocks on its socket.
fn bare(dsn: &str, rows: usize) -> Any {
    use postgres::fallible_iterator::FallibleIterator;
    if !dsn.starts_with("postgres") {
        return Ok(());
    }
    let mut listener = postgres::Client::connect(dsn, postgres::NoTls)?;
    listener.batch_execute("LISTEN bare")?;
    let (notified, wakes) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut sent = listener.notifications();
        let mut all = sent.blocking_iter();
        while let Ok(Some(_)) = all.next() {
            if notified.send(now()).is_err() {
                return;
            }
        }
    });
    let mut client = postgres::Client::connect(dsn, postgres::NoTls)?;
    client.batch_execute("CREATE TABLE bare (id BIGSERIAL PRIMARY KEY, arg TEXT NOT NULL)")?;
    let insert = client.prepare("INSERT INTO bare (arg) VALUES ($1)")?;
    let mut took = Vec::new();
    for n in 0..rows {
        std::thread::sleep(Duration::from_millis(fastrand::u64(40..60)));
        let begun = now();
        client.execute(&insert, &[&format!("{n:048}")])?;
        client.batch_execute("NOTIFY bare")?;
        took.push(wakes.recv()?.saturating_sub(begun));
    }
    client.batch_execute("DROP TABLE bare")?;
    quantiles("bare insert and NOTIFY to a listener", took);
    Ok(())
}
