//! How fast a plain loop claims and settles on the layouts of tables that a queue could have: no
//! library, no jobs, only the database. One run measures one layout and prints a line of JSON.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

mod mysql;
mod postgres;
mod sqlite;

type Any<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures one layout on an empty database.
#[derive(Parser, Clone, Debug)]
struct Arguments {
    /// `postgres://…`, `mysql://…` or `sqlite:/path/file.db`; empty, and of no other use.
    #[arg(long)]
    database: String,
    /// The layout.
    #[arg(long)]
    layout: Layout,
    /// The type of the ids.
    #[arg(long, default_value = "uuid")]
    ids: Ids,
    /// How many jobs are ready at first.
    #[arg(long, default_value_t = 200_000)]
    jobs: usize,
    /// Jobs of one claim.
    #[arg(long, default_value_t = 500)]
    batch: usize,
    /// Connections that claim and settle; SQLite takes one.
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// When to stop, in seconds.
    #[arg(long, default_value_t = 30)]
    limit: u64,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// One table with a state, and an index in the order of claims.
    One,
    /// Facts in a table; where a job stands is which narrow table has its id. Each claim begins with
    /// the first of the queue.
    Narrow,
    /// The same; each claim begins after the last id that its connection claimed.
    NarrowAfter,
    /// As `narrow`, without statistics of the new tables. PostgreSQL only.
    NarrowNew,
    /// The same with the planner held to the order of the index by settings. PostgreSQL only.
    NarrowHeld,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Ids {
    /// 16 bytes, in the order of time.
    Uuid,
    /// 64 bits.
    Big,
}

impl Layout {
    fn is_narrow(self) -> bool {
        self != Self::One
    }
}

/// The tables of the layout, with the types of an engine in the places of capitals.
fn tables(arguments: &Arguments, id: &str, text: &str, payload: &str, end: &str) -> String {
    let one = "CREATE TABLE job (id ID NOT NULL PRIMARY KEY, queue TEXT NOT NULL, \
               priority INTEGER NOT NULL, payload PAYLOAD NOT NULL, state TEXT NOT NULL, \
               attempt INTEGER NOT NULL, worker BIGINT, leased_until BIGINT)END; \
               CREATE INDEX job_claim ON job (queue, state, priority, id)";
    let narrow = "CREATE TABLE job (id ID NOT NULL PRIMARY KEY, queue TEXT NOT NULL, \
                  priority INTEGER NOT NULL, payload PAYLOAD NOT NULL)END; \
                  CREATE TABLE ready (queue TEXT NOT NULL, priority INTEGER NOT NULL, \
                  id ID NOT NULL, attempt INTEGER NOT NULL, PRIMARY KEY (queue, priority, id))END; \
                  CREATE TABLE lease (id ID NOT NULL PRIMARY KEY, worker BIGINT NOT NULL, \
                  leased_until BIGINT NOT NULL, attempt INTEGER NOT NULL)END";
    let tables = if arguments.layout.is_narrow() { narrow } else { one };
    tables.replace("ID", id).replace("TEXT", text).replace("PAYLOAD", payload).replace("END", end)
}

/// The statements that fill them from a list of numbers `n`.
fn fills(arguments: &Arguments, numbers: &str, id: &str, payload: &str) -> Vec<String> {
    if arguments.layout.is_narrow() {
        vec![
            format!("INSERT INTO job SELECT {id}, 'bench', 0, {payload} FROM {numbers}"),
            format!("INSERT INTO ready SELECT 'bench', 0, {id}, 0 FROM {numbers}"),
        ]
    } else {
        vec![format!(
            "INSERT INTO job (id, queue, priority, payload, state, attempt) \
             SELECT {id}, 'bench', 0, {payload}, 'ready', 0 FROM {numbers}"
        )]
    }
}

/// What the connections share.
#[derive(Clone)]
struct Progress {
    done: Arc<AtomicUsize>,
    jobs: usize,
    until: Instant,
}

impl Progress {
    fn begin(arguments: &Arguments) -> Self {
        let until = Instant::now() + Duration::from_secs(arguments.limit);
        Self { done: Arc::default(), jobs: arguments.jobs, until }
    }

    fn add(&self, jobs: usize) {
        self.done.fetch_add(jobs, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.done.load(Ordering::Relaxed) >= self.jobs || Instant::now() > self.until
    }
}

/// One connection's part of an engine.
trait Connection: Sized + Send + 'static {
    fn open(arguments: &Arguments) -> Any<Self>;

    /// Creates and fills the tables.
    fn fill(&mut self) -> Any;

    /// Claims a batch, reads its arguments, and settles it; returns how many jobs it had.
    fn turn(&mut self) -> Any<usize>;
}

fn measure<C: Connection>(arguments: &Arguments, connections: usize) -> Any<(usize, Duration)> {
    C::open(arguments)?.fill()?;
    let opened: Vec<C> = (0..connections).map(|_| C::open(arguments)).collect::<Any<Vec<C>>>()?;
    let progress = Progress::begin(arguments);
    let begun = Instant::now();
    let threads: Vec<_> = opened
        .into_iter()
        .map(|mut connection| {
            let progress = progress.clone();
            std::thread::spawn(move || -> Any {
                while !progress.is_over() {
                    progress.add(connection.turn()?);
                }
                Ok(())
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a connection's thread panicked")??;
    }
    Ok((progress.done.load(Ordering::Relaxed), begun.elapsed()))
}

fn run() -> Any {
    let arguments = Arguments::parse();
    let connections = arguments.connections;
    let (engine, (jobs, took)) = match arguments.database.split(':').next() {
        Some("sqlite") => ("sqlite", measure::<sqlite::Conn>(&arguments, 1)?),
        Some("mysql" | "mariadb") => ("mysql", measure::<mysql::Conn>(&arguments, connections)?),
        _ if arguments.ids == Ids::Big => {
            ("postgres", measure::<postgres::Conn<i64>>(&arguments, connections)?)
        }
        _ => ("postgres", measure::<postgres::Conn<uuid::Uuid>>(&arguments, connections)?),
    };
    let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
        value().map(|value| value.get_name().to_owned())
    };
    println!(
        "{}",
        serde_json::json!({
            "engine": engine,
            "layout": name(&|| arguments.layout.to_possible_value()),
            "ids": name(&|| arguments.ids.to_possible_value()),
            "batch": arguments.batch,
            "jobs": jobs,
            "stopped": jobs < arguments.jobs,
            "per_second": (jobs as f64 / took.as_secs_f64()).round(),
        })
    );
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("layouts: {error}");
            ExitCode::FAILURE
        }
    }
}
