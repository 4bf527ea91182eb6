//! What a run tells while it runs, stored at once.

use std::sync::Arc;
use std::time::Duration;

use qudo_hooks::JobId;

use super::Database;
use crate::driver::{DriverError, LeaseKey, Sending, SentRecord};
use crate::error::Error;
use crate::job::Store;
use crate::tools::random::jitter;
use crate::tools::threads::sleep;

/// Before a call that was not answered is repeated.
const PAUSE: Duration = Duration::from_millis(100);

/// The database of a job at work.
pub(crate) struct JobStore(pub(crate) Arc<Database>);

impl JobStore {
    fn failed(&self, error: DriverError) -> Error {
        Error::database(&self.0.name, "store what a job sends", error)
    }
}

impl Store for JobStore {
    fn send(&self, lease: LeaseKey, sent: &Arc<SentRecord>) -> Result<Sending, Error> {
        let ask = || {
            let sent = Arc::clone(sent);
            self.0.ask(move |driver| driver.send(&lease, &sent))
        };
        match ask() {
            // It may be stored; under its number it is stored once.
            Err(error) if error.is_ambiguous() || error.is_down() => {
                sleep(jitter(PAUSE));
                ask()
            }
            answer => answer,
        }
        .map_err(|error| self.failed(error))
    }

    fn last_sent(&self, job: JobId) -> Result<Option<i32>, Error> {
        let news = self.0.ask(move |driver| driver.news(&[job]));
        let news = news.map_err(|error| self.failed(error))?;
        Ok(news
            .into_iter()
            .find(|one| one.job == job)
            .and_then(|one| one.sent)
            .map(|last| last.number))
    }
}
