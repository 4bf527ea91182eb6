//! Jobs that may be stored in two databases after an answer was lost.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use qudo_hooks::JobId;

use super::bell::lock;
use super::database::Database;

/// So many jobs whose insert had an unknown end are looked after when the database is back.
const MOST_DOUBTFUL: usize = 1_000;

/// Jobs of a database that may be stored here, with the database where they surely are or were.
pub(super) type Doubtful = Mutex<Vec<(JobId, Arc<Database>)>>;

impl Database {
    /// Remembers jobs that are stored there now and may be stored here too.
    pub(super) fn note_doubtful(
        self: &Arc<Self>,
        jobs: impl IntoIterator<Item = JobId>,
        there: &Arc<Database>,
    ) {
        let mut doubtful = lock(&self.doubtful);
        let room = MOST_DOUBTFUL.saturating_sub(doubtful.len());
        doubtful.extend(jobs.into_iter().take(room).map(|job| (job, Arc::clone(there))));
        drop(doubtful);
        // One that hangs is asked when it is back.
        if self.is_up() && !self.is_slow() {
            self.resolve_doubtful_soon();
        }
    }

    /// Removes waiting jobs that must not run here, because they are or were where they went
    /// instead. What cannot be decided for sure is left: a job that runs twice is better than none.
    pub(super) fn resolve_doubtful(self: &Arc<Self>) {
        let deadline = Instant::now() + self.limit();
        for (id, there) in std::mem::take(&mut *lock(&self.doubtful)) {
            if Instant::now() > deadline {
                log::warn!("database {:?}: job {id} may be stored twice", &*self.name);
                continue;
            }
            // A job that was moved on may be the one that is here.
            let stayed = there.ask(move |driver| Ok(driver.moved_to(id)?.is_none()));
            if !stayed.unwrap_or(false) {
                continue;
            }
            match self.ask(move |driver| driver.dequeue(id)) {
                Ok(true) => log::info!("job {id} was stored twice; the waiting one is removed"),
                Ok(false) => {}
                Err(error) => log::warn!("job {id} may be stored twice: {error}"),
            }
        }
    }

    /// The same on a thread of its own, for callers that have no time.
    pub(super) fn resolve_doubtful_soon(self: &Arc<Self>) {
        if lock(&self.doubtful).is_empty() {
            return;
        }
        let database = Arc::clone(self);
        let started = std::thread::Builder::new()
            .name("qudo-resolve".to_owned())
            .spawn(move || database.resolve_doubtful());
        if let Err(error) = started {
            log::error!("cannot start a thread to look after doubtful jobs: {error}");
        }
    }
}
