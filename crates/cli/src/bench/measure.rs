//! One function per metric.

use std::thread;
use std::time::{Duration, Instant};

use qudo::{Ability, Error, Manager, NewJob};

use super::abilities::now;
use super::counts::WORK_JOBS;
use super::patience::{Any, PATIENCE};
use super::processes::Workers;
use super::{Counter, Metric, Mix, Nothing, Reply, Report, Setting, Stamp};

/// Jobs of one bulk enqueue.
const BULK: u32 = 10_000;

/// Bytes of arguments in one bulk enqueue.
const BULK_BYTES: u32 = 32 << 20;

/// What was measured.
pub(super) struct Figure {
    pub(super) jobs: u32,
    pub(super) per_second: Option<f64>,
    pub(super) p50: Option<Duration>,
    pub(super) p99: Option<Duration>,
    pub(super) settings: String,
    /// The most memory of a worker process, in MB.
    pub(super) memory: Option<f64>,
}

impl Figure {
    fn rate(jobs: u32, took: Duration, settings: impl Into<String>) -> Self {
        let per_second = Some(f64::from(jobs) / took.as_secs_f64());
        Self { per_second, ..Self::without_rate(jobs, settings) }
    }

    fn without_rate(jobs: u32, settings: impl Into<String>) -> Self {
        let settings = settings.into();
        Self { jobs, per_second: None, p50: None, p99: None, settings, memory: None }
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

/// `mix` is for the metric `work`.
pub(super) fn measure(setting: &Setting, metric: Metric, mix: Mix) -> Any<Figure> {
    match metric {
        Metric::EnqueueOne => enqueue_one(setting),
        Metric::EnqueueBulk => enqueue_bulk(setting),
        Metric::Work => work(setting, mix),
        Metric::Latency => latency(setting),
        Metric::Reply => reply(setting),
        Metric::All => unreachable!("all is replaced by each"),
    }
}

/// An argument of the bytes asked for, as JSON, that begins with this number.
fn arg(setting: &Setting, n: u32) -> String {
    let mut arg = format!("{n:010}");
    arg.extend(std::iter::repeat_n('0', setting.arg_bytes as usize - 2 - arg.len()));
    arg
}

fn job<A: Ability<Arg = String>>(setting: &Setting, n: u32) -> NewJob<A::Reply> {
    A::job(arg(setting, n)).queue(setting.queue.clone())
}

fn manager(setting: &Setting) -> Result<(Manager, Counter), Error> {
    let counter = Counter::new(setting.pause, setting.jobs(WORK_JOBS));
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

/// How many jobs go into one call.
fn bulk(setting: &Setting) -> u32 {
    (BULK_BYTES / setting.arg_bytes).clamp(1, BULK)
}

fn fill(setting: &Setting, manager: &Manager, jobs: u32, mix: Mix) -> Result<(), Error> {
    let bulk = bulk(setting);
    for from in (0..jobs).step_by(bulk as usize) {
        let until = jobs.min(from + bulk);
        let job = |n| mix.job(n, arg(setting, n)).queue(setting.queue.clone());
        manager.enqueue_many((from..until).map(job))?;
    }
    Ok(())
}

fn enqueue_bulk(setting: &Setting) -> Any<Figure> {
    let (manager, _) = manager(setting)?;
    manager.enqueue(job::<Nothing>(setting, 0))?;
    let jobs = setting.jobs(100_000);
    let begun = Instant::now();
    fill(setting, &manager, jobs, Mix::PLAIN)?;
    Ok(Figure::rate(jobs, begun.elapsed(), format!("{} a call", bulk(setting))))
}

/// From the start of the worker until all jobs are settled and the worker has stopped.
fn work(setting: &Setting, mix: Mix) -> Any<Figure> {
    clean_up(setting)?;
    let (manager, counter) = manager(setting)?;
    let jobs = setting.jobs(WORK_JOBS);
    fill(setting, &manager, jobs, mix)?;
    let begun = Instant::now();
    if let Some(processes) = setting.processes {
        let workers = Workers::start(setting, processes, Report::Progress)?;
        workers.await_jobs(jobs)?;
        let memory = workers.peak_memory();
        workers.close()?;
        let settings = format!("{processes} worker processes, start and stop of them included");
        return Ok(Figure { memory, ..Figure::rate(jobs, begun.elapsed(), settings) });
    }
    let working = manager.start()?;
    await_count(&counter, jobs, PATIENCE + setting.pause)?;
    working.stop();
    Ok(Figure::rate(jobs, begun.elapsed(), "start and stop of the worker included"))
}

/// Waits as long as jobs are being done.
fn await_count(counter: &Counter, jobs: u32, patience: Duration) -> Any<()> {
    let (mut seen, mut since) = (0, Instant::now());
    while counter.get() < jobs {
        thread::sleep(Duration::from_millis(1));
        if counter.get() != seen {
            (seen, since) = (counter.get(), Instant::now());
        }
        if since.elapsed() > patience {
            return Err(format!("no job was done for {} s", patience.as_secs()).into());
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
        manager.enqueue(job::<Reply>(setting, n))?.wait(PATIENCE)?;
        waits.push(begun.elapsed());
    }
    working.stop();
    let settings = "same process; replies go when the workers' keep_replies is over";
    Ok(Figure::without_rate(jobs, settings).quantiles(waits))
}

fn latency(setting: &Setting) -> Any<Figure> {
    clean_up(setting)?;
    let (manager, _) = manager(setting)?;
    let worker = Workers::start(setting, 1, Report::Starts)?;
    let jobs = setting.jobs(200);
    let measured = (0..jobs + jobs / 10).map(|n| {
        // Longer than any poll after activity, so that the worker is idle again.
        thread::sleep(Duration::from_millis(40 + u64::from(n * 7 % 20)));
        let begun = now();
        manager.enqueue(job::<Stamp>(setting, n))?;
        let (_, at) = worker.next()?;
        Ok(Duration::from_micros(at.saturating_sub(begun)))
    });
    let waits: Any<Vec<_>> = measured.collect();
    worker.close()?;
    let waits = waits?.split_off((jobs / 10) as usize);
    Ok(Figure::without_rate(jobs, "the worker is another process, idle").quantiles(waits))
}

/// Works off what the measurements left in the queue, and removes the numbers of its runs; returns how many jobs remain.
pub(super) fn clean_up(setting: &Setting) -> Result<u64, Error> {
    let (manager, _) = manager(setting)?;
    let left = work_off(&manager, setting)?;
    for on in manager.forget_stats(&setting.queue) {
        // An account may lack the right, and then it had none to write them.
        if let Err(error) = on.answer {
            log::debug!("database {:?}: the numbers of the bench stay: {error}", on.database);
        }
    }
    Ok(left)
}

fn work_off(manager: &Manager, setting: &Setting) -> Result<u64, Error> {
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
