//! Jobs that may be stored in two databases after an answer was lost.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use qudo_hooks::JobId;

use super::bell::lock;
use super::database::Database;

/// So many jobs whose insert had an unknown end are looked after when the database is back.
const MOST_DOUBTFUL: usize = 1_000;

/// A job that is not here yet may still come, when the statement goes on that nobody waits for: it
/// is looked for again with the late answer, or whenever else there is reason, for so long.
const MAY_COME: Duration = Duration::from_secs(60);

/// Jobs of a database that may be stored here.
pub(super) type Doubtful = Mutex<Vec<Doubt>>;

pub(super) struct Doubt {
    id: JobId,
    /// Where it surely is or was.
    there: Arc<Database>,
    /// When it was first looked for here and not found.
    missed: Option<Instant>,
}

impl Database {
    /// Remembers jobs that are stored there now and may be stored here too.
    pub(super) fn note_doubtful(
        self: &Arc<Self>,
        jobs: impl IntoIterator<Item = JobId>,
        there: &Arc<Database>,
    ) {
        let mut doubtful = lock(&self.doubtful);
        let room = MOST_DOUBTFUL.saturating_sub(doubtful.len());
        let doubt = |id| Doubt { id, there: Arc::clone(there), missed: None };
        doubtful.extend(jobs.into_iter().take(room).map(doubt));
        drop(doubtful);
        // One that hangs is asked when it is back.
        if self.is_trusted() {
            self.resolve_doubtful_soon();
        }
    }

    /// Removes waiting jobs that must not run here, because they are or were where they went
    /// instead. What cannot be decided for sure is left: a job that runs twice is better than none.
    pub(super) fn resolve_doubtful(self: &Arc<Self>) {
        let deadline = Instant::now() + self.limit();
        let mut kept = Vec::new();
        for doubt in std::mem::take(&mut *lock(&self.doubtful)) {
            let Doubt { id, there, missed } = &doubt;
            let (id, missed) = (*id, missed.unwrap_or_else(Instant::now));
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
                Ok(false) | Err(_) if missed.elapsed() < MAY_COME => {
                    kept.push(Doubt { missed: Some(missed), ..doubt });
                }
                Ok(false) => {}
                Err(error) => log::warn!("job {id} may be stored twice: {error}"),
            }
        }
        lock(&self.doubtful).append(&mut kept);
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
