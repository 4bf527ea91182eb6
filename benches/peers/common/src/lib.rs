//! What the benches of other job queues share: the command line, the order of measuring, and the
//! line of JSON. A peer implements [`Peer`] and calls [`main`].

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use clap::Parser;
use clap::ValueEnum;
use serde::Serialize;

/// One queue library on one database.
pub trait Peer: Sized {
    /// Name and version of what is measured.
    const NAME: &'static str;

    /// Connects. What the library, or this engine of it, lacks is an error made by [`lacks`].
    ///
    /// # Errors
    ///
    /// When the database can't be reached, or the peer lacks something.
    fn open(arguments: &Arguments) -> Any<Self>;

    /// Creates the tables.
    ///
    /// # Errors
    ///
    /// Those of the library, as in all that follow.
    fn migrate(&mut self) -> Any;

    /// Inserts one job, committed at return.
    ///
    /// # Errors
    ///
    /// Those of the library.
    fn enqueue_one(&mut self, n: usize) -> Any;

    /// Inserts jobs in the fastest way that the library documents, committed at return.
    ///
    /// # Errors
    ///
    /// Those of the library.
    fn enqueue_bulk(&mut self, jobs: std::ops::Range<usize>) -> Any;

    /// Inserts the jobs of the figure `work`, which is not timed.
    ///
    /// # Errors
    ///
    /// Those of the library.
    fn prepare(&mut self, jobs: std::ops::Range<usize>) -> Any {
        self.enqueue_bulk(jobs)
    }

    /// Starts the library's runner in the background. Its handler calls [`executed`] for each job.
    ///
    /// # Errors
    ///
    /// Those of the library.
    fn start(&mut self) -> Any;

    /// Whether the database knows of no job that is not finished.
    ///
    /// # Errors
    ///
    /// Those of the library.
    fn is_finished(&mut self) -> Any<bool>;

    /// The settings of the metric, in a few words.
    fn note(&self, arguments: &Arguments) -> String;
}

/// The command line of every peer.
#[derive(Parser, Clone, Debug)]
#[command(about = "Measures another job queue, or the bare database; one line of JSON")]
pub struct Arguments {
    /// `postgres://…`, `mysql://…` or `sqlite:/path/file.db`; empty, and of no other use.
    #[arg(long)]
    pub database: String,
    /// What is measured.
    #[arg(long)]
    pub metric: Metric,
    /// How many jobs.
    #[arg(long, default_value_t = 2_000)]
    pub jobs: usize,
    /// Concurrency of the runner with default settings.
    #[arg(long, default_value_t = 2)]
    pub workers: usize,
    /// The fastest documented settings, or those of the library's first example.
    #[arg(long, default_value = "best")]
    pub settings: Settings,
    /// When to stop a slow peer, in seconds.
    #[arg(long, default_value_t = 30)]
    pub limit: u64,
    /// Works and writes the instant of each start; a peer starts itself so.
    #[arg(long, hide = true)]
    pub stamp: bool,
}

/// What is measured.
#[derive(ValueEnum, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Metric {
    /// Single inserts, one after the other.
    EnqueueOne,
    /// Inserts in the fastest way.
    EnqueueBulk,
    /// Jobs that do nothing, from the start of a runner until all are finished.
    Work,
    /// From the call that enqueues to the start of the handler in another, idle process.
    Latency,
}

/// How a library is set up.
#[derive(ValueEnum, Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Settings {
    /// The fastest that the library documents.
    Best,
    /// What the library's first example does.
    Default,
}

/// The kind of a database.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// PostgreSQL.
    Postgres,
    /// MySQL or MariaDB.
    Mysql,
    /// SQLite.
    Sqlite,
}

impl Arguments {
    /// The kind of the database, by the scheme of its address.
    pub fn engine(&self) -> Engine {
        match self.database.split(':').next() {
            Some("sqlite") => Engine::Sqlite,
            Some("mysql" | "mariadb") => Engine::Mysql,
            _ => Engine::Postgres,
        }
    }

    /// The file of a SQLite database.
    pub fn file(&self) -> &str {
        self.database.trim_start_matches("sqlite:").trim_start_matches("//")
    }

    /// Whether the fastest settings are asked for.
    pub fn best(&self) -> bool {
        self.settings == Settings::Best
    }
}

/// The result of all that can fail.
pub type Any<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Debug)]
struct Lacks(String);

impl std::fmt::Display for Lacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Lacks {}

/// What a peer can't do: the program ends with code 3.
pub fn lacks<T>(what: impl Into<String>) -> Any<T> {
    Err(Box::new(Lacks(what.into())))
}

/// The argument of a job, 50 bytes as JSON.
pub fn text(n: usize) -> String {
    format!("{n:048}")
}

static EXECUTED: AtomicUsize = AtomicUsize::new(0);
static DISTINCT: AtomicUsize = AtomicUsize::new(0);
/// One per job, so that a job that was executed twice does not count for two.
static SEEN: OnceLock<Vec<AtomicBool>> = OnceLock::new();
static STAMP: AtomicBool = AtomicBool::new(false);

/// Counts an execution, with the argument that the handler got.
pub fn executed(text: &str) {
    if STAMP.load(Ordering::Relaxed) {
        let now = now();
        let mut out = std::io::stdout().lock();
        // Nobody reads any more: the parent is about to end this process.
        let _ = writeln!(out, "{now} {text}").and_then(|()| out.flush());
        return;
    }
    EXECUTED.fetch_add(1, Ordering::Relaxed);
    let n = text.parse::<usize>().expect("an argument comes back as it was");
    let seen = SEEN.get().and_then(|seen| seen.get(n)).expect("no other jobs are there");
    if !seen.swap(true, Ordering::Relaxed) {
        DISTINCT.fetch_add(1, Ordering::Relaxed);
    }
}

/// Jobs that were executed so far.
fn count() -> usize {
    DISTINCT.load(Ordering::Relaxed)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

/// The line of JSON.
#[derive(Serialize)]
struct Figure<'a> {
    peer: &'a str,
    engine: Engine,
    settings: Settings,
    metric: Metric,
    jobs: usize,
    workers: usize,
    per_second: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    note: String,
}

enum Measured {
    Rate { jobs: usize, took: Duration, stopped: bool },
    Waits { waits: Vec<u64>, stopped: bool },
}

/// Runs one metric of a peer.
pub fn main<P: Peer>() -> ExitCode {
    let arguments = Arguments::parse();
    match run::<P>(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", P::NAME);
            ExitCode::from(if error.is::<Lacks>() { 3 } else { 1 })
        }
    }
}

fn run<P: Peer>(arguments: &Arguments) -> Any {
    let mut peer = P::open(arguments)?;
    if arguments.stamp {
        STAMP.store(true, Ordering::Relaxed);
        peer.start()?;
        println!("ready");
        loop {
            std::thread::park();
        }
    }
    peer.migrate()?;
    let measured = measure(&mut peer, arguments)?;
    let mut figure = Figure {
        peer: P::NAME,
        engine: arguments.engine(),
        settings: arguments.settings,
        metric: arguments.metric,
        jobs: arguments.jobs,
        workers: arguments.workers,
        per_second: None,
        p50_ms: None,
        p99_ms: None,
        note: peer.note(arguments),
    };
    match measured {
        Measured::Rate { jobs, took, stopped } => {
            figure.jobs = jobs;
            figure.per_second = Some((jobs as f64 / took.as_secs_f64() * 10.0).round() / 10.0);
            if stopped {
                let of = arguments.jobs;
                figure.note += &format!("; stopped after {} s, of {of} jobs", arguments.limit);
            }
            let again = EXECUTED.load(Ordering::Relaxed) - count();
            if again > 0 {
                figure.note += &format!("; {again} executions were of a job already executed");
            }
        }
        Measured::Waits { mut waits, stopped } => {
            waits.sort_unstable();
            if stopped {
                figure.note += &format!("; stopped after {} s", arguments.limit);
            }
            figure.jobs = waits.len();
            figure.p50_ms = Some(quantile(&waits, 0.5));
            figure.p99_ms = Some(quantile(&waits, 0.99));
        }
    }
    println!("{}", serde_json::to_string(&figure)?);
    // Runners of some libraries never end by themselves, and the database is thrown away.
    std::process::exit(0)
}

/// A quantile of sorted microseconds, in milliseconds.
fn quantile(sorted: &[u64], share: f64) -> f64 {
    sorted.get((sorted.len().saturating_sub(1) as f64 * share) as usize).copied().unwrap_or(0)
        as f64
        / 1_000.0
}

fn measure<P: Peer>(peer: &mut P, arguments: &Arguments) -> Any<Measured> {
    let (jobs, limit) = (arguments.jobs, Duration::from_secs(arguments.limit));
    match arguments.metric {
        Metric::EnqueueOne => {
            let begun = Instant::now();
            let mut done = 0;
            while done < jobs && begun.elapsed() < limit {
                peer.enqueue_one(done)?;
                done += 1;
            }
            Ok(Measured::Rate { jobs: done, took: begun.elapsed(), stopped: done < jobs })
        }
        Metric::EnqueueBulk => {
            let begun = Instant::now();
            let mut done = 0;
            while done < jobs && begun.elapsed() < limit {
                let end = jobs.min(done + 10_000);
                peer.enqueue_bulk(done..end)?;
                done = end;
            }
            Ok(Measured::Rate { jobs: done, took: begun.elapsed(), stopped: done < jobs })
        }
        Metric::Work => {
            SEEN.get_or_init(|| (0..jobs).map(|_| AtomicBool::new(false)).collect());
            for from in (0..jobs).step_by(10_000) {
                peer.prepare(from..jobs.min(from + 10_000))?;
            }
            work(peer, jobs, limit)
        }
        Metric::Latency => latency(peer, arguments),
    }
}

fn work<P: Peer>(peer: &mut P, jobs: usize, limit: Duration) -> Any<Measured> {
    let begun = Instant::now();
    peer.start()?;
    while begun.elapsed() < limit {
        // The database is asked only when the handler has seen all, so the runner is undisturbed.
        if count() >= jobs && peer.is_finished()? {
            return Ok(Measured::Rate { jobs, took: begun.elapsed(), stopped: false });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(Measured::Rate { jobs: count().min(jobs), took: begun.elapsed(), stopped: true })
}

/// The worker in another process, ended when dropped.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn latency<P: Peer>(peer: &mut P, arguments: &Arguments) -> Any<Measured> {
    const WARM_UP: usize = 20;
    let mut worker = Other(
        Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .arg("--stamp")
            .stdout(Stdio::piped())
            .spawn()?,
    );
    let out = worker.0.stdout.take().ok_or("the output of the worker is not a pipe")?;
    let (send, stamps) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    // Longer than the longest sleep of any peer.
    let patience = Duration::from_secs(60);
    if stamps.recv_timeout(patience)? != "ready" {
        return Err("the worker's output is not its own".into());
    }
    // Some runners start their listeners and polls after they answered.
    std::thread::sleep(Duration::from_secs(1));
    let mut waits = Vec::new();
    let (begun_all, limit) = (Instant::now(), Duration::from_secs(arguments.limit));
    for n in 0..WARM_UP + arguments.jobs {
        if begun_all.elapsed() > limit {
            break;
        }
        std::thread::sleep(Duration::from_micros(fastrand::u64(40_000..60_000)));
        let begun = now();
        peer.enqueue_one(n)?;
        let started: u64 = loop {
            let line = stamps.recv_timeout(patience)?;
            let (started, text) = line.split_once(' ').ok_or("the worker wrote half a line")?;
            // What is not this one is an earlier one, executed again.
            if text == self::text(n) {
                break started.parse()?;
            }
        };
        waits.push(started.saturating_sub(begun));
    }
    let stopped = waits.len() < WARM_UP + arguments.jobs;
    // A peer so slow that the limit ends it early has waited for its poll from the first on.
    waits.drain(..if waits.len() > 2 * WARM_UP { WARM_UP } else { 0 });
    Ok(Measured::Waits { waits, stopped })
}
