//! Where the next claim of a queue starts.
//!
//! Claimed rows are deleted, but on servers with versions of rows they stay in the index until
//! vacuum or purge. A claim from the start of the queue steps over all of them, more with every
//! claim while some long transaction holds vacuum back. So a claim starts after the last row of
//! the one before, and from the start again every so often, for jobs of higher priority and for
//! retries, whose ids are older.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// Claims look at the start of the queue this often: how long a job of higher priority waits at
/// most behind the cursor.
const FROM_START_EVERY: Duration = Duration::from_millis(100);

/// A look at the start may take at most 1/20 of the time, however many dead rows lie there.
const FROM_START_SHARE: u32 = 20;

/// A row's place in the order of the claim.
pub(crate) type Place = (i32, Uuid);

#[derive(Clone, Copy)]
struct State {
    after: Place,
    from_start_at: Instant,
}

/// The cursors of one database, by queue.
#[derive(Default)]
pub(crate) struct Cursors(Mutex<HashMap<Arc<str>, State>>);

impl Cursors {
    /// After which row the next claim starts; `None` from the start.
    pub(crate) fn get(&self, queue: &str) -> Option<Place> {
        let cursors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = cursors.get(queue)?;
        (Instant::now() < state.from_start_at).then_some(state.after)
    }

    /// Notes a claim that began after the cursor and took rows up to this one.
    pub(crate) fn advance(&self, queue: &Arc<str>, last: Place) {
        let mut cursors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = cursors.get_mut(queue) {
            state.after = last;
        }
    }

    /// Notes a claim from the start: how long it took, and its last row if it found enough.
    pub(crate) fn restart(&self, queue: &Arc<str>, took: Duration, last: Option<Place>) {
        let mut cursors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match last {
            Some(after) => {
                let pause = FROM_START_EVERY.max(took * FROM_START_SHARE);
                let state = State { after, from_start_at: Instant::now() + pause };
                cursors.insert(Arc::clone(queue), state);
            }
            None => {
                cursors.remove(queue);
            }
        }
    }
}
