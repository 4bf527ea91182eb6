//! Statements over many rows: `VALUES (..), (..)` and `IN (..)` lists in a few fixed lengths.
//!
//! The lengths are powers of four, so that a connection keeps at most six prepared statements of
//! each shape whatever the number of rows.

use diesel::result::QueryResult;
use uuid::Uuid;

use crate::sql::{Bind, FromRow, SqlConn};

/// PostgreSQL and MySQL take 65,535 binds in a statement, SQLite 32,766.
const MOST_BINDS: usize = 16_384;

/// Longer lists gain nothing.
const LONGEST: usize = 1_024;

/// The largest fixed length that fits the rows left and the binds of one row.
fn length(rows: usize, binds_per_row: usize) -> usize {
    let mut length = LONGEST;
    while length > 1 && (length > rows || length * binds_per_row > MOST_BINDS) {
        length /= 4;
    }
    length
}

/// Inserts rows: `head` is `INSERT INTO t (..) VALUES `, `row` one parenthesis with its `?`s.
pub(crate) fn insert_rows<C: SqlConn>(
    conn: &mut C,
    head: &str,
    row: &str,
    rows: &[Vec<Bind<'_>>],
    tail: &str,
) -> QueryResult<usize> {
    let mut done = 0;
    let mut rest = rows;
    while let Some(first) = rest.first() {
        let (now, later) = rest.split_at(length(rest.len(), first.len()));
        rest = later;
        let mut sql = String::with_capacity(head.len() + now.len() * (row.len() + 1) + tail.len());
        sql.push_str(head);
        for place in 0..now.len() {
            if place > 0 {
                sql.push(',');
            }
            sql.push_str(row);
        }
        sql.push_str(tail);
        let binds: Vec<_> = now.iter().flatten().copied().collect();
        done += conn.run(&sql, &binds)?;
    }
    Ok(done)
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

/// Runs `head (ids)` for all ids, in pieces; `before` are the binds of the head.
pub(crate) fn run_in<C: SqlConn>(
    conn: &mut C,
    head: &str,
    before: &[Bind<'_>],
    ids: &[Uuid],
) -> QueryResult<usize> {
    let mut done = 0;
    in_lists(ids, |marks, ids| {
        let binds: Vec<_> = before.iter().copied().chain(ids).collect();
        done += conn.run(&format!("{head} ({marks})"), &binds)?;
        Ok(())
    })?;
    Ok(done)
}

/// Reads `head (ids) tail` for all ids, in pieces.
pub(crate) fn rows_in<C: SqlConn, T: FromRow>(
    conn: &mut C,
    head: &str,
    before: &[Bind<'_>],
    ids: &[Uuid],
    tail: &str,
) -> QueryResult<Vec<T>> {
    let mut rows = Vec::with_capacity(ids.len());
    in_lists(ids, |marks, ids| {
        let binds: Vec<_> = before.iter().copied().chain(ids).collect();
        rows.extend(conn.rows::<T>(&format!("{head} ({marks}){tail}"), &binds)?);
        Ok(())
    })?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::length;

    #[test]
    fn lengths_are_few_fit_the_rows_and_the_binds() {
        for rows in 1..5_000 {
            let length = length(rows, 9);
            assert!(length <= rows && length * 9 <= super::MOST_BINDS);
            assert!([1, 4, 16, 64, 256, 1_024].contains(&length));
        }
    }
}
