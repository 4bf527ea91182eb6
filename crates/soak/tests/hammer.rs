//! The small hammer of the test command; `cargo xtask soak --hammer --jobs 5000000` is the large one.

#![allow(missing_docs, reason = "a test is read, not called")]

use qudo_soak::{Hammer, hammer};
use qudo_test_servers::FreshDatabase;

fn strike(dsn: &str) {
    let options =
        Hammer { databases: vec![dsn.to_owned()], jobs: 15_000, clients: 6, workers: 3, claim: 20 };
    let outcome = hammer(&options).expect("reaches the database");
    println!("{outcome}");
    assert!(outcome.is_good(), "{outcome}");
}

fn on(engine: &str) {
    if let Some(fresh) = FreshDatabase::on(engine, "hammer") {
        strike(fresh.url());
    }
}

#[test]
fn short_claims_lose_and_double_nothing_on_sqlite() {
    let place = tempfile::tempdir().expect("a temporary directory");
    strike(&format!("sqlite:{}/jobs.db", place.path().display()));
}

#[test]
fn short_claims_lose_and_double_nothing_on_postgres() {
    on("postgres");
}

#[test]
fn short_claims_lose_and_double_nothing_on_mariadb() {
    on("mariadb");
}

#[test]
fn short_claims_lose_and_double_nothing_on_mysql() {
    on("mysql");
}
