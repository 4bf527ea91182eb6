//! Storage of the `qudo` job queue in SQLite, PostgreSQL and MySQL/MariaDB, on diesel and r2d2.
//!
//! The only crate of the tower that names diesel. Each engine has a folder with the same file
//! names: what differs is there, what all share is in `statements`. Linking this crate registers
//! its schemes, so `Manager::builder().database("sqlite:jobs.db")` works.

#![cfg_attr(
    not(all(feature = "sqlite", feature = "postgres", feature = "mysql")),
    allow(dead_code, unused_macros, reason = "no engine needs all the helpers; all engines do")
)]

pub mod adapter;
mod audit;
mod bulk;
mod checkup;
mod claimed;
mod classify;
mod clock;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod cursor;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod dear;
mod driver;
mod due_floor;
mod engine;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod gaps;
mod held_key;
mod login;
mod migrate;
mod moves;
#[cfg(feature = "mysql")]
mod mysql;
mod operate;
mod options;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod plan;
mod pool;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod reach;
mod share;
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statements;
mod step;
mod sweep;
mod tables;
pub mod testing;
mod transactional;

pub use transactional::{CompleteIn, EnqueueIn, JobConnection, Transactional};
