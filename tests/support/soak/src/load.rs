use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use qudo::history::Recorder;
use qudo::{Enqueued, Error, Manager, NewJob, UniqPolicy};

use crate::{Effort, Result, World, effort};

/// Clients that enqueue without a pause.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    manager: Manager,
    recorder: Arc<Recorder>,
    phase: Mutex<(Phase, BTreeMap<Phase, Tally>)>,
    stop: AtomicBool,
    accepted: AtomicU64,
    pause: Duration,
}

/// When an enqueue happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Before any fault.
    Before,
    /// While there is a fault.
    During,
    /// When all is well again.
    After,
}

/// What enqueues of one phase met.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    took: Vec<Duration>,
    /// Unique keys whose home was away.
    pub refused: usize,
    /// Answers that were lost.
    pub uncertain: usize,
    /// Enqueues that found no database at all, though they were free to choose.
    pub failed: Vec<String>,
}

impl Tally {
    /// How many enqueues were answered.
    pub fn count(&self) -> usize {
        self.took.len()
    }

    /// The time within which this share of them was answered.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        let at = (took.len() as f64 * share) as usize;
        took.get(at.min(took.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} enqueues, p50 {:.1?}, p99 {:.1?}, longest {:.1?}, {} keys refused, {} uncertain, \
             {} failed",
            self.count(),
            self.quantile(0.5),
            self.quantile(0.99),
            self.quantile(1.0),
            self.refused,
            self.uncertain,
            self.failed.len()
        )
    }
}

/// A manager that only enqueues, and records.
///
/// # Errors
///
/// When the file of its history cannot be made.
pub fn client(world: &World, name: &str) -> Result<(Manager, Arc<Recorder>)> {
    let recorder = Arc::new(Recorder::create(world.history().join(format!("{name}.jsonl")))?);
    let manager = world.builder().observer(Arc::clone(&recorder)).build()?;
    Ok((manager, recorder))
}

impl Load {
    /// Starts so many client threads, each with this pause between two enqueues.
    ///
    /// # Errors
    ///
    /// As [`client`].
    pub fn start(world: &World, threads: usize, pause: Duration) -> Result<Self> {
        let (manager, recorder) = client(world, "load")?;
        let shared = Arc::new(Shared {
            manager,
            recorder,
            phase: Mutex::new((Phase::Before, BTreeMap::new())),
            stop: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            pause,
        });
        let threads = (0..threads)
            .map(|_| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || enqueue_until_stopped(&shared))
            })
            .collect();
        Ok(Self { shared, threads })
    }

    /// The clients' manager.
    pub fn manager(&self) -> &Manager {
        &self.shared.manager
    }

    /// Says which phase begins.
    pub fn phase(&self, phase: Phase) {
        self.shared.phase.lock().unwrap_or_else(PoisonError::into_inner).0 = phase;
    }

    /// How many enqueues were answered so far.
    pub fn count(&self) -> usize {
        let phases = self.shared.phase.lock().unwrap_or_else(PoisonError::into_inner);
        phases.1.values().map(Tally::count).sum()
    }

    /// How many jobs were stored so far; one enqueue may bring many, or none if its key is held.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Ends the load and tells what it met.
    ///
    /// # Errors
    ///
    /// When a client panicked.
    pub fn stop(self) -> Result<(Manager, BTreeMap<Phase, Tally>)> {
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads {
            thread.join().map_err(|_| "a client panicked")?;
        }
        let phases = self.shared.phase.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
        Ok((self.shared.manager.clone(), phases))
    }
}

fn any_job(n: u64) -> NewJob<u32> {
    let fails = u32::from(n.is_multiple_of(11));
    let job = effort::job(Effort {
        millis: if n.is_multiple_of(50) { 100 } else { 0 },
        fails,
        panics: n.is_multiple_of(22),
    });
    let job = job.priority(fastrand::i32(0..3));
    match n % 10 {
        0 | 1 => job.uniqkey(fastrand::u32(0..200).to_string()),
        2 => {
            let key = format!("a{}", fastrand::u32(0..50));
            job.uniqkey(key).uniq_policy(UniqPolicy::Available)
        }
        3 => job.delay(Duration::from_millis(fastrand::u64(1..400))),
        _ => job,
    }
}

fn enqueue_until_stopped(shared: &Shared) {
    let mut n = fastrand::u64(0..1_000_000);
    while !shared.stop.load(Ordering::Acquire) {
        n += 1;
        let begun = Instant::now();
        let is_new = |one: &Enqueued<u32>| matches!(one, Enqueued::New(_));
        let answer = if n.is_multiple_of(20) {
            let jobs =
                (0..20).map(|more| any_job(n * 20 + more).uniq_policy(UniqPolicy::Available));
            shared.manager.enqueue_many(jobs)
        } else {
            shared.manager.enqueue(any_job(n)).map(|one| vec![one])
        };
        if let Ok(answers) = &answer {
            let new = answers.iter().filter(|one| is_new(one)).count();
            shared.accepted.fetch_add(new as u64, Ordering::Relaxed);
        }
        note(shared, begun.elapsed(), &answer);
        if let Ok(answers) = &answer
            && let [Enqueued::New(ticket)] = &answers[..]
            && n % 100 == 7
            && let Ok(attempt) = ticket.wait(Duration::from_secs(3))
        {
            shared.recorder.replied(ticket.id(), attempt as i32);
        }
        std::thread::sleep(shared.pause);
    }
}

fn note(shared: &Shared, took: Duration, answer: &Result<Vec<Enqueued<u32>>, Error>) {
    let mut phases = shared.phase.lock().unwrap_or_else(PoisonError::into_inner);
    let phase = phases.0;
    let tally = phases.1.entry(phase).or_default();
    match answer {
        Ok(_) => tally.took.push(took),
        Err(Error::Uncertain { .. }) => tally.uncertain += 1,
        // One candidate only: the home of a key.
        Err(Error::AllDatabasesDown(reasons)) if reasons.len() < 3 => tally.refused += 1,
        Err(Error::PartlyEnqueued { source, .. }) if !source.is_down() => tally.uncertain += 1,
        Err(error) => tally.failed.push(error.to_string()),
    }
}
