//! The story of adapters, with tokio-postgres.

use qudo_adapter_story::{Answers, Transaction, tell};
use qudo_tokio_postgres::EnqueueIn;
use tokio_postgres::NoTls;

async fn run(transaction: Transaction<'_>) -> Answers {
    let (mut client, connection) =
        tokio_postgres::connect(transaction.url, NoTls).await.expect("connects");
    let connection = tokio::spawn(connection);
    let tx = client.transaction().await.expect("begins");
    let mut answers = Vec::new();
    for job in transaction.jobs {
        answers.push(transaction.manager.enqueue_in(&tx, job).await);
    }
    if transaction.commit {
        tx.commit().await.expect("commits");
    } else {
        tx.rollback().await.expect("rolls back");
    }
    drop(client);
    connection.await.expect("no panic").expect("ends");
    answers
}

#[test]
fn on_postgres() {
    let runtime = tokio::runtime::Runtime::new().expect("starts");
    tell("postgres", |transaction| runtime.block_on(run(transaction)));
}
