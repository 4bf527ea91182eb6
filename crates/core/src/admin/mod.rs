//! What operators ask and order.

pub mod audit;
pub(crate) mod databases;
pub(crate) mod listing;
pub(crate) mod moves;
pub(crate) mod orders;
pub(crate) mod retire;
pub(crate) mod why;
