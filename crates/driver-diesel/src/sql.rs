//! SQL text with typed binds over diesel, for all three engines.
//!
//! diesel's own `sql_query` is never cached as a prepared statement. [`Statement`] is: its text is
//! constant for a given shape, so each connection parses it once. Rows are read by position, which
//! spares a lookup by name per column.

use diesel::RunQueryDsl;
use diesel::backend::Backend;
use diesel::deserialize::{self, QueryableByName};
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::row::{NamedRow, Row};
use diesel::sql_types::Untyped;
use uuid::Uuid;

use crate::tables::Tables;

/// The target of the log under which every statement is told: its text and how many rows it touched
/// or read, never a value.
pub(crate) const TRACE: &str = "qudo::sql";

pub(crate) fn traced<T>(
    sql: &str,
    result: QueryResult<T>,
    rows: impl FnOnce(&T) -> usize,
) -> QueryResult<T> {
    if log::log_enabled!(target: TRACE, log::Level::Trace) {
        match &result {
            Ok(value) => log::trace!(target: TRACE, "{} rows: {sql}", rows(value)),
            Err(_) => log::trace!(target: TRACE, "failed: {sql}"),
        }
    }
    result
}

/// Tells where a transaction begins and how it ends.
pub(crate) fn told<T>(transaction: impl FnOnce() -> QueryResult<T>) -> QueryResult<T> {
    log::trace!(target: TRACE, "begin");
    let done = transaction();
    log::trace!(target: TRACE, "{}", if done.is_ok() { "commit" } else { "rollback" });
    done
}

/// A value for a `?` of a [`Statement`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bind<'a> {
    Int(i32),
    Big(i64),
    OptBig(Option<i64>),
    Text(&'a str),
    OptText(Option<&'a str>),
    Bytes(&'a [u8]),
    OptBytes(Option<&'a [u8]>),
    Id(&'a Uuid),
    /// For engines that have arrays.
    #[cfg(feature = "postgres")]
    Array(&'a Array<'a>),
}

/// An array to bind: one value instead of a `?` for each of its elements.
#[cfg(feature = "postgres")]
#[derive(Debug)]
pub(crate) enum Array<'a> {
    Ids(Vec<Uuid>),
    Ints(Vec<i32>),
    Bigs(Vec<i64>),
    OptBigs(Vec<Option<i64>>),
    Texts(Vec<&'a str>),
    OptTexts(Vec<Option<&'a str>>),
    Bytes(Vec<&'a [u8]>),
}

impl Bind<'_> {
    /// About how many bytes it takes in a statement.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::OptText(Some(text)) => text.len(),
            Self::Bytes(bytes) | Self::OptBytes(Some(bytes)) => bytes.len(),
            _ => size_of::<Uuid>(),
        }
    }
}

/// What the three backends differ in when values go in and come out.
pub(crate) trait Dialect: Backend + Sized {
    fn bind<'b>(out: &mut AstPass<'_, 'b, Self>, bind: &'b Bind<'b>) -> QueryResult<()>;
    fn id<'r>(row: &impl Row<'r, Self>, at: usize) -> deserialize::Result<Uuid>;
    fn int<'r>(row: &impl Row<'r, Self>, at: usize) -> deserialize::Result<i32>;
    fn big<'r>(row: &impl Row<'r, Self>, at: usize) -> deserialize::Result<i64>;
    fn text<'r>(row: &impl Row<'r, Self>, at: usize) -> deserialize::Result<String>;
    fn bytes<'r>(row: &impl Row<'r, Self>, at: usize) -> deserialize::Result<Vec<u8>>;
    fn is_null<'r>(row: &impl Row<'r, Self>, at: usize) -> bool;
}

/// SQL with a `?` for each bind; a `?` may stand nowhere else in the text.
#[derive(Clone, Copy)]
pub(crate) struct Statement<'a> {
    pub(crate) sql: &'a str,
    pub(crate) binds: &'a [Bind<'a>],
}

impl<DB: Dialect> QueryFragment<DB> for Statement<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        let mut binds = self.binds.iter();
        for (place, part) in self.sql.split('?').enumerate() {
            if place > 0 {
                let bind = binds.next().ok_or_else(|| mismatch(self))?;
                DB::bind(&mut out, bind)?;
            }
            out.push_sql(part);
        }
        if binds.next().is_some() { Err(mismatch(self)) } else { Ok(()) }
    }
}

fn mismatch(statement: &Statement<'_>) -> diesel::result::Error {
    let text = format!("{} binds for {:?}", statement.binds.len(), statement.sql);
    diesel::result::Error::QueryBuilderError(text.into())
}

impl QueryId for Statement<'_> {
    type QueryId = ();
    // The text decides: diesel caches by it.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement<'_> {
    type SqlType = Untyped;
}

impl<C> RunQueryDsl<C> for Statement<'_> {}

/// The columns of one row, taken from left to right.
pub(crate) trait Columns {
    fn id(&mut self) -> deserialize::Result<Uuid>;
    fn opt_id(&mut self) -> deserialize::Result<Option<Uuid>>;
    fn int(&mut self) -> deserialize::Result<i32>;
    fn big(&mut self) -> deserialize::Result<i64>;
    fn opt_big(&mut self) -> deserialize::Result<Option<i64>>;
    fn text(&mut self) -> deserialize::Result<String>;
    fn opt_text(&mut self) -> deserialize::Result<Option<String>>;
    fn bytes(&mut self) -> deserialize::Result<Vec<u8>>;
    fn opt_bytes(&mut self) -> deserialize::Result<Option<Vec<u8>>>;
}

/// A value read from one row.
pub(crate) trait FromRow: Sized + 'static {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self>;
}

struct Cursor<'r, R> {
    row: &'r R,
    at: usize,
}

impl<R> Cursor<'_, R> {
    fn next(&mut self) -> usize {
        self.at += 1;
        self.at - 1
    }
}

/// Ties a row to its backend, so that [`Columns`] need not name it.
struct Typed<'r, R, DB>(Cursor<'r, R>, std::marker::PhantomData<DB>);

impl<'a, DB: Dialect, R: Row<'a, DB>> Columns for Typed<'_, R, DB> {
    fn id(&mut self) -> deserialize::Result<Uuid> {
        let at = self.0.next();
        DB::id(self.0.row, at)
    }
    fn opt_id(&mut self) -> deserialize::Result<Option<Uuid>> {
        let at = self.0.next();
        if DB::is_null(self.0.row, at) { Ok(None) } else { DB::id(self.0.row, at).map(Some) }
    }
    fn int(&mut self) -> deserialize::Result<i32> {
        let at = self.0.next();
        DB::int(self.0.row, at)
    }
    fn big(&mut self) -> deserialize::Result<i64> {
        let at = self.0.next();
        DB::big(self.0.row, at)
    }
    fn opt_big(&mut self) -> deserialize::Result<Option<i64>> {
        let at = self.0.next();
        if DB::is_null(self.0.row, at) { Ok(None) } else { DB::big(self.0.row, at).map(Some) }
    }
    fn text(&mut self) -> deserialize::Result<String> {
        let at = self.0.next();
        DB::text(self.0.row, at)
    }
    fn opt_text(&mut self) -> deserialize::Result<Option<String>> {
        let at = self.0.next();
        if DB::is_null(self.0.row, at) { Ok(None) } else { DB::text(self.0.row, at).map(Some) }
    }
    fn bytes(&mut self) -> deserialize::Result<Vec<u8>> {
        let at = self.0.next();
        DB::bytes(self.0.row, at)
    }
    fn opt_bytes(&mut self) -> deserialize::Result<Option<Vec<u8>>> {
        let at = self.0.next();
        if DB::is_null(self.0.row, at) { Ok(None) } else { DB::bytes(self.0.row, at).map(Some) }
    }
}

pub(crate) struct Loaded<T>(pub(crate) T);

impl<DB: Dialect, T: FromRow> QueryableByName<DB> for Loaded<T> {
    fn build<'a>(row: &impl NamedRow<'a, DB>) -> deserialize::Result<Self> {
        let mut columns = Typed(Cursor { row, at: 0 }, std::marker::PhantomData::<DB>);
        T::from_row(&mut columns).map(Self)
    }
}

impl FromRow for Uuid {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        columns.id()
    }
}

impl FromRow for i64 {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        columns.big()
    }
}

impl FromRow for String {
    fn from_row(columns: &mut dyn Columns) -> deserialize::Result<Self> {
        columns.text()
    }
}

/// A connection of diesel's that can run [`Statement`]s. They are run through [`Sql`].
pub(crate) trait SqlConn: diesel::Connection {
    /// Runs a statement; returns the number of rows it touched.
    fn run_statement(&mut self, statement: &Statement<'_>) -> QueryResult<usize>;

    /// Runs a statement and reads its rows.
    fn load_rows<T: FromRow>(&mut self, statement: &Statement<'_>) -> QueryResult<Vec<Loaded<T>>>;

    /// As [`Sql::transaction`].
    fn in_transaction<T>(
        conn: &mut Sql<'_, Self>,
        act: impl FnOnce(&mut Sql<'_, Self>) -> QueryResult<T>,
    ) -> QueryResult<T>;

    /// As [`Sql::nestable`].
    fn in_nestable<T>(
        conn: &mut Sql<'_, Self>,
        act: impl FnOnce(&mut Sql<'_, Self>) -> QueryResult<T>,
    ) -> QueryResult<T>;
}

/// A connection, and the names of the tables that statements on it are about.
///
/// The text of every statement has the names of the default, and is rendered here; for an installation with
/// default names it is sent as it stands.
pub(crate) struct Sql<'c, C> {
    pub(crate) raw: &'c mut C,
    pub(crate) tables: &'c Tables,
}

impl<'c, C: SqlConn> Sql<'c, C> {
    pub(crate) fn new(raw: &'c mut C, tables: &'c Tables) -> Self {
        Self { raw, tables }
    }

    /// For statements that name no table of ours.
    pub(crate) fn plain(raw: &'c mut C) -> Self {
        Self { raw, tables: Tables::DEFAULT }
    }

    /// Runs a statement; returns the number of rows it touched.
    pub(crate) fn run(&mut self, sql: &str, binds: &[Bind<'_>]) -> QueryResult<usize> {
        let sql = &*self.tables.render(sql);
        let done = self.raw.run_statement(&Statement { sql, binds });
        traced(sql, done, |rows| *rows).map_err(|error| self.tables.explain(error))
    }

    /// Runs a statement and reads its rows.
    pub(crate) fn rows<T: FromRow>(
        &mut self,
        sql: &str,
        binds: &[Bind<'_>],
    ) -> QueryResult<Vec<T>> {
        let sql = &*self.tables.render(sql);
        let loaded = self.raw.load_rows::<T>(&Statement { sql, binds });
        let rows = traced(sql, loaded, Vec::len).map_err(|error| self.tables.explain(error))?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// The first row, if any.
    pub(crate) fn row<T: FromRow>(
        &mut self,
        sql: &str,
        binds: &[Bind<'_>],
    ) -> QueryResult<Option<T>> {
        Ok(self.rows(sql, binds)?.into_iter().next())
    }

    /// Runs statements without binds or results, in one round trip where the engine can.
    pub(crate) fn batch(&mut self, sql: &str) -> QueryResult<()> {
        let sql = &*self.tables.render(sql);
        traced(sql, self.raw.batch_execute(sql), |()| 0).map_err(|error| self.tables.explain(error))
    }

    /// Runs in a transaction that may write. Never inside another one.
    pub(crate) fn transaction<T>(
        &mut self,
        act: impl FnOnce(&mut Sql<'_, C>) -> QueryResult<T>,
    ) -> QueryResult<T> {
        told(|| C::in_transaction(self, act))
    }

    /// The same with diesel's own means, so that `act` may begin others inside.
    pub(crate) fn nestable<T>(
        &mut self,
        act: impl FnOnce(&mut Sql<'_, C>) -> QueryResult<T>,
    ) -> QueryResult<T> {
        told(|| C::in_nestable(self, act))
    }
}

/// Implements [`SqlConn`] for a connection of diesel's, with its ways to begin a transaction: each takes the
/// connection and what is to be done in it.
macro_rules! sql_conn {
    ($conn:ty, $transaction:path, $nestable:path) => {
        impl SqlConn for $conn {
            fn run_statement(&mut self, statement: &Statement<'_>) -> QueryResult<usize> {
                (*statement).execute(self)
            }
            fn load_rows<T: FromRow>(
                &mut self,
                statement: &Statement<'_>,
            ) -> QueryResult<Vec<Loaded<T>>> {
                (*statement).load(self)
            }
            fn in_transaction<T>(
                conn: &mut Sql<'_, Self>,
                act: impl FnOnce(&mut Sql<'_, Self>) -> QueryResult<T>,
            ) -> QueryResult<T> {
                $transaction(conn, act)
            }
            fn in_nestable<T>(
                conn: &mut Sql<'_, Self>,
                act: impl FnOnce(&mut Sql<'_, Self>) -> QueryResult<T>,
            ) -> QueryResult<T> {
                $nestable(conn, act)
            }
        }
    };
}

/// A transaction of diesel's, which may begin others inside.
pub(crate) fn ansi_transaction<C: SqlConn, T>(
    conn: &mut Sql<'_, C>,
    act: impl FnOnce(&mut Sql<'_, C>) -> QueryResult<T>,
) -> QueryResult<T> {
    let tables = conn.tables;
    conn.raw.transaction(|raw| act(&mut Sql { raw, tables }))
}

/// Everything of [`Dialect`] but the binds and ids, which differ.
macro_rules! plain_reads {
    () => {
        fn int<'r>(row: &impl Row<'r, Self>, at: usize) -> deserialize::Result<i32> {
            row.get_value::<Integer, i32, usize>(at)
        }
        fn big<'r>(row: &impl Row<'r, Self>, at: usize) -> deserialize::Result<i64> {
            row.get_value::<BigInt, i64, usize>(at)
        }
        fn text<'r>(row: &impl Row<'r, Self>, at: usize) -> deserialize::Result<String> {
            row.get_value::<Text, String, usize>(at)
        }
        fn bytes<'r>(row: &impl Row<'r, Self>, at: usize) -> deserialize::Result<Vec<u8>> {
            row.get_value::<Binary, Vec<u8>, usize>(at)
        }
        fn is_null<'r>(row: &impl Row<'r, Self>, at: usize) -> bool {
            use diesel::row::Field;
            row.get(at).is_none_or(|field| field.is_null())
        }
    };
}

/// Binds and ids of engines without a UUID type: 16 bytes.
#[cfg(any(feature = "sqlite", feature = "mysql"))]
macro_rules! dialect_with_binary_ids {
    ($backend:ty) => {
        impl Dialect for $backend {
            fn bind<'b>(out: &mut AstPass<'_, 'b, Self>, bind: &'b Bind<'b>) -> QueryResult<()> {
                match bind {
                    Bind::Int(value) => out.push_bind_param::<Integer, _>(value),
                    Bind::Big(value) => out.push_bind_param::<BigInt, _>(value),
                    Bind::OptBig(value) => out.push_bind_param::<Nullable<BigInt>, _>(value),
                    Bind::Text(value) => out.push_bind_param::<Text, str>(value),
                    Bind::OptText(value) => out.push_bind_param::<Nullable<Text>, _>(value),
                    Bind::Bytes(value) => out.push_bind_param::<Binary, [u8]>(value),
                    Bind::OptBytes(value) => out.push_bind_param::<Nullable<Binary>, _>(value),
                    Bind::Id(value) => out.push_bind_param::<Binary, [u8]>(value.as_bytes()),
                    #[cfg(feature = "postgres")]
                    Bind::Array(_) => Err(diesel::result::Error::QueryBuilderError(
                        "arrays exist on PostgreSQL only".into(),
                    )),
                }
            }
            fn id<'r>(row: &impl Row<'r, Self>, at: usize) -> deserialize::Result<Uuid> {
                let bytes: Vec<u8> = row.get_value::<Binary, Vec<u8>, usize>(at)?;
                Ok(Uuid::from_slice(&bytes)?)
            }
            plain_reads!();
        }
    };
}

#[cfg(any(feature = "sqlite", feature = "mysql"))]
pub(crate) use dialect_with_binary_ids;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) use {plain_reads, sql_conn};
