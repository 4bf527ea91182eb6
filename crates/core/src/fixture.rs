//! What unit tests of several rooms begin with.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::time::Duration;

use qudo_hooks::{CodecSet, HookSet, JobId, PluginSet};

use crate::ability::AbilitySet;
use crate::client::Client;
use crate::database::set::Databases;
use crate::database::{Database, Settings};
use crate::driver::{
    AbilityLease, ClaimRequest, ClaimedJob, Deadline, Driver, Due, JobFacts, JobRecord, Name,
    WorkerInfo, WorkerSeen,
};
use crate::memory::MemoryDriver;
use crate::options::Options;
use crate::program::Program;
use crate::tools::threads::sleep;
use crate::tools::time::{Instant, utc_now};

/// Longer than any test waits.
pub(crate) const SOON: Duration = Duration::from_secs(20);

#[track_caller]
pub(crate) fn eventually(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < SOON, "not in time: {what}");
        sleep(Duration::from_millis(2));
    }
}

/// A worker process that has one ability, works one queue and is silent for this long; it promised [`SOON`].
pub(crate) fn seen(queue: &str, ability: &str, silent: Duration) -> WorkerSeen {
    let info = WorkerInfo {
        abilities: vec![ability.into()].into(),
        queues: vec![queue.into()].into(),
        ..WorkerInfo::new("host:1", SOON)
    };
    WorkerSeen { info, seen_at: utc_now(), silent }
}

pub(crate) fn memory() -> Arc<dyn Driver> {
    Arc::new(MemoryDriver::default())
}

pub(crate) fn settings(limit: Duration) -> Settings {
    Settings { retry: Duration::from_secs(30), limit, on_change: None, identities: Arc::default() }
}

pub(crate) fn database_with(
    name: &str,
    driver: Arc<dyn Driver>,
    settings: &Settings,
) -> Arc<Database> {
    Arc::new(Database::new(Arc::from(name), driver, settings.clone()))
}

pub(crate) fn database(name: &str, driver: Arc<dyn Driver>) -> Arc<Database> {
    database_with(name, driver, &settings(SOON))
}

/// Databases of these names in memory.
pub(crate) fn databases(names: &[&str]) -> Databases {
    let settings = settings(SOON);
    let all = names.iter().map(|name| database_with(name, memory(), &settings)).collect();
    Databases::new(all, None, settings)
}

pub(crate) fn program() -> Program {
    program_with(AbilitySet::default(), HookSet::default(), Options::default())
}

pub(crate) fn program_with(abilities: AbilitySet, hooks: HookSet, options: Options) -> Program {
    Program::new(options, abilities, hooks, PluginSet::default(), CodecSet::default(), None)
}

pub(crate) fn client(databases: Databases) -> Arc<Client> {
    Arc::new(Client::new(program(), databases, None))
}

pub(crate) fn record() -> JobRecord {
    JobRecord {
        id: JobId::new(),
        facts: JobFacts::new("mail", "default", "json", b"1".to_vec()),
        due: Due::Now,
    }
}

/// A job that holds this key while it lives.
pub(crate) fn keyed(key: &str) -> JobRecord {
    let mut record = record();
    record.facts.uniqkey = Some(key.to_owned());
    record
}

pub(crate) fn records(count: usize) -> Arc<Vec<JobRecord>> {
    Arc::new((0..count).map(|_| record()).collect())
}

pub(crate) fn worker() -> WorkerInfo {
    program().worker_info()
}

/// Claims what is ready, as this worker does.
pub(crate) fn claim(driver: &dyn Driver, worker: &WorkerInfo, number: i64) -> Vec<ClaimedJob> {
    driver.heartbeat(worker).expect("answers");
    let abilities = [AbilityLease { name: "mail".into(), grab_for: SOON }];
    let request = ClaimRequest {
        worker: worker.id,
        claim: number,
        queue: &Name::from("default"),
        abilities: &abilities,
        limit: 100,
        deadline: Deadline::NONE,
        thorough: true,
    };
    driver.claim(&request).expect("answers")
}

/// Wakes the thread that polls.
struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls until the answer is there.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park_timeout(Duration::from_secs(30));
    }
}
