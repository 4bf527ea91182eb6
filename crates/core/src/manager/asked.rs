//! Questions whose length depends on what is stored: listings, counts, moves.

use crate::tools::time::Instant;
use std::sync::Arc;
use std::time::Duration;

use super::calls::{Call, Calls};
use super::database::Database;
use crate::driver::DriverError;
use crate::{Driver, Error};

/// Listings may take so many times the limit of a call.
pub(super) const LISTING: u32 = 6;

/// A question that a database was asked.
pub(crate) struct Asked<T> {
    database: Arc<Database>,
    action: &'static str,
    call: Result<Call<T>, String>,
    epoch: u64,
    begun: Instant,
}

impl<T> Asked<T> {
    /// The answer, within the limit of a listing from the beginning.
    pub(crate) fn wait(self) -> Result<T, Error> {
        let limit = self.database.limit().saturating_mul(LISTING);
        let left = limit.saturating_sub(self.begun.elapsed());
        self.end(left, limit)
    }

    /// The answer within this time from now; a short one says nothing of the database.
    pub(crate) fn wait_at_most(self, limit: Duration) -> Result<T, Error> {
        self.wait_for(limit)
    }

    /// Leaves a question that was not answered within the limit of a listing: the database is suspected.
    pub(crate) fn wait_in_vain(self) -> Result<T, Error> {
        self.end(Duration::ZERO, Duration::MAX)
    }

    /// The answer, however long it takes.
    pub(crate) fn wait_for_ever(self) -> Result<T, Error> {
        self.wait_for(Duration::MAX)
    }

    /// Leaves without the answer.
    pub(crate) fn abandon(self) {
        if let Ok(call) = self.call {
            call.abandon();
        }
    }

    fn wait_for(self, limit: Duration) -> Result<T, Error> {
        self.end(limit, limit)
    }

    /// Waits for `left`, at the end of a wait of `waited` in all.
    fn end(self, left: Duration, waited: Duration) -> Result<T, Error> {
        let name = &self.database.name;
        let call = self
            .call
            .map_err(|reason| Error::DatabaseDown { database: name.to_string(), reason })?;
        call.wait(left).map_err(|error| {
            // Who waited for less than a call may take has no reason for suspicion.
            if !error.is_hung() || waited >= self.database.limit() {
                self.database.note_error(&error, self.epoch);
            }
            Error::database(name, self.action, error)
        })
    }
}

impl Database {
    /// Begins a question whose length depends on what is stored, unless the database is known to
    /// be down: a listing, a count.
    pub(crate) fn begin<T: Send + 'static>(
        self: &Arc<Self>,
        action: &'static str,
        ask: impl FnOnce(&dyn Driver) -> Result<T, DriverError> + Send + 'static,
    ) -> Asked<T> {
        self.begin_in(&self.listings, action, ask)
    }

    /// The same for somebody who waits for a job's end. There may be many, and nobody else is to stand in
    /// their line.
    pub(crate) fn begin_ticket<T: Send + 'static>(
        self: &Arc<Self>,
        action: &'static str,
        ask: impl FnOnce(&dyn Driver) -> Result<T, DriverError> + Send + 'static,
    ) -> Asked<T> {
        self.begin_in(&self.tickets, action, ask)
    }

    fn begin_in<T: Send + 'static>(
        self: &Arc<Self>,
        line: &Calls,
        action: &'static str,
        ask: impl FnOnce(&dyn Driver) -> Result<T, DriverError> + Send + 'static,
    ) -> Asked<T> {
        // Nobody probes one that is removed, so only the question itself can tell; whoever holds a ticket
        // from there still asks.
        let call = match self.reason().filter(|_| !self.is_removed()) {
            Some(reason) => Err(reason),
            None => Ok(line.begin(ask, Box::new(|_, _| {}))),
        };
        let (database, epoch) = (Arc::clone(self), self.epoch());
        Asked { database, action, call, epoch, begun: Instant::now() }
    }

    /// Asks the driver, unless the database is known to be down.
    pub(crate) fn call<T: Send + 'static>(
        self: &Arc<Self>,
        action: &'static str,
        ask: impl FnOnce(&dyn Driver) -> Result<T, DriverError> + Send + 'static,
    ) -> Result<T, Error> {
        self.begin(action, ask).wait()
    }
}
