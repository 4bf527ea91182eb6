use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use qudo::history::{Micros, Recorder, micros};
use rustix::process::{Pid, Signal, kill_process};

use crate::world::{builder, default_builder};
use crate::{Result, World};

/// Worker processes on a world's databases.
#[derive(Debug)]
pub struct Crew {
    program: PathBuf,
    options: Options,
    workers: Vec<Child>,
    /// Workers that were killed: their process ids, and when.
    pub killed: Vec<(u32, Micros)>,
}

/// What a worker process is told.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// A database, as NAME=DSN.
    #[arg(long = "database", value_parser = pair)]
    pub databases: Vec<(String, String)>,
    /// Where to record.
    #[arg(long)]
    pub history: PathBuf,
    /// Milliseconds between two heartbeats.
    #[arg(long, default_value_t = 1_000)]
    pub heartbeat: u64,
    /// Milliseconds of silence after which a process counts as dead.
    #[arg(long, default_value_t = 5_000)]
    pub dead_after: u64,
    /// Seconds between two probes of a dead database at most.
    #[arg(long, default_value_t = 2)]
    pub retry_seconds: u64,
    /// Milliseconds that a soft stop may take.
    #[arg(long, default_value_t = 10_000)]
    pub shutdown_timeout: u64,
    /// Threads that run jobs.
    #[arg(long, default_value_t = 4)]
    pub threads: usize,
    /// Every limit as a user has it who sets none, instead of the four above.
    #[arg(long)]
    pub defaults: bool,
}

/// Reads NAME=DSN.
///
/// # Errors
///
/// When there is no `=`.
pub fn pair(text: &str) -> Result<(String, String)> {
    let (name, dsn) = text.split_once('=').ok_or("expected NAME=DSN")?;
    Ok((name.to_owned(), dsn.to_owned()))
}

impl Options {
    /// The options for a world, with short heartbeats.
    pub fn of(world: &World) -> Self {
        Self {
            databases: world.databases(),
            history: world.history(),
            heartbeat: 1_000,
            dead_after: 5_000,
            retry_seconds: 2,
            shutdown_timeout: 10_000,
            threads: 4,
            defaults: false,
        }
    }

    /// The same with every limit as a user has it who sets none.
    #[must_use]
    pub fn with_defaults(mut self) -> Self {
        // As the manager's own.
        self.shutdown_timeout = 30_000;
        self.defaults = true;
        self
    }

    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["worker".to_owned()];
        for (name, dsn) in &self.databases {
            arguments.push(format!("--database={name}={dsn}"));
        }
        arguments.push(format!("--history={}", self.history.display()));
        arguments.push(format!("--heartbeat={}", self.heartbeat));
        arguments.push(format!("--dead-after={}", self.dead_after));
        arguments.push(format!("--retry-seconds={}", self.retry_seconds));
        arguments.push(format!("--shutdown-timeout={}", self.shutdown_timeout));
        arguments.push(format!("--threads={}", self.threads));
        if self.defaults {
            arguments.push("--defaults".to_owned());
        }
        arguments
    }
}

/// What a worker process does: works until it is stopped.
///
/// # Errors
///
/// When the manager cannot work.
pub fn work(options: &Options) -> Result<()> {
    // Some jobs panic because they are told to; the manager logs it.
    std::panic::set_hook(Box::new(|_| {}));
    let file = options.history.join(format!("worker-{}.jsonl", std::process::id()));
    let builder = if options.defaults {
        default_builder(&options.databases)
    } else {
        builder(&options.databases)
            .retry_seconds(options.retry_seconds)
            .heartbeat(
                Duration::from_millis(options.heartbeat),
                Duration::from_millis(options.dead_after),
            )
            .shutdown_timeout(Duration::from_millis(options.shutdown_timeout))
    };
    let manager = builder.workers(options.threads).observer(Recorder::create(file)?).build()?;
    manager.work()?;
    Ok(())
}

impl Crew {
    /// Starts so many processes of this program, which must understand `worker` and [`Options`].
    ///
    /// # Errors
    ///
    /// When a process cannot be started.
    pub fn start(program: impl Into<PathBuf>, options: Options, count: usize) -> Result<Self> {
        let mut crew =
            Self { program: program.into(), options, workers: Vec::new(), killed: Vec::new() };
        for _ in 0..count {
            let worker = crew.spawn()?;
            crew.workers.push(worker);
        }
        Ok(crew)
    }

    fn spawn(&self) -> Result<Child> {
        Ok(Command::new(&self.program).args(self.options.arguments()).spawn()?)
    }

    /// How many processes there are.
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// The process ids.
    pub fn pids(&self) -> Vec<u32> {
        self.workers.iter().map(Child::id).collect()
    }

    /// Kills a process with SIGKILL and starts another in its place.
    ///
    /// # Errors
    ///
    /// When that fails.
    pub fn kill(&mut self, which: usize) -> Result<()> {
        let worker = &mut self.workers[which];
        worker.kill()?;
        worker.wait()?;
        self.killed.push((worker.id(), micros(SystemTime::now())));
        self.workers[which] = self.spawn()?;
        Ok(())
    }

    /// Stops a process softly, and starts another in its place. Returns how long it took.
    ///
    /// # Errors
    ///
    /// When it ends with an error, or takes longer than its shutdown timeout and two seconds.
    pub fn replace(&mut self, which: usize) -> Result<Duration> {
        let took = self.end(which)?;
        self.workers[which] = self.spawn()?;
        Ok(took)
    }

    fn end(&mut self, which: usize) -> Result<Duration> {
        let begun = Instant::now();
        let worker = &mut self.workers[which];
        signal(worker, Signal::TERM)?;
        let limit = Duration::from_millis(self.options.shutdown_timeout) + Duration::from_secs(2);
        let status = loop {
            if let Some(status) = worker.try_wait()? {
                break status;
            }
            if begun.elapsed() > limit {
                worker.kill()?;
                worker.wait()?;
                return Err(format!("worker {} did not end within {limit:?}", worker.id()).into());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        if !status.success() {
            return Err(format!("worker {} ended with {status}", worker.id()).into());
        }
        Ok(begun.elapsed())
    }

    /// Stops a process with SIGSTOP.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn pause(&self, which: usize) -> Result<()> {
        signal(&self.workers[which], Signal::STOP)
    }

    /// Lets a stopped process go on.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn resume(&self, which: usize) -> Result<()> {
        signal(&self.workers[which], Signal::CONT)
    }

    /// Stops all softly, one after another. Returns how long the slowest took.
    ///
    /// # Errors
    ///
    /// As [`replace`](Self::replace), after all were asked.
    pub fn stop(mut self) -> Result<Duration> {
        let mut slowest = Duration::ZERO;
        let mut failed = None;
        for which in 0..self.workers.len() {
            match self.end(which) {
                Ok(took) => slowest = slowest.max(took),
                Err(error) => failed = Some(error),
            }
        }
        self.workers.clear();
        failed.map_or(Ok(slowest), Err)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            // A test that failed leaves nothing running.
            drop(worker.kill());
            drop(worker.wait());
        }
    }
}

fn signal(worker: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(worker.id()).ok().and_then(Pid::from_raw).ok_or("no such process")?;
    Ok(kill_process(pid, signal)?)
}
