//! The story of adapters, with SeaORM.
#![cfg(all(feature = "postgres", feature = "mysql", feature = "sqlite"))]

use qudo_adapter_story::{Answers, Transaction, tell};
use qudo_sea_orm::EnqueueIn;
use sea_orm::{Database, TransactionTrait};

async fn run(transaction: Transaction<'_>) -> Answers {
    let conn = Database::connect(transaction.url).await.expect("connects");
    let tx = conn.begin().await.expect("begins");
    let mut answers = Vec::new();
    for job in transaction.jobs {
        answers.push(transaction.manager.enqueue_in(&tx, job).await);
    }
    if transaction.commit {
        tx.commit().await.expect("commits");
    } else {
        tx.rollback().await.expect("rolls back");
    }
    conn.close().await.expect("closes");
    answers
}

fn on(engine: &'static str) {
    let runtime = tokio::runtime::Runtime::new().expect("starts");
    tell(engine, |transaction| runtime.block_on(run(transaction)));
}

#[test]
fn on_postgres() {
    on("postgres");
}

#[test]
fn on_mariadb() {
    on("mariadb");
}

#[test]
fn on_mysql() {
    on("mysql");
}

#[test]
fn on_sqlite() {
    on("sqlite");
}
