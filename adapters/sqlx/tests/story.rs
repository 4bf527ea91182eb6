//! The story of adapters, with sqlx.
#![cfg(all(feature = "postgres", feature = "mysql", feature = "sqlite"))]

use qudo_adapter_story::{Answers, Transaction, tell};
use qudo_sqlx::{EnqueueIn, JobConnection};
use sqlx::{Connection, Database, MySql, Postgres, Sqlite};

async fn run<D>(transaction: Transaction<'_>) -> Answers
where
    D: Database<Connection: JobConnection>,
    for<'c> sqlx::Transaction<'c, D>: std::ops::DerefMut<Target = D::Connection>,
{
    let mut conn = D::Connection::connect(transaction.url).await.expect("connects");
    let mut tx = conn.begin().await.expect("begins");
    let mut answers = Vec::new();
    for job in transaction.jobs {
        answers.push(transaction.manager.enqueue_in(&mut *tx, job).await);
    }
    if transaction.commit {
        tx.commit().await.expect("commits");
    } else {
        tx.rollback().await.expect("rolls back");
    }
    answers
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("starts").block_on(future)
}

#[test]
fn on_postgres() {
    tell("postgres", |transaction| block_on(run::<Postgres>(transaction)));
}

#[test]
fn on_mariadb() {
    tell("mariadb", |transaction| block_on(run::<MySql>(transaction)));
}

#[test]
fn on_mysql() {
    tell("mysql", |transaction| block_on(run::<MySql>(transaction)));
}

#[test]
fn on_sqlite() {
    tell("sqlite", |transaction| block_on(run::<Sqlite>(transaction)));
}
