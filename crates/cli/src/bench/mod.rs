//! `qudo bench`: what a database gives, measured with the jobs of a queue of its own.

mod abilities;
mod counts;
mod measure;
mod mix;
mod mixed;
mod patience;
mod processes;

use std::time::Duration;

use clap::ValueEnum;
use qudo::{Manager, ManagerBuilder};

use abilities::{Counter, Fail, Nothing, Reply, Retry, Snooze, Stamp, Status};
use measure::Figure;
use mix::Mix;

use crate::sources::{Databases, add_database};
use crate::{Failure, with_causes};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    databases: Databases,
    /// What to measure.
    #[arg(long, value_enum, default_value_t = Metric::All)]
    metric: Metric,
    /// How many jobs; without it 100,000 for bulk and work, 2,000 for each client one by one, 200
    /// for the latency and replies.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Worker threads; without it one per core.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    workers: Option<u32>,
    /// Threads that enqueue one by one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Size of a job's argument in bytes.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(12..8_000_000))]
    arg_bytes: u32,
    /// How long each job of the metric `work` takes, in milliseconds.
    #[arg(long, default_value_t = 0)]
    job_ms: u32,
    /// What the jobs of the metric `work` do beside nothing: `KIND`, or `KIND=PERCENT` for so many of
    /// a hundred, the others plain. Kinds: plain, replying, failing (for good), retrying (fails once),
    /// snoozing (is put off once), keyed, status (leaves a row in the job status). Several are measured in
    /// turn; while jobs are not plain, nothing is logged.
    #[arg(long, value_name = "KIND[=PERCENT]", value_delimiter = ',')]
    mix: Vec<Mix>,
    /// All mixes in turn: plain, one in a hundred of each kind, all of each kind.
    #[arg(long, conflicts_with = "mix")]
    each_mix: bool,
    /// Measures the mixes so often, in turn, and tells medians.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Work in so many processes of their own, each with as many worker threads; only for the
    /// metric `work`. Without it the measuring process works itself.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    processes: Option<u32>,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    /// Works the jobs of this queue until the standard input ends; the command starts itself so.
    #[arg(long, hide = true)]
    work: Option<String>,
    /// What such a process prints.
    #[arg(long, hide = true, value_enum, default_value_t = Report::Starts)]
    report: Report,
}

/// What a worker process tells the one that measures, a number a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Report {
    /// When each job started.
    Starts,
    /// How many jobs are done.
    Progress,
}

impl Report {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Starts => "starts",
            Self::Progress => "progress",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Metric {
    /// Jobs enqueued one by one, each durable before the next.
    EnqueueOne,
    /// Jobs enqueued 10,000 at a time.
    EnqueueBulk,
    /// Jobs worked: claimed, run, settled.
    Work,
    /// From the enqueue to the start in another process that is idle.
    Latency,
    /// From the enqueue to the reply, worked in this process.
    Reply,
    /// All of these.
    All,
}

impl Metric {
    const EACH: [Self; 5] =
        [Self::EnqueueOne, Self::EnqueueBulk, Self::Work, Self::Latency, Self::Reply];

    const fn as_str(self) -> &'static str {
        match self {
            Self::EnqueueOne => "enqueue_one",
            Self::EnqueueBulk => "enqueue_bulk",
            Self::Work => "work",
            Self::Latency => "latency",
            Self::Reply => "reply",
            Self::All => "all",
        }
    }
}

/// What one measurement needs.
struct Setting {
    databases: Vec<String>,
    queue: String,
    workers: u32,
    clients: u32,
    jobs: Option<u32>,
    arg_bytes: u32,
    pause: Duration,
    processes: Option<u32>,
}

impl Setting {
    fn builder(&self) -> ManagerBuilder {
        let builder = Manager::builder()
            .linked(false)
            .ability::<Nothing>()
            .ability::<Stamp>()
            .ability::<Reply>()
            .ability::<Status>()
            .ability::<Fail>()
            .ability::<Retry>()
            .ability::<Snooze>()
            .queues([&self.queue])
            .workers(self.workers as usize);
        self.databases.iter().fold(builder, |builder, text| add_database(builder, text))
    }

    /// The databases as their drivers describe them, without passwords.
    fn sources(&self) -> String {
        let manager = self.builder().build().map(|manager| manager.database_reports());
        let names: Vec<_> = manager.into_iter().flatten().map(|one| one.source).collect();
        names.join(" ")
    }

    fn jobs(&self, default: u32) -> u32 {
        self.jobs.unwrap_or(default)
    }
}

/// Measures; `false` when a measurement failed. The bench's jobs are removed also then.
pub(crate) fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let setting = Setting {
        databases: arguments.databases.names()?,
        queue: arguments.work.clone().unwrap_or_else(measure::own_queue),
        workers: arguments.workers.unwrap_or(cores),
        clients: arguments.clients,
        jobs: arguments.jobs,
        arg_bytes: arguments.arg_bytes,
        pause: Duration::from_millis(arguments.job_ms.into()),
        processes: arguments.processes,
    };
    if arguments.work.is_some() {
        processes::work_until_input_ends(&setting, arguments.report)?;
        return Ok(true);
    }
    let chosen: Vec<Metric> = match arguments.metric {
        Metric::All => Metric::EACH.to_vec(),
        one => vec![one],
    };
    let mixes = if arguments.each_mix { Mix::each() } else { arguments.mix.clone() };
    let mut complete = true;
    for metric in chosen {
        let done = if metric == Metric::Work && !mixes.is_empty() {
            mixed::measure(&setting, &mixes, arguments.repeat, arguments.json)
        } else {
            let figure = measure::measure(&setting, metric, Mix::PLAIN);
            figure.map(|figure| print(&setting, metric, &figure, arguments.json))
        };
        if let Err(error) = done {
            eprintln!("qudo: {}: {}", metric.as_str(), with_causes(&*error));
            complete = false;
        }
    }
    let left = measure::clean_up(&setting)?;
    if left > 0 {
        eprintln!("qudo: {left} jobs of the bench are left in the queue {:?}", setting.queue);
    }
    Ok(complete && left == 0)
}

fn print(setting: &Setting, metric: Metric, figure: &Figure, json: bool) {
    let database = setting.sources();
    let millis = |took: Option<Duration>| took.map(|took| took.as_secs_f64() * 1_000.0);
    let (p50, p99) = (millis(figure.p50), millis(figure.p99));
    let takes = match setting.pause.as_millis() {
        0 => String::new(),
        millis => format!("jobs of {millis} ms, "),
    };
    let settings = format!(
        "qudo {}, defaults, {}-byte argument, {takes}{}",
        env!("CARGO_PKG_VERSION"),
        setting.arg_bytes,
        figure.settings
    );
    if json {
        let mut line = serde_json::json!({
            "database": database, "metric": metric.as_str(), "jobs": figure.jobs,
            "workers": setting.workers, "per_second": figure.per_second, "p50_ms": p50,
            "p99_ms": p99, "settings": settings,
        });
        if let Some(memory) = figure.memory {
            line["worker_memory_mb"] = memory.into();
        }
        println!("{line}");
        return;
    }
    let mut line = format!("{:<13}", metric.as_str());
    if let Some(rate) = figure.per_second {
        line.push_str(&format!(" {rate:>10.0} jobs/s"));
    }
    if let (Some(p50), Some(p99)) = (p50, p99) {
        line.push_str(&format!("  p50 {p50:.2} ms  p99 {p99:.2} ms"));
    }
    if let Some(memory) = figure.memory {
        line.push_str(&format!("  {memory:.0} MB a worker"));
    }
    println!("{line}  ({database}; {} jobs; {settings})", figure.jobs);
}
