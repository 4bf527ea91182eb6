//! Questions whose length depends on what is stored: listings, counts, moves.

use std::sync::Arc;
use std::time::Duration;

use super::calls::Call;
use crate::driver::DriverError;
use crate::error::Error;
use crate::tools::time::Instant;

/// Listings may take so many times the limit of a call.
pub(crate) const LISTING: u32 = 6;

/// Notes what an error says of the database.
type Note = Box<dyn FnOnce(&DriverError) + Send>;

/// A question that a database was asked.
pub(crate) struct Asked<T> {
    database: Arc<str>,
    /// The longest that a call may take.
    limit: Duration,
    action: &'static str,
    /// Or why the database is down.
    call: Result<Call<T>, String>,
    note: Note,
    begun: Instant,
}

impl<T> Asked<T> {
    pub(crate) fn new(
        database: Arc<str>,
        limit: Duration,
        action: &'static str,
        call: Result<Call<T>, String>,
        note: Note,
    ) -> Self {
        Self { database, limit, action, call, note, begun: Instant::now() }
    }

    /// The answer, within the limit of a listing from the beginning.
    pub(crate) fn wait(self) -> Result<T, Error> {
        let limit = self.limit.saturating_mul(LISTING);
        let left = limit.saturating_sub(self.begun.elapsed());
        self.end(left, limit)
    }

    /// The answer within this time from now; a short one says nothing of the database.
    pub(crate) fn wait_at_most(self, limit: Duration) -> Result<T, Error> {
        self.end(limit, limit)
    }

    /// Leaves a question that was not answered within the limit of a listing: the database is suspected.
    pub(crate) fn wait_in_vain(self) -> Result<T, Error> {
        self.end(Duration::ZERO, Duration::MAX)
    }

    /// The answer, however long it takes.
    pub(crate) fn wait_for_ever(self) -> Result<T, Error> {
        self.end(Duration::MAX, Duration::MAX)
    }

    /// Leaves without the answer.
    pub(crate) fn abandon(self) {
        if let Ok(call) = self.call {
            call.abandon();
        }
    }

    /// Waits for `left`, at the end of a wait of `waited` in all.
    fn end(self, left: Duration, waited: Duration) -> Result<T, Error> {
        let Self { database, limit, action, call, note, .. } = self;
        let call =
            call.map_err(|reason| Error::DatabaseDown { database: database.to_string(), reason })?;
        call.wait(left).map_err(|error| {
            // Who waited for less than a call may take has no reason for suspicion.
            if !error.is_hung() || waited >= limit {
                note(&error);
            }
            Error::database(&database, action, error)
        })
    }
}
