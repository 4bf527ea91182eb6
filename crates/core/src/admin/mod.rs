//! What operators ask and order.

pub mod audit;
pub(crate) mod databases;
pub(crate) mod failures;
pub(crate) mod gauge;
pub(crate) mod health;
mod jobs;
pub(crate) mod listing;
pub(crate) mod monitor;
pub(crate) mod moves;
pub(crate) mod operations;
pub(crate) mod orders;
pub(crate) mod overview;
pub(crate) mod page;
mod past;
pub(crate) mod pauses;
pub(crate) mod retire;
pub(crate) mod row;
pub(crate) mod why;
pub(crate) mod workers;

#[cfg(test)]
mod tests;
