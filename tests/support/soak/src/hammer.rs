//! A hammer for short claims: many clients that insert one job at a time, many workers that claim a
//! few. What lies between a lock and the next view of the data is met thousands of times a second.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use qudo::admin::AuditOptions;
use qudo::admin::{JobFilter, Paging};
use qudo::driver::{
    AbilityLease, ClaimRequest, ClaimedJob, Deadline, Driver, DriverRegistration, Due, Extras,
    JobFacts, JobRecord, Name, ReplyRecord, Settled, Settlement, Verdict, WorkerId, WorkerInfo,
};
use qudo::{JobId, Manager};

use crate::Result;

const QUEUE: &str = "hammer";

/// How long no worker may find anything, and none be held up, before what is not done counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// A worker whose claim or settlement takes longer is held up, and may hold jobs.
const HELD_UP: Duration = Duration::from_millis(500);

/// How often an idle worker looks for jobs that became due.
const PROMOTE_EVERY: Duration = Duration::from_millis(20);

/// Clients wait while so many jobs are not done yet: the race is about rows that were committed a moment
/// ago, and with a backlog nobody claims those.
const BACKLOG: u64 = 60;

/// So many lost or doubled jobs are named.
const NAMED: usize = 20;

/// What a hammer is told.
#[derive(Debug, Clone, Args)]
pub struct Hammer {
    /// The database; several times for several ways to the same one, such as the nodes of a cluster.
    /// Its tables are made if they are not there.
    #[arg(long = "database", required = true)]
    pub databases: Vec<String>,
    /// Jobs to be inserted, claimed and settled.
    #[arg(long, default_value_t = 100_000)]
    pub jobs: u64,
    /// Clients, each on a connection of its own.
    #[arg(long, default_value_t = 6)]
    pub clients: usize,
    /// Workers, each on a connection of its own.
    #[arg(long, default_value_t = 3)]
    pub workers: usize,
    /// The largest claim.
    #[arg(long, default_value_t = 20)]
    pub claim: u32,
}

/// What became of all jobs.
#[derive(Debug)]
pub struct Outcome {
    /// Jobs inserted.
    pub inserted: u64,
    /// How long it took.
    pub took: Duration,
    /// Jobs that were accepted and never came to an end, with what their database has of them.
    pub lost: Vec<String>,
    /// How many these are.
    pub lost_count: usize,
    /// Jobs that came to an end more than once.
    pub doubled: Vec<JobId>,
    /// Errors that reached a client or a worker.
    pub errors: Vec<String>,
    /// What the audit says.
    pub audit: String,
    /// Whether the audit was clean.
    pub clean: bool,
}

impl Outcome {
    /// Whether each job was done once, and nobody met an error.
    pub fn is_good(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.errors.is_empty() && self.clean
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rate = self.inserted as f64 / self.took.as_secs_f64();
        writeln!(
            f,
            "{} jobs in {:.0} s ({rate:.0}/s), {} lost, {} doubled, {} errors",
            self.inserted,
            self.took.as_secs_f64(),
            self.lost_count,
            self.doubled.len(),
            self.errors.len()
        )?;
        self.lost.iter().try_for_each(|one| writeln!(f, "  lost: {one}"))?;
        self.doubled.iter().take(NAMED).try_for_each(|id| writeln!(f, "  doubled: {id}"))?;
        self.errors.iter().take(NAMED).try_for_each(|error| writeln!(f, "  error: {error}"))?;
        write!(f, "audit: {}", self.audit)
    }
}

/// The number of a job is part of its id, so that a byte per job is all that has to be remembered.
fn id_of(number: u64) -> JobId {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut rest = [0; 10];
    rest[2..].copy_from_slice(&number.to_be_bytes());
    rest[0] = fastrand::u8(..);
    rest[1] = fastrand::u8(..);
    let millis = now.as_millis() as u64;
    JobId::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &rest).into_uuid())
}

fn number_of(id: JobId) -> usize {
    let mut number = [0; 8];
    number[1..].copy_from_slice(&id.as_uuid().as_bytes()[9..]);
    u64::from_be_bytes(number) as usize
}

/// No time at all.
const IDLE: u64 = u64::MAX;

const ACCEPTED: u8 = 1;
const DONE: u8 = 2;

struct Shared {
    options: Hammer,
    next: AtomicU64,
    jobs: Vec<AtomicU8>,
    done: AtomicUsize,
    clients: AtomicUsize,
    /// Since when each worker claims or settles, in milliseconds after the beginning; `IDLE` while it
    /// does neither.
    busy: Vec<AtomicU64>,
    begun: Instant,
    /// When a worker last found something, in milliseconds after the beginning.
    found: AtomicU64,
    over: AtomicBool,
    doubled: Mutex<Vec<JobId>>,
    errors: Mutex<Vec<String>>,
}

impl Shared {
    fn found_something(&self) {
        self.found.fetch_max(self.begun.elapsed().as_millis() as u64, Ordering::AcqRel);
    }

    /// Whether nobody found anything for so long that nothing will come any more: no worker is held up,
    /// and the clients have ended or wait for us.
    fn has_run_dry(&self) -> bool {
        let now = self.begun.elapsed();
        let since = |at: u64| now.saturating_sub(Duration::from_millis(at));
        let busy = self.busy.iter().map(|one| one.load(Ordering::Acquire));
        let held_up = busy.filter(|at| *at != IDLE).any(|at| since(at) > HELD_UP);
        let clients_wait = self.clients.load(Ordering::Acquire) == 0
            || self.next.load(Ordering::Acquire)
                > self.done.load(Ordering::Acquire) as u64 + BACKLOG;
        !held_up && clients_wait && since(self.found.load(Ordering::Acquire)) > PATIENCE
    }

    fn is_done(&self) -> bool {
        self.clients.load(Ordering::Acquire) == 0
            && self.done.load(Ordering::Acquire) as u64 >= self.options.jobs
    }

    /// Counts a job that came to an end.
    fn ended(&self, id: JobId) {
        let before = self.jobs[number_of(id)].fetch_or(DONE, Ordering::Relaxed);
        if before & DONE == 0 {
            self.done.fetch_add(1, Ordering::AcqRel);
        } else {
            self.doubled.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        }
    }

    fn note(&self, error: String) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors.push(error);
    }
}

/// Hammers a database until every job is done, or nothing is left to be found.
///
/// # Errors
///
/// When the database cannot be reached at the beginning.
pub fn hammer(options: &Hammer) -> Result<Outcome> {
    let manager =
        Manager::builder().linked(false).database_as("it", &options.databases[0]).build()?;
    manager.migrate()?;
    let shared = Arc::new(Shared {
        options: options.clone(),
        next: AtomicU64::new(0),
        jobs: (0..options.jobs).map(|_| AtomicU8::new(0)).collect(),
        done: AtomicUsize::new(0),
        clients: AtomicUsize::new(options.clients),
        busy: (0..options.workers).map(|_| AtomicU64::new(IDLE)).collect(),
        begun: Instant::now(),
        found: AtomicU64::new(0),
        over: AtomicBool::new(false),
        doubled: Mutex::default(),
        errors: Mutex::default(),
    });
    let begun = shared.begun;
    let open = |nth: usize| -> Result<Arc<dyn Driver>> {
        let dsn = &options.databases[nth % options.databases.len()];
        Ok(DriverRegistration::open_linked(dsn)?.driver)
    };
    let mut threads = Vec::new();
    for nth in 0..options.clients {
        let (shared, driver) = (Arc::clone(&shared), open(nth)?);
        threads.push(std::thread::spawn(move || insert(&shared, &*driver)));
    }
    for nth in 0..options.workers {
        let (shared, driver) = (Arc::clone(&shared), open(nth)?);
        threads.push(std::thread::spawn(move || work(&shared, nth, &*driver)));
    }
    let mut told = Instant::now();
    while threads.iter().any(|thread| !thread.is_finished()) {
        std::thread::sleep(Duration::from_millis(20));
        if told.elapsed() > Duration::from_secs(30) {
            told = Instant::now();
            let inserted = shared.next.load(Ordering::Relaxed).min(options.jobs);
            println!(
                "{:>6.0} s  {inserted} inserted, {} done",
                begun.elapsed().as_secs_f64(),
                shared.done.load(Ordering::Relaxed)
            );
        }
    }
    for thread in threads {
        thread.join().map_err(|_| "a thread of the hammer panicked")?;
    }
    Ok(judge(&shared, &manager, begun.elapsed()))
}

fn judge(shared: &Shared, manager: &Manager, took: Duration) -> Outcome {
    let states = shared.jobs.iter().map(|state| state.load(Ordering::Relaxed)).enumerate();
    let lost: Vec<_> =
        states.filter(|(_, state)| *state == ACCEPTED).map(|(number, _)| number).collect();
    let doubled =
        std::mem::take(&mut *shared.doubled.lock().unwrap_or_else(PoisonError::into_inner));
    let lost_count = lost.len();
    // Where there are facts, they tell which ids these are.
    let listing = manager.jobs(&JobFilter::all(), &Paging::default().limit(10_000));
    let left: Vec<_> = listing.rows().map(|(_, job)| job).collect();
    let story = |number: usize| match left.iter().find(|job| number_of(job.id) == number) {
        Some(job) => format!("number {number}, job {}, facts are there, {:?}", job.id, job.state),
        None => format!("number {number}, without a trace"),
    };
    let lost = lost.into_iter().take(NAMED).map(story).collect();
    let audit = manager.audit(AuditOptions::default());
    let errors = std::mem::take(&mut *shared.errors.lock().unwrap_or_else(PoisonError::into_inner));
    Outcome {
        inserted: shared.options.jobs,
        took,
        lost,
        lost_count,
        doubled,
        errors,
        clean: audit.is_clean() && audit.jobs == 0,
        audit: audit.to_string(),
    }
}

/// Inserts one job after the other; now and then one with a key, or one that waits.
fn insert(shared: &Shared, driver: &dyn Driver) {
    loop {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if number >= shared.options.jobs {
            break;
        }
        while number > shared.done.load(Ordering::Relaxed) as u64 + BACKLOG
            && !shared.over.load(Ordering::Relaxed)
        {
            std::thread::sleep(Duration::from_micros(200));
        }
        let record = JobRecord {
            id: id_of(number),
            facts: JobFacts {
                uniqkey: number.is_multiple_of(64).then(|| format!("key {number}")),
                priority: (number % 3) as i32,
                ..JobFacts::new("hammered", QUEUE, "json", number.to_string().into_bytes())
            },
            due: match number % 100 {
                0 => Due::In(Duration::from_millis(number / 100 % 50)),
                _ => Due::Now,
            },
        };
        // One that is never accepted is not lost, but told as an error.
        if store(shared, driver, &record) {
            shared.jobs[number as usize].fetch_or(ACCEPTED, Ordering::Relaxed);
        } else {
            shared.done.fetch_add(1, Ordering::AcqRel);
        }
    }
    shared.clients.fetch_sub(1, Ordering::AcqRel);
}

/// Inserts a job, again with the same id after an error: what was stored already stays. Tells whether it
/// was accepted.
fn store(shared: &Shared, driver: &dyn Driver, record: &JobRecord) -> bool {
    for tries in 0..20 {
        let within = Deadline::within(Duration::from_secs(10));
        let Err(error) = driver.insert(std::slice::from_ref(record), within) else { return true };
        if !error.is_down() || tries == 19 {
            shared.note(format!("an insert: {error}"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    false
}

/// Claims a few and ends them: most complete, some are tried again, given back, or reply.
fn work(shared: &Shared, nth: usize, driver: &dyn Driver) {
    let worker = WorkerInfo::new("hammer", Duration::from_secs(3_600));
    if let Err(error) = driver.heartbeat(&worker) {
        shared.note(format!("a heartbeat: {error}"));
    }
    let queue = Name::from(QUEUE);
    let grab_for = Duration::from_secs(3_600);
    let abilities = [AbilityLease { name: "hammered".into(), grab_for }];
    let mut promoted = Instant::now();
    let mut claim = 0;
    while !shared.over.load(Ordering::Relaxed) {
        claim += 1;
        shared.busy[nth].store(shared.begun.elapsed().as_millis() as u64, Ordering::Release);
        let request = ClaimRequest {
            worker: worker.id,
            claim,
            queue: &queue,
            abilities: &abilities,
            limit: fastrand::u32(1..=shared.options.claim),
            deadline: Deadline::within(Duration::from_secs(10)),
            thorough: false,
        };
        let claimed = driver.claim(&request).unwrap_or_else(|error| {
            shared.note(format!("a claim: {error}"));
            let released = driver.release_claim(worker.id, claim);
            released.map_or_else(|error| shared.note(format!("a release: {error}")), |_| ());
            Vec::new()
        });
        let found = !claimed.is_empty();
        if found {
            shared.found_something();
            settle(shared, driver, worker.id, claimed);
            shared.found_something();
        } else if promoted.elapsed() > PROMOTE_EVERY {
            promoted = Instant::now();
            if let Err(error) = driver.promote_due(1_000) {
                shared.note(format!("a promotion: {error}"));
            }
        }
        shared.busy[nth].store(IDLE, Ordering::Release);
        if !found {
            if shared.is_done() || shared.has_run_dry() {
                shared.over.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    if let Err(error) = driver.remove_worker(worker.id) {
        shared.note(format!("the end of a worker: {error}"));
    }
}

fn settle(shared: &Shared, driver: &dyn Driver, worker: WorkerId, claimed: Vec<ClaimedJob>) {
    let settlements: Vec<_> = claimed.into_iter().map(end).collect();
    let mut tries = 0;
    let answers = loop {
        match driver.settle(worker, &settlements) {
            Ok(answers) => break answers,
            Err(error) if tries < 20 => {
                tries += 1;
                if !error.is_down() {
                    shared.note(format!("a settle: {error}"));
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(error) => return shared.note(format!("a settle, for good: {error}")),
        }
    };
    for (one, answer) in settlements.iter().zip(answers) {
        let id = one.job.id;
        match answer {
            Settled::Done | Settled::DoneWithout(_) if one.verdict == Verdict::Complete => {
                shared.ended(id);
            }
            Settled::Done | Settled::DoneWithout(_) => {}
            // After a lost answer our own first try may have ended it: then nothing is left of it.
            Settled::LeaseLost if tries > 0 => {
                if one.verdict == Verdict::Complete && matches!(driver.state(id), Ok(None)) {
                    shared.ended(id);
                }
            }
            Settled::LeaseLost => shared.note(format!(
                "the lease of job {id} was lost: claim {}, attempt {}, {:?}",
                one.job.claim,
                one.job.attempt,
                driver.state(id)
            )),
        }
    }
}

fn end(job: ClaimedJob) -> Settlement {
    let (verdict, replies) = match (job.attempt, fastrand::u32(0..64)) {
        (1, 0) => (Verdict::Retry(Duration::ZERO), Vec::new()),
        (1, 1) => (Verdict::Retry(Duration::from_millis(5)), Vec::new()),
        (_, 2) => (Verdict::GiveBack, Vec::new()),
        (_, 3) => {
            let reply = ReplyRecord { codec: "json".into(), body: b"1".to_vec() };
            (Verdict::Complete, vec![reply])
        }
        _ => (Verdict::Complete, Vec::new()),
    };
    let extras = (!replies.is_empty()).then(|| Box::new(Extras { replies, ..Extras::default() }));
    Settlement { job: Box::new(job), verdict, extras }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_job_is_read_from_its_id() {
        for number in [0, 1, 255, 256, 4_999_999, (1 << 40) + 7] {
            let id = id_of(number);
            assert_eq!(number_of(id), number as usize);
            assert_eq!(id.as_uuid().get_version(), Some(uuid::Version::SortRand));
        }
        assert_ne!(id_of(1), id_of(2));
    }
}
