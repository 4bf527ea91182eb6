use std::ops::Range;
use std::time::Duration;

use peers_common::{Any, Arguments, Metric, Peer};
use rusqlite::types::Value;
use rusqlite::{Connection, TransactionBehavior, params_from_iter};

pub(crate) struct Bare {
    arguments: Arguments,
    conn: Connection,
}

fn connect(arguments: &Arguments) -> Any<Connection> {
    let conn = Connection::open(arguments.file())?;
    conn.busy_timeout(Duration::from_secs(20))?;
    conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")?;
    Ok(conn)
}

impl Peer for Bare {
    const NAME: &'static str = "bare";

    fn open(arguments: &Arguments) -> Any<Self> {
        if arguments.metric == Metric::Latency {
            return peers_common::lacks("SQLite has nothing to wait for");
        }
        Ok(Self { arguments: arguments.clone(), conn: connect(arguments)? })
    }

    fn migrate(&mut self) -> Any {
        self.conn.execute_batch(
            "CREATE TABLE jobs (id INTEGER PRIMARY KEY, queue TEXT NOT NULL, \
             priority INTEGER NOT NULL DEFAULT 0, payload TEXT NOT NULL, \
             state TEXT NOT NULL DEFAULT 'ready', \
             created TEXT NOT NULL DEFAULT current_timestamp)",
        )?;
        if !self.arguments.best() {
            self.conn.execute_batch(super::INDEX)?;
        }
        Ok(())
    }

    fn enqueue_one(&mut self, n: usize) -> Any {
        let sql = "INSERT INTO jobs (queue, payload) VALUES ('bench', ?)";
        self.conn.prepare_cached(sql)?.execute([super::payload(n)])?;
        Ok(())
    }

    fn enqueue_bulk(&mut self, jobs: Range<usize>) -> Any {
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let sql = "INSERT INTO jobs (queue, payload) VALUES ('bench', ?)";
            let mut insert = transaction.prepare_cached(sql)?;
            for n in jobs {
                insert.execute([super::payload(n)])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn start(&mut self) -> Any {
        let arguments = self.arguments.clone();
        super::thread(move || work(&arguments));
        Ok(())
    }

    fn is_finished(&mut self) -> Any<bool> {
        Ok(self.conn.query_row("SELECT NOT EXISTS (SELECT 1 FROM jobs)", (), |row| row.get(0))?)
    }

    fn note(&self, arguments: &Arguments) -> String {
        let more = match arguments.metric {
            Metric::EnqueueOne => "prepared INSERT, autocommit, WAL, synchronous FULL",
            Metric::EnqueueBulk => "prepared INSERT, transactions of 10,000, WAL, synchronous FULL",
            Metric::Work | Metric::Latency => {
                "1 connection, batch 500, BEGIN IMMEDIATE with SELECT and UPDATE, \
                 one DELETE a batch, WAL, synchronous FULL"
            }
        };
        super::note(arguments, more)
    }
}

fn work(arguments: &Arguments) -> Any {
    let mut conn = connect(arguments)?;
    let select = format!(
        "SELECT id, payload FROM jobs WHERE {} LIMIT {}",
        super::ready(arguments),
        super::BATCH
    );
    let places = vec!["?"; super::BATCH].join(", ");
    let update = format!("UPDATE jobs SET state = 'running' WHERE id IN ({places})");
    let delete = format!("DELETE FROM jobs WHERE id IN ({places})");
    loop {
        let transaction = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let rows = transaction
            .prepare_cached(&select)?
            .query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<Vec<(i64, String)>>>()?;
        if !rows.is_empty() {
            transaction.prepare_cached(&update)?.execute(params_from_iter(ids(&rows)))?;
        }
        transaction.commit()?;
        if rows.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        for (_, payload) in &rows {
            super::execute(payload)?;
        }
        conn.prepare_cached(&delete)?.execute(params_from_iter(ids(&rows)))?;
    }
}

/// The ids of a batch, and nothing in the places that are left.
fn ids(rows: &[(i64, String)]) -> impl Iterator<Item = Value> {
    let ids = rows.iter().map(|row| Value::Integer(row.0));
    ids.chain(std::iter::repeat(Value::Null)).take(super::BATCH)
}
