//! How values go into a statement for SQLite and come out, and how a transaction begins.

use diesel::deserialize;
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::row::Row;
use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text};
use diesel::{RunQueryDsl, SqliteConnection};
use uuid::Uuid;

use crate::sql::{
    Bind, Dialect, FromRow, Loaded, Sql, SqlConn, Statement, dialect_with_binary_ids, plain_reads,
    sql_conn,
};

/// A read transaction that turns into a writing one cannot wait for its lock; this one can.
fn immediate<T>(
    conn: &mut Sql<'_, SqliteConnection>,
    act: impl FnOnce(&mut Sql<'_, SqliteConnection>) -> QueryResult<T>,
) -> QueryResult<T> {
    let tables = conn.tables;
    conn.raw.immediate_transaction(|raw| act(&mut Sql { raw, tables }))
}

dialect_with_binary_ids!(diesel::sqlite::Sqlite);
sql_conn!(SqliteConnection, immediate, immediate);
