use std::ops::Range;
use std::time::Duration;

use mysql::prelude::Queryable;
use mysql::{Conn, IsolationLevel, Opts, Params, Statement, TxOpts, Value};
use peers_common::{Any, Arguments, Metric, Peer};

/// Rows of one insert.
const ROWS: usize = 1_000;

pub(crate) struct Bare {
    arguments: Arguments,
    conn: Conn,
    insert: Option<Statement>,
}

impl Peer for Bare {
    const NAME: &'static str = "bare";

    fn open(arguments: &Arguments) -> Any<Self> {
        if arguments.metric == Metric::Latency {
            return peers_common::lacks("MySQL has nothing to wait for");
        }
        let conn = Conn::new(Opts::from_url(&arguments.database)?)?;
        Ok(Self { arguments: arguments.clone(), conn, insert: None })
    }

    fn migrate(&mut self) -> Any {
        self.conn.query_drop(
            "CREATE TABLE jobs (id BIGINT AUTO_INCREMENT PRIMARY KEY, queue VARCHAR(64) NOT NULL, \
             priority SMALLINT NOT NULL DEFAULT 0, payload TEXT NOT NULL, \
             state VARCHAR(16) NOT NULL DEFAULT 'ready', \
             created DATETIME(6) NOT NULL DEFAULT current_timestamp(6)) ENGINE = InnoDB",
        )?;
        if !self.arguments.best() {
            self.conn.query_drop(super::INDEX)?;
        }
        Ok(())
    }

    fn enqueue_one(&mut self, n: usize) -> Any {
        let insert = match &self.insert {
            Some(insert) => insert,
            None => self
                .insert
                .insert(self.conn.prep("INSERT INTO jobs (queue, payload) VALUES ('bench', ?)")?),
        };
        self.conn.exec_drop(insert, (super::payload(n),))?;
        Ok(())
    }

    fn enqueue_bulk(&mut self, jobs: Range<usize>) -> Any {
        for from in jobs.clone().step_by(ROWS) {
            let rows = from..jobs.end.min(from + ROWS);
            let places = vec!["('bench', ?)"; rows.len()].join(", ");
            // The connection keeps it prepared for the next of the same length.
            let sql = format!("INSERT INTO jobs (queue, payload) VALUES {places}");
            let payloads = rows.map(|n| Value::from(super::payload(n))).collect();
            self.conn.exec_drop(sql, Params::Positional(payloads))?;
        }
        Ok(())
    }

    fn start(&mut self) -> Any {
        for _ in 0..self.arguments.workers {
            let arguments = self.arguments.clone();
            super::thread(move || work(&arguments));
        }
        Ok(())
    }

    fn is_finished(&mut self) -> Any<bool> {
        Ok(self.conn.query_first::<i64, _>("SELECT id FROM jobs LIMIT 1")?.is_none())
    }

    fn note(&self, arguments: &Arguments) -> String {
        let more = match arguments.metric {
            Metric::EnqueueOne => "prepared INSERT, autocommit",
            Metric::EnqueueBulk => "INSERT of 1,000 rows, prepared",
            Metric::Work | Metric::Latency => {
                "batch 500, SELECT … SKIP LOCKED and UPDATE at READ COMMITTED, one DELETE a batch"
            }
        };
        super::note(arguments, more)
    }
}

fn work(arguments: &Arguments) -> Any {
    let mut conn = Conn::new(Opts::from_url(&arguments.database)?)?;
    conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")?;
    let select = conn.prep(format!(
        "SELECT id, payload FROM jobs WHERE {} LIMIT {} FOR UPDATE SKIP LOCKED",
        super::ready(arguments),
        super::BATCH
    ))?;
    let places = vec!["?"; super::BATCH].join(", ");
    let update = conn.prep(format!("UPDATE jobs SET state = 'running' WHERE id IN ({places})"))?;
    let delete = conn.prep(format!("DELETE FROM jobs WHERE id IN ({places})"))?;
    loop {
        let rows = retried(|| claim(&mut conn, &select, &update))?;
        if rows.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        for (_, payload) in &rows {
            super::execute(payload)?;
        }
        retried(|| conn.exec_drop(&delete, ids(&rows)))?;
    }
}

fn claim(
    conn: &mut Conn,
    select: &Statement,
    update: &Statement,
) -> mysql::Result<Vec<(i64, String)>> {
    let options = TxOpts::default().set_isolation_level(Some(IsolationLevel::ReadCommitted));
    let mut transaction = conn.start_transaction(options)?;
    let rows: Vec<(i64, String)> = transaction.exec(select, ())?;
    if !rows.is_empty() {
        transaction.exec_drop(update, ids(&rows))?;
    }
    transaction.commit()?;
    Ok(rows)
}

/// The ids of a batch, the last repeated, so that one statement serves batches of all lengths.
fn ids(rows: &[(i64, String)]) -> Params {
    let last = rows.last().map_or(0, |row| row.0);
    let mut ids: Vec<Value> = rows.iter().map(|row| Value::from(row.0)).collect();
    ids.resize(super::BATCH, Value::from(last));
    Params::Positional(ids)
}

/// Tries again what lost a deadlock or waited too long for a lock.
fn retried<T>(mut once: impl FnMut() -> mysql::Result<T>) -> mysql::Result<T> {
    loop {
        match once() {
            Err(mysql::Error::MySqlError(error)) if matches!(error.code, 1205 | 1213) => {}
            answer => return answer,
        }
    }
}
