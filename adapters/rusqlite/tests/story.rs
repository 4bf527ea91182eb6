//! The story of adapters, with rusqlite.

use std::time::Duration;

use qudo_adapter_story::tell;
use qudo_rusqlite::EnqueueIn;
use rusqlite::{Connection, TransactionBehavior};

#[test]
fn on_sqlite() {
    tell("sqlite", |transaction| {
        let file = transaction.url.strip_prefix("sqlite:").expect("a file");
        let mut conn = Connection::open(file).expect("opens");
        conn.busy_timeout(Duration::from_secs(30)).expect("set");
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).expect("begins");
        let jobs = transaction.jobs.into_iter();
        let answers = jobs.map(|job| transaction.manager.enqueue_in(&tx, job)).collect();
        if transaction.commit {
            tx.commit().expect("commits");
        } else {
            tx.rollback().expect("rolls back");
        }
        answers
    });
}
