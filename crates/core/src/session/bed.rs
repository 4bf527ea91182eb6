//! A session for tests: one thread, one database, jobs that run until they may end.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use qudo_hooks::{CodecSet, HookSet, JobId, PluginSet, SourceLocation};

use super::Session;
use super::start::{add_lane, start_workers};
use crate::ability::{Ability, AbilitySet};
use crate::client::Client;
use crate::database::Database;
use crate::database::set::Databases;
use crate::driver::{Deadline, Driver, JobRecord};
use crate::error::Error;
use crate::fixture::{SOON, database, memory, program_with, records, settings};
use crate::job::{Host, Job};
use crate::new_job::NewJob;
use crate::options::Options;
use crate::progress::ProgressCell;
use crate::tools::bell::Bell;
use crate::tools::front::Front;

struct Mail;

impl Ability for Mail {
    const NAME: &'static str = "mail";
    type Arg = u32;
    type Reply = ();

    fn work(job: &Job, _: u32) -> crate::job_error::JobResult<()> {
        let pace = job.plugin::<Arc<Pace>>()?;
        pace.begun.fetch_add(1, Ordering::SeqCst);
        if pace.at_once.load(Ordering::SeqCst) {
            return Ok(());
        }
        while !pace.may_end.wait(Duration::from_millis(1)) {}
        pace.may_end.ring();
        Ok(())
    }
}

/// Jobs run until they may end.
#[derive(Default)]
pub(super) struct Pace {
    pub(super) begun: AtomicU32,
    pub(super) may_end: Bell,
    /// They do not wait.
    pub(super) at_once: AtomicBool,
}

struct Home(CodecSet, PluginSet);

impl Host for Home {
    fn codecs(&self) -> &CodecSet {
        &self.0
    }

    fn plugins(&self) -> &PluginSet {
        &self.1
    }

    fn prepare(&self, _: NewJob) -> Result<Option<JobRecord>, Error> {
        Ok(None)
    }

    fn tell_replacements(&self, _: &[JobRecord], _: &[JobId], _: &str) {}

    fn register_progress(&self, _: &Arc<ProgressCell>) {}

    fn note_news(&self, _: JobId) {}

    fn front(&self) -> Arc<Front> {
        Arc::default()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

pub(super) struct Bed {
    pub(super) session: Arc<Session>,
    pub(super) database: Arc<Database>,
    pub(super) pace: Arc<Pace>,
}

impl Bed {
    /// One thread, and this long for a stop.
    pub(super) fn with(shutdown_timeout: Duration) -> Self {
        Self::over(memory(), shutdown_timeout)
    }

    /// The same over this driver.
    pub(super) fn over(driver: Arc<dyn Driver>, shutdown_timeout: Duration) -> Self {
        Self::with_threads(1, driver, shutdown_timeout)
    }

    /// The same with so many threads.
    pub(super) fn with_threads(
        workers: usize,
        driver: Arc<dyn Driver>,
        shutdown_timeout: Duration,
    ) -> Self {
        let mut abilities = AbilitySet::default();
        abilities.insert::<Mail>(SourceLocation::new("here", 1)).expect("is new");
        let delay = Duration::from_millis(20);
        let options = Options { delay, workers, shutdown_timeout, ..Options::default() };
        let program = program_with(abilities, HookSet::default(), options);
        let database = database("one", driver);
        let set = Databases::new(vec![Arc::clone(&database)], None, settings(SOON));
        let client = Arc::new(Client::new(program, set, None));
        let (pace, mut plugins) = (Arc::new(Pace::default()), PluginSet::default());
        plugins.insert(Arc::clone(&pace)).expect("is new");
        let host = Arc::new(Home(CodecSet::default(), plugins));
        let session = Arc::new(Session::new(&client, host));
        add_lane(&session, &database).expect("starts");
        start_workers(&session).expect("starts");
        Self { session, database, pace }
    }

    pub(super) fn insert(&self, count: usize) {
        let driver = self.database.driver();
        driver.insert(&records(count), Deadline::NONE).expect("stored");
        self.database.bell.ring();
    }

    pub(super) fn begun(&self, count: u32) {
        eventually(|| self.pace.begun.load(Ordering::SeqCst) >= count);
    }

    /// Those that wait, those that run, and the workers that are known.
    pub(super) fn left(&self) -> (u64, u64, usize) {
        let driver = self.database.driver();
        let depth = driver.depth(100).expect("answers");
        let workers = driver.workers().expect("answers").len();
        (depth.ready.count, depth.running.count, workers)
    }
}

#[track_caller]
pub(super) fn eventually(done: impl Fn() -> bool) {
    crate::fixture::eventually("what the session is to come to", done);
}
