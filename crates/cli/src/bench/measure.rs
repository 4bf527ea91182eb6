//! One function per metric.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use qudo::{Ability, Error, Manager, NewJob};

use super::abilities::Printing;
use super::abilities::now;
use super::{Counter, Metric, Nothing, Reply, Setting, Stamp};

/// Jobs of one bulk enqueue.
const BULK: u32 = 10_000;

/// A job of the latency that did not start by then never will.
const PATIENCE: Duration = Duration::from_secs(30);

type Any<T> = Result<T, Box<dyn std::error::Error>>;

/// What was measured.
pub(super) struct Figure {
    pub(super) jobs: u32,
    pub(super) per_second: Option<f64>,
    pub(super) p50: Option<Duration>,
    pub(super) p99: Option<Duration>,
    pub(super) settings: String,
}

impl Figure {
    fn rate(jobs: u32, took: Duration, settings: impl Into<String>) -> Self {
        let per_second = Some(f64::from(jobs) / took.as_secs_f64());
        Self { jobs, per_second, p50: None, p99: None, settings: settings.into() }
    }

    fn quantiles(self, mut waits: Vec<Duration>) -> Self {
        waits.sort_unstable();
        let at = |percent: usize| waits.get((waits.len().saturating_sub(1)) * percent / 100);
        Self { p50: at(50).copied(), p99: at(99).copied(), ..self }
    }
}

/// A queue that nobody else serves.
pub(super) fn own_queue() -> String {
    format!("qudo-bench-{}-{}", std::process::id(), now())
}

pub(super) fn measure(setting: &Setting, metric: Metric) -> Any<Figure> {
    match metric {
        Metric::EnqueueOne => enqueue_one(setting),
        Metric::EnqueueBulk => enqueue_bulk(setting),
        Metric::Work => work(setting),
        Metric::Latency => latency(setting),
        Metric::Reply => reply(setting),
        Metric::All => unreachable!("all is replaced by each"),
    }
}

/// A job with an argument of 50 bytes of JSON.
fn job<A: Ability<Arg = String>>(setting: &Setting, n: u32) -> NewJob {
    A::job(format!("{n:048}")).queue(setting.queue.clone())
}

fn manager(setting: &Setting) -> Result<(Manager, Counter), Error> {
    let counter = Counter::default();
    let manager = setting.builder().plugin(counter.clone()).build()?;
    Ok((manager, counter))
}

fn enqueue_one(setting: &Setting) -> Any<Figure> {
    let (manager, _) = manager(setting)?;
    let each = setting.jobs(2_000 * setting.clients).div_ceil(setting.clients);
    // The first opens the connection.
    manager.enqueue(job::<Nothing>(setting, 0))?;
    let begun = Instant::now();
    let waits: Result<Vec<_>, Error> = thread::scope(|scope| {
        let client = || {
            (0..each).map(|n| {
                let begun = Instant::now();
                manager.enqueue(job::<Nothing>(setting, n)).map(|_| begun.elapsed())
            })
        };
        let clients: Vec<_> = (0..setting.clients)
            .map(|_| scope.spawn(move || client().collect::<Result<Vec<_>, Error>>()))
            .collect();
        let mut waits = Vec::new();
        for client in clients {
            waits.extend(client.join().expect("a client does not panic")?);
        }
        Ok(waits)
    });
    let took = begun.elapsed();
    let waits = waits?;
    let settings = format!("{} clients", setting.clients);
    Ok(Figure::rate(each * setting.clients, took, settings).quantiles(waits))
}

fn fill(setting: &Setting, manager: &Manager, jobs: u32) -> Result<(), Error> {
    for from in (0..jobs).step_by(BULK as usize) {
        let until = jobs.min(from + BULK);
        manager.enqueue_many((from..until).map(|n| job::<Nothing>(setting, n)))?;
    }
    Ok(())
}

fn enqueue_bulk(setting: &Setting) -> Any<Figure> {
    let (manager, _) = manager(setting)?;
    manager.enqueue(job::<Nothing>(setting, 0))?;
    let jobs = setting.jobs(100_000);
    let begun = Instant::now();
    fill(setting, &manager, jobs)?;
    Ok(Figure::rate(jobs, begun.elapsed(), format!("{BULK} a call")))
}

/// From the start of the worker until all jobs are settled and the worker has stopped.
fn work(setting: &Setting) -> Any<Figure> {
    clean_up(setting)?;
    let (manager, counter) = manager(setting)?;
    let jobs = setting.jobs(100_000);
    fill(setting, &manager, jobs)?;
    let begun = Instant::now();
    let working = manager.start()?;
    await_count(&counter, jobs)?;
    working.stop();
    Ok(Figure::rate(jobs, begun.elapsed(), "start and stop of the worker included"))
}

/// Waits as long as jobs are being done.
fn await_count(counter: &Counter, jobs: u32) -> Any<()> {
    let (mut seen, mut since) = (0, Instant::now());
    while counter.get() < jobs {
        thread::sleep(Duration::from_millis(1));
        if counter.get() != seen {
            (seen, since) = (counter.get(), Instant::now());
        }
        if since.elapsed() > PATIENCE {
            return Err(format!("no job was done for {} s", PATIENCE.as_secs()).into());
        }
    }
    Ok(())
}

fn reply(setting: &Setting) -> Any<Figure> {
    let (manager, _) = manager(setting)?;
    let working = manager.start()?;
    let jobs = setting.jobs(200);
    let mut waits = Vec::new();
    for n in 0..jobs {
        thread::sleep(Duration::from_millis(10));
        let begun = Instant::now();
        manager.enqueue(job::<Reply>(setting, n))?.wait::<u32>(PATIENCE)?;
        waits.push(begun.elapsed());
    }
    working.stop();
    let figure = Figure { jobs, per_second: None, p50: None, p99: None, settings: String::new() };
    let settings = "same process; replies go when the workers' keep_replies is over".to_owned();
    Ok(Figure { settings, ..figure }.quantiles(waits))
}

fn latency(setting: &Setting) -> Any<Figure> {
    clean_up(setting)?;
    let (manager, _) = manager(setting)?;
    let (mut worker, started) = start_worker(setting)?;
    let jobs = setting.jobs(200);
    let measured = (0..jobs + jobs / 10).map(|n| {
        // Longer than any poll after activity, so that the worker is idle again.
        thread::sleep(Duration::from_millis(40 + u64::from(n * 7 % 20)));
        let begun = now();
        manager.enqueue(job::<Stamp>(setting, n))?;
        let at = started.recv_timeout(PATIENCE)?;
        Ok(Duration::from_micros(at.saturating_sub(begun)))
    });
    let waits: Any<Vec<_>> = measured.collect();
    // The end of its input ends the worker.
    drop(worker.stdin.take());
    worker.wait()?;
    let waits = waits?.split_off((jobs / 10) as usize);
    let settings = "the worker is another process, idle".to_owned();
    let figure = Figure { jobs, per_second: None, p50: None, p99: None, settings };
    Ok(figure.quantiles(waits))
}

/// This program once more, with the same words up to the command.
fn start_worker(setting: &Setting) -> Any<(Child, mpsc::Receiver<u64>)> {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let command = words.iter().position(|word| word == "bench").ok_or("no command bench")?;
    let mut worker = Command::new(std::env::current_exe()?);
    worker.args(&words[..=command]).args(["--work", &setting.queue]);
    worker.args(["--workers", &setting.workers.to_string()]);
    for dsn in &setting.databases {
        worker.args(["--database", dsn]);
    }
    let mut worker = worker.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let output = worker.stdout.take().ok_or("the worker has no output")?;
    let (sender, started) = mpsc::channel();
    thread::spawn(move || read_instants(output, &sender));
    Ok((worker, started))
}

fn read_instants(output: ChildStdout, sender: &mpsc::Sender<u64>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if line.parse().is_ok_and(|at| sender.send(at).is_err()) {
            return;
        }
    }
}

/// What the other process does.
pub(super) fn work_until_input_ends(setting: &Setting) -> Result<(), Error> {
    let manager = setting.builder().plugin(Counter::default()).plugin(Printing).build()?;
    let working = manager.start()?;
    // Nobody writes there: the read ends when the parent does, however it ends.
    let _ended = std::io::stdin().lines().count();
    working.stop();
    Ok(())
}

/// Works off what the measurements left in the queue; returns how many jobs remain.
pub(super) fn clean_up(setting: &Setting) -> Result<u64, Error> {
    let (manager, _) = manager(setting)?;
    let left = || -> Result<u64, Error> {
        let mut left = 0;
        for on in manager.job_count() {
            let ours = on.answer?.into_iter().filter(|row| row.queue == setting.queue);
            left += ours.map(|row| row.count).sum::<u64>();
        }
        Ok(left)
    };
    if left()? == 0 {
        return Ok(0);
    }
    let working = manager.start()?;
    let deadline = Instant::now() + Duration::from_secs(600);
    while left()? > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    working.stop();
    left()
}
