//! What enqueues, and what waits for the ends of jobs.

pub(crate) mod awaiting;
pub(crate) mod batch;
pub(crate) mod cancelled;
pub(crate) mod draft;
pub(crate) mod enqueue;
pub(crate) mod enqueued;
pub(crate) mod forward;
mod hearing;
mod keeper;
pub(crate) mod known;
mod lookout;
mod pauses;
mod reader;
pub(crate) mod route;
pub(crate) mod saved;
mod several;
pub(crate) mod spool;
pub(crate) mod store;
pub(crate) mod ticket;
mod tracked;
pub(crate) mod update_stream;
pub(crate) mod updates;
pub(crate) mod waiters;

use std::sync::Arc;
use std::time::Duration;

use crate::database::set::Databases;
use crate::program::Program;
use crate::progress::ProgressBook;
use crate::tools::front::Front;
use crate::tools::time::Instant;
use hearing::Hearings;
use lookout::Lookouts;
use pauses::Pauses;
use spool::Spool;
use waiters::Waiters;

/// All that enqueues need; tickets and worker processes hold on to it.
pub(crate) struct Client {
    pub(crate) program: Program,
    pub(crate) databases: Databases,
    pub(crate) spool: Option<Arc<Spool>>,
    /// Woken whenever a session of this process settled something.
    pub(crate) waiters: Waiters,
    /// How far jobs are that run in this process.
    pub(crate) progress: ProgressBook,
    /// For ends in other processes.
    lookouts: Lookouts,
    /// The same, where databases tell of them.
    hearings: Hearings,
    /// For tasks that enqueue.
    pub(crate) front: Arc<Front>,
    /// For async bodies that send values: a job that sends many at once stands in nobody else's way.
    pub(crate) sends: Arc<Front>,
    /// For tasks that look how their jobs fare: apart, so that they stand in no enqueue's way.
    pub(crate) looks: Arc<Front>,
    pub(crate) pauses: Arc<Pauses>,
}

impl Client {
    pub(crate) fn new(program: Program, databases: Databases, spool: Option<Arc<Spool>>) -> Self {
        Self {
            program,
            databases,
            spool,
            waiters: Waiters::default(),
            progress: ProgressBook::default(),
            lookouts: Lookouts::default(),
            hearings: Hearings::default(),
            front: Arc::default(),
            sends: Arc::default(),
            looks: Arc::default(),
            pauses: Arc::default(),
        }
    }
}

/// What is not said by then, of all databases together, is not said.
const LAST_WORD: Duration = Duration::from_secs(1);

impl Drop for Client {
    /// A thread that listens holds its database for a moment longer, and with it the notifications that are not sent yet: a program that ends
    /// now would take them along.
    fn drop(&mut self) {
        if !self.hearings.is_empty() {
            let until = Instant::now() + LAST_WORD;
            for database in self.databases.all().iter() {
                database.driver().say_last(until.saturating_duration_since(Instant::now()));
            }
        }
    }
}
