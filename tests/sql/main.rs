//! Jobs that are enqueued by SQL: what docs/guide/sql.md promises, on every engine and from programs of others.

#![cfg(feature = "sqlite")]
#![allow(missing_docs, reason = "a test is read, not called")]

mod checks;
mod clients;
mod guide;
mod jobs;
#[cfg(feature = "mysql")]
mod mysql;
mod place;
#[cfg(feature = "postgres")]
mod postgres;
mod sqlite;

/// A test for each engine out of a function that takes a place.
macro_rules! on_every_engine {
    ($($name:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[test] fn $name() { crate::place::Place::on("sqlite").iter_mut().for_each(super::$name); })*
        }
        #[cfg(feature = "postgres")]
        mod on_postgres {
            $(#[test] fn $name() { crate::place::Place::on("postgres").iter_mut().for_each(super::$name); })*
        }
        #[cfg(feature = "mysql")]
        mod on_mariadb {
            $(#[test] fn $name() { crate::place::Place::on("mariadb").iter_mut().for_each(super::$name); })*
        }
        #[cfg(feature = "mysql")]
        mod on_mysql {
            $(#[test] fn $name() { crate::place::Place::on("mysql").iter_mut().for_each(super::$name); })*
        }
    };
}
pub(crate) use on_every_engine;
