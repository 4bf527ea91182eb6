//! How values go into a statement for MySQL and MariaDB and come out, and how a transaction begins and ends.

use diesel::deserialize;
use diesel::query_builder::AstPass;
use diesel::result::{Error, QueryResult};
use diesel::row::Row;
use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text};
use diesel::{MysqlConnection, RunQueryDsl};
use uuid::Uuid;

use super::NOW;
use crate::classify::{Class, classify};
use crate::clock::{TooLate, Window};
use crate::sql::{
    Bind, Dialect, FromRow, Loaded, Sql, SqlConn, Statement, ansi_transaction,
    dialect_with_binary_ids, plain_reads, sql_conn,
};

dialect_with_binary_ids!(diesel::mysql::Mysql);
sql_conn!(MysqlConnection, transaction, ansi_transaction);

fn transaction<T>(
    conn: &mut Sql<'_, MysqlConnection>,
    act: impl FnOnce(&mut Sql<'_, MysqlConnection>) -> QueryResult<T>,
) -> QueryResult<T> {
    transaction_within(conn, &Window::OPEN, act)
}

/// diesel sends `BEGIN` and `COMMIT` as batches, which allow several statements, and that costs
/// two more round trips for each: six of the eight of an enqueue. These two are prepared like
/// any statement; to turn autocommit on again is to commit.
///
/// The commit itself looks at the clock: outside of the window it sets a value that does not
/// exist, which the server refuses, and nothing is committed.
pub(super) fn transaction_within<T>(
    conn: &mut Sql<'_, MysqlConnection>,
    window: &Window,
    act: impl FnOnce(&mut Sql<'_, MysqlConnection>) -> QueryResult<T>,
) -> QueryResult<T> {
    conn.run("SET autocommit = 0", &[])?;
    let done = act(conn).and_then(|value| {
        if window.is_open() {
            conn.run("SET autocommit = 1", &[])?;
            return Ok(value);
        }
        let commit = format!("SET autocommit = IF({NOW} BETWEEN ? AND ?, 1, 2)");
        match conn.run(&commit, &[Bind::Big(window.from), Bind::Big(window.until)]) {
            Err(error) if error.to_string().contains("'autocommit' can't be set") => {
                Err(TooLate::error())
            }
            committed => committed.map(|_| value),
        }
    });
    if done.is_err() {
        let ended = conn.run("ROLLBACK", &[]).and_then(|_| conn.run("SET autocommit = 1", &[]));
        // The pool gives up a connection after an error of these two classes anyway. In a cluster a
        // rollback may meet the same deadlock that it answers.
        if let (Err(ended), Err(error)) = (ended, &done)
            && !matches!(classify(error), Class::Down | Class::Retry)
        {
            // Such a connection must not go back to the pool; nor is it lost that this was so.
            log::debug!("a transaction could not be rolled back: {ended}");
            return Err(Error::BrokenTransactionManager);
        }
    }
    done
}
