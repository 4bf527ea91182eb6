//! Rows that move are counted: what a step takes out of its tables it has to put into others.
//!
//! A server may lie. MariaDB at READ COMMITTED lets a row be locked a moment before the next
//! statement's view of the data shows it: a step that copied rows by such a view and then deleted
//! them by their keys lost 6 jobs of 2,500,000 under the hammer. So each step adds up what it took and what it put
//! before it commits, and rolls back when the two differ.

use diesel::result::{Error, QueryResult};
use uuid::Uuid;

use crate::sql::TRACE;

/// A step whose rows do not add up; its transaction is rolled back.
#[derive(Debug, thiserror::Error)]
#[error(
    "the rows of the step {step:?} do not add up, so it was rolled back: {taken} taken, {put} put"
)]
pub(crate) struct Mismatch {
    pub(crate) step: &'static str,
    pub(crate) taken: usize,
    pub(crate) put: usize,
}

/// Compares the rows that a step took with those that it put, before its commit.
pub(crate) fn balance(step: &'static str, taken: usize, put: usize) -> QueryResult<()> {
    log::trace!(target: TRACE, "-- {step}: {taken} taken, {put} put");
    if taken == put {
        return Ok(());
    }
    let mismatch = Mismatch { step, taken, put };
    log::error!("{mismatch}");
    Err(Error::QueryBuilderError(Box::new(mismatch)))
}

/// Ready rows without facts: their claim is rolled back, because nobody could run them.
#[derive(Debug, thiserror::Error)]
#[error("jobs that are ready have no facts: {}", list(.0))]
pub(crate) struct Orphans(pub(crate) Vec<Uuid>);

fn list(ids: &[Uuid]) -> String {
    let shown: Vec<_> = ids.iter().take(10).map(Uuid::to_string).collect();
    let more = if ids.len() > shown.len() { ", .." } else { "" };
    format!("{}{more}", shown.join(", "))
}

impl Orphans {
    /// An error if there are any.
    pub(crate) fn refuse(ids: Vec<Uuid>) -> QueryResult<()> {
        if ids.is_empty() {
            return Ok(());
        }
        Err(Error::QueryBuilderError(Box::new(Self(ids))))
    }
}

/// The error of a step itself, if it is one of these.
pub(crate) fn inner<E: std::error::Error + 'static>(error: &Error) -> Option<&E> {
    match error {
        Error::QueryBuilderError(inner) => inner.downcast_ref::<E>(),
        _ => None,
    }
}
