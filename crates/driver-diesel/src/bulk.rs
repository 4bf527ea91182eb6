//! Statements over many rows: `VALUES (..), (..)` and `IN (..)` lists in a few fixed lengths.
//!
//! The lengths are powers of four, so that a connection keeps at most six prepared statements of
//! each shape whatever the number of rows.

use diesel::result::QueryResult;
use uuid::Uuid;

use crate::sql::{Bind, FromRow, Sql, SqlConn};

/// PostgreSQL and MySQL take 65,535 binds in a statement, SQLite 32,766.
const MAX_BINDS: usize = 16_384;

/// Longer lists gain nothing.
const MAX_ROWS: usize = 1_024;

/// Values of one statement may have so many bytes, unless one row alone has more: a server limits the
/// size of a packet. `max_allowed_packet` is 16 MiB by default on MariaDB and 64 MiB on MySQL, but 1 MiB
/// in settings that old versions left behind, and a larger packet ends the connection. Longer statements
/// gain nothing.
const MAX_BYTES: usize = 512 * 1024;

/// The largest fixed length that fits the rows left and the binds of one row.
fn length(rows: usize, binds_per_row: usize) -> usize {
    let mut length = MAX_ROWS;
    while length > 1 && (length > rows || length * binds_per_row > MAX_BINDS) {
        length /= 4;
    }
    length
}

/// Inserts rows: `head` is `INSERT INTO t (..) VALUES `, `row` one parenthesis with its `?`s.
pub(crate) fn insert_rows<'b, C: SqlConn, R: AsRef<[Bind<'b>]>>(
    conn: &mut Sql<'_, C>,
    head: &str,
    row: &str,
    rows: &[R],
    tail: &str,
) -> QueryResult<usize> {
    let mut done = 0;
    let mut rest = rows;
    while let Some(first) = rest.first() {
        let width = first.as_ref().len();
        let mut fit = length(rest.len(), width);
        let mut bytes = 0;
        let within = |row: &&R| {
            bytes += row.as_ref().iter().map(Bind::bytes).sum::<usize>();
            bytes <= MAX_BYTES
        };
        let small = rest[..fit].iter().take_while(within).count();
        if small < fit {
            fit = length(small.max(1), width);
        }
        let (now, later) = rest.split_at(fit);
        rest = later;
        let binds: Vec<_> = now.iter().flat_map(|row| row.as_ref()).copied().collect();
        done += conn.run(&rows_sql(head, row, now.len(), tail), &binds)?;
    }
    Ok(done)
}

/// The same for rows of a fixed width, after binds of `head` that all rows share.
#[cfg(feature = "sqlite")]
pub(crate) fn insert_rows_from<'b, C: SqlConn, const WIDTH: usize>(
    conn: &mut Sql<'_, C>,
    head: &str,
    shared: &[Bind<'b>],
    row: &str,
    mut rows: impl ExactSizeIterator<Item = [Bind<'b>; WIDTH]>,
    tail: &str,
) -> QueryResult<usize> {
    let mut done = 0;
    while rows.len() > 0 {
        let now = length(rows.len(), WIDTH);
        let mut binds = Vec::with_capacity(shared.len() + now * WIDTH);
        binds.extend_from_slice(shared);
        binds.extend(rows.by_ref().take(now).flatten());
        done += conn.run(&rows_sql(head, row, now, tail), &binds)?;
    }
    Ok(done)
}

fn rows_sql(head: &str, row: &str, rows: usize, tail: &str) -> String {
    let mut sql = String::with_capacity(head.len() + rows * (row.len() + 1) + tail.len());
    sql.push_str(head);
    for place in 0..rows {
        if place > 0 {
            sql.push(',');
        }
        sql.push_str(row);
    }
    sql.push_str(tail);
    sql
}

/// Calls `act` with pieces of the ids and the fitting `?,?,…`.
fn in_lists<'i>(
    ids: &'i [Uuid],
    mut act: impl FnMut(&str, &mut dyn Iterator<Item = Bind<'i>>) -> QueryResult<()>,
) -> QueryResult<()> {
    let mut rest = ids;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(length(rest.len(), 1));
        rest = later;
        let marks = ["?"].repeat(now.len()).join(",");
        act(&marks, &mut now.iter().map(Bind::Id))?;
    }
    Ok(())
}

/// Reads `head (ids) tail` for all ids, in pieces; `binds` are those of `head`.
pub(crate) fn rows_in<C: SqlConn, T: FromRow>(
    conn: &mut Sql<'_, C>,
    head: &str,
    binds: &[Bind<'_>],
    ids: &[Uuid],
    tail: &str,
) -> QueryResult<Vec<T>> {
    let mut rows = Vec::with_capacity(ids.len());
    in_lists(ids, |marks, ids| {
        let binds: Vec<_> = binds.iter().copied().chain(ids).collect();
        rows.extend(conn.rows::<T>(&format!("{head} ({marks}){tail}"), &binds)?);
        Ok(())
    })?;
    Ok(rows)
}

/// Rows of one table that are found by an id.
pub(crate) struct Keyed<'a> {
    pub(crate) table: &'a str,
    /// The column with the id; an index begins with it.
    pub(crate) key: &'a str,
    /// A further condition, or nothing.
    pub(crate) only: &'a str,
    /// The binds of `only`.
    pub(crate) binds: &'a [Bind<'a>],
}

impl<'a> Keyed<'a> {
    /// By the column `id`, without a condition.
    pub(crate) const fn table(table: &'a str) -> Self {
        Self { table, key: "id", only: "", binds: &[] }
    }

    /// The same rows, if this holds for them.
    pub(crate) const fn only(self, only: &'a str, binds: &'a [Bind<'a>]) -> Self {
        Self { only, binds, ..self }
    }

    fn condition(&self, marks: &str) -> String {
        let and = if self.only.is_empty() { "" } else { " AND " };
        format!("{}{and}{} IN ({marks})", self.only, self.key)
    }
}

/// As [`Engine::rows_by_id`](crate::engine::Engine::rows_by_id), with lists in fixed lengths.
pub(crate) fn rows_by_id<C: SqlConn, T: FromRow>(
    conn: &mut Sql<'_, C>,
    columns: &str,
    keyed: &Keyed<'_>,
    ids: &[Uuid],
    lock: &str,
) -> QueryResult<Vec<T>> {
    let mut rows = Vec::with_capacity(ids.len());
    in_lists(ids, |marks, ids| {
        let binds: Vec<_> = keyed.binds.iter().copied().chain(ids).collect();
        let (table, condition) = (keyed.table, keyed.condition(marks));
        let sql = format!("SELECT {columns} FROM {table} x WHERE {condition}{lock}");
        rows.extend(conn.rows::<T>(&sql, &binds)?);
        Ok(())
    })?;
    Ok(rows)
}

/// As [`Engine::delete_by_id`](crate::engine::Engine::delete_by_id), with lists in fixed lengths.
pub(crate) fn delete_by_id<C: SqlConn>(
    conn: &mut Sql<'_, C>,
    keyed: &Keyed<'_>,
    ids: &[Uuid],
) -> QueryResult<usize> {
    let mut done = 0;
    in_lists(ids, |marks, ids| {
        let binds: Vec<_> = keyed.binds.iter().copied().chain(ids).collect();
        let sql = format!("DELETE FROM {} WHERE {}", keyed.table, keyed.condition(marks));
        done += conn.run(&sql, &binds)?;
        Ok(())
    })?;
    Ok(done)
}

/// As [`Engine::update_by_id`](crate::engine::Engine::update_by_id), with lists in fixed lengths.
pub(crate) fn update_by_id<C: SqlConn>(
    conn: &mut Sql<'_, C>,
    set: &str,
    set_binds: &[Bind<'_>],
    keyed: &Keyed<'_>,
    ids: &[Uuid],
) -> QueryResult<usize> {
    let mut done = 0;
    in_lists(ids, |marks, ids| {
        let before = set_binds.iter().chain(keyed.binds).copied();
        let binds: Vec<_> = before.chain(ids).collect();
        let sql = format!("UPDATE {} SET {set} WHERE {}", keyed.table, keyed.condition(marks));
        done += conn.run(&sql, &binds)?;
        Ok(())
    })?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::length;

    #[test]
    fn lengths_are_few_fit_the_rows_and_the_binds() {
        for rows in 1..5_000 {
            let length = length(rows, 9);
            assert!(length <= rows && length * 9 <= super::MAX_BINDS);
            assert!([1, 4, 16, 64, 256, 1_024].contains(&length));
        }
    }
}
