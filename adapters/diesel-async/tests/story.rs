//! The story of adapters, with diesel-async.
#![cfg(all(feature = "postgres", feature = "mysql", feature = "sqlite"))]

use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, AsyncMysqlConnection, AsyncPgConnection, TransactionManager};
use qudo_adapter_story::{Answers, Transaction, tell};
use qudo_diesel_async::{EnqueueIn, JobConnection};

async fn run<C>(url: &str, transaction: Transaction<'_>) -> Answers
where
    C: AsyncConnection + JobConnection,
{
    let mut conn = C::establish(url).await.expect("connects");
    C::TransactionManager::begin_transaction(&mut conn).await.expect("begins");
    let mut answers = Vec::new();
    for job in transaction.jobs {
        answers.push(transaction.manager.enqueue_in(&mut conn, job).await);
    }
    if transaction.commit {
        C::TransactionManager::commit_transaction(&mut conn).await.expect("commits");
    } else {
        C::TransactionManager::rollback_transaction(&mut conn).await.expect("rolls back");
    }
    answers
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("starts").block_on(future)
}

#[test]
fn on_postgres() {
    tell("postgres", |transaction| {
        block_on(run::<AsyncPgConnection>(transaction.url, transaction))
    });
}

#[test]
fn on_mariadb() {
    tell("mariadb", |transaction| {
        block_on(run::<AsyncMysqlConnection>(transaction.url, transaction))
    });
}

#[test]
fn on_mysql() {
    tell("mysql", |transaction| {
        block_on(run::<AsyncMysqlConnection>(transaction.url, transaction))
    });
}

#[test]
fn on_sqlite() {
    type Conn = SyncConnectionWrapper<diesel::SqliteConnection>;
    tell("sqlite", |transaction| {
        let file = transaction.url.strip_prefix("sqlite:").expect("a file").to_owned();
        block_on(run::<Conn>(&file, transaction))
    });
}
