//! Inserts of many threads that share a commit.
//!
//! A commit costs a sync of the disk, far more than a row. A thread that enqueues leaves its job
//! in the waiting list and goes for the writing connection. Whoever gets it stores everything that
//! waits, in one transaction, and answers for the others, who find their answer when their turn
//! comes. No timer, no thread of its own: alone, a thread commits at once; the more threads wait,
//! the more share a commit.

use std::sync::{Arc, Mutex, PoisonError};

use qudo_core::driver::{DriverError, Inserted, JobRecord};

use super::Sqlite;
use crate::engine::Engine;
use crate::statements::insert::insert;

/// A larger insert has a commit of its own: it gains nothing from sharing, and is not copied.
const LARGEST_SHARED: usize = 16;

#[derive(Default)]
pub(super) struct Waiting {
    list: Mutex<Vec<Arc<Slot>>>,
    turn: Mutex<()>,
}

struct Slot {
    jobs: Vec<JobRecord>,
    answer: Mutex<Option<Result<Vec<Inserted>, Shared>>>,
}

/// A group's error is told to each of its members, so they try alone for one of their own.
struct Shared;

pub(super) fn insert_commit(
    engine: &Sqlite,
    jobs: &[JobRecord],
) -> Result<Vec<Inserted>, DriverError> {
    if jobs.len() > LARGEST_SHARED {
        return alone(engine, jobs);
    }
    let slot = Arc::new(Slot { jobs: jobs.to_vec(), answer: Mutex::default() });
    lock(&engine.waiting.list).push(Arc::clone(&slot));
    let turn = lock(&engine.waiting.turn);
    if lock(&slot.answer).is_none() {
        store_waiting(engine);
    }
    drop(turn);
    let answer = lock(&slot.answer).take();
    match answer {
        Some(Ok(inserted)) => Ok(inserted),
        // One member's trouble is not the others': each finds out for itself. Repeating is
        // harmless, because a stored id is not stored again.
        Some(Err(Shared)) | None => alone(engine, jobs),
    }
}

fn store_waiting(engine: &Sqlite) {
    let group = std::mem::take(&mut *lock(&engine.waiting.list));
    let jobs: Vec<JobRecord> = group.iter().flat_map(|slot| slot.jobs.iter().cloned()).collect();
    let mut answers =
        engine.write(|conn| insert::<Sqlite>(conn, &jobs)).map(|inserted| inserted.into_iter());
    for slot in group {
        let answer = match &mut answers {
            Ok(inserted) => Ok(inserted.by_ref().take(slot.jobs.len()).collect()),
            Err(_) => Err(Shared),
        };
        *lock(&slot.answer) = Some(answer);
    }
}

fn alone(engine: &Sqlite, jobs: &[JobRecord]) -> Result<Vec<Inserted>, DriverError> {
    engine.write(|conn| insert::<Sqlite>(conn, jobs))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
