use rusqlite::types::Value;
use rusqlite::{Transaction, TransactionBehavior, params_from_iter};

use crate::{Any, Arguments, Connection, Ids, Layout};

pub(crate) struct Conn {
    arguments: Arguments,
    conn: rusqlite::Connection,
    /// The last id claimed.
    last: Value,
}

fn first(ids: Ids) -> Value {
    if ids == Ids::Uuid { Value::Blob(vec![0; 16]) } else { Value::Integer(0) }
}

impl Connection for Conn {
    fn open(arguments: &Arguments) -> Any<Self> {
        let file = arguments.database.trim_start_matches("sqlite:");
        let conn = rusqlite::Connection::open(file)?;
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")?;
        Ok(Self { arguments: arguments.clone(), conn, last: first(arguments.ids) })
    }

    fn fill(&mut self) -> Any {
        let arguments = &self.arguments;
        let (id_type, id) = match arguments.ids {
            Ids::Uuid => ("BLOB", "unhex('0190000000007000' || printf('%016x', n))"),
            Ids::Big => ("INTEGER", "n"),
        };
        let tables = crate::tables(arguments, id_type, "TEXT", "BLOB", " WITHOUT ROWID");
        self.conn.execute_batch(&tables)?;
        let numbers = format!(
            "(WITH RECURSIVE seq(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM seq WHERE n < {}) \
             SELECT n FROM seq)",
            arguments.jobs
        );
        let payload = "CAST(printf('%050d', n) AS BLOB)";
        let transaction = self.conn.transaction()?;
        for fill in crate::fills(arguments, &numbers, id, payload) {
            transaction.execute_batch(&fill)?;
        }
        Ok(transaction.commit()?)
    }

    fn turn(&mut self) -> Any<usize> {
        let narrow = self.arguments.layout.is_narrow();
        let ids = self.claim(narrow)?;
        let batch = self.arguments.batch;
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if narrow {
            on_ids(&transaction, "DELETE FROM lease WHERE", &ids, batch)?;
        }
        on_ids(&transaction, "DELETE FROM job WHERE", &ids, batch)?;
        transaction.commit()?;
        if self.arguments.layout == Layout::NarrowAfter {
            self.last = ids.last().cloned().unwrap_or_else(|| first(self.arguments.ids));
        }
        Ok(ids.len())
    }
}

impl Conn {
    fn claim(&mut self, narrow: bool) -> Any<Vec<Value>> {
        let batch = self.arguments.batch;
        let transaction = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sql = if narrow {
            format!(
                "SELECT r.id, payload FROM ready r CROSS JOIN job ON job.id = r.id \
                 WHERE r.queue = 'bench' AND r.priority = 0 AND r.id > ? \
                 ORDER BY r.queue, r.priority, r.id LIMIT {batch}"
            )
        } else {
            format!(
                "SELECT id, payload FROM job WHERE queue = 'bench' AND state = 'ready' \
                 AND ? IS NOT NULL ORDER BY queue, state, priority, id LIMIT {batch}"
            )
        };
        let rows: Vec<(Value, Vec<u8>)> = transaction
            .prepare_cached(&sql)?
            .query_map([&self.last], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let ids: Vec<Value> = rows.into_iter().map(|(id, _)| id).collect();
        if narrow {
            let lease = "INSERT INTO lease SELECT id, 1, 1, attempt + 1 FROM ready \
                         WHERE queue = 'bench' AND priority = 0 AND";
            on_ids(&transaction, lease, &ids, batch)?;
            let ready = "DELETE FROM ready WHERE queue = 'bench' AND priority = 0 AND";
            on_ids(&transaction, ready, &ids, batch)?;
        } else {
            let update = "UPDATE job SET state = 'running', attempt = attempt + 1, worker = 1, \
                          leased_until = 1 WHERE";
            on_ids(&transaction, update, &ids, batch)?;
        }
        transaction.commit()?;
        Ok(ids)
    }
}

/// Runs a statement for a batch of ids, with nothing in the places that are left.
fn on_ids(transaction: &Transaction<'_>, sql: &str, ids: &[Value], batch: usize) -> Any {
    let marks = vec!["?"; batch].join(",");
    let all = ids.iter().cloned().chain(std::iter::repeat(Value::Null)).take(batch);
    let sql = format!("{sql} id IN ({marks})");
    transaction.prepare_cached(&sql)?.execute(params_from_iter(all))?;
    Ok(())
}
