use mysql::prelude::Queryable;
use mysql::{IsolationLevel, Opts, Params, TxOpts, Value};

use crate::{Any, Arguments, Connection, Ids, Layout};

pub(crate) struct Conn {
    arguments: Arguments,
    conn: mysql::Conn,
    /// The last id claimed.
    last: Value,
}

fn first(ids: Ids) -> Value {
    if ids == Ids::Uuid { Value::Bytes(vec![0; 16]) } else { Value::Int(0) }
}

impl Connection for Conn {
    fn open(arguments: &Arguments) -> Any<Self> {
        let mut conn = mysql::Conn::new(Opts::from_url(&arguments.database)?)?;
        conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")?;
        Ok(Self { arguments: arguments.clone(), conn, last: first(arguments.ids) })
    }

    fn fill(&mut self) -> Any {
        let arguments = &self.arguments;
        let id_type = if arguments.ids == Ids::Uuid { "BINARY(16)" } else { "BIGINT" };
        let text = "VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin";
        let tables = crate::tables(arguments, id_type, text, "LONGBLOB", " ENGINE = InnoDB");
        for table in tables.split(';') {
            self.conn.query_drop(table)?;
        }
        let id = match arguments.ids {
            Ids::Uuid => "UNHEX(CONCAT('0190000000007000', LPAD(HEX(seq), 16, '0')))",
            Ids::Big => "seq",
        };
        // A table of MariaDB's own; MySQL has none like it.
        let numbers = format!("seq_1_to_{}", arguments.jobs);
        for fill in crate::fills(arguments, &numbers, id, "LPAD(seq, 50, '0')") {
            self.conn.query_drop(fill)?;
        }
        let ready = if arguments.layout.is_narrow() { ", ready" } else { "" };
        Ok(self.conn.query_drop(format!("ANALYZE TABLE job{ready}"))?)
    }

    fn turn(&mut self) -> Any<usize> {
        let rows = retried(|| self.claim())?;
        if !rows.is_empty() {
            retried(|| self.finish(&rows))?;
        }
        if self.arguments.layout == Layout::NarrowAfter {
            // At the end it begins anew, for what others left.
            self.last = rows.last().cloned().unwrap_or_else(|| first(self.arguments.ids));
        }
        Ok(rows.len())
    }
}

impl Conn {
    fn claim(&mut self) -> mysql::Result<Vec<Value>> {
        let batch = self.arguments.batch;
        let marks = vec!["?"; batch].join(",");
        let options = TxOpts::default().set_isolation_level(Some(IsolationLevel::ReadCommitted));
        let narrow = self.arguments.layout.is_narrow();
        let mut transaction = self.conn.start_transaction(options)?;
        let ids: Vec<Value> = if narrow {
            let after = if self.arguments.layout == Layout::NarrowAfter { "> ?" } else { ">= ?" };
            transaction.exec(
                format!(
                    "SELECT id FROM ready WHERE queue = 'bench' AND priority = 0 AND id {after} \
                     ORDER BY queue, priority, id LIMIT {batch} FOR UPDATE SKIP LOCKED"
                ),
                (self.last.clone(),),
            )?
        } else {
            let rows: Vec<(Value, Vec<u8>)> = transaction.exec(
                format!(
                    "SELECT id, payload FROM job WHERE queue = 'bench' AND state = 'ready' \
                     ORDER BY queue, state, priority, id LIMIT {batch} FOR UPDATE SKIP LOCKED"
                ),
                (),
            )?;
            rows.into_iter().map(|(id, _)| id).collect()
        };
        let Some(all) = padded(&ids, batch) else {
            transaction.commit()?;
            return Ok(ids);
        };
        if narrow {
            let facts = format!("SELECT id, payload FROM job WHERE id IN ({marks})");
            let _: Vec<(Value, Vec<u8>)> = transaction.exec(facts, all.clone())?;
            let among = format!("queue = 'bench' AND priority = 0 AND id IN ({marks})");
            let lease =
                format!("INSERT INTO lease SELECT id, 1, 1, attempt + 1 FROM ready WHERE {among}");
            transaction.exec_drop(lease, all.clone())?;
            transaction.exec_drop(format!("DELETE FROM ready WHERE {among}"), all)?;
        } else {
            let update = format!(
                "UPDATE job SET state = 'running', attempt = attempt + 1, worker = 1, \
                 leased_until = 1 WHERE id IN ({marks})"
            );
            transaction.exec_drop(update, all)?;
        }
        transaction.commit()?;
        Ok(ids)
    }

    fn finish(&mut self, ids: &[Value]) -> mysql::Result<()> {
        let batch = self.arguments.batch;
        let Some(all) = padded(ids, batch) else { return Ok(()) };
        let marks = vec!["?"; batch].join(",");
        let options = TxOpts::default().set_isolation_level(Some(IsolationLevel::ReadCommitted));
        let mut transaction = self.conn.start_transaction(options)?;
        if self.arguments.layout.is_narrow() {
            let lease = format!("DELETE FROM lease WHERE id IN ({marks})");
            transaction.exec_drop(lease, all.clone())?;
        }
        transaction.exec_drop(format!("DELETE FROM job WHERE id IN ({marks})"), all)?;
        transaction.commit()
    }
}

/// The ids of a batch, the last repeated, so that one statement serves batches of all lengths.
fn padded(ids: &[Value], batch: usize) -> Option<Params> {
    let last = ids.last()?.clone();
    let mut all = ids.to_vec();
    all.resize(batch, last);
    Some(Params::Positional(all))
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
