//! How values go into a statement for SQLite and come out, and how a transaction begins.

use diesel::deserialize;
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::row::Row;
use diesel::sql_types::{BigInt, Binary, Integer, Nullable, Text};
use diesel::{RunQueryDsl, SqliteConnection};
use uuid::Uuid;

use crate::sql::{
    Bind, Dialect, FromRow, Loaded, SqlConn, Statement, dialect_with_binary_ids, plain_reads,
    sql_conn, told, traced,
};

dialect_with_binary_ids!(diesel::sqlite::Sqlite);
// A read transaction that turns into a writing one cannot wait for its lock; this one can.
sql_conn!(
    SqliteConnection,
    SqliteConnection::immediate_transaction,
    SqliteConnection::immediate_transaction
);
