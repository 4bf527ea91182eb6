//! The small hammer of the test command; `cargo xtask soak --hammer --jobs 5000000` is the large one.

#![allow(missing_docs, reason = "a test is read, not called")]

use qudo_soak::{Hammer, hammer};
use qudo_test_servers::{
    Engine, FreshDatabase, Mariadb, Mysql, Options, Postgres, Server, can_start, run_sql,
};

const JOBS: u64 = 15_000;

fn strike(dsn: &str, jobs: u64) {
    let options =
        Hammer { databases: vec![dsn.to_owned()], jobs, clients: 6, workers: 3, claim: 20 };
    let outcome = hammer(&options).expect("reaches the database");
    println!("{outcome}");
    assert!(outcome.is_good(), "{outcome}");
}

/// A server whose commits wait for the disk: the races of a commit need one that takes its time.
fn on<E: Engine>() {
    if can_start(E::SHORT) {
        let options = Options { durable: true, ..Options::default() };
        let server = Server::<E>::start(options).unwrap_or_else(|error| panic!("{error}"));
        strike(&server.url(), JOBS);
    }
}

#[test]
fn short_claims_lose_and_double_nothing_on_sqlite() {
    let place = tempfile::tempdir().expect("a temporary directory");
    strike(&format!("sqlite:{}/jobs.db", place.path().display()), JOBS);
}

#[test]
fn short_claims_lose_and_double_nothing_on_postgres() {
    on::<Postgres>();
}

#[test]
fn short_claims_lose_and_double_nothing_on_mariadb() {
    on::<Mariadb>();
}

#[test]
fn short_claims_lose_and_double_nothing_on_mysql() {
    on::<Mysql>();
}

/// A rule of the house for applications: our own connections choose their isolation, because at that
/// level more than half of the claims that meet would fail.
#[test]
fn short_claims_lose_and_double_nothing_on_a_postgres_that_serializes_and_none_is_made_again() {
    let Some(fresh) = FreshDatabase::on("postgres", "hammer") else { return };
    let set = format!(
        "ALTER DATABASE {} SET default_transaction_isolation = 'serializable'",
        fresh.name()
    );
    run_sql(fresh.url(), &set).expect("set");
    let told = run_sql(fresh.url(), "SHOW transaction_isolation").expect("tells");
    assert_eq!(told, "serializable");
    let jobs = JOBS / 5;
    strike(fresh.url(), jobs);
    let rollbacks = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    let rollbacks: u64 = run_sql(fresh.url(), rollbacks).expect("tells").parse().expect("a number");
    assert!(rollbacks < jobs / 50, "{rollbacks} transactions for {jobs} jobs failed");
}
