//! What enqueues, and what waits for the ends of jobs.

pub(crate) mod batch;
pub(crate) mod cancelled;
pub(crate) mod draft;
pub(crate) mod enqueue;
pub(crate) mod enqueued;
pub(crate) mod forward;
pub(crate) mod known;
mod lookout;
pub(crate) mod route;
pub(crate) mod spool;
pub(crate) mod store;
pub(crate) mod ticket;
mod tracked;
pub(crate) mod waiters;

use std::sync::Arc;

use crate::database::set::Databases;
use crate::program::Program;
use lookout::Lookouts;
use spool::Spool;
use waiters::Waiters;

/// All that enqueues need; tickets and worker processes hold on to it.
pub(crate) struct Client {
    pub(crate) program: Program,
    pub(crate) databases: Databases,
    pub(crate) spool: Option<Arc<Spool>>,
    /// Woken whenever a session of this process settled something.
    pub(crate) waiters: Waiters,
    /// For ends in other processes.
    lookouts: Lookouts,
}

impl Client {
    pub(crate) fn new(program: Program, databases: Databases, spool: Option<Arc<Spool>>) -> Self {
        Self {
            program,
            databases,
            spool,
            waiters: Waiters::default(),
            lookouts: Lookouts::default(),
        }
    }
}
